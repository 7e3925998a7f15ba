//! Models in TOML: `"embedded:base"` is short for `{ source = "embedded:base" }`; a table may also say what to change in the
//! checkpoint before an engine is built.

use std::fmt;

use model::transform::{Collaborate, KvHeads, Outliers, Rotate, Transforms, ZeroFeatures};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

/// A checkpoint and what is changed in it: one place on the model axis.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelPart {
    /// `embedded:NAME`, `random:SHAPE`, `hf:org/name@revision`, or a folder or GGUF file (relative to the scenario file).
    pub source: String,
    /// What is changed before an engine is built.
    #[serde(flatten)]
    pub transforms: Transforms,
}

impl ModelPart {
    /// The model as it was trained.
    pub fn plain(source: &str) -> ModelPart {
        ModelPart { source: source.into(), transforms: Transforms::default() }
    }

    /// The source, with its transforms in brackets: `embedded:mha[kv1-mean]`.
    pub fn tag(&self) -> String {
        match self.transforms.is_empty() {
            true => self.source.clone(),
            false => format!("{}[{}]", self.source, self.transforms.tag()),
        }
    }

    /// Whether its weights are random numbers.
    pub fn is_random(&self) -> bool {
        self.source.starts_with("random:")
    }
}

/// The table form; `flatten` would lose the refusal of unknown fields.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spelled {
    source: String,
    kv_heads: Option<KvHeads>,
    collaborate: Option<Collaborate>,
    outliers: Option<Outliers>,
    zero_features: Option<ZeroFeatures>,
    rotate: Option<Rotate>,
}

impl<'de> Deserialize<'de> for ModelPart {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ModelPart, D::Error> {
        deserializer.deserialize_any(Part)
    }
}

struct Part;

impl<'de> Visitor<'de> for Part {
    type Value = ModelPart;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a model (\"embedded:base\") or a table ({ source = \"embedded:base\", kv_heads = { groups = 1 } })",
        )
    }

    fn visit_str<E: serde::de::Error>(self, source: &str) -> Result<ModelPart, E> {
        Ok(ModelPart::plain(source))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ModelPart, A::Error> {
        let Spelled { source, kv_heads, collaborate, outliers, zero_features, rotate } =
            Spelled::deserialize(MapAccessDeserializer::new(map))?;
        Ok(ModelPart { source, transforms: Transforms { kv_heads, collaborate, outliers, zero_features, rotate } })
    }
}
