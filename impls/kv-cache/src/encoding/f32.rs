//! What: keys and values as computed.
//!
//! Source: none needed; the reference of the encodings.
//! Shapes: a row of head_dim values is head_dim codes.
//! Method: copy in; tiles borrow the cache.
//! Exactness: bit-equal.
//! Cost: 4 bytes per value, nothing to decode.
//! Not handled: anything smaller.

use super::Encoding;

#[derive(Clone)]
pub(crate) struct F32;

impl Encoding for F32 {
    type Code = f32;

    fn row_codes(head_dim: usize) -> usize {
        head_dim
    }

    fn encode(row: &[f32], codes: &mut [f32]) {
        codes.copy_from_slice(row);
    }

    fn decode(codes: &[f32], _head_dim: usize, rows: &mut [f32]) {
        rows.copy_from_slice(codes);
    }

    fn as_rows(codes: &[f32]) -> Option<&[f32]> {
        Some(codes)
    }
}
