//! What: 8-bit absmax quantization of weights, one scale per output channel.
//! Source: LLM.int8() (arXiv 2208.07339) §2, "vector-wise" absmax: c_w is the column absmax of Wᵀ, Q = round(127·w/c_w).
//! Shapes: weight `[n, k]` → codes `[n, k]` in −127 … 127, scales `[n]` = absmax/127.
//! Method: 1. absmax of each row. 2. code = round(w · 127/absmax); −128 is never used.
//! Exactness: |w − ŵ| ≤ scale/2 for every weight.
//! Cost: two passes over the weights; no calibration.
//! Not handled: the 16-bit outlier decomposition, zero points.

use ndarray::ArrayView2;

use super::{QuantizeError, Quantized, Quantizer, require_finite};
use crate::CalibrationStats;

/// The quantizer.
#[derive(Debug, Clone, Copy)]
pub struct RowAbsmax;

impl Quantizer for RowAbsmax {
    fn quantize(&self, weight: ArrayView2<f32>, _stats: Option<&CalibrationStats>) -> Result<Quantized, QuantizeError> {
        require_finite(weight)?;
        let (n, k) = weight.dim();
        let mut codes = Vec::with_capacity(n * k);
        let mut scales = Vec::with_capacity(n);
        for row in weight.rows() {
            // 1.
            let absmax = row.iter().fold(0.0f32, |max, w| max.max(w.abs()));
            // subnormal rows would divide by a scale that has lost its digits: they round to zero instead
            let scale = if absmax / 127.0 < f32::MIN_POSITIVE { 1.0 } else { absmax / 127.0 };
            scales.push(scale);
            // 2. `as i8` truncates, so half a code is added away from zero
            codes.extend(row.iter().map(|&w| {
                let code = w / scale;
                (code + 0.5f32.copysign(code)).clamp(-127.0, 127.0) as i8
            }));
        }
        Ok(Quantized::Int8 { codes, scales, n, k })
    }
}
