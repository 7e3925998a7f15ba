//! The rotary part of a GGUF file's metadata, in the words of a config.json.

use serde_json::{Value, json};

use super::config::{Reader, Sizes};
use crate::checkpoint::CheckpointError;

/// Keys below `rope.` that are read here, repeat others, or change nothing that is computed.
const KNOWN: &[&str] = &[
    "dimension_count",
    "freq_base",
    "freq_base_swa",
    "scale_linear",
    "scaling.type",
    "scaling.factor",
    "scaling.attn_factor",
    "scaling.original_context_length",
    "scaling.finetuned",
    "scaling.yarn_ext_factor",
    "scaling.yarn_attn_factor",
    "scaling.yarn_beta_fast",
    "scaling.yarn_beta_slow",
    "scaling.yarn_log_multiplier",
];

impl Reader<'_> {
    /// The rotary part: base, share of a head, rescaling. llama.cpp reads a file without a type as linear.
    pub(super) fn rope(&self, s: &Sizes) -> Result<Value, CheckpointError> {
        self.refuse_unread_below("rope.", KNOWN)?;
        let dim = self.whole("rope.dimension_count")?.unwrap_or(s.rope_dim());
        let mut rope = json!({ "rope_theta": self.number("rope.freq_base")?.unwrap_or(10000.0) });
        if dim != s.rope_dim() || matches!(self.kind, "stablelm" | "gptneox" | "phi2" | "nemotron" | "chatglm" | "glm4")
        {
            rope["partial_rotary_factor"] = json!(dim as f64 / s.rope_dim() as f64);
        }
        let (kind, key) = ("rope.scaling.type", self.key("rope.scaling.type"));
        let factor = self.linear_factor()?;
        let magnitude = self.number("rope.scaling.attn_factor")?.filter(|magnitude| *magnitude != 0.0).unwrap_or(1.0);
        let kind = self.header.metadata.text(&self.key(kind))?.unwrap_or("linear");
        let divisors = self.divisors("rope_freqs.weight", dim)?;
        let kind = if self.has("rope_factors_long.weight") { "longrope" } else { kind };
        match (kind, factor, divisors) {
            ("yarn", Some(factor), None) => self.yarn(&mut rope, factor, magnitude)?,
            ("yarn", Some(_), Some(_)) => {
                return Err(self.header.metadata.wrong(&key, "another type beside the tensor `rope_freqs.weight`"));
            }
            ("none", _, None) | ("linear", None, None) | ("yarn", None, None) if magnitude == 1.0 => {}
            ("linear", Some(factor), None) if magnitude == 1.0 => {
                rope["rope_type"] = json!("linear");
                rope["factor"] = json!(factor);
            }
            ("none" | "linear" | "yarn", factor, divisors) => {
                // one divisor per pair whatever the length, as Llama 3 rescales
                let factor = factor.filter(|_| kind != "none").unwrap_or(1.0);
                let divisors = divisors.unwrap_or_else(|| vec![1.0; dim as usize / 2]);
                let divisors: Vec<f64> = divisors.into_iter().map(|divisor| divisor * factor).collect();
                rope["rope_type"] = json!("longrope");
                rope["short_factor"] = json!(divisors);
                rope["long_factor"] = json!(divisors);
                rope["attention_factor"] = json!(magnitude);
            }
            ("longrope", None, divisors) => self.longrope(&mut rope, dim, divisors, magnitude)?,
            ("longrope", Some(_), _) => {
                let key = self.key("rope.scaling.factor");
                return Err(self.header.metadata.wrong(&key, "absent or 1 beside divisors by length"));
            }
            _ => return Err(self.header.metadata.wrong(&key, "none, linear, yarn or longrope")),
        }
        Ok(rope)
    }

    /// What positions are divided by, by the key of today or the old one; none where nothing is.
    fn linear_factor(&self) -> Result<Option<f64>, CheckpointError> {
        let (new, old) = ("rope.scaling.factor", "rope.scale_linear");
        let name = if self.header.metadata.has(&self.key(new)) { new } else { old };
        match self.number(name)? {
            Some(factor) if factor < 0.0 => Err(self.header.metadata.wrong(&self.key(name), "a positive number")),
            found => Ok(found.filter(|factor| *factor != 0.0 && *factor != 1.0)),
        }
    }

    fn yarn(&self, rope: &mut Value, factor: f64, magnitude: f64) -> Result<(), CheckpointError> {
        let metadata = &self.header.metadata;
        rope["rope_type"] = json!("yarn");
        rope["factor"] = json!(factor);
        rope["original_max_position_embeddings"] = json!(self.whole("rope.scaling.original_context_length")?);
        for (field, key) in [("beta_fast", "yarn_beta_fast"), ("beta_slow", "yarn_beta_slow")] {
            rope[field] = json!(self.number(&format!("rope.scaling.{key}"))?);
        }
        // the two keys that llama.cpp's converter writes and llama.cpp does not read stand for nothing unless they say 1
        for name in ["rope.scaling.yarn_ext_factor", "rope.scaling.yarn_attn_factor"] {
            if self.number(name)?.is_some_and(|value| value != 1.0) {
                return Err(metadata.wrong(&self.key(name), "absent or 1 (it is not supported)"));
            }
        }
        let log = self.number("rope.scaling.yarn_log_multiplier")?.filter(|m| *m != 0.0);
        match log {
            // deepseek2 stores a tenth of the weight, and takes it for both
            Some(log) if self.kind == "deepseek2" && magnitude == 1.0 => {
                let weight = json!(((log / 0.1) * 1e6).round() / 1e6);
                rope["mscale"] = weight.clone();
                rope["mscale_all_dim"] = weight;
            }
            Some(_) => {
                let key = self.key("rope.scaling.yarn_log_multiplier");
                return Err(metadata.wrong(&key, "absent (it is not supported)"));
            }
            None if magnitude != 1.0 => rope["attention_factor"] = json!(magnitude * (0.1 * factor.ln() + 1.0)),
            None => {}
        }
        Ok(())
    }

    /// Two sets of divisors by the length of the sequence.
    fn longrope(
        &self,
        rope: &mut Value,
        dim: u64,
        beside: Option<Vec<f64>>,
        magnitude: f64,
    ) -> Result<(), CheckpointError> {
        let (short, long) =
            (self.divisors("rope_factors_short.weight", dim)?, self.divisors("rope_factors_long.weight", dim)?);
        let (short, long) = match (short, long, beside) {
            (Some(short), Some(long), None) => (short, long),
            (None, None, Some(divisors)) => (divisors.clone(), divisors),
            (None, None, None) if magnitude == 1.0 => return Ok(()),
            _ => {
                let expected = "tensors `rope_factors_short.weight` and `rope_factors_long.weight`";
                return Err(self.header.metadata.wrong(&self.key("rope.scaling.type"), expected));
            }
        };
        rope["rope_type"] = json!("longrope");
        rope["short_factor"] = json!(short);
        rope["long_factor"] = json!(long);
        rope["original_max_position_embeddings"] = json!(self.whole("rope.scaling.original_context_length")?);
        rope["attention_factor"] = json!(magnitude);
        Ok(())
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
        place.block.decode(place.of(self.parts), &mut divisors);
        match divisors.iter().all(|d| d.is_finite() && *d > 0.0) {
            true => Ok(Some(divisors.iter().map(|d| f64::from(*d)).collect())),
            false => Err(CheckpointError::NotFinite { name: name.into() }),
        }
    }
}
