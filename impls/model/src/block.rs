//! One decoder layer in paper order, and the tensors it is made of.

use half::{bf16, f16};

use crate::architecture::Architecture;
use crate::checkpoint::{CheckpointError, TensorData, Tensors};
use crate::names;
use crate::ops;
use crate::probe::{Probe, Site};
use crate::rope::RopeTable;
use crate::{Activations, Attention, Device, HeadShape, KvCache, Linear, Step};

/// Values of a weight matrix in the type they were stored in.
#[derive(Debug, Clone)]
pub enum MatrixValues {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// IEEE half precision.
    F16(Vec<f16>),
    /// bfloat16.
    Bf16(Vec<bf16>),
}

/// A weight matrix `[rows, cols]` = `[out_features, in_features]`, row-major.
#[derive(Debug, Clone)]
pub struct Matrix {
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// Values.
    pub values: MatrixValues,
}

impl Matrix {
    /// Reads the tensors `names` and stacks them by rows; they share their columns.
    pub fn stack(
        architecture: &Architecture,
        tensors: &dyn Tensors,
        names: &[String],
    ) -> Result<Matrix, CheckpointError> {
        let parts = names.iter().map(|name| checked(architecture, tensors, name)).collect::<Result<Vec<_>, _>>()?;
        let (rows, cols) = (parts.iter().map(|p| p.0[0]).sum(), parts[0].0[1]);
        let values = if parts.iter().all(|p| matches!(p.1, TensorData::F16(_))) {
            MatrixValues::F16(
                parts.iter().flat_map(|p| if let TensorData::F16(v) = &p.1 { v.to_vec() } else { vec![] }).collect(),
            )
        } else if parts.iter().all(|p| matches!(p.1, TensorData::Bf16(_))) {
            MatrixValues::Bf16(
                parts.iter().flat_map(|p| if let TensorData::Bf16(v) = &p.1 { v.to_vec() } else { vec![] }).collect(),
            )
        } else {
            MatrixValues::F32(parts.iter().flat_map(|p| p.1.to_f32()).collect())
        };
        Ok(Matrix { rows, cols, values })
    }

    /// The values widened to f32.
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.values {
            MatrixValues::F32(values) => values.clone(),
            MatrixValues::F16(values) => TensorData::F16(values.into()).to_f32(),
            MatrixValues::Bf16(values) => TensorData::Bf16(values.into()).to_f32(),
        }
    }
}

/// A tensor with the shape that the architecture asks for, and only finite values.
fn checked<'a>(
    architecture: &Architecture,
    tensors: &'a dyn Tensors,
    name: &str,
) -> Result<(Vec<usize>, TensorData<'a>), CheckpointError> {
    let tensor = tensors.get(name)?;
    let expected = names::shape_of(architecture, name).unwrap_or_default();
    if tensor.shape != expected {
        return Err(CheckpointError::Shape { name: name.into(), expected, found: tensor.shape });
    }
    let finite = match &tensor.data {
        TensorData::F32(values) => values.iter().all(|v| v.is_finite()),
        TensorData::F16(values) => values.iter().all(|v| v.is_finite()),
        TensorData::Bf16(values) => values.iter().all(|v| v.is_finite()),
    };
    if !finite {
        return Err(CheckpointError::NotFinite { name: name.into() });
    }
    Ok((tensor.shape, tensor.data))
}

/// A vector tensor (norm gain or bias) as f32.
pub(crate) fn vector(
    architecture: &Architecture,
    tensors: &dyn Tensors,
    name: &str,
) -> Result<Vec<f32>, CheckpointError> {
    Ok(checked(architecture, tensors, name)?.1.to_f32())
}

/// Norm gains and biases of a layer; absent biases are `None`.
#[derive(Debug, Clone)]
pub struct BlockVectors {
    attention_norm: Vec<f32>,
    mlp_norm: Vec<f32>,
    qkv_bias: Option<Vec<f32>>,
    out_bias: Option<Vec<f32>>,
    gate_up_bias: Option<Vec<f32>>,
    down_bias: Option<Vec<f32>>,
}

/// The matrices of a layer: q, k, v stacked into one product and gate, up into another, because they share their
/// input (rows are independent in every weight format, so stacking changes no value).
pub struct BlockOf<M> {
    /// `[(n_heads + 2·n_kv_heads)·head_dim, hidden]`.
    pub qkv: M,
    /// `[hidden, n_heads·head_dim]`.
    pub out: M,
    /// `[2·ffn, hidden]`, gate first.
    pub gate_up: M,
    /// `[hidden, ffn]`.
    pub down: M,
}

/// Reads layer `layer` of a checkpoint.
pub fn read_layer(
    a: &Architecture,
    tensors: &dyn Tensors,
    layer: usize,
) -> Result<(BlockVectors, BlockOf<Matrix>), CheckpointError> {
    let name = |part: &str| names::in_layer(layer, part);
    let stack = |parts: &[&str]| {
        Matrix::stack(a, tensors, &parts.iter().map(|p| name(&format!("{p}.weight"))).collect::<Vec<_>>())
    };
    let bias = |on: bool, parts: &[&str]| -> Result<Option<Vec<f32>>, CheckpointError> {
        if !on {
            return Ok(None);
        }
        let all =
            parts.iter().map(|p| vector(a, tensors, &name(&format!("{p}.bias")))).collect::<Result<Vec<_>, _>>()?;
        Ok(Some(all.concat()))
    };
    const QKV: &[&str] = &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
    const GATE_UP: &[&str] = &["mlp.gate_proj", "mlp.up_proj"];
    let vectors = BlockVectors {
        attention_norm: vector(a, tensors, &name("input_layernorm.weight"))?,
        mlp_norm: vector(a, tensors, &name("post_attention_layernorm.weight"))?,
        qkv_bias: bias(a.biases.qkv, QKV)?,
        out_bias: bias(a.biases.out, &["self_attn.o_proj"])?,
        gate_up_bias: bias(a.biases.mlp, GATE_UP)?,
        down_bias: bias(a.biases.mlp, &["mlp.down_proj"])?,
    };
    let matrices = BlockOf {
        qkv: stack(QKV)?,
        out: stack(&["self_attn.o_proj"])?,
        gate_up: stack(GATE_UP)?,
        down: stack(&["mlp.down_proj"])?,
    };
    Ok((vectors, matrices))
}

/// What every layer of a model shares.
pub struct Trunk {
    /// Sizes.
    pub architecture: Architecture,
    /// Where it computes.
    pub device: Device,
    /// The attention variant.
    pub attention: Box<dyn Attention>,
    /// Rotary frequencies.
    pub rope: RopeTable,
}

impl Trunk {
    /// Builds the shared part.
    pub fn new(architecture: Architecture, device: Device, attention: Box<dyn Attention>) -> Trunk {
        let rope = RopeTable::new(&architecture.rope, architecture.head_dim);
        Trunk { architecture, device, attention, rope }
    }

    /// Head shape of every layer.
    pub fn head_shape(&self) -> HeadShape {
        let a = &self.architecture;
        HeadShape { window: a.window, ..HeadShape::new(a.n_heads, a.n_kv_heads, a.head_dim) }
    }
}

/// Buffers of a session, so that a step allocates nothing once they have grown.
#[derive(Default)]
pub struct Workspace {
    pub(crate) residual: Activations,
    pub(crate) logits: Activations,
    pub(crate) gathered: Activations,
    pub(crate) normed: Activations,
    cos: Vec<f32>,
    sin: Vec<f32>,
    qkv: Activations,
    q: Activations,
    k: Activations,
    v: Activations,
    attended: Activations,
    projected: Activations,
    gate_up: Activations,
    gated: Activations,
}

impl Workspace {
    /// Prepares the rotary angles of `step`; call once before its layers.
    pub fn begin(&mut self, trunk: &Trunk, step: &Step) {
        trunk.rope.angles(&step.positions, &mut self.cos, &mut self.sin);
    }
}

/// A decoder layer: pre-norm attention and pre-norm SwiGLU, each added to the residual stream.
pub struct Block {
    vectors: BlockVectors,
    /// Its matrix products.
    pub linears: BlockOf<Box<dyn Linear>>,
}

impl Block {
    /// Joins the vectors of a layer with its matrix products.
    pub fn new(vectors: BlockVectors, linears: BlockOf<Box<dyn Linear>>) -> Block {
        Block { vectors, linears }
    }

    /// Its matrix products, in the order they run.
    pub fn linears(&self) -> [&dyn Linear; 4] {
        let l = &self.linears;
        [&*l.qkv, &*l.out, &*l.gate_up, &*l.down]
    }

    /// Updates the residual stream `x [rows, hidden]` in place; keys and values go to layer `layer` of `kv`.
    #[allow(clippy::too_many_arguments)]
    pub fn forward(
        &self,
        trunk: &Trunk,
        layer: usize,
        step: &Step,
        x: &mut Activations,
        kv: &mut dyn KvCache,
        ws: &mut Workspace,
        mut probe: Option<&mut dyn Probe>,
    ) {
        let (a, device, vectors) = (&trunk.architecture, &trunk.device, &self.vectors);
        let mut tap = |site: Site, value: &Activations| {
            if let Some(probe) = probe.as_deref_mut() {
                probe.tap(site, value);
            }
        };
        // attention: x += W_o · softmax(q kᵀ) v
        ops::rms_norm(device, x, &vectors.attention_norm, a.norm_eps, &mut ws.normed);
        tap(Site::QkvIn(layer), &ws.normed);
        ops::linear(&*self.linears.qkv, &ws.normed, vectors.qkv_bias.as_deref(), &mut ws.qkv);
        let (q_dim, kv_dim) = (a.n_heads * a.head_dim, a.n_kv_heads * a.head_dim);
        ops::split_columns(&ws.qkv, [(&mut ws.q, q_dim), (&mut ws.k, kv_dim), (&mut ws.v, kv_dim)]);
        ops::rope(device, &mut ws.q, a.head_dim, &ws.cos, &ws.sin);
        ops::rope(device, &mut ws.k, a.head_dim, &ws.cos, &ws.sin);
        kv.append(layer, step, &ws.k, &ws.v);
        trunk.attention.forward(step, layer, &trunk.head_shape(), &ws.q, kv, &mut ws.attended);
        tap(Site::OutIn(layer), &ws.attended);
        ops::linear(&*self.linears.out, &ws.attended, vectors.out_bias.as_deref(), &mut ws.projected);
        ops::add(device, &ws.projected, x);
        // MLP: x += W_down · (silu(gate) ∘ up)
        ops::rms_norm(device, x, &vectors.mlp_norm, a.norm_eps, &mut ws.normed);
        tap(Site::GateUpIn(layer), &ws.normed);
        ops::linear(&*self.linears.gate_up, &ws.normed, vectors.gate_up_bias.as_deref(), &mut ws.gate_up);
        ops::silu_mul(device, &ws.gate_up, &mut ws.gated);
        tap(Site::DownIn(layer), &ws.gated);
        ops::linear(&*self.linears.down, &ws.gated, vectors.down_bias.as_deref(), &mut ws.projected);
        ops::add(device, &ws.projected, x);
        tap(Site::Residual(layer + 1), x);
    }
}
