//! The seam of the KV-cache axis: keys and values by sequence, shown to attention as tiles.

use std::ops::Range;

use crate::{Activations, SeqId, Step};

/// Size of one cached position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    /// Decoder layers.
    pub n_layers: usize,
    /// Key/value heads.
    pub n_kv_heads: usize,
    /// Features per head.
    pub head_dim: usize,
}

impl KvShape {
    /// Keys and values of `n_kv_heads` heads with `head_dim` features each, in `n_layers` layers.
    pub const fn new(n_layers: usize, n_kv_heads: usize, head_dim: usize) -> KvShape {
        KvShape { n_layers, n_kv_heads, head_dim }
    }
}

/// Consecutive cached entries of one sequence in one layer, all KV heads, as f32.
///
/// Feature `d` of entry `t` (0-based in the tile) of head `h` is `k[h * head_stride + t * row_stride + d]`, same for `v`.
#[derive(Debug, Clone, Copy)]
pub struct KvTile<'a> {
    /// Position of each entry in its sequence, ascending.
    pub positions: &'a [u32],
    /// Keys, positions already applied.
    pub k: &'a [f32],
    /// Values.
    pub v: &'a [f32],
    /// Distance between heads.
    pub head_stride: usize,
    /// Distance between entries.
    pub row_stride: usize,
}

/// Memory of a cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KvBytes {
    /// What the cached entries need in their encoding.
    pub logical: usize,
    /// What the cache has allocated.
    pub resident: usize,
}

/// The cache has no room for what was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "KV cache full: sequence {seq:?} needs {needed} tokens, room for {capacity}; raise the cell's context length or shorten the prompt"
)]
pub struct CacheFull {
    /// The sequence that wanted room.
    pub seq: SeqId,
    /// Tokens it would hold.
    pub needed: usize,
    /// Tokens it may hold.
    pub capacity: usize,
}

/// Keys and values of every live sequence. Placement, eviction and encoding vary behind it.
pub trait KvCache: Send + Sync {
    /// Makes room so that `seq` (created when new) can hold `len` entries in every layer.
    fn reserve(&mut self, seq: SeqId, len: usize) -> Result<(), CacheFull>;
    /// Stores the rows of `step` for `layer`: `k`, `v` `[rows, n_kv_heads·head_dim]`. Room must have been reserved.
    fn append(&mut self, layer: usize, step: &Step, k: &Activations, v: &Activations);
    /// Entries of `seq` cached in `layer`.
    fn len(&self, layer: usize, seq: SeqId) -> usize;
    /// Calls `visit` with tiles of at most `tile_len` entries that cover `entries` of `seq` in order.
    fn tiles(
        &self,
        layer: usize,
        seq: SeqId,
        entries: Range<usize>,
        tile_len: usize,
        visit: &mut dyn FnMut(KvTile<'_>),
    );
    /// [`KvCache::tiles`] for a caller that reads KV head `head` alone: a cache that decodes need not decode the others,
    /// and says so with a tile whose `head_stride` is 0.
    fn head_tiles(
        &self,
        layer: usize,
        seq: SeqId,
        head: usize,
        entries: Range<usize>,
        tile_len: usize,
        visit: &mut dyn FnMut(KvTile<'_>),
    ) {
        let _ = head;
        self.tiles(layer, seq, entries, tile_len, visit);
    }
    /// Forgets every entry of `seq` from `len` on, in all layers; `len` 0 frees the sequence's room.
    fn truncate(&mut self, seq: SeqId, len: usize);
    /// Makes `to` hold a copy of the entries of `from`, in all layers, replacing what `to` had. Gives back false where
    /// the cache cannot; `to` then has no entries.
    fn fork(&mut self, from: SeqId, to: SeqId) -> bool {
        let _ = from;
        self.truncate(to, 0);
        false
    }
    /// Memory in use.
    fn bytes(&self) -> KvBytes;
    /// Bytes read by attention for one entry of one layer (keys and values, all heads), in the cache's encoding.
    fn entry_bytes(&self) -> usize;
}
