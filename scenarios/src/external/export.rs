//! Our weights in a form that any engine can read: raw f32 tensors one after the other, and where each begins.

use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use engine::Checkpoint;
use model::Architecture;
use model::architecture::Positions;
use serde::Serialize;

/// Sizes of a Llama-shaped model.
#[derive(Debug, Clone, Serialize)]
pub struct ModelShape {
    vocab: usize,
    hidden: usize,
    ffn: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    max_positions: usize,
    rope_theta: f32,
    norm_eps: f32,
}

/// Where a tensor lies in the raw file.
#[derive(Debug, Clone, Serialize)]
pub struct TensorPlace {
    name: String,
    shape: Vec<usize>,
    offset: u64,
}

impl ModelShape {
    /// The shape of `a`, or why it is not a plain Llama.
    pub fn of(a: &Architecture) -> Result<ModelShape, String> {
        let theta = match &a.positions {
            Positions::Rope(rope) => rope.theta,
            Positions::Learned { .. } | Positions::Alibi(_) => 0.0,
        };
        let heads = [a.n_heads, a.n_kv_heads, a.head_dim];
        let mut plain = Architecture::llama(a.vocab_size, a.hidden, a.n_layers, heads, a.ffn);
        if let Positions::Rope(plain) = &mut plain.positions {
            plain.theta = theta;
        }
        (plain.max_positions, plain.norm_eps, plain.tied_head) = (a.max_positions, a.norm_eps, a.tied_head);
        if *a != plain {
            return Err(format!(
                "the llama.cpp adapter writes plain Llama checkpoints (no biases, windows, rotary scaling or experts); this one is a `{}` that differs",
                a.family
            ));
        }
        Ok(ModelShape::sizes(a, theta))
    }

    /// The sizes of any decoder whose layers have one attention and one gated MLP, for an engine that reads the file itself.
    pub fn of_file(a: &Architecture) -> Result<ModelShape, String> {
        let missing =
            [(a.experts.is_some(), "experts"), (a.latent.is_some(), "latent attention"), (!a.gated, "no gate")];
        if let Some((_, what)) = missing.iter().find(|(has, _)| *has) {
            return Err(format!(
                "the least work of a pass is counted for plain layers; family `{}` has {what}",
                a.family
            ));
        }
        let theta = if let Positions::Rope(rope) = &a.positions { rope.theta } else { 0.0 };
        Ok(ModelShape::sizes(a, theta))
    }

    fn sizes(a: &Architecture, rope_theta: f32) -> ModelShape {
        ModelShape {
            vocab: a.vocab_size,
            hidden: a.hidden,
            ffn: a.ffn,
            layers: a.n_layers,
            heads: a.n_heads,
            kv_heads: a.n_kv_heads,
            head_dim: a.head_dim,
            max_positions: a.max_positions,
            rope_theta,
            norm_eps: a.norm_eps,
        }
    }

    /// Values of all matrices of all layers.
    pub fn layer_values(&self) -> usize {
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        self.layers * (self.hidden * (2 * q + 2 * kv) + 3 * self.hidden * self.ffn)
    }

    /// Values of the head.
    pub fn head_values(&self) -> usize {
        self.vocab * self.hidden
    }

    /// Attention FLOPs of one query-key pair, all heads and layers.
    pub fn pair_flops(&self) -> usize {
        4 * self.heads * self.head_dim * self.layers
    }

    /// Keys and values of one position, all layers.
    pub fn kv_values(&self) -> usize {
        2 * self.kv_heads * self.head_dim * self.layers
    }
}

/// Writes every tensor of `checkpoint` to `file`.
pub fn raw_tensors(checkpoint: &Checkpoint, file: &Path) -> Result<Vec<TensorPlace>> {
    let shown = || format!("{}: cannot write the weights for the other engine", file.display());
    let mut out = BufWriter::new(std::fs::File::create(file).with_context(shown)?);
    let (mut places, mut offset) = (vec![], 0);
    for name in names(&checkpoint.architecture) {
        let tensor = checkpoint.tensors.get(&name)?;
        let values = tensor.data.to_f32();
        for chunk in values.chunks(1 << 16) {
            let bytes: Vec<u8> = chunk.iter().flat_map(|v| v.to_le_bytes()).collect();
            out.write_all(&bytes).with_context(shown)?;
        }
        places.push(TensorPlace { name, shape: tensor.shape.clone(), offset });
        offset += 4 * values.len() as u64;
    }
    out.flush().with_context(shown)?;
    Ok(places)
}

/// Hugging Face names of a Llama.
fn names(a: &Architecture) -> Vec<String> {
    let mut names = vec!["model.embed_tokens.weight".to_string(), "model.norm.weight".into()];
    if !a.tied_head {
        names.push("lm_head.weight".into());
    }
    let parts = [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
        "input_layernorm",
        "post_attention_layernorm",
    ];
    names.extend((0..a.n_layers).flat_map(|i| parts.map(|part| format!("model.layers.{i}.{part}.weight"))));
    names
}
