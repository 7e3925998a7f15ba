//! What: which keys a row sees, and the score functions that come before the softmax; shared by the variants.
//!
//! Source: Vaswani et al. 2017, §3.2.3 (causal); Beltagy et al. 2020, arXiv:2004.05150, §3.1 (window); Miao et al. 2023,
//! arXiv:2305.09781, §4.2 (token trees); Gemma Team 2024, arXiv:2408.00118, §2 (soft cap).
//! Shapes: positions `[keys]`, ascending among entries that are not rows of a tree; scores `[rows, keys]`, a row a time.
//! Method: what a row sees is one range of a tile, found by bisection; in a tree, entries of that range which are not on
//! the row's path are struck out with −∞.
//! Exactness: exact (integers); the cap is f32 `tanh`.
//! Cost: O(log keys) per row and tile, and O(rows) per tile that holds rows of a tree.
//! Not handled: masks that are neither of these.

use std::ops::Range;

use model::{HeadShape, Span, Step, Visibility};

/// What one row of a Step sees of its sequence.
pub(crate) struct Sight<'a> {
    visibility: &'a Visibility,
    window: Option<usize>,
    position: u32,
    row: usize,
    first_row: usize,
    /// Entries before the Step's rows.
    past: usize,
}

impl<'a> Sight<'a> {
    /// `len` is the number of cached entries of the span's sequence.
    pub(crate) fn new(step: &'a Step, span: &Span, window: Option<usize>, row: usize, len: usize) -> Sight<'a> {
        let past = len.saturating_sub(span.rows.len());
        let (visibility, position) = (&step.visibility, step.positions[row]);
        Sight { visibility, window, position, row, first_row: span.rows.start, past }
    }

    /// The range of a tile that the row sees; in a tree, some entries in it may be struck out.
    pub(crate) fn range(&self, first: usize, positions: &[u32]) -> Range<usize> {
        let end = match self.visibility {
            Visibility::Full => return 0..positions.len(),
            Visibility::Tree(_) => {
                (self.past + self.row - self.first_row + 1).saturating_sub(first).min(positions.len())
            }
            _ => match positions.last() {
                Some(&last) if last <= self.position => positions.len(),
                _ => positions.partition_point(|&key| key <= self.position),
            },
        };
        let old = self.past.saturating_sub(first).min(end);
        let ascending = if matches!(self.visibility, Visibility::Tree(_)) { old } else { end };
        let start = positions[..ascending].partition_point(|&key| self.is_outside(key));
        start..end
    }

    fn is_outside(&self, key: u32) -> bool {
        self.window.is_some_and(|window| key as usize + window <= self.position as usize)
    }

    /// Sets scores of entries off the row's path to −∞; `scores` and `positions` start at entry `first`.
    pub(crate) fn strike(&self, first: usize, positions: &[u32], scores: &mut [f32]) {
        let Visibility::Tree(tree) = self.visibility else { return };
        let mut path = tree.path(self.row).peekable();
        for (i, (score, position)) in scores.iter_mut().zip(positions).enumerate().rev() {
            let Some(row) = (first + i).checked_sub(self.past).map(|at| at + self.first_row) else { break };
            while path.next_if(|on_path| *on_path > row).is_some() {}
            if path.peek() != Some(&row) || self.is_outside(*position) {
                *score = f32::NEG_INFINITY;
            }
        }
    }
}

/// Entries of a sequence of `len` outside which no row of `rows` sees a key, from positions alone.
///
/// Positions of entries ascend and the newest entry has the position of the span's last row at most, so entry e has a
/// position in e ..= newest − (len − 1 − e): bounds that hold for caches with gaps, and are tight for those without.
/// The rows of a tree come after every other entry, and a row sees none behind itself.
pub(crate) fn reach(step: &Step, span: &Span, shape: &HeadShape, rows: &Range<usize>, len: usize) -> Range<usize> {
    let least = |rows: Range<usize>| step.positions[rows].iter().copied().min().unwrap_or(0) as usize;
    let (end, known, newest) = match &step.visibility {
        Visibility::Full => return 0..len,
        Visibility::Tree(_) => {
            let past = len.saturating_sub(span.rows.len());
            let first = least(span.rows.clone());
            (past + rows.end - span.rows.start, past, first.saturating_sub(1))
        }
        _ => {
            let newest = step.positions[span.rows.end - 1] as usize;
            (len.min(step.positions[rows.end - 1] as usize + 1), len, newest)
        }
    };
    let start = match shape.window {
        None => 0,
        Some(window) => (least(rows.clone()) + known).saturating_sub(window + newest).min(known),
    };
    start.min(end)..end
}

/// `factor · cap · tanh(score / cap)` on each score.
pub(crate) fn soft_cap(cap: f32, factor: f32, scores: &mut [f32]) {
    for score in scores {
        *score = cap * factor * (*score / cap).tanh();
    }
}
