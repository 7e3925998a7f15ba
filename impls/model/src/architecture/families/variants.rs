//! Families that change one or two things about Llama: norms and caps (Gemma, OLMo 2, GLM 4), parallel residuals (StableLM,
//! Cohere), a plain MLP (StarCoder 2, Arcee), interleaved rotation (GLM, Helium, ERNIE), latent attention (DeepSeek-V2).

use serde_json::Value;

use super::{Defaults, activation, base, llama_biases, sliding, windows};
use crate::architecture::fields::{ConfigError, Fields};
use crate::architecture::rope::{self, RopeDefaults};
use crate::architecture::{
    Architecture, Biases, Latent, NormKind, NormPlace, Positions, QkNorm, QkNormScope, Residual, Rope, RopeScaling,
};
use crate::names;

pub(super) fn gemma(f: &Fields) -> Result<Architecture, ConfigError> {
    let head_dim = if f.has("head_dim") { None } else { Some(256) };
    let defaults = Defaults {
        kv_heads: Some(16),
        head_dim,
        max_positions: 8192,
        activation: "gelu_pytorch_tanh",
        tied: true,
        ..Defaults::default()
    };
    gemma_like(f, base(f, defaults)?)
}

pub(super) fn gemma_like(f: &Fields, a: Architecture) -> Result<Architecture, ConfigError> {
    if f.value("use_bidirectional_attention").is_some_and(|v| v != &Value::Bool(false)) {
        return Err(f.unsupported("use_bidirectional_attention", "attention to later tokens", "absent or false"));
    }
    let bias = f.flag("attention_bias", false)?;
    Ok(Architecture {
        norm: NormKind::RmsUnitOffset,
        embedding_scale: (a.hidden as f32).sqrt(),
        biases: Biases { qkv: bias, out: bias, ..Biases::default() },
        activation: match f.value("hidden_activation") {
            Some(_) => activation(f, "hidden_activation", "gelu_pytorch_tanh")?,
            None => a.activation,
        },
        ..a
    })
}

pub(super) fn gemma2(f: &Fields) -> Result<Architecture, ConfigError> {
    let head_dim = if f.has("head_dim") { None } else { Some(256) };
    let defaults = Defaults {
        kv_heads: Some(4),
        head_dim,
        max_positions: 8192,
        activation: "gelu_pytorch_tanh",
        tied: true,
        ..Defaults::default()
    };
    let a = gemma_like(f, base(f, defaults)?)?;
    let cap = |field: &str, default: f32| if f.has(field) { f.positive(field) } else { Ok(Some(default)) };
    let window = if f.has("sliding_window") { sliding(f)? } else { Some(4096) };
    Ok(Architecture {
        norm_place: NormPlace::Sandwich,
        attention_scale: 1.0 / f.positive("query_pre_attn_scalar")?.unwrap_or(256.0).sqrt(),
        attention_softcap: cap("attn_logit_softcapping", 50.0)?,
        logit_softcap: cap("final_logit_softcapping", 30.0)?,
        windows: windows(f, a.n_layers, window, |layer| layer % 2 == 0)?,
        names: &names::GEMMA2,
        ..a
    })
}

pub(super) fn stablelm(f: &Fields) -> Result<Architecture, ConfigError> {
    let rope = RopeDefaults { share: Some(0.25), ..RopeDefaults::default() };
    let defaults = Defaults {
        kv_heads: Some(32),
        max_positions: 4096,
        eps: 1e-5,
        eps_field: "layer_norm_eps",
        rope,
        ..Defaults::default()
    };
    let parallel = f.flag("use_parallel_residual", false)?;
    let qk_norm = QkNorm { kind: NormKind::LayerNoBias, scope: QkNormScope::EachHead };
    Ok(Architecture {
        norm: NormKind::Layer,
        residual: if parallel { Residual::Parallel { shared_norm: true } } else { Residual::Serial },
        qk_norm: f.flag("qk_layernorm", false)?.then_some(qk_norm),
        biases: Biases { qkv: f.flag("use_qkv_bias", false)?, ..Biases::default() },
        names: &names::STABLELM,
        ..base(f, defaults)?
    })
}

pub(super) fn olmo2(f: &Fields, rope: RopeDefaults) -> Result<Architecture, ConfigError> {
    let bias = f.flag("attention_bias", false)?;
    Ok(Architecture {
        norm_place: NormPlace::Output,
        qk_norm: Some(QkNorm { kind: NormKind::Rms, scope: QkNormScope::Row }),
        biases: Biases { qkv: bias, out: bias, ..Biases::default() },
        names: &names::OLMO2,
        ..base(f, Defaults { eps: 1e-5, rope, ..Defaults::default() })?
    })
}

pub(super) fn starcoder2(f: &Fields) -> Result<Architecture, ConfigError> {
    let defaults = Defaults {
        kv_heads: Some(2),
        max_positions: 4096,
        eps: 1e-5,
        eps_field: "norm_epsilon",
        activation: "gelu_pytorch_tanh",
        tied: true,
        ..Defaults::default()
    };
    let a = base(f, defaults)?;
    let (bias, window) = (f.flag("use_bias", true)?, sliding(f)?);
    Ok(Architecture {
        norm: NormKind::Layer,
        gated: false,
        biases: Biases { qkv: bias, out: bias, mlp: bias, head: false },
        windows: windows(f, a.n_layers, window, |_| true)?,
        names: &names::STARCODER2,
        ..a
    })
}

pub(super) fn cohere(f: &Fields) -> Result<Architecture, ConfigError> {
    let qk_norm = QkNorm { kind: NormKind::LayerNoBias, scope: QkNormScope::EachHead };
    Ok(Architecture { qk_norm: f.flag("use_qk_norm", false)?.then_some(qk_norm), ..cohere_like(f)? })
}

pub(super) fn cohere_like(f: &Fields) -> Result<Architecture, ConfigError> {
    let rope = RopeDefaults { theta: 500_000.0, interleaved: true, ..RopeDefaults::default() };
    let defaults = Defaults {
        max_positions: 8192,
        eps: 1e-5,
        eps_field: "layer_norm_eps",
        tied: true,
        rope,
        ..Defaults::default()
    };
    let bias = f.flag("attention_bias", false)?;
    Ok(Architecture {
        norm: NormKind::LayerNoBias,
        residual: Residual::Parallel { shared_norm: true },
        biases: Biases { qkv: bias, out: bias, ..Biases::default() },
        logit_scale: f.positive("logit_scale")?.unwrap_or(0.0625),
        ..base(f, defaults)?
    })
}

/// Dense DeepSeek-V2: latent attention without its mixture of experts.
pub(super) fn deepseek_v2(f: &Fields) -> Result<Architecture, ConfigError> {
    let rank = |field: &str, default: usize| Ok(f.optional_size(field, 1 << 16)?.unwrap_or(default));
    let rope_dim = rank("qk_rope_head_dim", 64)?;
    let nope_dim = rank("qk_nope_head_dim", 128)?;
    let rope = RopeDefaults { interleaved: true, ..RopeDefaults::default() };
    let mut a = base(f, Defaults { rope, ..Defaults::default() })?;
    a.positions = Positions::Rope(rope::read(f, rope_dim, a.max_positions, rope)?);
    let first_sparse = f.optional_size("first_k_dense_replace", 1 << 12).unwrap_or(None).unwrap_or(0);
    let routed = f.value("n_routed_experts").is_none_or(|n| n.as_u64() != Some(0));
    if routed && first_sparse < a.n_layers {
        let asked = "routed experts beside shared ones";
        return Err(f.unsupported(
            "n_routed_experts",
            asked,
            "dense layers (first_k_dense_replace = num_hidden_layers)",
        ));
    }
    let mut scale = 1.0 / ((nope_dim + rope_dim) as f32).sqrt();
    if let Some(Rope { scaling: RopeScaling::Yarn { factor, .. }, .. }) = a.rope() {
        let table = if f.has("rope_parameters") { "rope_parameters" } else { "rope_scaling" };
        if let Some(weight) = f.number(&format!("{table}.mscale_all_dim"))?.filter(|m| *m != 0.0 && *factor > 1.0) {
            scale *= (0.1 * weight * factor.ln() + 1.0).powi(2);
        }
    }
    let q_rank = if f.has("q_lora_rank") { f.optional_size("q_lora_rank", 1 << 16)? } else { Some(1536) };
    let latent =
        Latent { q_rank, kv_rank: rank("kv_lora_rank", 512)?, nope_dim, rope_dim, value_dim: rank("v_head_dim", 128)? };
    if a.n_kv_heads != a.n_heads {
        return Err(f.unsupported("num_key_value_heads", "fewer key heads than query heads", "num_attention_heads"));
    }
    let bias = f.flag("attention_bias", false)?;
    Ok(Architecture {
        attention_scale: scale,
        latent: Some(latent),
        biases: Biases { qkv: bias, out: bias, mlp: f.flag("mlp_bias", false)?, head: false },
        names: &names::DEEPSEEK_V2,
        ..a
    })
}

fn glm_rope() -> RopeDefaults {
    RopeDefaults { share: Some(0.5), interleaved: true, ..RopeDefaults::default() }
}

pub(super) fn glm(f: &Fields) -> Result<Architecture, ConfigError> {
    let defaults = Defaults {
        kv_heads: Some(2),
        head_dim: if f.has("head_dim") { None } else { Some(128) },
        max_positions: 131_072,
        eps: 1.5625e-7,
        rope: glm_rope(),
        ..Defaults::default()
    };
    Ok(Architecture {
        biases: Biases { qkv: f.flag("attention_bias", true)?, ..Biases::default() },
        names: &names::GLM,
        ..base(f, defaults)?
    })
}

pub(super) fn glm4(f: &Fields) -> Result<Architecture, ConfigError> {
    Ok(Architecture { norm_place: NormPlace::Sandwich, names: &names::GLM4, ..glm(f)? })
}

pub(super) fn helium(f: &Fields) -> Result<Architecture, ConfigError> {
    let defaults = Defaults {
        kv_heads: Some(20),
        head_dim: if f.has("head_dim") { None } else { Some(128) },
        max_positions: 4096,
        eps: 1e-8,
        rope: RopeDefaults { theta: 1e5, interleaved: true, ..RopeDefaults::default() },
        ..Defaults::default()
    };
    let qkv = f.flag("attention_bias", false)?;
    let biases = Biases { qkv, out: false, mlp: f.flag("mlp_bias", false)?, head: false };
    Ok(Architecture { biases, ..base(f, defaults)? })
}

pub(super) fn ernie4_5(f: &Fields) -> Result<Architecture, ConfigError> {
    let defaults = Defaults {
        kv_heads: Some(2),
        head_dim: if f.has("head_dim") { None } else { Some(128) },
        max_positions: 131_072,
        eps: 1e-5,
        tied: true,
        rope: RopeDefaults { theta: 5e5, interleaved: true, ..RopeDefaults::default() },
        ..Defaults::default()
    };
    let bias = f.flag("use_bias", false)?;
    let biases = Biases { qkv: bias, out: bias, mlp: bias, head: false };
    Ok(Architecture { biases, ..base(f, defaults)? })
}

pub(super) fn arcee(f: &Fields) -> Result<Architecture, ConfigError> {
    let defaults = Defaults { max_positions: 4096, eps: 1e-5, activation: "relu2", ..Defaults::default() };
    Ok(Architecture { gated: false, biases: llama_biases(f)?, names: &names::NEMOTRON, ..base(f, defaults)? })
}

pub(super) fn seed_oss(f: &Fields) -> Result<Architecture, ConfigError> {
    let defaults = Defaults {
        kv_heads: Some(8),
        head_dim: if f.has("head_dim") { None } else { Some(128) },
        max_positions: 524_288,
        ..Defaults::default()
    };
    let (qkv, out) = (f.flag("attention_bias", true)?, f.flag("attention_out_bias", false)?);
    let biases = Biases { qkv, out, mlp: f.flag("mlp_bias", false)?, head: false };
    Ok(Architecture { biases, ..base(f, defaults)? })
}
