//! Families that change one or two things about Llama: norms and caps (Gemma, OLMo 2, GLM 4), parallel residuals (StableLM,
//! Cohere), a plain MLP (StarCoder 2, Arcee), interleaved rotation (GLM, Helium, ERNIE).

use serde_json::Value;

use super::{Defaults, activation, base, llama_biases, sliding, windows};
use crate::architecture::fields::{ConfigError, Fields};
use crate::architecture::rope::RopeDefaults;
use crate::architecture::{Architecture, Biases, NormKind, NormPlace, QkNorm, QkNormScope, Residual};
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
    Ok(Architecture { qk_norm: f.flag("use_qk_norm", false)?.then_some(qk_norm), ..cohere_like(f, 500_000.0)? })
}

pub(super) fn cohere_like(f: &Fields, theta: f32) -> Result<Architecture, ConfigError> {
    let rope = RopeDefaults { theta, interleaved: true, ..RopeDefaults::default() };
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
