//! Mixtures of experts: Mixtral, OLMoE, Qwen2-MoE, Qwen3-MoE.

use serde_json::Value;

use super::{Defaults, base, qwen_windows, sliding, windows};
use crate::architecture::fields::{ConfigError, Fields};
use crate::architecture::rope::RopeDefaults;
use crate::architecture::{Architecture, Biases, Experts, NormKind, QkNorm, QkNormScope};
use crate::names;

pub(super) fn mixtral(f: &Fields) -> Result<Architecture, ConfigError> {
    let rope = RopeDefaults { theta: 1e6, ..RopeDefaults::default() };
    let a = base(f, Defaults { kv_heads: Some(8), max_positions: 131_072, eps: 1e-5, rope, ..Defaults::default() })?;
    let n = f.optional_size("num_local_experts", 1 << 16)?.unwrap_or(8);
    let top_k = top_k(f, n, 2)?;
    let layers = vec![true; a.n_layers];
    let experts = Experts { renormalise: true, ..Experts::new(n, top_k, a.ffn, layers) };
    let window = sliding(f)?;
    Ok(Architecture {
        experts: Some(experts),
        windows: windows(f, a.n_layers, window, |_| true)?,
        names: &names::MIXTRAL,
        ..a
    })
}

/// Experts per token, of `n`.
fn top_k(f: &Fields, n: usize, default: usize) -> Result<usize, ConfigError> {
    let top_k = f.optional_size("num_experts_per_tok", n)?.unwrap_or(default);
    if top_k > n {
        return Err(f.wrong("num_experts_per_tok", &format!("at most the {n} experts there are")));
    }
    Ok(top_k)
}

/// Which layers of a Qwen MoE are sparse.
fn qwen_sparse(f: &Fields, n_layers: usize) -> Result<Vec<bool>, ConfigError> {
    let step = f.optional_size("decoder_sparse_step", 1 << 12)?.unwrap_or(1);
    let dense = f.numbers("mlp_only_layers")?.unwrap_or_default();
    Ok((0..n_layers).map(|layer| !dense.contains(&(layer as f32)) && (layer + 1).is_multiple_of(step)).collect())
}

pub(super) fn qwen2_moe(f: &Fields) -> Result<Architecture, ConfigError> {
    let a = base(f, Defaults { kv_heads: Some(16), max_positions: 32_768, ..Defaults::default() })?;
    let n = f.optional_size("num_experts", 1 << 16)?.unwrap_or(60);
    let ffn = f.optional_size("moe_intermediate_size", 1 << 20)?.unwrap_or(1408);
    let shared = f.optional_size("shared_expert_intermediate_size", 1 << 20)?.unwrap_or(5632);
    let (top_k, renormalise) = (top_k(f, n, 4)?, f.flag("norm_topk_prob", false)?);
    let layers = qwen_sparse(f, a.n_layers)?;
    let experts = Experts { renormalise, shared_ffn: Some(shared), ..Experts::new(n, top_k, ffn, layers) };
    Ok(Architecture {
        biases: Biases { qkv: f.flag("qkv_bias", true)?, ..Biases::default() },
        windows: qwen_windows(f, a.n_layers, |layer, first| layer % 2 == 0 && layer < first)?,
        experts: Some(experts),
        names: &names::QWEN_MOE,
        ..a
    })
}

pub(super) fn olmoe(f: &Fields) -> Result<Architecture, ConfigError> {
    let a = base(f, Defaults { max_positions: 4096, eps: 1e-5, ..Defaults::default() })?;
    let n = f.optional_size("num_experts", 1 << 16)?.unwrap_or(64);
    let (top_k, renormalise) = (top_k(f, n, 8)?, f.flag("norm_topk_prob", false)?);
    let layers = vec![true; a.n_layers];
    let bias = f.flag("attention_bias", false)?;
    Ok(Architecture {
        biases: Biases { qkv: bias, out: bias, ..Biases::default() },
        qk_norm: Some(QkNorm { kind: NormKind::Rms, scope: QkNormScope::Row }),
        clip_qkv: f.positive("clip_qkv")?,
        experts: Some(Experts { renormalise, ..Experts::new(n, top_k, a.ffn, layers) }),
        names: &names::QWEN_MOE,
        ..a
    })
}

pub(super) fn qwen3_moe(f: &Fields) -> Result<Architecture, ConfigError> {
    let a = base(f, Defaults { kv_heads: Some(4), max_positions: 32_768, ..Defaults::default() })?;
    let n = f.optional_size(f.first(&["num_experts", "num_local_experts"]), 1 << 16)?.unwrap_or(128);
    let ffn = f.optional_size("moe_intermediate_size", 1 << 20)?.unwrap_or(768);
    let (top_k, renormalise) = (top_k(f, n, 8)?, f.flag("norm_topk_prob", false)?);
    let experts = Experts { renormalise, ..Experts::new(n, top_k, ffn, qwen_sparse(f, a.n_layers)?) };
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
