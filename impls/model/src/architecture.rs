//! Architecture as data: what `config.json` says a decoder is made of. One forward pass reads this; families are rows,
//! not copies.

use std::path::Path;

use serde_json::{Map, Value};

/// Why a `config.json` cannot be run.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConfigError {
    /// The file is not JSON, or not an object.
    #[error("{file}: not a JSON object: {reason}")]
    Syntax {
        /// The file.
        file: String,
        /// What the parser said.
        reason: String,
    },
    /// A field is missing or has a value of the wrong kind.
    #[error("{file}: field `{field}`: expected {expected}, found {found}")]
    Field {
        /// The file.
        file: String,
        /// The field.
        field: String,
        /// What would be right.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The field asks for something this engine does not compute; running on would give wrong numbers.
    #[error("{file}: field `{field}` asks for {asked}, which is not supported (supported: {supported})")]
    Unsupported {
        /// The file.
        file: String,
        /// The field.
        field: String,
        /// What it asks for.
        asked: String,
        /// What would be accepted.
        supported: String,
    },
}

/// Rescaling of the rotary frequencies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// None.
    None,
    /// All frequencies divided by `factor` (position interpolation).
    Linear {
        /// Divisor.
        factor: f32,
    },
    /// Llama 3: low frequencies divided by `factor`, high ones kept, a ramp between.
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f32,
        /// Wavelengths above `original / low` are low frequencies.
        low_freq_factor: f32,
        /// Wavelengths below `original / high` are high frequencies.
        high_freq_factor: f32,
        /// Context length before extension.
        original_max_positions: f32,
    },
}

/// Rotary position embedding, half-split pairs `(i, i + head_dim / 2)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rope {
    /// Base of the geometric frequencies.
    pub theta: f32,
    /// Rescaling.
    pub scaling: RopeScaling,
}

/// Which projections add a bias.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Biases {
    /// q, k and v.
    pub qkv: bool,
    /// Attention output.
    pub out: bool,
    /// gate, up and down.
    pub mlp: bool,
}

/// A decoder-only transformer: pre-norm RMSNorm, RoPE, grouped attention, SwiGLU.
#[derive(Debug, Clone, PartialEq)]
pub struct Architecture {
    /// `model_type` of the checkpoint.
    pub family: String,
    /// Vocabulary entries.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width inside the MLP.
    pub ffn: usize,
    /// Decoder layers.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads.
    pub n_kv_heads: usize,
    /// Features per head; not always `hidden / n_heads`.
    pub head_dim: usize,
    /// Longest context the checkpoint declares.
    pub max_positions: usize,
    /// ε of RMSNorm.
    pub norm_eps: f32,
    /// Positions.
    pub rope: Rope,
    /// Biases.
    pub biases: Biases,
    /// The head is the embedding.
    pub tied_head: bool,
    /// Sliding window of every layer, in positions.
    pub window: Option<usize>,
}

impl Architecture {
    /// Parameters, biases and norms included, a tied head counted once.
    pub fn parameters(&self) -> u64 {
        let (q, kv) = (self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim);
        let bias = |on: bool, n: usize| if on { n } else { 0 };
        let attention = self.hidden * (q + 2 * kv)
            + q * self.hidden
            + bias(self.biases.qkv, q + 2 * kv)
            + bias(self.biases.out, self.hidden);
        let mlp = 3 * self.hidden * self.ffn + bias(self.biases.mlp, 2 * self.ffn + self.hidden);
        let embedding = self.vocab_size * self.hidden * if self.tied_head { 1 } else { 2 };
        (embedding + self.n_layers * (attention + mlp + 2 * self.hidden) + self.hidden) as u64
    }

    /// Reads the text of a Hugging Face `config.json`; `file` names it in errors.
    pub fn from_json(file: &Path, text: &str) -> Result<Architecture, ConfigError> {
        let file = file.display().to_string();
        let value: Value = serde_json::from_str(text)
            .map_err(|e| ConfigError::Syntax { file: file.clone(), reason: e.to_string() })?;
        let Value::Object(map) = value else {
            return Err(ConfigError::Syntax { file, reason: "the top level is not an object".into() });
        };
        Fields { file, map: &map }.architecture()
    }
}

/// Families of this forward pass, by `model_type`: which biases they have when the config does not say.
const FAMILIES: &[(&str, Biases)] = &[
    ("llama", Biases { qkv: false, out: false, mlp: false }),
    ("mistral", Biases { qkv: false, out: false, mlp: false }),
    ("qwen2", Biases { qkv: true, out: false, mlp: false }),
];

struct Fields<'a> {
    file: String,
    map: &'a Map<String, Value>,
}

impl Fields<'_> {
    fn architecture(&self) -> Result<Architecture, ConfigError> {
        let family =
            self.text("model_type")?.ok_or_else(|| self.wrong("model_type", "a family name such as \"llama\""))?;
        let Some((_, biases)) = FAMILIES.iter().find(|(name, _)| *name == family) else {
            let known: Vec<&str> = FAMILIES.iter().map(|(name, _)| *name).collect();
            return Err(self.unsupported("model_type", &format!("\"{family}\""), &known.join(", ")));
        };
        self.refuse_what_changes_the_function()?;
        let (hidden, n_heads) = (self.size("hidden_size", 1 << 17)?, self.size("num_attention_heads", 1 << 12)?);
        let n_kv_heads = self.optional_size("num_key_value_heads", 1 << 12)?.unwrap_or(n_heads);
        let head_dim = match self.optional_size("head_dim", 1 << 12)? {
            Some(dim) => dim,
            None if hidden % n_heads == 0 => hidden / n_heads,
            None => {
                return Err(
                    self.wrong("num_attention_heads", &format!("a divisor of hidden_size {hidden}, or a head_dim"))
                );
            }
        };
        if n_heads % n_kv_heads != 0 {
            return Err(self.wrong("num_key_value_heads", &format!("a divisor of num_attention_heads {n_heads}")));
        }
        if head_dim % 2 != 0 {
            return Err(self.wrong("head_dim", "an even number (rotary pairs)"));
        }
        let attention_bias = self.flag("attention_bias")?;
        Ok(Architecture {
            vocab_size: self.size("vocab_size", 1 << 24)?,
            hidden,
            ffn: self.size("intermediate_size", 1 << 20)?,
            n_layers: self.size("num_hidden_layers", 1 << 12)?,
            n_heads,
            n_kv_heads,
            head_dim,
            max_positions: self.optional_size("max_position_embeddings", 1 << 28)?.unwrap_or(2048),
            norm_eps: self.number("rms_norm_eps", self.map.get("rms_norm_eps"))?.unwrap_or(1e-6),
            rope: self.rope()?,
            biases: Biases {
                qkv: attention_bias.unwrap_or(biases.qkv),
                out: attention_bias.unwrap_or(biases.out),
                mlp: self.flag("mlp_bias")?.unwrap_or(biases.mlp),
            },
            tied_head: self.flag("tie_word_embeddings")?.unwrap_or(false),
            window: self.window(&family)?,
            family,
        })
    }

    /// Fields that change what is computed and are not implemented: named, never ignored.
    fn refuse_what_changes_the_function(&self) -> Result<(), ConfigError> {
        if let Some(act) = self.text("hidden_act")?.filter(|a| !matches!(a.as_str(), "silu" | "swish")) {
            return Err(self.unsupported("hidden_act", &format!("\"{act}\""), "silu"));
        }
        if self.map.get("quantization_config").is_some_and(|v| !v.is_null()) {
            return Err(self.unsupported(
                "quantization_config",
                "an already quantized checkpoint",
                "f32, f16 or bf16 weights",
            ));
        }
        for field in [
            "partial_rotary_factor",
            "residual_multiplier",
            "embedding_multiplier",
            "logits_scaling",
            "attention_multiplier",
        ] {
            if self.number(field, self.map.get(field))?.is_some_and(|f| f != 1.0) {
                return Err(self.unsupported(field, &self.map[field].to_string(), "1.0"));
            }
        }
        for field in ["num_local_experts", "num_experts", "attn_logit_softcapping", "final_logit_softcapping"] {
            if self.map.get(field).is_some_and(|v| !v.is_null() && v.as_f64() != Some(0.0)) {
                return Err(self.unsupported(field, &self.map[field].to_string(), "absent"));
            }
        }
        Ok(())
    }

    fn window(&self, family: &str) -> Result<Option<usize>, ConfigError> {
        let window = self.optional_size("sliding_window", 1 << 28)?;
        let used = match family {
            "mistral" => true,
            _ => self.flag("use_sliding_window")?.unwrap_or(false),
        };
        let Some(window) = window.filter(|_| used) else { return Ok(None) };
        let Some(Value::Array(kinds)) = self.map.get("layer_types") else {
            // Qwen2 without layer_types slides only from max_window_layers on: a mixture, unless every layer slides.
            if family != "mistral" && self.optional_size("max_window_layers", 1 << 12)?.is_none_or(|first| first != 0) {
                return Err(self.unsupported(
                    "max_window_layers",
                    "a sliding window in some layers only",
                    "one kind of attention in all layers",
                ));
            }
            return Ok(Some(window));
        };
        let sliding = kinds.iter().filter(|k| k.as_str() == Some("sliding_attention")).count();
        match sliding {
            0 => Ok(None),
            n if n == kinds.len() => Ok(Some(window)),
            _ => Err(self.unsupported(
                "layer_types",
                "a mixture of sliding and full attention",
                "one kind in all layers",
            )),
        }
    }

    /// `rope_parameters` (transformers 5) or `rope_theta` with `rope_scaling` (transformers 4).
    fn rope(&self) -> Result<Rope, ConfigError> {
        let empty = Map::new();
        let field = if self.map.get("rope_parameters").is_some_and(Value::is_object) {
            "rope_parameters"
        } else {
            "rope_scaling"
        };
        let table = match self.map.get(field) {
            None | Some(Value::Null) => &empty,
            Some(Value::Object(map)) => map,
            Some(_) => return Err(self.wrong(field, "an object or null")),
        };
        let get = |name: &str| self.number(&format!("{field}.{name}"), table.get(name));
        let need = |name: &str| get(name)?.ok_or_else(|| self.wrong(&format!("{field}.{name}"), "a number"));
        let theta = get("rope_theta")?.or(self.number("rope_theta", self.map.get("rope_theta"))?).unwrap_or(10000.0);
        if !(theta > 0.0 && theta.is_finite()) {
            return Err(self.wrong("rope_theta", "a positive number"));
        }
        if get("partial_rotary_factor")?.is_some_and(|f| f != 1.0) {
            return Err(self.unsupported(
                &format!("{field}.partial_rotary_factor"),
                &table["partial_rotary_factor"].to_string(),
                "1.0",
            ));
        }
        let kind = table.get("rope_type").or(table.get("type")).and_then(Value::as_str).unwrap_or("default");
        let scaling = match kind {
            "default" => RopeScaling::None,
            "linear" => RopeScaling::Linear { factor: need("factor")? },
            "llama3" => RopeScaling::Llama3 {
                factor: need("factor")?,
                low_freq_factor: need("low_freq_factor")?,
                high_freq_factor: need("high_freq_factor")?,
                original_max_positions: need("original_max_position_embeddings")?,
            },
            other => {
                return Err(self.unsupported(
                    &format!("{field}.rope_type"),
                    &format!("\"{other}\""),
                    "default, linear, llama3",
                ));
            }
        };
        Ok(Rope { theta, scaling })
    }

    fn text(&self, field: &str) -> Result<Option<String>, ConfigError> {
        match self.map.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(self.wrong(field, "a string")),
        }
    }

    fn flag(&self, field: &str) -> Result<Option<bool>, ConfigError> {
        match self.map.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.wrong(field, "true or false")),
        }
    }

    fn number(&self, field: &str, value: Option<&Value>) -> Result<Option<f32>, ConfigError> {
        match value {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_f64().filter(|f| f.is_finite()) {
                Some(f) => Ok(Some(f as f32)),
                None => Err(self.wrong(field, "a number")),
            },
        }
    }

    fn size(&self, field: &str, limit: usize) -> Result<usize, ConfigError> {
        self.optional_size(field, limit)?.ok_or_else(|| self.wrong(field, "a positive whole number"))
    }

    /// Bounded, because sizes decide allocations.
    fn optional_size(&self, field: &str, limit: usize) -> Result<Option<usize>, ConfigError> {
        match self.map.get(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64().map(|n| n as usize).filter(|n| (1..=limit).contains(n)) {
                Some(n) => Ok(Some(n)),
                None => Err(self.wrong(field, &format!("a whole number from 1 to {limit}"))),
            },
        }
    }

    fn wrong(&self, field: &str, expected: &str) -> ConfigError {
        let found = field.split('.').try_fold(None::<&Value>, |at, key| match at {
            None => self.map.get(key).map(Some),
            Some(value) => value.get(key).map(Some),
        });
        let found = found.flatten().map_or("nothing".to_string(), |v| v.to_string().chars().take(80).collect());
        ConfigError::Field { file: self.file.clone(), field: field.into(), expected: expected.into(), found }
    }

    fn unsupported(&self, field: &str, asked: &str, supported: &str) -> ConfigError {
        ConfigError::Unsupported {
            file: self.file.clone(),
            field: field.into(),
            asked: asked.into(),
            supported: supported.into(),
        }
    }
}
