//! What: the codes of ggml's Q4_0 and Q8_0, 32 columns to a scale, so that both engines multiply the same weights.
//! Source: ggml's reference quantization, as its Python package `gguf` publishes it.
//! Shapes: weight `[n, k]` → codes `[n, k]` of 4 or 8 bits, scales `[n, ⌈k/32⌉]`, one zero (8 or 128) for all.
//! Method: Q4_0: 1. d = the value of largest magnitude (the first of equals) / −8. 2. code = ⌊w/d + 8.5⌋, at most 15.
//!   Q8_0: 1. d = max |w| / 127. 2. code = 128 + w/d rounded, halves away from zero. Both divide by the inverse of d in f32.
//! Exactness: bit-equal to the reference; d is rounded to f16 after the codes were chosen with it, as there.
//! Cost: two passes over the weights; 4.5 and 8.5 bits per weight.
//! Not handled: scales beyond f16, other block types.

use cpu_kernels::GroupCodes;
use ndarray::ArrayView2;

use super::{QuantizeError, Quantized, Quantizer, require_finite};
use crate::CalibrationStats;

/// Columns that share a scale.
const BLOCK: usize = 32;

/// Q4_0.
#[derive(Debug, Clone, Copy)]
pub struct Q4_0;

/// Q8_0.
#[derive(Debug, Clone, Copy)]
pub struct Q8_0;

impl Quantizer for Q4_0 {
    fn quantize(&self, weight: ArrayView2<f32>, _stats: Option<&CalibrationStats>) -> Result<Quantized, QuantizeError> {
        blocks(weight, 4, |values| {
            let extreme = values.iter().fold(0f32, |most, &w| if w.abs() > most.abs() { w } else { most });
            let (d, inverse) = with_inverse(extreme / -8.0);
            (d, move |w| ((w * inverse + 8.5) as u8).min(15))
        })
    }
}

impl Quantizer for Q8_0 {
    fn quantize(&self, weight: ArrayView2<f32>, _stats: Option<&CalibrationStats>) -> Result<Quantized, QuantizeError> {
        blocks(weight, 8, |values| {
            let (d, inverse) = with_inverse(values.iter().fold(0f32, |most, w| most.max(w.abs())) / 127.0);
            (d, move |w| ((w * inverse).round() + 128.0) as u8)
        })
    }
}

/// d and 1/d, or zeros where there is nothing to scale.
fn with_inverse(d: f32) -> (f32, f32) {
    (d, if d == 0.0 { 0.0 } else { 1.0 / d })
}

/// Codes by what `fit` says of each block: its scale and the code of a value.
fn blocks<C: Fn(f32) -> u8>(
    weight: ArrayView2<f32>,
    bits: u8,
    fit: impl Fn(&[f32]) -> (f32, C),
) -> Result<Quantized, QuantizeError> {
    require_finite(weight)?;
    let (n, k) = weight.dim();
    let mut codes = Vec::with_capacity(n * k);
    let mut scales = Vec::with_capacity(n * k.div_ceil(BLOCK));
    let mut row = vec![0f32; k];
    for weights in weight.rows() {
        row.iter_mut().zip(weights).for_each(|(to, &w)| *to = w);
        for values in row.chunks(BLOCK) {
            let (d, code) = fit(values);
            scales.push(d);
            codes.extend(values.iter().map(|&w| code(w)));
        }
    }
    let zeros = vec![f32::from(1u8 << (bits - 1)); scales.len()];
    Ok(Quantized::Group(GroupCodes { n, k, bits, group: BLOCK, codes, scales, zeros, order: None }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes_and_scale(quantizer: &dyn Quantizer, values: &[f32]) -> (Vec<u8>, f32) {
        let view = ArrayView2::from_shape((1, values.len()), values).expect("one row");
        match quantizer.quantize(view, None) {
            Ok(Quantized::Group(codes)) => (codes.codes, codes.scales[0]),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn blocks_worked_out_by_hand() {
        // d = −4/8 = −0.5 (so the extreme becomes code 16, cut to 15): 1 → −2 + 8.5, 4 → −8 + 8.5
        let extreme_is_positive = codes_and_scale(&Q4_0, &[1.0, 4.0, -3.75, 0.0, 0.26]);
        assert_eq!(extreme_is_positive, (vec![6, 0, 15, 8, 7], -0.5));
        assert_eq!(codes_and_scale(&Q4_0, &[-8.0, 7.0, 7.6, 0.4]), (vec![0, 15, 15, 8], 1.0));
        assert_eq!(codes_and_scale(&Q8_0, &[127.0, -127.0, 2.5, -2.5, 0.0]), (vec![255, 1, 131, 125, 128], 1.0));
        assert_eq!(codes_and_scale(&Q4_0, &[0.0, 0.0]), (vec![8, 8], -0.0));
        assert_eq!(codes_and_scale(&Q8_0, &[0.0, 0.0]), (vec![128, 128], 0.0));
    }

    #[test]
    fn every_block_has_a_scale_of_its_own() {
        let values: Vec<f32> = (0..70).map(|i| if i < 32 { 1.0 } else { i as f32 }).collect();
        let view = ArrayView2::from_shape((1, 70), &values).expect("one row");
        let Ok(Quantized::Group(codes)) = Q8_0.quantize(view, None) else { panic!("codes") };
        assert_eq!((codes.group, codes.bits, &codes.zeros[..]), (32, 8, &[128.0; 3][..]));
        assert_eq!(codes.scales, [1.0 / 127.0, 63.0 / 127.0, 69.0 / 127.0]);
    }
}
