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

use model::{HeadShape, Span, Step};

use crate::mask::reach;
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
    /// 4·head_dim per score computed, masked ones included.
    pub flops: u64,
    /// 4·head_dim per score that a row sees: what any variant must do.
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
            AttentionSpec::Naive => naive(shape, step),
            AttentionSpec::Flash(spec) => flash(spec, shape, step),
        };
        counts.needed_flops = needed_flops(shape, step);
        counts
    }
}

fn needed_flops(shape: &HeadShape, step: &Step) -> u64 {
    let seen = |span: &Span, row: usize| {
        let (p, newest) = (step.positions[row], step.positions[span.rows.end - 1]);
        reach(&step.visibility, shape, span.kv_len, (p, p), newest).len() as u64
    };
    let rows = step.spans.iter().flat_map(|span| span.rows.clone().map(move |row| seen(span, row)));
    rows.sum::<u64>() * 4 * (shape.n_heads * shape.head_dim) as u64
}

fn naive(shape: &HeadShape, step: &Step) -> Counts {
    let (n_heads, d) = (shape.n_heads as u64, shape.head_dim as u64);
    let mut counts = Counts::default();
    for span in &step.spans {
        let (rows, keys) = (span.rows.len() as u64, span.kv_len as u64);
        counts.q_words += n_heads * rows * d;
        counts.kv_words += n_heads * 2 * keys * d;
        // S written, read by the softmax, P written, read by the product with V
        counts.score_words += n_heads * 4 * rows * keys;
        counts.o_writes += n_heads * rows * d;
        counts.divisions += n_heads * rows * keys;
        counts.tiles_visited += n_heads;
        counts.flops += n_heads * 4 * rows * keys * d;
    }
    counts
}

fn flash(spec: &FlashSpec, shape: &HeadShape, step: &Step) -> Counts {
    let (group, d) = (shape.group() as u64, shape.head_dim as u64);
    let tiles = spec.query_tiles(shape, step, |span| step.spans[span].kv_len);
    let mut counts = Counts::default();
    for tiles in tiles.chunk_by(|a, b| (a.span, a.kv_head) == (b.span, b.kv_head)) {
        let n_key_tiles = spec.key_tiles(0..step.spans[tiles[0].span].kv_len).count() as u64;
        for tile in tiles {
            let output = tile.rows.len() as u64 * group * d;
            let visited = spec.key_tiles(tile.keys.clone()).count() as u64;
            counts.tiles_visited += visited;
            counts.tiles_skipped += n_key_tiles - visited;
            counts.flops += 4 * output * tile.keys.len() as u64;
            counts.rescales += output * visited;
            match spec.order {
                FlashOrder::Fa2 => {
                    counts.q_words += output;
                    counts.kv_words += 2 * d * tile.keys.len() as u64;
                    counts.o_writes += output;
                    counts.divisions += output;
                }
                FlashOrder::Fa1 => {
                    counts.q_words += output * visited;
                    counts.o_reads += output * visited;
                    counts.o_writes += output * visited;
                    counts.divisions += output * visited;
                }
            }
        }
        if spec.order == FlashOrder::Fa1 {
            let end = tiles.iter().map(|tile| tile.keys.end).max().unwrap_or(0);
            let start = tiles.iter().map(|tile| tile.keys.start).min().unwrap_or(0);
            counts.kv_words += 2 * d * (end - start.min(end)) as u64;
        }
    }
    counts
}
