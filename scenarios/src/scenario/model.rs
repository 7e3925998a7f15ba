//! Models in TOML: `"embedded:base"` is short for `{ source = "embedded:base" }`; a table may also say what to change in the
//! checkpoint before an engine is built.

use std::fmt;

use engine::Bos;
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
    /// A LoRA adapter: `embedded:NAME`, or a folder in PEFT's layout (relative to the scenario file).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
    /// Whether the adapter is merged into the weights before they are quantized; otherwise it stays beside them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub merge: bool,
    /// Whether the token that begins a text is put before it: as the tokenizer says, always, never.
    #[serde(skip_serializing_if = "is_auto")]
    pub bos: Bos,
}

fn is_auto(bos: &Bos) -> bool {
    *bos == Bos::Auto
}

impl ModelPart {
    /// The model as it was trained.
    pub fn plain(source: &str) -> ModelPart {
        ModelPart {
            source: source.into(),
            transforms: Transforms::default(),
            adapter: None,
            merge: false,
            bos: Bos::Auto,
        }
    }

    /// The source, with its adapter and transforms in brackets: `embedded:mha[kv1-mean]`, `embedded:base[capitals-merged]`.
    pub fn tag(&self) -> String {
        let name = |adapter: &String| {
            let name = adapter.rsplit(['/', ':']).find(|part| !part.is_empty()).unwrap_or("adapter").to_string();
            if self.merge { format!("{name}-merged") } else { name }
        };
        let transforms = Some(self.transforms.tag()).filter(|_| !self.transforms.is_empty());
        let bos = match self.bos {
            Bos::Auto => None,
            Bos::Always => Some("bos".to_string()),
            Bos::Never => Some("no-bos".to_string()),
        };
        let changes: Vec<String> = self.adapter.as_ref().map(name).into_iter().chain(transforms).chain(bos).collect();
        match changes.is_empty() {
            true => self.source.clone(),
            false => format!("{}[{}]", self.source, changes.join(",")),
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
    adapter: Option<String>,
    #[serde(default)]
    merge: bool,
    #[serde(default)]
    bos: Bos,
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
        let Spelled { source, kv_heads, collaborate, outliers, zero_features, rotate, adapter, merge, bos } =
            Spelled::deserialize(MapAccessDeserializer::new(map))?;
        if merge && adapter.is_none() {
            return Err(serde::de::Error::custom("`merge` says what happens to an `adapter`, and there is none"));
        }
        let transforms = Transforms { kv_heads, collaborate, outliers, zero_features, rotate };
        Ok(ModelPart { source, transforms, adapter, merge, bos })
    }
}
