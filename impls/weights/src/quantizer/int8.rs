//! What: 8-bit weights and activations in the kinds that LLM.int8() compares, and the scales that SmoothQuant moves between them.
//! Source: LLM.int8() (arXiv 2208.07339) §2.1; Xiao et al. 2023, SmoothQuant (arXiv 2211.10438) §4 for static ranges and levels.
//! Shapes: weight `[n, k]` → codes `[n, k]` in −127 … 127, a scale and a zero per row (equal ones where the tensor shares them).
//! Method: 1. the range of each row or of the tensor: ±absmax, or smallest to largest with a zero point. 2. code = round(w/scale) + zero.
//!   Activations: the same at run time, or on one range fixed by calibration (`calibration::RangeRule`).
//! Exactness: |w − ŵ| ≤ scale/2 for every weight (with a zero point up to one more rounding of the ends).
//! Cost: two passes over the weights; static ranges read a histogram of 4096 bins once per matrix.
//! Not handled: −128; groups of columns (that is `rtn` with 8 bits); a tensor here is a matrix as it is multiplied, so q, k and v,
//!   or gate and up, share what the papers give each of them.

use cpu_kernels::Int8Grid;
use model::{Int8Inputs, Int8Range};
use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

use super::smooth::Smooth;
use super::{QuantizeError, Quantized, Quantizer, require_finite};
use crate::calibration::RangeRule;
use crate::{CalibrationStats, SpecError};

/// int8 weights and activations; the default is LLM.int8()'s vector-wise absmax without decomposition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Int8Spec {
    /// What shares a weight scale.
    pub weights: WeightScale,
    /// What shares an activation scale.
    pub activations: ActivationScale,
    /// Whether activation scales are found at run time or by calibration.
    pub range: RangeSource,
    /// Whether grids run from the smallest to the largest value, on both sides, instead of over ±absmax.
    pub zero_point: bool,
    /// How a static range comes out of what calibration saw.
    pub clip: RangeRule,
    /// Share of magnitudes that the percentile rule keeps, in %.
    pub percentile: f64,
    /// Activations above this are multiplied in 16 bits (6.0 in the paper); absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decompose: Option<f32>,
    /// SmoothQuant's migration strength; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smooth: Option<Smooth>,
}

/// What shares a weight scale.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightScale {
    /// Each output (a column of Wᵀ in the papers).
    #[default]
    Row,
    /// The whole matrix.
    Tensor,
}

/// What shares an activation scale.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActivationScale {
    /// Each token (row of x).
    #[default]
    Token,
    /// All rows of a call.
    Tensor,
}

/// When activation ranges are found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RangeSource {
    /// From the values themselves, at run time.
    #[default]
    Dynamic,
    /// From calibration.
    Static,
}

impl Default for Int8Spec {
    fn default() -> Int8Spec {
        Int8Spec {
            weights: WeightScale::Row,
            activations: ActivationScale::Token,
            range: RangeSource::Dynamic,
            zero_point: false,
            clip: RangeRule::MinMax,
            percentile: 99.9,
            decompose: None,
            smooth: None,
        }
    }
}

impl Int8Spec {
    /// The kinds that papers compare, with the corners of each: what conformance loops over.
    pub fn corners() -> Vec<Int8Spec> {
        let plain = Int8Spec::default;
        let row = || Int8Spec { weights: WeightScale::Tensor, ..plain() };
        let tensor = || Int8Spec { activations: ActivationScale::Tensor, ..row() };
        let fixed = || Int8Spec { range: RangeSource::Static, ..tensor() };
        let with_zero = |spec: Int8Spec| Int8Spec { zero_point: true, ..spec };
        let decomposed = |spec: Int8Spec| Int8Spec { decompose: Some(6.0), ..spec };
        let mut all =
            vec![plain(), row(), tensor(), with_zero(plain()), with_zero(tensor()), fixed(), with_zero(fixed())];
        all.extend([decomposed(plain()), decomposed(row()), decomposed(with_zero(plain()))]);
        all.extend(
            [RangeRule::Percentile, RangeRule::Mse, RangeRule::Entropy].map(|clip| Int8Spec { clip, ..fixed() }),
        );
        all.extend(
            [plain(), row(), tensor(), fixed()].map(|spec| Int8Spec { smooth: Some(Smooth::Alpha(0.5)), ..spec }),
        );
        all
    }

    /// Whether the plain int8 format holds it.
    pub fn is_plain(&self) -> bool {
        let base =
            Int8Spec { weights: self.weights, smooth: self.smooth, percentile: self.percentile, ..Int8Spec::default() };
        *self == base
    }

    /// `int8`, `int8-row`, `int8-tensor-static-p99.9`, `int8-zp-d6`, `int8-tensor-s0.5`.
    pub fn tag(&self) -> String {
        let mut tag = String::from("int8");
        // the paper's names: row-wise has one weight scale, vector-wise (not said) one per output
        tag += match (self.weights, self.activations) {
            (WeightScale::Row, ActivationScale::Token) => "",
            (WeightScale::Tensor, ActivationScale::Token) => "-row",
            (WeightScale::Tensor, ActivationScale::Tensor) => "-tensor",
            (WeightScale::Row, ActivationScale::Tensor) => "-column",
        };
        if self.zero_point {
            tag += "-zp";
        }
        if self.range == RangeSource::Static {
            tag += "-static";
            match self.clip {
                RangeRule::MinMax => {}
                RangeRule::Percentile => tag += &format!("-p{}", self.percentile),
                RangeRule::Mse => tag += "-mse",
                RangeRule::Entropy => tag += "-entropy",
            }
        }
        if let Some(threshold) = self.decompose {
            tag += &format!("-d{threshold}");
        }
        if let Some(smooth) = self.smooth {
            tag += &format!("-s{}", smooth.tag());
        }
        tag
    }

    /// Whether building needs statistics of the inputs.
    pub fn needs_calibration(&self) -> bool {
        self.range == RangeSource::Static || self.smooth.is_some()
    }

    /// Whether a row's result depends on that row alone.
    pub fn rows_are_independent(&self) -> bool {
        self.activations == ActivationScale::Token || self.range == RangeSource::Static
    }

    pub(crate) fn validate(&self) -> Result<(), SpecError> {
        let wrong = |field, found: String, expected, advice| Err(SpecError { field, found, expected, advice });
        let is_static = self.range == RangeSource::Static;
        if is_static && self.activations == ActivationScale::Token {
            let advice = "a range fixed beforehand is the tensor's: add activations = \"tensor\"";
            return wrong("range", "\"static\"".into(), "\"dynamic\" where every token has a scale of its own", advice);
        }
        if !is_static && self.clip != RangeRule::MinMax {
            let advice = "rules other than min-max belong to range = \"static\"";
            return wrong("clip", format!("{:?}", self.clip), "\"min-max\" for dynamic ranges", advice);
        }
        if !(self.percentile > 0.0 && self.percentile <= 100.0) {
            return wrong("percentile", self.percentile.to_string(), "above 0, at most 100", "99.9 is usual");
        }
        match self.decompose {
            Some(t) if is_static => {
                let advice = "outliers are taken out before the range is found: use range = \"dynamic\"";
                return wrong("decompose", t.to_string(), "nothing beside a static range", advice);
            }
            Some(t) if t.is_nan() || t < 0.0 => {
                return wrong("decompose", t.to_string(), "at least 0", "the paper's threshold is 6.0");
            }
            _ => {}
        }
        self.smooth.map_or(Ok(()), Smooth::validate)
    }

    /// How a product rounds its inputs; `stats` are of them, for static ranges.
    pub(crate) fn inputs(&self, k: usize, stats: Option<&CalibrationStats>) -> Result<Int8Inputs, QuantizeError> {
        let range = match (self.range, self.activations) {
            (RangeSource::Dynamic, ActivationScale::Token) => Int8Range::Row,
            (RangeSource::Dynamic, ActivationScale::Tensor) => Int8Range::Call,
            (RangeSource::Static, _) => self.fixed_range(k, stats)?,
        };
        Ok(Int8Inputs { range, zero_point: self.zero_point, exact_above: self.decompose.unwrap_or(f32::INFINITY) })
    }

    fn fixed_range(&self, k: usize, stats: Option<&CalibrationStats>) -> Result<Int8Range, QuantizeError> {
        let stats = stats.ok_or(QuantizeError::MissingStats { quantizer: "a static int8 range" })?;
        let (found, rows) = (stats.features(), stats.n_rows());
        if found != k || rows == 0 {
            return Err(QuantizeError::StatsMismatch { expected: k, found, rows });
        }
        if let Some(feature) = stats.channels().mean_abs.iter().position(|mean| !mean.is_finite()) {
            return Err(QuantizeError::NonFiniteStats { feature });
        }
        let limit = self.clip.limit(stats.magnitudes(), self.percentile);
        let (low, high) = stats.channels().range();
        Ok(match self.zero_point {
            true => Int8Range::Fixed { low: low.max(-limit), high: high.min(limit) },
            false => Int8Range::Fixed { low: -limit, high: limit },
        })
    }
}

/// Chooses the codes of int8 weights.
#[derive(Debug, Clone, Copy)]
pub struct Int8Weights {
    scale: WeightScale,
    zero_point: bool,
}

impl Int8Weights {
    /// As `spec` says.
    pub fn new(spec: &Int8Spec) -> Int8Weights {
        Int8Weights { scale: spec.weights, zero_point: spec.zero_point }
    }

    /// Step 1.
    fn grid<'w>(self, values: impl Iterator<Item = &'w f32>) -> Int8Grid {
        let (low, high) = values.fold((0.0f32, 0.0f32), |(low, high), &w| (low.min(w), high.max(w)));
        let grid = match self.zero_point {
            true => Int8Grid::affine(low, high),
            false => Int8Grid::symmetric(high.max(-low)),
        };
        // subnormal rows would divide by a scale that has lost its digits: they round to zero instead
        if grid.scale < f32::MIN_POSITIVE { Int8Grid { scale: 1.0, inverse: 1.0, zero: 0 } } else { grid }
    }
}

impl Quantizer for Int8Weights {
    fn quantize(&self, weight: ArrayView2<f32>, _stats: Option<&CalibrationStats>) -> Result<Quantized, QuantizeError> {
        require_finite(weight)?;
        let (n, k) = weight.dim();
        let shared = (self.scale == WeightScale::Tensor).then(|| self.grid(weight.iter()));
        let (mut codes, mut scales, mut zeros) = (Vec::with_capacity(n * k), vec![], vec![]);
        for row in weight.rows() {
            let grid = shared.unwrap_or_else(|| self.grid(row.iter()));
            scales.push(grid.scale);
            zeros.push(grid.zero);
            // 2. divided, not multiplied by the inverse, whose own rounding could move a code
            codes.extend(row.iter().map(|&w| {
                let code = w / grid.scale;
                ((code + 0.5f32.copysign(code)).trunc() + grid.zero as f32).clamp(-127.0, 127.0) as i8
            }));
        }
        let zeros = if zeros.iter().all(|&zero| zero == 0) { vec![] } else { zeros };
        Ok(Quantized::Int8 { codes, scales, zeros, n, k })
    }
}
