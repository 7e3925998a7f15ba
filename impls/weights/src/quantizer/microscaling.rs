//! What: MXFP4 and NVFP4, 4-bit floats in small blocks with 8-bit scales.
//! Source: OCP Microscaling Formats v1.0 §5.3.3, §6.3 and Rouhani et al. (arXiv 2310.10537) for MXFP4; NVIDIA's NVFP4.
//! Shapes: weight `[n, k]` → E2M1 codes `[n, k]`; MXFP4: E8M0 scales `[n, ⌈k/32⌉]`; NVFP4: E4M3 scales `[n, ⌈k/16⌉]` and one
//!   f32 per matrix (of stacked projections: of the stack).
//! Method: MXFP4: 1. scale = 2^(⌊log2 max |w|⌋ − 2). 2. code = E2M1 of w/scale. NVFP4: 1. tensor = max |W| / (6·448). 2. per block
//!   scale = E4M3 of max |w| / (6·tensor). 3. code = E2M1 of w/(scale·tensor). E2M1 and E4M3 round to nearest, ties to the even
//!   mantissa, and saturate.
//! Exactness: the 16 values, ties and scales of the standards; values in (6, 8)·scale of MXFP4 clip, as the standard says.
//! Cost: one or two passes over the weights; 4.25 and 4.5 bits per weight.
//! Not handled: searches for better scales, rotations.

use cpu_kernels::{BlockScales, CodebookCodes, e4m3_to_f32, e8m0_to_f32};
use ndarray::ArrayView2;

use super::{QuantizeError, Quantized, Quantizer, require_finite};
use crate::CalibrationStats;

/// E2M1: sign, two bits of exponent with bias 1, one of mantissa.
pub const E2M1: [f32; 16] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// Largest value of E2M1, and of E4M3.
const TOP: f64 = 6.0;
const SCALE_TOP: f64 = 448.0;

/// The E2M1 code nearest to `x`, ties to the even mantissa, beyond ±6 the end.
pub fn e2m1_code(x: f64) -> u8 {
    let a = x.abs();
    // a midpoint belongs to the neighbour with mantissa 0
    let above = [a > 0.25, a >= 0.75, a > 1.25, a >= 1.75, a > 2.5, a >= 3.5, a > 5.0];
    let magnitude = above.into_iter().filter(|&is_above| is_above).count() as u8;
    if x.is_sign_negative() { magnitude | 8 } else { magnitude }
}

/// The E4M3 code nearest to `x ≥ 0`, ties to the even mantissa, at most 448.
pub fn e4m3_code(x: f64) -> u8 {
    const TOP_CODE: u8 = 0x7e;
    if x >= SCALE_TOP {
        return TOP_CODE;
    }
    // subnormals have the exponent of the smallest normal
    let exponent = (exponent_of(x)).max(-6);
    let steps = (x / 2f64.powi(exponent - 3)).round_ties_even() as i32;
    // 8 … 15 steps carry the hidden bit, 16 move into the next exponent, fewer than 8 are subnormal
    (((exponent + 6) * 8) + steps) as u8
}

/// The E8M0 code of the scale of a block whose largest magnitude is `amax`.
pub fn mx_scale_code(amax: f32) -> u8 {
    const E2M1_EXPONENT: i32 = 2;
    (exponent_of(amax as f64) - E2M1_EXPONENT + 127).clamp(0, 254) as u8
}

/// ⌊log2 x⌋ of a normal f64; far below every f32 for 0.
fn exponent_of(x: f64) -> i32 {
    ((x.to_bits() >> 52) & 0x7ff) as i32 - 1023
}

/// MXFP4.
#[derive(Debug, Clone, Copy)]
pub struct Mxfp4;

impl Mxfp4 {
    /// Columns per scale.
    pub const BLOCK: usize = 32;
    /// Bits per weight.
    pub const BITS: f64 = 4.0 + 8.0 / Mxfp4::BLOCK as f64;
}

/// NVFP4.
#[derive(Debug, Clone, Copy)]
pub struct Nvfp4;

impl Nvfp4 {
    /// Columns per scale.
    pub const BLOCK: usize = 16;
    /// Bits per weight; the one f32 per matrix vanishes against it.
    pub const BITS: f64 = 4.0 + 8.0 / Nvfp4::BLOCK as f64;
}

impl Quantizer for Mxfp4 {
    fn quantize(&self, weight: ArrayView2<f32>, _stats: Option<&CalibrationStats>) -> Result<Quantized, QuantizeError> {
        require_finite(weight)?;
        let mut scales = vec![];
        let codes = blocks(weight, Mxfp4::BLOCK, |amax| {
            // 1.
            let code = mx_scale_code(amax);
            scales.push(code);
            e8m0_to_f32(code)
        });
        Ok(coded(weight, Mxfp4::BLOCK, codes, BlockScales::E8m0(scales)))
    }
}

impl Quantizer for Nvfp4 {
    fn quantize(&self, weight: ArrayView2<f32>, _stats: Option<&CalibrationStats>) -> Result<Quantized, QuantizeError> {
        require_finite(weight)?;
        // 1. all scales of a matrix of zeros are 0, whatever multiplies them
        let largest = weight.iter().fold(0.0f32, |max, w| max.max(w.abs())) as f64;
        let tensor = ((largest / (TOP * SCALE_TOP)) as f32).max(f32::MIN_POSITIVE);
        let mut scales = vec![];
        let codes = blocks(weight, Nvfp4::BLOCK, |amax| {
            // 2.
            let code = e4m3_code(amax as f64 / (TOP * tensor as f64));
            scales.push(code);
            e4m3_to_f32(code) * tensor
        });
        Ok(coded(weight, Nvfp4::BLOCK, codes, BlockScales::E4m3 { codes: scales, tensor }))
    }
}

/// E2M1 codes of all of `weight`, each block divided by what `scale` says of its largest magnitude.
fn blocks(weight: ArrayView2<f32>, block: usize, mut scale: impl FnMut(f32) -> f32) -> Vec<u8> {
    let (n, k) = weight.dim();
    let mut codes = Vec::with_capacity(n * k);
    let mut row = vec![0.0f32; k];
    for weights in weight.rows() {
        row.iter_mut().zip(weights).for_each(|(to, &w)| *to = w);
        for values in row.chunks(block) {
            let scale = scale(values.iter().fold(0.0f32, |max, w| max.max(w.abs()))) as f64;
            // a scale that rounded to 0 leaves zeros
            codes.extend(values.iter().map(|&w| if scale == 0.0 { 0 } else { e2m1_code(w as f64 / scale) }));
        }
    }
    codes
}

fn coded(weight: ArrayView2<f32>, block: usize, codes: Vec<u8>, scales: BlockScales) -> Quantized {
    let (n, k) = weight.dim();
    Quantized::Codebook(CodebookCodes { n, k, block, table: E2M1, codes, scales })
}
