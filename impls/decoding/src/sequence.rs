//! One request as a decoder sees it: tokens so far, how many the target has cached, when to stop, its own randomness.

use model::{SeqId, TokenId};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use crate::Constraints;

/// Why a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// It has `max_new_tokens` new tokens.
    Length,
    /// Its last token is a stop token.
    Stop,
}

/// Tokens that one [`Decoder::advance`](crate::Decoder::advance) added to a sequence, in order, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emitted {
    /// The sequence.
    pub seq: SeqId,
    /// Its new tokens; a stop token is among them.
    pub tokens: Vec<TokenId>,
}

/// A whole continuation and how likely it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Hypothesis {
    /// Generated tokens; a stop token is the last.
    pub tokens: Vec<TokenId>,
    /// `sum_log_p / tokens^length_penalty`: what hypotheses are ordered by.
    pub score: f64,
    /// Sum of the tokens' natural log-probabilities.
    pub sum_log_p: f64,
    /// It ended at a stop token, not at the length limit.
    pub stopped: bool,
}

/// A sequence needs at least one token to predict from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the prompt of sequence {seq:?} has no tokens: give at least one (a beginning-of-text token will do)")]
pub struct EmptyPrompt {
    /// The sequence.
    pub seq: SeqId,
}

/// Prompt and generated tokens of one sequence.
///
/// Random numbers come from ChaCha8 keyed by the seed, on the stream numbered by the sequence: what a sequence draws
/// depends on nothing else, so its tokens do not depend on which others share its batch.
#[derive(Debug)]
pub struct Sequence {
    id: SeqId,
    tokens: Vec<TokenId>,
    n_prompt: usize,
    cached: usize,
    max_new_tokens: usize,
    stop: Vec<TokenId>,
    finished: Option<Finish>,
    constraints: Constraints,
    rng: ChaCha8Rng,
}

impl Sequence {
    /// A sequence that generates until a token of `stop` or `max_new_tokens`; with 0 of these it is already finished.
    pub fn new(
        id: SeqId,
        prompt: Vec<TokenId>,
        max_new_tokens: usize,
        stop: Vec<TokenId>,
        seed: u64,
    ) -> Result<Sequence, EmptyPrompt> {
        if prompt.is_empty() {
            return Err(EmptyPrompt { seq: id });
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(u64::from(id.0));
        let finished = (max_new_tokens == 0).then_some(Finish::Length);
        let (n_prompt, constraints) = (prompt.len(), Constraints::default());
        Ok(Sequence { id, n_prompt, tokens: prompt, cached: 0, max_new_tokens, stop, finished, constraints, rng })
    }

    /// The same sequence under `constraints`.
    pub fn constrained(self, constraints: Constraints) -> Sequence {
        Sequence { constraints, ..self }
    }

    /// Rules for its tokens.
    pub fn constraints(&self) -> &Constraints {
        &self.constraints
    }

    /// The token prescribed as the next after `n_generated`.
    pub fn prescribed(&self, n_generated: usize) -> Option<TokenId> {
        self.constraints.prescribed(n_generated, self.max_new_tokens)
    }

    /// `logits` of its next token as its rules change them; nothing where they change none.
    pub(crate) fn adjusted(&self, logits: &[f32]) -> Option<Vec<f32>> {
        if self.constraints.is_empty() {
            return None;
        }
        let mut scores = logits.to_vec();
        self.constraints.adjust(&self.tokens, self.n_prompt, &self.stop, &mut scores);
        Some(scores)
    }

    /// The sequence's number.
    pub fn id(&self) -> SeqId {
        self.id
    }

    /// Prompt and generated tokens.
    pub fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// Tokens of the prompt.
    pub fn n_prompt(&self) -> usize {
        self.n_prompt
    }

    /// Generated tokens, a final stop token included.
    pub fn generated(&self) -> &[TokenId] {
        &self.tokens[self.n_prompt..]
    }

    /// Entries in the target's cache: the first `cached` tokens.
    pub fn cached(&self) -> usize {
        self.cached
    }

    /// Tokens that the target has yet to see; one, except before the prompt was run.
    pub fn uncached(&self) -> &[TokenId] {
        &self.tokens[self.cached..]
    }

    /// Most tokens it may generate.
    pub fn max_new_tokens(&self) -> usize {
        self.max_new_tokens
    }

    /// Tokens it may still generate.
    pub fn remaining(&self) -> usize {
        self.max_new_tokens - self.generated().len()
    }

    /// Tokens that end it.
    pub fn stop(&self) -> &[TokenId] {
        &self.stop
    }

    /// Why it ended, if it did.
    pub fn finished(&self) -> Option<Finish> {
        self.finished
    }

    /// The next random number of this sequence, uniform in [0, 1) with 53 random bits.
    pub fn uniform(&mut self) -> f64 {
        self.rng.random()
    }

    /// Appends `chosen` up to the first stop token or the length limit and returns what was kept. The target then has
    /// every token cached but the last: the decoder makes that so.
    pub fn commit(&mut self, chosen: &[TokenId]) -> &[TokenId] {
        let before = self.tokens.len();
        for &token in chosen {
            if self.finished.is_some() {
                break;
            }
            self.tokens.push(token);
            if self.stop.contains(&token) {
                self.finished = Some(Finish::Stop);
            } else if self.remaining() == 0 {
                self.finished = Some(Finish::Length);
            }
        }
        self.cached = self.tokens.len() - 1;
        &self.tokens[before..]
    }
}
