//! How next tokens are chosen from logits.
//!
//! A [`Decoder`] owns one model, or two, and sees each only as [`StepModel`]: forward this Step, forget that suffix.
//! [`DecodingSpec`] names the variants; [`DecodingSpec::build`] is the only list of them.

mod acceptance;
mod beam;
pub mod chi_square;
mod constraints;
mod decoder;
mod greedy;
pub mod identities;
mod ledger;
mod sampled;
pub mod sampling;
mod sequence;
mod speculative;
pub mod table;

pub use acceptance::{accepts, residual};
pub use beam::{Beam, BeamSpec};
pub use constraints::Constraints;
pub use decoder::{DecodeError, Decoder};
pub use greedy::Greedy;
pub use ledger::Ledger;
pub use sampled::Sampled;
pub use sampling::SamplingSpec;
pub use sequence::{Emitted, EmptyPrompt, Finish, Hypothesis, Sequence};
pub use speculative::{Speculative, SpeculativeSpec};

use model::StepModel;
use serde::{Deserialize, Deserializer, Serialize};

/// How a cell chooses its next tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum DecodingSpec {
    /// The most likely token.
    #[serde(deserialize_with = "no_fields")]
    Greedy,
    /// A draw from the filtered distribution.
    Sampled(SamplingSpec),
    /// A draft model proposes, the target verifies several tokens in one pass.
    Speculative(SpeculativeSpec),
    /// Several hypotheses side by side; the best whole continuation wins.
    Beam(BeamSpec),
}

impl DecodingSpec {
    /// One spec per variant and mode, for tests that loop over the axis.
    pub fn all() -> Vec<DecodingSpec> {
        let nucleus = SamplingSpec { temperature: 0.8, top_p: Some(0.95), ..SamplingSpec::default() };
        let lossless_sampling =
            SpeculativeSpec { sampling: Some(SamplingSpec::default()), ..SpeculativeSpec::default() };
        vec![
            DecodingSpec::Greedy,
            DecodingSpec::Sampled(SamplingSpec::default()),
            DecodingSpec::Sampled(nucleus),
            DecodingSpec::Speculative(SpeculativeSpec::default()),
            DecodingSpec::Speculative(lossless_sampling),
            DecodingSpec::Beam(BeamSpec::default()),
        ]
    }

    /// The value of the decoding column: `greedy`, `sampled-t0.8-p0.95`, `speculative-g4`, `speculative-g4-t1`, `beam-n4`.
    pub fn tag(&self) -> String {
        match self {
            DecodingSpec::Greedy => "greedy".to_string(),
            DecodingSpec::Sampled(sampling) => format!("sampled-{}", sampling.tag()),
            DecodingSpec::Speculative(SpeculativeSpec { gamma, sampling: None }) => format!("speculative-g{gamma}"),
            DecodingSpec::Speculative(SpeculativeSpec { gamma, sampling: Some(sampling) }) => {
                format!("speculative-g{gamma}-{}", sampling.tag())
            }
            DecodingSpec::Beam(beam) => format!("beam-{}", beam.tag()),
        }
    }

    /// Whether [`build`](Self::build) wants a draft model.
    pub fn needs_draft(&self) -> bool {
        matches!(self, DecodingSpec::Speculative(_))
    }

    /// Whether it promises the tokens of plain greedy decoding.
    pub fn keeps_greedy_tokens(&self) -> bool {
        match self {
            DecodingSpec::Greedy => true,
            DecodingSpec::Sampled(_) => false,
            DecodingSpec::Speculative(spec) => spec.sampling.is_none(),
            DecodingSpec::Beam(spec) => spec.n_beams == 1,
        }
    }

    /// The seed that sequences of this spec are made with; 0 where nothing is drawn.
    pub fn seed(&self) -> u64 {
        self.sampling().map_or(0, |sampling| sampling.seed)
    }

    /// Checks every field's range.
    pub fn validate(&self) -> Result<(), SpecError> {
        if let DecodingSpec::Speculative(speculative) = self {
            speculative.validate()?;
        }
        if let DecodingSpec::Beam(beam) = self {
            beam.validate()?;
        }
        self.sampling().map_or(Ok(()), SamplingSpec::validate)
    }

    /// The decoder over `target`, and over `draft` where the spec needs one.
    pub fn build(
        &self,
        target: Box<dyn StepModel>,
        draft: Option<Box<dyn StepModel>>,
    ) -> Result<Box<dyn Decoder>, SpecError> {
        self.validate()?;
        Ok(match (self, draft) {
            (DecodingSpec::Greedy, None) => Box::new(Greedy::new(target)),
            (DecodingSpec::Sampled(sampling), None) => Box::new(Sampled::new(sampling.clone(), target)),
            (DecodingSpec::Speculative(spec), Some(draft)) => Box::new(Speculative::new(spec.clone(), target, draft)?),
            (DecodingSpec::Beam(spec), None) => Box::new(Beam::new(spec.clone(), target)?),
            (DecodingSpec::Speculative(_), None) => return Err(SpecError::DraftMissing),
            (_, Some(_)) => return Err(SpecError::DraftUnused { tag: self.tag() }),
        })
    }

    fn sampling(&self) -> Option<&SamplingSpec> {
        match self {
            DecodingSpec::Greedy | DecodingSpec::Beam(_) => None,
            DecodingSpec::Sampled(sampling) => Some(sampling),
            DecodingSpec::Speculative(speculative) => speculative.sampling.as_ref(),
        }
    }
}

/// A decoding spec that cannot be built.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SpecError {
    /// A field's value is outside its range.
    #[error("decoding.{field} = {value}: expected {expected}")]
    OutOfRange {
        /// The field, as a scenario spells it below `decoding`.
        field: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        expected: &'static str,
    },
    /// Speculation without a draft model.
    #[error("decoding.kind = \"speculative\" needs a draft model: name a draft checkpoint with the target's tokenizer")]
    DraftMissing,
    /// A draft model where nothing drafts.
    #[error("decoding {tag} does not draft: remove the draft checkpoint or choose kind = \"speculative\"")]
    DraftUnused {
        /// The spec's tag.
        tag: String,
    },
    /// Target and draft do not share a vocabulary.
    #[error("the target has {target} vocabulary entries, the draft {draft}: speculation needs one shared vocabulary")]
    VocabDiffers {
        /// Entries of the target's vocabulary.
        target: usize,
        /// Entries of the draft's vocabulary.
        draft: usize,
    },
}

/// A tagged unit variant would let any other key pass; this refuses them.
fn no_fields<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct NoFields {}
    NoFields::deserialize(deserializer).map(|NoFields {}| ())
}
