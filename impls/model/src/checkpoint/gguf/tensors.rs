//! The tensors of a GGUF file under the names, shapes and row orders of Hugging Face.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;

use cpu_kernels::GroupCodes;

use super::block::{Block, half};
use super::header::Place;
use crate::checkpoint::tensors::floats;
use crate::checkpoint::{Bytes, CheckpointError, StoredCodes, Tensor, TensorData, Tensors};

/// What the converter did to a tensor, undone when it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Nothing.
    Same,
    /// Rows of each of this many heads are in rotary pairs `(2i, 2i + 1)` instead of halves `(i, i + dim / 2)`.
    Paired(usize),
    /// One was added to every value.
    PlusOne,
    /// One of this many matrices, stacked outermost.
    Part { at: usize, of: usize },
    /// Seen as a matrix of one row.
    Row,
}

/// A tensor of the file in the words of Hugging Face.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub(super) place: Place,
    pub(super) layout: Layout,
}

impl Named {
    /// Sizes, outermost first.
    pub(super) fn shape(&self) -> Vec<usize> {
        let shape = &self.place.shape;
        match self.layout {
            Layout::Part { .. } => shape[1..].to_vec(),
            Layout::Row => vec![1, shape.iter().product()],
            _ => shape.clone(),
        }
    }

    /// Its bytes in the file.
    fn bytes(&self) -> Range<usize> {
        let whole = self.place.start..self.place.start + self.place.bytes;
        match self.layout {
            Layout::Part { at, of } => {
                let one = self.place.bytes / of;
                whole.start + at * one..whole.start + (at + 1) * one
            }
            _ => whole,
        }
    }
}

impl Layout {
    /// Where row `row` of the Hugging Face order, of `rows`, stands in the file.
    pub(super) fn file_row(self, row: usize, rows: usize) -> usize {
        match self {
            Layout::Paired(heads) => {
                let dim = rows / heads;
                let (head, i) = (row / dim, row % dim);
                head * dim + i % (dim / 2) * 2 + i / (dim / 2)
            }
            _ => row,
        }
    }
}

/// A GGUF file as a store of tensors.
pub(super) struct GgufTensors {
    pub(super) file: PathBuf,
    pub(super) bytes: Bytes,
    pub(super) tensors: HashMap<String, Named>,
}

impl GgufTensors {
    fn named(&self, name: &str) -> Result<&Named, CheckpointError> {
        self.tensors
            .get(name)
            .ok_or_else(|| CheckpointError::MissingTensor { file: self.file.clone(), name: name.into() })
    }
}

/// `values` with their rows in the order of Hugging Face.
fn reordered<'a, T: Copy>(named: &Named, values: Cow<'a, [T]>) -> Cow<'a, [T]> {
    if !matches!(named.layout, Layout::Paired(_)) {
        return values;
    }
    let rows = named.shape()[0];
    let columns = values.len() / rows;
    let row = |row: usize| {
        let at = named.layout.file_row(row, rows) * columns;
        &values[at..at + columns]
    };
    Cow::Owned((0..rows).flat_map(row).copied().collect())
}

impl Tensors for GgufTensors {
    fn get(&self, name: &str) -> Result<Tensor<'_>, CheckpointError> {
        let named = self.named(name)?;
        let bytes = &self.bytes.as_slice()[named.bytes()];
        let data = match named.place.block {
            Block::F16 => TensorData::F16(reordered(named, floats(bytes))),
            Block::Bf16 => TensorData::Bf16(reordered(named, floats(bytes))),
            Block::F32 => TensorData::F32(reordered(named, floats(bytes))),
            block => {
                let mut values = vec![0.0; bytes.len() / block.bytes() * block.values()];
                block.decode(bytes, &mut values);
                TensorData::F32(reordered(named, values.into()))
            }
        };
        let data = match named.layout {
            Layout::PlusOne => TensorData::F32(data.to_f32().iter().map(|v| v - 1.0).collect()),
            _ => data,
        };
        Ok(Tensor { shape: named.shape(), data })
    }

    fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Q4_0 and Q8_0 are scale·(code − zero) with a whole zero; the minimum of Q4_1 is no whole number of steps.
    fn codes(&self, name: &str) -> Result<Option<StoredCodes>, CheckpointError> {
        let named = self.named(name)?;
        let (bits, zero) = match named.place.block {
            Block::Q4_0 => (4, 8.0),
            Block::Q8_0 => (8, 128.0),
            _ => return Ok(None),
        };
        let &[n, k] = named.shape().as_slice() else { return Ok(None) };
        let (block, bytes) = (named.place.block, &self.bytes.as_slice()[named.bytes()]);
        let (mut codes, mut scales) = (Vec::with_capacity(n * k), Vec::with_capacity(n * k / 32));
        for row in 0..n {
            let width = bytes.len() / n;
            let at = named.layout.file_row(row, n) * width;
            for block_bytes in bytes[at..at + width].chunks_exact(block.bytes()) {
                scales.push(half(block_bytes));
                block.codes(&block_bytes[2..], &mut codes);
            }
        }
        let zeros = vec![zero; scales.len()];
        Ok(Some(StoredCodes::Group(GroupCodes { n, k, bits, group: 32, codes, scales, zeros, order: None })))
    }
}
