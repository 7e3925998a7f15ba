//! The loops of flash attention without their arithmetic: which query tiles there are and which keys each visits.
//! The kernels and the counters walk the same loops.

use std::ops::Range;

use model::{HeadShape, Span, Step};

use super::FlashSpec;
use crate::mask::reach;

/// Rows of one sequence for the query heads of one group.
#[derive(Clone, Debug)]
pub(crate) struct QueryTile {
    /// Span of the Step.
    pub(crate) span: usize,
    /// Group whose query heads are stacked; 0 to the spec's number of groups.
    pub(crate) group: usize,
    /// Rows of the Step.
    pub(crate) rows: Range<usize>,
    /// Entries to visit, starting at a multiple of `key_tile`; the end is the sequence's or the last visible one.
    pub(crate) keys: Range<usize>,
}

impl FlashSpec {
    /// Rows of the Step in a query tile.
    pub(crate) fn tile_rows(&self, shape: &HeadShape) -> usize {
        (self.query_tile / self.group(shape)).max(1)
    }

    /// Entries of a section: whole key tiles.
    fn section(&self) -> usize {
        if self.split == 0 { usize::MAX } else { self.key_tile * (self.split / self.key_tile).max(1) }
    }

    /// The query tiles of `step`, those of one sequence and group together; `len` gives the entries of a span.
    pub(crate) fn query_tiles(&self, shape: &HeadShape, step: &Step, len: impl Fn(usize) -> usize) -> Vec<QueryTile> {
        let mut tiles = vec![];
        for (span, Span { rows, .. }) in step.spans.iter().enumerate() {
            let len = len(span);
            for group in 0..self.groups(shape) {
                for start in rows.clone().step_by(self.tile_rows(shape)) {
                    let rows = start..(start + self.tile_rows(shape)).min(rows.end);
                    let keys = self.keys(shape, step, &step.spans[span], &rows, len);
                    tiles.push(QueryTile { span, group, rows, keys });
                }
            }
        }
        tiles
    }

    fn keys(&self, shape: &HeadShape, step: &Step, span: &Span, rows: &Range<usize>, len: usize) -> Range<usize> {
        if !self.causal_skip {
            return 0..len;
        }
        let seen = reach(step, span, shape, rows, len);
        seen.start / self.key_tile * self.key_tile..seen.end
    }

    /// `keys` cut at multiples of `key_tile`.
    pub(crate) fn key_tiles(&self, keys: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        cut(keys, self.key_tile)
    }

    /// `keys` cut at the starts of sections.
    pub(crate) fn sections(&self, keys: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        cut(keys, self.section())
    }
}

fn cut(keys: Range<usize>, every: usize) -> impl Iterator<Item = Range<usize>> {
    let first = keys.start / every;
    let after = if keys.is_empty() { first } else { keys.end.div_ceil(every) };
    (first..after).map(move |i| (i * every).max(keys.start)..(i + 1).saturating_mul(every).min(keys.end))
}
