//! What: one buffer per sequence and layer, head by head: the placement that paging is compared with.
//!
//! Source: the arrangement of Kwon et al. 2023, arXiv:2309.06180, §3.1, as the baseline; growth by doubling instead of
//! the longest length at once.
//! Shapes: keys `[n_key_heads, room, key_dim]`, values `[n_value_heads, room, value_dim]` unless they are a prefix of
//! the keys; scales, where the encoding has them, `[heads, room]`; room ≤ capacity.
//! Method: 1. `reserve` doubles the room (16 entries at first) and moves each head's rows; 2. `append` encodes rows in
//! place; 3. tiles borrow the buffers: attention gets the codes as stored.
//! Exactness: that of the encoding; bit-equal with f32.
//! Cost: up to twice the entries resident; an append writes each row once, plus at most one move per entry amortised.
//! Not handled: sharing of prefixes between sequences.

use std::collections::HashMap;
use std::ops::Range;

use model::{Activations, CacheFull, KvBytes, KvCache, KvEntries, KvShape, KvTile, Room, SeqId, Step};
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
    pub(crate) fn tag(&self, placement: &str) -> String {
        match self.encoding {
            EncodingName::F32 => placement.into(),
            encoding => format!("{placement}-{}", encoding.name()),
        }
    }
}

/// Entries that a new sequence has room for at least.
const FIRST_ROOM: usize = 16;

pub(crate) struct Contiguous<E: Encoding> {
    shape: KvShape,
    capacity: usize,
    sequences: HashMap<SeqId, Sequence<E>>,
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
    k: Side<E>,
    v: Side<E>,
}

/// Keys or values of one layer of one sequence.
#[derive(Clone)]
struct Side<E: Encoding> {
    /// Heads, and values per row of each; no head where nothing is stored.
    n_heads: usize,
    dim: usize,
    codes: Vec<E::Code>,
    scales: Vec<f32>,
}

impl<E: Encoding> Side<E> {
    fn new(n_heads: usize, dim: usize) -> Side<E> {
        Side { n_heads, dim, codes: vec![], scales: vec![] }
    }

    /// Moves `len` entries of each head into room for `room`.
    fn grow(&mut self, len: usize, old: usize, room: usize) {
        self.codes = regrown(&self.codes, self.n_heads, len * self.dim, old * self.dim, room * self.dim);
        if E::HAS_SCALE {
            self.scales = regrown(&self.scales, self.n_heads, len, old, room);
        }
    }

    fn store(&mut self, row: &[f32], entry: usize, room: usize) {
        for (head, values) in row.chunks_exact(self.dim).enumerate() {
            let at = head * room + entry;
            let scale = E::encode(values, &mut self.codes[at * self.dim..][..self.dim]);
            if E::HAS_SCALE {
                self.scales[at] = scale;
            }
        }
    }

    fn entries(&self, from: usize, room: usize) -> KvEntries<'_> {
        let scales = if E::HAS_SCALE { &self.scales[from..] } else { &[] };
        KvEntries {
            codes: E::codes(&self.codes[from * self.dim..], scales),
            head_stride: room * self.dim,
            row_stride: self.dim,
            scale_head_stride: if E::HAS_SCALE { room } else { 0 },
        }
    }

    fn bytes(&self) -> usize {
        size_of_val(self.codes.as_slice()) + size_of_val(self.scales.as_slice())
    }
}

/// `n` stretches of `used` values, `old` apart, set `new` apart.
fn regrown<T: Copy + Default>(values: &[T], n: usize, used: usize, old: usize, new: usize) -> Vec<T> {
    let mut grown = vec![T::default(); n * new];
    for i in 0..n {
        grown[i * new..][..used].copy_from_slice(&values[i * old..][..used]);
    }
    grown
}

impl<E: Encoding> Contiguous<E> {
    pub(crate) fn new(shape: KvShape, capacity: usize) -> Contiguous<E> {
        Contiguous { shape, capacity, sequences: HashMap::new() }
    }
}

impl<E: Encoding> Sequence<E> {
    fn new(shape: &KvShape) -> Sequence<E> {
        let n_value_heads = if shape.value_prefix { 0 } else { shape.n_value_heads };
        let layer = |_| Layer {
            len: 0,
            k: Side::new(shape.n_key_heads, shape.key_dim),
            v: Side::new(n_value_heads, shape.value_dim),
        };
        Sequence { room: 0, positions: vec![], layers: (0..shape.n_layers).map(layer).collect() }
    }
}

impl<E: Encoding> KvCache for Contiguous<E> {
    fn reserve(&mut self, seq: SeqId, len: usize) -> Result<(), CacheFull> {
        if len > self.capacity {
            return Err(CacheFull { seq, needed: len, capacity: self.capacity, limit: Room::Sequence });
        }
        let shape = self.shape;
        let sequence = self.sequences.entry(seq).or_insert_with(|| Sequence::new(&shape));
        if len > sequence.room {
            let room = len.max(2 * sequence.room).max(FIRST_ROOM).min(self.capacity);
            for Layer { len, k, v } in &mut sequence.layers {
                [k, v].into_iter().for_each(|side| side.grow(*len, sequence.room, room));
            }
            sequence.room = room;
        }
        Ok(())
    }

    fn append(&mut self, layer: usize, step: &Step, k: &Activations, v: &Activations) {
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
                layer.k.store(k.row(row), layer.len, room);
                layer.v.store(v.row(row), layer.len, room);
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
        mut entries: Range<usize>,
        tile_len: usize,
        visit: &mut dyn FnMut(KvTile<'_>),
    ) {
        let Some(sequence) = self.sequences.get(&seq) else { return };
        let (layer, room) = (&sequence.layers[layer], sequence.room);
        assert!(entries.end <= layer.len, "{seq:?}: entries {entries:?} of {}", layer.len);
        while !entries.is_empty() {
            let tile = entries.start..(entries.start.saturating_add(tile_len)).min(entries.end);
            entries.start = tile.end;
            let k = layer.k.entries(tile.start, room);
            let v = if self.shape.value_prefix { k } else { layer.v.entries(tile.start, room) };
            visit(KvTile { first: tile.start, positions: &sequence.positions[tile], k, v });
        }
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
        let layers = || self.sequences.values().flat_map(|sequence| &sequence.layers);
        KvBytes {
            logical: layers().map(|layer| layer.len * self.entry_bytes()).sum(),
            resident: layers().map(|layer| layer.k.bytes() + layer.v.bytes()).sum(),
        }
    }

    fn entry_bytes(&self) -> usize {
        let n_value_heads = if self.shape.value_prefix { 0 } else { self.shape.n_value_heads };
        let scales = if E::HAS_SCALE { self.shape.n_key_heads + n_value_heads } else { 0 };
        self.shape.entry_elements() * size_of::<E::Code>() + scales * size_of::<f32>()
    }
}
