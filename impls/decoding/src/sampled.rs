//! **What** Ancestral sampling from the filtered next-token distribution.
//! **Source** Definition; filters and their order as in Hugging Face `generate(do_sample=True)`.
//! **Shapes** logits `[sequences, vocab]` -> one token per sequence.
//! **Method** 1. one batched Step over every sequence's uncached tokens; 2. [`sampling::distribution`] of each row;
//!   3. inverse CDF in token order at one uniform number of the sequence's own generator.
//! **Exactness** probabilities within 1e-6 of the reference fixtures; a sequence's draws do not depend on its batch.
//! **Cost** one target pass, `vocab` exponentials, and with top-k or top-p a partial sort per token.
//! **Not handled** typical, epsilon and eta cut-offs.

use model::{SeqId, StepModel};

use crate::decoder::advance_by_one;
use crate::{DecodeError, Decoder, Emitted, Ledger, SamplingSpec, Sequence, sampling};

/// Draws tokens at random.
pub struct Sampled {
    spec: SamplingSpec,
    target: Box<dyn StepModel>,
}

impl Sampled {
    /// A sampling decoder over `target`.
    pub fn new(spec: SamplingSpec, target: Box<dyn StepModel>) -> Sampled {
        Sampled { spec, target }
    }
}

impl Decoder for Sampled {
    fn advance(&mut self, sequences: &mut [Sequence]) -> Result<Vec<Emitted>, DecodeError> {
        let spec = &self.spec;
        advance_by_one(self.target.as_mut(), sequences, |logits, sequence| {
            if let Some(token) = sequence.prescribed(sequence.generated().len()) {
                return Ok(token);
            }
            let adjusted = sequence.adjusted(logits);
            let probabilities = sampling::distribution(adjusted.as_deref().unwrap_or(logits), spec)?;
            Ok(sampling::draw(&probabilities, sequence.uniform()))
        })
    }

    fn obeys_constraints(&self) -> bool {
        true
    }

    fn ledger(&self) -> Option<&Ledger> {
        None
    }

    fn release(&mut self, seq: SeqId) {
        self.target.truncate(seq, 0);
    }

    fn target(&self) -> &dyn StepModel {
        self.target.as_ref()
    }
}
