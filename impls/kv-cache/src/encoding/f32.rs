//! What: keys and values as computed.
//!
//! Source: none needed; the reference of the encodings.
//! Shapes: a row of head_dim values is head_dim codes.
//! Method: copy in; tiles borrow the cache.
//! Exactness: bit-equal.
//! Cost: 4 bytes per value, nothing to decode.
//! Not handled: anything smaller.

use cpu_kernels::attention::Codes;

use super::Encoding;

#[derive(Clone)]
pub(crate) struct F32;

impl Encoding for F32 {
    type Code = f32;
    const HAS_SCALE: bool = false;

    fn encode(row: &[f32], codes: &mut [f32]) -> f32 {
        codes.copy_from_slice(row);
        1.0
    }

    fn codes<'a>(codes: &'a [f32], _: &'a [f32]) -> Codes<'a> {
        Codes::F32(codes)
    }
}
