//! Reading `config.json`: typed fields with errors that name them, and a watch over those that nobody read.

use std::cell::RefCell;
use std::collections::BTreeSet;
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

/// Fields that change what some family computes, with the values that change nothing. One that is present, was not read by
/// its family and says something else is refused.
const NEUTRAL: &[(&str, &[&str])] = &[
    ("add_cross_attention", &["false"]),
    ("alibi", &["false"]),
    ("apply_residual_connection_post_layernorm", &["false"]),
    ("attention_bias", &["false"]),
    ("attention_chunk_size", &[]),
    ("attention_multiplier", &["1"]),
    ("attention_out_bias", &["false"]),
    ("attn_logit_softcapping", &["0"]),
    ("clip_qkv", &[]),
    ("do_layer_norm_before", &["true"]),
    ("embedding_multiplier", &["1"]),
    ("enable_bias", &["true"]),
    ("final_logit_softcapping", &["0"]),
    ("first_k_dense_replace", &["0"]),
    ("is_encoder_decoder", &["false"]),
    ("kv_lora_rank", &[]),
    ("layer_norm_elementwise_affine", &["true"]),
    ("layer_types", &["all full_attention"]),
    ("logit_scale", &["1"]),
    ("logits_scaling", &["1"]),
    ("mlp_bias", &["false"]),
    ("mlp_only_layers", &["[]"]),
    ("n_routed_experts", &["0"]),
    ("no_rope_layers", &["[]"]),
    ("num_experts", &["0"]),
    ("num_local_experts", &["0"]),
    ("partial_rotary_factor", &["1"]),
    ("position_embedding_type", &["\"absolute\"", "\"rope\"", "\"rotary\""]),
    ("qk_layernorm", &["false"]),
    ("quantization_config", &[]),
    ("query_pre_attn_scalar", &[]),
    ("residual_multiplier", &["1"]),
    ("scale_attn_by_inverse_layer_idx", &["false"]),
    ("scale_attn_weights", &["true"]),
    ("sliding_window", &["0"]),
    ("use_bias", &["false"]),
    ("use_parallel_residual", &["false"]),
    ("use_qk_norm", &["false"]),
    ("use_qkv_bias", &["false"]),
    ("use_sliding_window", &["false"]),
];

/// A `config.json` being read.
pub(super) struct Fields {
    file: String,
    map: Map<String, Value>,
    read: RefCell<BTreeSet<String>>,
}

impl Fields {
    pub(super) fn parse(file: &Path, text: &str) -> Result<Fields, ConfigError> {
        let file = file.display().to_string();
        let value: Value = serde_json::from_str(text)
            .map_err(|e| ConfigError::Syntax { file: file.clone(), reason: e.to_string() })?;
        match value {
            Value::Object(map) => Ok(Fields { file, map, read: RefCell::default() }),
            _ => Err(ConfigError::Syntax { file, reason: "the top level is not an object".into() }),
        }
    }

    /// The value of `field`, or of `table.field`; null counts as absent.
    pub(super) fn value(&self, field: &str) -> Option<&Value> {
        let mut path = field.split('.');
        let first = path.next().unwrap_or_default();
        self.read.borrow_mut().insert(first.into());
        path.try_fold(self.map.get(first)?, |value, key| value.get(key)).filter(|v| !v.is_null())
    }

    /// Whether `field` is written at all; families give null and absence different meanings.
    pub(super) fn has(&self, field: &str) -> bool {
        self.map.contains_key(field)
    }

    /// The first of several names that is present; families call the same thing differently.
    pub(super) fn first<'n>(&self, names: &[&'n str]) -> &'n str {
        names.iter().find(|name| self.value(name).is_some()).unwrap_or(&names[0])
    }

    pub(super) fn text(&self, field: &str) -> Result<Option<String>, ConfigError> {
        match self.value(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(self.wrong(field, "a string")),
        }
    }

    pub(super) fn flag(&self, field: &str, default: bool) -> Result<bool, ConfigError> {
        match self.value(field) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.wrong(field, "true or false")),
        }
    }

    pub(super) fn number(&self, field: &str) -> Result<Option<f32>, ConfigError> {
        match self.value(field) {
            None => Ok(None),
            Some(value) => match value.as_f64().filter(|f| (*f as f32).is_finite()) {
                Some(f) => Ok(Some(f as f32)),
                None => Err(self.wrong(field, "a number")),
            },
        }
    }

    pub(super) fn positive(&self, field: &str) -> Result<Option<f32>, ConfigError> {
        match self.number(field)? {
            Some(f) if f <= 0.0 => Err(self.wrong(field, "a positive number")),
            found => Ok(found),
        }
    }

    pub(super) fn need(&self, field: &str) -> Result<f32, ConfigError> {
        self.positive(field)?.ok_or_else(|| self.wrong(field, "a positive number"))
    }

    pub(super) fn numbers(&self, field: &str) -> Result<Option<Vec<f32>>, ConfigError> {
        let Some(value) = self.value(field) else { return Ok(None) };
        let list = value.as_array().and_then(|list| list.iter().map(|v| v.as_f64().map(|f| f as f32)).collect());
        list.map(Some).ok_or_else(|| self.wrong(field, "a list of numbers"))
    }

    pub(super) fn size(&self, field: &str, limit: usize) -> Result<usize, ConfigError> {
        self.optional_size(field, limit)?.ok_or_else(|| self.wrong(field, "a positive whole number"))
    }

    /// Bounded, because sizes decide allocations.
    pub(super) fn optional_size(&self, field: &str, limit: usize) -> Result<Option<usize>, ConfigError> {
        match self.value(field) {
            None => Ok(None),
            Some(value) => match value.as_u64().map(|n| n as usize).filter(|n| (1..=limit).contains(n)) {
                Some(n) => Ok(Some(n)),
                None => Err(self.wrong(field, &format!("a whole number from 1 to {limit}"))),
            },
        }
    }

    /// Refuses what would change the numbers and was not read.
    pub(super) fn refuse_unread(&self) -> Result<(), ConfigError> {
        for (field, neutral) in NEUTRAL {
            let unread = !self.read.borrow().contains(*field);
            let Some(value) = self.map.get(*field).filter(|v| unread && !v.is_null()) else { continue };
            let same = |text: &&str| match value {
                Value::Number(n) => text.parse::<f64>().ok() == n.as_f64(),
                Value::Array(kinds) if *text == "all full_attention" => kinds.iter().all(|k| k == "full_attention"),
                other => serde_json::from_str(text).is_ok_and(|neutral: Value| *other == neutral),
            };
            if !neutral.iter().any(same) {
                let supported = if neutral.is_empty() { "absent".into() } else { neutral.join(", ") };
                return Err(self.unsupported(field, &shown(value), &supported));
            }
        }
        Ok(())
    }

    pub(super) fn wrong(&self, field: &str, expected: &str) -> ConfigError {
        let found = self.value(field).map_or("nothing".into(), shown);
        ConfigError::Field { file: self.file.clone(), field: field.into(), expected: expected.into(), found }
    }

    pub(super) fn unsupported(&self, field: &str, asked: &str, supported: &str) -> ConfigError {
        ConfigError::Unsupported {
            file: self.file.clone(),
            field: field.into(),
            asked: asked.into(),
            supported: supported.into(),
        }
    }
}

fn shown(value: &Value) -> String {
    value.to_string().chars().take(80).collect()
}
