//! The loops of flash attention without their arithmetic: which query tiles there are and which keys each visits.
//! The kernels and the counters walk the same loops.

use std::ops::Range;

use model::{HeadShape, Span, Step};

use super::FlashSpec;
use crate::mask::reach;

/// Entries after which a fresh accumulator starts, about this many. The partition is by entry, never by threads or
/// rows, so that spreading it over threads changes no bit.
const SECTION: usize = 1024;

/// Rows of one sequence for the query heads of one KV head.
#[derive(Clone, Debug)]
pub(crate) struct QueryTile {
    /// Span of the Step.
    pub(crate) span: usize,
    /// KV head; its group's query heads are stacked.
    pub(crate) kv_head: usize,
    /// Rows of the Step.
    pub(crate) rows: Range<usize>,
    /// Entries to visit, starting at a multiple of `key_tile`; the end is the sequence's or the last visible one.
    pub(crate) keys: Range<usize>,
}

impl FlashSpec {
    /// Rows of the Step in a query tile.
    pub(crate) fn tile_rows(&self, shape: &HeadShape) -> usize {
        (self.query_tile / shape.group()).max(1)
    }

    /// Entries of a section: whole key tiles.
    fn section(&self) -> usize {
        self.key_tile * (SECTION / self.key_tile).max(1)
    }

    /// The query tiles of `step`, those of one sequence and KV head together; `len` gives the entries of a span.
    pub(crate) fn query_tiles(&self, shape: &HeadShape, step: &Step, len: impl Fn(usize) -> usize) -> Vec<QueryTile> {
        let mut tiles = vec![];
        for (span, Span { rows, .. }) in step.spans.iter().enumerate() {
            let len = len(span);
            for kv_head in 0..shape.n_kv_heads {
                for start in rows.clone().step_by(self.tile_rows(shape)) {
                    let rows = start..(start + self.tile_rows(shape)).min(rows.end);
                    let newest = step.positions[step.spans[span].rows.end - 1];
                    let keys = self.keys(shape, step, &rows, len, newest);
                    tiles.push(QueryTile { span, kv_head, rows, keys });
                }
            }
        }
        tiles
    }

    fn keys(&self, shape: &HeadShape, step: &Step, rows: &Range<usize>, len: usize, newest: u32) -> Range<usize> {
        if !self.causal_skip {
            return 0..len;
        }
        let (first, last) = (step.positions[rows.start], step.positions[rows.end - 1]);
        let seen = reach(&step.visibility, shape, len, (first, last), newest);
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
    (first..after).map(move |i| (i * every).max(keys.start)..((i + 1) * every).min(keys.end))
}
