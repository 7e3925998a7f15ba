//! Reading a layer: its vectors, and its matrices still unquantized.

use super::matrix::{Matrix, NormWeights, Reader};
use super::parts::{AttentionOf, BlockOf, FeedForwardOf, MlpOf};
use crate::architecture::{Architecture, NormKind, QkNormScope};
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
    pub(super) qkv_bias: Option<Vec<f32>>,
    /// How each head mixes shared queries, `[n_heads, shared_keys]`.
    pub(super) mixing: Option<Vec<f32>>,
    pub(super) out_bias: Option<Vec<f32>>,
    pub(super) gate_up_bias: Option<Vec<f32>>,
    pub(super) down_bias: Option<Vec<f32>>,
    pub(super) shared_gate: Option<Vec<f32>>,
    pub(super) latent: Option<LatentVectors>,
}

/// Norms and biases of latent attention.
#[derive(Debug, Clone)]
pub(super) struct LatentVectors {
    pub(super) q_bias: Option<Vec<f32>>,
    pub(super) q_norm: Option<NormWeights>,
    pub(super) kv_bias: Option<Vec<f32>>,
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
    let out = [names::out(a, layer)];
    let sparse = a.is_sparse(layer);
    let (up, down) = (names::up(a, layer), [names::down(a, layer)]);
    let mut vectors = BlockVectors {
        norms,
        q_norm: None,
        k_norm: None,
        qkv_bias: None,
        mixing: a.shared_keys.map(|rank| reader.table(&names::mixing(a, layer), [a.n_heads, rank])).transpose()?,
        out_bias: reader.bias(a.biases.out, &out)?,
        gate_up_bias: reader.bias(a.biases.mlp && !sparse, &up)?,
        down_bias: reader.bias(a.biases.mlp && !sparse, &down)?,
        shared_gate: None,
        latent: None,
    };
    let attention = match names::latent(a, layer) {
        None => {
            let sources = names::qkv(a, layer);
            vectors.qkv_bias = reader.bias(a.biases.qkv, &sources)?;
            vectors.q_norm = qk_norm(&reader, layer, 0, a.n_heads)?;
            vectors.k_norm = qk_norm(&reader, layer, 1, a.n_kv_heads)?;
            AttentionOf::Grouped { qkv: reader.matrix(&sources)?, out: reader.matrix(&out)? }
        }
        Some(sources) => {
            let (matrices, found) = latent(&reader, layer, sources, &out)?;
            vectors.latent = Some(found);
            matrices
        }
    };
    let mlp = if sparse {
        let (experts, gate) = experts(&reader, layer)?;
        vectors.shared_gate = gate;
        experts
    } else {
        MlpOf::Dense(FeedForwardOf { gate_up: reader.matrix(&up)?, down: reader.matrix(&down)? })
    };
    Ok((vectors, BlockOf { attention, mlp }))
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
            let join = |f: fn(&NormWeights) -> &[f32]| parts.iter().flat_map(|p| f(p).to_vec()).collect();
            NormWeights { gain: join(|p| &p.gain), bias: join(|p| &p.bias) }
        }
        QkNormScope::EachHead => {
            let gain = reader.table(&format!("{name}.weight"), [heads, a.head_dim])?;
            NormWeights { bias: vec![0.0; gain.len()], gain }
        }
    };
    Ok(Some(weights))
}

fn latent(
    reader: &Reader<'_>,
    layer: usize,
    sources: names::LatentSources,
    out: &[Source],
) -> Result<(AttentionOf<Matrix>, LatentVectors), CheckpointError> {
    let a = reader.architecture;
    let norm = |name: &str, width| reader.norm(&in_layer(a, layer, name), NormKind::Rms, width);
    let compressed = sources.q_up.is_some();
    let (q, kv) = ([sources.q], [sources.kv]);
    let l = sources.sizes;
    let vectors = LatentVectors {
        q_bias: reader.bias(a.biases.qkv && compressed, &q)?,
        q_norm: l.q_rank.map(|rank| norm("self_attn.q_a_layernorm", rank)).transpose()?,
        kv_bias: reader.bias(a.biases.qkv, &kv)?,
        kv_norm: norm("self_attn.kv_a_layernorm", l.kv_rank)?,
    };
    let matrices = AttentionOf::Latent {
        q: reader.matrix(&q)?,
        q_up: sources.q_up.map(|source| reader.matrix(&[source])).transpose()?,
        kv: reader.matrix(&kv)?,
        kv_up: reader.matrix(&[sources.kv_up])?,
        out: reader.matrix(out)?,
    };
    Ok((matrices, vectors))
}

type SharedGate = Option<Vec<f32>>;

fn experts(reader: &Reader<'_>, layer: usize) -> Result<(MlpOf<Matrix>, SharedGate), CheckpointError> {
    let a = reader.architecture;
    let (Some(sizes), Some(names)) = (&a.experts, &a.names.experts) else {
        unreachable!("a sparse layer belongs to a family with experts");
    };
    let feed_forward = |module: &str, ffn: usize| -> Result<FeedForwardOf<Matrix>, CheckpointError> {
        let (up, down) = names::expert(a, layer, names, module, ffn);
        Ok(FeedForwardOf { gate_up: reader.matrix(&up)?, down: reader.matrix(&[down])? })
    };
    let router = Source::whole(in_layer(a, layer, names.router), [sizes.n, a.hidden], false);
    let gate = format!("{}.weight", in_layer(a, layer, names.shared_gate));
    let experts = (0..sizes.n).map(|e| feed_forward(&format!("{}{e}", names.expert), sizes.ffn));
    let mlp = MlpOf::Experts {
        router: reader.matrix(&[router])?,
        experts: experts.collect::<Result<_, _>>()?,
        shared: sizes.shared_ffn.map(|ffn| feed_forward(names.shared, ffn)).transpose()?,
    };
    Ok((mlp, sizes.shared_ffn.map(|_| reader.table(&gate, [1, a.hidden])).transpose()?))
}
