//! Many query rows over a cache that already holds their own keys.

use super::cache::{KvView, Rows};
use super::decode::{DecodeShape, DecodeWorkspace, Lengths, launch};
use super::heads::Heads;
use crate::{Buffer, GpuError};

/// Sizes of a prefill step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrefillShape {
    /// Query rows, of any sequences in any order.
    pub rows: usize,
    /// Heads and how scores are formed.
    pub heads: Heads,
}

/// `out = softmax(q·Kᵀ)·V` for `rows` rows, whose keys and values are in the cache already: row r sees the tokens 0 to
/// `positions[r]` of slot `slots[r]`, within the window.
///
/// `q` and `out`: rows of `[heads][dim]`.
pub fn prefill(
    shape: &PrefillShape,
    q: Rows<'_>,
    kv: &KvView<'_>,
    positions: &Buffer<i32>,
    slots: &Buffer<i32>,
    out: Rows<'_>,
) -> Result<(), GpuError> {
    let each = DecodeShape { sequences: shape.rows, q_rows: 1, max_length: kv.capacity(), heads: shape.heads };
    let workspace = DecodeWorkspace::with_splits(q.buffer.gpu(), &each, 1)?;
    launch(&each, q, kv, Lengths { buffer: positions, added: 1 }, Some(slots), out, &workspace)
}
