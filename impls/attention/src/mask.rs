//! What: which keys a row sees, and the score functions that come before the softmax; shared by the variants.
//!
//! Source: Vaswani et al. 2017, §3.2.3 (causal); Beltagy et al. 2020, arXiv:2004.05150, §3.1 (window); Gemma Team 2024,
//! arXiv:2408.00118, §2 (soft cap).
//! Shapes: positions `[keys]` ascending; scores `[rows, keys]`, one row at a time.
//! Method: positions ascend, so what a row sees is one range of a tile, found by bisection.
//! Exactness: exact (integers); the cap is f32 `tanh`.
//! Cost: O(log keys) per row and tile.
//! Not handled: token trees.

use std::ops::Range;

use model::{HeadShape, Visibility};

/// The keys of `positions` that a row at `position` sees: key ≤ position, and key > position − window.
pub(crate) fn visible(
    visibility: &Visibility,
    window: Option<usize>,
    position: u32,
    positions: &[u32],
) -> Range<usize> {
    match visibility {
        Visibility::Causal => {}
        Visibility::Full => return 0..positions.len(),
        other => panic!("attention variants handle causal and full visibility, not {other:?}"),
    }
    let end = match positions.last() {
        Some(&last) if last <= position => positions.len(),
        _ => positions.partition_point(|&key| key <= position),
    };
    let start = match window {
        None => 0,
        Some(window) => positions.partition_point(|&key| key as usize + window <= position as usize),
    };
    start.min(end)..end
}

/// Entries of a sequence outside which no row of `rows` sees a key, from positions alone.
///
/// Positions of entries ascend and the newest entry has the position of the span's last row at most, so entry e has a
/// position in e ..= newest − (len − 1 − e): bounds that hold for caches with gaps, and are tight for those without.
pub(crate) fn reach(
    visibility: &Visibility,
    shape: &HeadShape,
    len: usize,
    (first, last): (u32, u32),
    newest: u32,
) -> Range<usize> {
    if !matches!(visibility, Visibility::Causal) {
        return 0..len;
    }
    let end = len.min(last as usize + 1);
    let start = match shape.window {
        None => 0,
        Some(window) => (first as usize + len).saturating_sub(window + newest as usize),
    };
    start.min(end)..end
}

/// `cap · tanh(score / cap)` on each score.
pub(crate) fn soft_cap(cap: f32, scores: &mut [f32]) {
    for score in scores {
        *score = cap * (*score / cap).tanh();
    }
}
