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
mod grids;
mod header;
mod i_blocks;
mod k_blocks;
mod metadata;
mod names;
mod refused;
mod rotary;
mod split;
mod stored_blocks;
mod tensors;
mod vocabulary;
mod words;
mod write;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use block::Block;
pub use split::is_later_part;
pub use stored_blocks::BlockCodes;
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
    /// Text of the config.json that says the same.
    pub config: String,
    /// Tensors by their names in Hugging Face.
    pub tensors: Box<dyn Tensors>,
    /// Its tokenizer, if it has one.
    pub vocabulary: Option<Vocabulary>,
    /// The files, more than one where the model is split.
    pub files: Vec<PathBuf>,
}

/// Whether `path` is a file that begins as GGUF files do, or is called like one.
pub fn is_gguf(path: &Path) -> bool {
    let begins = || {
        let mut magic = [0; 4];
        std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == MAGIC
    };
    path.is_file() && (path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf")) || begins())
}

/// Reads the header of `file` and maps its weights; the first part of a split model stands for all.
pub fn open_gguf(file: &Path) -> Result<Gguf, CheckpointError> {
    let bytes = Bytes::map(file)?;
    let header = Header::parse(file, &bytes)?;
    let split::Parts { header, parts, files } = split::Parts::open(header, bytes)?;
    read(header, parts, files)
}

/// Reads the tokenizer of `file` alone: of a model of any kind, or of a file that holds no weights.
pub fn open_vocabulary(file: &Path) -> Result<Option<Vocabulary>, CheckpointError> {
    let bytes = Bytes::map(file)?;
    let header = Header::parse(file, &bytes)?;
    Vocabulary::read(&header.metadata, &bytes)
}

/// Reads a GGUF file that is already in memory; `file` names it in errors.
pub fn from_bytes(file: &Path, bytes: Bytes) -> Result<Gguf, CheckpointError> {
    let header = Header::parse(file, &bytes)?;
    read(header, vec![bytes], vec![file.into()])
}

fn read(header: Header, parts: Vec<Bytes>, files: Vec<PathBuf>) -> Result<Gguf, CheckpointError> {
    let kind = config::kind(&header)?;
    let (architecture, config) = config::architecture(&header, &parts, &kind)?;
    let tensors = names::named(&architecture, &kind, &header)?;
    let vocabulary = Vocabulary::read(&header.metadata, &parts[0])?;
    let parts = parts.into_iter().map(Arc::new).collect();
    let tensors = Box::new(GgufTensors { file: header.metadata.file().into(), parts, tensors });
    Ok(Gguf { architecture, config, tensors, vocabulary, files })
}
