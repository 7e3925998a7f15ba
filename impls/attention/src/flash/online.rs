//! One query tile against one key tile, and the exact join of two partial results.

use std::f32::consts::LOG2_E;
use std::ops::Range;

use cpu_kernels::Cpu;
use cpu_kernels::attention::{online_softmax_update, scale_row, scores_tile, weighted_sum};
use model::KvTile;

use super::tiles::QueryTile;
use super::{Call, Flash};
use crate::mask::{Sight, soft_cap};

/// The softmax of `n` stacked rows so far: their largest score m (in units of ln 2, so that powers are of 2), the sum l
/// of 2^(score − m), and the output o `[n, value_dim]`, whose meaning (un-normalised or not) the order of the loops decides.
pub(super) struct Partial<'a> {
    pub(super) m: &'a mut [f32],
    pub(super) l: &'a mut [f32],
    pub(super) o: &'a mut [f32],
}

/// What a query tile works with while it visits a key tile.
pub(super) struct Work<'a> {
    /// Packed queries, `[rows · group, key_dim]`.
    pub(super) q: &'a [f32],
    /// `[rows · group, key_tile]`.
    pub(super) scores: &'a mut [f32],
    /// Columns that each row sees.
    pub(super) seen: &'a mut [Range<usize>],
}

impl<'a> Partial<'a> {
    /// Values that `n` rows need.
    pub(super) fn len(n: usize, value_dim: usize) -> usize {
        n * (value_dim + 2)
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
    pub(super) fn rows(&mut self, rows: Range<usize>, value_dim: usize) -> Partial<'_> {
        let o = &mut self.o[rows.start * value_dim..rows.end * value_dim];
        Partial { m: &mut self.m[rows.clone()], l: &mut self.l[rows], o }
    }

    /// Joins the un-normalised result over later keys; exact, as both sides are scaled to the larger m.
    pub(super) fn join(&mut self, cpu: &Cpu, later: &Partial<'_>, value_dim: usize) {
        for (row, (o, more)) in self.o.chunks_exact_mut(value_dim).zip(later.o.chunks_exact(value_dim)).enumerate() {
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
            let (f, f_more) = ((m - joint).exp2(), (m_more - joint).exp2());
            (self.m[row], self.l[row]) = (joint, self.l[row] * f + later.l[row] * f_more);
            scale_row(cpu, o, f);
            cpu_kernels::axpy(cpu, f_more, more, o);
        }
    }
}

impl Flash {
    /// Queries of a tile, the rows of a group's heads stacked, `[rows · group, key_dim]`, times the scale of scores; in
    /// base 2 unless a soft cap comes first.
    pub(super) fn pack_queries(&self, call: &Call<'_>, tile: &QueryTile, packed: &mut [f32]) {
        let width = call.group * call.shape.key_dim;
        let factor = call.shape.scale * if call.shape.softcap.is_some() { 1.0 } else { LOG2_E };
        for (to, row) in packed.chunks_exact_mut(width).zip(tile.rows.clone()) {
            let from = &call.q.row(row)[tile.group * width..][..width];
            to.iter_mut().zip(from).for_each(|(to, from)| *to = from * factor);
        }
    }

    /// Scores of stacked queries `q` against `keys`, in whatever pieces the cache shows them, then m and l moved on once, then
    /// the values: o += 2^(score − m)·v. `moved(row, f, l before)` hears of the factor f that a row's earlier sums need.
    /// A whole key tile counts as one, so the bits do not tell how a cache cuts it.
    pub(super) fn attend(
        &self,
        call: &Call<'_>,
        tile: &QueryTile,
        keys: Range<usize>,
        Work { q, scores, seen }: Work<'_>,
        sums: &mut Partial<'_>,
        moved: fn(&Cpu, &mut [f32], f32, f32),
    ) {
        let (seq, group, most) = (call.step.spans[tile.span].seq, call.cache_group(tile), self.spec.key_tile);
        seen.fill(0..0);
        call.kv.head_tiles(call.layer, seq, group, keys.clone(), most, &mut |piece| {
            self.score(call, tile, &piece, piece.first - keys.start, (q, scores), seen);
        });
        self.settle(tile, call.group, scores, seen, sums, moved);
        call.kv.head_tiles(call.layer, seq, group, keys.clone(), most, &mut |piece| {
            self.add_values(call, tile, &piece, &scores[piece.first - keys.start..], sums.o);
        });
    }

    /// Scores against one piece of a key tile, from column `at` on: those in sight of a row as they are, others 0; `seen` gathers
    /// which columns each row sees.
    fn score(
        &self,
        call: &Call<'_>,
        tile: &QueryTile,
        keys: &KvTile<'_>,
        at: usize,
        (q, scores): (&[f32], &mut [f32]),
        seen: &mut [Range<usize>],
    ) {
        let (shape, group, span) = (call.shape, call.group, &call.step.spans[tile.span]);
        let (n, n_keys, d, stride) = (tile.rows.len() * group, keys.positions.len(), shape.key_dim, self.spec.key_tile);
        let k = keys.k.head(shape.key_head(call.cache_group(tile)));
        scores_tile(&self.cpu, q, d, n, k, n_keys, d, 1.0, &mut scores[at..], stride);
        let len = call.kv.len(call.layer, span.seq);
        for (i, row) in tile.rows.clone().enumerate() {
            let sight = Sight::new(call.step, span, shape.window, row, len);
            let here = sight.range(keys.first, keys.positions);
            for stacked in i * group..(i + 1) * group {
                let line = &mut scores[stacked * stride + at..][..n_keys];
                line[..here.start].fill(0.0);
                line[here.end..].fill(0.0);
                let line = &mut line[here.clone()];
                if line.is_empty() {
                    continue;
                }
                if let Some(cap) = shape.softcap {
                    soft_cap(cap, LOG2_E, line);
                }
                if let Some(alibi) = shape.alibi {
                    let head = (tile.group * group + stacked - i * group, shape.n_heads);
                    let (query, positions) = (call.step.positions[row], &keys.positions[here.clone()]);
                    alibi.lower(head, LOG2_E, query, positions, line);
                }
                sight.strike(keys.first + here.start, &keys.positions[here.clone()], line);
            }
            if !here.is_empty() {
                // what a row sees of a key tile has no gap: entries ascend by position
                let from = if seen[i].is_empty() { at + here.start } else { seen[i].start };
                seen[i] = from..at + here.end;
            }
        }
    }

    /// Turns the scores in sight into 2^(score − m) and moves m and l on.
    fn settle(
        &self,
        tile: &QueryTile,
        group: usize,
        scores: &mut [f32],
        seen: &[Range<usize>],
        sums: &mut Partial<'_>,
        moved: fn(&Cpu, &mut [f32], f32, f32),
    ) {
        let (n, stride) = (tile.rows.len() * group, self.spec.key_tile);
        let d = sums.o.len() / n.max(1);
        for (i, seen) in seen.iter().enumerate().filter(|(_, seen)| !seen.is_empty()) {
            for stacked in i * group..(i + 1) * group {
                let line = &mut scores[stacked * stride..][seen.clone()];
                let before = sums.l[stacked];
                let f = online_softmax_update(&self.cpu, line, &mut sums.m[stacked], &mut sums.l[stacked]);
                moved(&self.cpu, &mut sums.o[stacked * d..(stacked + 1) * d], f, before);
            }
        }
    }

    /// o += p·v for one scored piece.
    fn add_values(&self, call: &Call<'_>, tile: &QueryTile, keys: &KvTile<'_>, p: &[f32], o: &mut [f32]) {
        let (n, d) = (tile.rows.len() * call.group, call.shape.value_dim);
        let v = keys.v.head(call.shape.value_head(call.cache_group(tile)));
        weighted_sum(&self.cpu, p, self.spec.key_tile, n, v, keys.positions.len(), d, o, d);
    }

    /// Unstacks the finished rows of a tile into the output.
    pub(super) fn write(&self, call: &Call<'_>, tile: &QueryTile, o: &[f32]) {
        let (width, cols) = (call.group * call.shape.value_dim, call.shape.n_heads * call.shape.value_dim);
        // One short copy per tile: the lock is free nearly always, and the output needs no second buffer.
        let mut out = call.out.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (from, row) in o.chunks_exact(width).zip(tile.rows.clone()) {
            out[row * cols + tile.group * width..][..width].copy_from_slice(from);
        }
    }
}
