//! `run` and `report`.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;
use results::claim::ClaimResult;

use super::find::{self, Found};
use super::{Blame, Failure, INCONCLUSIVE, Outcome, PASS, RUN_FAILED, plan, print};
use crate::output;
use crate::runner::{self, RunOutcome, RunRequest};
use crate::stopwatch::utc_now;

/// The command `run`.
#[derive(Args)]
#[command(
    after_long_help = "The run directory holds observations.parquet, provenance.parquet, claims.json, summary.json, \
scenario.toml and report.html. Whatever is measured is on disk before the next measurement starts: after Ctrl-C, \
`infermark report DIR` shows what there is and `infermark run --resume DIR` continues.

Examples:
  infermark run quickstart
  infermark run mine.toml --output results/runs/mine
  infermark run quickstart --set weights=f32,int8 --set budget.seconds=20
  infermark run --resume results/runs/20261123T074532Z-quickstart"
)]
pub struct Run {
    /// Name of a scenario, or the path of a .toml file
    #[arg(value_name = "NAME|FILE.toml", required_unless_present = "resume")]
    scenario: Option<String>,
    /// Where results go [default: results/runs/DATE-NAME, in UTC]
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    output: Option<PathBuf>,
    /// Continue an unfinished run (give the file too when the scenario names files beside it)
    #[arg(long, value_name = "DIR")]
    resume: Option<PathBuf>,
    /// Run only cells whose id contains this; the reference always runs
    #[arg(long, value_name = "TEXT")]
    cells: Option<String>,
    /// Another value for an axis (weights=f32,int8) or a field (budget.seconds=10)
    #[arg(long = "set", value_name = "KEY=VALUE", conflicts_with = "resume")]
    sets: Vec<String>,
    /// Python that has the other engines of a scenario (PyTorch, llama-cpp-python, Triton) [default: python3]
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// A claim that stays open fails the run (exit code 4)
    #[arg(long)]
    strict: bool,
    /// Do not write report.html
    #[arg(long)]
    no_report: bool,
    /// No progress, results only
    #[arg(long, short)]
    quiet: bool,
}

impl Run {
    pub(super) fn obey(&self) -> Outcome {
        let scenario = find::resolve(self.found()?, &self.sets)?;
        find::fetch_models(&scenario)?;
        let output = match self.resume.as_ref().or(self.output.as_ref()) {
            Some(folder) => folder.clone(),
            None => default_output(&scenario.scenario.name),
        };
        self.check_filter(&scenario)?;
        if output.exists() && !output.is_dir() {
            return Err(anyhow!("{}: is a file; expected a folder to make", output.display())).usage();
        }
        let occupied = std::fs::read_dir(&output).is_ok_and(|mut entries| entries.next().is_some());
        if occupied && self.resume.is_none() {
            let problem =
                anyhow!("{}: not empty; choose another folder, or continue it with --resume", output.display());
            return Err(problem).usage();
        }
        plan::never_run(&scenario).iter().for_each(|line| output::note(&format!("note: {line}")));
        let request = RunRequest {
            scenario,
            output,
            resume: self.resume.is_some(),
            cells_filter: self.cells.clone(),
            command: command_line(),
            python: find::python(self.python.as_deref())?,
            quiet: self.quiet,
        };
        finish(runner::run(request).failed()?, !self.no_report, self.strict)
    }

    fn found(&self) -> Result<Found, Failure> {
        let kept = |folder: &Path| {
            let file = folder.join("scenario.toml");
            std::fs::read_to_string(&file)
                .with_context(|| format!("{}: cannot read it, so this is no run to continue", file.display()))
        };
        match (&self.scenario, &self.resume) {
            (Some(given), None) => find::find(given),
            (None, Some(folder)) => Ok(Found { text: kept(folder).usage()?, file: None }),
            (Some(given), Some(folder)) => {
                let found = find::find(given)?;
                match kept(folder).usage()? == found.text {
                    true => Ok(found),
                    false => Err(anyhow!("{} was made from another version of `{given}`; continue it without naming the scenario, or start a new run", folder.display())).usage(),
                }
            }
            (None, None) => Err(anyhow!("name a scenario, or a run to continue with --resume")).usage(),
        }
    }

    fn check_filter(&self, scenario: &crate::cell::ResolvedScenario) -> Result<(), Failure> {
        let Some(text) = &self.cells else { return Ok(()) };
        if scenario.cells.iter().any(|cell| cell.id.contains(text.as_str())) {
            return Ok(());
        }
        let ids: Vec<&str> = scenario.cells.iter().take(12).map(|cell| cell.id.as_str()).collect();
        Err(anyhow!("--cells {text}: no cell's id contains it; there are {}", ids.join(", "))).usage()
    }
}

/// Writes the report, prints what a person wants to know last, and turns the outcome into an exit code.
pub fn finish(outcome: RunOutcome, report: bool, strict: bool) -> Outcome {
    let mut last = String::new();
    for line in &outcome.summary.answer {
        last += &format!("{line}\n");
    }
    if report {
        let path = report::write(&outcome.run_dir).failed()?;
        last += &format!("report: {}\n", path.display());
    } else {
        last += &format!("run: {}\n", outcome.run_dir.display());
    }
    outcome.claims.iter().for_each(|claim| last += &claim_line(claim));
    let word = match outcome.exit {
        PASS => "pass",
        RUN_FAILED if !outcome.summary.complete => "incomplete",
        RUN_FAILED => "failed",
        INCONCLUSIVE => "inconclusive",
        _ => "refuted",
    };
    print(&format!("{last}{word}\n"))?;
    Ok(if outcome.exit == INCONCLUSIVE && !strict { PASS } else { outcome.exit })
}

fn claim_line(claim: &ClaimResult) -> String {
    let measured = claim.measured.map_or(String::new(), |value| {
        let interval = claim.interval.map_or(String::new(), |(low, high)| format!(" [{low:.4}, {high:.4}]"));
        format!(": {value:.4}{interval} {}", claim.unit)
    });
    format!("claim {}: {}{}{}\n", claim.id, claim.verdict.word(), measured.trim_end(), share(claim))
}

/// How much of the paper's effect the number on the line is, or how far from parity it is.
fn share(claim: &ClaimResult) -> String {
    claim.found().map_or(String::new(), |words| format!("; {words}"))
}

/// `results/runs/20261123T074532Z-quickstart`.
pub fn default_output(name: &str) -> PathBuf {
    let date = utc_now().replace([':', '-'], "");
    Path::new("results").join("runs").join(format!("{date}-{name}"))
}

/// The command line as it can be typed again.
pub fn command_line() -> String {
    let quote = |word: String| {
        let plain = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:=@,+#".contains(c));
        if plain { word } else { format!("'{}'", word.replace('\'', r"'\''")) }
    };
    let words = std::env::args_os().skip(1).map(|word| quote(word.to_string_lossy().into_owned()));
    std::iter::once("infermark".to_string()).chain(words).collect::<Vec<_>>().join(" ")
}

/// The command `report`.
#[derive(Args)]
pub struct Report {
    /// A run directory
    #[arg(value_name = "RUN")]
    run: PathBuf,
}

impl Report {
    pub(super) fn obey(&self) -> Outcome {
        find::run(&self.run)?;
        let path = report::write(&self.run).failed()?;
        print(&format!("{}\n", path.display()))?;
        Ok(PASS)
    }
}
