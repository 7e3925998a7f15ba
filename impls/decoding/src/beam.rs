//! **What** Beam search: the `n` most likely continuations found side by side; the best by length-normalised score wins.
//! **Source** Graves 2012; the rules are those of Hugging Face's `generate(num_beams=n)`, Vaswani et al. 2017 use n = 4.
//! **Shapes** logits `[beams of all sequences, vocab]` per Step -> at the end one hypothesis list per sequence.
//! **Method** 1. one batched Step over every beam of every sequence; 2. the `max(2, 1 + stops)·n` best (beam, token) pairs
//!   by summed log-probability; 3. a pair that ends (stop token or length limit) is finished if it is among the first n;
//!   the n best finished ones stay, by sum / tokens^length_penalty; 4. the n best others go on: a parent's first child
//!   keeps its cache, further ones fork it; 5. stop at the length limit, or with n finished ones when stopping early or
//!   when the best running sum / tokens^length_penalty is not above the worst of them.
//! **Exactness** not greedy's tokens, except n = 1; exhaustive where n reaches the number of continuations. Equal scores:
//!   the better beam first, then the lower token id.
//! **Cost** n rows per token and the weights once; `n·vocab` exponentials; per fork one copy of a sequence's cache, or its
//!   tokens again where the cache cannot be copied. Tokens are emitted at the end. No ledger: nothing is drafted.
//! **Not handled** diverse beams, beams forced through words, early stopping "never".

use std::cmp::Ordering;
use std::collections::HashMap;

use model::{Activations, CacheFull, SeqId, Step, StepError, StepModel, TokenId};
use serde::{Deserialize, Serialize};

use crate::{DecodeError, Decoder, Emitted, Hypothesis, Ledger, Sequence, SpecError, sampling};

/// How wide to search and how to compare hypotheses of different lengths.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BeamSpec {
    /// Hypotheses kept side by side, 1 to 256; 1 is greedy decoding.
    pub n_beams: usize,
    /// Exponent of the length in `sum of log-probabilities / tokens^length_penalty`; larger favours longer ones.
    pub length_penalty: f64,
    /// Stop as soon as `n_beams` hypotheses are finished, even if a running one could still beat them.
    pub early_stopping: bool,
}

impl Default for BeamSpec {
    fn default() -> BeamSpec {
        BeamSpec { n_beams: 4, length_penalty: 1.0, early_stopping: false }
    }
}

impl BeamSpec {
    /// Checks every field's range.
    pub fn validate(&self) -> Result<(), SpecError> {
        if !(1..=256).contains(&self.n_beams) {
            let value = self.n_beams.to_string();
            return Err(SpecError::OutOfRange { field: "n_beams", value, expected: "1 to 256 beams" });
        }
        if !(-16.0..=16.0).contains(&self.length_penalty) {
            let value = self.length_penalty.to_string();
            return Err(SpecError::OutOfRange { field: "length_penalty", value, expected: "a number in [-16, 16]" });
        }
        Ok(())
    }

    /// The spec in a few letters: `n4`, `n4-lp0.6`, `n4-early`; defaults but the width are left out.
    pub fn tag(&self) -> String {
        let penalty = if self.length_penalty == 1.0 { String::new() } else { format!("-lp{}", self.length_penalty) };
        format!("n{}{penalty}{}", self.n_beams, if self.early_stopping { "-early" } else { "" })
    }

    fn score(&self, sum_log_p: f64, n_tokens: usize) -> f64 {
        sum_log_p / (n_tokens as f64).powf(self.length_penalty)
    }
}

/// A running hypothesis.
#[derive(Debug, Clone)]
struct Running {
    /// Where its keys and values lie.
    seq: SeqId,
    /// Entries of its cache.
    cached: usize,
    generated: Vec<TokenId>,
    sum_log_p: f64,
}

/// A running hypothesis and a next token.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    sum_log_p: f64,
    parent: usize,
    logit: f32,
    token: TokenId,
}

impl Candidate {
    /// Best first.
    fn order(&self, other: &Candidate) -> Ordering {
        let by_score = other.sum_log_p.total_cmp(&self.sum_log_p).then(self.parent.cmp(&other.parent));
        // within a beam rounding of the sum may hide which logit is larger
        by_score.then(other.logit.total_cmp(&self.logit)).then(self.token.cmp(&other.token))
    }
}

/// The search for one sequence.
#[derive(Debug, Default)]
struct Search {
    running: Vec<Running>,
    /// At most `n_beams`, best first.
    finished: Vec<Hypothesis>,
    /// Cache sequences of beams that did not survive.
    spare: Vec<SeqId>,
}

/// Keeps several hypotheses per sequence.
pub struct Beam {
    spec: BeamSpec,
    target: Box<dyn StepModel>,
    searches: HashMap<SeqId, Search>,
    /// Cache sequences of released searches; new ones are numbered downwards from the largest id.
    spare: Vec<SeqId>,
    next: u32,
}

impl Beam {
    /// A beam-search decoder over `target`. It numbers the caches of its beams downwards from the largest `SeqId`, so
    /// sequences are numbered from 0.
    pub fn new(spec: BeamSpec, target: Box<dyn StepModel>) -> Result<Beam, SpecError> {
        spec.validate()?;
        Ok(Beam { spec, target, searches: HashMap::new(), spare: vec![], next: u32::MAX })
    }

    /// Method step 1; rows follow the beams of `live` in order.
    fn pass(&mut self, sequences: &[Sequence], live: &[usize]) -> Result<&Activations, DecodeError> {
        let mut steps = vec![];
        for sequence in live.iter().map(|&at| &sequences[at]) {
            let search = self.searches.entry(sequence.id()).or_default();
            if search.running.is_empty() {
                let start = Running { seq: sequence.id(), cached: 0, generated: vec![], sum_log_p: 0.0 };
                search.running.push(start);
            }
            for beam in &search.running {
                let all: Vec<TokenId> = [sequence.tokens(), &beam.generated].concat();
                steps.push(Step::extend(beam.seq, beam.cached, &all[beam.cached..]));
            }
        }
        let searches = &self.searches;
        self.target.forward(&Step::batch(&steps)).map_err(|e| {
            let StepError::CacheFull(full) = e else { return e.into() };
            let owns = |id: &SeqId| searches[id].running.iter().any(|beam| beam.seq == full.seq);
            let owner = live.iter().map(|&at| sequences[at].id()).find(owns);
            CacheFull { seq: owner.unwrap_or(full.seq), ..full }.into()
        })
    }

    /// Undoes what a failed pass put into the caches, so that it can be tried again.
    fn undo(&mut self, sequences: &[Sequence], live: &[usize]) {
        for search in live.iter().filter_map(|&at| self.searches.get(&sequences[at].id())) {
            search.running.iter().for_each(|beam| self.target.truncate(beam.seq, beam.cached));
        }
    }

    /// Method step 4: the caches follow the hypotheses.
    fn move_on(&mut self, id: SeqId, n_prompt: usize, survivors: &[Candidate]) {
        let Some(mut search) = self.searches.remove(&id) else { return };
        search.running.iter_mut().for_each(|beam| beam.cached = n_prompt + beam.generated.len());
        for (at, beam) in search.running.iter().enumerate() {
            if !survivors.iter().any(|s| s.parent == at) {
                self.target.truncate(beam.seq, 0);
                search.spare.push(beam.seq);
            }
        }
        let mut kept = vec![false; search.running.len()];
        let mut next = Vec::with_capacity(survivors.len());
        for survivor in survivors {
            let parent = &search.running[survivor.parent];
            let mut child = Running { sum_log_p: survivor.sum_log_p, ..parent.clone() };
            child.generated.push(survivor.token);
            if std::mem::replace(&mut kept[survivor.parent], true) {
                child.seq = search.spare.pop().or_else(|| self.spare.pop()).unwrap_or_else(|| {
                    self.next -= 1;
                    SeqId(self.next + 1)
                });
                if !self.target.fork(parent.seq, child.seq) {
                    child.cached = 0;
                }
            }
            next.push(child);
        }
        search.running = next;
        self.searches.insert(id, search);
    }
}

/// Method step 2: the best continuations of `running`, whose logits start at `first_row`.
fn candidates(
    running: &[Running],
    logits: &Activations,
    first_row: usize,
    n: usize,
    sequence: &Sequence,
) -> Result<Vec<Candidate>, DecodeError> {
    let mut all = Vec::with_capacity(running.len() * logits.cols());
    for (parent, beam) in running.iter().enumerate() {
        let row = logits.row(first_row + parent);
        let most = sampling::argmax(row).map_err(|source| DecodeError::Logits {
            model: "target",
            seq: sequence.id(),
            position: sequence.tokens().len() + beam.generated.len(),
            source,
        })?;
        let most = f64::from(row[most.0 as usize]);
        if let Some(token) = sequence.prescribed(beam.generated.len()) {
            let logit = row.get(token.0 as usize).copied().unwrap_or(f32::NEG_INFINITY);
            all.push(Candidate { sum_log_p: beam.sum_log_p, parent, logit, token });
            continue;
        }
        let log_total = row.iter().map(|&v| (f64::from(v) - most).exp()).sum::<f64>().ln() + most;
        let (adjusted, log_total) = adjusted(sequence, &beam.generated, row, log_total);
        let row = adjusted.as_deref().unwrap_or(row);
        let possible = row.iter().enumerate().filter(|(_, logit)| **logit > f32::NEG_INFINITY);
        all.extend(possible.map(|(token, &logit)| {
            let sum_log_p = beam.sum_log_p + (f64::from(logit) - log_total);
            Candidate { sum_log_p, parent, logit, token: TokenId(token as u32) }
        }));
    }
    if all.len() > n {
        all.select_nth_unstable_by(n - 1, Candidate::order);
        all.truncate(n);
    }
    all.sort_unstable_by(Candidate::order);
    Ok(all)
}

/// `row` as the rules of `sequence` change it behind `generated`, where they do, and what is taken from it to give
/// log-probabilities. A penalty is one on log-probabilities, as in the reference.
fn adjusted(sequence: &Sequence, generated: &[TokenId], row: &[f32], log_total: f64) -> (Option<Vec<f32>>, f64) {
    let rules = sequence.constraints();
    if rules.is_empty() {
        return (None, log_total);
    }
    let (mut scores, rest): (Vec<f32>, f64) = match rules.repetition_penalty {
        Some(_) => (row.iter().map(|&v| (f64::from(v) - log_total) as f32).collect(), 0.0),
        None => (row.to_vec(), log_total),
    };
    let tokens = [sequence.tokens(), generated].concat();
    rules.adjust(&tokens, sequence.n_prompt(), sequence.stop(), &mut scores);
    (Some(scores), rest)
}

impl Search {
    /// Method step 3; gives back those that go on.
    fn finish(&mut self, spec: &BeamSpec, best: &[Candidate], sequence: &Sequence) -> Vec<Candidate> {
        let n_tokens = self.running[0].generated.len() + 1;
        let at_limit = n_tokens == sequence.max_new_tokens();
        let mut going_on = vec![];
        for (rank, candidate) in best.iter().enumerate() {
            let stopped = sequence.stop().contains(&candidate.token);
            if !stopped && !at_limit {
                going_on.push(*candidate);
            } else if rank < spec.n_beams {
                let mut tokens = self.running[candidate.parent].generated.clone();
                tokens.push(candidate.token);
                let score = spec.score(candidate.sum_log_p, n_tokens);
                self.finished.push(Hypothesis { tokens, score, sum_log_p: candidate.sum_log_p, stopped });
            }
        }
        // stable: an earlier hypothesis stays before a later one of equal score
        self.finished.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.finished.truncate(spec.n_beams);
        going_on.truncate(spec.n_beams);
        going_on
    }

    /// Method step 5.
    fn is_over(&self, spec: &BeamSpec, going_on: &[Candidate]) -> bool {
        let Some(best) = going_on.first() else { return true };
        let n_tokens = self.running[0].generated.len() + 1;
        let worst = self.finished.last().map_or(f64::NEG_INFINITY, |worst| worst.score);
        self.finished.len() == spec.n_beams && (spec.early_stopping || spec.score(best.sum_log_p, n_tokens) <= worst)
    }
}

impl Decoder for Beam {
    fn advance(&mut self, sequences: &mut [Sequence]) -> Result<Vec<Emitted>, DecodeError> {
        let live: Vec<usize> = (0..sequences.len()).filter(|&i| sequences[i].finished().is_none()).collect();
        if live.is_empty() {
            return Ok(vec![]);
        }
        let logits = match self.pass(sequences, &live) {
            Ok(logits) => logits.clone(),
            Err(error) => {
                self.undo(sequences, &live);
                return Err(error);
            }
        };
        let mut first_row = 0;
        let mut chosen = vec![];
        for &at in &live {
            let (sequence, running) = (&sequences[at], &self.searches[&sequences[at].id()].running);
            let n = self.spec.n_beams * (1 + sequence.stop().len()).max(2);
            match candidates(running, &logits, first_row, n, sequence) {
                Ok(best) => chosen.push(best),
                Err(error) => {
                    self.undo(sequences, &live);
                    return Err(error);
                }
            }
            first_row += running.len();
        }
        let mut emitted = vec![];
        for (&at, best) in live.iter().zip(chosen) {
            let sequence = &mut sequences[at];
            let Some(search) = self.searches.get_mut(&sequence.id()) else { continue };
            let going_on = search.finish(&self.spec, &best, sequence);
            if !search.is_over(&self.spec, &going_on) {
                self.move_on(sequence.id(), sequence.n_prompt(), &going_on);
            } else if let Some(best) = search.finished.first() {
                let tokens = sequence.commit(&best.tokens).to_vec();
                emitted.push(Emitted { seq: sequence.id(), tokens });
            }
        }
        Ok(emitted)
    }

    fn ledger(&self) -> Option<&Ledger> {
        None
    }

    fn obeys_constraints(&self) -> bool {
        true
    }

    fn hypotheses(&self, seq: SeqId) -> &[Hypothesis] {
        self.searches.get(&seq).map_or(&[], |search| &search.finished)
    }

    fn release(&mut self, seq: SeqId) {
        let Some(search) = self.searches.remove(&seq) else { return };
        for own in search.running.iter().map(|beam| beam.seq).chain(search.spare) {
            self.target.truncate(own, 0);
            if own != seq {
                self.spare.push(own);
            }
        }
    }

    fn target(&self) -> &dyn StepModel {
        self.target.as_ref()
    }
}
