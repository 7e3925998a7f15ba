//! Blocks of a paged cache: taken, shared, copied, given back, and counted.

use model::{KvEntries, KvShape};

use crate::encoding::Encoding;

/// Keys or values of an entry.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    Keys,
    Values,
}

/// Heads and features of one side, and where it starts among the values of an entry.
#[derive(Clone, Copy)]
struct Heads {
    n: usize,
    dim: usize,
    first_value: usize,
    first_head: usize,
}

/// Blocks by number. A number stays its block's as long as somebody refers to it.
pub(crate) struct Pool<E: Encoding> {
    n_layers: usize,
    block: usize,
    keys: Heads,
    values: Heads,
    /// Most blocks at a time; none: as many as memory holds.
    most: Option<usize>,
    blocks: Vec<Option<Block<E>>>,
    /// Numbers without a block.
    unused: Vec<u32>,
}

/// `block` entries of all layers.
#[derive(Clone)]
struct Block<E: Encoding> {
    references: u32,
    /// Layer after layer: keys `[heads, block, dim]`, values alike.
    codes: Box<[E::Code]>,
    /// Layer after layer: of keys `[heads, block]`, of values alike; empty where the encoding has none.
    scales: Box<[f32]>,
}

impl<E: Encoding> Pool<E> {
    pub(crate) fn new(shape: KvShape, block: usize, most: Option<usize>) -> Pool<E> {
        let keys = Heads { n: shape.n_key_heads, dim: shape.key_dim, first_value: 0, first_head: 0 };
        // no head where values are part of the keys
        let n = if shape.value_prefix { 0 } else { shape.n_value_heads };
        let values = Heads { n, dim: shape.value_dim, first_value: keys.n * keys.dim, first_head: keys.n };
        Pool { n_layers: shape.n_layers, block, keys, values, most, blocks: vec![], unused: vec![] }
    }

    /// Entries of a block.
    pub(crate) fn block(&self) -> usize {
        self.block
    }

    /// Blocks that can be taken.
    pub(crate) fn free(&self) -> usize {
        self.most.map_or(usize::MAX / self.block, |most| most.saturating_sub(self.blocks.len() - self.unused.len()))
    }

    /// A block of nobody else's; [`Pool::free`] must have said that there is one.
    pub(crate) fn take(&mut self) -> u32 {
        let entries = self.block * self.n_layers;
        let scales = if E::HAS_SCALE { entries * (self.keys.n + self.values.n) } else { 0 };
        self.put(Block {
            references: 1,
            codes: vec![E::Code::default(); entries * self.entry_values()].into(),
            scales: vec![0.0; scales].into(),
        })
    }

    /// A copy of block `id` for one of those who share it; the others keep the block.
    pub(crate) fn copy(&mut self, id: u32) -> u32 {
        let copy = Block { references: 1, ..self.at(id).clone() };
        self.release(id);
        self.put(copy)
    }

    fn put(&mut self, block: Block<E>) -> u32 {
        match self.unused.pop() {
            Some(id) => {
                self.blocks[id as usize] = Some(block);
                id
            }
            None => {
                self.blocks.push(Some(block));
                (self.blocks.len() - 1) as u32
            }
        }
    }

    /// One more who refers to block `id`.
    pub(crate) fn share(&mut self, id: u32) {
        self.at_mut(id).references += 1;
    }

    /// One less; the last one frees its memory.
    pub(crate) fn release(&mut self, id: u32) {
        let block = self.at_mut(id);
        block.references -= 1;
        if block.references == 0 {
            self.blocks[id as usize] = None;
            self.unused.push(id);
        }
    }

    /// How many refer to block `id`.
    pub(crate) fn references(&self, id: u32) -> u32 {
        self.at(id).references
    }

    /// Stores one side of an entry, all heads.
    pub(crate) fn store(&mut self, id: u32, layer: usize, side: Side, entry: usize, row: &[f32]) {
        let (heads, block) = (self.heads(side), self.block);
        let (codes_at, scales_at) = self.start(layer, heads);
        let to = self.at_mut(id);
        assert!(to.references == 1, "a block that others read is copied before it is written");
        for (head, values) in row.chunks_exact(heads.dim).enumerate() {
            let at = head * block + entry;
            let scale = E::encode(values, &mut to.codes[codes_at + at * heads.dim..][..heads.dim]);
            if E::HAS_SCALE {
                to.scales[scales_at + at] = scale;
            }
        }
    }

    /// One side of a block's entries from `entry` on, as attention reads it.
    pub(crate) fn entries(&self, id: u32, layer: usize, side: Side, entry: usize) -> KvEntries<'_> {
        let heads = self.heads(side);
        let (codes_at, scales_at) = self.start(layer, heads);
        let from = self.at(id);
        let scales = if E::HAS_SCALE { &from.scales[scales_at + entry..] } else { &[] };
        KvEntries {
            codes: E::codes(&from.codes[codes_at + entry * heads.dim..], scales),
            head_stride: self.block * heads.dim,
            row_stride: heads.dim,
            scale_head_stride: if E::HAS_SCALE { self.block } else { 0 },
        }
    }

    /// Bytes of all blocks.
    pub(crate) fn bytes(&self) -> usize {
        let blocks = self.blocks.iter().flatten();
        blocks.map(|block| size_of_val(&*block.codes) + size_of_val(&*block.scales)).sum()
    }

    /// Bytes of one entry of one layer.
    pub(crate) fn entry_bytes(&self) -> usize {
        let scales = if E::HAS_SCALE { self.keys.n + self.values.n } else { 0 };
        self.entry_values() * size_of::<E::Code>() + scales * size_of::<f32>()
    }

    fn entry_values(&self) -> usize {
        self.keys.n * self.keys.dim + self.values.n * self.values.dim
    }

    fn heads(&self, side: Side) -> Heads {
        match side {
            Side::Keys => self.keys,
            Side::Values => self.values,
        }
    }

    /// Where a side of `layer` starts in a block: among the codes, among the scales.
    fn start(&self, layer: usize, heads: Heads) -> (usize, usize) {
        let n_heads = self.keys.n + self.values.n;
        (
            self.block * (layer * self.entry_values() + heads.first_value),
            if E::HAS_SCALE { self.block * (layer * n_heads + heads.first_head) } else { 0 },
        )
    }

    fn at(&self, id: u32) -> &Block<E> {
        self.blocks[id as usize].as_ref().expect("a table refers to blocks that exist")
    }

    fn at_mut(&mut self, id: u32) -> &mut Block<E> {
        self.blocks[id as usize].as_mut().expect("a table refers to blocks that exist")
    }
}
