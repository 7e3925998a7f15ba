//! The seam of the KV-cache axis: keys and values by sequence, shown to attention as tiles.

use std::ops::Range;

use cpu_kernels::attention::{Codes, Rows};
use cuda_kernels::Buffer;
use cuda_kernels::rows::{CacheLayout, Places, Stored};

use crate::{Activations, SeqId, Step};

/// Size of one cached position. Keys and values may differ in width and in number of heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    /// Decoder layers.
    pub n_layers: usize,
    /// Key heads.
    pub n_key_heads: usize,
    /// Value heads; this and `n_key_heads` divide one another.
    pub n_value_heads: usize,
    /// Features per key head.
    pub key_dim: usize,
    /// Features per value head.
    pub value_dim: usize,
    /// The value of an entry is the first `value_dim` features of its key (latent attention): no value is stored, and
    /// `append` gets values of width 0.
    pub value_prefix: bool,
}

impl KvShape {
    /// Keys and values of `n_kv_heads` heads with `head_dim` features each, in `n_layers` layers.
    pub const fn new(n_layers: usize, n_kv_heads: usize, head_dim: usize) -> KvShape {
        KvShape {
            n_layers,
            n_key_heads: n_kv_heads,
            n_value_heads: n_kv_heads,
            key_dim: head_dim,
            value_dim: head_dim,
            value_prefix: false,
        }
    }

    /// One key of `key_dim` features per position whose first `value_dim` are its value: `key_dim` elements per position
    /// and layer, d_c + d_R of Multi-head Latent Attention.
    pub const fn latent(n_layers: usize, key_dim: usize, value_dim: usize) -> KvShape {
        KvShape { n_layers, n_key_heads: 1, n_value_heads: 1, key_dim, value_dim, value_prefix: true }
    }

    /// Columns of the keys that `append` gets.
    pub const fn key_width(&self) -> usize {
        self.n_key_heads * self.key_dim
    }

    /// Columns of the values that `append` gets: 0 where values are part of the keys.
    pub const fn value_width(&self) -> usize {
        if self.value_prefix { 0 } else { self.n_value_heads * self.value_dim }
    }

    /// Elements stored per position and layer.
    pub const fn entry_elements(&self) -> usize {
        self.key_width() + self.value_width()
    }

    /// Groups of query heads: each reads one key head and one value head.
    pub const fn groups(&self) -> usize {
        if self.n_key_heads > self.n_value_heads { self.n_key_heads } else { self.n_value_heads }
    }
}

/// Keys or values of a tile, all heads, as stored: entry `t` (0-based in the tile) of head `h` starts at code
/// `h·head_stride + t·row_stride`.
#[derive(Debug, Clone, Copy)]
pub struct KvEntries<'a> {
    /// The codes in their encoding.
    pub codes: Codes<'a>,
    /// Codes between heads.
    pub head_stride: usize,
    /// Codes between entries.
    pub row_stride: usize,
    /// Scales between heads, where the encoding has a scale per entry and head; entries follow each other.
    pub scale_head_stride: usize,
}

impl<'a> KvEntries<'a> {
    /// Values that need no decoding.
    pub fn f32(values: &'a [f32], head_stride: usize, row_stride: usize) -> KvEntries<'a> {
        KvEntries { codes: Codes::F32(values), head_stride, row_stride, scale_head_stride: 0 }
    }

    /// The rows of one head, as kernels read them.
    pub fn head(&self, head: usize) -> Rows<'a> {
        let (at, scale) = (head * self.head_stride, head * self.scale_head_stride);
        Rows { codes: self.codes.skip(at, scale), stride: self.row_stride }
    }
}

/// Consecutive cached entries of one sequence in one layer.
///
/// A cache asked for one group's heads may leave out the others; it then says so with head strides of 0.
#[derive(Debug, Clone, Copy)]
pub struct KvTile<'a> {
    /// Place of the first entry in its sequence: entries before it, positions apart.
    pub first: usize,
    /// Position of each entry in its sequence, ascending but for the rows of a token tree.
    pub positions: &'a [u32],
    /// Keys, positions already applied.
    pub k: KvEntries<'a>,
    /// Values; where they are a prefix of the keys, the same codes.
    pub v: KvEntries<'a>,
}

/// Keys and values of one layer in device memory, and the places there of the rows of the Step that runs.
#[derive(Debug, Clone, Copy)]
pub struct CudaCache<'a> {
    /// Keys, positions already applied.
    pub keys: (CacheLayout, Stored<'a>),
    /// Values.
    pub values: (CacheLayout, Stored<'a>),
    /// Where the rows lie.
    pub places: Places<'a>,
    /// Entries that each row sees, its own included.
    pub lengths: &'a Buffer<i32>,
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
#[error("KV cache full: sequence {seq:?} needs {needed} {}", match limit {
    Room::Sequence => format!("tokens, room for {capacity}; raise the cell's context length or shorten the prompt"),
    Room::Pool => format!("more entries, {capacity} are free; raise the cache's `pool` or run fewer sequences at a time"),
})]
pub struct CacheFull {
    /// The sequence that wanted room.
    pub seq: SeqId,
    /// Tokens it would hold; of a pool those that it would take.
    pub needed: usize,
    /// Tokens it may hold; of a pool those that are free.
    pub capacity: usize,
    /// What is full.
    pub limit: Room,
}

/// What of a cache can be full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// What one sequence may hold.
    Sequence,
    /// What all sequences may hold together.
    Pool,
}

/// Keys and values of every live sequence. Placement, eviction and encoding vary behind it.
pub trait KvCache: Send + Sync {
    /// Makes room so that `seq` (created when new) can hold `len` entries in every layer.
    fn reserve(&mut self, seq: SeqId, len: usize) -> Result<(), CacheFull>;
    /// Takes note of `step` before its layers; room must have been reserved. Caches in host memory learn all from `append`.
    fn begin(&mut self, step: &Step) {
        let _ = step;
    }
    /// What `layer` holds, where it is in device memory.
    fn on_cuda(&self, layer: usize) -> Option<CudaCache<'_>> {
        let _ = layer;
        None
    }
    /// Stores the rows of `step` for `layer`: `k` `[rows, key_width]`, `v` `[rows, value_width]`. Room must have been
    /// reserved.
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
    /// [`KvCache::tiles`] for a caller that reads the key head and the value head of group `group` alone: a cache that
    /// decodes need not decode the others, and says so with head strides of 0.
    fn head_tiles(
        &self,
        layer: usize,
        seq: SeqId,
        group: usize,
        entries: Range<usize>,
        tile_len: usize,
        visit: &mut dyn FnMut(KvTile<'_>),
    ) {
        let _ = group;
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
