//! What: vector quantization to 2 bits: 8 weights at a time onto the E8P lattice codebook, errors fed back to columns still free.
//! Source: QuIP#, Tseng et al. 2024, arXiv 2402.04396: §3 (randomised Hadamard transforms on both sides), §4.1 (block LDLQ), §4.2 (E8P).
//! Shapes: weight `[n, k]`, H `[k, k]` → codes `[n, ⌈k/8⌉]` u16, scales `[n]`, signs `[n]` and `[k]`.
//! Method: 1. W becomes H_nᵀ·S_n·W·S_k·H_kᵀ with random signs S, H of the inputs likewise. 2. a row's scale: of five around rms/1.03 the one
//!   with the least squared error. 3. H⁻¹ = RᵀR, damped as in GPTQ. 4. per 8 columns B: q = the point nearest to w_B; e = (w_B − q)·R_BB⁻¹;
//!   the columns behind get w −= e·R_B. One column at a time and a scalar grid make this GPTQ.
//! Exactness: the nearest point is exact; scales are f32, decoded weights fl(point·scale) as the kernel has them.
//! Cost: about 1 µs per 8 weights for the search, n·k² multiply-adds for feedback, k³/3 for R.
//! Not handled: fine-tuning of signs and scales, 3 and 4 bits by residual codes.

use std::ops::Range;
use std::sync::OnceLock;

use cpu_kernels::{Cpu, Hadamard, LatticeCodes, e8p_point, subtract_combination};
use model::Device;
use ndarray::ArrayView2;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use serde::{Deserialize, Serialize};

use super::inverse_factor::{BadPivot, upper_factor_of_inverse};
use super::lattice_search::Nearest;
use super::{QuantizeError, Quantized, Quantizer, require_finite};
use crate::{CalibrationStats, SpecError};

/// Columns of a code.
const WIDTH: usize = 8;
/// Rows that advance together.
const TILE_ROWS: usize = 16;
/// Root mean square of what the codebook represents best, in its own units (QuIP#'s constant).
const BEST_RMS: f64 = 1.03;
/// Scales tried, relative to the one that gives a row that root mean square.
const SCALES: [f64; 5] = [0.88, 0.94, 1.0, 1.06, 1.12];

/// What a scenario chooses.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct E8pSpec {
    /// Whether errors are fed back, which needs calibration.
    pub feedback: bool,
    /// Whether weights are made incoherent by randomised Hadamard matrices on both sides first.
    pub hadamard: bool,
    /// Seed of their signs.
    pub seed: u64,
    /// λ as a fraction of the mean diagonal of H.
    pub damping: f64,
}

impl Default for E8pSpec {
    fn default() -> E8pSpec {
        E8pSpec { feedback: true, hadamard: true, seed: 0, damping: 0.01 }
    }
}

impl E8pSpec {
    /// Bits per weight; the scale of a row vanishes against it.
    pub const BITS: f64 = 2.0;

    pub(crate) fn tag(&self) -> String {
        let base = E8pSpec::default();
        let mut tag = "e8p".to_string();
        for (differs, part) in [
            (!self.feedback, "-nofeedback".to_string()),
            (!self.hadamard, "-plain".to_string()),
            (self.seed != base.seed, format!("-s{}", self.seed)),
            (self.damping != base.damping, format!("-damping{}", self.damping)),
        ] {
            if differs {
                tag.push_str(&part);
            }
        }
        tag
    }

    pub(crate) fn validate(&self) -> Result<(), SpecError> {
        if self.damping > 0.0 && self.damping <= 1.0 {
            return Ok(());
        }
        Err(SpecError {
            field: "damping",
            found: self.damping.to_string(),
            expected: "more than 0, at most 1 (a fraction of H's mean diagonal)",
            advice: "0.01 is usual",
        })
    }
}

/// Random signs and Hadamard matrices on both sides of a weight: W = S_n·H_n·W̃·H_k·S_k.
#[derive(Debug, Clone, PartialEq)]
pub struct Incoherence {
    /// On the inputs, and ±1 for each.
    pub input: (Hadamard, Vec<i8>),
    /// On the outputs, and ±1 for each.
    pub output: (Hadamard, Vec<i8>),
}

impl Incoherence {
    /// For a weight `[n, k]`.
    pub fn draw(n: usize, k: usize, seed: u64) -> Incoherence {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut side = |len: usize| {
            let signs = (0..len).map(|_| if rng.random::<bool>() { 1 } else { -1 }).collect();
            (Hadamard::new(len), signs)
        };
        let (input, output) = (side(k), side(n));
        Incoherence { input, output }
    }

    /// x → H·S·x, as the inputs are turned; also each row of W as it becomes one of W̃.
    fn turn(side: &(Hadamard, Vec<i8>), x: &mut [f64]) {
        x.iter_mut().zip(&side.1).for_each(|(x, sign)| *x *= f64::from(*sign));
        side.0.apply(x);
    }

    /// y → Hᵀ·S·y: W̃'s columns from W's.
    fn turn_output(&self, y: &mut [f64]) {
        y.iter_mut().zip(&self.output.1).for_each(|(y, sign)| *y *= f64::from(*sign));
        self.output.0.apply_transposed(y);
    }

    /// W `[n, k]` → W̃.
    pub fn weight(&self, w: &mut [f64], [n, k]: [usize; 2]) {
        w.chunks_exact_mut(k).for_each(|row| Incoherence::turn(&self.input, row));
        for_columns(w, [n, k], |column| self.turn_output(column));
    }

    /// W̃ `[n, k]` → W.
    pub fn undo(&self, w: &mut [f64], [n, k]: [usize; 2]) {
        for row in w.chunks_exact_mut(k) {
            self.input.0.apply_transposed(row);
            row.iter_mut().zip(&self.input.1).for_each(|(x, sign)| *x *= f64::from(*sign));
        }
        for_columns(w, [n, k], |column| {
            self.output.0.apply(column);
            column.iter_mut().zip(&self.output.1).for_each(|(y, sign)| *y *= f64::from(*sign));
        });
    }

    /// H `[k, k]` of x → H of the turned x.
    fn hessian(&self, h: &mut [f64], k: usize) {
        h.chunks_exact_mut(k).for_each(|row| Incoherence::turn(&self.input, row));
        for_columns(h, [k, k], |column| Incoherence::turn(&self.input, column));
    }
}

fn for_columns(w: &mut [f64], [n, k]: [usize; 2], mut f: impl FnMut(&mut [f64])) {
    let mut column = vec![0.0; n];
    for j in 0..k {
        column.iter_mut().enumerate().for_each(|(i, v)| *v = w[i * k + j]);
        f(&mut column);
        column.iter().enumerate().for_each(|(i, v)| w[i * k + j] = *v);
    }
}

/// Codes of a weight, and what it was turned by before they were chosen.
#[derive(Debug, Clone)]
pub struct TurnedLattice {
    /// Codes of W̃, or of W.
    pub codes: LatticeCodes,
    /// What leads back to W.
    pub incoherence: Option<Incoherence>,
}

impl TurnedLattice {
    /// The weights that they stand for, `[n, k]`.
    pub fn dequantise(&self) -> Vec<f32> {
        let codes = &self.codes;
        let (n, k, words) = (codes.n, codes.k, codes.k.div_ceil(WIDTH));
        let mut out = Vec::with_capacity(n * k);
        for (row, scale) in codes.codes.chunks_exact(words.max(1)).zip(&codes.scales) {
            let points = row.iter().flat_map(|&code| e8p_point(code));
            out.extend(points.take(k).map(|value| value * scale));
        }
        let Some(incoherence) = &self.incoherence else { return out };
        let mut wide: Vec<f64> = out.iter().map(|&v| f64::from(v)).collect();
        incoherence.undo(&mut wide, [n, k]);
        wide.into_iter().map(|v| v as f32).collect()
    }
}

/// The quantizer.
pub struct E8p {
    spec: E8pSpec,
    device: Device,
}

impl Quantizer for E8p {
    fn quantize(&self, weight: ArrayView2<f32>, stats: Option<&CalibrationStats>) -> Result<Quantized, QuantizeError> {
        require_finite(weight)?;
        let (n, k) = weight.dim();
        let incoherence = self.spec.hadamard.then(|| Incoherence::draw(n, k, self.spec.seed));
        let mut w: Vec<f64> = weight.iter().map(|&v| f64::from(v)).collect();
        // 1.
        if let Some(incoherence) = &incoherence {
            incoherence.weight(&mut w, [n, k]);
        }
        let r = match self.spec.feedback {
            false => None,
            true => {
                let stats = stats.ok_or(QuantizeError::MissingStats { quantizer: "e8p" })?;
                Some(self.factor(stats, k, incoherence.as_ref())?)
            }
        };
        let nearest = Nearest::new();
        let plan = Plan { k, r, nearest: &nearest };
        let tiles: Vec<OnceLock<Tile>> = (0..n.div_ceil(TILE_ROWS)).map(|_| OnceLock::new()).collect();
        self.device.cpu().parallel(tiles.len(), &|i| {
            let rows = i * TILE_ROWS * k..(((i + 1) * TILE_ROWS).min(n)) * k;
            tiles[i].get_or_init(|| plan.quantise_rows(self.device.cpu(), &w[rows]));
        });
        let mut codes = LatticeCodes { n, k, codes: vec![], scales: vec![] };
        for tile in tiles.into_iter().filter_map(OnceLock::into_inner) {
            codes.codes.extend(tile.codes);
            codes.scales.extend(tile.scales);
        }
        Ok(Quantized::Lattice(Box::new(TurnedLattice { codes, incoherence })))
    }
}

impl E8p {
    /// E8P with `spec` on the threads of `device`.
    pub fn new(spec: E8pSpec, device: &Device) -> E8p {
        E8p { spec, device: device.clone() }
    }

    /// 3. R of the turned, damped H.
    fn factor(
        &self,
        stats: &CalibrationStats,
        k: usize,
        incoherence: Option<&Incoherence>,
    ) -> Result<Vec<f64>, QuantizeError> {
        if stats.features() != k || stats.n_rows() == 0 {
            return Err(QuantizeError::StatsMismatch { expected: k, found: stats.features(), rows: stats.n_rows() });
        }
        let mut h = stats.hessian();
        if let Some(at) = crate::source::first_bad(&h, |x: f64| !x.is_finite()) {
            return Err(QuantizeError::NonFiniteStats { feature: at / k });
        }
        if let Some(incoherence) = incoherence {
            incoherence.hessian(&mut h, k);
        }
        let mean = (0..k).map(|j| h[j * k + j]).sum::<f64>() / k as f64;
        // inputs that were all zero leave every weight free: H = 1 lets the method run
        let mean = if mean > 0.0 { mean } else { 1.0 };
        let (mut damping, mut pivot) = (self.spec.damping, 0);
        for _ in 0..4 {
            let mut damped = h.clone();
            (0..k).for_each(|j| damped[j * k + j] += damping * mean);
            match upper_factor_of_inverse(self.cpu(), damped, k) {
                Ok(r) => return Ok(r),
                Err(BadPivot(bad)) => (pivot, damping) = (bad, damping * 10.0),
            }
        }
        Err(QuantizeError::NotPositiveDefinite { damping: damping / 10.0, pivot, features: k })
    }

    fn cpu(&self) -> &Cpu {
        self.device.cpu()
    }
}

/// What the rows share.
struct Plan<'a> {
    k: usize,
    r: Option<Vec<f64>>,
    nearest: &'a Nearest,
}

struct Tile {
    codes: Vec<u16>,
    scales: Vec<f32>,
}

impl Plan<'_> {
    /// `rows [·, k]`, flat.
    fn quantise_rows(&self, cpu: &Cpu, rows: &[f64]) -> Tile {
        let (k, words) = (self.k, self.k.div_ceil(WIDTH));
        let mut w = rows.to_vec();
        let scales: Vec<f32> = rows.chunks_exact(k).map(|row| self.scale(row)).collect();
        let mut codes = vec![0; scales.len() * words];
        for word in 0..words {
            let block = word * WIDTH..((word + 1) * WIDTH).min(k);
            for (i, row) in w.chunks_exact_mut(k).enumerate() {
                let (code, errors) = self.block(&row[block.clone()], scales[i], block.clone());
                codes[i * words + word] = code;
                if let Some(r) = &self.r {
                    let behind = &mut row[block.end..];
                    if !behind.is_empty() {
                        subtract_combination(cpu, behind, &errors[..block.len()], &r[block.start * k + block.end..], k);
                    }
                }
            }
        }
        Tile { codes, scales }
    }

    /// 4. The code nearest to `w`, and e = (w − q)·R_BB⁻¹.
    fn block(&self, w: &[f64], scale: f32, columns: Range<usize>) -> (u16, [f64; WIDTH]) {
        let code = self.nearest.code(&in_units(w, scale));
        let mut errors = [0.0; WIDTH];
        let Some(r) = &self.r else { return (code, errors) };
        let point = e8p_point(code);
        for (j, w) in w.iter().enumerate() {
            let mut left = w - f64::from(point[j] * scale);
            for (i, error) in errors[..j].iter().enumerate() {
                left -= error * r[(columns.start + i) * self.k + columns.start + j];
            }
            errors[j] = left / r[(columns.start + j) * self.k + columns.start + j];
        }
        (code, errors)
    }

    /// 2. The scale of a row, from every fourth block of a long one.
    fn scale(&self, row: &[f64]) -> f32 {
        let rms = (row.iter().map(|w| w * w).sum::<f64>() / row.len().max(1) as f64).sqrt();
        if rms < f64::from(f32::MIN_POSITIVE) {
            return f32::MIN_POSITIVE;
        }
        let every = if row.len() > 64 * WIDTH { 4 } else { 1 };
        let loss = |scale: f32| -> f64 {
            let of_block = |w: &[f64]| {
                let units = in_units(w, scale);
                let point = e8p_point(self.nearest.code(&units));
                point.iter().zip(&units).take(w.len()).map(|(p, u)| f64::from(p - u).powi(2)).sum::<f64>()
            };
            row.chunks(WIDTH).step_by(every).map(of_block).sum::<f64>() * f64::from(scale).powi(2)
        };
        let tried = SCALES.map(|factor| (rms / BEST_RMS * factor) as f32).map(|scale| (loss(scale), scale));
        tried.into_iter().min_by(|a, b| a.0.total_cmp(&b.0)).map_or(1.0, |(_, scale)| scale)
    }
}

/// `w` in units of `scale`; what is missing to 8 counts as a small value, which costs nothing.
fn in_units(w: &[f64], scale: f32) -> [f32; WIDTH] {
    std::array::from_fn(|j| w.get(j).map_or(0.25, |w| (w / f64::from(scale)) as f32))
}
