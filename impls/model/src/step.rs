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
    /// Rows are nodes of token trees, one tree or more per sequence: a row sees every entry before the Step's rows of
    /// its sequence, its ancestors and itself.
    Tree(Tree),
}

/// A forest over the rows of a Step: every row's parent is an earlier row, or the cached past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    parents: Vec<Option<usize>>,
}

/// The parents of a token tree cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// A parent that is not an earlier row.
    #[error("token tree: row {row} names row {parent} as its parent; a parent must be an earlier row")]
    Order {
        /// The row.
        row: usize,
        /// What it names.
        parent: usize,
    },
    /// Not one parent per token.
    #[error("token tree: {tokens} tokens and {parents} parents; give one parent (or none, for a root) per token")]
    Length {
        /// Tokens given.
        tokens: usize,
        /// Parents given.
        parents: usize,
    },
}

impl Tree {
    /// A forest from each row's parent; `None` is the cached past.
    pub fn new(parents: &[Option<usize>]) -> Result<Tree, TreeError> {
        let late = parents.iter().enumerate().find_map(|(row, p)| p.filter(|p| *p >= row).map(|parent| (row, parent)));
        match late {
            Some((row, parent)) => Err(TreeError::Order { row, parent }),
            None => Ok(Tree { parents: parents.to_vec() }),
        }
    }

    /// The row that `row` continues.
    pub fn parent(&self, row: usize) -> Option<usize> {
        self.parents[row]
    }

    /// `row` and its ancestors, from `row` upwards: descending rows.
    pub fn path(&self, row: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(row), |row| self.parents[*row])
    }

    /// Ancestors of each row, in row order.
    pub fn depths(&self) -> impl Iterator<Item = usize> {
        (0..self.parents.len()).map(|row| self.path(row).count() - 1)
    }
}

impl Visibility {
    fn joined(steps: &[Step]) -> Visibility {
        let full = steps.iter().filter(|step| step.visibility == Visibility::Full).count();
        assert!(full == 0 || full == steps.len(), "Steps with full visibility can only be batched with their like");
        if full > 0 {
            return Visibility::Full;
        }
        if steps.iter().all(|step| step.visibility == Visibility::Causal) {
            return Visibility::Causal;
        }
        let mut parents = vec![];
        for step in steps {
            let base = parents.len();
            match &step.visibility {
                Visibility::Tree(tree) => parents.extend(tree.parents.iter().map(|p| p.map(|p| p + base))),
                _ => parents.extend(
                    step.spans.iter().flat_map(|s| s.rows.clone().map(|r| (r > s.rows.start).then(|| base + r - 1))),
                ),
            }
        }
        Visibility::Tree(Tree { parents })
    }
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

    /// A token tree of `seq` behind `start` cached entries: row i continues row `parents[i]`, or the last cached entry
    /// where that is `None`. Rows of one depth share a position. Logits for every row.
    pub fn tree(seq: SeqId, start: usize, tokens: &[TokenId], parents: &[Option<usize>]) -> Result<Step, TreeError> {
        let n = tokens.len();
        if n != parents.len() {
            return Err(TreeError::Length { tokens: n, parents: parents.len() });
        }
        let tree = Tree::new(parents)?;
        let mut step = Step::extend(seq, start, tokens).with_all_logits();
        step.positions = tree.depths().map(|depth| (start + depth) as u32).collect();
        step.visibility = Visibility::Tree(tree);
        Ok(step)
    }

    /// Several Steps as one: their rows follow each other, so independent sequences advance together. Beside trees,
    /// causal Steps become trees of one path, which is the same visibility.
    ///
    /// # Panics
    /// If only some of the Steps have full visibility: no row order could express that.
    pub fn batch(steps: &[Step]) -> Step {
        let mut all = Step {
            tokens: vec![],
            positions: vec![],
            spans: vec![],
            logit_rows: vec![],
            visibility: Visibility::Causal,
        };
        all.visibility = Visibility::joined(steps);
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
