//! The metadata of a GGUF file as the `config.json` that its model had.

use serde_json::{Map, Value, json};

use super::header::Header;
use crate::architecture::Architecture;
use crate::checkpoint::{Bytes, CheckpointError};
use crate::names::{self, Names, QkvNames};

/// GPT-2 with matrices turned to `[out, in]`, as the converter leaves them.
const GPT2: Names = Names { transposed: false, ..names::GPT2 };
/// GPT-NeoX and Falcon with q, k and v one after the other instead of by head.
const GPT_NEOX: Names = Names { qkv: QkvNames::Stacked("attention.query_key_value"), ..names::GPT_NEOX };
const FALCON: Names = Names { qkv: QkvNames::Stacked("self_attention.query_key_value"), ..names::FALCON };
const FALCON_TWO_NORMS: Names =
    Names { qkv: QkvNames::Stacked("self_attention.query_key_value"), ..names::FALCON_TWO_NORMS };

/// What is read, by its name in GGUF.
const KINDS: &[&str] = &[
    "llama",
    "qwen2",
    "qwen3",
    "qwen2moe",
    "qwen3moe",
    "gemma",
    "gemma2",
    "gpt2",
    "phi2",
    "phi3",
    "gptneox",
    "falcon",
    "starcoder2",
    "stablelm",
    "olmo2",
    "granite",
    "command-r",
];

/// Keys that change what a model computes and that nothing here computes, with the value that changes nothing.
const NEUTRAL: &[(&str, f64)] = &[
    ("attention.clamp_kqv", 0.0),
    ("attention.max_alibi_bias", 0.0),
    ("attention.causal", 1.0),
    ("expert_shared_count", 0.0),
    ("expert_group_count", 0.0),
    ("expert_weights_scale", 1.0),
    ("nextn_predict_layers", 0.0),
    ("router_logit_softcapping", 0.0),
    ("attention.temperature_scale", 0.0),
    ("swin_norm", 0.0),
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

/// Reads what the metadata say about the model of `kind`.
pub(super) fn architecture(header: &Header, bytes: &Bytes, kind: &str) -> Result<Architecture, CheckpointError> {
    let reader = Reader { header, bytes, kind };
    reader.refuse_unknown()?;
    let sizes = reader.sizes()?;
    let mut config = Map::new();
    let family = reader.family(&sizes, &mut config)?;
    config.insert("model_type".into(), family.into());
    let text = Value::Object(config).to_string();
    let mut a = Architecture::from_json(header.metadata.file(), &text)?;
    match kind {
        "gpt2" => a.names = &GPT2,
        "gptneox" => a.names = &GPT_NEOX,
        "falcon" if a.names.norms[0] == "ln_attn" => a.names = &FALCON_TWO_NORMS,
        "falcon" => a.names = &FALCON,
        _ => {}
    }
    Ok(a)
}

/// Sizes that every family has.
pub(super) struct Sizes {
    pub(super) layers: usize,
    pub(super) hidden: u64,
    pub(super) ffn: u64,
    pub(super) heads: u64,
    pub(super) kv_heads: u64,
    pub(super) head_dim: u64,
    vocab: usize,
    context: u64,
    tied: bool,
}

/// The header of a file that holds a model of `kind`.
pub(super) struct Reader<'a> {
    pub(super) header: &'a Header,
    pub(super) bytes: &'a Bytes,
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

    fn need(&self, name: &str) -> Result<u64, CheckpointError> {
        self.whole(name)?
            .filter(|n| (1..1 << 32).contains(n))
            .ok_or_else(|| self.header.metadata.wrong(&self.key(name), "a positive whole number"))
    }

    fn in_layers(&self, name: &str, layers: usize) -> Result<Option<u64>, CheckpointError> {
        self.header.metadata.per_layer(self.bytes, &self.key(name), layers)
    }

    pub(super) fn has(&self, tensor: &str) -> bool {
        self.header.tensor(tensor).is_some()
    }

    fn refuse_unknown(&self) -> Result<(), CheckpointError> {
        let metadata = &self.header.metadata;
        for (name, neutral) in NEUTRAL {
            let key = self.key(name);
            let value = if *name == "attention.causal" {
                metadata.flag(&key)?.map(|causal| f64::from(u8::from(causal)))
            } else {
                metadata.number(&key).unwrap_or(Some(f64::NAN))
            };
            if value.is_some_and(|value| value != *neutral) {
                return Err(metadata.wrong(&key, &format!("absent or {neutral} (anything else is not supported)")));
            }
        }
        match metadata.whole("split.count")? {
            Some(2..) => Err(metadata.wrong("split.count", "one file (merge the parts with llama-gguf-split --merge)")),
            _ => Ok(()),
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
        let head_dim = match self.whole("attention.key_length")? {
            Some(dim) => dim,
            None => hidden / heads,
        };
        if self.whole("attention.value_length")?.is_some_and(|dim| dim != head_dim) {
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
            tied: !self.has("output.weight"),
        })
    }

    /// Fills `config`; gives back its `model_type`.
    fn family(&self, s: &Sizes, config: &mut Map<String, Value>) -> Result<&'static str, CheckpointError> {
        let mut set = |name: &str, value: Value| drop(config.insert(name.into(), value));
        set("vocab_size", json!(s.vocab));
        set("tie_word_embeddings", json!(s.tied));
        if self.kind == "gpt2" {
            set("n_embd", json!(s.hidden));
            set("n_head", json!(s.heads));
            set("n_layer", json!(s.layers));
            set("n_inner", json!(s.ffn));
            set("n_positions", json!(s.context));
            set("layer_norm_epsilon", self.epsilon("layer_norm_epsilon")?);
            return Ok("gpt2");
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
            set(if self.kind == "llama" { "num_local_experts" } else { "num_experts" }, json!(n));
            set("num_experts_per_tok", json!(used));
        }
        let (rms, layer) = ("layer_norm_rms_epsilon", "layer_norm_epsilon");
        let (eps_field, eps_key) = match self.kind {
            "stablelm" | "gptneox" | "phi2" | "command-r" => ("layer_norm_eps", layer),
            "falcon" => ("layer_norm_epsilon", layer),
            "starcoder2" => ("norm_epsilon", layer),
            _ => ("rms_norm_eps", rms),
        };
        set(eps_field, self.epsilon(eps_key)?);
        Ok(())
    }

    fn epsilon(&self, name: &str) -> Result<Value, CheckpointError> {
        let key = format!("attention.{name}");
        let eps = self.number(&key)?.filter(|eps| *eps > 0.0);
        eps.map(|eps| json!(eps)).ok_or_else(|| self.header.metadata.wrong(&self.key(&key), "a positive number"))
    }
}
