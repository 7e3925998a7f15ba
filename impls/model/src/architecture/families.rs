//! The families: for each `model_type`, what its configuration class means. Defaults are those of Hugging Face
//! transformers, because a saved config leaves out what equals them.

mod alibi;
mod deepseek;
mod gpt;
mod layer_norm;
mod layered;
mod sparse;
mod variants;

use serde_json::Value;

use super::fields::{ConfigError, Fields};
use super::rope::{self, RopeDefaults};
use super::{Activation, Architecture, Biases, NormKind, Positions, QkNorm, QkNormScope};
use crate::names;
use alibi::{bloom, mpt};
use deepseek::{deepseek_v2, deepseek_v3};
use gpt::{codegen, gpt_bigcode, gpt2, gptj};
use layer_norm::{falcon, gpt_neox, nemotron, olmo, opt, phi};
use layered::{cohere2, exaone4, gemma3, olmo3, smollm3};
use sparse::{mixtral, olmoe, qwen2_moe, qwen3_moe};
use variants::{arcee, cohere, ernie4_5, gemma, gemma2, glm, glm4, helium, olmo2, seed_oss, stablelm, starcoder2};

type Read = fn(&Fields) -> Result<Architecture, ConfigError>;

pub(super) const FAMILIES: &[(&str, Read)] = &[
    ("arcee", arcee),
    ("bloom", bloom),
    ("codegen", codegen),
    ("cohere", cohere),
    ("cohere2", cohere2),
    ("deepseek_v2", deepseek_v2),
    ("deepseek_v3", deepseek_v3),
    ("ernie4_5", ernie4_5),
    ("exaone4", exaone4),
    ("falcon", falcon),
    ("gemma", gemma),
    ("gemma2", gemma2),
    ("gemma3_text", gemma3),
    ("glm", glm),
    ("glm4", glm4),
    ("gpt2", gpt2),
    ("gpt_bigcode", gpt_bigcode),
    ("gpt_neox", gpt_neox),
    ("gptj", gptj),
    ("granite", granite),
    ("helium", helium),
    ("llama", llama),
    ("mistral", mistral),
    ("mixtral", mixtral),
    ("mpt", mpt),
    ("nemotron", nemotron),
    ("olmo", olmo),
    ("olmo2", |f| olmo2(f, RopeDefaults::default())),
    ("olmo3", olmo3),
    ("olmoe", olmoe),
    ("opt", opt),
    ("phi", phi),
    ("phi3", phi3),
    ("qwen2", qwen2),
    ("qwen2_moe", qwen2_moe),
    ("qwen3", qwen3),
    ("qwen3_moe", qwen3_moe),
    ("seed_oss", seed_oss),
    ("smollm3", smollm3),
    ("stablelm", stablelm),
    ("starcoder2", starcoder2),
];

pub(super) fn read(f: &Fields) -> Result<Architecture, ConfigError> {
    let family = f.text("model_type")?.ok_or_else(|| f.wrong("model_type", "a family name such as \"llama\""))?;
    let Some((_, read)) = FAMILIES.iter().find(|(name, _)| *name == family) else {
        let known: Vec<&str> = FAMILIES.iter().map(|(name, _)| *name).collect();
        return Err(f.unsupported("model_type", &format!("\"{family}\""), &known.join(", ")));
    };
    // how weights are stored is no part of the architecture: `checkpoint::quantized` reads or refuses it
    f.value("quantization_config");
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
        "gelu" | "gelu_python" => Activation::Gelu,
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" | "gelu_python_tanh" | "gelu_accurate" => Activation::GeluTanh,
        "quick_gelu" => Activation::QuickGelu,
        "relu" => Activation::Relu,
        "relu2" => Activation::ReluSquared,
        other => {
            let known = "silu, gelu, gelu_new, gelu_pytorch_tanh, gelu_fast, quick_gelu, relu, relu2";
            return Err(f.unsupported(field, &format!("\"{other}\""), known));
        }
    })
}

/// Sizes that the Llama-like families write under the same names.
fn base(f: &Fields, d: Defaults) -> Result<Architecture, ConfigError> {
    let (hidden, n_heads) = (f.size("hidden_size", 1 << 17)?, f.size("num_attention_heads", 1 << 12)?);
    // absent means the class default, null means as many as query heads
    let default_kv = d.kv_heads.filter(|_| !f.has("num_key_value_heads")).unwrap_or(n_heads);
    let n_kv_heads = f.optional_size("num_key_value_heads", 1 << 12)?.unwrap_or(default_kv);
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
    Ok(Architecture { biases: llama_biases(f)?, ..base(f, Defaults::default())? })
}

fn llama_biases(f: &Fields) -> Result<Biases, ConfigError> {
    let bias = f.flag("attention_bias", false)?;
    Ok(Biases { qkv: bias, out: bias, mlp: f.flag("mlp_bias", false)?, head: false })
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

fn phi3(f: &Fields) -> Result<Architecture, ConfigError> {
    let rope = RopeDefaults { share: Some(1.0), ..RopeDefaults::default() };
    let a = base(f, Defaults { max_positions: 4096, eps: 1e-5, rope, ..Defaults::default() })?;
    let window = sliding(f)?;
    Ok(Architecture { windows: windows(f, a.n_layers, window, |_| true)?, names: &names::PHI3, ..a })
}
