//! The storage order of all packed weights: panels of 16 output rows, interleaved, `[⌈n/16⌉][k][16]`.
//!
//! One aligned 16-vector then feeds 16 outputs of one input column, the same layout serves 1 row and 4096 rows, and a
//! reduction over k walks memory forward. Missing rows of the last panel are zero.

use crate::simd::LANES;

/// Panels that `n` output rows take.
pub(crate) const fn n_panels(n: usize) -> usize {
    n.div_ceil(LANES)
}

/// `value(row, column)` for all of `[n, k]` in panel order.
pub(crate) fn interleave<T: Copy + Default>(n: usize, k: usize, source: &[T]) -> Vec<T> {
    assert_eq!(source.len(), n * k, "weights must hold n × k = {n} × {k} values");
    interleave_by(n, k, |row, out: &mut Vec<T>| out.extend_from_slice(&source[row * k..][..k]))
}

/// As [`interleave`], from a closure that appends row `row` (k values) to its argument: 16 rows are held at a time.
pub(crate) fn interleave_by<T: Copy + Default>(
    n: usize,
    k: usize,
    mut append_row: impl FnMut(usize, &mut Vec<T>),
) -> Vec<T> {
    let mut packed = Vec::with_capacity(n_panels(n) * k * LANES);
    let mut rows: Vec<T> = Vec::with_capacity(LANES * k);
    for panel in 0..n_panels(n) {
        rows.clear();
        for row in panel * LANES..((panel + 1) * LANES).min(n) {
            append_row(row, &mut rows);
        }
        rows.resize(LANES * k, T::default());
        for column in 0..k {
            for lane in 0..LANES {
                packed.push(rows[lane * k + column]);
            }
        }
    }
    packed
}

/// Back to row-major `[n, k]`, converting each value.
pub(crate) fn deinterleave<T: Copy>(packed: &[T], n: usize, k: usize, widen: impl Fn(T) -> f32) -> Vec<f32> {
    let mut out = vec![0.0; n * k];
    for row in 0..n {
        let panel = &packed[(row / LANES) * k * LANES..];
        for column in 0..k {
            out[row * k + column] = widen(panel[column * LANES + row % LANES]);
        }
    }
    out
}
