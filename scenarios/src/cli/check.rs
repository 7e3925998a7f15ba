//! `check` and `compare`: thin doors to the `ci` crate.

use std::path::{Path, PathBuf};

use ci::{Answer, CheckError, CheckOptions, Format};
use clap::Args;

use super::{Failure, Outcome, RUN_FAILED, deliver, print};

/// The command `check`.
#[derive(Args)]
#[command(
    after_long_help = "Deterministic metrics (bytes, accepted tokens, perplexity, exactness) gate always. Wall-clock gates \
only where base and head ran interleaved in one job: see `infermark bench-against`.

Exit codes:
  0  pass; also no baseline named, undecided or not comparable: the last line says which
  1  something got worse, or a claim is refuted that the baseline did not refute
  2  wrong usage: a path, a policy, or a baseline that is not there, cannot be read or is of another scenario
  3  the run to judge failed, was not finished or cannot be read
  4  with --strict: undecided, not comparable, or no baseline named"
)]
pub struct Check {
    /// A run directory, or a folder of them of which the newest of the same scenario is taken
    #[arg(long, value_name = "DIR")]
    baseline: Option<PathBuf>,
    /// The run directory to judge
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// A policy instead of the shipped one
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Undecided is a failure (exit code 4)
    #[arg(long)]
    strict: bool,
    /// Compare across machines, labelled as such
    #[arg(long)]
    allow_different_hardware: bool,
    /// console, markdown (a pull-request comment), junit, annotations or json
    #[arg(long, default_value = "console", value_parser = str::parse::<Format>)]
    format: Format,
    /// Write there instead of standard output, which then gets the verdict alone
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Check {
    pub(super) fn obey(&self) -> Outcome {
        let options = CheckOptions {
            baseline: self.baseline.clone(),
            head: self.run.clone(),
            policy: self.policy.clone(),
            strict: self.strict,
            allow_different_hardware: self.allow_different_hardware,
            format: self.format,
        };
        let answer = ci::run_check(&options).map_err(blame)?;
        give(&answer, self.output.as_deref())?;
        if self.output.is_some() {
            print(&format!("{}\n", answer.word))?;
        }
        Ok(answer.code)
    }
}

/// Writes an answer where it was asked for.
fn give(answer: &Answer, output: Option<&Path>) -> Result<(), Failure> {
    deliver(output.unwrap_or(Path::new("-")), |out| Ok(out.write_all(answer.text.as_bytes())?))
}

/// Sorts the errors of `ci` by its own exit codes.
pub fn blame(error: CheckError) -> Failure {
    match error.exit_code() {
        RUN_FAILED => Failure::Run(error.into()),
        _ => Failure::Usage(error.into()),
    }
}

/// The command `compare`.
#[derive(Args)]
#[command(after_long_help = "Every metric that both runs have, cell by cell, with its change and no judgement.

Exit codes: 0 the runs share at least one metric, 2 wrong usage or two runs that share none, 3 a run cannot be read.")]
pub struct Compare {
    /// A run directory
    #[arg(value_name = "A")]
    a: PathBuf,
    /// Another one
    #[arg(value_name = "B")]
    b: PathBuf,
    /// console, markdown or json
    #[arg(long, default_value = "console", value_parser = str::parse::<Format>)]
    format: Format,
    /// Write there instead of standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Compare {
    pub(super) fn obey(&self) -> Outcome {
        let answer = ci::run_compare(&self.a, &self.b, self.format).map_err(blame)?;
        give(&answer, self.output.as_deref())?;
        Ok(answer.code)
    }
}
