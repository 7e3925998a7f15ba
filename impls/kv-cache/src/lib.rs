//! The KV-cache axis: where keys and values are placed and how they are encoded, one file per variant of each.
//!
//! A scenario names a cache as a [`KvSpec`]; [`KvSpec::build`] is the table variant × device.

mod encoding;
mod placement;

pub use encoding::EncodingName;
pub use placement::contiguous::ContiguousSpec;

use encoding::{F16, F32, Int8};
use model::{Device, KvCache, KvShape, Unsupported};
use placement::contiguous::Contiguous;
use placement::slots::Slots;
use serde::{Deserialize, Serialize};

/// A KV cache; in TOML a table with the tag `kind`: `{ kind = "contiguous", encoding = "f16" }`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum KvSpec {
    /// One buffer per sequence and layer.
    Contiguous(ContiguousSpec),
    /// One buffer of compressed vectors per sequence and layer, for models with latent attention: attention reads them
    /// as they are (the absorbed form).
    Latent(ContiguousSpec),
}

impl Default for KvSpec {
    fn default() -> KvSpec {
        KvSpec::Contiguous(ContiguousSpec::default())
    }
}

impl KvSpec {
    /// Short name in frames, unique among specs: `contiguous`, `contiguous-f16`, `latent`.
    pub fn tag(&self) -> String {
        match self {
            KvSpec::Contiguous(spec) => spec.tag("contiguous"),
            KvSpec::Latent(spec) => spec.tag("latent"),
        }
    }

    /// Every placement with every encoding: what conformance loops over.
    pub fn all() -> Vec<KvSpec> {
        let encodings = EncodingName::ALL.map(|encoding| ContiguousSpec { encoding });
        encodings.iter().cloned().map(KvSpec::Contiguous).chain(encodings.iter().cloned().map(KvSpec::Latent)).collect()
    }

    /// Whether the cache keeps the compressed vectors of latent attention instead of keys and values.
    pub fn is_latent(&self) -> bool {
        matches!(self, KvSpec::Latent(_))
    }

    /// Largest |stored − given| over the largest |given| of its row (one entry of one head), 0 for f32.
    pub fn relative_error(&self) -> f32 {
        match self {
            KvSpec::Contiguous(spec) | KvSpec::Latent(spec) => spec.encoding.relative_error(),
        }
    }

    /// An empty cache with room for `capacity_tokens` entries in each sequence.
    pub fn build(
        &self,
        shape: KvShape,
        capacity_tokens: usize,
        device: &Device,
    ) -> Result<Box<dyn KvCache>, Unsupported> {
        match (self, device) {
            (KvSpec::Contiguous(spec) | KvSpec::Latent(spec), Device::Cpu(_)) => Ok(match spec.encoding {
                EncodingName::F32 => Box::new(Contiguous::<F32>::new(shape, capacity_tokens)),
                EncodingName::F16 => Box::new(Contiguous::<F16>::new(shape, capacity_tokens)),
                EncodingName::Int8 => Box::new(Contiguous::<Int8>::new(shape, capacity_tokens)),
            }),
            (spec, Device::Cuda(cuda)) => Ok(Box::new(Slots::new(cuda, shape, capacity_tokens, spec.on_cuda()?))),
            (spec, device) => Err(Unsupported {
                axis: "kv",
                variant: spec.tag(),
                reason: format!("no such cache on {}; use a cpu device", device.name()),
            }),
        }
    }

    /// Whether the cache keeps f16 on a GPU; what it cannot keep there is refused.
    pub fn on_cuda(&self) -> Result<bool, Unsupported> {
        match self {
            KvSpec::Contiguous(ContiguousSpec { encoding: EncodingName::F32 }) => Ok(false),
            KvSpec::Contiguous(ContiguousSpec { encoding: EncodingName::F16 }) => Ok(true),
            _ => Err(Unsupported {
                axis: "kv",
                variant: self.tag(),
                reason: "a GPU keeps contiguous caches in f32 or f16 only; use one of these, or a cpu device".into(),
            }),
        }
    }
}
