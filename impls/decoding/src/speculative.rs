//! **What** Speculative decoding: a draft model proposes γ tokens, the target verifies them in one pass.
//! **Source** Leviathan, Kalman, Matias 2023 (arXiv 2211.17192), Algorithm 1.
//! **Shapes** verification Step: uncached tokens and γ drafts per sequence, logits `[1 + γ, vocab]` of each.
//! **Method** 1. draft γ tokens from q with the draft's own cache, all sequences in shared Steps; 2. one target pass
//!   gives p_1..p_{γ+1}; 3. accept x_i with probability min(1, p_i(x_i)/q_i(x_i)), greedy: while x_i is the argmax;
//!   4. at the first rejection draw from norm(max(0, p_i - q_i)), greedy: take the argmax; 5. after γ acceptances
//!   take one more token from p_{γ+1}; 6. truncate both caches to the committed prefix.
//! **Exactness** greedy: tokens equal plain greedy where the target's logits do not depend on the rows of a Step.
//!   Sampled: the target's filtered distribution; p and q are both filtered, q is the one drawn from.
//! **Cost** per round γ draft passes and one target pass of 1 + γ rows; emits (1 - α^{γ+1})/(1 - α) tokens expected
//!   for i.i.d. acceptance α. Fewer than γ are drafted where the length limit leaves no use for more.
//! **Not handled** token trees, several drafts, adaptive γ, a draft with another vocabulary.

use std::collections::HashMap;

use model::{SeqId, Step, StepModel, TokenId};
use serde::{Deserialize, Serialize};

use crate::acceptance::{Choice, Draft, Verdict};
use crate::{DecodeError, Decoder, Emitted, Ledger, SamplingSpec, Sequence, SpecError};

/// How much to draft and which distribution to keep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpeculativeSpec {
    /// Tokens drafted per target pass, 1 to 16.
    pub gamma: usize,
    /// The distribution that is kept exactly; without it decoding is greedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling: Option<SamplingSpec>,
}

impl Default for SpeculativeSpec {
    fn default() -> SpeculativeSpec {
        SpeculativeSpec { gamma: 4, sampling: None }
    }
}

impl SpeculativeSpec {
    /// Checks γ's range.
    pub fn validate(&self) -> Result<(), SpecError> {
        if (1..=16).contains(&self.gamma) {
            return Ok(());
        }
        Err(SpecError::OutOfRange { field: "gamma", value: self.gamma.to_string(), expected: "1 to 16 drafted tokens" })
    }
}

/// Drafts with one model, decides with another.
pub struct Speculative {
    gamma: usize,
    choice: Choice,
    target: Box<dyn StepModel>,
    draft: Box<dyn StepModel>,
    /// Entries of each sequence in the draft's cache.
    draft_cached: HashMap<SeqId, usize>,
    ledger: Ledger,
}

/// What one advance does with one sequence.
struct Round {
    /// Index of the sequence.
    at: usize,
    /// Tokens to draft; 0 for a prompt.
    n_drafts: usize,
    /// Whether the draft model runs the prompt meanwhile.
    prefills_draft: bool,
    drafts: Vec<Draft>,
}

impl Speculative {
    /// A speculative decoder that keeps `target`'s output.
    pub fn new(
        spec: SpeculativeSpec,
        target: Box<dyn StepModel>,
        draft: Box<dyn StepModel>,
    ) -> Result<Speculative, SpecError> {
        spec.validate()?;
        if target.vocab() != draft.vocab() {
            return Err(SpecError::VocabDiffers { target: target.vocab(), draft: draft.vocab() });
        }
        let choice = spec.sampling.map_or(Choice::Greedy, Choice::Sampled);
        let ledger = Ledger::new(spec.gamma);
        Ok(Speculative { gamma: spec.gamma, choice, target, draft, draft_cached: HashMap::new(), ledger })
    }

    fn plan(&self, sequences: &[Sequence]) -> Vec<Round> {
        let live = sequences.iter().enumerate().filter(|(_, sequence)| sequence.finished().is_none());
        live.map(|(at, sequence)| {
            let is_prompt = sequence.generated().is_empty();
            let n_drafts = if is_prompt { 0 } else { self.gamma.min(sequence.remaining() - 1) };
            // drafts are of use only if two more tokens are wanted after the prompt's own
            Round { at, n_drafts, prefills_draft: is_prompt && sequence.remaining() > 2, drafts: vec![] }
        })
        .collect()
    }

    /// Method step 1.
    fn propose(&mut self, sequences: &mut [Sequence], rounds: &mut [Round]) -> Result<(), DecodeError> {
        for i in 0..self.gamma {
            let runs = |round: &Round| i < round.n_drafts || (i == 0 && round.prefills_draft);
            let mut running: Vec<&mut Round> = rounds.iter_mut().filter(|round| runs(round)).collect();
            if running.is_empty() {
                break;
            }
            let step_of = |round: &&mut Round| {
                let sequence = &sequences[round.at];
                let cached = self.draft_cached.get(&sequence.id()).copied().unwrap_or(0);
                match round.drafts.last() {
                    None => Step::extend(sequence.id(), cached, &sequence.tokens()[cached..]),
                    Some(last) => Step::extend(sequence.id(), cached, &[last.token]),
                }
            };
            let step = Step::batch(&running.iter().map(step_of).collect::<Vec<_>>());
            let logits = self.draft.forward(&step)?;
            for span in &step.spans {
                self.draft_cached.insert(span.seq, span.kv_len);
            }
            for (row, round) in running.iter_mut().enumerate().filter(|(_, round)| i < round.n_drafts) {
                let sequence = &mut sequences[round.at];
                let position = sequence.tokens().len() + i;
                let draft = self.choice.pick(logits.row(row), sequence);
                round.drafts.push(draft.map_err(|source| DecodeError::Logits {
                    model: "draft",
                    seq: sequence.id(),
                    position,
                    source,
                })?);
            }
        }
        Ok(())
    }

    /// Method steps 2 to 5.
    fn verify(&mut self, sequences: &mut [Sequence], rounds: &[Round]) -> Result<Vec<Verdict>, DecodeError> {
        let step_of = |round: &Round| {
            let sequence = &sequences[round.at];
            let mut tokens = sequence.uncached().to_vec();
            tokens.extend(round.drafts.iter().map(|draft| draft.token));
            let step = Step::extend(sequence.id(), sequence.cached(), &tokens);
            Step { logit_rows: (tokens.len() - 1 - round.drafts.len()..tokens.len()).collect(), ..step }
        };
        let step = Step::batch(&rounds.iter().map(step_of).collect::<Vec<_>>());
        let logits = self.target.forward(&step)?;
        let mut first_row = 0;
        let mut verdicts = Vec::with_capacity(rounds.len());
        for round in rounds {
            verdicts.push(self.choice.judge(logits, first_row, &round.drafts, &mut sequences[round.at])?);
            first_row += 1 + round.drafts.len();
        }
        Ok(verdicts)
    }

    /// Commits the verdicts and rolls both caches back to what was committed: method step 6.
    fn settle(&mut self, sequences: &mut [Sequence], rounds: &[Round], verdicts: &[Verdict]) -> Vec<Emitted> {
        let mut emitted = Vec::with_capacity(rounds.len());
        for (round, verdict) in rounds.iter().zip(verdicts) {
            let sequence = &mut sequences[round.at];
            let mut chosen: Vec<TokenId> = round.drafts[..verdict.accepted].iter().map(|draft| draft.token).collect();
            chosen.push(verdict.next);
            let tokens = sequence.commit(&chosen).to_vec();
            if !round.drafts.is_empty() {
                self.ledger.record(round.drafts.len(), verdict.accepted, tokens.len());
                self.target.truncate(sequence.id(), sequence.cached());
            }
            self.truncate_draft(sequence.id(), sequence.cached());
            emitted.push(Emitted { seq: sequence.id(), tokens });
        }
        emitted
    }

    /// Leaves at most `len` entries of `seq` in the draft's cache; it has fewer where its last draft was accepted.
    fn truncate_draft(&mut self, seq: SeqId, len: usize) {
        if let Some(cached) = self.draft_cached.get_mut(&seq).filter(|cached| **cached > len) {
            self.draft.truncate(seq, len);
            *cached = len;
        }
    }

    /// Forgets what a failed round put into the caches, so that it can be tried again.
    fn undo(&mut self, sequences: &[Sequence], rounds: &[Round]) {
        for sequence in rounds.iter().map(|round| &sequences[round.at]) {
            self.target.truncate(sequence.id(), sequence.cached());
            self.truncate_draft(sequence.id(), sequence.tokens().len() - 1);
        }
    }
}

impl Decoder for Speculative {
    fn advance(&mut self, sequences: &mut [Sequence]) -> Result<Vec<Emitted>, DecodeError> {
        let mut rounds = self.plan(sequences);
        if rounds.is_empty() {
            return Ok(vec![]);
        }
        match self.propose(sequences, &mut rounds).and_then(|()| self.verify(sequences, &rounds)) {
            Ok(verdicts) => Ok(self.settle(sequences, &rounds, &verdicts)),
            Err(error) => {
                self.undo(sequences, &rounds);
                Err(error)
            }
        }
    }

    fn ledger(&self) -> Option<&Ledger> {
        Some(&self.ledger)
    }

    fn release(&mut self, seq: SeqId) {
        self.target.truncate(seq, 0);
        self.draft.truncate(seq, 0);
        self.draft_cached.remove(&seq);
    }

    fn target(&self) -> &dyn StepModel {
        self.target.as_ref()
    }
}
