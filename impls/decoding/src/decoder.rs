//! What an engine sees of a decoder, and the loop of those that add one token per target pass.

use model::{CacheFull, SeqId, Step, StepError, StepModel, TokenId};

use crate::sampling::UnusableLogits;
use crate::{Emitted, Hypothesis, Ledger, Sequence};

/// Advances sequences with the models it owns. It reads no clock: a caller that wants the time of target and draft
/// apart hands in StepModels that note it.
pub trait Decoder: Send {
    /// Adds at least one token to every unfinished sequence, and says which; a decoder that compares whole hypotheses adds
    /// all tokens when its search ends and none before. The rows of all sequences share the Steps. The first call for a
    /// sequence runs its prompt. After an error no sequence has changed its tokens, and the call may be repeated.
    fn advance(&mut self, sequences: &mut [Sequence]) -> Result<Vec<Emitted>, DecodeError>;
    /// What was drafted and accepted so far; none for decoders that do not draft.
    fn ledger(&self) -> Option<&Ledger>;
    /// What a decoder that compares whole hypotheses found for `seq`, best first, until it is released; else nothing.
    fn hypotheses(&self, seq: SeqId) -> &[Hypothesis] {
        let _ = seq;
        &[]
    }
    /// Whether the [`Constraints`](crate::Constraints) of sequences are obeyed; decoders that do not ignore them.
    fn obeys_constraints(&self) -> bool {
        false
    }
    /// Frees the cache of a sequence that will not be advanced again.
    fn release(&mut self, seq: SeqId);
    /// The model whose distribution is decoded.
    fn target(&self) -> &dyn StepModel;
}

/// A pass that gave no tokens.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DecodeError {
    /// A model had no room.
    #[error(transparent)]
    CacheFull(#[from] CacheFull),
    /// A model's device failed.
    #[error(transparent)]
    Device(StepError),
    /// A model's logits have no most likely token.
    #[error("{model} logits of sequence {seq:?} for position {position}: {source}")]
    Logits {
        /// `target` or `draft`.
        model: &'static str,
        /// The sequence.
        seq: SeqId,
        /// Position of the token they should predict.
        position: usize,
        /// What is wrong with them.
        source: UnusableLogits,
    },
}

impl From<StepError> for DecodeError {
    fn from(e: StepError) -> DecodeError {
        match e {
            StepError::CacheFull(full) => DecodeError::CacheFull(full),
            StepError::Device(_) => DecodeError::Device(e),
        }
    }
}

/// One batched target pass over all that is uncached, then one token per unfinished sequence by `choose`.
pub(crate) fn advance_by_one(
    target: &mut dyn StepModel,
    sequences: &mut [Sequence],
    mut choose: impl FnMut(&[f32], &mut Sequence) -> Result<TokenId, UnusableLogits>,
) -> Result<Vec<Emitted>, DecodeError> {
    let live: Vec<usize> = (0..sequences.len()).filter(|&i| sequences[i].finished().is_none()).collect();
    if live.is_empty() {
        return Ok(vec![]);
    }
    let steps: Vec<Step> =
        live.iter().map(|&i| Step::extend(sequences[i].id(), sequences[i].cached(), sequences[i].uncached())).collect();
    let chosen: Result<Vec<TokenId>, DecodeError> =
        target.forward(&Step::batch(&steps)).map_err(DecodeError::from).and_then(|logits| {
            let choose_row = |(row, &i): (usize, &usize)| {
                let sequence = &mut sequences[i];
                let (seq, position) = (sequence.id(), sequence.tokens().len());
                choose(logits.row(row), sequence).map_err(|source| DecodeError::Logits {
                    model: "target",
                    seq,
                    position,
                    source,
                })
            };
            live.iter().enumerate().map(choose_row).collect()
        });
    let chosen = match chosen {
        Ok(chosen) => chosen,
        Err(error) => {
            live.iter().for_each(|&i| target.truncate(sequences[i].id(), sequences[i].cached()));
            return Err(error);
        }
    };
    let commit = |(&i, token): (&usize, TokenId)| {
        let tokens = sequences[i].commit(&[token]).to_vec();
        Emitted { seq: sequences[i].id(), tokens }
    };
    Ok(live.iter().zip(chosen).map(commit).collect())
}
