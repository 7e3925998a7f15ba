//! A [`StepModel`] whose next-token distributions are a table, for tests and claims that need exact probabilities.
//!
//! It keeps the tokens it was shown instead of keys and values, so a decoder that loses count of positions, cache
//! lengths or roll-backs is caught at the Step where it does.

use std::collections::HashMap;

use model::{Activations, CacheFull, Room, SeqId, Span, Step, StepError, StepModel, TokenId, Visibility};

/// Next-token probabilities that depend on the last token (first-order Markov) or on nothing (i.i.d.).
#[derive(Debug, Clone)]
pub struct TableModel {
    vocab: usize,
    /// ln p, `[states, vocab]`; one state when i.i.d., else the last token is the state.
    log_p: Vec<f32>,
    cached: HashMap<SeqId, Vec<TokenId>>,
    capacity: usize,
    forks: bool,
    logits: Activations,
}

/// A table that holds no distributions.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TableError {
    /// A row has another length than the vocabulary.
    #[error("row {row} of the table has {found} probabilities, expected {expected}, one per token")]
    Length {
        /// The row.
        row: usize,
        /// Its length.
        found: usize,
        /// The vocabulary.
        expected: usize,
    },
    /// A row is not a distribution.
    #[error("row {row} of the table sums to {sum}: expected probabilities of at least 0 that sum to 1 within 1e-6")]
    NotADistribution {
        /// The row.
        row: usize,
        /// Its sum.
        sum: f64,
    },
}

impl TableModel {
    /// Every token is drawn from `p`, `[vocab]`.
    pub fn iid(p: &[f64]) -> Result<TableModel, TableError> {
        TableModel::new(p.len(), &[p.to_vec()])
    }

    /// The token after token t is drawn from `rows[t]`, `[vocab]` each, one row per token.
    pub fn markov(rows: &[Vec<f64>]) -> Result<TableModel, TableError> {
        TableModel::new(rows.len(), rows)
    }

    /// The same model with room for `capacity` entries per sequence.
    pub fn with_capacity(self, capacity: usize) -> TableModel {
        TableModel { capacity, ..self }
    }

    /// The same model, unable to fork a sequence.
    pub fn without_forks(self) -> TableModel {
        TableModel { forks: false, ..self }
    }

    /// Tokens of `seq` in the cache.
    pub fn cached(&self, seq: SeqId) -> &[TokenId] {
        self.cached.get(&seq).map_or(&[], Vec::as_slice)
    }

    fn new(vocab: usize, rows: &[Vec<f64>]) -> Result<TableModel, TableError> {
        for (row, p) in rows.iter().enumerate() {
            let sum: f64 = p.iter().sum();
            if p.len() != vocab {
                return Err(TableError::Length { row, found: p.len(), expected: vocab });
            }
            if p.iter().any(|&p| p.is_nan() || p < 0.0) || (sum - 1.0).abs() > 1e-6 {
                return Err(TableError::NotADistribution { row, sum });
            }
        }
        Ok(TableModel {
            vocab,
            log_p: rows.iter().flatten().map(|p| p.ln() as f32).collect(),
            cached: HashMap::new(),
            capacity: usize::MAX,
            forks: true,
            logits: Activations::default(),
        })
    }

    fn row_after(&self, token: TokenId) -> &[f32] {
        let state = if self.log_p.len() == self.vocab { 0 } else { token.0 as usize };
        &self.log_p[state * self.vocab..][..self.vocab]
    }
}

impl StepModel for TableModel {
    fn vocab(&self) -> usize {
        self.vocab
    }

    /// # Panics
    /// If the Step contradicts itself or what is cached: the decoder under test is wrong.
    fn forward(&mut self, step: &Step) -> Result<&Activations, StepError> {
        check_rows(step, self.vocab);
        for span in &step.spans {
            check_span(step, span, self.cached(span.seq).len());
            if span.kv_len > self.capacity {
                let (needed, capacity) = (span.kv_len, self.capacity);
                return Err(CacheFull { seq: span.seq, needed, capacity, limit: Room::Sequence }.into());
            }
        }
        for span in &step.spans {
            self.cached.entry(span.seq).or_default().extend_from_slice(&step.tokens[span.rows.clone()]);
        }
        let mut logits = std::mem::take(&mut self.logits);
        logits.reshape(step.logit_rows.len(), self.vocab);
        for (out, &row) in step.logit_rows.iter().enumerate() {
            logits.row_mut(out).copy_from_slice(self.row_after(step.tokens[row]));
        }
        self.logits = logits;
        Ok(&self.logits)
    }

    /// # Panics
    /// If fewer than `len` entries are cached: the decoder under test counts entries that are not there.
    fn truncate(&mut self, seq: SeqId, len: usize) {
        let cached = self.cached(seq).len();
        assert!(len <= cached, "truncate {seq:?} to {len}, but only {cached} entries are cached");
        if len == 0 {
            self.cached.remove(&seq);
        } else if let Some(tokens) = self.cached.get_mut(&seq) {
            tokens.truncate(len);
        }
    }

    fn fork(&mut self, from: SeqId, to: SeqId) -> bool {
        if self.forks {
            self.cached.insert(to, self.cached(from).to_vec());
        }
        self.forks
    }
}

fn check_rows(step: &Step, vocab: usize) {
    assert_eq!(step.visibility, Visibility::Causal, "a table sees causally");
    assert_eq!(step.positions.len(), step.rows(), "one position per row");
    assert!(step.tokens.iter().all(|token| (token.0 as usize) < vocab), "tokens are below the vocabulary of {vocab}");
    assert!(step.logit_rows.is_sorted_by(|a, b| a < b), "logit rows ascend");
    assert!(step.logit_rows.last().is_none_or(|&row| row < step.rows()), "logit rows lie in the Step");
    let mut next = 0;
    for span in &step.spans {
        assert_eq!(span.rows.start, next, "spans cover the rows in order");
        next = span.rows.end;
    }
    assert_eq!(next, step.rows(), "spans cover every row");
}

fn check_span(step: &Step, span: &Span, cached: usize) {
    let seq = span.seq;
    assert!(!span.rows.is_empty(), "{seq:?} has rows");
    assert_eq!(span.kv_len, cached + span.rows.len(), "{seq:?} has {cached} entries cached");
    let expected = cached as u32..span.kv_len as u32;
    assert!(
        step.positions[span.rows.clone()].iter().copied().eq(expected),
        "positions of {seq:?} continue at {cached}"
    );
}
