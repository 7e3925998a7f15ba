//! GPT-2 and what took over its field names: GPT-BigCode, GPT-J, CodeGen.

use super::activation;
use crate::architecture::fields::{ConfigError, Fields};
use crate::architecture::{Architecture, Biases, NormKind, Positions, Residual, Rope, RopeScaling};
use crate::names;

pub(super) fn gpt2(f: &Fields) -> Result<Architecture, ConfigError> {
    let a = gpt(f, "gelu_new")?;
    // the others have no such field: where it is set, it is refused as unread
    let scale_by_layer = f.flag("scale_attn_by_inverse_layer_idx", false)?;
    Ok(Architecture { scale_by_layer, names: &names::GPT2, ..a })
}

/// One key/value head for all queries, or one for each.
pub(super) fn gpt_bigcode(f: &Fields) -> Result<Architecture, ConfigError> {
    let a = gpt(f, "gelu_pytorch_tanh")?;
    let (n_kv_heads, names) = match f.flag("multi_query", true)? {
        true => (1, &names::GPT_BIGCODE),
        false => (a.n_heads, &names::GPT_BIGCODE_HEADS),
    };
    Ok(Architecture { n_kv_heads, names, ..a })
}

fn gpt(f: &Fields, default_activation: &str) -> Result<Architecture, ConfigError> {
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
        activation: activation(f, "activation_function", default_activation)?,
        gated: false,
        biases: Biases { qkv: true, out: true, mlp: true, head: false },
        tied_head: f.flag("tie_word_embeddings", true)?,
        ..Architecture::llama(f.size("vocab_size", 1 << 24)?, hidden, f.size("n_layer", 1 << 12)?, heads, ffn)
    })
}

/// Interleaved pairs in the leading features of a head, one norm for both sublayers, a bias on the head.
pub(super) fn gptj(f: &Fields) -> Result<Architecture, ConfigError> {
    let a = gpt(f, "gelu_new")?;
    let most = a.head_dim;
    let dim = if f.has("rotary_dim") { f.size("rotary_dim", most)? } else { 64 };
    if dim % 2 != 0 || dim > most {
        return Err(f.wrong("rotary_dim", &format!("an even number of features up to the head's {most}")));
    }
    let scaling = RopeScaling::None;
    let rope = Rope { theta: 10000.0, dim, interleaved: true, attention_factor: 1.0, scaling };
    Ok(Architecture {
        max_positions: f.optional_size("n_positions", 1 << 28)?.unwrap_or(2048),
        positions: Positions::Rope(rope),
        residual: Residual::Parallel { shared_norm: true },
        attention_scale: 1.0 / (a.head_dim as f32).sqrt(),
        biases: Biases { qkv: false, out: false, mlp: true, head: true },
        tied_head: f.flag("tie_word_embeddings", false)?,
        names: &names::GPTJ,
        ..a
    })
}

pub(super) fn codegen(f: &Fields) -> Result<Architecture, ConfigError> {
    let a = gptj(f)?;
    if a.n_heads % 4 != 0 {
        return Err(f.wrong("n_head", "a multiple of 4, as the stored projections are divided"));
    }
    Ok(Architecture { names: &names::CODEGEN, ..a })
}
