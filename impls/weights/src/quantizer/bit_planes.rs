//! What: round to nearest about the middle of 1 to 4-bit codes: the grids that table lookup multiplies without an offset.
//! Source: Wei et al., "T-MAC" (arXiv 2407.00088) §3, where bits stand for −1 and +1; one bit as in Rastegari et al., "XNOR-Net"
//!   (arXiv 1603.05279) §3.1: the scale that minimises the squared error of signs is the mean magnitude.
//! Shapes: weight `[n, k]` → codes `[n, k]`, scales and zeros `[n, ⌈k/group⌉]`; every zero is (2^bits − 1)/2.
//! Method: 1. per row and group, scale = max |w| over half the codes' range (one bit: twice the mean |w|), in f16.
//!   2. code = nearest of (code − zero)·scale. No code stands for 0.
//! Exactness: |w − ŵ| ≤ scale/2 with two bits or more, but for the rounding of the scale to f16.
//! Cost: two passes over the weights; no calibration. bits + 16/group bits per weight.
//! Not handled: zero points, act-order.

use cpu_kernels::GroupCodes;
use half::f16;
use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

use super::round_to_nearest::default_group;
use super::{QuantizeError, Quantized, Quantizer, require_finite};
use crate::{CalibrationStats, SpecError};

/// Codes multiplied by table lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LutSpec {
    /// Bits per code: 1 to 4.
    pub bits: u8,
    /// Columns per scale, a multiple of 64; the last group of a row may be shorter. `None`: one scale per row.
    #[serde(with = "crate::spec::group_length", default = "default_group")]
    pub group: Option<usize>,
}

impl LutSpec {
    /// Columns that tables share a scale over: groups are whole multiples.
    const BLOCK: usize = 64;

    pub(crate) fn tag(&self) -> String {
        format!("lut-{}bit-{}", self.bits, self.group.map_or("row".to_string(), |group| format!("g{group}")))
    }

    pub(crate) fn bits_per_weight(&self) -> f64 {
        f64::from(self.bits) + self.group.map_or(0.0, |group| 16.0 / group as f64)
    }

    pub(crate) fn validate(&self) -> Result<(), SpecError> {
        if !(1..=4).contains(&self.bits) {
            return Err(SpecError {
                field: "bits",
                found: self.bits.to_string(),
                expected: "1 to 4",
                advice: "a plane of bits is looked up at a time; from 8 bits on use kind = \"int8\"",
            });
        }
        match self.group {
            Some(group) if group == 0 || group > 1 << 20 || !group.is_multiple_of(Self::BLOCK) => Err(SpecError {
                field: "group",
                found: group.to_string(),
                expected: "a multiple of 64 columns, or \"row\"",
                advice: "tables share a scale over 64 columns; usual values are 64 and 128",
            }),
            _ => Ok(()),
        }
    }
}

/// The quantizer.
#[derive(Debug, Clone, Copy)]
pub struct BitPlanes {
    spec: LutSpec,
}

impl BitPlanes {
    /// Codes as `spec` says.
    pub fn new(spec: LutSpec) -> BitPlanes {
        BitPlanes { spec }
    }
}

impl Quantizer for BitPlanes {
    fn quantize(&self, weight: ArrayView2<f32>, _stats: Option<&CalibrationStats>) -> Result<Quantized, QuantizeError> {
        require_finite(weight)?;
        let LutSpec { bits, group } = self.spec;
        let (n, k) = weight.dim();
        let group = group.map_or(k, |group| group.min(k.next_multiple_of(LutSpec::BLOCK))).max(1);
        let top = f32::from((1u8 << bits) - 1);
        let (mut codes, mut scales) = (Vec::with_capacity(n * k), Vec::with_capacity(n * k.div_ceil(group)));
        for row in weight.rows() {
            let row = row.to_vec();
            for values in row.chunks(group) {
                // 1.
                let largest = values.iter().fold(0.0f32, |most, w| most.max(w.abs()));
                let mean = values.iter().map(|w| w.abs()).sum::<f32>() / values.len() as f32;
                let scale = storable(if bits == 1 { 2.0 * mean } else { 2.0 * largest / top });
                scales.push(scale);
                // 2.
                codes.extend(values.iter().map(|w| (w / scale + 0.5 * top).round().clamp(0.0, top) as u8));
            }
        }
        let zeros = vec![0.5 * top; scales.len()];
        Ok(Quantized::Group(GroupCodes { n, k, bits, group, codes, scales, zeros, order: None }))
    }
}

/// The nearest positive f16.
fn storable(scale: f32) -> f32 {
    f16::from_f32(scale).clamp(f16::from_bits(1), f16::MAX).to_f32()
}

#[cfg(test)]
mod tests {
    use ndarray::arr2;

    use super::*;

    fn quantized(bits: u8) -> GroupCodes {
        let weight = arr2(&[[0.3f32, -0.1, 0.75, -0.75], [0.0, 0.0, 0.0, 0.0]]);
        match BitPlanes::new(LutSpec { bits, group: None }).quantize(weight.view(), None) {
            Ok(Quantized::Group(codes)) => codes,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn codes_by_hand() {
        let two = quantized(2);
        // max 0.75 over 1.5 codes: a step of 0.5, levels ±0.25 and ±0.75
        assert_eq!((two.scales[0], &two.codes[..4]), (0.5, &[2, 1, 3, 0][..]));
        assert_eq!(two.zeros, [1.5, 1.5]);
        let one = quantized(1);
        // mean magnitude 0.475: levels ±0.475
        assert_eq!((one.scales[0], &one.codes[..4]), (f16::from_f32(0.95).to_f32(), &[1, 0, 1, 0][..]));
    }

    #[test]
    fn a_row_of_zeros_stays_next_to_zero() {
        for bits in 1..=4 {
            let codes = Quantized::Group(quantized(bits));
            assert!(codes.dequantise()[4..].iter().all(|w| w.abs() < 1e-6), "{bits} bits");
        }
    }
}
