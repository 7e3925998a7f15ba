//! What: AWQ, inputs divided by a power of their mean magnitude so that salient columns of W lose less, then clipped groups.
//! Source: arXiv 2306.00978 §3.2 and the authors' code: grid of exponents, normalisation and clipping as there.
//! Shapes: matrices `[n, k]` that share an input, stats of it → s `[k]`; weight `[n, k]` → codes as RTN's.
//! Method: 1. s_c = mean|X_c|^α, at least 1e-4, over √(max s · min s), for α = 0, 1/20 … 19/20. 2. of these the s with the least
//!   Σ tr(D·H·Dᵀ), D = Q(W·diag s)·diag(s)⁻¹ − W, over the matrices that share the input; the engine folds 1/s into what makes it.
//!   3. clipping: per row and group, the range shrinks by 1/20 at a time to 55 %; the bound with the least dᵀ·H_group·d
//!   stays. 4. min-max grids of the clipped groups, rounded to nearest.
//! Exactness: α = 0 is RTN, and so is no clipping: neither search can raise its own objective.
//! Cost: 20·n·k² multiply-adds for the scales, 10·n·k·group for the clipping; storage as RTN.
//! Not handled: the paper's objective for scales, the output of the whole block (attention for q, k, v) on sampled tokens,
//!   where this is the exact error of the products themselves; the paper leaves q and k unclipped, which are stacked with v here.

use std::sync::OnceLock;

use cpu_kernels::{Cpu, GroupCodes, PackedF32};
use model::Device;
use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

use super::round_to_nearest::{GroupSpec, default_group};
use super::{Grid, QuantizeError, Quantized, Quantizer, require_finite};
use crate::equalise::{Equalise, Place, SharedInput};
use crate::{CalibrationStats, SpecError};

/// Exponents tried: 0, 1/20 … 19/20.
const EXPONENTS: usize = 20;
/// Clipping bounds tried, 1/20 apart.
const BOUNDS: usize = 10;

/// AWQ's knobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AwqSpec {
    /// Bits per code: 2, 3, 4 or 8.
    pub bits: u8,
    /// Columns per grid; the last group of a row may be shorter. `None`: one grid per row.
    #[serde(with = "crate::spec::group_length", default = "default_group")]
    pub group: Option<usize>,
    /// Whether inputs are divided (steps 1 and 2).
    #[serde(default = "yes")]
    pub scale: bool,
    /// Whether groups are clipped (step 3).
    #[serde(default = "yes")]
    pub clip: bool,
    /// Calibration windows used, spread over those of the scenario; `None`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub windows: Option<usize>,
}

fn yes() -> bool {
    true
}

/// What the search for scales found.
#[derive(Debug, Clone, PartialEq)]
pub struct ScaleSearch {
    /// s `[k]`.
    pub scales: Vec<f32>,
    /// The exponent behind them.
    pub exponent: f64,
    /// Error with them, Σ tr(D·H·Dᵀ) over the matrices.
    pub error: f64,
    /// Error without, which is RTN's.
    pub plain_error: f64,
}

impl AwqSpec {
    /// The paper's settings at `bits` and `group`.
    pub fn new(bits: u8, group: Option<usize>) -> AwqSpec {
        AwqSpec { bits, group, scale: true, clip: true, windows: None }
    }

    /// The grids, which are RTN's.
    pub fn grid(&self) -> GroupSpec {
        GroupSpec::new(self.bits, self.group)
    }

    pub(crate) fn tag(&self) -> String {
        let mut tag = self.grid().tag();
        for (differs, part) in [(!self.scale, "-noscale"), (!self.clip, "-noclip")] {
            if differs {
                tag.push_str(part);
            }
        }
        tag + &self.windows.map_or(String::new(), |windows| format!("-cal{windows}"))
    }

    pub(crate) fn validate(&self) -> Result<(), SpecError> {
        self.grid().validate()?;
        match self.windows {
            Some(0) => Err(SpecError {
                field: "windows",
                found: "0".into(),
                expected: "at least 1",
                advice: "leave it out to use every window of [calibration]",
            }),
            _ => Ok(()),
        }
    }

    /// Steps 1 and 2.
    pub fn search(&self, shared: &SharedInput<'_>) -> Result<ScaleSearch, QuantizeError> {
        let k = shared.stats.features();
        let means = &shared.stats.channels().mean_abs;
        for matrix in &shared.matrices {
            require_finite(*matrix)?;
            if matrix.ncols() != k || shared.stats.n_rows() == 0 {
                let (expected, rows) = (matrix.ncols(), shared.stats.n_rows());
                return Err(QuantizeError::StatsMismatch { expected, found: k, rows });
            }
        }
        if let Some(feature) = means.iter().position(|mean| !mean.is_finite()) {
            return Err(QuantizeError::NonFiniteStats { feature });
        }
        // H is symmetric, so D·H is a product with H as it lies
        let h: Vec<f32> = shared.stats.hessian().iter().map(|&h| h as f32).collect();
        let h = PackedF32::pack(&h, k, k);
        let mut best: Option<ScaleSearch> = None;
        for step in 0..EXPONENTS {
            // 1.
            let exponent = step as f64 / EXPONENTS as f64;
            let scales = normalised(means, exponent);
            // 2.
            let error =
                shared.matrices.iter().map(|weight| self.scaled_error(shared.device.cpu(), *weight, &scales, &h)).sum();
            let plain_error = best.as_ref().map_or(error, |first| first.plain_error);
            if best.as_ref().is_none_or(|best| error < best.error) {
                best = Some(ScaleSearch { scales, exponent, error, plain_error });
            }
        }
        best.ok_or(QuantizeError::MissingStats { quantizer: "awq" })
    }

    /// tr(D·H·Dᵀ) of one matrix quantized under `scales`.
    fn scaled_error(&self, cpu: &Cpu, weight: ArrayView2<f32>, scales: &[f32], h: &PackedF32) -> f64 {
        let (n, k) = weight.dim();
        let group = self.grid().group_in(k);
        let mut differences = vec![0.0f32; n * k];
        cpu.parallel_chunks_mut(&mut differences, k, &|row, out| {
            let scaled: Vec<f64> = weight.row(row).iter().zip(scales).map(|(w, s)| (w * s) as f64).collect();
            for ((values, scales), out) in scaled.chunks(group).zip(scales.chunks(group)).zip(out.chunks_mut(group)) {
                let grid = Grid::fit(values.iter().copied(), self.bits, false);
                for ((out, &w), &s) in out.iter_mut().zip(values).zip(scales) {
                    *out = ((grid.value(grid.code(w)) - w) / s as f64) as f32;
                }
            }
        });
        let mut product = vec![0.0f32; n * k];
        h.forward(cpu, &differences, n, &mut product);
        product.iter().zip(&differences).map(|(&p, &d)| p as f64 * d as f64).sum()
    }
}

/// mean^exponent, at least 1e-4, over √(max · min).
fn normalised(means: &[f32], exponent: f64) -> Vec<f32> {
    let powers: Vec<f64> = means.iter().map(|&mean| (mean as f64).powf(exponent).max(1e-4)).collect();
    let (low, high) = powers.iter().fold((f64::INFINITY, 0.0f64), |(low, high), &s| (low.min(s), high.max(s)));
    let middle = (low * high).sqrt();
    powers.iter().map(|s| (s / middle) as f32).collect()
}

impl Equalise for AwqSpec {
    fn places(&self) -> &[Place] {
        &[Place::NormFed, Place::AttentionOut, Place::Down]
    }

    fn scales(&self, shared: &SharedInput<'_>) -> Result<Vec<f32>, QuantizeError> {
        Ok(self.search(shared)?.scales)
    }
}

/// The quantizer of matrices whose inputs are already divided.
pub struct Awq {
    spec: AwqSpec,
    device: Device,
}

impl Awq {
    /// AWQ as `spec` says.
    pub fn new(spec: AwqSpec, device: &Device) -> Awq {
        Awq { spec, device: device.clone() }
    }

    /// Steps 3 and 4 of one row: its codes, and scale and zero of each group. `h [k, k]`.
    fn row(&self, row: &[f64], h: &[f64]) -> (Vec<u8>, Vec<[f32; 2]>) {
        let (bits, group) = (self.spec.bits, self.spec.grid().group_in(row.len()));
        let mut codes = Vec::with_capacity(row.len());
        let mut constants = vec![];
        for (g, values) in row.chunks(group).enumerate() {
            // 3.
            let bound = if self.spec.clip { clip_bound(values, bits, h, row.len(), g * group) } else { f64::INFINITY };
            // 4. a value beyond the bound takes the grid's end
            let grid = Grid::fit(values.iter().map(|w| w.clamp(-bound, bound)), bits, false);
            constants.push([grid.scale(), grid.zero()]);
            codes.extend(values.iter().map(|&w| grid.code(w)));
        }
        (codes, constants)
    }
}

impl Quantizer for Awq {
    fn quantize(&self, weight: ArrayView2<f32>, stats: Option<&CalibrationStats>) -> Result<Quantized, QuantizeError> {
        require_finite(weight)?;
        let (n, k) = weight.dim();
        let stats = stats.ok_or(QuantizeError::MissingStats { quantizer: "awq" })?;
        if stats.features() != k || stats.n_rows() == 0 {
            return Err(QuantizeError::StatsMismatch { expected: k, found: stats.features(), rows: stats.n_rows() });
        }
        let h = stats.hessian();
        if let Some(at) = h.iter().position(|h| !h.is_finite()) {
            return Err(QuantizeError::NonFiniteStats { feature: at % k });
        }
        let rows: Vec<OnceLock<_>> = (0..n).map(|_| OnceLock::new()).collect();
        self.device.cpu().parallel(n, &|i| {
            let row: Vec<f64> = weight.row(i).iter().map(|&w| w as f64).collect();
            rows[i].get_or_init(|| self.row(&row, &h));
        });
        let (mut codes, mut scales, mut zeros) = (Vec::with_capacity(n * k), vec![], vec![]);
        for (row, constants) in rows.into_iter().filter_map(OnceLock::into_inner) {
            codes.extend(row);
            scales.extend(constants.iter().map(|[scale, _]| scale));
            zeros.extend(constants.iter().map(|[_, zero]| zero));
        }
        let (bits, group) = (self.spec.bits, self.spec.grid().group_in(k));
        Ok(Quantized::Group(GroupCodes { n, k, bits, group, codes, scales, zeros, order: None }))
    }
}

/// The bound on |w| of a group (columns `first..` of H `[k, k]`) with the least output error of its own.
fn clip_bound(values: &[f64], bits: u8, h: &[f64], k: usize, first: usize) -> f64 {
    let largest = values.iter().fold(0.0f64, |max, w| max.max(w.abs()));
    let mut best = (f64::INFINITY, largest);
    for step in 0..BOUNDS {
        let bound = largest * (1.0 - step as f64 / EXPONENTS as f64);
        let grid = Grid::fit(values.iter().map(|w| w.clamp(-bound, bound)), bits, false);
        let misses: Vec<f64> = values.iter().map(|&w| grid.value(grid.code(w)) - w).collect();
        let error: f64 = misses
            .iter()
            .enumerate()
            .map(|(i, miss)| {
                let h = &h[(first + i) * k + first..][..misses.len()];
                miss * h.iter().zip(&misses).map(|(h, miss)| h * miss).sum::<f64>()
            })
            .sum();
        if error < best.0 {
            best = (error, bound);
        }
    }
    best.1
}
