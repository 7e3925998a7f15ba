//! The header of a GGUF file: version, metadata, and where each tensor lies.
//!
//! Layout (little-endian): magic, version, number of tensors, number of keys, the keys, the tensors, padding, the data. The
//! file is untrusted: every count and length is compared with the bytes that are left before it is used.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::path::Path;

use super::block::Block;
use super::cursor::{Cursor, Truncated};
use super::metadata::{Fault, Kind, Metadata, read};
use crate::checkpoint::{Bytes, CheckpointError};

/// The first bytes of every GGUF file.
pub(super) const MAGIC: [u8; 4] = *b"GGUF";
const ALIGNMENT: &str = "general.alignment";
const DAMAGED: &str = "the file is damaged or incomplete; copy or download it again";
/// Bytes of the smallest key (name length, kind, one byte) and of the smallest tensor (name length, dimensions, type, offset).
const SMALLEST: [u64; 2] = [13, 24];

/// A tensor of the file.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) name: String,
    /// Sizes, outermost first (the file says innermost first).
    pub(super) shape: Vec<usize>,
    pub(super) block: Block,
    /// Which file of a split model.
    pub(super) part: usize,
    /// First byte in the file, and how many there are.
    pub(super) start: usize,
    pub(super) bytes: usize,
}

/// What stands before the data.
pub(super) struct Header {
    pub(super) metadata: Metadata,
    pub(super) tensors: Vec<Place>,
}

/// What the header says of a tensor, before it is known where the data begins.
struct Announced {
    name: String,
    shape: Vec<usize>,
    block: Block,
    offset: u64,
    bytes: u64,
}

struct Parser<'a> {
    file: &'a Path,
    cursor: Cursor<'a>,
}

impl Parser<'_> {
    fn wrong(&self, problem: String, advice: &'static str) -> CheckpointError {
        CheckpointError::Malformed { file: self.file.into(), problem, advice }
    }

    fn short(&self, what: &str, truncated: Truncated) -> CheckpointError {
        let Truncated { at, wanted } = truncated;
        let problem = format!("{what}: {wanted} bytes are announced at byte {at}, beyond the end of the file");
        self.wrong(problem, DAMAGED)
    }

    /// Version, number of tensors, number of keys.
    fn counts(&mut self) -> Result<[u64; 2], CheckpointError> {
        let magic = self.cursor.take(4).map_err(|e| self.short("magic", e))?;
        if magic != MAGIC {
            return Err(self.wrong("does not begin with `GGUF`".into(), "name a GGUF file or a Hugging Face folder"));
        }
        let version = self.cursor.u32().map_err(|e| self.short("version", e))?;
        if !(2..=3).contains(&version) {
            let big_endian = (2..=3).contains(&version.swap_bytes());
            let found = if big_endian { "big-endian".into() } else { format!("version {version}") };
            return Err(self.wrong(
                format!("this GGUF file is {found}; expected little-endian version 2 or 3"),
                "convert the model with a current converter",
            ));
        }
        let tensors = self.cursor.u64().map_err(|e| self.short("number of tensors", e))?;
        let keys = self.cursor.u64().map_err(|e| self.short("number of keys", e))?;
        let least = keys.saturating_mul(SMALLEST[0]).saturating_add(tensors.saturating_mul(SMALLEST[1]));
        if least > self.cursor.left() {
            let problem = format!("announces {keys} keys and {tensors} tensors, more than the file can hold");
            return Err(self.wrong(problem, DAMAGED));
        }
        Ok([tensors, keys])
    }

    fn metadata(&mut self, keys: u64) -> Result<Metadata, CheckpointError> {
        let mut values = HashMap::new();
        for i in 0..keys {
            let key = match self.cursor.string().map_err(|e| self.short(&format!("name of key {i}"), e))? {
                Some(key) => key.to_string(),
                None => return Err(self.wrong(format!("the name of key {i} is not UTF-8"), DAMAGED)),
            };
            let what = format!("key `{}`", shown(&key));
            let number = self.cursor.u32().map_err(|e| self.short(&what, e))?;
            let kind =
                Kind::of(number).ok_or_else(|| self.wrong(format!("{what} has the unknown kind {number}"), DAMAGED))?;
            let value = read(&mut self.cursor, kind, 0).map_err(|fault| match fault {
                Fault::Truncated(truncated) => self.short(&what, truncated),
                Fault::Unfit(problem) => self.wrong(format!("{what} {problem}"), DAMAGED),
            })?;
            if values.insert(key, value).is_some() {
                return Err(self.wrong(format!("{what} is there twice"), "convert the model to GGUF again"));
            }
        }
        Ok(Metadata { file: self.file.into(), values })
    }

    fn tensor(&mut self, i: u64) -> Result<Announced, CheckpointError> {
        let name = match self.cursor.string().map_err(|e| self.short(&format!("name of tensor {i}"), e))? {
            Some(name) => name.to_string(),
            None => return Err(self.wrong(format!("the name of tensor {i} is not UTF-8"), DAMAGED)),
        };
        let what = format!("tensor `{}`", shown(&name));
        let rank = self.cursor.u32().map_err(|e| self.short(&what, e))?;
        if !(1..=4).contains(&rank) {
            return Err(self.wrong(format!("{what} has {rank} dimensions; expected 1 to 4"), DAMAGED));
        }
        let mut shape = vec![];
        let mut values = 1u64;
        for _ in 0..rank {
            let size = self.cursor.u64().map_err(|e| self.short(&what, e))?;
            values = match values.checked_mul(size) {
                Some(values) if (1..1 << 48).contains(&values) => values,
                _ => return Err(self.wrong(format!("{what} has an impossible size {size}"), DAMAGED)),
            };
            shape.insert(0, size as usize);
        }
        let number = self.cursor.u32().map_err(|e| self.short(&what, e))?;
        let offset = self.cursor.u64().map_err(|e| self.short(&what, e))?;
        let block = Block::of(number).map_err(|found| {
            let problem = format!("{what} is stored as {found}; expected {}", Block::names().join(", "));
            self.wrong(problem, "convert the model to one of these types")
        })?;
        let (columns, block_len) = (shape[shape.len() - 1], block.values());
        if !columns.is_multiple_of(block_len) {
            let problem = format!(
                "{what} has rows of {columns} values, which {} cannot hold (blocks of {block_len})",
                block.name()
            );
            return Err(self.wrong(problem, DAMAGED));
        }
        let bytes = values / block_len as u64 * block.bytes() as u64;
        Ok(Announced { name, shape, block, offset, bytes })
    }

    /// Gives every tensor its bytes; they may neither leave the file nor overlap.
    fn place(&self, tensors: Vec<Announced>, alignment: u64, end: u64) -> Result<Vec<Place>, CheckpointError> {
        let data = (self.cursor.position() as u64).next_multiple_of(alignment);
        let mut places = vec![];
        for t in tensors {
            let what = format!("tensor `{}`", shown(&t.name));
            if t.offset % alignment != 0 {
                return Err(self.wrong(format!("{what} lies at {}, not a multiple of {alignment}", t.offset), DAMAGED));
            }
            let last = data.checked_add(t.offset).and_then(|start| start.checked_add(t.bytes));
            if last.is_none_or(|last| last > end) {
                let problem =
                    format!("{what} needs {} bytes at offset {}, beyond the end of the file", t.bytes, t.offset);
                return Err(self.wrong(problem, DAMAGED));
            }
            let start = (data + t.offset) as usize;
            places.push(Place {
                name: t.name,
                shape: t.shape,
                block: t.block,
                part: 0,
                start,
                bytes: t.bytes as usize,
            });
        }
        let mut order: Vec<&Place> = places.iter().collect();
        order.sort_by_key(|place| place.start);
        if let Some(pair) = order.windows(2).find(|pair| pair[0].start + pair[0].bytes > pair[1].start) {
            let problem = format!("tensors `{}` and `{}` overlap", shown(&pair[0].name), shown(&pair[1].name));
            return Err(self.wrong(problem, DAMAGED));
        }
        let mut names: Vec<&str> = places.iter().map(|place| place.name.as_str()).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => {
                Err(self
                    .wrong(format!("tensor `{}` is there twice", shown(pair[0])), "convert the model to GGUF again"))
            }
            None => Ok(places),
        }
    }
}

/// A name as an error may show it.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(80).collect()
}

impl Place {
    /// Its bytes among those of the files.
    pub(super) fn of<'a>(&self, parts: &'a [impl Borrow<Bytes>]) -> &'a [u8] {
        &parts[self.part].borrow().as_slice()[self.start..self.start + self.bytes]
    }
}

impl Header {
    /// Parses and checks the header of `bytes`; `file` names them in errors.
    pub(super) fn parse(file: &Path, bytes: &Bytes) -> Result<Header, CheckpointError> {
        let slice = bytes.as_slice();
        let mut parser = Parser { file, cursor: Cursor::new(slice) };
        let [tensors, keys] = parser.counts()?;
        let metadata = parser.metadata(keys)?;
        let alignment = metadata.whole(ALIGNMENT)?.unwrap_or(32);
        if !alignment.is_power_of_two() || alignment > 1 << 20 {
            return Err(metadata.wrong(ALIGNMENT, "a power of two up to 1048576"));
        }
        let announced = (0..tensors).map(|i| parser.tensor(i)).collect::<Result<Vec<_>, _>>()?;
        let tensors = parser.place(announced, alignment, slice.len() as u64)?;
        Ok(Header { metadata, tensors })
    }

    /// The tensor called `name`.
    pub(super) fn tensor(&self, name: &str) -> Option<&Place> {
        self.tensors.iter().find(|place| place.name == name)
    }
}
