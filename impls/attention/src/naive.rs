//! What: attention as the formula reads, with the whole score matrix of a head in memory: the oracle of the axis.
//!
//! Source: Vaswani et al. 2017, arXiv:1706.03762, equation 1.
//! Shapes: q, out `[rows, n_heads·head_dim]`; scores `[rows, keys]` per query head.
//! Method, per sequence and query head: 1. S = scale·q·kᵀ; 2. soft cap; 3. −∞ where a row may not look; 4. P = softmax
//! by rows; 5. out = P·v. Query heads run in parallel; encoded caches are decoded once for S and once for P·v.
//! Exactness: max|Δ| ≤ 1e-5·max|out| against f64; a row's bits do not depend on the rows beside it or on threads.
//! Cost: 4·rows·keys·head_dim FLOPs per head, half of them masked in a causal prefill; 4·rows·keys words of scores moved.
//! Not handled: token trees.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use cpu_kernels::Cpu;
use cpu_kernels::attention::{scores_tile, weighted_sum};
use cpu_kernels::exp::softmax_row;
use model::{Activations, Attention, BufferPool, HeadShape, KvCache, Span, Step};

use crate::mask::{soft_cap, visible};

pub(crate) struct Naive {
    cpu: Arc<Cpu>,
    buffers: BufferPool,
}

impl Naive {
    pub(crate) fn new(cpu: Arc<Cpu>) -> Naive {
        Naive { cpu, buffers: BufferPool::default() }
    }

    /// Rows of one span for one query head; `emit` gets them as `[rows, head_dim]`.
    fn head(&self, call: &Call<'_>, span: &Span, head: usize, emit: impl FnOnce(&[f32])) {
        let (shape, d) = (call.shape, call.shape.head_dim);
        let (rows, kv_head) = (span.rows.clone(), head / call.shape.group());
        let n_keys = call.kv.len(call.layer, span.seq);
        let mut buffer = self.buffers.take(buffer_len(rows.len(), n_keys, d));
        let (scores, out) = buffer.split_at_mut(rows.len() * n_keys);
        let q = &call.q.as_slice()[rows.start * call.q.cols() + head * d..];
        // 1–3. scores, tile by tile where the cache has tiles
        let mut key = 0;
        call.kv.head_tiles(call.layer, span.seq, kv_head, 0..n_keys, n_keys.max(1), &mut |tile| {
            let n = tile.positions.len();
            let k = &tile.k[kv_head * tile.head_stride..];
            let columns = &mut scores[key..];
            scores_tile(
                &self.cpu,
                q,
                call.q.cols(),
                rows.len(),
                k,
                tile.row_stride,
                n,
                d,
                shape.scale,
                columns,
                n_keys,
            );
            for (line, row) in scores.chunks_exact_mut(n_keys).zip(rows.clone()) {
                let line = &mut line[key..key + n];
                if let Some(cap) = shape.softcap {
                    soft_cap(cap, line);
                }
                let seen = visible(&call.step.visibility, shape.window, call.step.positions[row], tile.positions);
                mask(line, seen);
            }
            key += n;
        });
        // 4. softmax
        scores.chunks_exact_mut(n_keys.max(1)).for_each(|line| softmax_row(&self.cpu, line));
        // 5. weighted values
        out.fill(0.0);
        key = 0;
        call.kv.head_tiles(call.layer, span.seq, kv_head, 0..n_keys, n_keys.max(1), &mut |tile| {
            let (n, v) = (tile.positions.len(), &tile.v[kv_head * tile.head_stride..]);
            weighted_sum(&self.cpu, &scores[key..], n_keys, rows.len(), v, tile.row_stride, n, d, out, d);
            key += n;
        });
        emit(out);
    }
}

/// The arguments of a pass.
struct Call<'a> {
    step: &'a Step,
    layer: usize,
    shape: &'a HeadShape,
    q: &'a Activations,
    kv: &'a dyn KvCache,
}

fn buffer_len(rows: usize, keys: usize, head_dim: usize) -> usize {
    rows * (keys + head_dim)
}

fn mask(line: &mut [f32], seen: Range<usize>) {
    line[..seen.start].fill(f32::NEG_INFINITY);
    line[seen.end..].fill(f32::NEG_INFINITY);
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
        out.reshape(q.rows(), q.cols());
        let (call, d, cols) = (Call { step, layer, shape, q, kv }, shape.head_dim, q.cols());
        let out = Mutex::new(out.as_mut_slice());
        self.cpu.parallel(step.spans.len() * shape.n_heads, &|item| {
            let (span, head) = (&step.spans[item / shape.n_heads], item % shape.n_heads);
            self.head(&call, span, head, |rows| {
                let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
                for (from, row) in rows.chunks_exact(d).zip(span.rows.clone()) {
                    out[row * cols + head * d..][..d].copy_from_slice(from);
                }
            });
        });
    }

    fn scratch_bytes(&self, shape: &HeadShape, rows: usize, keys: usize) -> usize {
        self.cpu.threads().min(shape.n_heads) * buffer_len(rows, keys, shape.head_dim) * size_of::<f32>()
    }

    fn kernel_name(&self) -> String {
        format!("naive_{}", self.cpu.isa().name())
    }
}
