//! What: the gated and plain activations of feed-forward layers.
//! Source: Shazeer 2020 (arXiv:2002.05202, eq. 6: SwiGLU and its kin); Hendrycks and Gimpel 2016 (arXiv:1606.08415).
//! Shapes: gate_up \[rows, 2·ffn\] with the gate first; y \[rows, ffn\].
//! Method: silu(g) = g / (1 + e^−g); gelu by its tanh form, written x / (1 + e^−2u), u = √(2/π)·(x + 0.044715·x³).
//! Exactness: exp is within 2 ULP (see `exp`); elementwise, so independent of rows and threads.
//! Cost: about 20 operations per 16 values.
//! Not handled: the erf form of gelu.

use crate::cpu::Cpu;
use crate::exp::{exp_lanes, load_at, store_at};
use crate::rows::for_rows;
use crate::simd::{LANES, Simd, dispatch};

/// y\[rows, ffn\] = silu(gate)·up.
pub fn silu_mul(cpu: &Cpu, gate_up: &[f32], rows: usize, ffn: usize, y: &mut [f32]) {
    assert_eq!(gate_up.len(), rows * 2 * ffn, "gate_up must be [rows, 2·ffn]");
    for_rows(cpu, rows, y, ffn, 2, &|row, y| {
        let (gate, up) = gate_up[row * 2 * ffn..][..2 * ffn].split_at(ffn);
        silu_mul_row(cpu, gate, up, y);
    });
}

/// y\[rows, ffn\] = gelu_tanh(gate)·up.
pub fn gelu_tanh_mul(cpu: &Cpu, gate_up: &[f32], rows: usize, ffn: usize, y: &mut [f32]) {
    assert_eq!(gate_up.len(), rows * 2 * ffn, "gate_up must be [rows, 2·ffn]");
    for_rows(cpu, rows, y, ffn, 2, &|row, y| {
        let (gate, up) = gate_up[row * 2 * ffn..][..2 * ffn].split_at(ffn);
        gelu_mul_row(cpu, gate, up, y);
    });
}

dispatch! {
    /// Replaces every value by its tanh-form GELU.
    pub fn gelu_tanh(x: &mut [f32]) = gelu_generic
}

dispatch! {
    fn silu_mul_row(gate: &[f32], up: &[f32], y: &mut [f32]) = silu_mul_generic
}

dispatch! {
    fn gelu_mul_row(gate: &[f32], up: &[f32], y: &mut [f32]) = gelu_mul_generic
}

/// x / (1 + e^−z).
#[inline(always)]
fn gated<S: Simd>(s: S, x: S::V, z: S::V) -> S::V {
    let e = exp_lanes(s, s.sub(s.splat(0.0), z));
    s.div(x, s.add(s.splat(1.0), e))
}

#[inline(always)]
fn gelu_lanes<S: Simd>(s: S, x: S::V) -> S::V {
    let cubed = s.mul(s.mul(x, x), x);
    let u = s.mul(s.fma(cubed, s.splat(0.044_715), x), s.splat(2.0 * 0.797_884_6));
    gated(s, x, u)
}

#[inline(always)]
fn silu_mul_generic<S: Simd>(s: S, gate: &[f32], up: &[f32], y: &mut [f32]) {
    for start in (0..y.len()).step_by(LANES) {
        let g = load_at(s, gate, start, 0.0);
        let v = s.mul(gated(s, g, g), load_at(s, up, start, 0.0));
        store_at(s, y, start, v);
    }
}

#[inline(always)]
fn gelu_mul_generic<S: Simd>(s: S, gate: &[f32], up: &[f32], y: &mut [f32]) {
    for start in (0..y.len()).step_by(LANES) {
        let v = s.mul(gelu_lanes(s, load_at(s, gate, start, 0.0)), load_at(s, up, start, 0.0));
        store_at(s, y, start, v);
    }
}

#[inline(always)]
fn gelu_generic<S: Simd>(s: S, x: &mut [f32]) {
    for start in (0..x.len()).step_by(LANES) {
        let v = gelu_lanes(s, load_at(s, x, start, 0.0));
        store_at(s, x, start, v);
    }
}
