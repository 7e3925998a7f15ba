//! Glue between the seams: the only place that knows how a device stores activations.

mod cuda;

use cpu_kernels as kernels;

use crate::architecture::{Activation, NormKind, Rope};
use crate::block::{MatrixValues, NormWeights};
use crate::{Activations, Angles, CudaCache, Device, Embedding, Linear, Parameters, PerStep};

/// Rows of `table [vocab, hidden]` for `tokens`, times `factor` → `y [tokens, hidden]`.
pub fn embed(device: &Device, table: &Embedding, tokens: &PerStep<u32>, factor: f32, y: &mut Activations) {
    if let Device::Cuda(cuda) = device {
        return cuda.run(|| cuda::embed(cuda, table, tokens, factor, y));
    }
    let cols = table.cols;
    y.reshape(tokens.len(), cols);
    for (row, token) in tokens.iter().enumerate() {
        let at = *token as usize * cols..(*token as usize + 1) * cols;
        let to = y.row_mut(row);
        match &table.values {
            MatrixValues::F32(values) => to.copy_from_slice(&values[at]),
            MatrixValues::F16(values) => half::slice::HalfFloatSliceExt::convert_to_f32_slice(&values[at], to),
            MatrixValues::Bf16(values) => half::slice::HalfFloatSliceExt::convert_to_f32_slice(&values[at], to),
            MatrixValues::Stored(parts) => {
                let mut row = *token as usize;
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
    scale(device, factor, y);
}

/// `y = norm(x)`, row by row.
pub fn norm(device: &Device, kind: NormKind, weights: &NormWeights, eps: f32, x: &Activations, y: &mut Activations) {
    match device {
        Device::Cpu(_) => {
            y.reshape(x.rows(), x.cols());
            let (rows, cols) = (x.rows(), x.cols());
            norm_rows(device, kind, weights, eps, x.as_slice(), [rows, cols], y.as_mut_slice());
        }
        Device::Cuda(cuda) => cuda.run(|| cuda::norm(cuda, kind, weights, eps, x, y)),
    }
}

/// `x += factor · added`, then `y = norm(x)`, row by row.
pub fn add_norm(
    device: &Device,
    (added, factor): (&Activations, f32),
    (kind, weights, eps): (NormKind, &NormWeights, f32),
    x: &mut Activations,
    y: &mut Activations,
) {
    match device {
        Device::Cpu(_) => {
            add(device, added, factor, x);
            norm(device, kind, weights, eps, x, y);
        }
        Device::Cuda(cuda) => cuda.run(|| cuda::add_norm(cuda, (added, factor), (kind, weights, eps), x, y)),
    }
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
    if let Device::Cuda(cuda) = device {
        return cuda.run(|| cuda::norm_groups(cuda, kind, weights, eps, width, x));
    }
    let (shape, cols) = ([x.rows() * x.cols() / width, width], x.cols());
    let input = x.as_slice().to_vec();
    if weights.gain.len() == width {
        return norm_rows(device, kind, weights, eps, &input, shape, x.as_mut_slice());
    }
    let bias = if weights.bias.is_empty() { vec![] } else { vec![0.0; width] };
    let plain = NormWeights { gain: vec![1.0; width].into(), bias: bias.into() };
    norm_rows(device, kind, &plain, eps, &input, shape, x.as_mut_slice());
    for row in x.as_mut_slice().chunks_exact_mut(cols) {
        row.iter_mut().zip(&*weights.gain).for_each(|(x, g)| *x *= g);
        row.iter_mut().zip(&*weights.bias).for_each(|(x, b)| *x += b);
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
        _ => kernels::layer_norm(device.cpu(), x, rows, cols, &weights.gain, &weights.bias, eps, y),
    }
}

/// `y = x·Wᵀ + bias`.
pub fn linear(device: &Device, weights: &dyn Linear, x: &Activations, bias: Option<&Parameters>, y: &mut Activations) {
    weights.forward(x, y);
    let Some(bias) = bias else { return };
    match device {
        Device::Cpu(_) => {
            for row in 0..y.rows() {
                y.row_mut(row).iter_mut().zip(&**bias).for_each(|(y, b)| *y += b);
            }
        }
        Device::Cuda(cuda) => cuda.run(|| cuda::add_bias(cuda, bias, y)),
    }
}

/// `x = x·Wᵀ`, in full precision.
pub fn project(device: &Device, weights: &kernels::PackedF32, x: &mut Activations) {
    match device {
        Device::Cpu(cpu) => {
            let mut y = Activations::zeros(x.rows(), weights.n());
            weights.forward(cpu, x.as_slice(), x.rows(), y.as_mut_slice());
            *x = y;
        }
        Device::Cuda(cuda) => cuda.run(|| cuda::no_route("projection of embeddings")),
    }
}

/// `y` = a copy of `x`.
pub fn copy(device: &Device, x: &Activations, y: &mut Activations) {
    match device {
        Device::Cpu(_) => y.copy_from(x),
        Device::Cuda(cuda) => cuda.run(|| cuda::copy(cuda, x, y)),
    }
}

/// Cuts the columns of `x` into consecutive parts of the given widths.
pub fn split_columns<const N: usize>(device: &Device, x: &Activations, parts: [(&mut Activations, usize); N]) {
    let mut start = 0;
    for (part, width) in parts {
        match device {
            Device::Cpu(_) => {
                part.reshape(x.rows(), width);
                for row in 0..x.rows() {
                    part.row_mut(row).copy_from_slice(&x.row(row)[start..start + width]);
                }
            }
            Device::Cuda(cuda) => cuda.run(|| cuda::take_columns(cuda, x, start, width, part)),
        }
        start += width;
    }
}

/// Rotates the leading features of every head of `x [rows, heads·head_dim]` by `angles`.
pub fn rope(device: &Device, rope: &Rope, x: &mut Activations, head_dim: usize, angles: &Angles) {
    match device {
        Device::Cpu(cpu) => {
            let (rows, cols) = (x.rows(), x.cols());
            let (heads, x) = (cols / head_dim, x.as_mut_slice());
            let rotate = if rope.interleaved { kernels::rope_interleaved } else { kernels::rope_half_split };
            rotate(cpu, x, rows, cols, heads, head_dim, rope.dim, &angles.cos, &angles.sin);
        }
        Device::Cuda(cuda) => cuda.run(|| cuda::rope(rope, x, head_dim, angles)),
    }
}

/// `qkv` → `q [rows, heads·head_dim]`, rotated, its keys, rotated, and its values straight to `cache`, in one pass. Whether
/// the device does this; otherwise nothing has happened.
pub fn split_turn_append(
    device: &Device,
    rope: Option<&Rope>,
    qkv: &Activations,
    heads: usize,
    angles: &Angles,
    cache: Option<CudaCache<'_>>,
    q: &mut Activations,
) -> bool {
    let (Device::Cuda(cuda), Some(cache)) = (device, cache) else { return false };
    cuda.run(|| cuda::split_turn_append(cuda, rope, qkv, heads, angles, &cache, q));
    true
}

/// `y = activation(gate) ∘ up` for `x = [gate | up]`.
pub fn activate_mul(device: &Device, activation: Activation, x: &Activations, y: &mut Activations) {
    match device {
        Device::Cpu(cpu) => {
            let ffn = x.cols() / 2;
            y.reshape(x.rows(), ffn);
            kernels::activate_mul(cpu, activation, x.as_slice(), x.rows(), ffn, y.as_mut_slice());
        }
        Device::Cuda(cuda) => cuda.run(|| cuda::activate_mul(cuda, activation, x, y)),
    }
}

/// Every row of `x` becomes H·row; `x` has the width of `matrix`.
pub fn hadamard(device: &Device, matrix: &kernels::Hadamard, x: &mut Activations) {
    let rows = x.rows();
    match device {
        Device::Cpu(cpu) => matrix.forward(cpu, x.as_mut_slice(), rows),
        Device::Cuda(cuda) => cuda.run(|| cuda::no_route("Hadamard transform")),
    }
}

/// Every row of `x`, seen as runs of `run` values, becomes (H ⊗ 1)·row: as many runs as `matrix` is wide.
pub fn hadamard_runs(device: &Device, matrix: &kernels::Hadamard, run: usize, x: &mut Activations) {
    let rows = x.rows();
    match device {
        Device::Cpu(cpu) => matrix.forward_runs(cpu, x.as_mut_slice(), rows, run),
        Device::Cuda(cuda) => cuda.run(|| cuda::no_route("Hadamard transform")),
    }
}

/// `x = activation(x)`.
pub fn activate(device: &Device, activation: Activation, x: &mut Activations) {
    match device {
        Device::Cpu(cpu) => {
            let (rows, cols) = (x.rows(), x.cols());
            kernels::activate(cpu, activation, x.as_mut_slice(), rows, cols);
        }
        Device::Cuda(cuda) => cuda.run(|| cuda::activate(activation, x)),
    }
}

/// `y += factor · x`.
pub fn add(device: &Device, x: &Activations, factor: f32, y: &mut Activations) {
    match device {
        Device::Cpu(cpu) if factor == 1.0 => kernels::add_in_place(cpu, x.as_slice(), y.as_mut_slice()),
        Device::Cpu(_) => add_row(x.as_slice(), factor, y.as_mut_slice()),
        Device::Cuda(cuda) => cuda.run(|| cuda::add(x, factor, y)),
    }
}

/// `y += weight · x` for one row in host memory.
pub fn add_row(x: &[f32], weight: f32, y: &mut [f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += weight * x);
}

/// `a · b`, in host memory.
pub fn dot(device: &Device, a: &[f32], b: &[f32]) -> f32 {
    kernels::dot(device.cpu(), a, b)
}

/// `x = factor · x`.
pub fn scale(device: &Device, factor: f32, x: &mut Activations) {
    match device {
        _ if factor == 1.0 => {}
        Device::Cpu(_) => x.as_mut_slice().iter_mut().for_each(|x| *x *= factor),
        Device::Cuda(cuda) => cuda.run(|| cuda::scale(factor, x)),
    }
}

/// Values of `x` beyond ± `bound` become it.
pub fn clip(device: &Device, bound: f32, x: &mut Activations) {
    match device {
        Device::Cpu(_) => x.as_mut_slice().iter_mut().for_each(|x| *x = x.clamp(-bound, bound)),
        Device::Cuda(cuda) => cuda.run(|| cuda::no_route("clipped queries, keys and values")),
    }
}

/// `x = cap · tanh(x / cap)`.
pub fn soft_cap(device: &Device, cap: f32, x: &mut Activations) {
    match device {
        Device::Cpu(_) => x.as_mut_slice().iter_mut().for_each(|x| *x = cap * (*x / cap).tanh()),
        Device::Cuda(cuda) => cuda.run(|| cuda::soft_cap(cap, x)),
    }
}

/// `x += table[position + offset]`, row by row; `table [positions, cols]`.
pub fn add_positions(
    device: &Device,
    table: &Parameters,
    offset: usize,
    positions: &PerStep<u32>,
    x: &mut Activations,
) {
    if let Device::Cuda(cuda) = device {
        return cuda.run(|| cuda::add_positions(cuda, table, offset, positions, x));
    }
    let cols = x.cols();
    for (row, &position) in positions.iter().enumerate() {
        let from = &table[(position as usize + offset) * cols..][..cols];
        x.row_mut(row).iter_mut().zip(from).for_each(|(x, p)| *x += p);
    }
}

/// Selected rows of `x`, in the order given.
pub fn gather_rows(device: &Device, x: &Activations, rows: &PerStep<u32>, y: &mut Activations) {
    if let Device::Cuda(cuda) = device {
        return cuda.run(|| cuda::gather_rows(cuda, x, rows, y));
    }
    y.reshape(rows.len(), x.cols());
    for (to, &from) in rows.iter().enumerate() {
        y.row_mut(to).copy_from_slice(x.row(from as usize));
    }
}
