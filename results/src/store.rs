//! What can go wrong between rows and a disk, and the one way to replace a file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::observation::SCHEMA_VERSION;

/// Why a run could not be written or read.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("cannot {action} {}: {error}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// File or folder.
        path: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
    /// No space left; everything saved before is intact.
    #[error("no space left for {}: {}", path.display(), after_full(path, *saved_rows))]
    Full {
        /// File that could not grow.
        path: PathBuf,
        /// Rows that are safely in it; absent for a file that is no log.
        saved_rows: Option<usize>,
    },
    /// `create` on a folder that holds something.
    #[error("{} is not empty: continue it with --resume, or name another folder with --output", path.display())]
    Occupied {
        /// The folder.
        path: PathBuf,
    },
    /// A folder without a log or record.
    #[error("{} holds no run: expected observations.jsonl or observations.parquet in it", path.display())]
    NotARun {
        /// The folder.
        path: PathBuf,
    },
    /// Another process writes there.
    #[error("{} is being written by another infermark process{holder}: wait for it, or name another folder with --output", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
        /// ` (pid N)` where known.
        holder: String,
    },
    /// Written by a later version.
    #[error(
        "{} has schema version {version}, this build reads up to {SCHEMA_VERSION}: use the infermark that wrote it, or a newer one",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// A line in the middle of a log is not a row.
    #[error("{} line {line} is not a row: {message}; restore the file, or delete that line", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// The parser's words.
        message: String,
    },
    /// A column is missing or of another type.
    #[error("{} column `{column}`: expected {expected}, found {found}", path.display())]
    Column {
        /// The file.
        path: PathBuf,
        /// Column name.
        column: String,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// Truncated, or another format.
    #[error("{} is damaged or in another format: {message}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The parser's words.
        message: String,
    },
}

impl StoreError {
    /// An error of the operating system; a full disk becomes [`StoreError::Full`].
    pub(crate) fn io(action: &'static str, path: &Path, error: io::Error) -> StoreError {
        if is_full(&error) {
            StoreError::Full { path: path.to_owned(), saved_rows: None }
        } else {
            StoreError::Io { action, path: path.to_owned(), error }
        }
    }

    /// A file that its parser gave up on.
    pub(crate) fn unreadable(path: &Path, error: impl std::fmt::Display) -> StoreError {
        StoreError::Unreadable { path: path.to_owned(), message: error.to_string() }
    }
}

/// What a full disk has left alone, and how to go on.
fn after_full(path: &Path, saved_rows: Option<usize>) -> String {
    let folder = path.parent().unwrap_or(path).display();
    match saved_rows {
        Some(n) => format!(
            "{n} rows saved before are intact; free some space and continue with `infermark run --resume {folder}`"
        ),
        None => "what was there before is intact; free some space and try again".into(),
    }
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Replaces `path` by `bytes` in one step: written beside it, synced, renamed. A failure leaves the old file as it was.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let beside = path.with_file_name(format!(".{name}.part"));
    let written = write_and_sync(&beside, bytes).and_then(|()| fs::rename(&beside, path));
    if let Err(error) = written {
        // the first error is the one to tell; a leftover part file is replaced next time
        let _ = fs::remove_file(&beside);
        return Err(StoreError::io("write", path, error));
    }
    sync_folder(path);
    Ok(())
}

fn write_and_sync(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes a rename or a new file durable where the system lets folders be synced; elsewhere there is nothing to do.
pub(crate) fn sync_folder(path: &Path) {
    if let Some(folder) = path.parent().and_then(|folder| File::open(folder).ok()) {
        let _ = folder.sync_all();
    }
}
