//! Tensor names of checkpoints as data, and which rows of which tensor make a matrix of the forward pass.
//!
//! Families store the same matrices separately, stacked, interleaved by head or transposed. A [`Source`] says where some
//! rows of a matrix lie, so that the loader and the forward pass know one layout.

mod families;
mod tensors;

use std::ops::Range;

pub use families::{
    BLOOM, CODEGEN, DEEPSEEK_V2, DEEPSEEK_V3, FALCON, FALCON_TWO_NORMS, GEMMA2, GLM, GLM4, GPT_BIGCODE,
    GPT_BIGCODE_HEADS, GPT_NEOX, GPT2, GPTJ, LLAMA, MIXTRAL, MPT, NEMOTRON, OLMO2, OPT, PHI, PHI3, QWEN_MOE, STABLELM,
    STARCODER2,
};
pub use tensors::{shape_of, tensors};

use crate::architecture::{Architecture, Latent};

/// How q, k and v are stored.
#[derive(Debug, PartialEq, Eq)]
pub enum QkvNames {
    /// Three matrices.
    Separate([&'static str; 3]),
    /// One matrix: all q rows, then k, then v.
    Stacked(&'static str),
    /// One matrix: for each KV head its query heads, its key, its value.
    ByGroup(&'static str),
    /// One matrix: for each of `parts` equal parts of the heads their queries, their values, their keys.
    ByPart {
        /// The matrix.
        name: &'static str,
        /// Into how many parts the heads were divided.
        parts: usize,
    },
}

/// How the first half of an MLP is stored.
#[derive(Debug, PartialEq, Eq)]
pub enum UpNames {
    /// One matrix per projection: gate and up, or up alone.
    Separate(&'static [&'static str]),
    /// Gate rows, then up rows, in one matrix.
    Stacked(&'static str),
}

/// Names of a mixture of experts, inside a layer.
#[derive(Debug, PartialEq, Eq)]
pub struct ExpertNames {
    /// Router `[experts, hidden]`.
    pub router: &'static str,
    /// What precedes the number of an expert.
    pub expert: &'static str,
    /// Gate and up of an expert.
    pub up: &'static [&'static str],
    /// Down of an expert.
    pub down: &'static str,
    /// The expert that every token visits.
    pub shared: &'static str,
    /// Added to scores where experts are chosen `[experts]`.
    pub choice_bias: &'static str,
    /// Its sigmoid gate `[1, hidden]`.
    pub shared_gate: &'static str,
}

/// Names of the tensors of a family. Empty means the family has no such tensor.
#[derive(Debug, PartialEq, Eq)]
pub struct Names {
    /// What may precede every name but the head's; the first is what `save_pretrained` writes.
    pub prefixes: &'static [&'static str],
    /// Token embedding.
    pub embedding: &'static str,
    /// Norm on embeddings.
    pub embedding_norm: &'static str,
    /// Table of learned positions.
    pub positions: &'static str,
    /// Projections from and to the embedding width.
    pub project: [&'static str; 2],
    /// Norm before the head.
    pub final_norm: &'static str,
    /// Untied head.
    pub head: &'static str,
    /// What precedes the number of a layer.
    pub layers: &'static str,
    /// Norm of attention and of the MLP: before them, or after the addition in post-norm form.
    pub norms: [&'static str; 2],
    /// Norm on the output of attention and of the MLP.
    pub output_norms: [&'static str; 2],
    /// Norm of queries and of keys; `{}` stands for a head's number where each head has its own tensor.
    pub qk_norms: [&'static str; 2],
    /// q, k, v.
    pub qkv: QkvNames,
    /// Attention output.
    pub out: &'static str,
    /// First half of the MLP.
    pub up: UpNames,
    /// Second half of the MLP.
    pub down: &'static str,
    /// Sparse layers.
    pub experts: Option<ExpertNames>,
    /// Matrices are stored `[in, out]`.
    pub transposed: bool,
}

/// Some rows of a matrix of the forward pass, as a checkpoint stores them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Tensor name, without the family's prefix unless it is the head.
    pub name: String,
    /// Output and input features of the whole tensor.
    pub shape: [usize; 2],
    /// Stored `[in, out]`.
    pub transposed: bool,
    /// Output features taken, in this order.
    pub rows: Vec<Range<usize>>,
}

impl Source {
    /// Every row of a tensor.
    pub fn whole(name: String, shape: [usize; 2], transposed: bool) -> Source {
        Source { name, shape, transposed, rows: std::iter::once(0..shape[0]).collect() }
    }

    /// Output features taken.
    pub fn n_rows(&self) -> usize {
        self.rows.iter().map(Range::len).sum()
    }

    /// The same rows of the bias beside this matrix.
    pub fn bias(&self) -> String {
        format!("{}.bias", self.name)
    }

    /// The name of the matrix itself.
    pub fn weight(&self) -> String {
        format!("{}.weight", self.name)
    }
}

/// `layers.{layer}.{part}` in the family's words.
pub fn in_layer(a: &Architecture, layer: usize, part: &str) -> String {
    format!("{}{layer}.{part}", a.names.layers)
}

/// [`in_layer`] with the family's usual prefix: the whole name of a tensor.
pub fn tensor_in_layer(a: &Architecture, layer: usize, part: &str) -> String {
    format!("{}{}", a.names.prefixes[0], in_layer(a, layer, part))
}

/// Where q, k and v of `layer` lie, in that order.
pub fn qkv(a: &Architecture, layer: usize) -> Vec<Source> {
    let (d, hidden, transposed) = (a.head_dim, a.hidden, a.names.transposed);
    let (q, kv) = (a.n_heads * d, a.n_kv_heads * d);
    let whole = |name: &str, rows| Source::whole(in_layer(a, layer, name), [rows, hidden], transposed);
    if let Some(rank) = a.shared_keys {
        let rows = rank + a.key_dim() + a.n_heads * d;
        return vec![Source::whole(in_layer(a, layer, "collaborative.qkv"), [rows, hidden], false)];
    }
    match &a.names.qkv {
        QkvNames::Separate([qn, kn, vn]) => vec![whole(qn, q), whole(kn, kv), whole(vn, kv)],
        QkvNames::Stacked(name) => vec![whole(name, q + 2 * kv)],
        QkvNames::ByGroup(name) => {
            let queries = a.n_heads / a.n_kv_heads;
            let of = |from: usize, heads: usize| {
                (0..a.n_kv_heads).map(move |group| {
                    let start = (group * (queries + 2) + from) * d;
                    start..start + heads * d
                })
            };
            let rows = of(0, queries).chain(of(queries, 1)).chain(of(queries + 1, 1)).collect();
            vec![Source { rows, ..whole(name, q + 2 * kv) }]
        }
        QkvNames::ByPart { name, parts } => {
            let part = q / parts;
            // stored: queries, values, keys
            let rows = [0, 2, 1].into_iter().flat_map(|which| (0..*parts).map(move |i| (3 * i + which) * part));
            vec![Source { rows: rows.map(|start| start..start + part).collect(), ..whole(name, 3 * q) }]
        }
    }
}

/// Mixing vectors of collaborative attention in `layer`, `[n_heads, shared_keys]`.
pub fn mixing(a: &Architecture, layer: usize) -> String {
    in_layer(a, layer, "collaborative.mixing")
}

/// The attention output projection of `layer`.
pub fn out(a: &Architecture, layer: usize) -> Source {
    let shape = [a.hidden, a.n_heads * a.value_dim()];
    Source::whole(in_layer(a, layer, a.names.out), shape, a.names.transposed)
}

/// Gate and up (or up alone) of the dense MLP of `layer`.
pub fn up(a: &Architecture, layer: usize) -> Vec<Source> {
    let transposed = a.names.transposed;
    match &a.names.up {
        UpNames::Separate(names) => {
            names.iter().map(|name| Source::whole(in_layer(a, layer, name), [a.ffn, a.hidden], transposed)).collect()
        }
        UpNames::Stacked(name) => vec![Source::whole(in_layer(a, layer, name), [2 * a.ffn, a.hidden], transposed)],
    }
}

/// Down of the dense MLP of `layer`.
pub fn down(a: &Architecture, layer: usize) -> Source {
    Source::whole(in_layer(a, layer, a.names.down), [a.hidden, a.ffn], a.names.transposed)
}

/// Up and down of the feed-forward called `module` inside `layer`, `ffn` wide.
pub fn expert(a: &Architecture, layer: usize, names: &ExpertNames, module: &str, ffn: usize) -> (Vec<Source>, Source) {
    let name = |part: &str| in_layer(a, layer, &format!("{module}.{part}"));
    let up = names.up.iter().map(|part| Source::whole(name(part), [ffn, a.hidden], false)).collect();
    (up, Source::whole(name(names.down), [a.hidden, ffn], false))
}

/// The matrices of latent attention (DeepSeek-V2, §2.1.2), by role.
pub struct LatentSources {
    /// Widths.
    pub sizes: Latent,
    /// From the hidden state to all queries, or to the compressed query.
    pub q: Source,
    /// From the compressed query to all queries.
    pub q_up: Option<Source>,
    /// From the hidden state to the compressed keys and values and the shared rotary key.
    pub kv: Source,
    /// From the compressed vector to each head's key and value.
    pub kv_up: Source,
}

/// Where the matrices of latent attention in `layer` lie.
pub fn latent(a: &Architecture, layer: usize) -> Option<LatentSources> {
    let l = a.latent?;
    let source = |name: &str, shape| Source::whole(in_layer(a, layer, &format!("self_attn.{name}")), shape, false);
    let queries = a.n_heads * a.key_dim();
    Some(LatentSources {
        sizes: l,
        q: match l.q_rank {
            None => source("q_proj", [queries, a.hidden]),
            Some(rank) => source("q_a_proj", [rank, a.hidden]),
        },
        q_up: l.q_rank.map(|rank| source("q_b_proj", [queries, rank])),
        kv: source("kv_a_proj_with_mqa", [l.kv_rank + l.rope_dim, a.hidden]),
        kv_up: source("kv_b_proj", [a.n_heads * (l.nope_dim + l.value_dim), l.kv_rank]),
    })
}
