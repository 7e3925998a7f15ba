//! The simplest cache that can be: rows as they came. It feeds attention variants in their tests, in a layout (entry
//! by entry, in short pieces) that the shipped caches do not have.

use std::collections::HashMap;
use std::ops::Range;

use crate::{Activations, CacheFull, KvBytes, KvCache, KvShape, KvTile, SeqId, Step};

/// Row-major `[entries, n_kv_heads·head_dim]` per (sequence, layer); shows at most `piece` entries at a time.
pub struct PlainCache {
    shape: KvShape,
    piece: usize,
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
        PlainCache { shape, piece: piece.max(1), rows: HashMap::new() }
    }

    fn width(&self) -> usize {
        self.shape.n_kv_heads * self.shape.head_dim
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
        let (rows, width) = (&self.rows[&(layer, seq)], self.width());
        let mut start = entries.start;
        while start < entries.end {
            let piece_end = (start / self.piece + 1) * self.piece;
            let end = (start + tile_len).min(entries.end).min(piece_end);
            visit(KvTile {
                positions: &rows.positions[start..end],
                k: &rows.k[start * width..end * width],
                v: &rows.v[start * width..end * width],
                head_stride: self.shape.head_dim,
                row_stride: width,
            });
            start = end;
        }
    }

    fn truncate(&mut self, seq: SeqId, len: usize) {
        let width = self.width();
        for ((_, _), rows) in self.rows.iter_mut().filter(|((_, s), _)| *s == seq) {
            rows.positions.truncate(len);
            rows.k.truncate(len * width);
            rows.v.truncate(len * width);
        }
    }

    fn bytes(&self) -> KvBytes {
        let bytes = self.rows.values().map(|rows| (rows.k.len() + rows.v.len()) * size_of::<f32>()).sum();
        KvBytes { logical: bytes, resident: bytes }
    }

    fn entry_bytes(&self) -> usize {
        2 * self.width() * size_of::<f32>()
    }
}
