//! Texts that a scenario names: `embedded:NAME`, or a UTF-8 file relative to the scenario file.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::library;

/// Longest text read, bytes.
pub const LIMIT_BYTES: u64 = 64 << 20;

/// Why a text cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// No such embedded text.
    #[error("no embedded text is called `{name}`; there is {known} (or give the path of a text file)")]
    Unknown {
        /// Name after `embedded:`.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// The file cannot be read.
    #[error(
        "{file}: cannot read the text: {source}; a relative path starts at the scenario file's folder, and {known} need no file"
    )]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
        /// The embedded texts.
        known: String,
    },
    /// The file is not UTF-8.
    #[error("{file}: not UTF-8 at byte {at}; convert the file to UTF-8")]
    NotUtf8 {
        /// The file.
        file: PathBuf,
        /// Offset of the first wrong byte.
        at: usize,
    },
    /// The file is too long.
    #[error("{file}: longer than {} MiB; cut it, or let the workload read fewer tokens of a shorter file", LIMIT_BYTES >> 20)]
    TooLong {
        /// The file.
        file: PathBuf,
    },
    /// There is nothing in it.
    #[error("{file}: holds no text; a workload needs words to read")]
    Empty {
        /// The file.
        file: PathBuf,
    },
}

fn known() -> String {
    library::texts().iter().map(|t| format!("embedded:{}", t.name)).collect::<Vec<_>>().join(", ")
}

/// The text written as `given` in the scenario file `file`.
pub fn resolve(given: &str, file: Option<&Path>) -> Result<String, TextError> {
    if let Some(name) = given.strip_prefix("embedded:") {
        let found = library::text(name).ok_or_else(|| TextError::Unknown { name: name.into(), known: known() })?;
        return Ok(found.joined());
    }
    read(&library::beside(file, Path::new(given)))
}

/// Whether `given` can be resolved, without reading a file.
pub fn exists(given: &str, file: Option<&Path>) -> Result<(), TextError> {
    if given.starts_with("embedded:") {
        return resolve(given, file).map(|_| ());
    }
    let path = library::beside(file, Path::new(given));
    File::open(&path).map(|_| ()).map_err(|source| TextError::Io { file: path, source, known: known() })
}

/// The text of `file`.
pub fn read(file: &Path) -> Result<String, TextError> {
    let io = |source| TextError::Io { file: file.into(), source, known: known() };
    let mut bytes = vec![];
    // one byte more than allowed tells a text of exactly the limit from a longer one, and a device file ends here too
    File::open(file).map_err(io)?.take(LIMIT_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > LIMIT_BYTES {
        return Err(TextError::TooLong { file: file.into() });
    }
    let text = String::from_utf8(bytes)
        .map_err(|e| TextError::NotUtf8 { file: file.into(), at: e.utf8_error().valid_up_to() })?;
    match text.trim().is_empty() {
        true => Err(TextError::Empty { file: file.into() }),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_texts_join_their_parts_with_one_blank_line() {
        let text = resolve("embedded:evaluation", None).expect("shipped");
        assert!(text.len() >= 60_000, "{}", text.len());
        assert!(!text.contains("\n\n\n\n") && text.ends_with('\n') && !text.ends_with("\n\n"));
    }

    #[test]
    fn errors_name_what_exists() {
        let error = resolve("embedded:evalution", None).expect_err("a typo").to_string();
        assert!(error.contains("embedded:evaluation") && error.contains("embedded:calibration"), "{error}");
        let error = resolve("no-such.txt", Some(Path::new("folder/s.toml"))).expect_err("missing").to_string();
        assert!(error.contains("folder/no-such.txt") && error.contains("embedded:evaluation"), "{error}");
    }

    #[test]
    fn bad_bytes_and_empty_texts_are_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("bad.txt");
        std::fs::write(&file, b"abc\xffdef").expect("writable");
        assert!(matches!(
            resolve("bad.txt", Some(&folder.path().join("s.toml"))),
            Err(TextError::NotUtf8 { at: 3, .. })
        ));
        std::fs::write(&file, " \n").expect("writable");
        assert!(matches!(read(&file), Err(TextError::Empty { .. })));
    }
}
