//! What: keys and values as signed bytes with one f32 scale per entry and head.
//!
//! Source: symmetric round-to-nearest with the scale max|x|/127, per token and head as in Sheng et al. 2023,
//! arXiv:2303.06865, §4 (there in groups, 4 bit).
//! Shapes: a row of values is as many codes and one scale.
//! Method: scale = max|x|/127; code = round(x/scale), ties to even; a row of zeros has scale 0.
//! Exactness: |stored − given| ≤ max|row|/254 and rounding: relative to the row's largest value 0.00394.
//! Cost: 1 byte per value and 4 per row: 1.06 bytes at 64 features; each read decodes once per query tile.
//! Not handled: outlier channels of keys (one scale spans all channels of a head), zero points.

use cpu_kernels::attention::Codes;

use super::Encoding;

#[derive(Clone)]
pub(crate) struct Int8;

impl Int8 {
    /// Half a step over the row's largest value, and what the division and the product round.
    pub(crate) const RELATIVE_ERROR: f32 = 0.5 / 127.0 + 1e-6;
}

impl Encoding for Int8 {
    type Code = i8;
    const HAS_SCALE: bool = true;

    fn encode(row: &[f32], codes: &mut [i8]) -> f32 {
        let scale = row.iter().fold(0.0f32, |most, x| most.max(x.abs())) / 127.0;
        let steps = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        for (code, x) in codes.iter_mut().zip(row) {
            *code = (x * steps).round_ties_even() as i8;
        }
        scale
    }

    fn codes<'a>(codes: &'a [i8], scales: &'a [f32]) -> Codes<'a> {
        Codes::Int8 { codes, scales }
    }
}
