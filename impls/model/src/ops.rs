//! Glue between the seams: the only place that knows how a device stores activations.

use cpu_kernels as kernels;

use crate::architecture::{Activation, NormKind, Rope};
use crate::block::{Matrix, MatrixValues, NormWeights};
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
            MatrixValues::Stored(parts) => {
                let mut row = token.0 as usize;
                for part in parts {
                    if row < part.n() {
                        part.dequantise_row(row, to);
                        break;
                    }
                    row -= part.n();
                }
            }
        }
    }
}

/// `y = norm(x)`, row by row.
pub fn norm(device: &Device, kind: NormKind, weights: &NormWeights, eps: f32, x: &Activations, y: &mut Activations) {
    y.reshape(x.rows(), x.cols());
    let (rows, cols) = (x.rows(), x.cols());
    norm_rows(device, kind, weights, eps, x.as_slice(), [rows, cols], y.as_mut_slice());
}

/// Normalises every group of `width` features of `x` in place; the weights cover a group or a whole row.
pub fn norm_groups(
    device: &Device,
    kind: NormKind,
    weights: &NormWeights,
    eps: f32,
    width: usize,
    x: &mut Activations,
) {
    let (shape, cols) = ([x.rows() * x.cols() / width, width], x.cols());
    let input = x.as_slice().to_vec();
    if weights.gain.len() == width {
        return norm_rows(device, kind, weights, eps, &input, shape, x.as_mut_slice());
    }
    let plain =
        NormWeights { gain: vec![1.0; width], bias: if weights.bias.is_empty() { vec![] } else { vec![0.0; width] } };
    norm_rows(device, kind, &plain, eps, &input, shape, x.as_mut_slice());
    for row in x.as_mut_slice().chunks_exact_mut(cols) {
        row.iter_mut().zip(&weights.gain).for_each(|(x, g)| *x *= g);
        row.iter_mut().zip(&weights.bias).for_each(|(x, b)| *x += b);
    }
}

fn norm_rows(
    device: &Device,
    kind: NormKind,
    weights: &NormWeights,
    eps: f32,
    x: &[f32],
    [rows, cols]: [usize; 2],
    y: &mut [f32],
) {
    match kind {
        NormKind::Rms | NormKind::RmsUnitOffset => {
            kernels::rms_norm(device.cpu(), x, rows, cols, &weights.gain, eps, y)
        }
        NormKind::Layer | NormKind::LayerNoBias => {
            kernels::layer_norm(device.cpu(), x, rows, cols, &weights.gain, &weights.bias, eps, y)
        }
    }
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

/// `x = x·Wᵀ`, in full precision.
pub fn project(device: &Device, weights: &kernels::PackedF32, x: &mut Activations) {
    let mut y = Activations::zeros(x.rows(), weights.n());
    weights.forward(device.cpu(), x.as_slice(), x.rows(), y.as_mut_slice());
    *x = y;
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

/// Rotates the leading features of every head of `x [rows, heads·head_dim]` by the angles `cos`, `sin` `[rows, dim/2]`.
pub fn rope(device: &Device, rope: &Rope, x: &mut Activations, head_dim: usize, cos: &[f32], sin: &[f32]) {
    let (rows, cols) = (x.rows(), x.cols());
    let (heads, x) = (cols / head_dim, x.as_mut_slice());
    let rotate = if rope.interleaved { kernels::rope_interleaved } else { kernels::rope_half_split };
    rotate(device.cpu(), x, rows, cols, heads, head_dim, rope.dim, cos, sin);
}

/// `y = activation(gate) ∘ up` for `x = [gate | up]`.
pub fn activate_mul(device: &Device, activation: Activation, x: &Activations, y: &mut Activations) {
    let ffn = x.cols() / 2;
    y.reshape(x.rows(), ffn);
    kernels::activate_mul(device.cpu(), activation, x.as_slice(), x.rows(), ffn, y.as_mut_slice());
}

/// Every row of `x` becomes H·row; `x` has the width of `matrix`.
pub fn hadamard(device: &Device, matrix: &kernels::Hadamard, x: &mut Activations) {
    let rows = x.rows();
    matrix.forward(device.cpu(), x.as_mut_slice(), rows);
}

/// Every row of `x`, seen as runs of `run` values, becomes (H ⊗ 1)·row: as many runs as `matrix` is wide.
pub fn hadamard_runs(device: &Device, matrix: &kernels::Hadamard, run: usize, x: &mut Activations) {
    let rows = x.rows();
    matrix.forward_runs(device.cpu(), x.as_mut_slice(), rows, run);
}

/// `x = activation(x)`.
pub fn activate(device: &Device, activation: Activation, x: &mut Activations) {
    let (rows, cols) = (x.rows(), x.cols());
    kernels::activate(device.cpu(), activation, x.as_mut_slice(), rows, cols);
}

/// `y += factor · x`.
pub fn add(device: &Device, x: &Activations, factor: f32, y: &mut Activations) {
    if factor == 1.0 {
        kernels::add_in_place(device.cpu(), x.as_slice(), y.as_mut_slice());
    } else {
        add_row(x.as_slice(), factor, y.as_mut_slice());
    }
}

/// `y += weight · x` for one row.
pub fn add_row(x: &[f32], weight: f32, y: &mut [f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += weight * x);
}

/// `a · b`.
pub fn dot(device: &Device, a: &[f32], b: &[f32]) -> f32 {
    kernels::dot(device.cpu(), a, b)
}

/// `x = factor · x`.
pub fn scale(factor: f32, x: &mut Activations) {
    if factor != 1.0 {
        x.as_mut_slice().iter_mut().for_each(|x| *x *= factor);
    }
}

/// `x = cap · tanh(x / cap)`.
pub fn soft_cap(cap: f32, x: &mut Activations) {
    x.as_mut_slice().iter_mut().for_each(|x| *x = cap * (*x / cap).tanh());
}

/// `x += table[position + offset]`, row by row; `table [positions, cols]`.
pub fn add_positions(table: &[f32], offset: usize, positions: &[u32], x: &mut Activations) {
    let cols = x.cols();
    for (row, &position) in positions.iter().enumerate() {
        let from = &table[(position as usize + offset) * cols..][..cols];
        x.row_mut(row).iter_mut().zip(from).for_each(|(x, p)| *x += p);
    }
}

/// Selected rows of `x`, in the order given.
pub fn gather_rows(x: &Activations, rows: &[usize], y: &mut Activations) {
    y.reshape(rows.len(), x.cols());
    for (to, &from) in rows.iter().enumerate() {
        y.row_mut(to).copy_from_slice(x.row(from));
    }
}
