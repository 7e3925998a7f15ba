//! The simplest cache that can be: rows as they came. It feeds attention variants in their tests, in a layout (entry
//! by entry, in short pieces) that the shipped caches do not have.

use std::collections::HashMap;
use std::ops::Range;

use cpu_kernels::attention::Codes;
use half::f16;

use crate::{Activations, CacheFull, KvBytes, KvCache, KvEntries, KvShape, KvTile, SeqId, Step};

/// How values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// As they are.
    F32,
    /// IEEE half.
    F16,
    /// Bytes with a scale per entry and head: always 1/64 here, so that the values held exactly are known.
    Int8,
}

impl Stored {
    const STEP: f32 = 1.0 / 64.0;

    /// The nearest value that is held exactly, for values in [−1, 1].
    pub fn nearest(self, value: f32) -> f32 {
        match self {
            Stored::F32 => value,
            Stored::F16 => f16::from_f32(value).to_f32(),
            Stored::Int8 => (value / Self::STEP).round() * Self::STEP,
        }
    }
}

/// Row-major `[entries, n_kv_heads·head_dim]` per (sequence, layer); shows at most `piece` entries at a time.
pub struct PlainCache {
    shape: KvShape,
    piece: usize,
    stored: Stored,
    rows: HashMap<(usize, SeqId), Rows>,
}

#[derive(Default)]
struct Rows {
    positions: Vec<u32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl PlainCache {
    /// An empty cache whose tiles end at multiples of `piece` entries.
    pub fn new(shape: KvShape, piece: usize) -> PlainCache {
        PlainCache { shape, piece: piece.max(1), stored: Stored::F32, rows: HashMap::new() }
    }

    /// The same cache with another encoding.
    pub fn storing(self, stored: Stored) -> PlainCache {
        PlainCache { stored, ..self }
    }

    /// Columns of keys and of values.
    fn widths(&self) -> (usize, usize) {
        (self.shape.key_width(), self.shape.value_width())
    }
}

/// Values of a tile in an encoding.
enum Encoded<'a> {
    F32(&'a [f32]),
    F16(Vec<u16>),
    Int8(Vec<i8>, Vec<f32>),
}

impl<'a> Encoded<'a> {
    fn new(stored: Stored, values: &'a [f32], n: usize) -> Encoded<'a> {
        match stored {
            Stored::F32 => Encoded::F32(values),
            Stored::F16 => Encoded::F16(values.iter().map(|v| f16::from_f32(*v).to_bits()).collect()),
            Stored::Int8 => {
                Encoded::Int8(values.iter().map(|v| (v / Stored::STEP).round() as i8).collect(), vec![Stored::STEP; n])
            }
        }
    }

    fn entries(&self, dim: usize, width: usize) -> KvEntries<'_> {
        let codes = match self {
            Encoded::F32(values) => Codes::F32(values),
            Encoded::F16(codes) => Codes::F16(codes),
            Encoded::Int8(codes, scales) => Codes::Int8 { codes, scales },
        };
        KvEntries { codes, head_stride: dim, row_stride: width, scale_head_stride: 0 }
    }
}

impl KvCache for PlainCache {
    fn reserve(&mut self, _: SeqId, _: usize) -> Result<(), CacheFull> {
        Ok(())
    }

    fn append(&mut self, layer: usize, step: &Step, k: &Activations, v: &Activations) {
        for span in &step.spans {
            let rows = self.rows.entry((layer, span.seq)).or_default();
            for row in span.rows.clone() {
                rows.positions.push(step.positions[row]);
                rows.k.extend_from_slice(k.row(row));
                rows.v.extend_from_slice(v.row(row));
            }
        }
    }

    fn len(&self, layer: usize, seq: SeqId) -> usize {
        self.rows.get(&(layer, seq)).map_or(0, |rows| rows.positions.len())
    }

    fn tiles(
        &self,
        layer: usize,
        seq: SeqId,
        entries: Range<usize>,
        tile_len: usize,
        visit: &mut dyn FnMut(KvTile<'_>),
    ) {
        let Some(rows) = self.rows.get(&(layer, seq)) else { return };
        let (shape, (k_width, v_width)) = (&self.shape, self.widths());
        let mut start = entries.start;
        while start < entries.end {
            let piece_end = (start / self.piece + 1) * self.piece;
            let end = (start + tile_len).min(entries.end).min(piece_end);
            let k = Encoded::new(self.stored, &rows.k[start * k_width..end * k_width], end - start);
            let v = Encoded::new(self.stored, &rows.v[start * v_width..end * v_width], end - start);
            let k = k.entries(shape.key_dim, k_width);
            let v = if shape.value_prefix { k } else { v.entries(shape.value_dim, v_width) };
            visit(KvTile { first: start, positions: &rows.positions[start..end], k, v });
            start = end;
        }
    }

    fn truncate(&mut self, seq: SeqId, len: usize) {
        let (k_width, v_width) = self.widths();
        for ((_, _), rows) in self.rows.iter_mut().filter(|((_, s), _)| *s == seq) {
            rows.positions.truncate(len);
            rows.k.truncate(len * k_width);
            rows.v.truncate(len * v_width);
        }
    }

    fn bytes(&self) -> KvBytes {
        let bytes = self.rows.values().map(|rows| (rows.k.len() + rows.v.len()) * size_of::<f32>()).sum();
        KvBytes { logical: bytes, resident: bytes }
    }

    fn entry_bytes(&self) -> usize {
        self.shape.entry_elements() * size_of::<f32>()
    }
}
