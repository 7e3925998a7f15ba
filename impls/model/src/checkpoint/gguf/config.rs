//! The metadata of a GGUF file as the `config.json` that its model had.

use serde_json::{Map, Value, json};

use super::header::Header;
use super::words;
use crate::architecture::Architecture;
use crate::checkpoint::{Bytes, CheckpointError};

/// What is read, by its name in GGUF.
const KINDS: &[&str] = &[
    "llama",
    "arcee",
    "bloom",
    "chatglm",
    "cohere2",
    "command-r",
    "deepseek2",
    "ernie4_5",
    "exaone4",
    "falcon",
    "gemma",
    "gemma2",
    "gemma3",
    "glm4",
    "gpt2",
    "gptj",
    "gptneox",
    "granite",
    "mpt",
    "nemotron",
    "olmo",
    "olmo2",
    "olmoe",
    "phi2",
    "phi3",
    "qwen2",
    "qwen2moe",
    "qwen3",
    "qwen3moe",
    "seed_oss",
    "smollm3",
    "stablelm",
    "starcoder",
    "starcoder2",
];

/// Keys that change what a model computes and that only some kinds compute, with the value that changes nothing.
const NEUTRAL: &[(&str, f64, &[&str])] = &[
    ("attention.clamp_kqv", 0.0, &["mpt", "olmo"]),
    ("attention.max_alibi_bias", 0.0, &["mpt"]),
    ("attention.causal", 1.0, &[]),
    ("attention.scale", 0.0, &["granite"]),
    ("attention.temperature_scale", 0.0, &[]),
    ("attn_logit_softcapping", 0.0, &["gemma2"]),
    ("embedding_scale", 1.0, &["granite"]),
    ("expert_gating_func", 1.0, &["deepseek2"]),
    ("expert_group_count", 0.0, &["deepseek2"]),
    ("expert_shared_count", 0.0, &["deepseek2"]),
    ("expert_weights_norm", 0.0, &["deepseek2", "qwen3moe"]),
    ("expert_weights_scale", 1.0, &["deepseek2"]),
    ("final_logit_softcapping", 0.0, &["gemma2", "gemma3"]),
    ("leading_dense_block_count", 0.0, &["deepseek2"]),
    ("logit_scale", 1.0, &["granite", "command-r", "cohere2"]),
    ("nextn_predict_layers", 0.0, &[]),
    ("residual_scale", 1.0, &["granite"]),
    ("router_logit_softcapping", 0.0, &[]),
    ("swin_norm", 0.0, &[]),
];

/// Keys below `attention.` that are read, repeat others, or change nothing that is computed.
const KNOWN_OF_ATTENTION: &[&str] = &[
    "causal",
    "clamp_kqv",
    "head_count",
    "head_count_kv",
    "key_length",
    "key_length_mla",
    "kv_lora_rank",
    "layer_norm_epsilon",
    "layer_norm_rms_epsilon",
    "max_alibi_bias",
    "q_lora_rank",
    "scale",
    "sliding_window",
    "sliding_window_pattern",
    "temperature_length",
    "temperature_scale",
    "value_length",
    "value_length_mla",
];

/// The kind of model a file says it holds.
pub(super) fn kind(header: &Header) -> Result<String, CheckpointError> {
    let key = "general.architecture";
    let kind = header.metadata.text(key)?.ok_or_else(|| header.metadata.wrong(key, "the name of an architecture"))?;
    if KINDS.contains(&kind) {
        return Ok(kind.into());
    }
    Err(header.metadata.wrong(key, &format!("a supported architecture ({})", KINDS.join(", "))))
}

/// Reads what the metadata say about the model of `kind`; beside it the config.json that says the same.
pub(super) fn architecture(
    header: &Header,
    parts: &[Bytes],
    kind: &str,
) -> Result<(Architecture, String), CheckpointError> {
    let reader = Reader { header, parts, kind };
    reader.refuse_unknown()?;
    let sizes = reader.sizes()?;
    let mut config = Map::new();
    let family = reader.family(&sizes, &mut config)?;
    config.insert("model_type".into(), family.into());
    let text = Value::Object(config).to_string();
    let a = Architecture::from_json(header.metadata.file(), &text)
        .map_err(|error| words::in_words_of_the_file(&header.metadata, kind, error))?;
    Ok((a, text))
}

/// Sizes that every family has.
pub(super) struct Sizes {
    pub(super) layers: usize,
    pub(super) hidden: u64,
    pub(super) ffn: u64,
    pub(super) heads: u64,
    pub(super) kv_heads: u64,
    pub(super) head_dim: u64,
    pub(super) vocab: usize,
    pub(super) context: u64,
    /// Features that are rotated where each head has others beside them.
    pub(super) rotated: Option<u64>,
    tied: bool,
}

impl Sizes {
    /// Features of a head that a rotation may cover.
    pub(super) fn rope_dim(&self) -> u64 {
        self.rotated.unwrap_or(self.head_dim)
    }
}

/// The header of a file that holds a model of `kind`.
pub(super) struct Reader<'a> {
    pub(super) header: &'a Header,
    pub(super) parts: &'a [Bytes],
    pub(super) kind: &'a str,
}

impl Reader<'_> {
    pub(super) fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.kind)
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<f64>, CheckpointError> {
        self.header.metadata.number(&self.key(name))
    }

    pub(super) fn whole(&self, name: &str) -> Result<Option<u64>, CheckpointError> {
        self.header.metadata.whole(&self.key(name))
    }

    pub(super) fn need(&self, name: &str) -> Result<u64, CheckpointError> {
        self.whole(name)?
            .filter(|n| (1..1 << 32).contains(n))
            .ok_or_else(|| self.header.metadata.wrong(&self.key(name), "a positive whole number"))
    }

    fn in_layers(&self, name: &str, layers: usize) -> Result<Option<u64>, CheckpointError> {
        self.header.metadata.per_layer(&self.parts[0], &self.key(name), layers)
    }

    pub(super) fn has(&self, tensor: &str) -> bool {
        self.header.tensor(tensor).is_some()
    }

    fn refuse_unknown(&self) -> Result<(), CheckpointError> {
        let metadata = &self.header.metadata;
        for (name, neutral, kinds) in NEUTRAL {
            let key = self.key(name);
            if kinds.contains(&self.kind) {
                continue;
            }
            let value = match metadata.flag(&key) {
                Ok(flag) => flag.map(|flag| f64::from(u8::from(flag))),
                Err(_) => metadata.number(&key).unwrap_or(Some(f64::NAN)),
            };
            if value
                .is_some_and(|value| value != *neutral && value != 0.0 || *name == "attention.causal" && value == 0.0)
            {
                return Err(metadata.wrong(&key, &format!("absent or {neutral} (anything else is not supported)")));
            }
        }
        self.refuse_unread_below("attention.", KNOWN_OF_ATTENTION)
    }

    /// Refuses keys that begin with `prefix` and are not among `known`: nobody reads them.
    pub(super) fn refuse_unread_below(&self, prefix: &str, known: &[&str]) -> Result<(), CheckpointError> {
        let prefix = self.key(prefix);
        let unread = |key: &&String| key.strip_prefix(&prefix).is_some_and(|rest| !known.contains(&rest));
        match self.header.metadata.values.keys().filter(unread).min() {
            Some(key) => Err(self.header.metadata.wrong(key, "no such key: what it changes is not computed here")),
            None => Ok(()),
        }
    }

    fn sizes(&self) -> Result<Sizes, CheckpointError> {
        let metadata = &self.header.metadata;
        let layers = self.need("block_count")? as usize;
        if layers > self.header.tensors.len() {
            let most = format!("at most as many layers as tensors, {}", self.header.tensors.len());
            return Err(metadata.wrong(&self.key("block_count"), &most));
        }
        let hidden = self.need("embedding_length")?;
        let heads_key = "attention.head_count";
        let heads = self.in_layers(heads_key, layers)?.filter(|n| (1..1 << 12).contains(n));
        let heads = heads.ok_or_else(|| metadata.wrong(&self.key(heads_key), "a number of heads"))?;
        let latent = self.kind == "deepseek2";
        let head_dim = match self.whole("attention.key_length")?.filter(|_| !latent) {
            Some(dim) => dim,
            None => hidden / heads,
        };
        if !latent && self.whole("attention.value_length")?.is_some_and(|dim| dim != head_dim) {
            let expected = format!("the key length {head_dim} (others are not supported)");
            return Err(metadata.wrong(&self.key("attention.value_length"), &expected));
        }
        let embedding = self.header.tensor("token_embd.weight").filter(|place| place.shape.len() == 2);
        let embedding = embedding.ok_or_else(|| CheckpointError::MissingTensor {
            file: metadata.file().into(),
            name: "token_embd.weight".into(),
        })?;
        Ok(Sizes {
            layers,
            hidden,
            ffn: self.in_layers("feed_forward_length", layers)?.unwrap_or(4 * hidden),
            heads,
            kv_heads: self.in_layers("attention.head_count_kv", layers)?.unwrap_or(heads),
            head_dim,
            vocab: embedding.shape[0],
            context: self.need("context_length")?,
            rotated: if latent { Some(self.need("rope.dimension_count")?) } else { None },
            tied: !self.has("output.weight"),
        })
    }

    /// Fills `config`; gives back its `model_type`.
    fn family(&self, s: &Sizes, config: &mut Map<String, Value>) -> Result<&'static str, CheckpointError> {
        let mut set = |name: &str, value: Value| drop(config.insert(name.into(), value));
        set("vocab_size", json!(s.vocab));
        set("tie_word_embeddings", json!(s.tied));
        if matches!(self.kind, "gpt2" | "gptj" | "starcoder" | "bloom" | "mpt") {
            return self.gpt(s, &mut set);
        }
        self.common(s, &mut set)?;
        self.particular(s, &mut set)
    }

    /// What most families write under the same names.
    fn common(&self, s: &Sizes, set: &mut dyn FnMut(&str, Value)) -> Result<(), CheckpointError> {
        set("hidden_size", json!(s.hidden));
        set("intermediate_size", json!(s.ffn));
        set("num_hidden_layers", json!(s.layers));
        set("num_attention_heads", json!(s.heads));
        set("num_key_value_heads", json!(s.kv_heads));
        set("head_dim", json!(s.head_dim));
        set("max_position_embeddings", json!(s.context));
        set("rope_parameters", self.rope(s)?);
        let experts = self.whole("expert_count")?.filter(|n| *n > 0);
        if let (Some(n), Some(used)) = (experts, self.whole("expert_used_count")?) {
            let field = match self.kind {
                "llama" => "num_local_experts",
                "deepseek2" => "n_routed_experts",
                _ => "num_experts",
            };
            set(field, json!(n));
            set("num_experts_per_tok", json!(used));
        }
        let (rms, layer) = ("layer_norm_rms_epsilon", "layer_norm_epsilon");
        let (eps_field, eps_key) = match self.kind {
            "stablelm" | "gptneox" | "phi2" | "command-r" | "cohere2" => ("layer_norm_eps", layer),
            "nemotron" => ("norm_eps", layer),
            // it has no field: the family's own
            "olmo" => return self.only("attention.layer_norm_epsilon", 1e-5),
            "falcon" => ("layer_norm_epsilon", layer),
            "starcoder2" => ("norm_epsilon", layer),
            _ => ("rms_norm_eps", rms),
        };
        set(eps_field, self.epsilon(eps_key)?);
        Ok(())
    }

    /// Refuses the key unless it is absent or says `value`, to f32.
    pub(super) fn only(&self, name: &str, value: f64) -> Result<(), CheckpointError> {
        match self.number(name)? {
            Some(found) if found as f32 != value as f32 => Err(self
                .header
                .metadata
                .wrong(&self.key(name), &format!("absent or {value} (anything else is not supported)"))),
            _ => Ok(()),
        }
    }

    pub(super) fn epsilon(&self, name: &str) -> Result<Value, CheckpointError> {
        let key = format!("attention.{name}");
        let eps = self.number(&key)?.filter(|eps| *eps > 0.0);
        eps.map(|eps| json!(eps)).ok_or_else(|| self.header.metadata.wrong(&self.key(&key), "a positive number"))
    }
}
