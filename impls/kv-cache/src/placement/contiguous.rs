//! What: one buffer per sequence and layer, head by head: the placement that paging is compared with.
//!
//! Source: the arrangement of Kwon et al. 2023, arXiv:2309.06180, §3.1, as the baseline; growth by doubling instead of
//! the longest length at once.
//! Shapes: keys and values `[n_kv_heads, room, head_dim]` each, room ≤ capacity.
//! Method: 1. `reserve` doubles the room (16 entries at first) and moves each head's rows; 2. `append` encodes rows in
//! place; 3. tiles borrow the buffer where the encoding allows, else they decode into scratch, one head if one is read.
//! Exactness: that of the encoding; bit-equal with f32.
//! Cost: up to twice the entries resident; an append writes each row once, plus at most one move per entry amortised.
//! Not handled: sharing of prefixes between sequences.

use std::collections::HashMap;
use std::ops::Range;

use model::{Activations, BufferPool, CacheFull, KvBytes, KvCache, KvShape, KvTile, SeqId, Step};
use serde::{Deserialize, Serialize};

use crate::encoding::{Encoding, EncodingName};

/// How a contiguous cache stores its values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContiguousSpec {
    /// Encoding of keys and values.
    pub encoding: EncodingName,
}

impl ContiguousSpec {
    pub(crate) fn tag(&self) -> String {
        match self.encoding {
            EncodingName::F32 => "contiguous".into(),
            encoding => format!("contiguous-{}", encoding.name()),
        }
    }
}

/// Entries that a new sequence has room for at least.
const FIRST_ROOM: usize = 16;

pub(crate) struct Contiguous<E: Encoding> {
    shape: KvShape,
    capacity: usize,
    sequences: HashMap<SeqId, Sequence<E>>,
    decoded: BufferPool,
}

#[derive(Clone)]
struct Sequence<E: Encoding> {
    room: usize,
    /// Of every entry that some layer has.
    positions: Vec<u32>,
    layers: Vec<Layer<E>>,
}

#[derive(Clone)]
struct Layer<E: Encoding> {
    len: usize,
    k: Vec<E::Code>,
    v: Vec<E::Code>,
}

impl<E: Encoding> Contiguous<E> {
    pub(crate) fn new(shape: KvShape, capacity: usize) -> Contiguous<E> {
        Contiguous { shape, capacity, sequences: HashMap::new(), decoded: BufferPool::default() }
    }

    fn row_codes(&self) -> usize {
        E::row_codes(self.shape.head_dim)
    }

    /// Shows tiles of the heads `heads` only.
    fn show(
        &self,
        layer: usize,
        seq: SeqId,
        heads: Range<usize>,
        mut entries: Range<usize>,
        tile_len: usize,
        visit: &mut dyn FnMut(KvTile<'_>),
    ) {
        let Some(sequence) = self.sequences.get(&seq) else { return };
        let (layer, d, room) = (&sequence.layers[layer], self.shape.head_dim, sequence.room);
        assert!(entries.end <= layer.len, "{seq:?}: entries {entries:?} of {}", layer.len);
        while !entries.is_empty() {
            let tile = entries.start..(entries.start.saturating_add(tile_len)).min(entries.end);
            entries.start = tile.end;
            let positions = &sequence.positions[tile.clone()];
            if let (Some(k), Some(v)) = (E::as_rows(&layer.k), E::as_rows(&layer.v)) {
                let (k, v) = (&k[tile.start * d..], &v[tile.start * d..]);
                visit(KvTile { positions, k, v, head_stride: room * d, row_stride: d });
                continue;
            }
            let (row_codes, n) = (self.row_codes(), tile.len());
            let mut buffer = self.decoded.take(2 * heads.len() * n * d);
            let (k, v) = buffer.split_at_mut(heads.len() * n * d);
            for (stored, rows) in [(&layer.k, &mut *k), (&layer.v, &mut *v)] {
                for (head, rows) in heads.clone().zip(rows.chunks_exact_mut(n * d)) {
                    let from = head * room + tile.start;
                    E::decode(&stored[from * row_codes..(from + n) * row_codes], d, rows);
                }
            }
            // A lone head stands for whichever head the caller indexes.
            let head_stride = if heads.len() == 1 { 0 } else { n * d };
            visit(KvTile { positions, k, v, head_stride, row_stride: d });
        }
    }
}

impl<E: Encoding> Sequence<E> {
    fn new(n_layers: usize) -> Sequence<E> {
        let layers = (0..n_layers).map(|_| Layer { len: 0, k: vec![], v: vec![] }).collect();
        Sequence { room: 0, positions: vec![], layers }
    }

    /// Gives every head room for `room` entries of `row_codes` codes.
    fn grow(&mut self, n_kv_heads: usize, row_codes: usize, room: usize) {
        for layer in &mut self.layers {
            for codes in [&mut layer.k, &mut layer.v] {
                let mut grown = vec![E::Code::default(); n_kv_heads * room * row_codes];
                let (old, used) = (self.room * row_codes, layer.len * row_codes);
                for head in 0..n_kv_heads {
                    grown[head * room * row_codes..][..used].copy_from_slice(&codes[head * old..][..used]);
                }
                *codes = grown;
            }
        }
        self.room = room;
    }
}

impl<E: Encoding> KvCache for Contiguous<E> {
    fn reserve(&mut self, seq: SeqId, len: usize) -> Result<(), CacheFull> {
        if len > self.capacity {
            return Err(CacheFull { seq, needed: len, capacity: self.capacity });
        }
        let (shape, row_codes) = (self.shape, self.row_codes());
        let sequence = self.sequences.entry(seq).or_insert_with(|| Sequence::new(shape.n_layers));
        if len > sequence.room {
            let room = len.max(2 * sequence.room).max(FIRST_ROOM).min(self.capacity);
            sequence.grow(shape.n_kv_heads, row_codes, room);
        }
        Ok(())
    }

    fn append(&mut self, layer: usize, step: &Step, k: &Activations, v: &Activations) {
        let (shape, row_codes) = (self.shape, self.row_codes());
        for span in &step.spans {
            let sequence = self.sequences.get_mut(&span.seq).expect("room was reserved, as the trait asks");
            let room = sequence.room;
            let layer = &mut sequence.layers[layer];
            assert!(layer.len + span.rows.len() <= room, "{:?}: reserve room before appending", span.seq);
            for row in span.rows.clone() {
                // The first layer to get an entry names its position; every layer gets the same Steps.
                if layer.len == sequence.positions.len() {
                    sequence.positions.push(step.positions[row]);
                }
                for (codes, values) in [(&mut layer.k, k.row(row)), (&mut layer.v, v.row(row))] {
                    for (head, values) in values.chunks_exact(shape.head_dim).enumerate() {
                        E::encode(values, &mut codes[(head * room + layer.len) * row_codes..][..row_codes]);
                    }
                }
                layer.len += 1;
            }
        }
    }

    fn len(&self, layer: usize, seq: SeqId) -> usize {
        self.sequences.get(&seq).map_or(0, |sequence| sequence.layers[layer].len)
    }

    fn tiles(
        &self,
        layer: usize,
        seq: SeqId,
        entries: Range<usize>,
        tile_len: usize,
        visit: &mut dyn FnMut(KvTile<'_>),
    ) {
        self.show(layer, seq, 0..self.shape.n_kv_heads, entries, tile_len, visit);
    }

    fn head_tiles(
        &self,
        layer: usize,
        seq: SeqId,
        head: usize,
        entries: Range<usize>,
        tile_len: usize,
        visit: &mut dyn FnMut(KvTile<'_>),
    ) {
        self.show(layer, seq, head..head + 1, entries, tile_len, visit);
    }

    fn truncate(&mut self, seq: SeqId, len: usize) {
        if len == 0 {
            self.sequences.remove(&seq);
        } else if let Some(sequence) = self.sequences.get_mut(&seq) {
            sequence.positions.truncate(len);
            sequence.layers.iter_mut().for_each(|layer| layer.len = layer.len.min(len));
        }
    }

    fn fork(&mut self, from: SeqId, to: SeqId) -> bool {
        match self.sequences.get(&from).cloned() {
            Some(copy) => self.sequences.insert(to, copy),
            None => self.sequences.remove(&to),
        };
        true
    }

    fn bytes(&self) -> KvBytes {
        let code = size_of::<E::Code>();
        let per_layer = self.entry_bytes();
        let mut bytes = KvBytes::default();
        for sequence in self.sequences.values() {
            bytes.logical += sequence.layers.iter().map(|layer| layer.len * per_layer).sum::<usize>();
            bytes.resident += sequence.layers.iter().map(|layer| (layer.k.len() + layer.v.len()) * code).sum::<usize>();
        }
        bytes
    }

    fn entry_bytes(&self) -> usize {
        2 * self.shape.n_kv_heads * self.row_codes() * size_of::<E::Code>()
    }
}
