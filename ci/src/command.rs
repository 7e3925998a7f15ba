//! What `infermark check` and `infermark compare` do with the paths they are given.

use std::io::Write;
use std::path::{Path, PathBuf};

use results::run::Run;

use crate::check::{self, Mode, Permit, Report};
use crate::comparability;
use crate::compare;
use crate::format::Format;
use crate::interleaved;
use crate::policy::{Policy, PolicyError};
use crate::side::Side;
use crate::verdict::{EXIT_RUN_FAILED, EXIT_USAGE};

/// The command line of `infermark check`.
#[derive(Debug, Clone, Default)]
pub struct CheckOptions {
    /// A run directory, or a folder of them of which the newest that fits is taken.
    pub baseline: Option<PathBuf>,
    /// The run directory to judge.
    pub head: PathBuf,
    /// A policy instead of the shipped one.
    pub policy: Option<PathBuf>,
    /// Undecided is a failure.
    pub strict: bool,
    /// Compare across machines, labelled.
    pub allow_different_hardware: bool,
    /// How to print it.
    pub format: Format,
    /// Where to print it, instead of standard output.
    pub output: Option<PathBuf>,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The policy cannot be used.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A path on the command line names nothing.
    #[error("{path}: no such run directory; expected one that `infermark run` wrote")]
    NoSuchRun {
        /// The path.
        path: PathBuf,
    },
    /// A run directory cannot be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// The run directory.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The result cannot be written.
    #[error("{target}: {source}")]
    Unwritable {
        /// File, or `standard output`.
        target: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A format that the command does not have.
    #[error("`compare` prints console, markdown or json")]
    Format,
}

impl CheckError {
    /// Exit code of the error: 2 for what the caller wrote, 3 for a run that cannot be read.
    pub fn exit_code(&self) -> u8 {
        match self {
            CheckError::Unreadable { .. } => EXIT_RUN_FAILED,
            _ => EXIT_USAGE,
        }
    }
}

/// Runs `infermark check` and returns its exit code.
pub fn run_check(options: &CheckOptions) -> Result<u8, CheckError> {
    let policy = Policy::load(options.policy.as_deref())?;
    let head = load(&options.head)?;
    let permit = Permit { different_hardware: options.allow_different_hardware };
    let report = match find_baseline(options.baseline.as_deref(), &head, &policy)? {
        Some(baseline) => check::check(&baseline, &head, &policy, Mode::Recorded, permit),
        None if options.baseline.is_none() && interleaved::is_interleaved(&head) => check_interleaved(&head, &policy),
        None => check::check_alone(&head, &policy),
    };
    let code = report.verdict.exit_code(options.strict);
    let text = options.format.render(&report, options.strict).map_err(|error| unwritable("report", error.into()))?;
    deliver(&text, options.output.as_deref())?;
    if options.output.is_some() {
        deliver(&format!("{}\n", report.verdict.word()), None)?;
    }
    Ok(code)
}

/// Judges a run that holds both sides, `base/…` and `head/…`, measured in turns.
pub fn check_interleaved(run: &Run, policy: &Policy) -> Report {
    let (base, head) = interleaved::split(run);
    check::check(&base, &head, policy, Mode::Interleaved, Permit::default())
}

/// Runs `infermark compare A B`: no gates, exit code 0.
pub fn run_compare(a: &Path, b: &Path, format: Format, output: Option<&Path>) -> Result<u8, CheckError> {
    let (a, b) = (load(a)?, load(b)?);
    let rows = compare::compare_runs(&a, &b);
    let text = match format {
        Format::Console => compare::render(&a, &b, &rows, false),
        Format::Markdown => compare::render(&a, &b, &rows, true),
        Format::Json => serde_json::to_string_pretty(&rows).map_err(|error| unwritable("rows", error.into()))? + "\n",
        Format::Junit | Format::Annotations => return Err(CheckError::Format),
    };
    deliver(&text, output)?;
    Ok(0)
}

fn holds_run(path: &Path) -> bool {
    ["observations.parquet", "observations.jsonl"].iter().any(|file| path.join(file).is_file())
}

fn load(path: &Path) -> Result<Run, CheckError> {
    if !path.is_dir() {
        return Err(CheckError::NoSuchRun { path: path.to_owned() });
    }
    Run::load(path).map_err(|source| CheckError::Unreadable { path: path.to_owned(), source: source.into() })
}

/// The run in `path`, or the newest run in its folders with the head's scenario, one from like hardware first.
/// A folder that does not exist yet, or holds no such run, is no baseline.
fn find_baseline(path: Option<&Path>, head: &Run, policy: &Policy) -> Result<Option<Run>, CheckError> {
    let Some(path) = path.filter(|path| path.is_dir()) else { return Ok(None) };
    if holds_run(path) {
        return load(path).map(Some);
    }
    let entries = std::fs::read_dir(path)
        .map_err(|source| CheckError::Unreadable { path: path.to_owned(), source: source.into() })?;
    let mut runs = Vec::new();
    for folder in entries.flatten().map(|entry| entry.path()).filter(|folder| holds_run(folder)) {
        let run = load(&folder)?;
        let (side, head) = (Side::from(&run), Side::from(head));
        if side.summary.scenario == head.summary.scenario {
            let like = comparability::differences(&side, &head, &policy.comparable).is_empty();
            let started = side.summary.started.clone();
            runs.push((like, started, run));
        }
    }
    let newest = runs.into_iter().max_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    Ok(newest.map(|(_, _, run)| run))
}

fn deliver(text: &str, output: Option<&Path>) -> Result<(), CheckError> {
    match output {
        Some(path) => std::fs::write(path, text).map_err(|error| unwritable(&path.display().to_string(), error)),
        None => match std::io::stdout().lock().write_all(text.as_bytes()) {
            // A reader that has seen enough (`| head`) is no failure.
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(unwritable("standard output", error)),
            _ => Ok(()),
        },
    }
}

fn unwritable(target: &str, source: std::io::Error) -> CheckError {
    CheckError::Unwritable { target: target.to_owned(), source }
}
