//! The same glue on a GPU. Every function makes launches and nothing else, so that a pass can be recorded.

use cpu_kernels::Activation;
use cuda_kernels::rows::{self, Curve, Turn};
use cuda_kernels::{Buffer, GpuError};

use crate::architecture::{NormKind, Rope};
use crate::block::NormWeights;
use crate::{Activations, Angles, Cuda, CudaCache, Embedding, Parameters, PerStep};

pub(super) type Done = Result<(), GpuError>;

pub(super) fn embed(cuda: &Cuda, table: &Embedding, tokens: &PerStep<u32>, factor: f32, y: &mut Activations) -> Done {
    let y = y.reshape_on(cuda, tokens.len(), table.cols)?;
    rows::embed_rows(table.on(cuda)?, tokens.placed()?, tokens.len(), table.cols, factor, y)
}

pub(super) fn norm(
    cuda: &Cuda,
    kind: NormKind,
    weights: &NormWeights,
    eps: f32,
    x: &Activations,
    y: &mut Activations,
) -> Done {
    let y = y.reshape_on(cuda, x.rows(), x.cols())?;
    norm_rows(cuda, kind, weights, eps, x.buffer()?, [x.rows(), x.cols()], y)
}

/// In place.
pub(super) fn norm_groups(
    cuda: &Cuda,
    kind: NormKind,
    weights: &NormWeights,
    eps: f32,
    width: usize,
    x: &Activations,
) -> Done {
    let shape = [x.rows() * x.cols() / width, width];
    norm_rows(cuda, kind, weights, eps, x.buffer()?, shape, x.buffer()?)
}

fn norm_rows(
    cuda: &Cuda,
    kind: NormKind,
    weights: &NormWeights,
    eps: f32,
    x: &Buffer<f32>,
    shape: [usize; 2],
    y: &Buffer<f32>,
) -> Done {
    let gain = weights.gain.on(cuda)?;
    match kind {
        NormKind::Rms | NormKind::RmsUnitOffset => rows::rms_norm(x, gain, shape, eps, y),
        _ => rows::layer_norm(x, gain, weights.bias.on(cuda)?, shape, eps, y),
    }
}

/// `x += factor · added`, `y = norm(x)`, in one launch where there is one for it.
pub(super) fn add_norm(
    cuda: &Cuda,
    (added, factor): (&Activations, f32),
    (kind, weights, eps): (NormKind, &NormWeights, f32),
    x: &Activations,
    y: &mut Activations,
) -> Done {
    match kind {
        NormKind::Rms | NormKind::RmsUnitOffset => {
            let (gain, shape) = (weights.gain.on(cuda)?, [x.rows(), x.cols()]);
            let y = y.reshape_on(cuda, x.rows(), x.cols())?;
            rows::add_rms_norm(added.buffer()?, factor, gain, shape, eps, x.buffer()?, y)
        }
        _ => {
            add(added, factor, x)?;
            norm(cuda, kind, weights, eps, x, y)
        }
    }
}

pub(super) fn add_bias(cuda: &Cuda, bias: &Parameters, x: &Activations) -> Done {
    rows::add_bias(bias.on(cuda)?, x.rows(), x.buffer()?)
}

pub(super) fn copy(cuda: &Cuda, x: &Activations, y: &mut Activations) -> Done {
    let whole = [x.rows(), x.cols()];
    rows::take_columns(x.buffer()?, whole, 0, x.cols(), y.reshape_on(cuda, x.rows(), x.cols())?)
}

pub(super) fn take_columns(cuda: &Cuda, x: &Activations, start: usize, width: usize, y: &mut Activations) -> Done {
    let shape = [x.rows(), x.cols()];
    rows::take_columns(x.buffer()?, shape, start, width, y.reshape_on(cuda, x.rows(), width)?)
}

fn turn<'a>(rope: &Rope, angles: &'a Angles) -> Result<Turn<'a>, GpuError> {
    let (cos, sin) = (angles.cos.placed()?, angles.sin.placed()?);
    Ok(Turn { dim: rope.dim, interleaved: rope.interleaved, cos, sin })
}

pub(super) fn rope(rope: &Rope, x: &Activations, head_dim: usize, angles: &Angles) -> Done {
    rows::rope(&turn(rope, angles)?, [x.rows(), x.cols() / head_dim, head_dim], x.buffer()?)
}

pub(super) fn split_turn_append(
    cuda: &Cuda,
    rope: Option<&Rope>,
    qkv: &Activations,
    heads: usize,
    angles: &Angles,
    cache: &CudaCache<'_>,
    q: &mut Activations,
) -> Done {
    let layout = cache.keys.0;
    let still = Turn { dim: 0, interleaved: false, cos: qkv.buffer()?, sin: qkv.buffer()? };
    let turn = rope.map_or(Ok(still), |rope| turn(rope, angles))?;
    let q = q.reshape_on(cuda, qkv.rows(), heads * layout.dim)?;
    rows::rope_append(qkv.buffer()?, &turn, cache.places, heads, layout, q, [cache.keys.1, cache.values.1])
}

pub(super) fn activate_mul(cuda: &Cuda, activation: Activation, x: &Activations, y: &mut Activations) -> Done {
    let (rows, ffn) = (x.rows(), x.cols() / 2);
    rows::activate_mul(curve(activation)?, x.buffer()?, rows, ffn, y.reshape_on(cuda, rows, ffn)?)
}

pub(super) fn activate(activation: Activation, x: &Activations) -> Done {
    rows::activate(curve(activation)?, x.rows() * x.cols(), x.buffer()?)
}

fn curve(activation: Activation) -> Result<Curve, GpuError> {
    match activation {
        Activation::Silu => Ok(Curve::Silu),
        Activation::Gelu => Ok(Curve::Gelu),
        Activation::GeluTanh => Ok(Curve::GeluTanh),
        Activation::Relu => Ok(Curve::Relu),
        Activation::ReluSquared | Activation::QuickGelu => {
            Err(GpuError::shape("activation", "there is no such kernel on a GPU"))
        }
    }
}

pub(super) fn add(x: &Activations, factor: f32, y: &Activations) -> Done {
    rows::add_scaled(x.buffer()?, factor, x.rows() * x.cols(), y.buffer()?)
}

pub(super) fn scale(factor: f32, x: &Activations) -> Done {
    rows::scale(factor, x.rows() * x.cols(), x.buffer()?)
}

pub(super) fn soft_cap(cap: f32, x: &Activations) -> Done {
    rows::soft_cap(cap, x.rows() * x.cols(), x.buffer()?)
}

pub(super) fn add_positions(
    cuda: &Cuda,
    table: &Parameters,
    offset: usize,
    positions: &PerStep<u32>,
    x: &Activations,
) -> Done {
    rows::add_positions(table.on(cuda)?, offset, positions.placed()?, x.rows(), x.cols(), x.buffer()?)
}

pub(super) fn gather_rows(cuda: &Cuda, x: &Activations, numbers: &PerStep<u32>, y: &mut Activations) -> Done {
    let (n, cols) = (numbers.len(), x.cols());
    rows::gather_rows(x.buffer()?, numbers.placed()?, n, cols, y.reshape_on(cuda, n, cols)?)
}

/// What the plan of a cell refuses, should it come here all the same.
pub(super) fn no_route(what: &'static str) -> Done {
    Err(GpuError::shape(what, "there is no such kernel on a GPU"))
}
