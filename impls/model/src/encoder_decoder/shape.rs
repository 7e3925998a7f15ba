//! What a Marian `config.json` (transformers 4 or 5) says an encoder–decoder is made of.

use std::path::Path;

use cpu_kernels::Activation;
use serde_json::{Map, Value};

use crate::architecture::ConfigError;
use crate::{KvShape, TokenId};

/// `model_type`s that [`EncoderDecoderShape::from_json`] reads.
pub const FAMILIES: [&str; 1] = ["marian"];

/// One of the two stacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stack {
    /// Layers.
    pub n_layers: usize,
    /// Heads; each has `hidden / n_heads` features.
    pub n_heads: usize,
    /// Width inside the feed-forward layer.
    pub ffn: usize,
}

/// Sizes and choices of an encoder–decoder after Vaswani et al. 2017.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderDecoderShape {
    /// `model_type` of the checkpoint.
    pub family: String,
    /// Entries of the shared vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// The encoder.
    pub encoder: Stack,
    /// The decoder.
    pub decoder: Stack,
    /// Longest source or target.
    pub max_positions: usize,
    /// Between the two products of a feed-forward layer.
    pub activation: Activation,
    /// Embeddings times √hidden.
    pub scale_embedding: bool,
    /// Norm before each sublayer and once after each stack, instead of after each residual sum.
    pub pre_norm: bool,
    /// ε of the layer norms.
    pub norm_eps: f32,
    /// First token of every target.
    pub decoder_start: TokenId,
    /// Token that ends a target.
    pub end: TokenId,
}

impl EncoderDecoderShape {
    /// Reads the text of a Hugging Face `config.json`; `file` names it in errors. Absent fields have the defaults of
    /// transformers' Marian configuration.
    pub fn from_json(file: &Path, text: &str) -> Result<EncoderDecoderShape, ConfigError> {
        let file = file.display().to_string();
        let value: Value = serde_json::from_str(text)
            .map_err(|e| ConfigError::Syntax { file: file.clone(), reason: e.to_string() })?;
        match &value {
            Value::Object(map) => Fields { file, map }.shape(),
            _ => Err(ConfigError::Syntax { file, reason: "the top level is not an object".into() }),
        }
    }

    /// Whether the text of a `config.json` is one of an encoder–decoder; false for anything unreadable.
    pub fn is_meant_by(text: &str) -> bool {
        let family = serde_json::from_str::<Value>(text).ok().and_then(|v| v["model_type"].as_str().map(String::from));
        family.is_some_and(|family| FAMILIES.contains(&family.as_str()))
    }

    /// Shape of the encoder's own cache, needed while a source is read.
    pub fn encoder_kv(&self) -> KvShape {
        self.kv(self.encoder)
    }

    /// Shape of the decoder's cache, and of the cache of what it reads of the source.
    pub fn decoder_kv(&self) -> KvShape {
        self.kv(self.decoder)
    }

    fn kv(&self, stack: Stack) -> KvShape {
        KvShape::new(stack.n_layers, stack.n_heads, self.hidden / stack.n_heads)
    }

    /// Parameters, the shared embedding counted once.
    pub fn parameters(&self) -> u64 {
        let h = self.hidden;
        let (attention, norm) = (4 * h * h + 4 * h, 2 * h);
        let feed_forward = |stack: Stack| 2 * h * stack.ffn + stack.ffn + h;
        let encoder = self.encoder.n_layers * (attention + feed_forward(self.encoder) + 2 * norm);
        let decoder = self.decoder.n_layers * (2 * attention + feed_forward(self.decoder) + 3 * norm);
        let last = if self.pre_norm { 2 * norm } else { 0 };
        (self.vocab_size * (h + 1) + encoder + decoder + last) as u64
    }
}

/// Switches that change what is computed: the value that this engine computes.
const FIXED: &[(&str, bool)] = &[
    ("is_encoder_decoder", true),
    ("is_decoder", false),
    ("share_encoder_decoder_embeddings", true),
    ("tie_word_embeddings", true),
    ("normalize_embedding", false),
    ("static_position_embeddings", true),
];

struct Fields<'a> {
    file: String,
    map: &'a Map<String, Value>,
}

impl Fields<'_> {
    fn shape(&self) -> Result<EncoderDecoderShape, ConfigError> {
        let family = match self.get("model_type") {
            Some(Value::String(family)) if FAMILIES.contains(&family.as_str()) => family.clone(),
            Some(other) => return Err(self.unsupported("model_type", &other.to_string(), &FAMILIES.join(", "))),
            None => return Err(self.wrong("model_type", "a family name such as \"marian\"")),
        };
        for &(field, fixed) in FIXED {
            if self.flag(field, fixed)? != fixed {
                return Err(self.unsupported(field, &(!fixed).to_string(), &fixed.to_string()));
            }
        }
        if self.get("quantization_config").is_some() {
            let asked = "an already quantized checkpoint";
            return Err(self.unsupported("quantization_config", asked, "f32, f16 or bf16 weights"));
        }
        let vocab_size = self.size("vocab_size", 1 << 24, 58101)?;
        if self.size("decoder_vocab_size", 1 << 24, vocab_size)? != vocab_size {
            return Err(self.wrong("decoder_vocab_size", &format!("vocab_size {vocab_size}: embeddings are shared")));
        }
        let pre_norm = self.flag("normalize_before", false)?;
        if self.flag("add_final_layer_norm", pre_norm)? && !pre_norm {
            return Err(self.unsupported("add_final_layer_norm", "true after post-norm layers", "false"));
        }
        let hidden = self.size("d_model", 1 << 17, 1024)?;
        Ok(EncoderDecoderShape {
            family,
            vocab_size,
            hidden,
            encoder: self.stack("encoder", hidden)?,
            decoder: self.stack("decoder", hidden)?,
            max_positions: self.size("max_position_embeddings", 1 << 24, 1024)?,
            activation: self.activation()?,
            scale_embedding: self.flag("scale_embedding", false)?,
            pre_norm,
            norm_eps: self.eps()?,
            decoder_start: self.token("decoder_start_token_id", 58100, vocab_size)?,
            end: self.token("eos_token_id", 0, vocab_size)?,
        })
    }

    fn stack(&self, name: &str, hidden: usize) -> Result<Stack, ConfigError> {
        let heads = format!("{name}_attention_heads");
        let n_heads = self.size(&heads, 1 << 12, 16)?;
        if !hidden.is_multiple_of(n_heads) {
            return Err(self.wrong(&heads, &format!("a divisor of d_model {hidden}")));
        }
        Ok(Stack {
            n_layers: self.size(&format!("{name}_layers"), 1 << 12, 12)?,
            n_heads,
            ffn: self.size(&format!("{name}_ffn_dim"), 1 << 20, 4096)?,
        })
    }

    fn activation(&self) -> Result<Activation, ConfigError> {
        const FIELD: &str = "activation_function";
        match self.get(FIELD).map(|v| v.as_str()) {
            None | Some(Some("gelu")) => Ok(Activation::Gelu),
            Some(Some("relu")) => Ok(Activation::Relu),
            Some(Some("silu" | "swish")) => Ok(Activation::Silu),
            Some(Some("gelu_new" | "gelu_pytorch_tanh" | "gelu_fast")) => Ok(Activation::GeluTanh),
            Some(Some(other)) => {
                let known = "relu, silu, swish, gelu, gelu_new, gelu_pytorch_tanh, gelu_fast";
                Err(self.unsupported(FIELD, &format!("\"{other}\""), known))
            }
            Some(None) => Err(self.wrong(FIELD, "a string")),
        }
    }

    fn eps(&self) -> Result<f32, ConfigError> {
        match self.get("layer_norm_eps").map(Value::as_f64) {
            None => Ok(1e-5),
            Some(Some(eps)) if eps > 0.0 && eps < 1.0 => Ok(eps as f32),
            Some(_) => Err(self.wrong("layer_norm_eps", "a positive number below 1")),
        }
    }

    /// null counts as absent.
    fn get(&self, field: &str) -> Option<&Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    fn flag(&self, field: &str, default: bool) -> Result<bool, ConfigError> {
        match self.get(field).map(Value::as_bool) {
            None => Ok(default),
            Some(Some(flag)) => Ok(flag),
            Some(None) => Err(self.wrong(field, "true or false")),
        }
    }

    /// Bounded, because sizes decide allocations.
    fn size(&self, field: &str, limit: usize, default: usize) -> Result<usize, ConfigError> {
        match self.get(field).map(|value| value.as_u64().map(|n| n as usize).filter(|n| (1..=limit).contains(n))) {
            None => Ok(default),
            Some(Some(n)) => Ok(n),
            Some(None) => Err(self.wrong(field, &format!("a whole number from 1 to {limit}"))),
        }
    }

    fn token(&self, field: &str, default: u32, vocab_size: usize) -> Result<TokenId, ConfigError> {
        let given = self.get(field).map_or(Some(u64::from(default)), Value::as_u64);
        match given.filter(|id| *id < vocab_size as u64) {
            Some(id) => Ok(TokenId(id as u32)),
            None => Err(self.wrong(field, &format!("a token below vocab_size {vocab_size}"))),
        }
    }

    fn wrong(&self, field: &str, expected: &str) -> ConfigError {
        let found = self.map.get(field).map_or("nothing".into(), |v| v.to_string().chars().take(80).collect());
        ConfigError::Field { file: self.file.clone(), field: field.into(), expected: expected.into(), found }
    }

    fn unsupported(&self, field: &str, asked: &str, supported: &str) -> ConfigError {
        let (field, asked, supported) = (field.into(), asked.into(), supported.into());
        ConfigError::Unsupported { file: self.file.clone(), field, asked, supported }
    }
}
