//! What: SmoothQuant: difficulty moved from activations to weights, feature by feature, before both are rounded to int8.
//! Source: Xiao et al. 2023, SmoothQuant (arXiv 2211.10438), eq. 4.
//! Shapes: all matrices `[·, d]` that read one normed input `[·, d]` → s `[d]`; x becomes x/s, W becomes W·diag(s).
//! Method: 1. s_j = max|X_j|^α / max|W_j|^(1−α), max|W_j| over all matrices that share the input. 2. "search": α from 0 to 1 by 0.05,
//!   the one whose int8 products of the sampled calibration rows differ least from the exact ones, summed over the matrices.
//! Exactness: without rounding the layer computes the same function; s is clamped to at least 1e-5, as in the authors' code.
//! Cost: one pass over the matrices; the search quantizes and multiplies them 21 times.
//! Not handled: inputs that no norm makes (attention output, down), which the paper leaves alone too. A feature that calibration
//!   never saw other than 0 keeps s = 1.

use cpu_kernels::PackedF32;
use model::{Activations, Device};
use serde::{Deserialize, Serialize};

use super::int8::Int8Spec;
use crate::equalise::{Equalise, Place, SharedInput};
use crate::{QuantizeError, SpecError, WeightSource, WeightsError, WeightsSpec, build_linear};

/// Smallest s and smallest weight magnitude.
const FLOOR: f32 = 1e-5;
/// Steps of the search.
const STEPS: usize = 20;

/// Migration strength α.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "`smooth` is α from 0 to 1, or \"search\"")]
pub enum Smooth {
    /// The same everywhere.
    Alpha(f64),
    /// Chosen for each input.
    Rule(SmoothRule),
}

/// How α is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmoothRule {
    /// By the products' error.
    Search,
}

impl Smooth {
    pub(crate) fn tag(self) -> String {
        match self {
            Smooth::Alpha(alpha) => alpha.to_string(),
            Smooth::Rule(SmoothRule::Search) => "search".into(),
        }
    }

    pub(crate) fn validate(self) -> Result<(), SpecError> {
        match self {
            Smooth::Alpha(alpha) if !(0.0..=1.0).contains(&alpha) => Err(SpecError {
                field: "smooth",
                found: alpha.to_string(),
                expected: "0 to 1, or \"search\"",
                advice: "0.5 is the paper's for OPT, 0.8 and more for Llama",
            }),
            _ => Ok(()),
        }
    }
}

/// Step 1.
pub fn smoothing_scales(shared: &SharedInput<'_>, alpha: f64) -> Vec<f32> {
    let features = shared.stats.features();
    let mut largest = vec![FLOOR; features];
    for row in shared.matrices.iter().flat_map(|matrix| matrix.rows()) {
        largest.iter_mut().zip(row).for_each(|(largest, w)| *largest = largest.max(w.abs()));
    }
    let scale = |(j, w): (usize, &f32)| match shared.stats.channels().max_abs(j) {
        0.0 => 1.0,
        x => ((f64::from(x).powf(alpha) / f64::from(*w).powf(1.0 - alpha)) as f32).max(FLOOR),
    };
    largest.iter().enumerate().map(scale).collect()
}

impl Equalise for Int8Spec {
    fn places(&self) -> &[Place] {
        &[Place::NormFed]
    }

    fn scales(&self, shared: &SharedInput<'_>) -> Result<Vec<f32>, QuantizeError> {
        let features = shared.stats.features();
        match self.smooth {
            None => Ok(vec![1.0; features]),
            Some(Smooth::Alpha(alpha)) => Ok(smoothing_scales(shared, alpha)),
            Some(Smooth::Rule(SmoothRule::Search)) => {
                let mut best = (f64::INFINITY, vec![1.0; features]);
                for step in 0..=STEPS {
                    let scales = smoothing_scales(shared, step as f64 / STEPS as f64);
                    let error = product_error(self, shared, &scales)?;
                    if error < best.0 {
                        best = (error, scales);
                    }
                }
                Ok(best.1)
            }
        }
    }
}

/// Σ ‖x·Wᵀ − q(x/s)·q(W·diag(s))ᵀ‖² over the sampled rows and all matrices.
fn product_error(spec: &Int8Spec, shared: &SharedInput<'_>, scales: &[f32]) -> Result<f64, QuantizeError> {
    let device: &Device = shared.device;
    let stats = shared.stats.scaled(scales);
    let (d, exact) = (stats.features(), shared.stats.sample().rows());
    let rows = exact.len() / d.max(1);
    let x = Activations::from_vec(rows, d, stats.sample().rows().to_vec());
    let spec = WeightsSpec::Int8(Int8Spec { smooth: None, ..spec.clone() });
    let mut error = 0.0;
    for matrix in &shared.matrices {
        let n = matrix.nrows();
        let plain: Vec<f32> = matrix.iter().copied().collect();
        let mut expected = vec![0.0; rows * n];
        PackedF32::pack(&plain, n, d).forward(device.cpu(), exact, rows, &mut expected);
        let scaled: Vec<f32> = plain.chunks(d).flat_map(|row| row.iter().zip(scales).map(|(w, s)| w * s)).collect();
        let linear = match build_linear(&spec, device, WeightSource::F32(&scaled), n, d, Some(&stats)) {
            Ok(linear) => linear,
            // s may lift a weight beyond the format: such an α loses
            Err(WeightsError::Quantize(error)) => return Err(error),
            Err(_) => return Ok(f64::INFINITY),
        };
        let mut y = Activations::default();
        linear.forward(&x, &mut y);
        error += y.as_slice().iter().zip(&expected).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
    }
    Ok(error)
}
