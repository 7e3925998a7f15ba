//! **What** Greedy decoding: the most likely token, every time.
//! **Source** Definition; the first processor-free row of Hugging Face's `generate(do_sample=False)`.
//! **Shapes** logits `[sequences, vocab]` -> one token per sequence.
//! **Method** 1. one batched Step over every sequence's uncached tokens; 2. argmax of each logits row.
//! **Exactness** bit-equal to argmax; between equal logits the lower token id wins.
//! **Cost** one target pass and `vocab` comparisons per token.
//! **Not handled** nothing known; [`Constraints`](crate::Constraints) of a sequence are obeyed.

use model::{SeqId, StepModel};

use crate::decoder::advance_by_one;
use crate::{DecodeError, Decoder, Emitted, Ledger, Sequence, sampling};

/// Chooses the most likely token.
pub struct Greedy {
    target: Box<dyn StepModel>,
}

impl Greedy {
    /// A greedy decoder over `target`.
    pub fn new(target: Box<dyn StepModel>) -> Greedy {
        Greedy { target }
    }
}

impl Decoder for Greedy {
    fn advance(&mut self, sequences: &mut [Sequence]) -> Result<Vec<Emitted>, DecodeError> {
        advance_by_one(self.target.as_mut(), sequences, |logits, sequence| {
            if let Some(token) = sequence.prescribed(sequence.generated().len()) {
                return Ok(token);
            }
            sampling::argmax(sequence.adjusted(logits).as_deref().unwrap_or(logits))
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
