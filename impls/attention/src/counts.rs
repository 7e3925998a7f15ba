//! What: words moved and operations done by a pass, counted by walking the loops of a variant without its arithmetic.
//!
//! Source: the input/output analysis of Dao et al. 2022, arXiv:2205.14135, §3.2 and theorem 2; the FLOP convention of
//! Dao 2023, arXiv:2307.08691, §4.1.
//! Shapes: counts of f32 elements, summed over heads and sequences.
//! Method: two levels of memory: what a tile needs is loaded when the tile is visited and counted there; scores and
//! running sums of a tile live in the fast level. A naive pass has no tiles: its score matrix is moved four times.
//! Exactness: exact for caches without gaps; the running m and l of order `fa1` (2 per row and tile) are left out.
//! Cost: one step per visited tile.
//! Not handled: encoded caches (multiply `kv_words` by the bytes of an element), hardware caches.

use model::{HeadShape, Span, Step, Visibility};

use crate::mask::reach;
use crate::naive::blocks;
use crate::{AttentionSpec, FlashOrder, FlashSpec};

/// What a pass moves and computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Query elements loaded.
    pub q_words: u64,
    /// Key and value elements loaded.
    pub kv_words: u64,
    /// Elements of a score matrix in memory, written and read.
    pub score_words: u64,
    /// Output elements read back.
    pub o_reads: u64,
    /// Output elements written.
    pub o_writes: u64,
    /// Multiplications of sums by e^(m−m'), at most: where m does not move the kernel leaves them out.
    pub rescales: u64,
    /// Divisions of elements by l.
    pub divisions: u64,
    /// Pairs of query tile and key tile that were computed.
    pub tiles_visited: u64,
    /// Pairs that were left out because no row sees a key.
    pub tiles_skipped: u64,
    /// 2·(key_dim + value_dim) per score computed, masked ones included.
    pub flops: u64,
    /// 2·(key_dim + value_dim) per score that a row sees: what any variant must do.
    pub needed_flops: u64,
}

impl Counts {
    /// Elements moved between the two levels of memory.
    pub fn words(&self) -> u64 {
        self.q_words + self.kv_words + self.score_words + self.o_reads + self.o_writes
    }
}

impl AttentionSpec {
    /// What a pass of this variant over `step` moves and computes in one layer.
    pub fn counts(&self, shape: &HeadShape, step: &Step) -> Counts {
        let mut counts = match self {
            AttentionSpec::Naive => naive(None, shape, step),
            AttentionSpec::Blocked(spec) => naive(Some(spec.query_block), shape, step),
            AttentionSpec::Flash(spec) => flash(spec, shape, step),
        };
        counts.needed_flops = needed_flops(shape, step);
        counts
    }
}

fn needed_flops(shape: &HeadShape, step: &Step) -> u64 {
    let seen = |span: &Span, row: usize| match &step.visibility {
        Visibility::Tree(tree) => {
            let past = reach(step, span, shape, &(row..row + 1), span.kv_len);
            (past.len() - (row - span.rows.start + 1) + tree.path(row).count()) as u64
        }
        _ => reach(step, span, shape, &(row..row + 1), span.kv_len).len() as u64,
    };
    let rows = step.spans.iter().flat_map(|span| span.rows.clone().map(move |row| seen(span, row)));
    rows.sum::<u64>() * (2 * shape.n_heads * (shape.key_dim + shape.value_dim)) as u64
}

fn naive(block: Option<usize>, shape: &HeadShape, step: &Step) -> Counts {
    let (n_heads, d_k, d_v) = (shape.n_heads as u64, shape.key_dim as u64, shape.value_dim as u64);
    let mut counts = Counts::default();
    for block in blocks(block, shape, step, |span| step.spans[span].kv_len) {
        let (rows, keys) = (block.rows.len() as u64, block.n_keys as u64);
        counts.q_words += n_heads * rows * d_k;
        counts.kv_words += n_heads * keys * (d_k + d_v);
        // S written, read by the softmax, P written, read by the product with V
        counts.score_words += n_heads * 4 * rows * keys;
        counts.o_writes += n_heads * rows * d_v;
        counts.divisions += n_heads * rows * keys;
        counts.tiles_visited += n_heads;
        counts.flops += n_heads * 2 * rows * keys * (d_k + d_v);
    }
    counts
}

fn flash(spec: &FlashSpec, shape: &HeadShape, step: &Step) -> Counts {
    let (group, d_k, d_v) = (spec.group(shape) as u64, shape.key_dim as u64, shape.value_dim as u64);
    let tiles = spec.query_tiles(shape, step, |span| step.spans[span].kv_len);
    let mut counts = Counts::default();
    for tiles in tiles.chunk_by(|a, b| (a.span, a.group) == (b.span, b.group)) {
        let n_key_tiles = spec.key_tiles(0..step.spans[tiles[0].span].kv_len).count() as u64;
        for tile in tiles {
            let stacked = tile.rows.len() as u64 * group;
            let (query, output) = (stacked * d_k, stacked * d_v);
            let visited = spec.key_tiles(tile.keys.clone()).count() as u64;
            counts.tiles_visited += visited;
            counts.tiles_skipped += n_key_tiles - visited;
            counts.flops += 2 * (query + output) * tile.keys.len() as u64;
            counts.rescales += output * visited;
            match spec.order {
                FlashOrder::Fa2 => {
                    counts.q_words += query;
                    counts.kv_words += (d_k + d_v) * tile.keys.len() as u64;
                    counts.o_writes += output;
                    counts.divisions += output;
                }
                FlashOrder::Fa1 => {
                    counts.q_words += query * visited;
                    counts.o_reads += output * visited;
                    counts.o_writes += output * visited;
                    counts.divisions += output * visited;
                }
            }
        }
        if spec.order == FlashOrder::Fa1 {
            let end = tiles.iter().map(|tile| tile.keys.end).max().unwrap_or(0);
            let start = tiles.iter().map(|tile| tile.keys.start).min().unwrap_or(0);
            counts.kv_words += (d_k + d_v) * (end - start.min(end)) as u64;
        }
    }
    counts
}
