//! Transforms of a checkpoint before an engine is built: other tensors, another architecture, same family.
//!
//! A transform is one file with its spec and a function from (architecture, tensors) to (architecture, tensors that differ).
//! [`Transforms`] is what a scenario's model part may ask for; they are applied in the order of its fields.

mod collaborate;
pub mod decomposition;
mod kv_heads;
mod norm_fed;
mod outliers;
mod rewritten;
mod rotate;
mod zero_features;

use serde::{Deserialize, Serialize};

pub use collaborate::{Collaborate, SharedLayer};
pub use kv_heads::{KvHeads, KvMethod};
pub use outliers::Outliers;
pub use rewritten::{NewTensors, Rewritten};
pub use rotate::{Rotate, RotationKind};
pub use zero_features::ZeroFeatures;

use crate::Architecture;
use crate::checkpoint::{CheckpointError, Tensors};

/// Why a transform cannot be applied to a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum TransformError {
    /// The architecture does not allow it.
    #[error("{transform}: {problem}")]
    Refused {
        /// The transform's name in a scenario.
        transform: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A tensor it needs cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// What to change in a checkpoint; nothing by default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Transforms {
    /// Fewer key/value heads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_heads: Option<KvHeads>,
    /// Queries and keys that all heads share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collaborate: Option<Collaborate>,
    /// Outlier features, the function kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outliers: Option<Outliers>,
    /// Features cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zero_features: Option<ZeroFeatures>,
    /// Rotated coordinates; last, so that it spreads what the others made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotate: Option<Rotate>,
}

impl Transforms {
    /// Whether the checkpoint stays as it is.
    pub fn is_empty(&self) -> bool {
        *self == Transforms::default()
    }

    /// Short names joined by commas, e.g. `kv2-mean`; empty when there is nothing to do.
    pub fn tag(&self) -> String {
        let tags = self.kv_heads.iter().map(KvHeads::tag).chain(self.collaborate.iter().map(Collaborate::tag));
        let tags = tags.chain(self.outliers.iter().map(Outliers::tag));
        let tags = tags.chain(self.zero_features.iter().map(ZeroFeatures::tag));
        let tags = tags.chain(self.rotate.iter().map(Rotate::tag));
        tags.collect::<Vec<_>>().join(",")
    }

    /// The architecture afterwards, known before any weight is read.
    pub fn architecture(&self, a: &Architecture) -> Result<Architecture, TransformError> {
        let mut a = a.clone();
        if let Some(kv_heads) = &self.kv_heads {
            a = kv_heads.architecture(&a)?;
        }
        if let Some(collaborate) = &self.collaborate {
            a = collaborate.architecture(&a)?;
        }
        if let Some(outliers) = &self.outliers {
            a = outliers.architecture(&a)?;
        }
        if let Some(zero) = &self.zero_features {
            a = zero.architecture(&a)?;
        }
        if let Some(rotate) = &self.rotate {
            a = rotate.architecture(&a)?;
        }
        Ok(a)
    }

    /// The checkpoint afterwards.
    pub fn apply(
        &self,
        mut a: Architecture,
        mut tensors: Box<dyn Tensors>,
    ) -> Result<(Architecture, Box<dyn Tensors>), TransformError> {
        if let Some(kv_heads) = &self.kv_heads {
            let changed = kv_heads.tensors(&a, &*tensors)?;
            (a, tensors) = (kv_heads.architecture(&a)?, Box::new(Rewritten::new(tensors, changed)));
        }
        if let Some(collaborate) = &self.collaborate {
            let changed = collaborate.tensors(&a, &*tensors)?;
            (a, tensors) = (collaborate.architecture(&a)?, Box::new(Rewritten::new(tensors, changed)));
        }
        if let Some(outliers) = &self.outliers {
            let changed = outliers.tensors(&a, &*tensors)?;
            tensors = Box::new(Rewritten::new(tensors, changed));
        }
        if let Some(zero) = &self.zero_features {
            let changed = zero.tensors(&a, &*tensors)?;
            tensors = Box::new(Rewritten::new(tensors, changed));
        }
        if let Some(rotate) = &self.rotate {
            let changed = rotate.tensors(&a, &*tensors)?;
            (a, tensors) = (rotate.architecture(&a)?, Box::new(Rewritten::new(tensors, changed)));
        }
        Ok((a, tensors))
    }
}
