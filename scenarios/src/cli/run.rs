//! `run` and `report`.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;
use results::claim::{ClaimResult, Verdict};
use results::run::{Run as RunRows, is_occupied};
use results::summary::Ending;

use super::changes::Changes;
use super::find::{self, Found};
use super::{Blame, Failure, INCONCLUSIVE, Outcome, PASS, plan, print};
use crate::cell::ResolvedScenario;
use crate::output::{self, quoted};
use crate::runner::{self, Asked, Refusal, RunOutcome, RunRequest};
use crate::stopwatch::utc_now;

/// Longest reason beside a claim; the report has the whole of it.
const REASON_CHARS: usize = 160;

/// The command `run`.
#[derive(Args)]
#[command(
    after_long_help = "The run directory holds observations.parquet, provenance.parquet, claims.json, summary.json, \
scenario.toml and report.html. Whatever is measured is on disk before the next measurement starts. Ctrl-C or SIGTERM stops \
the run within seconds and prints the command that continues it (a second one ends at once); after a kill, `infermark report \
DIR` shows what there is and `infermark run --resume DIR` continues. A run that is continued keeps its cells, models, texts \
and threads, and has its time budget anew; --set may then change budget.seconds, budget.min_repetitions, budget.max_repetitions and budget.precision.

The last line is the word for how the run ended, the first of these that fits:
  interrupted   exit code 130 (Ctrl-C) or 143 (SIGTERM): somebody stopped it
  failed        3: a cell failed or computes something wrong, or a claim could not be measured
  incomplete    3: cells or repetitions are still owed
  refuted       1: a claim was tested and refuted
  skipped       5: a workload was measured on no cell, or nothing was measured at all
  inconclusive  0 (4 with --strict): a claim was tested and stays open
  pass          0

Examples:
  infermark run quickstart
  infermark run real-model --model model.gguf --max-loss 2% --max-memory 1GiB
  infermark run mine.toml --output results/runs/mine
  infermark run quickstart --set weights=f32,int8 --set budget.seconds=20
  infermark run --resume results/runs/20261123T074532Z-quickstart
  infermark run --resume results/runs/20261123T074532Z-quickstart --set budget.seconds=120"
)]
pub struct Run {
    /// Name of a scenario, or the path of a .toml file
    #[arg(value_name = "NAME|FILE.toml", required_unless_present = "resume")]
    scenario: Option<String>,
    /// Where results go [default: results/runs/DATE-NAME, in UTC]
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    output: Option<PathBuf>,
    /// Continue an unfinished run
    #[arg(long, value_name = "DIR")]
    resume: Option<PathBuf>,
    /// Continue a run that another build of this program began; a caveat then says which rows are whose
    #[arg(long, requires = "resume")]
    allow_other_build: bool,
    /// Run only cells whose id contains this; the reference always runs
    #[arg(long, value_name = "TEXT")]
    cells: Option<String>,
    #[command(flatten)]
    changes: Changes,
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
        if self.resume.is_some() {
            self.changes.check_resumed()?;
        }
        let found = self.found()?;
        let named = found.file.as_ref().filter(|_| self.resume.is_none());
        let file_blake3 = named.map(|_| blake3::hash(found.text.as_bytes()).to_hex().to_string());
        let scenario = match &self.resume {
            None => find::resolve(found, &self.changes)?,
            Some(_) => self.with_budget(find::resolve(found, &Changes::default())?)?,
        };
        find::fetch_models(&scenario)?;
        self.check_filter(&scenario)?;
        let output = match self.resume.as_ref().or(self.output.as_ref()) {
            Some(folder) => folder.clone(),
            None => default_output(&scenario.scenario.name)?,
        };
        if output.exists() && !output.is_dir() {
            return Err(anyhow!("{}: is a file; expected a folder to make", output.display())).usage();
        }
        if self.resume.is_none() && is_occupied(&output).failed()? {
            let problem =
                anyhow!("{}: not empty; choose another folder, or continue it with --resume", output.display());
            return Err(problem).usage();
        }
        plan::never_run(&scenario).iter().for_each(|line| output::note(&format!("note: {line}")));
        let sets = if self.resume.is_some() { self.changes.sets.clone() } else { vec![] };
        let asked = Asked { command: command_line(), continue_with: self.continue_with(&output), sets, file_blake3 };
        let request = RunRequest {
            scenario,
            output,
            resume: self.resume.is_some(),
            cells_filter: self.cells.clone(),
            asked,
            allow_other_build: self.allow_other_build,
            python: find::python(self.python.as_deref())?,
            quiet: self.quiet,
        };
        let outcome = runner::run(request).map_err(|error| match error.downcast_ref::<Refusal>() {
            Some(_) => Failure::Usage(error),
            None => Failure::Run(error),
        });
        finish(outcome?, !self.no_report, self.strict)
    }

    /// The command that continues this run, whatever ends it.
    fn continue_with(&self, output: &Path) -> String {
        let mut words =
            vec!["infermark".to_string(), "run".into(), "--resume".into(), quoted(&output.to_string_lossy())];
        let mut option = |name: &str, value: &str| words.extend([name.to_string(), quoted(value)]);
        if let Some(text) = &self.cells {
            option("--cells", text);
        }
        if let Some(python) = &self.python {
            option("--python", &python.to_string_lossy());
        }
        if self.resume.is_some() {
            self.changes.sets.iter().for_each(|set| option("--set", set));
        }
        let switches = [
            (self.allow_other_build, "--allow-other-build"),
            (self.strict, "--strict"),
            (self.no_report, "--no-report"),
            (self.quiet, "--quiet"),
        ];
        words.extend(switches.iter().filter(|(on, _)| *on).map(|(_, name)| name.to_string()));
        words.join(" ")
    }

    fn found(&self) -> Result<Found, Failure> {
        match (&self.scenario, &self.resume) {
            (Some(given), None) => find::find(given),
            (given, Some(folder)) => continued(folder, given.as_deref()),
            (None, None) => Err(anyhow!("name a scenario, or a run to continue with --resume")).usage(),
        }
    }

    /// The scenario of a run that is continued, with the budget of this sitting. Its text stays what it was.
    fn with_budget(&self, mut kept: ResolvedScenario) -> Result<ResolvedScenario, Failure> {
        if self.changes.sets.is_empty() {
            return Ok(kept);
        }
        let text = self.changes.applied(&kept.source_text)?;
        let asked = ResolvedScenario::parse(&text, kept.file.as_deref()).usage()?.scenario.budget;
        let budget = &mut kept.scenario.budget;
        budget.seconds = asked.seconds;
        budget.min_repetitions = asked.min_repetitions;
        budget.max_repetitions = asked.max_repetitions;
        budget.precision = asked.precision;
        Ok(kept)
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

/// The scenario of the run in `folder`: its text as the run keeps it, and the file it came from, beside which its texts lie.
fn continued(folder: &Path, given: Option<&str>) -> Result<Found, Failure> {
    if !folder.is_dir() {
        return Err(anyhow!("{}: no such run directory, so there is no run to continue", folder.display())).usage();
    }
    let kept = folder.join("scenario.toml");
    let text = std::fs::read_to_string(&kept)
        .with_context(|| {
            let (kept, folder) = (kept.display(), folder.display());
            format!("{kept}: cannot read it, so there is no run to continue; start it again with --output {folder}")
        })
        .usage()?;
    let run = RunRows::load(folder).usage()?;
    let Some(given) = given else {
        let file = run.values("run", "scenario_file").last().map(PathBuf::from);
        return Ok(Found { text, file });
    };
    let found = find::find(given)?;
    // fields that --set gave other values are in the text that the run keeps, and not in the file
    let hash = blake3::hash(found.text.as_bytes()).to_hex();
    let same_file = run.values("run", "scenario_file_blake3").last().is_some_and(|known| *known == hash.as_str());
    match text == found.text || same_file {
        true => Ok(Found { text, file: found.file }),
        false => Err(anyhow!("{} was made from another version of `{given}`; continue it without naming the scenario, or start a new run", folder.display())).usage(),
    }
}

/// Writes the report, prints what a person wants to know last, and turns the outcome into an exit code.
pub fn finish(outcome: RunOutcome, report: bool, strict: bool) -> Outcome {
    if outcome.summary.ending == Some(Ending::Interrupted) {
        print(&interrupted(&outcome))?;
        return Ok(outcome.exit);
    }
    let mut last = String::new();
    // what to type stands where a terminal leaves the eye
    let is_command = |line: &&String| line.starts_with("Recommended: ");
    outcome.summary.answer.iter().filter(|line| !is_command(line)).for_each(|line| last += &format!("{line}\n"));
    if report {
        let path = report::write(&outcome.run_dir).failed()?;
        last += &format!("report: {}\n", path.display());
    } else {
        last += &format!("run: {}\n", outcome.run_dir.display());
    }
    outcome.summary.caveats.iter().for_each(|caveat| last += &format!("caveat: {caveat}\n"));
    outcome.claims.iter().for_each(|claim| last += &format!("{}{}\n", claim_line(claim), why_open(claim)));
    let said = |sentence: &&String| !outcome.summary.answer.contains(sentence);
    outcome.summary.missing.iter().filter(said).for_each(|sentence| last += &format!("{sentence}\n"));
    outcome.summary.answer.iter().filter(is_command).for_each(|line| last += &format!("{line}\n"));
    let word = outcome.summary.ending.map_or("incomplete", Ending::word);
    print(&format!("{last}{word}\n"))?;
    Ok(if outcome.exit == INCONCLUSIVE && !strict { PASS } else { outcome.exit })
}

/// What a run that somebody stopped has kept, and how it goes on.
fn interrupted(outcome: &RunOutcome) -> String {
    let folder = outcome.run_dir.display();
    let mut last = String::new();
    outcome.summary.missing.iter().for_each(|sentence| last += &format!("{sentence}\n"));
    let rows = outcome.progress.as_ref().map_or(0, |progress| progress.rows);
    last += &format!("{} rows are kept in {folder}; `infermark report {folder}` shows them\n", with_commas(rows));
    match outcome.summary.continue_with.as_str() {
        "" => last += "a comparison of two builds cannot be continued: start it again\n",
        command => last += &format!("continue with: {command}\n"),
    }
    last + Ending::Interrupted.word() + "\n"
}

/// `1,234`.
fn with_commas(number: usize) -> String {
    let digits = number.to_string();
    let commas = |(place, digit): (usize, char)| {
        let comma = place > 0 && (digits.len() - place).is_multiple_of(3);
        comma.then_some(',').into_iter().chain([digit])
    };
    digits.chars().enumerate().flat_map(commas).collect()
}

/// A claim and its verdict, with what was measured.
fn claim_line(claim: &ClaimResult) -> String {
    let measured = claim.measured.map_or(String::new(), |value| {
        let interval = claim.interval.map_or(String::new(), |(low, high)| format!(" [{low:.4}, {high:.4}]"));
        format!(": {value:.4}{interval} {}", claim.unit)
    });
    format!("claim {}: {}{}{}", claim.id, claim.verdict.word(), measured.trim_end(), share(claim))
}

/// How much of the paper's effect the number on the line is, or how far from parity it is.
fn share(claim: &ClaimResult) -> String {
    claim.found().map_or(String::new(), |words| format!("; {words}"))
}

/// Why a claim has no verdict, short.
fn why_open(claim: &ClaimResult) -> String {
    use Verdict::{Failed, Inconclusive, NotApplicableAtScale, SkippedNoGpu};
    if !matches!(claim.verdict, Failed | Inconclusive | NotApplicableAtScale | SkippedNoGpu) || claim.reason.is_empty()
    {
        return String::new();
    }
    // of several numbers, the one that keeps the claim open
    let part = claim.parts.iter().find(|part| part.verdict == claim.verdict && !part.why_open.is_empty());
    let reason = part.map_or_else(|| claim.reason.clone(), |part| format!("{}: {}", part.label, part.why_open));
    let reason = reason.trim().trim_end_matches('.');
    match reason.chars().count() > REASON_CHARS {
        true => format!(" ({} …)", reason.chars().take(REASON_CHARS).collect::<String>().trim_end()),
        false => format!(" ({reason})"),
    }
}

/// A folder `results/runs/20261123T074532Z-quickstart` that no other run has: it is made here, with a number at its end when
/// another run began in the same second.
pub fn default_output(name: &str) -> Result<PathBuf, Failure> {
    let runs = Path::new("results").join("runs");
    let date = utc_now().replace([':', '-'], "");
    let make = |path: &Path| match std::fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        made => made.map(|()| true).with_context(|| format!("cannot create {}", path.display())),
    };
    std::fs::create_dir_all(&runs).with_context(|| format!("cannot create {}", runs.display())).failed()?;
    let mut path = runs.join(format!("{date}-{name}"));
    let mut number = 2;
    while !make(&path).failed()? {
        path = runs.join(format!("{date}-{name}-{number}"));
        number += 1;
    }
    Ok(path)
}

/// The command line as it can be typed again.
pub fn command_line() -> String {
    let words = std::env::args_os().skip(1).map(|word| quoted(&word.to_string_lossy()));
    std::iter::once("infermark".to_string()).chain(words).collect::<Vec<_>>().join(" ")
}

/// The command `report`.
#[derive(Args)]
pub struct Report {
    /// A run directory
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Write the answer in words anew from the rows, as this build words them, also into summary.json
    #[arg(long)]
    answer_again: bool,
}

impl Report {
    pub(super) fn obey(&self) -> Outcome {
        find::run(&self.run)?;
        if self.answer_again {
            report::answer_again(&self.run).failed()?;
        }
        let path = report::write(&self.run).failed()?;
        print(&format!("{}\n", path.display()))?;
        Ok(PASS)
    }
}
