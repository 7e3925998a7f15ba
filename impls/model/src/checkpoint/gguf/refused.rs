//! What the format, or llama.cpp, has no word for: refused before anything is written.

use super::write::WriteError;
use crate::architecture::{Activation, Architecture, QkNormScope, Residual, Rope, RopeScaling};

/// The activation that llama.cpp computes in models of `kind`.
fn activation(kind: &str) -> Activation {
    match kind {
        "gemma" | "gemma2" | "gemma3" | "gpt2" | "phi2" | "starcoder" | "starcoder2" | "bloom" | "gptj" => {
            Activation::GeluTanh
        }
        "gptneox" | "falcon" | "mpt" => Activation::Gelu,
        "nemotron" | "arcee" => Activation::ReluSquared,
        _ => Activation::Silu,
    }
}

/// 1 / √ of the width that llama.cpp divides scores by where the format has no key for it.
fn usual_scale(a: &Architecture, kind: &str) -> Option<f32> {
    let by_hidden = kind == "gemma2" && a.n_layers == 46 || kind == "gemma3" && a.n_layers == 62;
    let width = if by_hidden { a.hidden / a.n_heads } else { a.key_dim() } as f32;
    match (kind, a.rope().map(|rope| &rope.scaling)) {
        ("granite", _) => None,
        // a key says by how much it grows with the stretch
        ("deepseek2", Some(RopeScaling::Yarn { .. })) => None,
        _ => Some(1.0 / width.sqrt()),
    }
}

/// A rotation that llama.cpp computes otherwise, or not at all.
fn rotation(a: &Architecture, kind: &str) -> Option<&'static str> {
    let plain = |rope: &Rope| rope.scaling == RopeScaling::None && rope.attention_factor == 1.0;
    if a.window_rope.as_ref().is_some_and(|rope| !plain(rope)) {
        return Some("rescaled rotation in layers with a window");
    }
    if kind == "gptj" && a.rope().is_some_and(|rope| rope.theta != 10000.0 || !plain(rope)) {
        return Some("another rotation than the family's own");
    }
    if kind == "smollm3" && a.rotated.iter().enumerate().any(|(layer, rotated)| *rotated == ((layer + 1) % 4 == 0)) {
        return Some("other layers without rotation than every fourth");
    }
    let windowed = kind == "exaone4" && a.windows.iter().all(Option::is_none);
    if windowed && a.rotated.contains(&false) {
        return Some("layers without rotation and without windows");
    }
    match a.rope().map(|rope| &rope.scaling) {
        Some(RopeScaling::Dynamic { .. }) => Some("dynamic rotary scaling"),
        Some(RopeScaling::Yarn { truncate: false, .. }) => Some("YaRN with truncate = false"),
        Some(RopeScaling::Yarn { .. })
            if kind == "deepseek2" && a.rope().is_some_and(|r| r.attention_factor != 1.0) =>
        {
            Some("YaRN with weights that differ")
        }
        Some(RopeScaling::Llama3 { .. }) if !DIVISORS.contains(&kind) => {
            Some("Llama 3's rotation, which llama.cpp ignores in this family")
        }
        _ => None,
    }
}

/// Kinds in which llama.cpp reads a tensor of rotary divisors.
const DIVISORS: &[&str] = &["llama", "arcee", "exaone4", "granite", "phi3"];
/// Kinds in which llama.cpp knows no bias on queries, keys and values.
const UNBIASED: &[&str] = &["gemma", "gemma2", "gemma3", "olmo2", "qwen3", "qwen3moe", "deepseek2"];
/// Kinds in which llama.cpp knows a bias on the attention's output, and on the feed-forward.
const OUT_BIASED: &[&str] =
    &["bloom", "ernie4_5", "gpt2", "gptneox", "granite", "llama", "nemotron", "phi2", "starcoder", "starcoder2"];
const MLP_BIASED: &[&str] =
    &["bloom", "gpt2", "gptj", "gptneox", "granite", "llama", "nemotron", "phi2", "starcoder", "starcoder2"];
/// Kinds in which llama.cpp takes the embedding for the head whatever the file holds.
const ALWAYS_TIED: &[&str] = &["command-r", "cohere2", "gemma", "gemma2"];

/// Refuses what cannot be written as a model of `kind`.
pub(super) fn refuse(a: &Architecture, kind: &str) -> Result<(), WriteError> {
    let slides = a.windows.iter().any(Option::is_some);
    let windows = slides && !matches!(kind, "gemma2" | "gemma3" | "phi3" | "cohere2" | "olmo2" | "exaone4");
    let sparse = kind != "deepseek2" && a.experts.as_ref().is_some_and(|e| e.layers.contains(&false));
    let late =
        kind == "deepseek2" && a.experts.as_ref().is_some_and(|e| e.layers.windows(2).any(|pair| pair[0] && !pair[1]));
    let normalised = a.experts.as_ref().is_some_and(|e| {
        let always = matches!(kind, "llama" | "qwen3moe");
        kind != "deepseek2" && e.renormalise != always
    });
    let scaled = usual_scale(a, kind).is_some_and(|usual| a.attention_scale != usual);
    let no_shared = kind == "qwen2moe" && a.experts.as_ref().is_some_and(|e| e.shared_ffn.is_none());
    let cases = [
        (a.activation != activation(kind), "another activation than the family's own"),
        (scaled, "scores scaled otherwise than by head width"),
        (a.biases.qkv && UNBIASED.contains(&kind), "biases on queries, keys and values in this family"),
        (a.biases.out && !OUT_BIASED.contains(&kind), "a bias on the attention's output in this family"),
        (a.biases.mlp && !MLP_BIASED.contains(&kind), "biases on the feed-forward in this family"),
        (!a.biases.qkv && matches!(kind, "gptneox" | "qwen2"), "attention without biases in this family"),
        (a.qk_norm.is_some() && matches!(kind, "phi2" | "llama"), "norms of queries and keys in this family"),
        (
            matches!(kind, "exaone4" | "gemma3") && a.qk_norm.is_none_or(|norm| norm.scope != QkNormScope::Head),
            "queries and keys without norms in this family",
        ),
        (kind == "gemma2" && (a.attention_softcap.is_none() || a.logit_softcap.is_none()), "Gemma 2 without soft caps"),
        (
            kind == "falcon" && a.residual == Residual::Serial,
            "attention and feed-forward one after the other in this family",
        ),
        (a.clip_qkv.is_some() && !matches!(kind, "mpt" | "olmo"), "clipped queries, keys and values in this family"),
        (kind == "starcoder" && a.n_kv_heads != 1, "more than one key/value head in this family"),
        (
            !a.tied_head && ALWAYS_TIED.contains(&kind),
            "a head of its own, which llama.cpp does not read in this family",
        ),
        (windows, "sliding windows, which llama.cpp ignores in this family"),
        (a.scale_by_layer, "scores scaled by layer"),
        (a.shared_keys.is_some(), "collaborative attention"),
        (a.online_hadamard, "rotations of activations"),
        (a.latent.is_some() && kind != "deepseek2", "latent attention in this family"),
        (sparse || late, "dense layers among sparse ones"),
        (normalised, "weights of experts normalised otherwise than in llama.cpp"),
        (no_shared, "experts without a shared one in this family"),
    ];
    let found = cases.iter().find(|(found, _)| *found).map(|(_, what)| *what);
    match found.or_else(|| rotation(a, kind)) {
        Some(what) => Err(WriteError::Inexpressible(what.into())),
        None => Ok(()),
    }
}
