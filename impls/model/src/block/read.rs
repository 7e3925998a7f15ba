//! Reading a layer: its vectors, and its matrices still unquantized.

use super::matrix::{Matrix, NormWeights, Reader};
use super::parts::{AttentionOf, BlockOf, MlpOf};
use super::sources::sources;
use crate::Parameters;
use crate::architecture::{Architecture, NormKind, QkNormScope, Scoring};
use crate::checkpoint::{CheckpointError, Tensors};
use crate::names::{self, Source, in_layer};

/// The four norms of a layer's residual stream; a family has some of them.
#[derive(Debug, Clone)]
pub struct BlockNorms {
    /// Before attention (after its addition in post-norm form).
    pub attention: Option<NormWeights>,
    /// Before the MLP (after its addition in post-norm form).
    pub mlp: Option<NormWeights>,
    /// On the output of attention.
    pub attention_out: Option<NormWeights>,
    /// On the output of the MLP.
    pub mlp_out: Option<NormWeights>,
}

/// Norms, biases and gates of a layer; absent ones are `None`.
#[derive(Debug, Clone)]
pub struct BlockVectors {
    pub(super) norms: BlockNorms,
    /// Over all heads of a row: `[heads·head_dim]`, or `[head_dim]` when heads share it.
    pub(super) q_norm: Option<NormWeights>,
    pub(super) k_norm: Option<NormWeights>,
    pub(super) qkv_bias: Option<Parameters>,
    /// How each head mixes shared queries, `[n_heads, shared_keys]`.
    pub(super) mixing: Option<Vec<f32>>,
    pub(super) out_bias: Option<Parameters>,
    pub(super) gate_up_bias: Option<Parameters>,
    pub(super) down_bias: Option<Parameters>,
    /// Added to the scores of experts where they are chosen.
    pub(super) choice_bias: Option<Vec<f32>>,
    pub(super) shared_gate: Option<Vec<f32>>,
    pub(super) latent: Option<LatentVectors>,
}

/// Norms and biases of latent attention.
#[derive(Debug, Clone)]
pub(super) struct LatentVectors {
    pub(super) q_bias: Option<Parameters>,
    pub(super) q_norm: Option<NormWeights>,
    pub(super) kv_bias: Option<Parameters>,
    pub(super) kv_norm: NormWeights,
}

impl Architecture {
    /// Names inside a layer of the norms it has, in the order attention, MLP, attention output, MLP output.
    pub fn norm_names(&self) -> [Option<&'static str>; 4] {
        use crate::architecture::Residual;
        let shared = self.residual == Residual::Parallel { shared_norm: true };
        let [attention, mlp] = self.names.norms;
        let [attention_out, mlp_out] = self.names.output_norms;
        [attention, if shared { "" } else { mlp }, attention_out, mlp_out]
            .map(|name| Some(name).filter(|n| !n.is_empty()))
    }
}

/// Reads layer `layer` of a checkpoint.
pub fn read_layer(
    a: &Architecture,
    tensors: &dyn Tensors,
    layer: usize,
) -> Result<(BlockVectors, BlockOf<Matrix>), CheckpointError> {
    let reader = Reader::new(a, tensors);
    let norm =
        |name: Option<&str>| name.map(|name| reader.norm(&in_layer(a, layer, name), a.norm, a.hidden)).transpose();
    let [attention, mlp, attention_out, mlp_out] = a.norm_names();
    let norms = BlockNorms {
        attention: norm(attention)?,
        mlp: norm(mlp)?,
        attention_out: norm(attention_out)?,
        mlp_out: norm(mlp_out)?,
    };
    let places = sources(a, layer);
    let mut vectors = BlockVectors {
        norms,
        q_norm: None,
        k_norm: None,
        qkv_bias: None,
        mixing: a.shared_keys.map(|rank| reader.table(&names::mixing(a, layer), [a.n_heads, rank])).transpose()?,
        out_bias: reader.bias(a.biases.out, &[names::out(a, layer)])?.map(Parameters::from),
        gate_up_bias: None,
        down_bias: None,
        choice_bias: None,
        shared_gate: None,
        latent: None,
    };
    match &places.attention {
        AttentionOf::Grouped { qkv, .. } => {
            vectors.qkv_bias = reader.bias(a.biases.qkv, qkv)?.map(Parameters::from);
            vectors.q_norm = qk_norm(&reader, layer, 0, a.n_heads)?;
            vectors.k_norm = qk_norm(&reader, layer, 1, a.n_kv_heads)?;
        }
        AttentionOf::Latent { q, q_up, kv, .. } => {
            vectors.latent = Some(latent(&reader, layer, [q, kv], q_up.is_some())?);
        }
    }
    match &places.mlp {
        MlpOf::Dense(dense) => {
            vectors.gate_up_bias = reader.bias(a.biases.mlp, &dense.gate_up)?.map(Parameters::from);
            vectors.down_bias = reader.bias(a.biases.mlp, &dense.down)?.map(Parameters::from);
        }
        MlpOf::Experts { shared, .. } => {
            let (Some(names), Some(experts)) = (&a.names.experts, &a.experts) else { unreachable!("a sparse layer") };
            let biased = experts.scoring == Scoring::BiasedSigmoid;
            let bias = biased.then(|| reader.vector(&in_layer(a, layer, names.choice_bias), experts.n));
            vectors.choice_bias = bias.transpose()?;
            let gate = format!("{}.weight", in_layer(a, layer, names.shared_gate));
            let gated = shared.as_ref().filter(|_| !names.shared_gate.is_empty());
            vectors.shared_gate = gated.map(|_| reader.table(&gate, [1, a.hidden])).transpose()?;
        }
    }
    let matrices = places.try_map(layer, &mut |_, sources| reader.matrix(&sources))?;
    Ok((vectors, matrices))
}

fn qk_norm(
    reader: &Reader<'_>,
    layer: usize,
    which: usize,
    heads: usize,
) -> Result<Option<NormWeights>, CheckpointError> {
    let a = reader.architecture;
    let Some(norm) = a.qk_norm else { return Ok(None) };
    let name = in_layer(a, layer, a.names.qk_norms[which]);
    let weights = match norm.scope {
        QkNormScope::Head => reader.norm(&name, norm.kind, a.head_dim)?,
        QkNormScope::Row => reader.norm(&name, norm.kind, heads * a.head_dim)?,
        QkNormScope::EachHead if name.contains("{}") => {
            let parts = (0..heads).map(|h| reader.norm(&name.replace("{}", &h.to_string()), norm.kind, a.head_dim));
            let parts = parts.collect::<Result<Vec<_>, _>>()?;
            let join =
                |f: fn(&NormWeights) -> &[f32]| -> Vec<f32> { parts.iter().flat_map(|p| f(p).to_vec()).collect() };
            NormWeights { gain: join(|p| &p.gain).into(), bias: join(|p| &p.bias).into() }
        }
        QkNormScope::EachHead => {
            let gain = reader.table(&format!("{name}.weight"), [heads, a.head_dim])?;
            NormWeights { bias: vec![0.0; gain.len()].into(), gain: gain.into() }
        }
    };
    Ok(Some(weights))
}

fn latent(
    reader: &Reader<'_>,
    layer: usize,
    [q, kv]: [&[Source]; 2],
    compressed: bool,
) -> Result<LatentVectors, CheckpointError> {
    let a = reader.architecture;
    let Some(l) = a.latent else { unreachable!("latent sources belong to a family with latent attention") };
    let norm = |name: &str, width| reader.norm(&in_layer(a, layer, name), NormKind::Rms, width);
    Ok(LatentVectors {
        q_bias: reader.bias(a.biases.qkv && compressed, q)?.map(Parameters::from),
        q_norm: l.q_rank.map(|rank| norm("self_attn.q_a_layernorm", rank)).transpose()?,
        kv_bias: reader.bias(a.biases.qkv, kv)?.map(Parameters::from),
        kv_norm: norm("self_attn.kv_a_layernorm", l.kv_rank)?,
    })
}
