//! Families whose scores fall with distance instead of rotating: BLOOM, MPT.

use serde_json::{Value, json};

use crate::Alibi;
use crate::architecture::fields::{ConfigError, Fields};
use crate::architecture::{Activation, Architecture, Biases, NormKind, Positions};
use crate::names;

pub(super) fn bloom(f: &Fields) -> Result<Architecture, ConfigError> {
    let hidden = f.size(f.first(&["hidden_size", "n_embed"]), 1 << 17)?;
    let n_heads = f.size(f.first(&["n_head", "num_attention_heads"]), 1 << 12)?;
    if hidden % n_heads != 0 {
        return Err(f.wrong(f.first(&["n_head", "num_attention_heads"]), &format!("a divisor of {hidden}")));
    }
    let n_layers = f.size(f.first(&["n_layer", "num_hidden_layers"]), 1 << 12)?;
    let heads = [n_heads, n_heads, hidden / n_heads];
    Ok(Architecture {
        max_positions: f.optional_size("seq_length", 1 << 28)?.unwrap_or(2048),
        norm: NormKind::Layer,
        norm_eps: f.positive("layer_norm_epsilon")?.unwrap_or(1e-5),
        positions: Positions::Alibi(Alibi { max_bias: 8.0 }),
        activation: Activation::GeluTanh,
        gated: false,
        biases: Biases { qkv: true, out: true, mlp: true, head: false },
        tied_head: f.flag("tie_word_embeddings", true)?,
        embedding_norm: true,
        names: &names::BLOOM,
        ..Architecture::llama(f.size("vocab_size", 1 << 24)?, hidden, n_layers, heads, 4 * hidden)
    })
}

pub(super) fn mpt(f: &Fields) -> Result<Architecture, ConfigError> {
    let (hidden, n_heads) = (f.size("d_model", 1 << 17)?, f.size("n_heads", 1 << 12)?);
    if hidden % n_heads != 0 {
        return Err(f.wrong("n_heads", &format!("a divisor of d_model {hidden}")));
    }
    // what its other variants add
    let neutral = [
        ("attn_config.alibi", json!(true)),
        ("attn_config.alibi_bias_max", json!(8)),
        ("expansion_ratio", json!(4)),
        ("attn_config.qk_ln", json!(false)),
        ("attn_config.prefix_lm", json!(false)),
        ("attn_config.attn_uses_sequence_id", json!(false)),
        ("attn_config.attn_type", json!("multihead_attention")),
        ("no_bias", json!(true)),
        ("norm_type", json!("low_precision_layernorm")),
    ];
    for (field, only) in neutral {
        let number = |value: &Value| value.as_f64();
        let differs = |value: &&Value| **value != only && (number(value).is_none() || number(value) != number(&only));
        if let Some(value) = f.value(field).filter(differs) {
            return Err(f.unsupported(field, &value.to_string(), &only.to_string()));
        }
    }
    if f.value("logit_scale").is_some() {
        return Err(f.unsupported("logit_scale", "scaled logits", "null"));
    }
    let (n_layers, head_dim) = (f.size("n_layers", 1 << 12)?, hidden / n_heads);
    Ok(Architecture {
        max_positions: f.optional_size("max_seq_len", 1 << 28)?.unwrap_or(2048),
        norm: NormKind::LayerNoBias,
        norm_eps: f.positive("layer_norm_epsilon")?.unwrap_or(1e-5),
        positions: Positions::Alibi(Alibi { max_bias: 8.0 }),
        attention_scale: f.positive("attn_config.softmax_scale")?.unwrap_or(1.0 / (head_dim as f32).sqrt()),
        clip_qkv: f.positive("attn_config.clip_qkv")?,
        activation: Activation::Gelu,
        gated: false,
        tied_head: f.flag("tie_word_embeddings", true)?,
        names: &names::MPT,
        ..Architecture::llama(
            f.size("vocab_size", 1 << 24)?,
            hidden,
            n_layers,
            [n_heads, n_heads, head_dim],
            4 * hidden,
        )
    })
}
