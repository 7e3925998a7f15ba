//! Layers of both stacks: attention and feed-forward sublayers, each with its residual sum and its norm.

use super::shape::EncoderDecoderShape;
use crate::architecture::NormKind;
use crate::block::{Matrix, MatrixValues, NormWeights};
use crate::checkpoint::{CheckpointError, TensorData, Tensors};
use crate::{Activations, Attention, Device, HeadShape, KvCache, Linear, Parameters, Step, ops};

/// Makes a matrix product of a matrix; the first argument says which one in errors.
pub type MakeLinear<'a, E> = &'a mut dyn FnMut(&str, &Matrix) -> Result<Box<dyn Linear>, E>;

/// A layer norm over `hidden` features.
pub(super) struct Norm(NormWeights);

/// A matrix product with bias.
pub(super) struct Projection {
    pub(super) linear: Box<dyn Linear>,
    bias: Parameters,
}

/// Attention of a sublayer. k and v of cross attention are read from the encoder's output, so they are apart from q.
pub(super) struct Heads {
    pub(super) q: Projection,
    /// `[2·hidden, hidden]`, k first.
    pub(super) kv: Projection,
    pub(super) out: Projection,
    pub(super) norm: Norm,
}

/// `W₂·activation(W₁·x)`.
pub(super) struct FeedForward {
    pub(super) inner: Projection,
    pub(super) outer: Projection,
    pub(super) norm: Norm,
}

/// A layer; the encoder's has no cross attention.
pub(super) struct Layer {
    pub(super) attention: Heads,
    pub(super) cross: Option<Heads>,
    pub(super) feed_forward: FeedForward,
}

/// What every layer shares.
pub(super) struct Common {
    pub(super) shape: EncoderDecoderShape,
    pub(super) device: Device,
    pub(super) attention: Box<dyn Attention>,
}

/// Buffers of a session, so that a Step allocates nothing once they have grown.
#[derive(Default)]
pub struct Buffers {
    pub(super) x: Activations,
    pub(super) gathered: Activations,
    pub(super) logits: Activations,
    normed: Activations,
    q: Activations,
    kv: Activations,
    k: Activations,
    v: Activations,
    attended: Activations,
    inner: Activations,
    added: Activations,
}

/// Reads tensors with the shape that the config asks for, and only finite values.
pub(super) struct Reader<'a> {
    pub(super) tensors: &'a dyn Tensors,
}

impl Reader<'_> {
    fn checked(&self, name: &str, expected: &[usize]) -> Result<TensorData<'_>, CheckpointError> {
        let tensor = self.tensors.get(name)?;
        if tensor.shape != expected {
            return Err(CheckpointError::Shape { name: name.into(), expected: expected.into(), found: tensor.shape });
        }
        let finite = match &tensor.data {
            TensorData::F32(values) => values.iter().all(|v| v.is_finite()),
            TensorData::F16(values) => values.iter().all(|v| v.is_finite()),
            TensorData::Bf16(values) => values.iter().all(|v| v.is_finite()),
        };
        if finite { Ok(tensor.data) } else { Err(CheckpointError::NotFinite { name: name.into() }) }
    }

    /// A tensor as f32.
    pub(super) fn vector(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>, CheckpointError> {
        Ok(self.checked(name, expected)?.to_f32())
    }

    /// The matrices `names`, `[rows, cols]` each, stacked by rows; f32 unless all are stored alike.
    pub(super) fn matrix(&self, names: &[String], rows: usize, cols: usize) -> Result<Matrix, CheckpointError> {
        let parts = names.iter().map(|n| self.checked(n, &[rows, cols])).collect::<Result<Vec<_>, _>>()?;
        let (mut half, mut brain) = (vec![], vec![]);
        for part in &parts {
            match part {
                TensorData::F16(values) => half.extend_from_slice(values),
                TensorData::Bf16(values) => brain.extend_from_slice(values),
                TensorData::F32(_) => {}
            }
        }
        let rows = rows * names.len();
        let values = match rows * cols {
            n if half.len() == n => MatrixValues::F16(half),
            n if brain.len() == n => MatrixValues::Bf16(brain),
            _ => MatrixValues::F32(parts.iter().flat_map(TensorData::to_f32).collect()),
        };
        Ok(Matrix { rows, cols, values })
    }

    pub(super) fn norm(&self, name: &str, hidden: usize) -> Result<Norm, CheckpointError> {
        let part = |part: &str| self.vector(&format!("{name}.{part}"), &[hidden]);
        Ok(Norm(NormWeights { gain: part("weight")?.into(), bias: part("bias")?.into() }))
    }

    fn projection<E: From<CheckpointError>>(
        &self,
        layer: &str,
        parts: &[&str],
        [rows, cols]: [usize; 2],
        make: MakeLinear<'_, E>,
    ) -> Result<Projection, E> {
        let names = |kind: &str| parts.iter().map(|part| format!("{layer}.{part}.{kind}")).collect::<Vec<_>>();
        let matrix = self.matrix(&names("weight"), rows, cols)?;
        let biases = names("bias").iter().map(|n| self.vector(n, &[rows])).collect::<Result<Vec<_>, _>>()?;
        let linear = make(&format!("{layer}, {}", parts.join(" and ")), &matrix)?;
        Ok(Projection { linear, bias: biases.concat().into() })
    }

    fn heads<E: From<CheckpointError>>(
        &self,
        layer: &str,
        part: &str,
        hidden: usize,
        make: MakeLinear<'_, E>,
    ) -> Result<Heads, E> {
        let (inside, square) = (format!("{layer}.{part}"), [hidden; 2]);
        Ok(Heads {
            q: self.projection(&inside, &["q_proj"], square, make)?,
            kv: self.projection(&inside, &["k_proj", "v_proj"], square, make)?,
            out: self.projection(&inside, &["out_proj"], square, make)?,
            norm: self.norm(&format!("{inside}_layer_norm"), hidden)?,
        })
    }

    /// The layer called `name`, e.g. `model.decoder.layers.0`.
    pub(super) fn layer<E: From<CheckpointError>>(
        &self,
        name: &str,
        hidden: usize,
        ffn: usize,
        has_cross: bool,
        make: MakeLinear<'_, E>,
    ) -> Result<Layer, E> {
        let cross = if has_cross { Some(self.heads(name, "encoder_attn", hidden, make)?) } else { None };
        Ok(Layer {
            attention: self.heads(name, "self_attn", hidden, make)?,
            cross,
            feed_forward: FeedForward {
                inner: self.projection(name, &["fc1"], [ffn, hidden], make)?,
                outer: self.projection(name, &["fc2"], [hidden, ffn], make)?,
                norm: self.norm(&format!("{name}.final_layer_norm"), hidden)?,
            },
        })
    }
}

impl Norm {
    pub(super) fn apply(&self, common: &Common, x: &Activations, y: &mut Activations) {
        ops::norm(&common.device, NormKind::Layer, &self.0, common.shape.norm_eps, x, y);
    }
}

impl Projection {
    fn apply(&self, common: &Common, x: &Activations, y: &mut Activations) {
        ops::linear(&common.device, &*self.linear, x, Some(&self.bias), y);
    }
}

/// A sublayer around `inside(normed or not, added)`: `x = norm(x + f(x))`, or `x = x + f(norm(x))` with pre-norm.
fn sublayer(
    common: &Common,
    norm: &Norm,
    x: &mut Activations,
    b: &mut Buffers,
    inside: impl FnOnce(&Activations, &mut Activations, &mut Buffers),
) {
    let (mut normed, mut added) = (std::mem::take(&mut b.normed), std::mem::take(&mut b.added));
    if common.shape.pre_norm {
        norm.apply(common, x, &mut normed);
        inside(&normed, &mut added, b);
        ops::add(&common.device, &added, 1.0, x);
    } else {
        inside(x, &mut added, b);
        ops::add(&common.device, &added, 1.0, x);
        norm.apply(common, x, &mut normed);
        std::mem::swap(x, &mut normed);
    }
    (b.normed, b.added) = (normed, added);
}

impl Heads {
    fn head_shape(&self, n_heads: usize) -> HeadShape {
        let hidden = self.q.linear.out_features();
        HeadShape::new(n_heads, n_heads, hidden / n_heads)
    }

    /// Appends keys and values of `x` to `layer` of `kv`.
    pub(super) fn remember(
        &self,
        common: &Common,
        (step, layer): (&Step, usize),
        x: &Activations,
        kv: &mut dyn KvCache,
        b: &mut Buffers,
    ) {
        self.kv.apply(common, x, &mut b.kv);
        let hidden = x.cols();
        ops::split_columns(&common.device, &b.kv, [(&mut b.k, hidden), (&mut b.v, hidden)]);
        kv.append(layer, step, &b.k, &b.v);
    }

    /// Queries of `x` against what `layer` of `kv` remembers of the sequences of `step`.
    fn look(
        &self,
        common: &Common,
        (step, layer, n_heads): (&Step, usize, usize),
        x: &Activations,
        kv: &dyn KvCache,
        y: &mut Activations,
        b: &mut Buffers,
    ) {
        self.q.apply(common, x, &mut b.q);
        common.attention.forward(step, layer, &self.head_shape(n_heads), &b.q, kv, &mut b.attended);
        self.out.apply(common, &b.attended, y);
    }
}

impl Layer {
    /// Updates `x [rows, hidden]` in place. Keys and values of `step` go to `layer` of `kv`; `source` is what the decoder
    /// sees of the encoder: a Step that looks at the sources' sequences, and their cache.
    pub(super) fn forward(
        &self,
        common: &Common,
        (step, layer, n_heads): (&Step, usize, usize),
        x: &mut Activations,
        kv: &mut dyn KvCache,
        source: Option<(&Step, &dyn KvCache)>,
        b: &mut Buffers,
    ) {
        sublayer(common, &self.attention.norm, x, b, |x, y, b| {
            self.attention.remember(common, (step, layer), x, kv, b);
            self.attention.look(common, (step, layer, n_heads), x, kv, y, b);
        });
        if let (Some(cross), Some((look, sources))) = (&self.cross, source) {
            sublayer(common, &cross.norm, x, b, |x, y, b| {
                cross.look(common, (look, layer, n_heads), x, sources, y, b);
            });
        }
        let FeedForward { inner, outer, norm } = &self.feed_forward;
        sublayer(common, norm, x, b, |x, y, b| {
            inner.apply(common, x, &mut b.inner);
            ops::activate(&common.device, common.shape.activation, &mut b.inner);
            outer.apply(common, &b.inner, y);
        });
    }

    /// Its matrix products, in the order they run.
    pub(super) fn linears(&self) -> impl Iterator<Item = &dyn Linear> {
        let attention = [Some(&self.attention), self.cross.as_ref()];
        let of_heads = attention.into_iter().flatten().flat_map(|h| [&h.q, &h.kv, &h.out]);
        of_heads.chain([&self.feed_forward.inner, &self.feed_forward.outer]).map(|p| &*p.linear)
    }
}
