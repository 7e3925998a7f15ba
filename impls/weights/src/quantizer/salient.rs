//! What: round to nearest with a share of the columns kept in 16 bits: AWQ's probe for which columns matter.
//! Source: AWQ (arXiv 2306.00978) §3.1 and table 1: columns chosen by activations, by weights, or at random.
//! Shapes: weight `[n, k]` → RTN's codes, and m = ⌈share·k⌉ columns `[n, m]` in f16.
//! Method: 1. rank columns by mean |X_c|, by ‖W_:c‖₂, or by a seeded shuffle. 2. round all to nearest, on grids of all columns
//!   as in the paper. 3. the first m columns get the code of 0 and their values beside the codes.
//! Exactness: kept columns are the weights rounded to f16, the others RTN's.
//! Cost: two products instead of one; 16·share bits per weight. For questions about quality, not for speed.
//! Not handled: folding the columns back, which is what AWQ's scaling does instead.

use cpu_kernels::GroupCodes;
use half::f16;
use ndarray::ArrayView2;
use rand::{SeedableRng, rngs::ChaCha8Rng, seq::SliceRandom};
use serde::{Deserialize, Serialize};

use super::round_to_nearest::{GroupSpec, RoundToNearest, default_group};
use super::{QuantizeError, Quantized, Quantizer, require_finite};
use crate::{CalibrationStats, SpecError};

/// Which columns are kept.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SalientSpec {
    /// Bits per code: 2, 3, 4 or 8.
    pub bits: u8,
    /// Columns per grid. `None`: one grid per row.
    #[serde(with = "crate::spec::group_length", default = "default_group")]
    pub group: Option<usize>,
    /// Share of the columns kept in 16 bits.
    #[serde(default = "one_percent")]
    pub share: f64,
    /// What decides.
    pub by: SalientBy,
}

/// What makes a column salient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SalientBy {
    /// The mean magnitude of its input.
    Activation,
    /// Its own norm.
    Weight,
    /// A shuffle with a fixed seed.
    Random,
}

fn one_percent() -> f64 {
    0.01
}

/// RTN's codes and the columns beside them.
#[derive(Debug, Clone)]
pub struct SalientCodes {
    /// Codes of all columns; kept ones decode to 0.
    pub group: GroupCodes,
    /// Kept columns, ascending, `[m]`.
    pub columns: Vec<u32>,
    /// Their values, `[n, m]`.
    pub values: Vec<f16>,
}

impl SalientSpec {
    /// The grids, which are RTN's.
    pub fn grid(&self) -> GroupSpec {
        GroupSpec::new(self.bits, self.group)
    }

    pub(crate) fn tag(&self) -> String {
        let by = match self.by {
            SalientBy::Activation => "activation",
            SalientBy::Weight => "weight",
            SalientBy::Random => "random",
        };
        format!("{}-keep{}-{by}", self.grid().tag(), self.share)
    }

    pub(crate) fn bits_per_weight(&self) -> f64 {
        self.grid().bits_per_weight() + 16.0 * self.share
    }

    pub(crate) fn validate(&self) -> Result<(), SpecError> {
        self.grid().validate()?;
        if self.share > 0.0 && self.share <= 0.5 {
            return Ok(());
        }
        Err(SpecError {
            field: "share",
            found: self.share.to_string(),
            expected: "more than 0, at most 0.5",
            advice: "the paper keeps 0.01; use f16 weights to keep them all",
        })
    }
}

/// The quantizer.
#[derive(Debug, Clone, Copy)]
pub struct Salient {
    spec: SalientSpec,
}

impl Salient {
    /// RTN but for the columns that `spec` names.
    pub fn new(spec: SalientSpec) -> Salient {
        Salient { spec }
    }

    /// The columns to keep, ascending.
    fn columns(&self, weight: ArrayView2<f32>, stats: Option<&CalibrationStats>) -> Result<Vec<u32>, QuantizeError> {
        let k = weight.ncols();
        let m = ((self.spec.share * k as f64).ceil() as usize).clamp(1, k);
        let mut order: Vec<u32> = (0..k as u32).collect();
        let by_size = |order: &mut Vec<u32>, size: &[f32]| {
            order.sort_by(|&a, &b| size[b as usize].total_cmp(&size[a as usize]));
        };
        // 1.
        match self.spec.by {
            SalientBy::Activation => {
                let stats = stats.ok_or(QuantizeError::MissingStats { quantizer: "salient columns by activation" })?;
                if stats.features() != k || stats.n_rows() == 0 {
                    let (found, rows) = (stats.features(), stats.n_rows());
                    return Err(QuantizeError::StatsMismatch { expected: k, found, rows });
                }
                let means = &stats.channels().mean_abs;
                if let Some(feature) = means.iter().position(|mean| !mean.is_finite()) {
                    return Err(QuantizeError::NonFiniteStats { feature });
                }
                by_size(&mut order, means);
            }
            SalientBy::Weight => {
                let norms: Vec<f32> = weight.columns().into_iter().map(|c| c.iter().map(|w| w * w).sum()).collect();
                by_size(&mut order, &norms);
            }
            SalientBy::Random => order.shuffle(&mut ChaCha8Rng::seed_from_u64((weight.nrows() * k) as u64)),
        }
        order.truncate(m);
        order.sort_unstable();
        Ok(order)
    }
}

impl Quantizer for Salient {
    fn quantize(&self, weight: ArrayView2<f32>, stats: Option<&CalibrationStats>) -> Result<Quantized, QuantizeError> {
        require_finite(weight)?;
        let columns = self.columns(weight, stats)?;
        // 2.
        let mut group = RoundToNearest::new(self.spec.grid()).codes(weight);
        // 3.
        let n_groups = group.k.div_ceil(group.group);
        let mut values = Vec::with_capacity(group.n * columns.len());
        for (row, weights) in weight.rows().into_iter().enumerate() {
            for &column in &columns {
                let column = column as usize;
                group.codes[row * group.k + column] = group.zeros[row * n_groups + column / group.group] as u8;
                values.push(f16::from_f32(weights[column].clamp(f16::MIN.to_f32(), f16::MAX.to_f32())));
            }
        }
        Ok(Quantized::Salient(SalientCodes { group, columns, values }))
    }
}
