//! One query tile against one key tile, and the exact join of two partial results.

use std::ops::Range;

use cpu_kernels::Cpu;
use cpu_kernels::attention::{online_softmax_update, scale_row, scores_tile, weighted_sum};
use model::KvTile;

use super::tiles::QueryTile;
use super::{Call, Flash};
use crate::mask::{soft_cap, visible};

/// The softmax of `n` stacked rows so far: their largest score m, the sum l of e^(score − m), and the output o
/// `[n, head_dim]`, whose meaning (un-normalised or not) the order of the loops decides.
pub(super) struct Partial<'a> {
    pub(super) m: &'a mut [f32],
    pub(super) l: &'a mut [f32],
    pub(super) o: &'a mut [f32],
}

impl<'a> Partial<'a> {
    /// Values that `n` rows need.
    pub(super) fn len(n: usize, head_dim: usize) -> usize {
        n * (head_dim + 2)
    }

    /// Takes a buffer of [`Partial::len`] values.
    pub(super) fn new(buffer: &'a mut [f32], n: usize) -> Partial<'a> {
        let (m, rest) = buffer.split_at_mut(n);
        let (l, o) = rest.split_at_mut(n);
        Partial { m, l, o }
    }

    /// Nothing seen yet.
    pub(super) fn clear(&mut self) {
        self.m.fill(f32::NEG_INFINITY);
        self.l.fill(0.0);
        self.o.fill(0.0);
    }

    /// Rows `rows` alone.
    pub(super) fn rows(&mut self, rows: Range<usize>, head_dim: usize) -> Partial<'_> {
        let o = &mut self.o[rows.start * head_dim..rows.end * head_dim];
        Partial { m: &mut self.m[rows.clone()], l: &mut self.l[rows], o }
    }

    /// Joins the un-normalised result over later keys; exact, as both sides are scaled to the larger m.
    pub(super) fn join(&mut self, cpu: &Cpu, later: &Partial<'_>, head_dim: usize) {
        for (row, (o, more)) in self.o.chunks_exact_mut(head_dim).zip(later.o.chunks_exact(head_dim)).enumerate() {
            let (m, m_more) = (self.m[row], later.m[row]);
            if m_more == f32::NEG_INFINITY {
                continue;
            }
            if m == f32::NEG_INFINITY {
                (self.m[row], self.l[row]) = (m_more, later.l[row]);
                o.copy_from_slice(more);
                continue;
            }
            let joint = m.max(m_more);
            let (f, f_more) = ((m - joint).exp(), (m_more - joint).exp());
            (self.m[row], self.l[row]) = (joint, self.l[row] * f + later.l[row] * f_more);
            scale_row(cpu, o, f);
            cpu_kernels::axpy(cpu, f_more, more, o);
        }
    }
}

impl Flash {
    /// Queries of a tile, the rows of a group's heads stacked: `[rows · group, head_dim]`.
    pub(super) fn pack_queries(&self, call: &Call<'_>, tile: &QueryTile, packed: &mut [f32]) {
        let width = call.shape.group() * call.shape.head_dim;
        for (to, row) in packed.chunks_exact_mut(width).zip(tile.rows.clone()) {
            to.copy_from_slice(&call.q.row(row)[tile.kv_head * width..][..width]);
        }
    }

    /// Scores of stacked queries `q` against `keys`, turned into e^(score − m) where seen and 0 elsewhere; m and l move
    /// on, and `moved(row, f, l before)` hears of the factor f that row's earlier sums need.
    pub(super) fn score(
        &self,
        call: &Call<'_>,
        tile: &QueryTile,
        keys: &KvTile<'_>,
        (q, scores): (&[f32], &mut [f32]),
        sums: &mut Partial<'_>,
        moved: fn(&Cpu, &mut [f32], f32, f32),
    ) {
        let (shape, group) = (call.shape, call.shape.group());
        let (n, n_keys, d, stride) =
            (tile.rows.len() * group, keys.positions.len(), shape.head_dim, self.spec.key_tile);
        let k = &keys.k[tile.kv_head * keys.head_stride..];
        scores_tile(&self.cpu, q, d, n, k, keys.row_stride, n_keys, d, shape.scale, scores, stride);
        for (i, row) in tile.rows.clone().enumerate() {
            let position = call.step.positions[row];
            let seen = visible(&call.step.visibility, shape.window, position, keys.positions);
            for stacked in i * group..(i + 1) * group {
                let line = &mut scores[stacked * stride..][..n_keys];
                line[..seen.start].fill(0.0);
                line[seen.end..].fill(0.0);
                let line = &mut line[seen.clone()];
                if line.is_empty() {
                    continue;
                }
                if let Some(cap) = shape.softcap {
                    soft_cap(cap, line);
                }
                let before = sums.l[stacked];
                let f = online_softmax_update(&self.cpu, line, &mut sums.m[stacked], &mut sums.l[stacked]);
                moved(&self.cpu, &mut sums.o[stacked * d..(stacked + 1) * d], f, before);
            }
        }
    }

    /// o += p·v for a scored tile.
    pub(super) fn add_values(&self, call: &Call<'_>, tile: &QueryTile, keys: &KvTile<'_>, p: &[f32], o: &mut [f32]) {
        let (n, d) = (tile.rows.len() * call.shape.group(), call.shape.head_dim);
        let v = &keys.v[tile.kv_head * keys.head_stride..];
        weighted_sum(&self.cpu, p, self.spec.key_tile, n, v, keys.row_stride, keys.positions.len(), d, o, d);
    }

    /// Unstacks the finished rows of a tile into the output.
    pub(super) fn write(&self, call: &Call<'_>, tile: &QueryTile, o: &[f32]) {
        let width = call.shape.group() * call.shape.head_dim;
        // One short copy per tile: the lock is free nearly always, and the output needs no second buffer.
        let mut out = call.out.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (from, row) in o.chunks_exact(width).zip(tile.rows.clone()) {
            out[row * call.q.cols() + tile.kv_head * width..][..width].copy_from_slice(from);
        }
    }
}
