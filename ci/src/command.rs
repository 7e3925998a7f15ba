//! What `infermark check` and `infermark compare` do with the paths they are given.

use std::path::{Path, PathBuf};

use results::run::Run;

use crate::baseline::{self, Baseline};
use crate::check::{self, Mode, Permit, Report};
use crate::compare;
use crate::format::Format;
use crate::interleaved;
use crate::policy::{Policy, PolicyError};
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
}

/// What a command has to say, and the exit code it comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The text in the format that was asked for.
    pub text: String,
    /// The verdict's word; empty where nothing is judged.
    pub word: &'static str,
    /// The exit code.
    pub code: u8,
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
    /// A path on the command line names something that is no run.
    #[error("{path}: {problem}; expected a run directory that `infermark run` wrote")]
    NoRun {
        /// The path.
        path: PathBuf,
        /// What is there instead.
        problem: String,
    },
    /// The baseline that was named cannot be one.
    #[error("--baseline {path}: {problem}")]
    Baseline {
        /// The path.
        path: PathBuf,
        /// What is wrong with it, and what was expected.
        problem: String,
    },
    /// A run directory cannot be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// The run directory.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Two runs have no metric in common.
    #[error("the two runs have nothing in common to compare\n{0}")]
    NothingShared(String),
    /// The result cannot be put into words.
    #[error("the report cannot be written as JSON: {0}")]
    Unprintable(#[from] serde_json::Error),
    /// A format that the command does not have.
    #[error("`compare` prints console, markdown or json")]
    Format,
}

impl CheckError {
    /// Exit code of the error: 2 for what the caller wrote, 3 for a run that cannot be read.
    pub fn exit_code(&self) -> u8 {
        match self {
            CheckError::Unreadable { .. } | CheckError::Unprintable(_) => EXIT_RUN_FAILED,
            _ => EXIT_USAGE,
        }
    }
}

/// Judges the run that `options` name.
pub fn run_check(options: &CheckOptions) -> Result<Answer, CheckError> {
    let policy = Policy::load(options.policy.as_deref())?;
    let head = load(&options.head)?;
    let permit = Permit { different_hardware: options.allow_different_hardware };
    let report = match &options.baseline {
        Some(path) => {
            let Baseline { run, notes } = baseline::find(path, &head, &policy)?;
            let mut report = check::check(&run, &head, &policy, Mode::Recorded, permit);
            report.warnings.splice(0..0, notes);
            report
        }
        None if interleaved::is_interleaved(&head) => check_interleaved(&head, &policy),
        None => check::check_alone(&head, &policy),
    };
    let text = options.format.render(&report, options.strict)?;
    Ok(Answer { text, word: report.verdict.word(), code: report.verdict.exit_code(options.strict) })
}

/// Judges a run that holds both sides, `base/…` and `head/…`, measured in turns.
pub fn check_interleaved(run: &Run, policy: &Policy) -> Report {
    let (base, head) = interleaved::split(run);
    check::check(&base, &head, policy, Mode::Interleaved, Permit::default())
}

/// Lays two runs beside each other: no gates, exit code 0. Runs that share no metric are an error that says what each has.
pub fn run_compare(a: &Path, b: &Path, format: Format) -> Result<Answer, CheckError> {
    let (a, b) = (load(a)?, load(b)?);
    let rows = compare::compare_runs(&a, &b);
    if rows.is_empty() {
        return Err(CheckError::NothingShared(compare::contents(&a, &b)));
    }
    let text = match format {
        Format::Console => compare::render(&a, &b, &rows, false),
        Format::Markdown => compare::render(&a, &b, &rows, true),
        Format::Json => serde_json::to_string_pretty(&rows)? + "\n",
        Format::Junit | Format::Annotations => return Err(CheckError::Format),
    };
    Ok(Answer { text, word: "", code: 0 })
}

/// Whether `path` is a run directory, finished or not.
pub(crate) fn holds_run(path: &Path) -> bool {
    ["observations.parquet", "observations.jsonl"].iter().any(|file| path.join(file).is_file())
}

fn load(path: &Path) -> Result<Run, CheckError> {
    let none = |problem: &str| CheckError::NoRun { path: path.to_owned(), problem: problem.to_owned() };
    match path {
        path if !path.exists() => Err(CheckError::NoSuchRun { path: path.to_owned() }),
        path if !path.is_dir() => Err(none("is a file")),
        path if !holds_run(path) => Err(none("holds no run (neither observations.parquet nor observations.jsonl)")),
        path => {
            Run::load(path).map_err(|source| CheckError::Unreadable { path: path.to_owned(), source: source.into() })
        }
    }
}
