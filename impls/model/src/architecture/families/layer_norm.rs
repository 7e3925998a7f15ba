//! Families with layer norms: biases, learned positions or partial rotation, fused projections.

use super::{Defaults, activation, base};
use crate::architecture::fields::{ConfigError, Fields};
use crate::architecture::rope::{self, RopeDefaults};
use crate::architecture::{Architecture, Biases, NormKind, NormPlace, Positions, QkNorm, QkNormScope, Residual};
use crate::names;

pub(super) fn opt(f: &Fields) -> Result<Architecture, ConfigError> {
    let (hidden, n_heads) = (f.size("hidden_size", 1 << 17)?, f.size("num_attention_heads", 1 << 12)?);
    if hidden % n_heads != 0 {
        return Err(f.wrong("num_attention_heads", &format!("a divisor of hidden_size {hidden}")));
    }
    let (bias, before) = (f.flag("enable_bias", true)?, f.flag("do_layer_norm_before", true)?);
    let (n_layers, ffn) = (f.size("num_hidden_layers", 1 << 12)?, f.size("ffn_dim", 1 << 20)?);
    let heads = [n_heads, n_heads, hidden / n_heads];
    let affine = f.flag("layer_norm_elementwise_affine", true)?;
    Ok(Architecture {
        embedding_dim: f.optional_size("word_embed_proj_dim", 1 << 17)?.unwrap_or(hidden),
        max_positions: f.optional_size("max_position_embeddings", 1 << 28)?.unwrap_or(2048),
        norm: if affine { NormKind::Layer } else { NormKind::LayerBare },
        norm_place: if before { NormPlace::Pre } else { NormPlace::Post },
        final_norm: before && !f.flag("_remove_final_layer_norm", false)?,
        positions: Positions::Learned { offset: 2 },
        activation: activation(f, "activation_function", "relu")?,
        gated: false,
        biases: Biases { qkv: bias, out: bias, mlp: bias, head: false },
        tied_head: f.flag("tie_word_embeddings", true)?,
        names: &names::OPT,
        ..Architecture::llama(f.size("vocab_size", 1 << 24)?, hidden, n_layers, heads, ffn)
    })
}

pub(super) fn gpt_neox(f: &Fields) -> Result<Architecture, ConfigError> {
    let rope = RopeDefaults { share: Some(0.25), ..RopeDefaults::default() };
    let bias = f.flag("attention_bias", true)?;
    let parallel = f.flag("use_parallel_residual", true)?;
    Ok(Architecture {
        norm: NormKind::Layer,
        residual: if parallel { Residual::Parallel { shared_norm: false } } else { Residual::Serial },
        gated: false,
        biases: Biases { qkv: bias, out: bias, mlp: true, head: false },
        names: &names::GPT_NEOX,
        ..base(f, Defaults { eps: 1e-5, eps_field: "layer_norm_eps", activation: "gelu", rope, ..Defaults::default() })?
    })
}

pub(super) fn falcon(f: &Fields) -> Result<Architecture, ConfigError> {
    let (hidden, n_heads) = (
        f.size(f.first(&["hidden_size", "n_embed"]), 1 << 17)?,
        f.size(f.first(&["num_attention_heads", "n_head"]), 1 << 12)?,
    );
    if hidden % n_heads != 0 {
        return Err(f.wrong("num_attention_heads", &format!("a divisor of hidden_size {hidden}")));
    }
    let grouped = f.flag("new_decoder_architecture", false)?;
    let given_kv = f.optional_size(f.first(&["num_kv_heads", "n_head_kv"]), 1 << 12)?;
    let n_kv_heads = match (grouped, f.flag("multi_query", true)?) {
        (false, true) => 1,
        (true, _) => given_kv.unwrap_or(n_heads),
        (false, false) => n_heads,
    };
    if n_heads % n_kv_heads != 0 {
        return Err(f.wrong("num_kv_heads", &format!("a divisor of num_attention_heads {n_heads}")));
    }
    let (bias, head_dim) = (f.flag("bias", false)?, hidden / n_heads);
    let max_positions = f.optional_size("max_position_embeddings", 1 << 28)?.unwrap_or(2048);
    let parallel = f.flag("parallel_attn", true)? || grouped;
    let two_norms = grouped && f.optional_size("num_ln_in_parallel_attn", 2)?.unwrap_or(2) == 2;
    let n_layers = f.size(f.first(&["num_hidden_layers", "n_layer"]), 1 << 12)?;
    let ffn = f.optional_size("ffn_hidden_size", 1 << 20)?.unwrap_or(4 * hidden);
    Ok(Architecture {
        max_positions,
        norm: NormKind::Layer,
        norm_eps: f.positive("layer_norm_epsilon")?.unwrap_or(1e-5),
        residual: if parallel { Residual::Parallel { shared_norm: !two_norms } } else { Residual::Serial },
        positions: Positions::Rope(rope::read(f, head_dim, max_positions, RopeDefaults::default())?),
        activation: activation(f, "activation", "gelu")?,
        gated: false,
        biases: Biases { qkv: bias, out: bias, mlp: bias, head: false },
        tied_head: f.flag("tie_word_embeddings", true)?,
        names: if two_norms { &names::FALCON_TWO_NORMS } else { &names::FALCON },
        ..Architecture::llama(f.size("vocab_size", 1 << 24)?, hidden, n_layers, [n_heads, n_kv_heads, head_dim], ffn)
    })
}

pub(super) fn phi(f: &Fields) -> Result<Architecture, ConfigError> {
    let rope = RopeDefaults { share: Some(0.5), ..RopeDefaults::default() };
    let defaults =
        Defaults { eps: 1e-5, eps_field: "layer_norm_eps", activation: "gelu_new", rope, ..Defaults::default() };
    let qk_norm = QkNorm { kind: NormKind::Layer, scope: QkNormScope::Head };
    Ok(Architecture {
        norm: NormKind::Layer,
        residual: Residual::Parallel { shared_norm: true },
        qk_norm: f.flag("qk_layernorm", false)?.then_some(qk_norm),
        gated: false,
        biases: Biases { qkv: true, out: true, mlp: true, head: true },
        names: &names::PHI,
        ..base(f, defaults)?
    })
}

/// OLMo 1: Llama with layer norms that store nothing.
pub(super) fn olmo(f: &Fields) -> Result<Architecture, ConfigError> {
    let bias = f.flag("attention_bias", false)?;
    Ok(Architecture {
        norm: NormKind::LayerBare,
        norm_eps: 1e-5,
        clip_qkv: f.positive("clip_qkv")?,
        biases: Biases { qkv: bias, out: bias, ..Biases::default() },
        ..base(f, Defaults::default())?
    })
}

pub(super) fn nemotron(f: &Fields) -> Result<Architecture, ConfigError> {
    let rope = RopeDefaults { share: Some(0.5), ..RopeDefaults::default() };
    let defaults = Defaults {
        max_positions: 4096,
        eps: 1e-5,
        eps_field: "norm_eps",
        activation: "relu2",
        rope,
        ..Defaults::default()
    };
    let bias = f.flag("attention_bias", false)?;
    Ok(Architecture {
        norm: NormKind::LayerUnitOffset,
        gated: false,
        biases: Biases { qkv: bias, out: bias, mlp: f.flag("mlp_bias", false)?, head: false },
        names: &names::NEMOTRON,
        ..base(f, defaults)?
    })
}
