//! Hugging Face tensor names of a decoder, and the shapes its architecture gives them.

use crate::architecture::Architecture;

/// Token embedding `[vocab, hidden]`.
pub const EMBEDDING: &str = "model.embed_tokens.weight";
/// Final norm `[hidden]`.
pub const FINAL_NORM: &str = "model.norm.weight";
/// Untied head `[vocab, hidden]`.
pub const HEAD: &str = "lm_head.weight";

/// `model.layers.{layer}.{part}`.
pub fn in_layer(layer: usize, part: &str) -> String {
    format!("model.layers.{layer}.{part}")
}

/// Shape of the tensor called `name`, or nothing when the architecture has none of that name.
pub fn shape_of(a: &Architecture, name: &str) -> Option<Vec<usize>> {
    match name {
        EMBEDDING => return Some(vec![a.vocab_size, a.hidden]),
        FINAL_NORM => return Some(vec![a.hidden]),
        HEAD => return (!a.tied_head).then(|| vec![a.vocab_size, a.hidden]),
        _ => {}
    }
    let (layer, part) = name.strip_prefix("model.layers.")?.split_once('.')?;
    if layer.parse::<usize>().ok()? >= a.n_layers {
        return None;
    }
    let (module, kind) = part.rsplit_once('.')?;
    let (q, kv) = (a.n_heads * a.head_dim, a.n_kv_heads * a.head_dim);
    let (rows, cols, bias) = match module {
        "input_layernorm" | "post_attention_layernorm" => return (kind == "weight").then(|| vec![a.hidden]),
        "self_attn.q_proj" => (q, a.hidden, a.biases.qkv),
        "self_attn.k_proj" | "self_attn.v_proj" => (kv, a.hidden, a.biases.qkv),
        "self_attn.o_proj" => (a.hidden, q, a.biases.out),
        "mlp.gate_proj" | "mlp.up_proj" => (a.ffn, a.hidden, a.biases.mlp),
        "mlp.down_proj" => (a.hidden, a.ffn, a.biases.mlp),
        _ => return None,
    };
    match kind {
        "weight" => Some(vec![rows, cols]),
        "bias" if bias => Some(vec![rows]),
        _ => None,
    }
}
