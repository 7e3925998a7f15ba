//! The rotary part of a GGUF file's metadata, in the words of a config.json.

use serde_json::{Value, json};

use super::config::{Reader, Sizes};
use crate::checkpoint::CheckpointError;

impl Reader<'_> {
    /// The rotary part: base, share of a head, rescaling.
    pub(super) fn rope(&self, s: &Sizes) -> Result<Value, CheckpointError> {
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
