//! What: e^x on 16 lanes, and everything built on it: exp, softmax, log-sum-exp.
//! Source: the reduction and coefficients of Cephes `expf` (Moshier); online form in `attention`.
//! Shapes: one row, any length.
//! Method: 1. clamp to \[−87.336, 88.37\]; 2. n = round(x·log2 e) by adding 1.5·2²³; 3. r = x − n·ln 2 in two parts;
//! 4. degree-7 polynomial e^r; 5. multiply by 2ⁿ built from n's bits; below −87.336 the result is 0.
//! Exactness: at most 2 ULP on \[−87, 0\] (tested against f64); sums use 16 lanes and a fixed tree, log-sum-exp adds
//! blocks of 4096 in f64. Same bits on AVX2 and AVX-512.
//! Cost: about 16 operations per 16 values.
//! Not handled: subnormal results (0), results above 2.3e38 (held there); NaN stays NaN.

use crate::cpu::Cpu;
use crate::isa::Isa;
use crate::ladder::{Form, Problem, Rung};
use crate::simd::{LANES, Simd, dispatch};

/// Softmax over the rows of x.
pub(crate) const LADDER: &[Rung] = &[
    rung("v0_scalar_libm", Isa::Scalar, ladder_libm),
    rung("v1_scalar_polynomial", Isa::Scalar, ladder_softmax),
    rung("v2_avx2", Isa::Avx2, ladder_softmax),
    rung("v3_avx512", Isa::Avx512, ladder_softmax),
];

const fn rung(name: &'static str, needs: Isa, run: fn(&Cpu, &Problem, &mut [f32])) -> Rung {
    Rung { name, needs, tolerance: 1e-5, form: Form::Softmax, weight_bytes: |_| 0, run }
}

fn ladder_softmax(cpu: &Cpu, p: &Problem, out: &mut [f32]) {
    for (x, out) in p.x.chunks_exact(p.k).zip(out.chunks_exact_mut(p.k)) {
        out.copy_from_slice(x);
        softmax_row(cpu, out);
    }
}

fn ladder_libm(_: &Cpu, p: &Problem, out: &mut [f32]) {
    for (x, out) in p.x.chunks_exact(p.k).zip(out.chunks_exact_mut(p.k)) {
        let top = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut sum = 0.0;
        for (out, x) in out.iter_mut().zip(x) {
            *out = (x - top).exp();
            sum += *out;
        }
        out.iter_mut().for_each(|v| *v /= sum);
    }
}

dispatch! {
    /// Replaces every value by its exponential; at most 2 ULP off on \[−87, 0\].
    pub fn exp(row: &mut [f32]) = exp_generic
}

dispatch! {
    /// Softmax of one row in place; a row of −∞ only becomes zeros.
    pub fn softmax_row(row: &mut [f32]) = softmax_generic
}

dispatch! {
    /// ln Σ exp(x) of one row; −∞ for an empty row or one of −∞ only.
    pub fn log_sum_exp(row: &[f32]) -> f32 = log_sum_exp_generic
}

dispatch! {
    /// The largest value of the row, −∞ if it is empty; NaN entries are passed over.
    pub fn row_max(row: &[f32]) -> f32 = max_generic
}

dispatch! {
    /// Multiplies a row by `factor` in place.
    pub fn scale_row(row: &mut [f32], factor: f32) = scale_generic
}

/// e^x of 16 lanes; see the file's header.
#[inline(always)]
pub(crate) fn exp_lanes<S: Simd>(s: S, x: S::V) -> S::V {
    const ROUND: f32 = 12_582_912.0;
    const SMALLEST: f32 = -87.336_54;
    // Constants first: the second operand, x, is what a NaN comes through.
    let clamped = s.max(s.splat(SMALLEST), s.min(s.splat(88.37), x));
    let shifted = s.fma(clamped, s.splat(std::f32::consts::LOG2_E), s.splat(ROUND));
    let n = s.sub(shifted, s.splat(ROUND));
    let r = s.fma(n, s.splat(-0.693_359_4), clamped);
    let r = s.fma(n, s.splat(2.121_944_4e-4), r);
    let mut p = s.splat(1.987_569_1e-4);
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = s.fma(p, r, s.splat(c));
    }
    let p = s.add(s.fma(p, s.mul(r, r), r), s.splat(1.0));
    let power = s.floats(s.add_u32(s.shl(s.bits(shifted), 23), s.bits(s.splat(1.0))));
    s.select_lt(x, s.splat(SMALLEST), s.splat(0.0), s.mul(p, power))
}

/// 2^x of 16 lanes for x up to 126: n = round(x), a degree-6 polynomial for 2^(x − n) on \[−½, ½\], and n added to the
/// exponent. The reduction is exact, so this costs less than [`exp_lanes`]. Below −125 the result is 0.
#[inline(always)]
pub(crate) fn exp2_lanes<S: Simd>(s: S, x: S::V) -> S::V {
    const ROUND: f32 = 12_582_912.0;
    const SMALLEST: f32 = -125.0;
    let clamped = s.max(s.splat(SMALLEST), x);
    let shifted = s.add(clamped, s.splat(ROUND));
    let r = s.sub(clamped, s.sub(shifted, s.splat(ROUND)));
    let mut p = s.splat(EXP2[6]);
    for c in [EXP2[5], EXP2[4], EXP2[3], EXP2[2], EXP2[1], 1.0] {
        p = s.fma(p, r, s.splat(c));
    }
    let scaled = s.floats(s.add_u32(s.bits(p), s.shl(s.bits(shifted), 23)));
    s.select_lt(x, s.splat(SMALLEST), s.splat(0.0), scaled)
}

/// Minimax coefficients of 2^r on \[−½, ½\], lowest first, with the constant held at 1.
const EXP2: [f32; 7] =
    [1.0, std::f32::consts::LN_2, 0.240_226_48, 0.055_503_324, 0.009_618_437, 0.001_339_887_4, 0.000_153_533_62];

dispatch! {
    /// Replaces every value by 2 to its power; at most 2 ULP off on \[−125, 0\].
    pub fn exp2(row: &mut [f32]) = exp2_generic
}

#[inline(always)]
fn exp2_generic<S: Simd>(s: S, row: &mut [f32]) {
    for start in (0..row.len()).step_by(LANES) {
        let e = exp2_lanes(s, load_at(s, row, start, 0.0));
        store_at(s, row, start, e);
    }
}

/// The vector at `start`, `fill` beyond the end of the row.
#[inline(always)]
pub(crate) fn load_at<S: Simd>(s: S, row: &[f32], start: usize, fill: f32) -> S::V {
    let row = &row[start..];
    // SAFETY: a full vector is read only where 16 values are left, else exactly those left.
    unsafe { if row.len() >= LANES { s.load(row.as_ptr()) } else { s.load_first(row.as_ptr(), row.len(), fill) } }
}

/// Writes the vector at `start`, dropping lanes beyond the end of the row.
#[inline(always)]
pub(crate) fn store_at<S: Simd>(s: S, row: &mut [f32], start: usize, v: S::V) {
    let row = &mut row[start..];
    // SAFETY: a full vector is written only where 16 values are left, else exactly those left.
    unsafe {
        if row.len() >= LANES { s.store(row.as_mut_ptr(), v) } else { s.store_first(row.as_mut_ptr(), row.len(), v) }
    }
}

#[inline(always)]
fn exp_generic<S: Simd>(s: S, row: &mut [f32]) {
    for start in (0..row.len()).step_by(LANES) {
        let e = exp_lanes(s, load_at(s, row, start, 0.0));
        store_at(s, row, start, e);
    }
}

#[inline(always)]
fn max_generic<S: Simd>(s: S, row: &[f32]) -> f32 {
    let mut largest = s.splat(f32::NEG_INFINITY);
    for start in (0..row.len()).step_by(LANES) {
        largest = s.max(load_at(s, row, start, f32::NEG_INFINITY), largest);
    }
    s.maximum(largest)
}

#[inline(always)]
fn exp_shifted_generic<S: Simd>(s: S, row: &mut [f32], shift: f32) -> f32 {
    let shift = s.splat(shift);
    let mut sum = s.splat(0.0);
    for start in (0..row.len()).step_by(LANES) {
        let e = exp_lanes(s, s.sub(load_at(s, row, start, f32::NEG_INFINITY), shift));
        store_at(s, row, start, e);
        sum = s.add(sum, e);
    }
    s.sum(sum)
}

#[inline(always)]
fn scale_generic<S: Simd>(s: S, row: &mut [f32], factor: f32) {
    let factor = s.splat(factor);
    for start in (0..row.len()).step_by(LANES) {
        let v = s.mul(load_at(s, row, start, 0.0), factor);
        store_at(s, row, start, v);
    }
}

#[inline(always)]
fn softmax_generic<S: Simd>(s: S, row: &mut [f32]) {
    let largest = max_generic(s, row);
    if largest == f32::NEG_INFINITY {
        return row.fill(0.0);
    }
    let sum = exp_shifted_generic(s, row, largest);
    scale_generic(s, row, 1.0 / sum);
}

#[inline(always)]
fn log_sum_exp_generic<S: Simd>(s: S, row: &[f32]) -> f32 {
    const BLOCK: usize = 4096;
    let largest = max_generic(s, row);
    if largest == f32::NEG_INFINITY {
        return largest;
    }
    let shift = s.splat(largest);
    let mut total = 0.0f64;
    for block in row.chunks(BLOCK) {
        let mut sum = s.splat(0.0);
        for start in (0..block.len()).step_by(LANES) {
            sum = s.add(sum, exp_lanes(s, s.sub(load_at(s, block, start, f32::NEG_INFINITY), shift)));
        }
        total += f64::from(s.sum(sum));
    }
    (f64::from(largest) + total.ln()) as f32
}
