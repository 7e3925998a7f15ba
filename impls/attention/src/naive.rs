//! What: attention as the formula reads, with a score matrix in memory: all of a head's at once (`naive`, the oracle of
//! the axis), or that of a block of query rows at a time (`blocked`).
//!
//! Source: Vaswani et al. 2017, arXiv:1706.03762, equation 1; blocks of queries as in Rabe and Staats 2021,
//! arXiv:2112.05682, §2, without its running softmax.
//! Shapes: q `[rows, n_heads·key_dim]`, out `[rows, n_heads·value_dim]`; scores `[block, keys]` per query head.
//! Method, per sequence, block and query head: 1. S = scale·q·kᵀ; 2. soft cap; 3. −∞ where a row may not look;
//! 4. P = softmax by rows, in two passes; 5. out = P·v. Blocks and query heads run in parallel.
//! Exactness: max|Δ| ≤ 1e-5·max|out| against f64; a row's bits do not depend on the rows beside it or on threads.
//! Cost: 2·(key_dim + value_dim) FLOPs per score; a block leaves out keys behind its last row; 4 words moved per score.
//! Not handled: reuse of keys across the heads of a group.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use cpu_kernels::Cpu;
use cpu_kernels::attention::{scores_tile, weighted_sum};
use cpu_kernels::exp::softmax_row;
use model::{Activations, Attention, BufferPool, HeadShape, KvCache, Step};
use serde::{Deserialize, Serialize};

use crate::SpecError;
use crate::mask::{Sight, reach, soft_cap};

/// Size of the blocks of `blocked`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BlockedSpec {
    /// Query rows whose scores are in memory at a time.
    pub query_block: usize,
}

impl Default for BlockedSpec {
    fn default() -> BlockedSpec {
        BlockedSpec { query_block: 64 }
    }
}

impl BlockedSpec {
    pub(crate) fn validate(&self) -> Result<(), SpecError> {
        let (least, most) = (1, 4096);
        let found = self.query_block;
        if (least..=most).contains(&found) {
            Ok(())
        } else {
            Err(SpecError { field: "query_block", found, least, most })
        }
    }

    pub(crate) fn tag(&self) -> String {
        let suffix = if *self == BlockedSpec::default() { String::new() } else { format!("-q{}", self.query_block) };
        format!("blocked{suffix}")
    }
}

pub(crate) struct Naive {
    cpu: Arc<Cpu>,
    /// Query rows of a block; `None`: all rows of a sequence, and all its keys.
    block: Option<usize>,
    buffers: BufferPool,
}

/// The arguments of a pass.
struct Call<'a> {
    step: &'a Step,
    layer: usize,
    shape: &'a HeadShape,
    q: &'a Activations,
    kv: &'a dyn KvCache,
}

/// Rows of one span for which scores are in memory together, and the entries that they look at.
pub(crate) struct Block {
    pub(crate) span: usize,
    pub(crate) rows: Range<usize>,
    pub(crate) n_keys: usize,
}

/// The blocks of a pass; `len` gives the entries of a span.
pub(crate) fn blocks(block: Option<usize>, shape: &HeadShape, step: &Step, len: impl Fn(usize) -> usize) -> Vec<Block> {
    let mut blocks = vec![];
    for (i, span) in step.spans.iter().enumerate() {
        let len = len(i);
        let most = block.unwrap_or(span.rows.len()).max(1);
        for start in span.rows.clone().step_by(most) {
            let rows = start..(start + most).min(span.rows.end);
            let n_keys = if block.is_some() { reach(step, span, shape, &rows, len).end } else { len };
            blocks.push(Block { span: i, rows, n_keys });
        }
    }
    blocks
}

impl Naive {
    pub(crate) fn new(cpu: Arc<Cpu>, block: Option<usize>) -> Naive {
        Naive { cpu, block, buffers: BufferPool::default() }
    }

    /// Rows of one block for one query head; `emit` gets them as `[rows, value_dim]`.
    fn head(&self, call: &Call<'_>, block: &Block, head: usize, emit: impl FnOnce(&[f32])) {
        let (shape, n_keys, rows) = (call.shape, block.n_keys, block.rows.clone());
        let (d, group, span) = (shape.value_dim, head / shape.group(), &call.step.spans[block.span]);
        let len = call.kv.len(call.layer, span.seq);
        let mut buffer = self.buffers.take(buffer_len(rows.len(), n_keys, d));
        let (scores, out) = buffer.split_at_mut(rows.len() * n_keys);
        let q = &call.q.as_slice()[rows.start * call.q.cols() + head * shape.key_dim..];
        // 1–3. scores, tile by tile where the cache has tiles
        call.kv.head_tiles(call.layer, span.seq, group, 0..n_keys, n_keys.max(1), &mut |tile| {
            let (n, key) = (tile.positions.len(), tile.first);
            let (k, columns) = (tile.k.head(shape.key_head(group)), &mut scores[key..]);
            let (n_q, stride) = (rows.len(), call.q.cols());
            scores_tile(&self.cpu, q, stride, n_q, k, n, shape.key_dim, shape.scale, columns, n_keys);
            for (line, row) in scores.chunks_exact_mut(n_keys).zip(rows.clone()) {
                let line = &mut line[key..key + n];
                if let Some(cap) = shape.softcap {
                    soft_cap(cap, 1.0, line);
                }
                if let Some(alibi) = shape.alibi {
                    alibi.lower((head, shape.n_heads), 1.0, call.step.positions[row], tile.positions, line);
                }
                let sight = Sight::new(call.step, span, shape.window, row, len);
                let seen = sight.range(key, tile.positions);
                line[..seen.start].fill(f32::NEG_INFINITY);
                line[seen.end..].fill(f32::NEG_INFINITY);
                sight.strike(key, tile.positions, line);
            }
        });
        // 4. softmax
        scores.chunks_exact_mut(n_keys.max(1)).for_each(|line| softmax_row(&self.cpu, line));
        // 5. weighted values
        out.fill(0.0);
        call.kv.head_tiles(call.layer, span.seq, group, 0..n_keys, n_keys.max(1), &mut |tile| {
            let (n, v) = (tile.positions.len(), tile.v.head(shape.value_head(group)));
            weighted_sum(&self.cpu, &scores[tile.first..], n_keys, rows.len(), v, n, d, out, d);
        });
        emit(out);
    }
}

fn buffer_len(rows: usize, keys: usize, value_dim: usize) -> usize {
    rows * (keys + value_dim)
}

impl Attention for Naive {
    fn forward(
        &self,
        step: &Step,
        layer: usize,
        shape: &HeadShape,
        q: &Activations,
        kv: &dyn KvCache,
        out: &mut Activations,
    ) {
        let (d, cols) = (shape.value_dim, shape.n_heads * shape.value_dim);
        out.reshape(q.rows(), cols);
        let call = Call { step, layer, shape, q, kv };
        let blocks = blocks(self.block, shape, step, |span| kv.len(layer, step.spans[span].seq));
        let out = Mutex::new(out.as_mut_slice());
        self.cpu.parallel(blocks.len() * shape.n_heads, &|item| {
            let (block, head) = (&blocks[item / shape.n_heads], item % shape.n_heads);
            self.head(&call, block, head, |rows| {
                let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
                for (from, row) in rows.chunks_exact(d).zip(block.rows.clone()) {
                    out[row * cols + head * d..][..d].copy_from_slice(from);
                }
            });
        });
    }

    fn scratch_bytes(&self, shape: &HeadShape, rows: usize, keys: usize) -> usize {
        let block = self.block.unwrap_or(rows).min(rows).max(1);
        let items = rows.div_ceil(block) * shape.n_heads;
        self.cpu.threads().min(items) * buffer_len(block, keys, shape.value_dim) * size_of::<f32>()
    }

    fn kernel_name(&self) -> String {
        let name = self.block.map_or("naive".into(), |block| format!("blocked_q{block}"));
        format!("{name}_{}", self.cpu.isa().name())
    }
}
