//! What: the gated and plain activations of feed-forward layers.
//! Source: Shazeer 2020 (arXiv:2002.05202, eq. 6: SwiGLU and its kin); Hendrycks and Gimpel 2016 (arXiv:1606.08415);
//! Abramowitz and Stegun 1964, 7.1.26 (erf).
//! Shapes: gate_up \[rows, 2·ffn\] with the gate first; x, y \[rows, ffn\].
//! Method: silu(g) = g / (1 + e^−g), quick gelu the same with 1.702·g in the exponent; gelu by its tanh form, written x / (1 + e^−2u), u = √(2/π)·(x + 0.044715·x³); gelu by
//! erf: max(x, 0) − |x|·erfc(|x|/√2)/2, so that no branch is needed.
//! Exactness: exp is within 2 ULP (see `exp`), erfc within 3e-7; elementwise, so independent of rows and threads.
//! Cost: about 20 operations per 16 values.
//! Not handled: learned activations (PReLU).

use crate::cpu::Cpu;
use crate::exp::{exp_lanes, load_at, store_at};
use crate::rows::for_rows;
use crate::simd::{LANES, Simd, dispatch};

/// A function applied value by value between the matrix products of a feed-forward layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x / (1 + e^−x), also called swish.
    Silu,
    /// x·Φ(x) with the error function.
    Gelu,
    /// x·Φ(x) with Φ by its tanh form.
    GeluTanh,
    /// max(x, 0).
    Relu,
    /// max(x, 0)².
    ReluSquared,
    /// x / (1 + e^(−1.702·x)).
    QuickGelu,
}

/// y\[rows, ffn\] = activation(gate)·up.
pub fn activate_mul(cpu: &Cpu, activation: Activation, gate_up: &[f32], rows: usize, ffn: usize, y: &mut [f32]) {
    assert_eq!(gate_up.len(), rows * 2 * ffn, "gate_up must be [rows, 2·ffn]");
    for_rows(cpu, rows, y, ffn, 2, &|row, y| {
        let (gate, up) = gate_up[row * 2 * ffn..][..2 * ffn].split_at(ffn);
        mul_row(cpu, activation, gate, up, y);
    });
}

/// Replaces every value of x\[rows, cols\] by its activation.
pub fn activate(cpu: &Cpu, activation: Activation, x: &mut [f32], rows: usize, cols: usize) {
    for_rows(cpu, rows, x, cols, 2, &|_, x| row(cpu, activation, x));
}

dispatch! {
    fn mul_row(activation: Activation, gate: &[f32], up: &[f32], y: &mut [f32]) = mul_row_generic
}

dispatch! {
    fn row(activation: Activation, x: &mut [f32]) = row_generic
}

#[inline(always)]
fn mul_row_generic<S: Simd>(s: S, activation: Activation, gate: &[f32], up: &[f32], y: &mut [f32]) {
    match activation {
        Activation::Silu => mul_lanes(s, gate, up, y, |g| gated(s, g, g)),
        Activation::Gelu => mul_lanes(s, gate, up, y, |g| gelu_lanes(s, g)),
        Activation::GeluTanh => mul_lanes(s, gate, up, y, |g| gelu_tanh_lanes(s, g)),
        Activation::Relu => mul_lanes(s, gate, up, y, |g| s.max(g, s.splat(0.0))),
        Activation::ReluSquared => mul_lanes(s, gate, up, y, |g| relu_squared_lanes(s, g)),
        Activation::QuickGelu => mul_lanes(s, gate, up, y, |g| gated(s, g, s.mul(g, s.splat(1.702)))),
    }
}

#[inline(always)]
fn row_generic<S: Simd>(s: S, activation: Activation, x: &mut [f32]) {
    match activation {
        Activation::Silu => lanes(s, x, |v| gated(s, v, v)),
        Activation::Gelu => lanes(s, x, |v| gelu_lanes(s, v)),
        Activation::GeluTanh => lanes(s, x, |v| gelu_tanh_lanes(s, v)),
        Activation::Relu => lanes(s, x, |v| s.max(v, s.splat(0.0))),
        Activation::ReluSquared => lanes(s, x, |v| relu_squared_lanes(s, v)),
        Activation::QuickGelu => lanes(s, x, |v| gated(s, v, s.mul(v, s.splat(1.702)))),
    }
}

#[inline(always)]
fn mul_lanes<S: Simd>(s: S, gate: &[f32], up: &[f32], y: &mut [f32], f: impl Fn(S::V) -> S::V) {
    for start in (0..y.len()).step_by(LANES) {
        let v = s.mul(f(load_at(s, gate, start, 0.0)), load_at(s, up, start, 0.0));
        store_at(s, y, start, v);
    }
}

#[inline(always)]
fn lanes<S: Simd>(s: S, x: &mut [f32], f: impl Fn(S::V) -> S::V) {
    for start in (0..x.len()).step_by(LANES) {
        let v = f(load_at(s, x, start, 0.0));
        store_at(s, x, start, v);
    }
}

/// x / (1 + e^−z).
#[inline(always)]
fn gated<S: Simd>(s: S, x: S::V, z: S::V) -> S::V {
    let e = exp_lanes(s, s.sub(s.splat(0.0), z));
    s.div(x, s.add(s.splat(1.0), e))
}

#[inline(always)]
fn relu_squared_lanes<S: Simd>(s: S, x: S::V) -> S::V {
    let positive = s.max(x, s.splat(0.0));
    s.mul(positive, positive)
}

#[inline(always)]
fn gelu_tanh_lanes<S: Simd>(s: S, x: S::V) -> S::V {
    let cubed = s.mul(s.mul(x, x), x);
    let u = s.mul(s.fma(cubed, s.splat(0.044_715), x), s.splat(2.0 * 0.797_884_6));
    gated(s, x, u)
}

#[inline(always)]
fn gelu_lanes<S: Simd>(s: S, x: S::V) -> S::V {
    let zero = s.splat(0.0);
    let magnitude = s.max(x, s.sub(zero, x));
    let z = s.mul(magnitude, s.splat(std::f32::consts::FRAC_1_SQRT_2));
    let t = s.div(s.splat(1.0), s.fma(z, s.splat(0.327_591_1), s.splat(1.0)));
    let mut sum = s.splat(1.061_405_4);
    for coefficient in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        sum = s.fma(sum, t, s.splat(coefficient));
    }
    let erfc = s.mul(s.mul(sum, t), exp_lanes(s, s.sub(zero, s.mul(z, z))));
    s.sub(s.max(x, zero), s.mul(magnitude, s.mul(erfc, s.splat(0.5))))
}
