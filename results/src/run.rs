//! A run directory: rows are safe on disk as they are made, tidy files appear when it is sealed, and `Run::load` reads either.
//!
//! `observations.jsonl` and `provenance.jsonl` are the truth while a run is written (`log.rs`); `observations.parquet` and
//! `provenance.parquet` are made from them by [`RunDirectory::seal`] and suffice alone in a published record.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::claim::ClaimResult;
use crate::frame;
use crate::log::{self, Log};
use crate::observation::{Fact, Observation, SCHEMA_VERSION};
pub use crate::store::StoreError;
use crate::store::write_atomically;
use crate::summary::Summary;

const LOG: &str = "observations.jsonl";
const FACT_LOG: &str = "provenance.jsonl";
const PARQUET: &str = "observations.parquet";
const FACT_PARQUET: &str = "provenance.parquet";
const SUMMARY: &str = "summary.json";
const CLAIMS: &str = "claims.json";
const SCENARIO: &str = "scenario.toml";
const LOCK: &str = "run.lock";

/// Everything a run left behind.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Run {
    /// Rows in the order they were made.
    pub observations: Vec<Observation>,
    /// Provenance in the order it was stated.
    pub facts: Vec<Fact>,
    /// Claims, empty when none were judged yet.
    pub claims: Vec<ClaimResult>,
    /// Summary, absent until it is first written.
    pub summary: Option<Summary>,
    /// What was ignored while reading (a torn batch, a damaged Parquet file beside a good log), in words.
    pub warnings: Vec<String>,
}

/// A run directory open for writing; one writer at a time.
#[derive(Debug)]
pub struct RunDirectory {
    path: PathBuf,
    observations: Log<Observation>,
    facts: Log<Fact>,
    _lock: Lock,
}

impl RunDirectory {
    /// A new run in `path`, which must not exist, be an empty folder, or hold what a run left that ended before its first row.
    pub fn create(path: &Path) -> Result<RunDirectory, StoreError> {
        fs::create_dir_all(path).map_err(|error| StoreError::io("create", path, error))?;
        if is_occupied(path)? {
            return Err(StoreError::Occupied { path: path.to_owned() });
        }
        let lock = Lock::take(path)?;
        for leftover in [FACT_LOG, SCENARIO, SUMMARY, CLAIMS] {
            match fs::remove_file(path.join(leftover)) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(StoreError::io("replace", &path.join(leftover), error));
                }
                _ => {}
            }
        }
        let (observations, _) = Log::open(&path.join(LOG))?;
        let (facts, _) = Log::open(&path.join(FACT_LOG))?;
        Ok(RunDirectory { path: path.to_owned(), observations, facts, _lock: lock })
    }

    /// Continues the run in `path`: repairs its logs (from a sealed record where they are gone) and returns what it holds so far.
    pub fn resume(path: &Path) -> Result<(RunDirectory, Run), StoreError> {
        if !holds_run(path) {
            return Err(StoreError::NotARun { path: path.to_owned() });
        }
        let lock = Lock::take(path)?;
        let mut run = Run::load(path)?;
        let observations = reopen(&path.join(LOG), &mut run.observations)?;
        let facts = reopen(&path.join(FACT_LOG), &mut run.facts)?;
        Ok((RunDirectory { path: path.to_owned(), observations, facts, _lock: lock }, run))
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps the text of the scenario, unless the folder has it already: what a run asks never changes.
    pub fn keep_scenario(&self, text: &str) -> Result<(), StoreError> {
        let path = self.path.join(SCENARIO);
        match path.is_file() {
            true => Ok(()),
            false => write_atomically(&path, text.as_bytes()),
        }
    }

    /// Saves rows as one batch: after a return they survive a kill, and a kill meanwhile keeps all of them or none.
    pub fn append(&mut self, rows: &[Observation]) -> Result<(), StoreError> {
        self.observations.append(rows)
    }

    /// Saves provenance as one batch.
    pub fn append_facts(&mut self, facts: &[Fact]) -> Result<(), StoreError> {
        self.facts.append(facts)
    }

    /// Replaces `summary.json`.
    pub fn write_summary(&self, summary: &Summary) -> Result<(), StoreError> {
        write_json(&self.path.join(SUMMARY), summary)
    }

    /// Replaces `claims.json`.
    pub fn write_claims(&self, claims: &[ClaimResult]) -> Result<(), StoreError> {
        write_json(&self.path.join(CLAIMS), &claims)
    }

    /// Writes the two Parquet files from the logs. May be called again after more rows; the logs stay for resuming.
    pub fn seal(&self) -> Result<(), StoreError> {
        let rows = log::read::<Observation>(&self.path.join(LOG))?.rows;
        let facts = log::read::<Fact>(&self.path.join(FACT_LOG))?.rows;
        frame::write_observations(&self.path.join(PARQUET), &rows)?;
        frame::write_facts(&self.path.join(FACT_PARQUET), &facts)
    }
}

impl Run {
    /// Reads a run directory or a published record. A log that holds more than the Parquet file wins over it.
    pub fn load(path: &Path) -> Result<Run, StoreError> {
        if !holds_run(path) {
            return Err(StoreError::NotARun { path: path.to_owned() });
        }
        let mut warnings = Vec::new();
        let observations = load_rows(&path.join(LOG), &path.join(PARQUET), frame::read_observations, &mut warnings)?;
        let facts = load_rows(&path.join(FACT_LOG), &path.join(FACT_PARQUET), frame::read_facts, &mut warnings)?;
        let summary: Option<Summary> = read_json(&path.join(SUMMARY))?;
        if let Some(version) =
            summary.as_ref().map(|summary| summary.schema_version).filter(|version| *version > SCHEMA_VERSION)
        {
            return Err(StoreError::Newer { path: path.join(SUMMARY), version });
        }
        let claims = read_json(&path.join(CLAIMS))?.unwrap_or_default();
        Ok(Run { observations, facts, claims, summary, warnings })
    }

    /// The sitting that a resumed run starts: one above the highest that left a row or a fact, 0 without any.
    pub fn next_sitting(&self) -> u32 {
        let rows = self.observations.iter().map(|row| row.sitting);
        let facts = self.facts.iter().filter_map(|fact| sitting_of(&fact.scope));
        rows.chain(facts).max().map_or(0, |last| last + 1)
    }

    /// The run's id; absent where nothing was saved.
    pub fn run_id(&self) -> Option<&str> {
        let summary = self.summary.iter().map(|summary| summary.run_id.as_str());
        let rows = self.observations.first().map(|row| row.run_id.as_str());
        summary.chain(rows).chain(self.facts.first().map(|fact| fact.run_id.as_str())).next()
    }

    /// Every value that was stated with this scope and key, each once, in the order they were stated: a run of several
    /// sittings may have been built, or may have found the machine, in several ways.
    pub fn values(&self, scope: &str, key: &str) -> Vec<&str> {
        let mut values: Vec<&str> = vec![];
        for fact in self.facts.iter().filter(|fact| fact.scope == scope && fact.key == key) {
            if !values.contains(&fact.value.as_str()) {
                values.push(&fact.value);
            }
        }
        values
    }

    /// [`Run::values`] as a reader sees them: the one value, or all of them with `, then ` between.
    pub fn fact(&self, scope: &str, key: &str) -> Option<String> {
        let values = self.values(scope, key);
        (!values.is_empty()).then(|| values.join(", then "))
    }
}

/// Scope of the facts about one sitting: rows name theirs in the column `sitting`.
pub fn sitting_scope(sitting: u32) -> String {
    format!("sitting {sitting}")
}

/// The sitting that a scope is about.
pub fn sitting_of(scope: &str) -> Option<u32> {
    scope.strip_prefix("sitting ")?.parse().ok()
}

/// Whether `path` holds anything that a new run must not replace. A run that ended before its first row left nothing.
pub fn is_occupied(path: &Path) -> Result<bool, StoreError> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        entries => entries.map_err(|error| StoreError::io("list", path, error))?,
    };
    for entry in entries {
        let entry = entry.map_err(|error| StoreError::io("list", path, error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let of_a_run = [LOCK, FACT_LOG, SCENARIO, SUMMARY, CLAIMS].contains(&name.as_str());
        let unfinished = name.starts_with('.') && name.ends_with(".part");
        let empty_log = name == LOG && entry.metadata().is_ok_and(|file| file.len() == 0);
        if !(of_a_run || unfinished || empty_log) || (of_a_run && !path.join(LOG).is_file() && name != LOCK) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn holds_run(path: &Path) -> bool {
    path.join(LOG).is_file() || path.join(PARQUET).is_file()
}

/// Opens a log for appending after its rows were loaded; one that holds fewer than the sealed file gave is written anew.
fn reopen<T: Serialize + DeserializeOwned>(path: &Path, rows: &mut [T]) -> Result<Log<T>, StoreError> {
    if log::count_lines(path) < rows.len() {
        log::rewrite(path, rows)?;
    }
    Ok(Log::open(path)?.0)
}

type ReadParquet<T> = fn(&Path) -> Result<Vec<T>, StoreError>;

fn load_rows<T: DeserializeOwned>(
    log_path: &Path,
    parquet: &Path,
    read_parquet: ReadParquet<T>,
    warnings: &mut Vec<String>,
) -> Result<Vec<T>, StoreError> {
    if !parquet.is_file() {
        let contents = log::read(log_path)?;
        warnings.extend(contents.warning);
        return Ok(contents.rows);
    }
    if !log_path.is_file() {
        return read_parquet(parquet);
    }
    // the footer is enough to decide; a log of no more lines than the file has rows adds nothing
    let sealed = match frame::count_rows(parquet) {
        Ok(sealed) if log::count_lines(log_path) <= sealed => match read_parquet(parquet) {
            Err(error @ StoreError::Newer { .. }) => return Err(error),
            read => read.map_err(|error| warnings.push(format!("{error}; using the log beside it"))).ok(),
        },
        Ok(_) => None,
        Err(error) => {
            warnings.push(format!("{error}; using the log beside it"));
            None
        }
    };
    match sealed {
        Some(rows) => Ok(rows),
        None => {
            let contents = log::read(log_path)?;
            warnings.extend(contents.warning);
            Ok(contents.rows)
        }
    }
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), StoreError> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|error| StoreError::io("encode", path, std::io::Error::other(error)))?;
    bytes.push(b'\n');
    write_atomically(path, &bytes)
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("read", path, error)),
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| StoreError::unreadable(path, error)),
    }
}

/// The right to write into a folder: an advisory lock that dies with its process, so that a killed run never blocks the next.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Lock {
    fn take(folder: &Path) -> Result<Lock, StoreError> {
        let path = folder.join(LOCK);
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = opened.map_err(|error| StoreError::io("lock", &path, error))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let holder = match file.read_to_string(&mut pid) {
                    Ok(_) if !pid.trim().is_empty() => format!(" (pid {})", pid.trim()),
                    _ => String::new(),
                };
                return Err(StoreError::Locked { path: folder.to_owned(), holder });
            }
            // some network file systems know no locks: writing there is the user's choice
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(StoreError::io("lock", &path, error)),
            Ok(()) => {}
        }
        let written =
            file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(|error| StoreError::io("lock", &path, error))?;
        Ok(Lock { path, _file: file })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // a leftover file is harmless: the lock itself ends with the process
        let _ = fs::remove_file(&self.path);
    }
}
