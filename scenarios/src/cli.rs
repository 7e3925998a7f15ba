//! The command line: one file per command, one meaning per exit code.

mod bench_against;
mod changes;
mod check;
mod convert;
mod doctor;
mod engine_choice;
mod export;
mod find;
mod generate;
mod input;
mod list;
mod logits;
mod overrides;
mod perplexity;
mod plan;
mod quantize;
mod run;
mod table;
mod tokenize;

use std::io::{ErrorKind, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::diagnostic::Diagnostics;
use crate::output;

/// Everything asked for held.
pub const PASS: u8 = 0;
/// A claim was refuted, or a gate found a regression.
pub const REFUTED: u8 = 1;
/// The command line or a scenario file is wrong.
pub const USAGE: u8 = 2;
/// A run, or what it needs, failed.
pub const RUN_FAILED: u8 = 3;
/// The measurement does not decide.
pub const INCONCLUSIVE: u8 = 4;
/// Nothing was measured, or one of the workloads on no cell.
pub const SKIPPED: u8 = 5;

/// Why a command ends without a result.
#[derive(Debug)]
pub enum Failure {
    /// What the caller wrote is wrong.
    Usage(anyhow::Error),
    /// What was asked for could not be done.
    Run(anyhow::Error),
}

/// What a command comes to: an exit code, or a failure.
pub type Outcome = Result<u8, Failure>;

/// Says whose fault an error is.
pub trait Blame<T> {
    /// The caller's.
    fn usage(self) -> Result<T, Failure>;
    /// The machine's, the network's, a file's.
    fn failed(self) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> Blame<T> for Result<T, E> {
    fn usage(self) -> Result<T, Failure> {
        self.map_err(|error| Failure::Usage(error.into()))
    }

    fn failed(self) -> Result<T, Failure> {
        self.map_err(|error| Failure::Run(error.into()))
    }
}

/// Benchmarks and reproductions of LLM inference techniques, one engine, one scenario file each.
#[derive(Parser)]
#[command(name = "infermark", version, propagate_version = true, arg_required_else_help = true, max_term_width = 100)]
#[command(long_about = "Benchmarks and reproductions of LLM inference techniques.

A scenario is a TOML file that asks a question and lists parts: attention variants, weight formats, caches, decoding \
methods. Every combination is a cell: a process of its own, checked for correctness before and after it is timed, its \
repetitions interleaved with those of the other cells. The results are tidy Parquet files and one HTML report that \
needs no network.")]
#[command(after_long_help = "Start here:
  infermark run quickstart            compare attention, weights and decoding in about three minutes
  infermark list                      the scenarios inside this program
  infermark show smoke > mine.toml    a file to start from (set `name` to the file's name)
  infermark plan mine.toml            what would run, and what would be skipped and why
  infermark doctor                    what this machine can measure

Exit codes: 0 pass, 1 regression or refuted claim, 2 wrong usage, path or scenario, 3 a run failed or is incomplete, \
4 inconclusive (--strict), 5 skipped (a workload was measured on no cell), 130 stopped by Ctrl-C, 143 by SIGTERM.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure a scenario and write its report
    Run(run::Run),
    /// List the scenarios inside this program
    List(list::List),
    /// Show what a scenario would run, what it would skip and why; reads no weights
    Plan(plan::Plan),
    /// Print the TOML of a scenario: a starting point for your own
    Show(list::Show),
    /// Write report.html of a run again
    Report(run::Report),
    /// Judge a run against a baseline under a policy
    Check(check::Check),
    /// Lay two runs beside each other, without a verdict
    Compare(check::Compare),
    /// Write a run's rows as CSV, llama-bench JSON lines or github-action-benchmark JSON
    Export(export::Export),
    /// Write a checkpoint as a GGUF file
    Convert(convert::Convert),
    /// Say what this machine, this build and this environment can measure
    Doctor(doctor::Doctor),
    /// Print the logits of a few tokens, for comparing with another implementation
    Logits(logits::Logits),
    /// Continue a prompt
    Generate(Box<generate::Generate>),
    /// Cut a text into the model's tokens
    Tokenize(tokenize::Tokenize),
    /// Join token ids to a text
    Detokenize(tokenize::Detokenize),
    /// Perplexity of a text
    Perplexity(perplexity::Perplexity),
    /// Quantize a checkpoint into a Hugging Face folder, layer by layer, with a report of its quality
    Quantize(quantize::Quantize),
    /// Build another commit and measure it against this build, interleaved
    BenchAgainst(bench_against::BenchAgainst),
    /// Hold a cell and obey the runner on standard input
    #[command(hide = true)]
    Worker,
}

/// Parses the command line and obeys it.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(command) => command.obey(),
        Command::List(command) => command.obey(),
        Command::Plan(command) => command.obey(),
        Command::Show(command) => command.obey(),
        Command::Report(command) => command.obey(),
        Command::Check(command) => command.obey(),
        Command::Compare(command) => command.obey(),
        Command::Export(command) => command.obey(),
        Command::Convert(command) => command.obey(),
        Command::Doctor(command) => command.obey(),
        Command::Logits(command) => command.obey(),
        Command::Generate(command) => command.obey(),
        Command::Tokenize(command) => command.obey(),
        Command::Detokenize(command) => command.obey(),
        Command::Perplexity(command) => command.obey(),
        Command::Quantize(command) => command.obey(),
        Command::BenchAgainst(command) => command.obey(),
        Command::Worker => crate::worker::main().map(|()| PASS).failed(),
    };
    ExitCode::from(match outcome {
        Ok(code) => code,
        Err(Failure::Usage(error)) => explain(&error, USAGE),
        Err(Failure::Run(error)) => explain(&error, RUN_FAILED),
    })
}

/// Tells the person what is wrong, on standard error.
fn explain(error: &anyhow::Error, code: u8) -> u8 {
    let colour = std::io::stderr().is_terminal();
    let text = match error.downcast_ref::<Diagnostics>() {
        Some(diagnostics) => diagnostics.render(colour),
        None if colour => format!("\x1b[1;31merror\x1b[0m: {}", with_causes(error)),
        None => format!("error: {}", with_causes(error)),
    };
    output::note(&text);
    code
}

/// An error and what caused it; a cause that the error's own words repeat is said once.
fn with_causes(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(|cause| cause.to_string()) {
        match (text.is_empty(), text.contains(&cause)) {
            (true, _) => text = cause,
            (false, false) => text += &format!(": {cause}"),
            (false, true) => {}
        }
    }
    text
}

/// Writes to standard output; a reader that has seen enough (`| head`) is no error.
pub fn print(text: &str) -> Result<(), Failure> {
    output::say(text).failed().map(|_| ())
}

/// Lets `write` write the file, or standard output where it is called `-`. A place that does not exist is the caller's mistake.
pub fn deliver(file: &Path, write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>) -> Result<(), Failure> {
    match output::deliver(file, write) {
        Ok(_) => Ok(()),
        Err(error) => {
            let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
            let misplaced = [ErrorKind::NotFound, ErrorKind::NotADirectory, ErrorKind::IsADirectory];
            if kind.is_some_and(|kind| misplaced.contains(&kind)) { Err(error).usage() } else { Err(error).failed() }
        }
    }
}

/// Text or JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Shape {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// `value` as indented JSON and a newline.
pub fn json(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map(|text| text + "\n").failed()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn a_cause_is_said_once() {
        let inner = std::io::Error::other("no room");
        let error = anyhow::Error::from(inner).context("x.txt: no room left: no room").context("cannot go on");
        assert_eq!(super::with_causes(&error), "cannot go on: x.txt: no room left: no room");
    }

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
