//! GGUF files, the format of llama.cpp: one file with sizes, tokenizer and weights, often in blocks of few bits.
//!
//! Reading gives what a Hugging Face folder gives: an [`Architecture`] made from the equivalent `config.json`, and tensors under
//! the names, shapes and row orders of Hugging Face. Files are untrusted; see `header.rs`.

mod block;
mod config;
mod cursor;
mod describe;
mod encode;
mod families;
mod header;
mod k_blocks;
mod metadata;
mod names;
mod rotary;
mod tensors;
mod vocabulary;
mod write;

use std::io::Read;
use std::path::Path;

pub use block::Block;
pub use vocabulary::{TokenKind, Vocabulary};
pub use write::{Types, WriteError, write};

use super::{Bytes, CheckpointError, Tensors};
use crate::architecture::Architecture;
use header::{Header, MAGIC};
use tensors::GgufTensors;

/// A GGUF file, its weights mapped.
pub struct Gguf {
    /// Sizes.
    pub architecture: Architecture,
    /// Tensors by their names in Hugging Face.
    pub tensors: Box<dyn Tensors>,
    /// Its tokenizer, if it has one.
    pub vocabulary: Option<Vocabulary>,
}

/// Whether `path` is a file that begins as GGUF files do, or is called like one.
pub fn is_gguf(path: &Path) -> bool {
    let begins = || {
        let mut magic = [0; 4];
        std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == MAGIC
    };
    path.is_file() && (path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf")) || begins())
}

/// Reads the header of `file` and maps its weights.
pub fn open_gguf(file: &Path) -> Result<Gguf, CheckpointError> {
    from_bytes(file, Bytes::map(file)?)
}

/// Reads a GGUF file that is already in memory; `file` names it in errors.
pub fn from_bytes(file: &Path, bytes: Bytes) -> Result<Gguf, CheckpointError> {
    let header = Header::parse(file, &bytes)?;
    let kind = config::kind(&header)?;
    let architecture = config::architecture(&header, &bytes, &kind)?;
    let tensors = names::named(&architecture, &kind, &header)?;
    let vocabulary = Vocabulary::read(&header.metadata, &bytes)?;
    let tensors = Box::new(GgufTensors { file: file.into(), bytes, tensors });
    Ok(Gguf { architecture, tensors, vocabulary })
}
