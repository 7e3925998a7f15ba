//! The tensors of a GGUF file under the names, shapes and row orders of Hugging Face.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::block::Block;
use super::header::Place;
use super::stored_blocks::BlockCodes;
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
    /// These rows of it.
    Rows { start: usize, rows: usize },
    /// `[out, in]` in the file, `[in, out]` in Hugging Face.
    Turned,
    /// Queries, keys and values one after the other instead of group by group: heads, groups, features of a head.
    Grouped([usize; 3]),
    /// The keys of each head, turned, of a matrix that holds keys and values.
    Keys(KeysOrValues),
    /// The values of each head of that matrix.
    Values(KeysOrValues),
}

/// Sizes of a matrix `[heads · (key + value), rank]` that is stored in two parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeysOrValues {
    pub(super) heads: usize,
    pub(super) key: usize,
    pub(super) value: usize,
    pub(super) rank: usize,
}

impl KeysOrValues {
    /// The matrix of `keys [heads, rank, key]` and `values [heads, value, rank]`.
    fn joined(self, keys: &[f32], values: &[f32]) -> Vec<f32> {
        let (key, rank) = (self.key, self.rank);
        let mut out = Vec::with_capacity(keys.len() + values.len());
        for (keys, values) in keys.chunks_exact(key * rank).zip(values.chunks_exact(self.value * rank)) {
            (0..key).for_each(|row| out.extend((0..rank).map(|column| keys[column * key + row])));
            out.extend_from_slice(values);
        }
        out
    }

    /// The keys `[heads, rank, key]` of that matrix.
    pub(super) fn keys(self, matrix: &[f32]) -> Vec<f32> {
        let (key, rank) = (self.key, self.rank);
        let head = |head: &[f32]| (0..rank * key).map(|at| head[at % key * rank + at / key]).collect::<Vec<_>>();
        matrix.chunks_exact((key + self.value) * rank).flat_map(head).collect()
    }

    /// The values `[heads, value, rank]` of that matrix.
    pub(super) fn values(self, matrix: &[f32]) -> Vec<f32> {
        let heads = matrix.chunks_exact((self.key + self.value) * self.rank);
        heads.flat_map(|head| head[self.key * self.rank..].to_vec()).collect()
    }
}

/// A tensor of the file in the words of Hugging Face.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub(super) place: Place,
    pub(super) layout: Layout,
    /// The other part of a matrix stored in two.
    pub(super) values: Option<Place>,
}

impl Named {
    /// Sizes, outermost first.
    pub(super) fn shape(&self) -> Vec<usize> {
        let shape = &self.place.shape;
        match self.layout {
            Layout::Part { .. } => shape[1..].to_vec(),
            Layout::Row => vec![1, shape.iter().product()],
            Layout::Rows { rows, .. } => std::iter::once(rows).chain(shape[1..].iter().copied()).collect(),
            Layout::Turned => shape.iter().rev().copied().collect(),
            Layout::Keys(part) if self.values.is_some() => vec![part.heads * (part.key + part.value), part.rank],
            _ => shape.clone(),
        }
    }

    /// Its bytes.
    fn bytes<'a>(&self, parts: &'a [Arc<Bytes>]) -> &'a [u8] {
        let whole = self.place.of(parts);
        match self.layout {
            Layout::Part { at, of } => &whole[at * (whole.len() / of)..(at + 1) * (whole.len() / of)],
            Layout::Rows { start, rows } => {
                let row = whole.len() / self.place.shape[0];
                &whole[start * row..(start + rows) * row]
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
            Layout::Grouped([heads, groups, dim]) => {
                let (queries, within) = (heads / groups, row % dim);
                let (group, slot) = (row / dim / (queries + 2), row / dim % (queries + 2));
                let head = match slot.checked_sub(queries) {
                    None => group * queries + slot,
                    Some(0) => heads + group,
                    Some(_) => heads + groups + group,
                };
                head * dim + within
            }
            _ => row,
        }
    }

    fn moves_rows(self) -> bool {
        matches!(self, Layout::Paired(_) | Layout::Grouped(_))
    }
}

/// A GGUF file as a store of tensors.
pub(super) struct GgufTensors {
    pub(super) file: PathBuf,
    pub(super) parts: Vec<Arc<Bytes>>,
    pub(super) tensors: HashMap<String, Named>,
}

impl GgufTensors {
    fn named(&self, name: &str) -> Result<&Named, CheckpointError> {
        self.tensors
            .get(name)
            .ok_or_else(|| CheckpointError::MissingTensor { file: self.file.clone(), name: name.into() })
    }

    /// The values of a tensor of the file, as they stand there.
    fn decoded(&self, place: &Place) -> Vec<f32> {
        let mut values = vec![0.0; place.bytes / place.block.bytes() * place.block.values()];
        place.block.decode(place.of(&self.parts), &mut values);
        values
    }
}

/// `values` with their rows in the order of Hugging Face.
fn reordered<'a, T: Copy>(named: &Named, values: Cow<'a, [T]>) -> Cow<'a, [T]> {
    if !named.layout.moves_rows() {
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

/// `data [rows, columns]` transposed, in its own type.
fn turned<'a>(data: &TensorData<'_>, shape: &[usize]) -> TensorData<'a> {
    fn turn<T: Copy>(values: &[T], [rows, columns]: [usize; 2]) -> Vec<T> {
        (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
    }
    let shape = [shape[0], shape[1]];
    match data {
        TensorData::F32(values) => TensorData::F32(turn(values, shape).into()),
        TensorData::F16(values) => TensorData::F16(turn(values, shape).into()),
        TensorData::Bf16(values) => TensorData::Bf16(turn(values, shape).into()),
    }
}

impl Tensors for GgufTensors {
    fn get(&self, name: &str) -> Result<Tensor<'_>, CheckpointError> {
        let named = self.named(name)?;
        if let (Layout::Keys(part), Some(values)) = (named.layout, &named.values) {
            let joined = part.joined(&self.decoded(&named.place), &self.decoded(values));
            return Ok(Tensor { shape: named.shape(), data: TensorData::F32(joined.into()) });
        }
        let bytes = named.bytes(&self.parts);
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
            Layout::Turned => turned(&data, &named.place.shape),
            _ => data,
        };
        Ok(Tensor { shape: named.shape(), data })
    }

    fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn stored_as(&self, name: &str) -> Option<String> {
        let block = self.tensors.get(name)?.place.block;
        let float = matches!(block, Block::F32 | Block::F16 | Block::Bf16);
        (!float).then(|| format!("{} in blocks of {}", block.name(), block.values()))
    }

    /// Rows of blocks that kernels read, where they lie.
    fn codes(&self, name: &str) -> Result<Option<StoredCodes>, CheckpointError> {
        let named = self.named(name)?;
        if named.values.is_some() {
            return Ok(None);
        }
        let shape = if named.layout == Layout::Turned { named.place.shape.clone() } else { named.shape() };
        let &[n, k] = shape.as_slice() else { return Ok(None) };
        let (file, bytes) = (&self.parts[named.place.part], named.bytes(&self.parts));
        let (start, width) = (bytes.as_ptr() as usize - file.as_slice().as_ptr() as usize, bytes.len() / n.max(1));
        let rows = (0..n).map(|row| start + named.layout.file_row(row, n) * width).collect();
        Ok(BlockCodes::new(file, named.place.block, k, rows).map(StoredCodes::Blocks))
    }
}
