//! What: one slot of full capacity per sequence in device memory: places are arithmetic, so that kernels need no table and
//! recorded passes stay valid while sequences grow.
//!
//! Source: none; the arrangement of static caches.
//! Shapes: per layer keys `[slots, n_key_heads, capacity, key_dim]`, values alike, in f32 or f16.
//! Method: 1. `reserve` gives a new sequence a free slot, doubling their number where none is left (what was cached moves);
//! 2. `begin` writes slot and entry of every row to device memory, once per Step; 3. `append` scatters rows to their places.
//! Exactness: bit-equal with f32; f16 to nearest even, finite values beyond ±65504 held there.
//! Cost: the capacity of every slot resident from the start.
//! Not handled: positions that do not count up from 0 (token trees), prefixes shared between sequences.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use cuda_kernels::rows::{CacheLayout, Places, Stored, cache_append};
use cuda_kernels::{Buffer, GpuError};
use half::f16;
use model::{
    Activations, CacheFull, Cuda, CudaCache, Device, KvBytes, KvCache, KvShape, KvTile, PerStep, Room, SeqId, Step,
    Visibility,
};

/// Keys or values of a layer.
enum Side {
    F32(Buffer<f32>),
    F16(Buffer<f16>),
}

pub(crate) struct Slots {
    cuda: Arc<Cuda>,
    device: Device,
    shape: KvShape,
    capacity: usize,
    half: bool,
    /// How many there are.
    n: usize,
    sequences: HashMap<SeqId, Sequence>,
    /// Keys and values of each layer.
    layers: Vec<[Side; 2]>,
    slots: PerStep<i32>,
    entries: PerStep<i32>,
    lengths: PerStep<i32>,
}

#[derive(Clone, Copy)]
struct Sequence {
    slot: usize,
    len: usize,
}

impl Side {
    fn new(cuda: &Cuda, half: bool, len: usize) -> Result<Side, GpuError> {
        Ok(if half { Side::F16(cuda.alloc(len)?) } else { Side::F32(cuda.alloc(len)?) })
    }

    fn stored(&self) -> Stored<'_> {
        match self {
            Side::F32(buffer) => Stored::F32(buffer),
            Side::F16(buffer) => Stored::F16(buffer),
        }
    }

    fn copy(&self, at: usize, from: &Side, from_at: usize, count: usize) -> Result<(), GpuError> {
        match (self, from) {
            (Side::F32(to), Side::F32(from)) => to.copy_from(at, from, from_at, count),
            (Side::F16(to), Side::F16(from)) => to.copy_from(at, from, from_at, count),
            _ => Err(GpuError::shape("cache", "two encodings in one cache")),
        }
    }
}

impl Slots {
    /// A cache with one slot. Where its memory cannot be had, the first Step fails.
    pub(crate) fn new(cuda: &Arc<Cuda>, shape: KvShape, capacity: usize, half: bool) -> Slots {
        let mut cache = Slots {
            cuda: cuda.clone(),
            device: Device::Cuda(cuda.clone()),
            shape,
            capacity,
            half,
            n: 1,
            sequences: HashMap::new(),
            layers: vec![],
            slots: PerStep::default(),
            entries: PerStep::default(),
            lengths: PerStep::default(),
        };
        cuda.run(|| {
            cache.layers = cache.allocate(1)?;
            Ok(())
        });
        cache
    }

    /// Keys, then values.
    fn layouts(&self, slots: usize) -> [CacheLayout; 2] {
        let sides = [(self.shape.n_key_heads, self.shape.key_dim), (self.shape.n_value_heads, self.shape.value_dim)];
        sides.map(|(heads, dim)| CacheLayout { slots, heads, capacity: self.capacity, dim })
    }

    fn allocate(&self, slots: usize) -> Result<Vec<[Side; 2]>, GpuError> {
        let [k, v] = self.layouts(slots).map(|layout| layout.values());
        let layer = |_| Ok([Side::new(&self.cuda, self.half, k)?, Side::new(&self.cuda, self.half, v)?]);
        (0..self.shape.n_layers).map(layer).collect()
    }

    /// The lowest slot that no sequence has; doubles their number where there is none.
    fn free_slot(&mut self) -> Result<usize, GpuError> {
        let taken: Vec<usize> = self.sequences.values().map(|sequence| sequence.slot).collect();
        if let Some(slot) = (0..self.n).find(|slot| !taken.contains(slot)) {
            return Ok(slot);
        }
        let grown = self.allocate(2 * self.n)?;
        for (old, new) in self.layers.iter().zip(&grown) {
            for sequence in self.sequences.values() {
                self.copy_entries(old, new, [sequence.slot; 2], sequence.len)?;
            }
        }
        self.layers = grown;
        self.n *= 2;
        Ok(self.n / 2)
    }

    /// The first `len` entries of a slot to a slot.
    fn copy_entries(
        &self,
        from: &[Side; 2],
        to: &[Side; 2],
        [from_slot, to_slot]: [usize; 2],
        len: usize,
    ) -> Result<(), GpuError> {
        for (layout, (from, to)) in self.layouts(1).into_iter().zip(from.iter().zip(to)) {
            let head = layout.capacity * layout.dim;
            for h in 0..layout.heads {
                let at = |slot: usize| (slot * layout.heads + h) * head;
                to.copy(at(to_slot), from, at(from_slot), len * layout.dim)?;
            }
        }
        Ok(())
    }

    fn element_bytes(&self) -> usize {
        if self.half { 2 } else { 4 }
    }
}

impl KvCache for Slots {
    fn reserve(&mut self, seq: SeqId, len: usize) -> Result<(), CacheFull> {
        if len > self.capacity {
            return Err(CacheFull { seq, needed: len, capacity: self.capacity, limit: Room::Sequence });
        }
        if !self.sequences.contains_key(&seq) {
            let cuda = self.cuda.clone();
            cuda.run(|| {
                let slot = self.free_slot()?;
                self.sequences.insert(seq, Sequence { slot, len: 0 });
                Ok(())
            });
        }
        Ok(())
    }

    fn begin(&mut self, step: &Step) {
        let (mut slots, mut entries) = (vec![0; step.rows()], vec![0; step.rows()]);
        let cuda = self.cuda.clone();
        for span in &step.spans {
            cuda.run(|| {
                let refused = |what: &str| GpuError::shape("cache", format!("{:?}: {what}", span.seq));
                let sequence = self.sequences.get_mut(&span.seq).ok_or_else(|| refused("no room was reserved"))?;
                let start = sequence.len;
                let mut counted = step.positions[span.rows.clone()].iter().zip(start..);
                let in_order = counted.all(|(&position, entry)| position as usize == entry);
                if step.visibility != Visibility::Causal || !in_order || span.kv_len != start + span.rows.len() {
                    return Err(refused(
                        "rows must be causal and follow the cached entries; trees have no kernel on a GPU",
                    ));
                }
                sequence.len = span.kv_len;
                for (row, entry) in span.rows.clone().zip(start..) {
                    (slots[row], entries[row]) = (sequence.slot as i32, entry as i32);
                }
                Ok(())
            });
        }
        self.lengths.set(&self.device, |all| all.extend(entries.iter().map(|entry| entry + 1)));
        self.slots.set(&self.device, |all| *all = slots);
        self.entries.set(&self.device, |all| *all = entries);
    }

    fn on_cuda(&self, layer: usize) -> Option<CudaCache<'_>> {
        let [k, v] = self.layouts(self.n);
        let [keys, values] = self.layers.get(layer)?.each_ref().map(Side::stored);
        // absent after a failure, which whoever reads results is told
        let (slots, entries) = (self.slots.placed().ok()?, self.entries.placed().ok()?);
        let places = Places { rows: self.slots.len(), slots, entries };
        Some(CudaCache { keys: (k, keys), values: (v, values), places, lengths: self.lengths.placed().ok()? })
    }

    fn append(&mut self, layer: usize, _: &Step, k: &Activations, v: &Activations) {
        let Some(cache) = self.on_cuda(layer) else { return };
        self.cuda.run(|| {
            cache_append(k.buffer()?, cache.places, cache.keys.0, cache.keys.1)?;
            cache_append(v.buffer()?, cache.places, cache.values.0, cache.values.1)
        });
    }

    fn len(&self, _: usize, seq: SeqId) -> usize {
        self.sequences.get(&seq).map_or(0, |sequence| sequence.len)
    }

    /// Nothing: entries are in device memory, where attention of the same device reads them.
    fn tiles(&self, _: usize, _: SeqId, _: Range<usize>, _: usize, _: &mut dyn FnMut(KvTile<'_>)) {}

    fn truncate(&mut self, seq: SeqId, len: usize) {
        if len == 0 {
            self.sequences.remove(&seq);
        } else if let Some(sequence) = self.sequences.get_mut(&seq) {
            sequence.len = sequence.len.min(len);
        }
    }

    fn fork(&mut self, from: SeqId, to: SeqId) -> bool {
        self.sequences.remove(&to);
        let Some(&origin) = self.sequences.get(&from) else { return true };
        let cuda = self.cuda.clone();
        cuda.run(|| {
            let slot = self.free_slot()?;
            for layer in &self.layers {
                self.copy_entries(layer, layer, [origin.slot, slot], origin.len)?;
            }
            self.sequences.insert(to, Sequence { slot, len: origin.len });
            Ok(())
        });
        true
    }

    fn bytes(&self) -> KvBytes {
        let entries: usize = self.sequences.values().map(|sequence| sequence.len).sum();
        let per_entry = self.shape.n_layers * self.entry_bytes();
        KvBytes { logical: entries * per_entry, resident: self.n * self.capacity * per_entry }
    }

    fn entry_bytes(&self) -> usize {
        self.shape.entry_elements() * self.element_bytes()
    }
}
