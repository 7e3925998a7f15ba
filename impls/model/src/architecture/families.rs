//! The families: for each `model_type`, what its configuration class means. Defaults are those of Hugging Face
//! transformers, because a saved config leaves out what equals them.

use serde_json::Value;

use super::fields::{ConfigError, Fields};
use super::rope::{self, RopeDefaults};
use super::{
    Activation, Architecture, Biases, Experts, Latent, NormKind, NormPlace, Positions, QkNorm, QkNormScope, Residual,
    Rope, RopeScaling,
};
use crate::names;

type Read = fn(&Fields) -> Result<Architecture, ConfigError>;

pub(super) const FAMILIES: &[(&str, Read)] = &[
    ("cohere", cohere),
    ("deepseek_v2", deepseek_v2),
    ("falcon", falcon),
    ("gemma", gemma),
    ("gemma2", gemma2),
    ("gpt2", gpt2),
    ("gpt_neox", gpt_neox),
    ("granite", granite),
    ("llama", llama),
    ("mistral", mistral),
    ("mixtral", mixtral),
    ("olmo2", olmo2),
    ("opt", opt),
    ("phi", phi),
    ("phi3", phi3),
    ("qwen2", qwen2),
    ("qwen2_moe", qwen2_moe),
    ("qwen3", qwen3),
    ("qwen3_moe", qwen3_moe),
    ("stablelm", stablelm),
    ("starcoder2", starcoder2),
];

pub(super) fn read(f: &Fields) -> Result<Architecture, ConfigError> {
    let family = f.text("model_type")?.ok_or_else(|| f.wrong("model_type", "a family name such as \"llama\""))?;
    let Some((_, read)) = FAMILIES.iter().find(|(name, _)| *name == family) else {
        let known: Vec<&str> = FAMILIES.iter().map(|(name, _)| *name).collect();
        return Err(f.unsupported("model_type", &format!("\"{family}\""), &known.join(", ")));
    };
    if f.value("quantization_config").is_some() {
        let asked = "an already quantized checkpoint";
        return Err(f.unsupported("quantization_config", asked, "f32, f16 or bf16 weights"));
    }
    let architecture = Architecture { family, ..read(f)? };
    f.refuse_unread()?;
    Ok(architecture)
}

/// What Llama-like families say differently about the same fields.
struct Defaults {
    kv_heads: Option<usize>,
    head_dim: Option<usize>,
    max_positions: usize,
    eps: f32,
    eps_field: &'static str,
    activation: &'static str,
    tied: bool,
    rope: RopeDefaults,
}

impl Default for Defaults {
    fn default() -> Defaults {
        Defaults {
            kv_heads: None,
            head_dim: None,
            max_positions: 2048,
            eps: 1e-6,
            eps_field: "rms_norm_eps",
            activation: "silu",
            tied: false,
            rope: RopeDefaults::default(),
        }
    }
}

fn activation(f: &Fields, field: &str, default: &str) -> Result<Activation, ConfigError> {
    let name = f.text(field)?.unwrap_or(default.into());
    Ok(match name.as_str() {
        "silu" | "swish" => Activation::Silu,
        "gelu" => Activation::Gelu,
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Activation::GeluTanh,
        "relu" => Activation::Relu,
        other => {
            let known = "silu, gelu, gelu_new, gelu_pytorch_tanh, gelu_fast, relu";
            return Err(f.unsupported(field, &format!("\"{other}\""), known));
        }
    })
}

/// Sizes that the Llama-like families write under the same names.
fn base(f: &Fields, d: Defaults) -> Result<Architecture, ConfigError> {
    let (hidden, n_heads) = (f.size("hidden_size", 1 << 17)?, f.size("num_attention_heads", 1 << 12)?);
    let n_kv_heads = f.optional_size("num_key_value_heads", 1 << 12)?.or(d.kv_heads).unwrap_or(n_heads);
    let head_dim = match f.optional_size("head_dim", 1 << 12)?.or(d.head_dim) {
        Some(dim) => dim,
        None if hidden % n_heads == 0 => hidden / n_heads,
        None => {
            let expected = format!("a divisor of hidden_size {hidden}, or a head_dim");
            return Err(f.wrong("num_attention_heads", &expected));
        }
    };
    if n_heads % n_kv_heads != 0 {
        return Err(f.wrong("num_key_value_heads", &format!("a divisor of num_attention_heads {n_heads}")));
    }
    let n_layers = f.size("num_hidden_layers", 1 << 12)?;
    let ffn = f.size("intermediate_size", 1 << 20)?;
    let max_positions = f.optional_size("max_position_embeddings", 1 << 28)?.unwrap_or(d.max_positions);
    let positions = Positions::Rope(rope::read(f, head_dim, max_positions, d.rope)?);
    Ok(Architecture {
        max_positions,
        norm_eps: f.positive(d.eps_field)?.unwrap_or(d.eps),
        positions,
        activation: activation(f, "hidden_act", d.activation)?,
        tied_head: f.flag("tie_word_embeddings", d.tied)?,
        ..Architecture::llama(f.size("vocab_size", 1 << 24)?, hidden, n_layers, [n_heads, n_kv_heads, head_dim], ffn)
    })
}

/// One window for the layers that `slides` says slide, unless `layer_types` lists them.
fn windows(
    f: &Fields,
    n_layers: usize,
    window: Option<usize>,
    slides: impl Fn(usize) -> bool,
) -> Result<Vec<Option<usize>>, ConfigError> {
    let Some(kinds) = f.value("layer_types") else {
        return Ok((0..n_layers).map(|layer| window.filter(|_| slides(layer))).collect());
    };
    let expected = format!("{n_layers} of \"full_attention\" and \"sliding_attention\"");
    let kinds =
        kinds.as_array().filter(|kinds| kinds.len() == n_layers).ok_or_else(|| f.wrong("layer_types", &expected))?;
    let kind = |kind: &Value| match kind.as_str() {
        Some("full_attention") => Ok(None),
        Some("sliding_attention") => window.map(Some).ok_or_else(|| f.wrong("sliding_window", "a number of positions")),
        _ => Err(f.unsupported("layer_types", &kind.to_string(), &expected)),
    };
    kinds.iter().map(kind).collect()
}

fn sliding(f: &Fields) -> Result<Option<usize>, ConfigError> {
    match f.value("sliding_window").and_then(Value::as_u64) {
        Some(0) => Ok(None),
        _ => f.optional_size("sliding_window", 1 << 28),
    }
}

fn llama(f: &Fields) -> Result<Architecture, ConfigError> {
    let bias = f.flag("attention_bias", false)?;
    let biases = Biases { qkv: bias, out: bias, mlp: f.flag("mlp_bias", false)?, head: false };
    Ok(Architecture { biases, ..base(f, Defaults::default())? })
}

fn granite(f: &Fields) -> Result<Architecture, ConfigError> {
    let number = |field: &str| Ok(f.positive(field)?.unwrap_or(1.0));
    Ok(Architecture {
        attention_scale: number("attention_multiplier")?,
        embedding_scale: number("embedding_multiplier")?,
        residual_scale: number("residual_multiplier")?,
        logit_scale: 1.0 / number("logits_scaling")?,
        ..llama(f)?
    })
}

fn mistral(f: &Fields) -> Result<Architecture, ConfigError> {
    let a = base(f, Defaults { kv_heads: Some(8), max_positions: 131_072, ..Defaults::default() })?;
    // absent means the class default, null means none
    let window = if f.has("sliding_window") { sliding(f)? } else { Some(4096) };
    Ok(Architecture { windows: windows(f, a.n_layers, window, |_| true)?, ..a })
}

fn mixtral(f: &Fields) -> Result<Architecture, ConfigError> {
    let rope = RopeDefaults { theta: 1e6, ..RopeDefaults::default() };
    let a = base(f, Defaults { kv_heads: Some(8), max_positions: 131_072, eps: 1e-5, rope, ..Defaults::default() })?;
    let n = f.optional_size("num_local_experts", 1 << 16)?.unwrap_or(8);
    let experts = experts(f, &a, n, 2, a.ffn, true, None, |_| true)?;
    let window = sliding(f)?;
    Ok(Architecture {
        experts: Some(experts),
        windows: windows(f, a.n_layers, window, |_| true)?,
        names: &names::MIXTRAL,
        ..a
    })
}

fn qwen2(f: &Fields) -> Result<Architecture, ConfigError> {
    let a = base(f, Defaults { kv_heads: Some(32), max_positions: 32_768, ..Defaults::default() })?;
    Ok(Architecture {
        biases: Biases { qkv: true, ..Biases::default() },
        windows: qwen_windows(f, a.n_layers, |layer, first| layer >= first)?,
        ..a
    })
}

fn qwen_windows(
    f: &Fields,
    n_layers: usize,
    slides: impl Fn(usize, usize) -> bool,
) -> Result<Vec<Option<usize>>, ConfigError> {
    let first = match f.value("max_window_layers").and_then(Value::as_u64) {
        Some(0) => 0,
        _ => f.optional_size("max_window_layers", 1 << 12)?.unwrap_or(28),
    };
    let window = sliding(f)?.filter(|_| f.value("use_sliding_window").and_then(Value::as_bool) == Some(true));
    windows(f, n_layers, window, |layer| slides(layer, first))
}

fn qwen3(f: &Fields) -> Result<Architecture, ConfigError> {
    let head_dim = if f.has("head_dim") { None } else { Some(128) };
    let a = base(f, Defaults { kv_heads: Some(32), head_dim, max_positions: 32_768, ..Defaults::default() })?;
    let bias = f.flag("attention_bias", false)?;
    Ok(Architecture {
        biases: Biases { qkv: bias, out: bias, ..Biases::default() },
        qk_norm: Some(QkNorm { kind: NormKind::Rms, scope: QkNormScope::Head }),
        windows: qwen_windows(f, a.n_layers, |layer, first| layer >= first)?,
        ..a
    })
}

/// The sparse layers of a mixture of experts; `ffn` is the width inside an expert.
fn experts(
    f: &Fields,
    a: &Architecture,
    n: usize,
    top_k: usize,
    ffn: usize,
    renormalise: bool,
    shared_ffn: Option<usize>,
    sparse: impl Fn(usize) -> bool,
) -> Result<Experts, ConfigError> {
    let top_k = f.optional_size("num_experts_per_tok", n)?.unwrap_or(top_k);
    if top_k > n {
        return Err(f.wrong("num_experts_per_tok", &format!("at most the {n} experts there are")));
    }
    Ok(Experts { n, top_k, ffn, renormalise, shared_ffn, layers: (0..a.n_layers).map(sparse).collect() })
}

/// Which layers of a Qwen MoE are sparse.
fn qwen_sparse(f: &Fields) -> Result<impl Fn(usize) -> bool + use<>, ConfigError> {
    let step = f.optional_size("decoder_sparse_step", 1 << 12)?.unwrap_or(1);
    let dense = f.numbers("mlp_only_layers")?.unwrap_or_default();
    Ok(move |layer: usize| !dense.contains(&(layer as f32)) && (layer + 1).is_multiple_of(step))
}

fn qwen2_moe(f: &Fields) -> Result<Architecture, ConfigError> {
    let a = base(f, Defaults { kv_heads: Some(16), max_positions: 32_768, ..Defaults::default() })?;
    let n = f.optional_size("num_experts", 1 << 16)?.unwrap_or(60);
    let ffn = f.optional_size("moe_intermediate_size", 1 << 20)?.unwrap_or(1408);
    let shared = f.optional_size("shared_expert_intermediate_size", 1 << 20)?.unwrap_or(5632);
    let experts = experts(f, &a, n, 4, ffn, f.flag("norm_topk_prob", false)?, Some(shared), qwen_sparse(f)?)?;
    Ok(Architecture {
        biases: Biases { qkv: f.flag("qkv_bias", true)?, ..Biases::default() },
        windows: qwen_windows(f, a.n_layers, |layer, first| layer % 2 == 0 && layer < first)?,
        experts: Some(experts),
        names: &names::QWEN_MOE,
        ..a
    })
}

fn qwen3_moe(f: &Fields) -> Result<Architecture, ConfigError> {
    let a = base(f, Defaults { kv_heads: Some(4), max_positions: 32_768, ..Defaults::default() })?;
    let n = f.optional_size(f.first(&["num_experts", "num_local_experts"]), 1 << 16)?.unwrap_or(128);
    let ffn = f.optional_size("moe_intermediate_size", 1 << 20)?.unwrap_or(768);
    let experts = experts(f, &a, n, 8, ffn, f.flag("norm_topk_prob", false)?, None, qwen_sparse(f)?)?;
    let bias = f.flag("attention_bias", false)?;
    // this family slides in every layer or in none
    let window = sliding(f)?.filter(|_| f.value("use_sliding_window").and_then(Value::as_bool) == Some(true));
    Ok(Architecture {
        biases: Biases { qkv: bias, out: bias, ..Biases::default() },
        qk_norm: Some(QkNorm { kind: NormKind::Rms, scope: QkNormScope::Head }),
        windows: windows(f, a.n_layers, window, |_| true)?,
        experts: Some(experts),
        names: &names::QWEN_MOE,
        ..a
    })
}

fn gpt2(f: &Fields) -> Result<Architecture, ConfigError> {
    let (hidden, n_heads) = (f.size("n_embd", 1 << 17)?, f.size("n_head", 1 << 12)?);
    if hidden % n_heads != 0 {
        return Err(f.wrong("n_head", &format!("a divisor of n_embd {hidden}")));
    }
    let head_dim = hidden / n_heads;
    let ffn = f.optional_size("n_inner", 1 << 20)?.unwrap_or(4 * hidden);
    let scaled = f.flag("scale_attn_weights", true)?;
    let heads = [n_heads, n_heads, head_dim];
    Ok(Architecture {
        max_positions: f.optional_size("n_positions", 1 << 28)?.unwrap_or(1024),
        norm: NormKind::Layer,
        norm_eps: f.positive("layer_norm_epsilon")?.unwrap_or(1e-5),
        positions: Positions::Learned { offset: 0 },
        attention_scale: if scaled { 1.0 / (head_dim as f32).sqrt() } else { 1.0 },
        scale_by_layer: f.flag("scale_attn_by_inverse_layer_idx", false)?,
        activation: activation(f, "activation_function", "gelu_new")?,
        gated: false,
        biases: Biases { qkv: true, out: true, mlp: true, head: false },
        tied_head: f.flag("tie_word_embeddings", true)?,
        names: &names::GPT2,
        ..Architecture::llama(f.size("vocab_size", 1 << 24)?, hidden, f.size("n_layer", 1 << 12)?, heads, ffn)
    })
}

fn opt(f: &Fields) -> Result<Architecture, ConfigError> {
    let (hidden, n_heads) = (f.size("hidden_size", 1 << 17)?, f.size("num_attention_heads", 1 << 12)?);
    if hidden % n_heads != 0 {
        return Err(f.wrong("num_attention_heads", &format!("a divisor of hidden_size {hidden}")));
    }
    let (bias, before) = (f.flag("enable_bias", true)?, f.flag("do_layer_norm_before", true)?);
    let (n_layers, ffn) = (f.size("num_hidden_layers", 1 << 12)?, f.size("ffn_dim", 1 << 20)?);
    let heads = [n_heads, n_heads, hidden / n_heads];
    Ok(Architecture {
        embedding_dim: f.optional_size("word_embed_proj_dim", 1 << 17)?.unwrap_or(hidden),
        max_positions: f.optional_size("max_position_embeddings", 1 << 28)?.unwrap_or(2048),
        norm: NormKind::Layer,
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

fn gpt_neox(f: &Fields) -> Result<Architecture, ConfigError> {
    let rope = RopeDefaults { share: 0.25, ..RopeDefaults::default() };
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

fn falcon(f: &Fields) -> Result<Architecture, ConfigError> {
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

fn phi(f: &Fields) -> Result<Architecture, ConfigError> {
    let rope = RopeDefaults { share: 0.5, ..RopeDefaults::default() };
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

fn phi3(f: &Fields) -> Result<Architecture, ConfigError> {
    let a = base(f, Defaults { max_positions: 4096, eps: 1e-5, ..Defaults::default() })?;
    let window = sliding(f)?;
    Ok(Architecture { windows: windows(f, a.n_layers, window, |_| true)?, names: &names::PHI3, ..a })
}

fn gemma(f: &Fields) -> Result<Architecture, ConfigError> {
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

fn gemma_like(f: &Fields, a: Architecture) -> Result<Architecture, ConfigError> {
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

fn gemma2(f: &Fields) -> Result<Architecture, ConfigError> {
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

fn stablelm(f: &Fields) -> Result<Architecture, ConfigError> {
    let rope = RopeDefaults { share: 0.25, ..RopeDefaults::default() };
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

fn olmo2(f: &Fields) -> Result<Architecture, ConfigError> {
    let bias = f.flag("attention_bias", false)?;
    Ok(Architecture {
        norm_place: NormPlace::Output,
        qk_norm: Some(QkNorm { kind: NormKind::Rms, scope: QkNormScope::Row }),
        biases: Biases { qkv: bias, out: bias, ..Biases::default() },
        names: &names::OLMO2,
        ..base(f, Defaults { eps: 1e-5, ..Defaults::default() })?
    })
}

fn starcoder2(f: &Fields) -> Result<Architecture, ConfigError> {
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

fn cohere(f: &Fields) -> Result<Architecture, ConfigError> {
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
    let qk_norm = QkNorm { kind: NormKind::LayerNoBias, scope: QkNormScope::EachHead };
    Ok(Architecture {
        norm: NormKind::LayerNoBias,
        residual: Residual::Parallel { shared_norm: true },
        qk_norm: f.flag("use_qk_norm", false)?.then_some(qk_norm),
        biases: Biases { qkv: bias, out: bias, ..Biases::default() },
        logit_scale: f.positive("logit_scale")?.unwrap_or(0.0625),
        ..base(f, defaults)?
    })
}

/// Dense DeepSeek-V2: latent attention without its mixture of experts.
fn deepseek_v2(f: &Fields) -> Result<Architecture, ConfigError> {
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
