//! An append-only JSON Lines file whose batches are kept whole or not at all.
//!
//! Every line is one row with its schema version `v`; the last line of a batch also says `"end":true`. What follows the last such
//! line (a torn line, half a batch) was being written when the process died: it is ignored on reading and cut off on resuming.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::observation::SCHEMA_VERSION;
use crate::store::{StoreError, is_full, sync_folder, write_atomically};

#[derive(Serialize)]
struct LineOut<'a, T> {
    v: u32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    end: bool,
    #[serde(flatten)]
    row: &'a T,
}

#[derive(Deserialize)]
struct LineIn<T> {
    #[serde(flatten)]
    head: Head,
    #[serde(flatten)]
    row: T,
}

#[derive(Deserialize)]
struct Head {
    v: u32,
    #[serde(default)]
    end: bool,
}

/// What a log file holds.
pub(crate) struct Contents<T> {
    pub(crate) rows: Vec<T>,
    /// Bytes up to the end of the last whole batch.
    pub(crate) whole_bytes: u64,
    /// What was ignored, in words.
    pub(crate) warning: Option<String>,
}

/// An open log.
#[derive(Debug)]
pub(crate) struct Log<T> {
    path: PathBuf,
    file: File,
    bytes: u64,
    rows: usize,
    kind: PhantomData<T>,
}

impl<T: Serialize + DeserializeOwned> Log<T> {
    /// Opens `path` for appending, creates it when absent, and cuts off what follows its last whole batch.
    pub(crate) fn open(path: &Path) -> Result<(Log<T>, Contents<T>), StoreError> {
        let contents = read(path)?;
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(|error| StoreError::io("open", path, error))?;
        if contents.warning.is_some() {
            file.set_len(contents.whole_bytes).map_err(|error| StoreError::io("repair", path, error))?;
        }
        sync_folder(path);
        let log = Log {
            path: path.to_owned(),
            file,
            bytes: contents.whole_bytes,
            rows: contents.rows.len(),
            kind: PhantomData,
        };
        Ok((log, contents))
    }

    /// Appends a batch and waits until the disk has it. On failure the file is cut back to what it held before.
    pub(crate) fn append(&mut self, rows: &[T]) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let bytes = encode(&self.path, rows)?;
        match self.file.write_all(&bytes).and_then(|()| self.file.sync_data()) {
            Ok(()) => {
                self.bytes += bytes.len() as u64;
                self.rows += rows.len();
                Ok(())
            }
            Err(error) => {
                // if even this fails, the torn batch is ignored by every reader
                let _ = self.file.set_len(self.bytes);
                if is_full(&error) {
                    return Err(StoreError::Full { path: self.path.clone(), saved_rows: Some(self.rows) });
                }
                Err(StoreError::io("append to", &self.path, error))
            }
        }
    }
}

/// Replaces the log at `path` by one batch of `rows`.
pub(crate) fn rewrite<T: Serialize>(path: &Path, rows: &[T]) -> Result<(), StoreError> {
    write_atomically(path, &encode(path, rows)?)
}

fn encode<T: Serialize>(path: &Path, rows: &[T]) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::with_capacity(rows.len() * 512);
    for (place, row) in rows.iter().enumerate() {
        let line = LineOut { v: SCHEMA_VERSION, end: place + 1 == rows.len(), row };
        serde_json::to_writer(&mut bytes, &line)
            .map_err(|error| StoreError::io("encode", path, io::Error::other(error)))?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

/// Rows up to the end of the last whole batch; an absent file is an empty log.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Contents<T>, StoreError> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        other => other.map_err(|error| StoreError::io("read", path, error))?,
    };
    let mut rows: Vec<T> = Vec::new();
    let (mut whole_rows, mut whole_bytes, mut position) = (0, 0, 0);
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        position += line.len();
        if line.last() != Some(&b'\n') {
            break;
        }
        let LineIn { head, row } =
            serde_json::from_slice(line).map_err(|error| bad_line(path, index + 1, line, &error))?;
        if head.v > SCHEMA_VERSION {
            return Err(StoreError::Newer { path: path.to_owned(), version: head.v });
        }
        rows.push(row);
        if head.end {
            (whole_rows, whole_bytes) = (rows.len(), position);
        }
    }
    rows.truncate(whole_rows);
    let torn = bytes.len() - whole_bytes;
    let warning = (torn > 0).then(|| {
        format!("{}: ignored the last {torn} bytes, a batch that was cut off while it was written", path.display())
    });
    Ok(Contents { rows, whole_bytes: whole_bytes as u64, warning })
}

/// A line that is not a row: written by a later version, or damaged.
fn bad_line(path: &Path, line: usize, text: &[u8], error: &serde_json::Error) -> StoreError {
    match serde_json::from_slice::<Head>(text) {
        Ok(head) if head.v > SCHEMA_VERSION => StoreError::Newer { path: path.to_owned(), version: head.v },
        _ => StoreError::Line { path: path.to_owned(), line, message: error.to_string() },
    }
}

/// Lines in a file, a cheap upper bound of its rows; 0 when absent.
pub(crate) fn count_lines(path: &Path) -> usize {
    std::fs::read(path).map_or(0, |bytes| bytes.iter().filter(|byte| **byte == b'\n').count())
}

#[cfg(test)]
mod tests;
