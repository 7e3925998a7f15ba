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

struct Sizes {
    layers: usize,
    hidden: u64,
    ffn: u64,
    heads: u64,
    kv_heads: u64,
    head_dim: u64,
    vocab: usize,
    context: u64,
    tied: bool,
}

struct Reader<'a> {
    header: &'a Header,
    bytes: &'a Bytes,
    kind: &'a str,
}

impl Reader<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.kind)
    }

    fn number(&self, name: &str) -> Result<Option<f64>, CheckpointError> {
        self.header.metadata.number(&self.key(name))
    }

    fn whole(&self, name: &str) -> Result<Option<u64>, CheckpointError> {
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

    fn has(&self, tensor: &str) -> bool {
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
        let biased = |part: &str| self.has(&format!("blk.0.{part}.bias"));
        let (rms, layer) = ("layer_norm_rms_epsilon", "layer_norm_epsilon");
        let (eps_field, eps_key) = match self.kind {
            "stablelm" | "gptneox" | "phi2" | "command-r" => ("layer_norm_eps", layer),
            "falcon" => ("layer_norm_epsilon", layer),
            "starcoder2" => ("norm_epsilon", layer),
            _ => ("rms_norm_eps", rms),
        };
        set(eps_field, self.epsilon(eps_key)?);
        let window = self.whole("attention.sliding_window")?.filter(|w| *w > 0);
        Ok(match self.kind {
            "llama" if experts.is_some() => {
                set("sliding_window", json!(window));
                "mixtral"
            }
            "llama" if window.is_some() => {
                set("sliding_window", json!(window));
                "mistral"
            }
            // q, k and v biased and the output not: what Qwen2 writes
            "llama" if biased("attn_q") && !biased("attn_output") => "qwen2",
            "llama" => {
                set("attention_bias", json!(biased("attn_q")));
                set("mlp_bias", json!(biased("ffn_down")));
                "llama"
            }
            "granite" => {
                set("attention_bias", json!(biased("attn_q")));
                self.granite(&mut set)?;
                "granite"
            }
            "qwen2" => "qwen2",
            "qwen3" => "qwen3",
            "qwen2moe" | "qwen3moe" => self.qwen_moe(&mut set)?,
            "gemma" => "gemma",
            "gemma2" => self.gemma2(s, window, &mut set)?,
            "phi2" => "phi",
            "phi3" => {
                set("sliding_window", json!(window));
                "phi3"
            }
            "gptneox" => {
                let parallel = self.header.metadata.flag(&self.key("use_parallel_residual"))?.unwrap_or(true);
                set("use_parallel_residual", json!(parallel));
                "gpt_neox"
            }
            "falcon" => {
                set("num_kv_heads", json!(s.kv_heads));
                set("multi_query", json!(s.kv_heads == 1));
                set("new_decoder_architecture", json!(self.has("blk.0.attn_norm_2.weight")));
                set("ffn_hidden_size", json!(s.ffn));
                set("bias", json!(biased("attn_output")));
                "falcon"
            }
            "starcoder2" => {
                set("use_bias", json!(biased("attn_q")));
                set("sliding_window", json!(window));
                "starcoder2"
            }
            "stablelm" => {
                let parallel = self.header.metadata.flag(&self.key("use_parallel_residual"))?.unwrap_or(false);
                set("use_parallel_residual", json!(parallel));
                set("use_qkv_bias", json!(biased("attn_q")));
                set("qk_layernorm", json!(self.has("blk.0.attn_q_norm.weight")));
                "stablelm"
            }
            "olmo2" => "olmo2",
            _ => {
                set("logit_scale", json!(self.number("logit_scale")?));
                set("use_qk_norm", json!(self.has("blk.0.attn_q_norm.weight")));
                "cohere"
            }
        })
    }

    fn epsilon(&self, name: &str) -> Result<Value, CheckpointError> {
        let key = format!("attention.{name}");
        let eps = self.number(&key)?.filter(|eps| *eps > 0.0);
        eps.map(|eps| json!(eps)).ok_or_else(|| self.header.metadata.wrong(&self.key(&key), "a positive number"))
    }

    fn granite(&self, set: &mut dyn FnMut(&str, Value)) -> Result<(), CheckpointError> {
        let fields = [
            ("attention_multiplier", "attention.scale"),
            ("embedding_multiplier", "embedding_scale"),
            ("residual_multiplier", "residual_scale"),
            ("logits_scaling", "logit_scale"),
        ];
        for (field, key) in fields {
            set(field, json!(self.number(key)?.filter(|scale| *scale != 0.0)));
        }
        Ok(())
    }

    fn qwen_moe(&self, set: &mut dyn FnMut(&str, Value)) -> Result<&'static str, CheckpointError> {
        set("moe_intermediate_size", json!(self.whole("expert_feed_forward_length")?));
        set("decoder_sparse_step", json!(1));
        if self.kind == "qwen3moe" {
            set("norm_topk_prob", json!(true));
            return Ok("qwen3_moe");
        }
        set("shared_expert_intermediate_size", json!(self.whole("expert_shared_feed_forward_length")?));
        set("norm_topk_prob", json!(false));
        Ok("qwen2_moe")
    }

    /// The format has no key for `query_pre_attn_scalar`: it is the head width, but for the model of 46 layers.
    fn gemma2(
        &self,
        s: &Sizes,
        window: Option<u64>,
        set: &mut dyn FnMut(&str, Value),
    ) -> Result<&'static str, CheckpointError> {
        set("query_pre_attn_scalar", json!(if s.layers == 46 { s.hidden / s.heads } else { s.head_dim }));
        for field in ["attn_logit_softcapping", "final_logit_softcapping"] {
            if let Some(cap) = self.number(field)? {
                set(field, json!(cap));
            }
        }
        if let Some(window) = window {
            set("sliding_window", json!(window));
        }
        Ok("gemma2")
    }

    /// The rotary part: base, share of a head, rescaling.
    fn rope(&self, s: &Sizes) -> Result<Value, CheckpointError> {
        let dim = self.whole("rope.dimension_count")?.unwrap_or(s.head_dim);
        let mut rope = json!({ "rope_theta": self.number("rope.freq_base")?.unwrap_or(10000.0) });
        if dim != s.head_dim || matches!(self.kind, "stablelm" | "gptneox" | "phi2") {
            rope["partial_rotary_factor"] = json!(dim as f64 / s.head_dim as f64);
        }
        let original = self.whole("rope.scaling.original_context_length")?;
        let magnitude = self.number("rope.scaling.attn_factor")?;
        if let Some(factors) = self.divisors("rope_freqs.weight", dim)? {
            // one divisor per pair whatever the length, as Llama 3 rescales
            rope["rope_type"] = json!("longrope");
            rope["short_factor"] = json!(factors);
            rope["long_factor"] = json!(factors);
            rope["attention_factor"] = json!(1.0);
            return Ok(rope);
        }
        let (short, long) =
            (self.divisors("rope_factors_short.weight", dim)?, self.divisors("rope_factors_long.weight", dim)?);
        if let (Some(short), Some(long)) = (short, long) {
            rope["rope_type"] = json!("longrope");
            rope["short_factor"] = json!(short);
            rope["long_factor"] = json!(long);
            rope["original_max_position_embeddings"] = json!(original);
            rope["attention_factor"] = json!(magnitude);
            return Ok(rope);
        }
        let key = "rope.scaling.type";
        let factor = self.number("rope.scaling.factor")?.filter(|factor| *factor != 0.0);
        match (self.header.metadata.text(&self.key(key))?, factor) {
            (None | Some("none") | Some("longrope"), _) | (Some("linear"), None | Some(1.0)) => {}
            (Some("linear"), Some(factor)) => {
                rope["rope_type"] = json!("linear");
                rope["factor"] = json!(factor);
            }
            (Some("yarn"), Some(factor)) => {
                rope["rope_type"] = json!("yarn");
                rope["factor"] = json!(factor);
                rope["original_max_position_embeddings"] = json!(original);
                for (field, key) in [("beta_fast", "yarn_beta_fast"), ("beta_slow", "yarn_beta_slow")] {
                    rope[field] = json!(self.number(&format!("rope.scaling.{key}"))?);
                }
                if self.number("rope.scaling.yarn_log_multiplier")?.is_some_and(|m| m != 0.0) {
                    let key = self.key("rope.scaling.yarn_log_multiplier");
                    return Err(self.header.metadata.wrong(&key, "absent (it is not supported)"));
                }
                if let Some(magnitude) = magnitude {
                    rope["attention_factor"] = json!(magnitude * (0.1 * factor.ln() + 1.0));
                }
            }
            _ => {
                return Err(self
                    .header
                    .metadata
                    .wrong(&self.key(key), "none, linear or yarn with a factor, or longrope"));
            }
        }
        Ok(rope)
    }

    /// A tensor of one divisor per rotary pair.
    fn divisors(&self, name: &str, dim: u64) -> Result<Option<Vec<f64>>, CheckpointError> {
        let Some(place) = self.header.tensor(name) else { return Ok(None) };
        let file = self.header.metadata.file();
        let values = place.bytes / place.block.bytes() * place.block.values();
        if values as u64 != dim / 2 {
            return Err(CheckpointError::Malformed {
                file: file.into(),
                problem: format!("tensor `{name}` holds {values} values; expected {}, one per rotary pair", dim / 2),
                advice: "convert the model to GGUF again",
            });
        }
        let mut divisors = vec![0.0; values];
        place.block.decode(&self.bytes.as_slice()[place.start..place.start + place.bytes], &mut divisors);
        match divisors.iter().all(|d| d.is_finite() && *d > 0.0) {
            true => Ok(Some(divisors.iter().map(|d| f64::from(*d)).collect())),
            false => Err(CheckpointError::NotFinite { name: name.into() }),
        }
    }
}
