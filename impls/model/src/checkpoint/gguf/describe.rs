//! The metadata that say in GGUF what an [`Architecture`] is.

use super::vocabulary::Vocabulary;
use super::write::WriteError;
use crate::RopeTable;
use crate::architecture::{Activation, Architecture, Rope, RopeScaling};

/// A metadata value to be written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Entry {
    U32(u32),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    F32s(Vec<f32>),
    I32s(Vec<i32>),
}

/// `model_type` of a config.json and what GGUF calls it.
const KINDS: &[(&str, &str)] = &[
    ("llama", "llama"),
    ("mistral", "llama"),
    ("mixtral", "llama"),
    ("qwen2", "qwen2"),
    ("qwen3", "qwen3"),
    ("qwen3_moe", "qwen3moe"),
    ("gemma", "gemma"),
    ("gemma2", "gemma2"),
    ("gpt2", "gpt2"),
    ("phi", "phi2"),
    ("phi3", "phi3"),
    ("gpt_neox", "gptneox"),
    ("starcoder2", "starcoder2"),
    ("olmo2", "olmo2"),
    ("granite", "granite"),
    ("stablelm", "stablelm"),
];

/// What GGUF calls the family of `a`.
pub(super) fn kind(a: &Architecture) -> Result<&'static str, WriteError> {
    KINDS.iter().find(|(family, _)| *family == a.family).map(|(_, kind)| *kind).ok_or_else(|| {
        let known: Vec<&str> = KINDS.iter().map(|(family, _)| *family).collect();
        WriteError::Inexpressible(format!("the family `{}` (written: {})", a.family, known.join(", ")))
    })
}

/// Refuses what the format or llama.cpp has no word for.
fn refuse(a: &Architecture, kind: &str) -> Result<(), WriteError> {
    let windows = a.windows.iter().any(Option::is_some) && !matches!(kind, "gemma2" | "phi3");
    let gemma_scale = kind == "gemma2"
        && a.attention_scale != 1.0 / (if a.n_layers == 46 { a.hidden / a.n_heads } else { a.head_dim } as f32).sqrt();
    let sparse = a.experts.as_ref().is_some_and(|e| e.layers.contains(&false));
    let dynamic = matches!(a.rope().map(|rope| &rope.scaling), Some(RopeScaling::Dynamic { .. }));
    let untruncated = matches!(a.rope().map(|rope| &rope.scaling), Some(RopeScaling::Yarn { truncate: false, .. }));
    let activation = match kind {
        "gemma" | "gemma2" | "gpt2" | "phi2" | "starcoder2" => Activation::GeluTanh,
        "gptneox" => Activation::Gelu,
        _ => Activation::Silu,
    };
    let usual_scale = 1.0 / (a.head_dim as f32).sqrt();
    let unbiased = matches!(kind, "gemma" | "gemma2" | "olmo2" | "qwen3" | "qwen3moe");
    let cases = [
        (a.activation != activation, "another activation than the family's own"),
        (
            a.attention_scale != usual_scale && !matches!(kind, "gemma2" | "granite"),
            "scores scaled otherwise than by head width",
        ),
        (a.biases.qkv && unbiased, "biases on queries, keys and values in this family"),
        (!a.biases.qkv && kind == "gptneox", "attention without biases in this family"),
        (a.qk_norm.is_some() && kind == "phi2", "norms of queries and keys in this family"),
        (kind == "gemma2" && (a.attention_softcap.is_none() || a.logit_softcap.is_none()), "Gemma 2 without soft caps"),
        (untruncated, "YaRN with truncate = false"),
        (windows, "sliding windows, which llama.cpp ignores in this family"),
        (gemma_scale, "a query_pre_attn_scalar other than the head width"),
        (a.scale_by_layer, "scores scaled by layer"),
        (a.latent.is_some() || a.shared_keys.is_some(), "latent or collaborative attention"),
        (sparse, "dense layers among sparse ones"),
        (dynamic, "dynamic rotary scaling"),
    ];
    match cases.iter().find(|(found, _)| *found) {
        Some((_, what)) => Err(WriteError::Inexpressible((*what).into())),
        None => Ok(()),
    }
}

/// Keys and values for `a`, called `name`, most of its values in the type that ggml numbers `file_type`.
pub(super) fn metadata(
    a: &Architecture,
    vocabulary: Option<&Vocabulary>,
    name: &str,
    file_type: u32,
) -> Result<Vec<(String, Entry)>, WriteError> {
    let kind = kind(a)?;
    refuse(a, kind)?;
    let mut list = List { kind, entries: vec![] };
    list.whole("general.architecture", Entry::Text(kind.into()));
    list.whole("general.type", Entry::Text("model".into()));
    list.whole("general.name", Entry::Text(name.into()));
    list.whole("general.file_type", Entry::U32(file_type));
    list.whole("general.quantization_version", Entry::U32(2));
    list.size("vocab_size", a.vocab_size);
    list.size("context_length", a.max_positions);
    list.size("embedding_length", a.hidden);
    list.size("block_count", a.n_layers);
    list.size("feed_forward_length", a.ffn);
    list.size("attention.head_count", a.n_heads);
    list.size("attention.head_count_kv", a.n_kv_heads);
    list.size("attention.key_length", a.head_dim);
    list.size("attention.value_length", a.head_dim);
    let layer_norm = matches!(kind, "gpt2" | "phi2" | "gptneox" | "starcoder2" | "stablelm");
    list.add(
        if layer_norm { "attention.layer_norm_epsilon" } else { "attention.layer_norm_rms_epsilon" },
        Entry::F32(a.norm_eps),
    );
    if let Some(rope) = a.rope() {
        list.rope(rope);
    }
    if let Some(experts) = &a.experts {
        list.size("expert_count", experts.n);
        list.size("expert_used_count", experts.top_k);
        list.size("expert_feed_forward_length", experts.ffn);
    }
    list.family(a);
    list.tokenizer(vocabulary);
    Ok(list.entries)
}

struct List {
    kind: &'static str,
    entries: Vec<(String, Entry)>,
}

impl List {
    fn whole(&mut self, key: &str, entry: Entry) {
        self.entries.push((key.into(), entry));
    }

    fn add(&mut self, key: &str, entry: Entry) {
        self.entries.push((format!("{}.{key}", self.kind), entry));
    }

    fn size(&mut self, key: &str, size: usize) {
        self.add(key, Entry::U32(size as u32));
    }

    fn rope(&mut self, rope: &Rope) {
        self.size("rope.dimension_count", rope.dim);
        self.add("rope.freq_base", Entry::F32(rope.theta));
        let kind = "rope.scaling.type";
        match &rope.scaling {
            RopeScaling::Linear { factor } => {
                self.add(kind, Entry::Text("linear".into()));
                self.add("rope.scaling.factor", Entry::F32(*factor));
            }
            RopeScaling::Yarn { factor, beta_fast, beta_slow, original_max_positions, .. } => {
                self.add(kind, Entry::Text("yarn".into()));
                self.add("rope.scaling.factor", Entry::F32(*factor));
                self.size("rope.scaling.original_context_length", *original_max_positions as usize);
                self.add("rope.scaling.yarn_beta_fast", Entry::F32(*beta_fast));
                self.add("rope.scaling.yarn_beta_slow", Entry::F32(*beta_slow));
                let usual = 0.1 * factor.ln() + 1.0;
                if rope.attention_factor != usual {
                    self.add("rope.scaling.attn_factor", Entry::F32(rope.attention_factor / usual));
                }
            }
            RopeScaling::LongRope { short, long, original_max_positions } if short != long => {
                self.size("rope.scaling.original_context_length", *original_max_positions as usize);
                self.add("rope.scaling.attn_factor", Entry::F32(rope.attention_factor));
            }
            // a tensor of divisors says all
            RopeScaling::Llama3 { .. } | RopeScaling::LongRope { .. } => {}
            RopeScaling::None | RopeScaling::Dynamic { .. } => {}
        }
    }

    fn family(&mut self, a: &Architecture) {
        match self.kind {
            "gemma2" => {
                let caps =
                    [("attn_logit_softcapping", a.attention_softcap), ("final_logit_softcapping", a.logit_softcap)];
                caps.into_iter().for_each(|(key, cap)| self.add(key, Entry::F32(cap.unwrap_or(0.0))));
                self.window(a);
            }
            "phi3" => self.window(a),
            "granite" => {
                self.add("attention.scale", Entry::F32(a.attention_scale));
                self.add("embedding_scale", Entry::F32(a.embedding_scale));
                self.add("residual_scale", Entry::F32(a.residual_scale));
                self.add("logit_scale", Entry::F32(1.0 / a.logit_scale));
            }
            "gptneox" | "stablelm" => {
                let parallel = a.residual != crate::architecture::Residual::Serial;
                self.add("use_parallel_residual", Entry::Bool(parallel));
            }
            _ => {}
        }
    }

    fn window(&mut self, a: &Architecture) {
        if let Some(window) = a.windows.iter().flatten().next() {
            self.size("attention.sliding_window", *window);
        }
    }

    fn tokenizer(&mut self, vocabulary: Option<&Vocabulary>) {
        let Some(v) = vocabulary else {
            self.whole("tokenizer.ggml.model", Entry::Text("none".into()));
            return;
        };
        self.whole("tokenizer.ggml.model", Entry::Text(v.model.clone()));
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        if let Some(pre) = &v.pre {
            self.whole(&key("pre"), Entry::Text(pre.clone()));
        }
        if !v.tokens.is_empty() {
            self.whole(&key("tokens"), Entry::Texts(v.tokens.clone()));
        }
        if !v.kinds.is_empty() {
            self.whole(&key("token_type"), Entry::I32s(v.kinds.iter().map(|kind| kind.number()).collect()));
        }
        if !v.scores.is_empty() {
            self.whole(&key("scores"), Entry::F32s(v.scores.clone()));
        }
        if !v.merges.is_empty() {
            self.whole(&key("merges"), Entry::Texts(v.merges.clone()));
        }
        for (name, id) in [("bos_token_id", v.bos), ("eos_token_id", v.eos), ("unknown_token_id", v.unknown)] {
            if let Some(id) = id {
                self.whole(&key(name), Entry::U32(id));
            }
        }
        let flags =
            [("add_bos_token", v.add_bos), ("add_eos_token", v.add_eos), ("add_space_prefix", v.add_space_prefix)];
        for (name, flag) in flags {
            if let Some(flag) = flag {
                self.whole(&key(name), Entry::Bool(flag));
            }
        }
        if let Some(json) = &v.json {
            self.whole("tokenizer.huggingface.json", Entry::Text(json.clone()));
        }
    }
}

/// Divisors of the rotary frequencies that are tensors in the file.
pub(super) fn divisors(a: &Architecture) -> Vec<(&'static str, Vec<f32>)> {
    match a.rope().map(|rope| (rope, &rope.scaling)) {
        Some((_, RopeScaling::LongRope { short, long, .. })) if short != long => {
            vec![("rope_factors_long.weight", long.clone()), ("rope_factors_short.weight", short.clone())]
        }
        Some((_, RopeScaling::LongRope { short, .. })) => vec![("rope_freqs.weight", short.clone())],
        Some((rope, RopeScaling::Llama3 { .. })) => vec![("rope_freqs.weight", RopeTable::new(rope).divisors())],
        _ => vec![],
    }
}
