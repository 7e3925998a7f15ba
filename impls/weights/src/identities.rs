//! What must hold of the quantizers, measured: each function returns the number that a claim's rule judges.
//!
//! | function | claim | holds when |
//! |---|---|---|
//! | [`identity_hessian_mismatches`] | H = I reduces GPTQ to RTN | 0 |
//! | [`lazy_batch_difference`] | lazy batches do not change the result | ≤ 1e-4 |
//! | [`brute_force_difference`] | GPTQ is OBS in a fixed order | ≤ 1e-6 |
//! | [`layer_error_ratio`] | GPTQ's layer error is below RTN's | ≤ 0.8 |
//! | [`threshold_limits`] | LLM.int8() ends in 16-bit and in vector-wise int8 | ≤ 1e-5 |
//! | [`integer_product_mismatches`] | int8 products are exact in int32 | 0 |
//! | [`two_bit_errors`] | at 2 bits vectors beat scalars | E8P < Lloyd-Max < uniform |
//! | [`incoherence`] | Hadamard transforms spread a weight | after ≤ 0.5 · before |
//!
//! Inputs are drawn from a seed; the same seed gives the same number on every machine but for rounding.

pub mod four_bit;
mod int8;
mod vectors;

use model::{Activations, Device};
use ndarray::{Array2, ArrayView2};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

pub use int8::{ThresholdLimits, integer_product_mismatches, threshold_limits};
pub use vectors::{TwoBitErrors, incoherence, spiky_weight, two_bit_errors};

use crate::quantizer::Grid;
use crate::quantizer::gptq::Gptq;
use crate::quantizer::round_to_nearest::RoundToNearest;
use crate::{CalibrationStats, GptqSpec, GroupSpec, QuantizeError, Quantized, Quantizer, output_error};

/// Specs that the identities run over: every width, groups that divide the row and that do not, both kinds of grid.
fn specs() -> Vec<GptqSpec> {
    let mut specs = vec![];
    for bits in [2, 3, 4, 8] {
        for group in [None, Some(32), Some(128), Some(50)] {
            for symmetric in [false, true] {
                specs.push(GptqSpec { symmetric, ..GptqSpec::new(bits, group) });
            }
        }
    }
    specs
}

/// Codes, scales and zeros that differ between GPTQ with H = I and RTN, over all specs on a 24 x 200 layer; 0 when
/// GPTQ reduces to RTN.
pub fn identity_hessian_mismatches(device: &Device, seed: u64) -> Result<usize, QuantizeError> {
    let (n, k) = (24, 200);
    let weight = gaussian(&mut ChaCha8Rng::seed_from_u64(seed), n, k);
    let mut identity = vec![0.0; k * k];
    (0..k).for_each(|j| identity[j * k + j] = 1.0);
    let stats = CalibrationStats::from_hessian(k, k, &identity);
    let mut mismatches = 0;
    for spec in specs() {
        for act_order in [false, true] {
            let gptq = Gptq::new(GptqSpec { act_order, ..spec }, device).solve(weight.view(), &stats)?.codes;
            let Quantized::Group(rtn) = RoundToNearest::new(spec.grid()).quantize(weight.view(), None)? else {
                continue;
            };
            mismatches += gptq.codes.iter().zip(&rtn.codes).filter(|(a, b)| a != b).count();
            mismatches += gptq.scales.iter().zip(&rtn.scales).filter(|(a, b)| a != b).count();
            mismatches += gptq.zeros.iter().zip(&rtn.zeros).filter(|(a, b)| a != b).count();
        }
    }
    Ok(mismatches)
}

/// Largest ‖Ŵ₁ − Ŵ₁₂₈‖ / ‖Ŵ₁₂₈‖ (Frobenius) between lazy blocks of 1 and of 128 columns, over all specs, with and
/// without act-order, on a 32 x 300 layer with correlated inputs.
pub fn lazy_batch_difference(device: &Device, seed: u64) -> Result<f64, QuantizeError> {
    let layer = RandomLayer::correlated(device, 32, 300, 1200, seed);
    let mut largest = 0.0f64;
    for spec in specs() {
        for act_order in [false, true] {
            let with_block = |block| {
                let spec = GptqSpec { act_order, block, ..spec };
                Gptq::new(spec, device).quantize(layer.weight.view(), Some(&layer.stats)).map(|q| q.dequantise())
            };
            largest = largest.max(relative_difference(&with_block(1)?, &with_block(128)?));
        }
    }
    Ok(largest)
}

/// Largest relative difference between GPTQ and brute-force OBS (the inverse of what is left of H, afresh for every
/// column, by Gauss-Jordan elimination) over 64 layers of 4 x 6, with one grid per row and with groups fitted on the
/// way, in input order and by H's diagonal.
pub fn brute_force_difference(device: &Device, seed: u64) -> Result<f64, QuantizeError> {
    let mut largest = 0.0f64;
    for trial in 0..64 {
        let layer = RandomLayer::correlated(device, 4, 6, 40, seed.wrapping_add(trial));
        for (bits, group) in [(2, None), (3, None), (4, None), (2, Some(2)), (3, Some(4))] {
            for act_order in [false, true] {
                let spec = GptqSpec { act_order, ..GptqSpec::new(bits, group) };
                let gptq = Gptq::new(spec, device).quantize(layer.weight.view(), Some(&layer.stats))?.dequantise();
                largest = largest.max(relative_difference(&gptq, &brute_force_obs(&layer, spec)));
            }
        }
    }
    Ok(largest)
}

/// Layer error of GPTQ over that of RTN on the same grids, for an `n` x `k` Gaussian layer whose inputs are mixtures
/// of k/4 factors and a little noise, calibrated on 4·k rows.
pub fn layer_error_ratio(
    device: &Device,
    grid: GroupSpec,
    n: usize,
    k: usize,
    seed: u64,
) -> Result<f64, QuantizeError> {
    let layer = RandomLayer::correlated(device, n, k, 4 * k, seed);
    let spec = GptqSpec { symmetric: grid.symmetric, ..GptqSpec::new(grid.bits, grid.group) };
    layer_error_ratio_of(device, layer.weight.view(), spec, &layer.stats)
}

/// Layer error of GPTQ over that of RTN on the same grids, for a layer of a real model.
pub fn layer_error_ratio_of(
    device: &Device,
    weight: ArrayView2<f32>,
    spec: GptqSpec,
    stats: &CalibrationStats,
) -> Result<f64, QuantizeError> {
    let error = |quantized| output_error(device.cpu(), weight, &quantized, stats);
    let gptq = error(Gptq::new(spec, device).quantize(weight, Some(stats))?);
    let rtn = error(RoundToNearest::new(spec.grid()).quantize(weight, None)?);
    Ok(if gptq == 0.0 { 0.0 } else { gptq / rtn })
}

/// A Gaussian weight and the statistics of inputs that share factors, as a network's activations do.
struct RandomLayer {
    weight: Array2<f32>,
    stats: CalibrationStats,
}

impl RandomLayer {
    fn correlated(device: &Device, n: usize, k: usize, rows: usize, seed: u64) -> RandomLayer {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let weight = gaussian(&mut rng, n, k);
        let n_factors = (k / 4).max(2);
        let loadings = gaussian(&mut rng, n_factors, k);
        let factors = gaussian(&mut rng, rows, n_factors);
        let noise = gaussian(&mut rng, rows, k);
        let x = (factors.dot(&loadings) / (n_factors as f32).sqrt() + noise * 0.2).into_raw_vec_and_offset().0;
        let mut stats = CalibrationStats::new(k);
        stats.add(device.cpu(), &Activations::from_vec(rows, k, x));
        RandomLayer { weight, stats }
    }
}

/// OBS as Optimal Brain Surgeon states it, in a fixed order of columns: quantise w_j; of the columns F still free
/// take δ = −(w_j − q)/[H_F⁻¹]_jj · [H_F⁻¹]_:j.
fn brute_force_obs(layer: &RandomLayer, spec: GptqSpec) -> Vec<f32> {
    let (n, k) = layer.weight.dim();
    let h = layer.stats.hessian();
    let mut order: Vec<usize> = (0..k).collect();
    if spec.act_order {
        order.sort_by(|&a, &b| h[b * k + b].total_cmp(&h[a * k + a]));
    }
    let damping = spec.damping * (0..k).map(|j| h[j * k + j]).sum::<f64>() / k as f64;
    let entry = |i: usize, j: usize| h[order[i] * k + order[j]] + if i == j { damping } else { 0.0 };
    let damped: Vec<f64> = (0..k * k).map(|at| entry(at / k, at % k)).collect();
    let group = spec.group.unwrap_or(k);
    let mut result = vec![0.0; n * k];
    for (row, result) in layer.weight.rows().into_iter().zip(result.chunks_mut(k)) {
        let mut w: Vec<f64> = order.iter().map(|&j| row[j] as f64).collect();
        let fit = |w: &[f64]| Grid::fit(w.iter().copied(), spec.bits, spec.symmetric);
        let mut grid = fit(&w);
        for j in 0..k {
            if j.is_multiple_of(group) {
                grid = fit(&w[j..(j + group).min(k)]);
            }
            let inverse = inverse_of_remaining(&damped, k, j);
            let left = k - j;
            let q = grid.value(grid.code(w[j]));
            let e = (w[j] - q) / inverse[0];
            (0..left).for_each(|i| w[j + i] -= e * inverse[i * left]);
            result[order[j]] = q as f32;
        }
    }
    result
}

/// Inverse of rows and columns `first..` of `h [k, k]`, by Gauss-Jordan elimination.
fn inverse_of_remaining(h: &[f64], k: usize, first: usize) -> Vec<f64> {
    let n = k - first;
    let mut a: Vec<f64> = (first..k).flat_map(|i| h[i * k + first..(i + 1) * k].iter().copied()).collect();
    let mut inverse = vec![0.0; n * n];
    (0..n).for_each(|i| inverse[i * n + i] = 1.0);
    for p in 0..n {
        let pivot = a[p * n + p];
        for c in 0..n {
            a[p * n + c] /= pivot;
            inverse[p * n + c] /= pivot;
        }
        for i in (0..n).filter(|&i| i != p) {
            let factor = a[i * n + p];
            for c in 0..n {
                a[i * n + c] -= factor * a[p * n + c];
                inverse[i * n + c] -= factor * inverse[p * n + c];
            }
        }
    }
    inverse
}

/// Frobenius norm of a − b over that of b; 0 when both are 0.
fn relative_difference(a: &[f32], b: &[f32]) -> f64 {
    let difference: f64 = a.iter().zip(b).map(|(&a, &b)| (a as f64 - b as f64).powi(2)).sum();
    let norm: f64 = b.iter().map(|&b| (b as f64).powi(2)).sum();
    if difference == 0.0 { 0.0 } else { (difference / norm).sqrt() }
}

/// `[n, k]` standard normal values (Box-Muller).
fn gaussian(rng: &mut ChaCha8Rng, n: usize, k: usize) -> Array2<f32> {
    Array2::from_shape_simple_fn((n, k), || {
        let (u, v): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
        ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
    })
}
