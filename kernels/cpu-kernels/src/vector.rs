//! Vector primitives: dot, axpy, elementwise addition, argmax.
//!
//! Exactness: `dot` keeps 32 partial sums and a fixed tree, so it depends on the length only; the others are
//! elementwise. Same bits on AVX2 and AVX-512.

use crate::cpu::Cpu;
use crate::exp::{load_at, store_at};
use crate::simd::{LANES, Simd, dispatch};

dispatch! {
    /// Σ a·b of two slices of equal length.
    pub fn dot(a: &[f32], b: &[f32]) -> f32 = dot_generic
}

dispatch! {
    /// y += alpha·x for slices of equal length.
    pub fn axpy(alpha: f32, x: &[f32], y: &mut [f32]) = axpy_generic
}

/// y += x for slices of equal length.
pub fn add_in_place(cpu: &Cpu, x: &[f32], y: &mut [f32]) {
    axpy(cpu, 1.0, x, y);
}

/// The first index of the largest value; NaN never wins, and 0 is returned where nothing does.
pub fn argmax(row: &[f32]) -> usize {
    let mut largest = [f32::NEG_INFINITY; LANES];
    let (blocks, rest) = row.as_chunks::<LANES>();
    for block in blocks {
        for i in 0..LANES {
            largest[i] = if block[i] > largest[i] { block[i] } else { largest[i] };
        }
    }
    let largest = largest.iter().chain(rest).fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
    row.iter().position(|&x| x == largest).unwrap_or(0)
}

#[inline(always)]
fn dot_generic<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "dot needs slices of one length");
    let mut even = s.splat(0.0);
    let mut odd = s.splat(0.0);
    let mut start = 0;
    while start + LANES < a.len() {
        even = s.fma(load_at(s, a, start, 0.0), load_at(s, b, start, 0.0), even);
        odd = s.fma(load_at(s, a, start + LANES, 0.0), load_at(s, b, start + LANES, 0.0), odd);
        start += 2 * LANES;
    }
    if start < a.len() {
        even = s.fma(load_at(s, a, start, 0.0), load_at(s, b, start, 0.0), even);
    }
    s.sum(s.add(even, odd))
}

#[inline(always)]
fn axpy_generic<S: Simd>(s: S, alpha: f32, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "axpy needs slices of one length");
    let alpha = s.splat(alpha);
    for start in (0..x.len()).step_by(LANES) {
        let v = s.fma(alpha, load_at(s, x, start, 0.0), load_at(s, y, start, 0.0));
        store_at(s, y, start, v);
    }
}
