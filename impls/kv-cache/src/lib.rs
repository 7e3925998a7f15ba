//! The KV-cache axis: where keys and values are placed and how they are encoded, one file per variant of each.
//!
//! A scenario names a cache as a [`KvSpec`]; [`KvSpec::build`] is the table variant × device.

mod encoding;
mod placement;
mod pool;

pub use encoding::EncodingName;
pub use placement::contiguous::ContiguousSpec;
pub use placement::paged::PagedSpec;

use encoding::{F16, F32, Int8};
use model::{Device, KvCache, KvShape, Unsupported};
use placement::contiguous::Contiguous;
use placement::paged::Paged;
use placement::slots::Slots;
use serde::{Deserialize, Serialize};

/// A KV cache; in TOML a table with the tag `kind`: `{ kind = "contiguous", encoding = "f16" }`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", try_from = "Written")]
pub enum KvSpec {
    /// One buffer per sequence and layer.
    Contiguous(ContiguousSpec),
    /// One buffer of compressed vectors per sequence and layer, for models with latent attention: attention reads them
    /// as they are (the absorbed form).
    Latent(ContiguousSpec),
    /// Blocks of a common pool, handed out as sequences grow and shared where sequences begin alike.
    Paged(PagedSpec),
}

/// A field of a cache has a value that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("kv: `{field} = {found}` cannot be used: expected {}", match *most {
    usize::MAX => format!("{least} or more"),
    most => format!("{least} to {most}"),
})]
pub struct SpecError {
    /// Field of the table.
    pub field: &'static str,
    /// What it held.
    pub found: usize,
    /// Smallest value.
    pub least: usize,
    /// Largest value.
    pub most: usize,
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
            KvSpec::Paged(spec) => spec.tag(),
        }
    }

    /// Every placement with every encoding: what conformance loops over.
    pub fn all() -> Vec<KvSpec> {
        let encodings = EncodingName::ALL.map(|encoding| ContiguousSpec { encoding });
        let plain = encodings.iter().cloned().map(KvSpec::Contiguous);
        let latent = encodings.iter().cloned().map(KvSpec::Latent);
        let paged = EncodingName::ALL.map(|encoding| PagedSpec { encoding, ..PagedSpec::default() });
        let blocks = [1, 7, 64].map(|block| PagedSpec { block, ..PagedSpec::default() });
        let rest = [PagedSpec { latent: true, encoding: EncodingName::F16, ..PagedSpec::default() }];
        plain.chain(latent).chain(paged.into_iter().chain(blocks).chain(rest).map(KvSpec::Paged)).collect()
    }

    /// Whether the cache keeps the compressed vectors of latent attention instead of keys and values.
    pub fn is_latent(&self) -> bool {
        matches!(self, KvSpec::Latent(_) | KvSpec::Paged(PagedSpec { latent: true, .. }))
    }

    /// Largest |stored − given| over the largest |given| of its row (one entry of one head), 0 for f32.
    pub fn relative_error(&self) -> f32 {
        match self {
            KvSpec::Contiguous(spec) | KvSpec::Latent(spec) => spec.encoding.relative_error(),
            KvSpec::Paged(spec) => spec.encoding.relative_error(),
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
            (KvSpec::Paged(spec), Device::Cpu(_)) => Ok(match spec.encoding {
                EncodingName::F32 => Box::new(Paged::<F32>::new(spec, shape, capacity_tokens)),
                EncodingName::F16 => Box::new(Paged::<F16>::new(spec, shape, capacity_tokens)),
                EncodingName::Int8 => Box::new(Paged::<Int8>::new(spec, shape, capacity_tokens)),
            }),
            (spec, Device::Cuda(cuda)) => Ok(Box::new(Slots::new(cuda, shape, capacity_tokens, spec.on_cuda()?))),
            (spec, device) => Err(Unsupported {
                axis: "kv",
                variant: spec.tag(),
                reason: format!("no such cache on {}; use a cpu device", device.name()),
            }),
        }
    }

    /// The cache of the same encoding that keeps keys and values of a sequence one behind another: what others are compared with.
    pub fn plain(&self) -> KvSpec {
        KvSpec::Contiguous(match self {
            KvSpec::Contiguous(spec) | KvSpec::Latent(spec) => spec.clone(),
            KvSpec::Paged(spec) => ContiguousSpec { encoding: spec.encoding },
        })
    }

    /// The same placement with entries as they come.
    pub fn exact(&self) -> KvSpec {
        let encoding = EncodingName::F32;
        match self {
            KvSpec::Contiguous(_) => KvSpec::Contiguous(ContiguousSpec { encoding }),
            KvSpec::Latent(_) => KvSpec::Latent(ContiguousSpec { encoding }),
            KvSpec::Paged(spec) => KvSpec::Paged(PagedSpec { encoding, ..spec.clone() }),
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

/// As it stands in a file.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Written {
    Contiguous(ContiguousSpec),
    Latent(ContiguousSpec),
    Paged(PagedSpec),
}

impl TryFrom<Written> for KvSpec {
    type Error = SpecError;

    fn try_from(written: Written) -> Result<KvSpec, SpecError> {
        match written {
            Written::Contiguous(spec) => Ok(KvSpec::Contiguous(spec)),
            Written::Latent(spec) => Ok(KvSpec::Latent(spec)),
            Written::Paged(spec) => spec.validate().map(|()| KvSpec::Paged(spec)),
        }
    }
}
