//! What: round to nearest (RTN), the baseline of every quantization paper.
//! Source: GPTQ (arXiv 2210.17323) §5, "RTN"; the same per-row or per-group min-max grids as GPTQ.
//! Shapes: weight `[n, k]` → codes `[n, k]`, scales and zeros `[n, ⌈k/group⌉]`.
//! Method: 1. per row and group, fit the min-max grid that contains 0 (scale rounded to f16).
//!   2. each weight takes the code of its nearest grid point.
//! Exactness: |w − ŵ| ≤ scale/2 inside the grid (asymmetric); codes equal GPTQ's where H = I.
//! Cost: two passes over the weights; no calibration.
//! Not handled: clipping searches, error-aware choices (that is GPTQ).

use cpu_kernels::GroupCodes;
use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

use super::{Grid, QuantizeError, Quantized, Quantizer, require_finite};
use crate::{CalibrationStats, SpecError};

/// Shape of integer grids: bits, columns that share one, and whether 0 sits in the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupSpec {
    /// Bits per code: 2, 3, 4 or 8.
    pub bits: u8,
    /// Columns per grid; the last group of a row may be shorter. `None`: one grid per row.
    #[serde(with = "crate::spec::group_length", default = "default_group")]
    pub group: Option<usize>,
    /// Whether 0 is the middle code (no zero point to store) instead of where the range puts it.
    #[serde(default)]
    pub symmetric: bool,
    /// Bits that activations are rounded to before the product; `None`: f32.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation_bits: Option<u8>,
}

pub(crate) fn default_group() -> Option<usize> {
    Some(GroupSpec::DEFAULT_GROUP)
}

impl GroupSpec {
    /// Columns per grid where a scenario does not say.
    pub const DEFAULT_GROUP: usize = 128;

    /// Min-max grids with a zero point.
    pub fn new(bits: u8, group: Option<usize>) -> GroupSpec {
        GroupSpec { bits, group, symmetric: false, activation_bits: None }
    }

    /// Columns per grid in a row of `k`.
    pub fn group_in(&self, k: usize) -> usize {
        self.group.unwrap_or(k).clamp(1, k.max(1))
    }

    pub(crate) fn tag(&self) -> String {
        let group = self.group.map_or("row".to_string(), |group| format!("g{group}"));
        let activations = self.activation_bits.map_or(String::new(), |bits| format!("-a{bits}"));
        format!("{}bit-{group}{}{activations}", self.bits, if self.symmetric { "-sym" } else { "" })
    }

    /// Code bits, plus an f16 scale and, unless 0 has the same code everywhere, an f16 zero per group.
    pub(crate) fn bits_per_weight(&self) -> f64 {
        let per_group = if self.symmetric { 16.0 } else { 32.0 };
        self.bits as f64 + self.group.map_or(0.0, |group| per_group / group as f64)
    }

    pub(crate) fn validate(&self) -> Result<(), SpecError> {
        if ![2, 3, 4, 8].contains(&self.bits) {
            return Err(SpecError {
                field: "bits",
                found: self.bits.to_string(),
                expected: "2, 3, 4 or 8",
                advice: "these are the widths the packed kernels read; choose one of them",
            });
        }
        match self.activation_bits {
            None => {}
            Some(8) if self.bits == 3 => {
                return Err(SpecError {
                    field: "activation_bits",
                    found: "8".into(),
                    expected: "f32 activations where codes have 3 bits",
                    advice: "leave it out, or use 2, 4 or 8 bits",
                });
            }
            Some(4 | 8) => {}
            Some(bits) => {
                return Err(SpecError {
                    field: "activation_bits",
                    found: bits.to_string(),
                    expected: "8 (int8 in blocks of 32 columns), 4 (rounded per token), or none (activations stay f32)",
                    advice: "use 4, 8 or leave it out",
                });
            }
        }
        match self.group {
            Some(group) if group == 0 || group > 1 << 20 => Err(SpecError {
                field: "group",
                found: group.to_string(),
                expected: "1 to 1048576 columns, or \"row\"",
                advice: "usual values are 32, 64 and 128; use group = \"row\" for one grid per row",
            }),
            _ => Ok(()),
        }
    }
}

/// The quantizer.
#[derive(Debug, Clone, Copy)]
pub struct RoundToNearest {
    spec: GroupSpec,
}

impl RoundToNearest {
    /// RTN on the grids of `spec`.
    pub fn new(spec: GroupSpec) -> RoundToNearest {
        RoundToNearest { spec }
    }

    /// The codes of `weight [n, k]`, finite.
    pub(super) fn codes(&self, weight: ArrayView2<f32>) -> GroupCodes {
        let (n, k) = weight.dim();
        let group = self.spec.group_in(k);
        let n_groups = k.div_ceil(group);
        let mut codes = Vec::with_capacity(n * k);
        let (mut scales, mut zeros) = (Vec::with_capacity(n * n_groups), Vec::with_capacity(n * n_groups));
        let mut row = vec![0.0f64; k];
        for weights in weight.rows() {
            row.iter_mut().zip(weights).for_each(|(to, &w)| *to = w as f64);
            for values in row.chunks(group) {
                // 1.
                let grid = Grid::fit(values.iter().copied(), self.spec.bits, self.spec.symmetric);
                scales.push(grid.scale());
                zeros.push(grid.zero());
                // 2.
                codes.extend(values.iter().map(|&w| grid.code(w)));
            }
        }
        GroupCodes { n, k, bits: self.spec.bits, group, codes, scales, zeros, order: None }
    }
}

impl Quantizer for RoundToNearest {
    fn quantize(&self, weight: ArrayView2<f32>, _stats: Option<&CalibrationStats>) -> Result<Quantized, QuantizeError> {
        require_finite(weight)?;
        Ok(Quantized::Group(self.codes(weight)))
    }
}
