//! Texts and JSON that a command reads: from the command line, from a file, from standard input.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, anyhow};

use super::{Blame, Failure};
use crate::text;

/// All of standard input, as text; a line end at its very end belongs to whoever wrote it.
pub fn standard_input() -> Result<String, Failure> {
    let mut bytes = vec![];
    // one byte more than allowed tells a text of exactly the limit from a longer one
    let mut input = std::io::stdin().lock().take(text::LIMIT_BYTES + 1);
    input.read_to_end(&mut bytes).context("standard input: cannot read").failed()?;
    if bytes.len() as u64 > text::LIMIT_BYTES {
        return Err(anyhow!("standard input: longer than {} MiB; cut it", text::LIMIT_BYTES >> 20)).usage();
    }
    String::from_utf8(bytes)
        .map_err(|e| anyhow!("standard input: not UTF-8 at byte {}; convert it", e.utf8_error().valid_up_to()))
        .usage()
}

/// `given` itself, or standard input without its last line end where `given` is `-`.
pub fn prompt(given: &str) -> Result<String, Failure> {
    if given != "-" {
        return Ok(given.into());
    }
    let text = standard_input()?;
    let cut = text.strip_suffix('\n').unwrap_or(&text);
    Ok(cut.strip_suffix('\r').unwrap_or(cut).into())
}

/// The text called `given`: a file, `embedded:NAME`, or `-` for standard input.
pub fn text(given: &str) -> Result<String, Failure> {
    match given {
        "-" => {
            let text = standard_input()?;
            match text.trim().is_empty() {
                true => Err(anyhow!("standard input: holds no text")).usage(),
                false => Ok(text),
            }
        }
        given => text::resolve(given, None).usage(),
    }
}

/// The JSON in `file`; `flag` names it in errors.
pub fn json(flag: &str, file: &Path) -> Result<serde_json::Value, Failure> {
    let text = match file.as_os_str() == "-" {
        true => standard_input()?,
        false => {
            std::fs::read_to_string(file).with_context(|| format!("{flag} {}: cannot read", file.display())).usage()?
        }
    };
    serde_json::from_str(&text).with_context(|| format!("{flag} {}: not JSON", file.display())).usage()
}
