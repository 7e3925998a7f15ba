//! The metadata that say in GGUF what an [`Architecture`] is.

use super::refused;
use super::vocabulary::{MORE_ENDS, TEMPLATE, Vocabulary};
use super::write::WriteError;
use crate::RopeTable;
use crate::architecture::{Architecture, Experts, Latent, Rope, RopeScaling, Scoring};

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
    Bools(Vec<bool>),
}

/// `model_type` of a config.json and what GGUF calls it.
const KINDS: &[(&str, &str)] = &[
    ("arcee", "arcee"),
    ("bloom", "bloom"),
    ("cohere", "command-r"),
    ("cohere2", "cohere2"),
    ("deepseek_v2", "deepseek2"),
    ("deepseek_v3", "deepseek2"),
    ("ernie4_5", "ernie4_5"),
    ("exaone4", "exaone4"),
    ("falcon", "falcon"),
    ("gemma", "gemma"),
    ("gemma2", "gemma2"),
    ("gemma3_text", "gemma3"),
    ("glm", "chatglm"),
    ("glm4", "glm4"),
    ("gpt2", "gpt2"),
    ("gpt_bigcode", "starcoder"),
    ("gpt_neox", "gptneox"),
    ("gptj", "gptj"),
    ("granite", "granite"),
    ("llama", "llama"),
    ("mistral", "llama"),
    ("mixtral", "llama"),
    ("mpt", "mpt"),
    ("nemotron", "nemotron"),
    ("olmo", "olmo"),
    ("olmo2", "olmo2"),
    ("olmo3", "olmo2"),
    ("olmoe", "olmoe"),
    ("phi", "phi2"),
    ("phi3", "phi3"),
    ("qwen2", "qwen2"),
    ("qwen2_moe", "qwen2moe"),
    ("qwen3", "qwen3"),
    ("qwen3_moe", "qwen3moe"),
    ("seed_oss", "seed_oss"),
    ("smollm3", "smollm3"),
    ("stablelm", "stablelm"),
    ("starcoder2", "starcoder2"),
];

/// What GGUF calls the family of `a`.
pub(super) fn kind(a: &Architecture) -> Result<&'static str, WriteError> {
    KINDS.iter().find(|(family, _)| *family == a.family).map(|(_, kind)| *kind).ok_or_else(|| {
        let known: Vec<&str> = KINDS.iter().map(|(family, _)| *family).collect();
        WriteError::Inexpressible(format!(
            "the family `{}`, for which llama.cpp has no architecture (written: {})",
            a.family,
            known.join(", ")
        ))
    })
}

/// Keys and values for `a`, called `name`, most of its values in the type that ggml numbers `file_type`.
pub(super) fn metadata(
    a: &Architecture,
    vocabulary: Option<&Vocabulary>,
    name: &str,
    file_type: u32,
) -> Result<Vec<(String, Entry)>, WriteError> {
    let kind = kind(a)?;
    refused::refuse(a, kind)?;
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
    match a.latent {
        Some(latent) => list.latent(a, latent),
        None => {
            list.size("attention.head_count_kv", a.n_kv_heads);
            list.size("attention.key_length", a.head_dim);
            list.size("attention.value_length", a.head_dim);
        }
    }
    list.add(
        if a.norm.is_layer() { "attention.layer_norm_epsilon" } else { "attention.layer_norm_rms_epsilon" },
        Entry::F32(a.norm_eps),
    );
    if let Some(rope) = a.rope() {
        list.rope(rope);
    }
    if let Some(experts) = &a.experts {
        list.experts(experts);
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
                if rope.attention_factor != usual && self.kind != "deepseek2" {
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

    /// Keys and values stay compressed: one head of the compressed width and of what rotates.
    fn latent(&mut self, a: &Architecture, l: Latent) {
        self.size("attention.head_count_kv", 1);
        self.size("attention.key_length", l.kv_rank + l.rope_dim);
        self.size("attention.value_length", l.kv_rank);
        self.size("attention.key_length_mla", l.nope_dim + l.rope_dim);
        self.size("attention.value_length_mla", l.value_dim);
        self.size("attention.kv_lora_rank", l.kv_rank);
        if let Some(rank) = l.q_rank {
            self.size("attention.q_lora_rank", rank);
        }
        let dense = a.experts.as_ref().map_or(a.n_layers, |experts| experts.layers.iter().filter(|s| !**s).count());
        self.size("leading_dense_block_count", dense);
        if a.experts.is_none() {
            // llama.cpp asks for them whether or not a layer has experts
            self.size("expert_feed_forward_length", a.ffn);
            self.size("expert_shared_count", 0);
        }
        if let Some(Rope { scaling: RopeScaling::Yarn { factor, .. }, .. }) = a.rope() {
            let usual = 1.0 / ((l.nope_dim + l.rope_dim) as f32).sqrt();
            let weight = ((a.attention_scale / usual).sqrt() - 1.0) / factor.ln();
            self.add("rope.scaling.yarn_log_multiplier", Entry::F32(weight));
        }
    }

    fn experts(&mut self, experts: &Experts) {
        self.size("expert_count", experts.n);
        self.size("expert_used_count", experts.top_k);
        if !matches!(self.kind, "llama" | "olmoe") {
            self.size("expert_feed_forward_length", experts.ffn);
        }
        if self.kind == "qwen2moe" {
            self.size("expert_shared_feed_forward_length", experts.shared_ffn.unwrap_or(0));
        }
        if self.kind == "deepseek2" {
            self.size("expert_shared_count", experts.shared_ffn.unwrap_or(0) / experts.ffn.max(1));
            self.add("expert_weights_scale", Entry::F32(experts.scale));
            self.add("expert_weights_norm", Entry::Bool(experts.renormalise));
            self.add("expert_gating_func", Entry::U32(if experts.scoring == Scoring::Softmax { 1 } else { 2 }));
            if let Some(groups) = experts.groups {
                self.size("expert_group_count", groups.n);
                self.size("expert_group_used_count", groups.top);
            }
        }
    }

    fn family(&mut self, a: &Architecture) {
        match self.kind {
            "gemma3" => {
                if let Some(cap) = a.logit_softcap {
                    self.add("final_logit_softcapping", Entry::F32(cap));
                }
                self.pattern(a, 6);
            }
            "cohere2" => {
                self.add("logit_scale", Entry::F32(a.logit_scale));
                self.pattern(a, 4);
            }
            "command-r" => self.add("logit_scale", Entry::F32(a.logit_scale)),
            "olmo2" | "exaone4" => self.pattern(a, 4),
            "mpt" => {
                self.add("attention.max_alibi_bias", Entry::F32(8.0));
                self.clip(a);
            }
            "olmo" => self.clip(a),
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

    /// The window, which layers have it where they are not all but every `usual`-th, and the base of their rotation.
    fn pattern(&mut self, a: &Architecture, usual: usize) {
        self.window(a);
        let slides: Vec<bool> = a.windows.iter().map(Option::is_some).collect();
        if slides.contains(&true)
            && slides.iter().enumerate().any(|(layer, slides)| *slides == ((layer + 1) % usual == 0))
        {
            self.add("attention.sliding_window_pattern", Entry::Bools(slides));
        }
        if let Some(rope) = &a.window_rope {
            self.add("rope.freq_base_swa", Entry::F32(rope.theta));
        }
    }

    fn clip(&mut self, a: &Architecture) {
        if let Some(clip) = a.clip_qkv {
            self.add("attention.clamp_kqv", Entry::F32(clip));
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
        let ids = [
            ("bos_token_id", v.bos),
            ("eos_token_id", v.eos),
            ("eot_token_id", v.eot),
            ("eom_token_id", v.eom),
            ("padding_token_id", v.padding),
            ("unknown_token_id", v.unknown),
        ];
        for (name, id) in ids {
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
        if !v.more_ends.is_empty() {
            self.whole(MORE_ENDS, Entry::I32s(v.more_ends.iter().map(|id| *id as i32).collect()));
        }
        for (name, text) in &v.chat_templates {
            let key = if name == "default" { TEMPLATE.to_string() } else { format!("{TEMPLATE}.{name}") };
            self.whole(&key, Entry::Text(text.clone()));
        }
        let named: Vec<String> =
            v.chat_templates.iter().map(|(name, _)| name.clone()).filter(|name| name != "default").collect();
        if !named.is_empty() {
            self.whole("tokenizer.chat_templates", Entry::Texts(named));
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
