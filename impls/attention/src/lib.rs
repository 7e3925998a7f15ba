//! The attention axis: softmax(q·kᵀ)·v over the tiles that a cache shows, one file per variant.
//!
//! A scenario names a variant as an [`AttentionSpec`]; [`AttentionSpec::build`] is the table variant × device.
//! [`Counts`] says what a variant moves and computes without running it, from the loops that it would run.

mod counts;
mod cuda;
mod flash;
mod mask;
mod merge;
mod naive;

pub use counts::Counts;
pub use flash::{FlashOrder, FlashSpec};
pub use merge::Part;
pub use naive::BlockedSpec;

use model::{Attention, Device, Unsupported};
use serde::{Deserialize, Serialize};

/// An attention variant and its sizes; in TOML a table with the tag `kind`: `{ kind = "flash", key_tile = 128 }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", try_from = "Written")]
pub enum AttentionSpec {
    /// The whole score matrix at once: the oracle.
    Naive,
    /// The score matrix of a block of query rows at a time.
    Blocked(BlockedSpec),
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
    /// Short name in frames, unique among specs: `naive`, `flash`, `blocked`, `flash-q16-k128`, `flash-fa1`,
    /// `flash-noskip`, `flash-perhead`, `flash-unsplit`.
    pub fn tag(&self) -> String {
        match self {
            AttentionSpec::Naive => "naive".into(),
            AttentionSpec::Blocked(spec) => spec.tag(),
            AttentionSpec::Flash(spec) => spec.tag(),
        }
    }

    /// Every variant with its options: what conformance loops over.
    pub fn all() -> Vec<AttentionSpec> {
        let blocked = |query_block| AttentionSpec::Blocked(BlockedSpec { query_block });
        let mut all = vec![AttentionSpec::Naive, blocked(64), blocked(7)];
        all.extend(FlashSpec::all().into_iter().map(AttentionSpec::Flash));
        all
    }

    /// The variant on `device`.
    pub fn build(&self, device: &Device) -> Result<Box<dyn Attention>, Unsupported> {
        if let Device::Cuda(cuda) = device {
            return Ok(Box::new(cuda::CudaAttention::new(cuda, self.on_cuda()?)));
        }
        let cpu = device.cpu().clone();
        let refused = |e: SpecError| Unsupported { axis: "attention", variant: self.tag(), reason: e.to_string() };
        match self {
            AttentionSpec::Naive => Ok(Box::new(naive::Naive::new(cpu, None))),
            AttentionSpec::Blocked(spec) => {
                spec.validate().map_err(refused)?;
                Ok(Box::new(naive::Naive::new(cpu, Some(spec.query_block))))
            }
            AttentionSpec::Flash(spec) => {
                spec.validate().map_err(refused)?;
                Ok(Box::new(flash::Flash::new(spec.clone(), cpu)))
            }
        }
    }
}

impl AttentionSpec {
    /// The kernel that stands for the variant on a GPU; what has none there is refused.
    fn on_cuda(&self) -> Result<cuda::Form, Unsupported> {
        match self {
            AttentionSpec::Naive => Ok(cuda::Form::Rows),
            AttentionSpec::Flash(spec) if *spec == FlashSpec::default() => Ok(cuda::Form::Splits),
            _ => Err(Unsupported {
                axis: "attention",
                variant: self.tag(),
                reason: "tile sizes and orders are the CPU's; a GPU has `naive` and plain `flash`".into(),
            }),
        }
    }

    /// Refuses what has no kernel on a GPU.
    pub fn plan_cuda(&self) -> Result<(), Unsupported> {
        self.on_cuda().map(|_| ())
    }
}

/// The table as written: a field that the variant does not have is refused.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Written {
    Naive(NoFields),
    Blocked(BlockedSpec),
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
            Written::Blocked(spec) => spec.validate().map(|()| AttentionSpec::Blocked(spec)),
            Written::Flash(spec) => spec.validate().map(|()| AttentionSpec::Flash(spec)),
        }
    }
}
