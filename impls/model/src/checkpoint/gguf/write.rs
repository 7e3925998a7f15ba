//! Writing a GGUF file, one tensor at a time: no more than one matrix is in memory.

use std::collections::HashMap;
use std::io::Write;
use std::ops::Range;

use super::block::Block;
use super::describe::{Entry, divisors, kind, metadata};
use super::header::MAGIC;
use super::names::pairs;
use super::tensors::Layout;
use super::vocabulary::Vocabulary;
use crate::architecture::Architecture;
use crate::checkpoint::{CheckpointError, Tensors};
use crate::names::{QkvNames, qkv};

const ALIGNMENT: u64 = 32;

/// Kinds in which llama.cpp wants a head although it equals the embedding.
const HEAD_OF_THEIR_OWN: &[&str] = &["gptj", "gptneox", "nemotron", "olmo2", "olmoe", "phi2", "qwen2moe", "stablelm"];

/// Which type the matrices of a file get; what is no matrix, and routers, stay F32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Types {
    /// Projections of the layers.
    pub layers: Block,
    /// Embedding and head.
    pub ends: Block,
}

impl Types {
    /// Every matrix in `block`.
    pub fn all(block: Block) -> Types {
        Types { layers: block, ends: block }
    }
}

/// Why a checkpoint cannot be written as GGUF.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The format, or llama.cpp, has no word for it.
    #[error("GGUF cannot express {0}; write another format")]
    Inexpressible(String),
    /// A type that is only read.
    #[error("GGUF type {0} cannot be written; choose one of F32, F16, BF16, Q8_0, Q4_0, Q4_1")]
    Type(&'static str),
    /// A value is beyond what the type holds.
    #[error("tensor `{name}` holds values that {block} cannot; choose BF16 or F32")]
    Range {
        /// The tensor.
        name: String,
        /// The type.
        block: &'static str,
    },
    /// The source cannot be read.
    #[error(transparent)]
    Source(#[from] CheckpointError),
    /// The file cannot be written.
    #[error("cannot write: {0}")]
    Io(#[from] std::io::Error),
}

/// A tensor to be written.
struct Item {
    name: String,
    /// Sizes, outermost first.
    shape: Vec<usize>,
    block: Block,
    values: Values,
}

enum Values {
    Known(Vec<f32>),
    /// Tensors by their names in Hugging Face, one after the other.
    Read {
        ours: Vec<String>,
        layout: Layout,
        /// Stored `[in, out]`.
        transposed: bool,
        /// Rows in this order, where the family interleaves them.
        rows: Option<Vec<Range<usize>>>,
    },
}

impl Item {
    fn bytes(&self) -> u64 {
        (self.shape.iter().product::<usize>() / self.block.values() * self.block.bytes()) as u64
    }

    /// The values in the order of the file.
    fn read(&self, tensors: &dyn Tensors) -> Result<Vec<f32>, WriteError> {
        let (ours, layout, transposed, rows) = match &self.values {
            Values::Known(values) => return Ok(values.clone()),
            Values::Read { ours, layout, transposed, rows } => (ours, layout, *transposed, rows),
        };
        let mut values = vec![];
        for name in ours {
            let tensor = tensors.get(name)?;
            let stored = tensor.data.to_f32();
            match (transposed, tensor.shape.as_slice()) {
                (true, &[n_in, n_out]) => {
                    values.extend((0..n_out).flat_map(|o| (0..n_in).map(move |i| i * n_out + o)).map(|at| stored[at]));
                }
                _ => values.extend_from_slice(&stored),
            }
        }
        match layout {
            Layout::Keys(part) => values = part.keys(&values),
            Layout::Values(part) => values = part.values(&values),
            _ => {}
        }
        let expected: usize = self.shape.iter().product();
        if values.len() != expected {
            let (name, found) = (self.name.clone(), vec![values.len()]);
            return Err(CheckpointError::Shape { name, expected: self.shape.clone(), found }.into());
        }
        if !values.iter().all(|v| v.is_finite()) {
            return Err(CheckpointError::NotFinite { name: self.name.clone() }.into());
        }
        let columns = values.len() / self.shape[0];
        if let Layout::PlusOne = layout {
            values.iter_mut().for_each(|v| *v += 1.0);
        }
        if let Layout::Paired(_) = layout {
            let mut paired = vec![0.0; values.len()];
            for (row, from) in values.chunks_exact(columns).enumerate() {
                let to = layout.file_row(row, self.shape[0]) * columns;
                paired[to..to + columns].copy_from_slice(from);
            }
            values = paired;
        }
        if let Some(rows) = rows {
            values = rows.iter().flat_map(|r| &values[r.start * columns..r.end * columns]).copied().collect();
        }
        Ok(values)
    }
}

/// Every tensor of `a` in the order of the file.
fn items(a: &Architecture, tensors: &dyn Tensors, types: Types) -> Result<Vec<Item>, WriteError> {
    let kind = kind(a)?;
    let shapes: HashMap<String, Vec<usize>> = crate::names::tensors(a).into_iter().collect();
    let usual = a.names.prefixes[0];
    let embedding = |prefix: &&&str| tensors.contains(&format!("{prefix}{}.weight", a.names.embedding));
    let prefix = a.names.prefixes.iter().find(embedding).unwrap_or(&usual);
    let stored = |name: &str| match name.strip_prefix(usual) {
        Some(rest) => format!("{prefix}{rest}"),
        None => name.to_string(),
    };
    let mut items: Vec<Item> = divisors(a)
        .into_iter()
        .map(|(name, values)| Item {
            name: name.into(),
            shape: vec![values.len()],
            block: Block::F32,
            values: Values::Known(values),
        })
        .collect();
    if a.tied_head && HEAD_OF_THEIR_OWN.contains(&kind) {
        let (name, shape) = ("output.weight".to_string(), vec![a.vocab_size, a.embedding_dim]);
        let ours = stored(&format!("{usual}{}.weight", a.names.embedding));
        items.push(item(a, Layout::Same, name, ours, &shape, types));
    }
    let mut place: HashMap<String, usize> = HashMap::new();
    for pair in pairs(a, kind, &|_| true, &|_| false) {
        for [our_ending, their_ending] in pair.endings {
            let ours = format!("{}{our_ending}", pair.ours);
            let Some(shape) = shapes.get(&ours) else { continue };
            let (name, ours) = (format!("{}{their_ending}", pair.theirs), stored(&ours));
            if let Some(&at) = place.get(&name) {
                if let Values::Read { ours: all, .. } = &mut items[at].values {
                    all.push(ours);
                }
                continue;
            }
            place.insert(name.clone(), items.len());
            items.push(item(a, pair.layout_of(their_ending), name, ours, shape, types));
        }
    }
    Ok(items)
}

fn item(a: &Architecture, layout: Layout, name: String, ours: String, shape: &[usize], types: Types) -> Item {
    let in_layer = name.starts_with("blk.");
    let transposed = a.names.transposed && in_layer && shape.len() == 2;
    let mut sizes = shape.to_vec();
    if transposed {
        sizes.reverse();
    }
    match layout {
        Layout::Part { of, .. } => sizes.insert(0, of),
        Layout::Row => sizes = vec![sizes.iter().product()],
        Layout::Keys(part) => sizes = vec![part.heads, part.rank, part.key],
        Layout::Values(part) => sizes = vec![part.heads, part.value, part.rank],
        _ => {}
    }
    let interleaved = matches!(a.names.qkv, QkvNames::ByGroup(_)) && name.contains("attn_qkv");
    let rows = interleaved.then(|| qkv(a, 0).swap_remove(0).rows);
    let wanted = if in_layer { types.layers } else { types.ends };
    let plain = sizes.len() == 1 || ["_norm.", "ffn_gate_inp", "position_embd"].iter().any(|part| name.contains(part));
    let fits = sizes[sizes.len() - 1].is_multiple_of(wanted.values());
    let block = match (plain, fits) {
        (true, _) => Block::F32,
        (false, true) => wanted,
        // rows that blocks cannot fill
        (false, false) => Block::F16,
    };
    Item { name, shape: sizes, block, values: Values::Read { ours: vec![ours], layout, transposed, rows } }
}

/// Writes `tensors`, which are those of `a`, to `out`, with its tokenizer; `name` is what the model is called in it. `progress`
/// gets tensors written and tensors in all.
pub fn write(
    out: &mut dyn Write,
    name: &str,
    (a, tensors): (&Architecture, &dyn Tensors),
    vocabulary: Option<&Vocabulary>,
    types: Types,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<(), WriteError> {
    for block in [types.layers, types.ends] {
        if !Block::WRITTEN.contains(&block) {
            return Err(WriteError::Type(block.name()));
        }
    }
    let metadata = metadata(a, vocabulary, name, file_type(types.layers))?;
    let items = items(a, tensors, types)?;
    out.write_all(&header(&metadata, &items))?;
    let mut bytes = vec![];
    for (done, item) in items.iter().enumerate() {
        progress(done, items.len());
        let values = item.read(tensors)?;
        if !item.block.fits(&values) {
            return Err(WriteError::Range { name: item.name.clone(), block: item.block.name() });
        }
        for chunk in values.chunks(1 << 16) {
            bytes.clear();
            item.block.encode(chunk, &mut bytes);
            out.write_all(&bytes)?;
        }
        let padding = item.bytes().next_multiple_of(ALIGNMENT) - item.bytes();
        out.write_all(&vec![0; padding as usize])?;
    }
    progress(items.len(), items.len());
    Ok(())
}

/// ggml's number for a file whose matrices are mostly of `block`.
fn file_type(block: Block) -> u32 {
    match block {
        Block::F32 => 0,
        Block::F16 => 1,
        Block::Q4_0 => 2,
        Block::Q4_1 => 3,
        Block::Q8_0 => 7,
        _ => 32,
    }
}

/// Everything before the data, padding included.
fn header(metadata: &[(String, Entry)], items: &[Item]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((items.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, entry) in metadata {
        text(key, &mut out);
        value(entry, &mut out);
    }
    let mut offset = 0u64;
    for item in items {
        text(&item.name, &mut out);
        out.extend((item.shape.len() as u32).to_le_bytes());
        item.shape.iter().rev().for_each(|size| out.extend((*size as u64).to_le_bytes()));
        out.extend(item.block.number().to_le_bytes());
        out.extend(offset.to_le_bytes());
        offset += item.bytes().next_multiple_of(ALIGNMENT);
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT as usize), 0);
    out
}

fn text(text: &str, out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// A value with the number of its kind before it.
fn value(entry: &Entry, out: &mut Vec<u8>) {
    let mut array = |kind: u32, count: usize| {
        out.extend(9u32.to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend((count as u64).to_le_bytes());
    };
    match entry {
        Entry::U32(number) => {
            out.extend(4u32.to_le_bytes());
            out.extend(number.to_le_bytes());
        }
        Entry::F32(number) => {
            out.extend(6u32.to_le_bytes());
            out.extend(number.to_le_bytes());
        }
        Entry::Bool(flag) => {
            out.extend(7u32.to_le_bytes());
            out.push((*flag).into());
        }
        Entry::Text(string) => {
            out.extend(8u32.to_le_bytes());
            text(string, out);
        }
        Entry::Texts(all) => {
            array(8, all.len());
            all.iter().for_each(|string| text(string, out));
        }
        Entry::F32s(all) => {
            array(6, all.len());
            all.iter().for_each(|number| out.extend(number.to_le_bytes()));
        }
        Entry::Bools(all) => {
            array(7, all.len());
            all.iter().for_each(|flag| out.push((*flag).into()));
        }
        Entry::I32s(all) => {
            array(5, all.len());
            all.iter().for_each(|number| out.extend(number.to_le_bytes()));
        }
    }
}
