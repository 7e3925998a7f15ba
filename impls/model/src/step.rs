//! The single input of a forward pass: which tokens, of which sequences, at which positions.

use std::ops::Range;

/// A token of the vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct TokenId(pub u32);

/// A sequence that a KV cache keeps keys and values for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeqId(pub u32);

/// Consecutive rows of a Step that belong to one sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The sequence.
    pub seq: SeqId,
    /// Its rows in the Step, in position order.
    pub rows: Range<usize>,
    /// Keys of the sequence in the cache once these rows are appended.
    pub kv_len: usize,
}

/// Which keys a row may see among those of its own sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Visibility {
    /// Keys whose position is not larger than the row's own.
    Causal,
    /// Every key of its sequence: an encoder, and a decoder's look at the encoder.
    Full,
}

/// A planned forward pass over `rows` tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// One token per row.
    pub tokens: Vec<TokenId>,
    /// Position of each row in its sequence.
    pub positions: Vec<u32>,
    /// Rows grouped by sequence; together they cover every row once, in order.
    pub spans: Vec<Span>,
    /// Rows whose logits are wanted, ascending.
    pub logit_rows: Vec<usize>,
    /// What a row may see.
    pub visibility: Visibility,
}

impl Step {
    /// `tokens` of one sequence, the first at position `start`; logits for the last row only.
    pub fn extend(seq: SeqId, start: usize, tokens: &[TokenId]) -> Step {
        let n = tokens.len();
        Step {
            tokens: tokens.to_vec(),
            positions: (start..start + n).map(|p| p as u32).collect(),
            spans: vec![Span { seq, rows: 0..n, kv_len: start + n }],
            logit_rows: if n == 0 { vec![] } else { vec![n - 1] },
            visibility: Visibility::Causal,
        }
    }

    /// The same Step with logits for every row.
    pub fn with_all_logits(mut self) -> Step {
        self.logit_rows = (0..self.rows()).collect();
        self
    }

    /// Several Steps as one: their rows follow each other, so independent sequences advance together.
    pub fn batch(steps: &[Step]) -> Step {
        let mut all = Step {
            tokens: vec![],
            positions: vec![],
            spans: vec![],
            logit_rows: vec![],
            visibility: Visibility::Causal,
        };
        for step in steps {
            let base = all.rows();
            all.tokens.extend_from_slice(&step.tokens);
            all.positions.extend_from_slice(&step.positions);
            all.logit_rows.extend(step.logit_rows.iter().map(|r| r + base));
            all.spans
                .extend(step.spans.iter().map(|s| Span { rows: s.rows.start + base..s.rows.end + base, ..s.clone() }));
        }
        all
    }

    /// Number of rows (tokens) of the Step.
    pub fn rows(&self) -> usize {
        self.tokens.len()
    }
}
