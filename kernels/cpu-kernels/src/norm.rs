//! What: RMSNorm and LayerNorm over rows.
//! Source: Zhang and Sennrich 2019 (arXiv:1910.07467, eq. 4); Ba et al. 2016 (arXiv:1607.06450, eq. 4).
//! Shapes: x, y \[rows, cols\]; gain, bias \[cols\].
//! Method: RMS: y = x·(1/√(Σx²/cols + eps))·gain. Layer: mean, then the variance of the differences, then scale.
//! Exactness: sums in f32 over 32 lanes and a fixed tree per row: independent of the row count and the threads.
//! Cost: two or three passes over a row that stays in L1.
//! Not handled: fused residual addition.

use crate::cpu::Cpu;
use crate::exp::{load_at, store_at};
use crate::isa::Isa;
use crate::ladder::{Form, Problem, Rung};
use crate::rows::for_rows;
use crate::simd::{LANES, Simd, dispatch};
use crate::vector::dot;

/// RMSNorm over the rows of x with the first k weights as gain.
pub(crate) const LADDER: &[Rung] = &[
    rung("v0_scalar", Isa::Scalar, ladder_scalar),
    rung("v1_scalar_lanes", Isa::Scalar, ladder_lanes),
    rung("v2_avx2", Isa::Avx2, ladder_lanes),
    rung("v3_avx512", Isa::Avx512, ladder_lanes),
];

/// The eps of the ladder's problems.
pub(crate) const LADDER_EPS: f32 = 1e-5;

const fn rung(name: &'static str, needs: Isa, run: fn(&Cpu, &Problem, &mut [f32])) -> Rung {
    Rung { name, needs, tolerance: 1e-5, form: Form::RmsNorm, weight_bytes: |p| 4 * p.k, run }
}

fn ladder_scalar(_: &Cpu, p: &Problem, out: &mut [f32]) {
    for (x, out) in p.x.chunks_exact(p.k).zip(out.chunks_exact_mut(p.k)) {
        let mean_square = x.iter().fold(0.0, |sum, v| sum + v * v) / p.k as f32;
        let inverse = 1.0 / (mean_square + LADDER_EPS).sqrt();
        for ((out, x), gain) in out.iter_mut().zip(x).zip(&p.w) {
            *out = x * inverse * gain;
        }
    }
}

fn ladder_lanes(cpu: &Cpu, p: &Problem, out: &mut [f32]) {
    rms_norm(cpu, &p.x, p.rows, p.k, &p.w[..p.k], LADDER_EPS, out);
}

/// y\[rows, cols\] = RMSNorm(x)·gain with the sum of squares in 32 f32 lanes.
pub fn rms_norm(cpu: &Cpu, x: &[f32], rows: usize, cols: usize, gain: &[f32], eps: f32, y: &mut [f32]) {
    assert!(x.len() == rows * cols && gain.len() == cols, "x must be [rows, cols] and gain [cols]");
    for_rows(cpu, rows, y, cols, 1, &|row, y| {
        let x = &x[row * cols..][..cols];
        let mean_square = dot(cpu, x, x) / cols as f32;
        affine(cpu, x, 0.0, 1.0 / (mean_square + eps).sqrt(), gain, &[], y);
    });
}

/// y\[rows, cols\] = LayerNorm(x)·gain + bias with mean and variance in f32 lanes.
pub fn layer_norm(cpu: &Cpu, x: &[f32], rows: usize, cols: usize, gain: &[f32], bias: &[f32], eps: f32, y: &mut [f32]) {
    assert!(x.len() == rows * cols && gain.len() == cols && bias.len() == cols, "x [rows, cols]; gain, bias [cols]");
    for_rows(cpu, rows, y, cols, 2, &|row, y| {
        let x = &x[row * cols..][..cols];
        let mean = sum(cpu, x) / cols as f32;
        let variance = sum_of_squares_about(cpu, x, mean) / cols as f32;
        affine(cpu, x, mean, 1.0 / (variance + eps).sqrt(), gain, bias, y);
    });
}

dispatch! {
    fn sum(x: &[f32]) -> f32 = sum_generic
}

dispatch! {
    fn sum_of_squares_about(x: &[f32], mean: f32) -> f32 = sum_of_squares_about_generic
}

dispatch! {
    /// y = (x − mean)·factor·gain (+ bias unless it is empty).
    fn affine(x: &[f32], mean: f32, factor: f32, gain: &[f32], bias: &[f32], y: &mut [f32]) = affine_generic
}

#[inline(always)]
fn sum_generic<S: Simd>(s: S, x: &[f32]) -> f32 {
    let mut total = s.splat(0.0);
    for start in (0..x.len()).step_by(LANES) {
        total = s.add(total, load_at(s, x, start, 0.0));
    }
    s.sum(total)
}

#[inline(always)]
fn sum_of_squares_about_generic<S: Simd>(s: S, x: &[f32], mean: f32) -> f32 {
    let centre = s.splat(mean);
    let mut total = s.splat(0.0);
    for start in (0..x.len()).step_by(LANES) {
        // Lanes beyond the end read as the mean, so they add nothing.
        let v = s.sub(load_at(s, x, start, mean), centre);
        total = s.fma(v, v, total);
    }
    s.sum(total)
}

#[inline(always)]
fn affine_generic<S: Simd>(s: S, x: &[f32], mean: f32, factor: f32, gain: &[f32], bias: &[f32], y: &mut [f32]) {
    let (mean, factor) = (s.splat(mean), s.splat(factor));
    for start in (0..x.len()).step_by(LANES) {
        let v = s.mul(s.sub(load_at(s, x, start, 0.0), mean), factor);
        let mut v = s.mul(v, load_at(s, gain, start, 0.0));
        if !bias.is_empty() {
            v = s.add(v, load_at(s, bias, start, 0.0));
        }
        store_at(s, y, start, v);
    }
}
