//! What: keys and values in IEEE half precision.
//!
//! Source: IEEE 754-2008 binary16, round to nearest even; the cache type of most published baselines.
//! Shapes: a row of head_dim values is head_dim codes.
//! Method: slices are converted whole, by F16C where the processor has it; kernels decode what they read.
//! Exactness: |stored − given| ≤ 2⁻¹¹·|given| from 6.1e-5 to 65504; below, subnormal steps of 6e-8; above, held at
//! ±65504, because an infinite key would turn a whole row of attention into NaN.
//! Cost: 2 bytes per value; each read decodes once per query tile.
//! Not handled: bfloat16.

use cpu_kernels::attention::Codes;
use half::f16;
use half::slice::HalfFloatSliceExt;

use super::Encoding;

#[derive(Clone)]
pub(crate) struct F16;

impl F16 {
    /// Half a unit in the last place.
    pub(crate) const RELATIVE_ERROR: f32 = 1.0 / 2048.0;
}

impl Encoding for F16 {
    type Code = f16;
    const HAS_SCALE: bool = false;

    fn encode(row: &[f32], codes: &mut [f16]) -> f32 {
        codes.convert_from_f32_slice(row);
        for (code, &value) in codes.iter_mut().zip(row) {
            if code.is_infinite() && value.is_finite() {
                *code = if value > 0.0 { f16::MAX } else { f16::MIN };
            }
        }
        1.0
    }

    fn codes<'a>(codes: &'a [f16], _: &'a [f32]) -> Codes<'a> {
        Codes::F16(codes.reinterpret_cast())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_beyond_the_range_are_held() {
        let row = [1e6, -1e6, 65504.0, 65519.0, 0.1, -0.0, 3e-8];
        let mut codes = [f16::ZERO; 7];
        F16::encode(&row, &mut codes);
        let back = codes.map(f16::to_f32);
        assert_eq!(back[..4], [65504.0, -65504.0, 65504.0, 65504.0]);
        assert!((back[4] - 0.1).abs() <= 0.1 * F16::RELATIVE_ERROR);
        assert_eq!(back[5].to_bits(), (-0.0f32).to_bits());
        assert!((back[6] - 3e-8).abs() <= 3e-8);
    }
}
