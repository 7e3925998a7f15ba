//! Glue between the seams: the only place that knows how a device stores activations.

use cpu_kernels as kernels;

use crate::block::{Matrix, MatrixValues};
use crate::{Activations, Device, Linear, TokenId};

/// Rows of `table [vocab, hidden]` for `tokens` → `y [tokens, hidden]`.
pub fn embed(table: &Matrix, tokens: &[TokenId], y: &mut Activations) {
    let cols = table.cols;
    y.reshape(tokens.len(), cols);
    for (row, token) in tokens.iter().enumerate() {
        let at = token.0 as usize * cols..(token.0 as usize + 1) * cols;
        let to = y.row_mut(row);
        match &table.values {
            MatrixValues::F32(values) => to.copy_from_slice(&values[at]),
            MatrixValues::F16(values) => half::slice::HalfFloatSliceExt::convert_to_f32_slice(&values[at], to),
            MatrixValues::Bf16(values) => half::slice::HalfFloatSliceExt::convert_to_f32_slice(&values[at], to),
        }
    }
}

/// `y = x / rms(x) · gain`, row by row.
pub fn rms_norm(device: &Device, x: &Activations, gain: &[f32], eps: f32, y: &mut Activations) {
    y.reshape(x.rows(), x.cols());
    kernels::rms_norm(device.cpu(), x.as_slice(), x.rows(), x.cols(), gain, eps, y.as_mut_slice());
}

/// `y = x·Wᵀ + bias`.
pub fn linear(weights: &dyn Linear, x: &Activations, bias: Option<&[f32]>, y: &mut Activations) {
    weights.forward(x, y);
    if let Some(bias) = bias {
        for row in 0..y.rows() {
            for (y, b) in y.row_mut(row).iter_mut().zip(bias) {
                *y += b;
            }
        }
    }
}

/// Cuts the columns of `x` into consecutive parts of the given widths.
pub fn split_columns<const N: usize>(x: &Activations, parts: [(&mut Activations, usize); N]) {
    let mut start = 0;
    for (part, width) in parts {
        part.reshape(x.rows(), width);
        for row in 0..x.rows() {
            part.row_mut(row).copy_from_slice(&x.row(row)[start..start + width]);
        }
        start += width;
    }
}

/// Rotates every head of `x [rows, heads·head_dim]` by the angles `cos`, `sin` `[rows, head_dim/2]`.
pub fn rope(device: &Device, x: &mut Activations, head_dim: usize, cos: &[f32], sin: &[f32]) {
    let (rows, cols) = (x.rows(), x.cols());
    kernels::rope_half_split(device.cpu(), x.as_mut_slice(), rows, cols, cols / head_dim, head_dim, head_dim, cos, sin);
}

/// `y = silu(gate) ∘ up` for `x = [gate | up]`.
pub fn silu_mul(device: &Device, x: &Activations, y: &mut Activations) {
    let ffn = x.cols() / 2;
    y.reshape(x.rows(), ffn);
    kernels::activate_mul(device.cpu(), kernels::Activation::Silu, x.as_slice(), x.rows(), ffn, y.as_mut_slice());
}

/// `y += x`.
pub fn add(device: &Device, x: &Activations, y: &mut Activations) {
    kernels::add_in_place(device.cpu(), x.as_slice(), y.as_mut_slice());
}

/// Selected rows of `x`, in the order given.
pub fn gather_rows(x: &Activations, rows: &[usize], y: &mut Activations) {
    y.reshape(rows.len(), x.cols());
    for (to, &from) in rows.iter().enumerate() {
        y.row_mut(to).copy_from_slice(x.row(from));
    }
}
