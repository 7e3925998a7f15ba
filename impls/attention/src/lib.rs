//! The attention axis: softmax(q·kᵀ)·v over the tiles that a cache shows, one file per variant.
//!
//! A scenario names a variant as an [`AttentionSpec`]; [`AttentionSpec::build`] is the table variant × device.
//! [`Counts`] says what a variant moves and computes without running it, from the loops that it would run.

mod counts;
mod flash;
mod mask;
mod naive;

pub use counts::Counts;
pub use flash::{FlashOrder, FlashSpec};

use model::{Attention, Device, Unsupported};
use serde::{Deserialize, Serialize};

/// An attention variant and its sizes; in TOML a table with the tag `kind`: `{ kind = "flash", key_tile = 128 }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", try_from = "Written")]
pub enum AttentionSpec {
    /// The whole score matrix at once: the oracle.
    Naive,
    /// Tiles and the online softmax.
    Flash(FlashSpec),
}

/// A field of an attention spec has a value that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("attention: `{field} = {found}` cannot be used: expected {least} to {most}")]
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

impl AttentionSpec {
    /// Short name in frames, unique among specs: `naive`, `flash`, `flash-q16-k128`, `flash-fa1`, `flash-noskip`.
    pub fn tag(&self) -> String {
        match self {
            AttentionSpec::Naive => "naive".into(),
            AttentionSpec::Flash(spec) => spec.tag(),
        }
    }

    /// Every variant with its options: what conformance loops over.
    pub fn all() -> Vec<AttentionSpec> {
        let mut all = vec![AttentionSpec::Naive];
        all.extend(FlashSpec::all().into_iter().map(AttentionSpec::Flash));
        all
    }

    /// The variant on `device`.
    pub fn build(&self, device: &Device) -> Result<Box<dyn Attention>, Unsupported> {
        let cpu = device.cpu().clone();
        match self {
            AttentionSpec::Naive => Ok(Box::new(naive::Naive::new(cpu))),
            AttentionSpec::Flash(spec) => {
                let refused =
                    |e: SpecError| Unsupported { axis: "attention", variant: spec.tag(), reason: e.to_string() };
                spec.validate().map_err(refused)?;
                Ok(Box::new(flash::Flash::new(spec.clone(), cpu)))
            }
        }
    }
}

/// The table as written: a field that the variant does not have is refused.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Written {
    Naive(NoFields),
    Flash(FlashSpec),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoFields {}

impl TryFrom<Written> for AttentionSpec {
    type Error = SpecError;

    fn try_from(written: Written) -> Result<AttentionSpec, SpecError> {
        match written {
            Written::Naive(NoFields {}) => Ok(AttentionSpec::Naive),
            Written::Flash(spec) => spec.validate().map(|()| AttentionSpec::Flash(spec)),
        }
    }
}
