//! What must hold of the 4-bit kinds, measured.
//!
//! | function | claim | holds when |
//! |---|---|---|
//! | [`nf4_table`] | NF4 is 16 quantiles of a normal distribution | bits equal; ≤ 1e-4 from the quantiles |
//! | [`nf4_coding`] | encoding what was decoded changes nothing, zero stays zero | 0 |
//! | [`microscaling_mismatches`] | MXFP4 and NVFP4 are what their standards say | 0 |
//! | [`mean_squared_error`] | which table fits which distribution | an order |
//! | [`stored_bits`] | what a weight costs | as nominal |

use cpu_kernels::{e4m3_to_f32, e8m0_to_f32};
use model::Device;
use ndarray::ArrayView2;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use crate::quantizer::codebook::{BlockAbsmax, NF4};
use crate::quantizer::microscaling::{E2M1, Mxfp4, Nvfp4, e2m1_code, e4m3_code, mx_scale_code};
use crate::{BlockSpec, Quantized, Quantizer, WeightSource, WeightsError, WeightsSpec, build_linear, quantize};

/// The table as the authors' code prints it.
const PUBLISHED: [f64; 16] = [
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
];

/// Rows and columns of the tensors that errors are averaged over.
const SHAPE: (usize, usize) = (256, 4096);

/// (values of NF4 that differ from the published ones in a bit, largest difference from the normal quantiles that define
/// them).
pub fn nf4_table() -> (usize, f64) {
    let different =
        NF4.iter().zip(PUBLISHED).filter(|(ours, theirs)| ours.to_bits() != (*theirs as f32).to_bits()).count();
    // the two halves apart: 7 negative and 8 positive quantiles between 1 − offset and offset, and one zero
    const OFFSET: f64 = (1.0 - 1.0 / 30.0 + 1.0 - 1.0 / 32.0) / 2.0;
    let half = |n: usize| (0..n).map(move |i| normal_quantile(OFFSET + (0.5 - OFFSET) * i as f64 / n as f64));
    let mut values: Vec<f64> = half(7).map(|v| -v).chain([0.0]).chain(half(8)).collect();
    let largest = values.iter().fold(0.0f64, |max, v| max.max(v.abs()));
    values.iter_mut().for_each(|v| *v /= largest);
    values.sort_by(f64::total_cmp);
    let worst = values.iter().zip(NF4).map(|(v, ours)| (v - ours as f64).abs()).fold(0.0, f64::max);
    (different, worst)
}

/// (codes and scales that change when decoded weights are encoded again, zeros that do not stay 0), over a matrix with blocks
/// of zeros and a short last block.
pub fn nf4_coding(seed: u64) -> (usize, usize) {
    let (n, k) = (16, 4096 - 24);
    let mut weight = draw(Distribution::Gaussian, n * k, seed);
    weight.iter_mut().step_by(5).for_each(|w| *w = 0.0);
    weight[..128].fill(0.0);
    let code = |weight: &[f32]| {
        let view = ArrayView2::from_shape((n, k), weight).ok()?;
        BlockAbsmax::nf4(BlockSpec::default()).quantize(view, None).ok()
    };
    let (Some(once), everything) = (code(&weight), n * k) else { return (n * k, n * k) };
    let decoded = once.dequantise();
    let zeros = weight.iter().zip(&decoded).filter(|(w, d)| **w == 0.0 && **d != 0.0).count();
    match (once, code(&decoded)) {
        (Quantized::Codebook(a), Some(Quantized::Codebook(b))) => {
            let codes = a.codes.iter().zip(&b.codes).filter(|(a, b)| a != b).count();
            (codes + (0..a.scales.len()).filter(|&i| a.scales.get(i) != b.scales.get(i)).count(), zeros)
        }
        _ => (everything, zeros),
    }
}

/// Statements of the standards that do not hold, out of (see the arrays): values of the 16 codes, roundings, scales, and a
/// matrix of each format worked out by hand.
pub fn microscaling_mismatches() -> usize {
    let magnitudes = [0.0f32, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
    let values = (0..16).filter(|&c| E2M1[c].abs() != magnitudes[c % 8] || E2M1[c].is_sign_negative() != (c >= 8));
    let same = (0..16).filter(|&c| usize::from(e2m1_code(E2M1[c] as f64)) != c);
    let ties = [(0.25, 0.0), (0.75, 1.0), (1.25, 1.0), (1.75, 2.0), (2.5, 2.0), (3.5, 4.0), (5.0, 4.0)];
    let beyond = [(6.5, 6.0), (7.99, 6.0), (1e20, 6.0)];
    let rounds =
        |(x, want): &(f64, f32)| E2M1[usize::from(e2m1_code(*x))] == *want && E2M1[usize::from(e2m1_code(-x))] == -want;
    let roundings = ties.iter().chain(&beyond).filter(|case| !rounds(case));
    let eights = [(0x00u8, 0.0f32), (0x01, 0.001953125), (0x08, 0.015625), (0x38, 1.0), (0x3c, 1.5), (0x7e, 448.0)];
    let e4m3 = eights.iter().filter(|(code, value)| e4m3_to_f32(*code) != *value || e4m3_code(*value as f64) != *code);
    let tied = [(1.0625, 0x38u8), (1.1875, 0x3a), (2f64.powi(-10), 0x00), (460.0, 0x7e)];
    let e4m3_ties = tied.iter().filter(|(x, code)| e4m3_code(*x) != *code);
    let powers = [(0u8, 2f32.powi(-127)), (1, 2f32.powi(-126)), (127, 1.0), (254, 2f32.powi(127))];
    let e8m0 = powers.iter().filter(|(code, value)| e8m0_to_f32(*code) != *value).count()
        + usize::from(!e8m0_to_f32(255).is_nan());
    let largest = [(6.0f32, 127u8), (4.0, 127), (3.99, 126), (7.9, 127), (8.0, 128), (1.0, 125), (0.0, 0)];
    let scales = largest.iter().filter(|(amax, code)| mx_scale_code(*amax) != *code);
    let counted =
        [values.count(), same.count(), roundings.count(), e4m3.count(), e4m3_ties.count(), e8m0, scales.count()];
    counted.iter().sum::<usize>() + golden_matrices()
}

/// Weights of two small matrices that do not decode to what the standards' formulas give by hand.
fn golden_matrices() -> usize {
    // MXFP4: largest 7, scale 1, 7 saturates; largest 0.2, scale 1/32
    let mut mx = vec![0.0f32; 64];
    mx[..6].copy_from_slice(&[7.0, -5.0, 2.5, 0.3, -0.1, 1.25]);
    mx[32..34].copy_from_slice(&[0.2, -0.05]);
    let mut mx_want = vec![0.0f32; 64];
    mx_want[..6].copy_from_slice(&[6.0, -4.0, 2.0, 0.5, 0.0, 1.0]);
    mx_want[32..34].copy_from_slice(&[0.1875, -0.046875]);
    // NVFP4: largest 2688 = 6 · 448, so the matrix's constant is 1; second block's scale is E4M3(1.05) = 1
    let mut nv = vec![0.0f32; 32];
    nv[..3].copy_from_slice(&[2688.0, 1344.0, -448.0]);
    nv[16..19].copy_from_slice(&[6.3, 2.4, -0.7]);
    let mut nv_want = vec![0.0f32; 32];
    nv_want[..3].copy_from_slice(&[2688.0, 1344.0, -448.0]);
    nv_want[16..19].copy_from_slice(&[6.0, 2.0, -0.5]);
    let wrong = |quantizer: &dyn Quantizer, weight: &[f32], want: &[f32]| {
        let decoded = ArrayView2::from_shape((1, weight.len()), weight)
            .ok()
            .and_then(|view| quantizer.quantize(view, None).ok())
            .map(|codes| codes.dequantise());
        decoded.map_or(want.len(), |decoded| decoded.iter().zip(want).filter(|(d, w)| d != w).count())
    };
    wrong(&Mxfp4, &mx, &mx_want) + wrong(&Nvfp4, &nv, &nv_want)
}

/// What random weights are drawn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distribution {
    /// Standard normal.
    Gaussian,
    /// Laplace of scale 1: heavier tails.
    Laplace,
}

/// Mean of (w − ŵ)² over the variance of w, for 2²⁰ weights drawn from `distribution`.
pub fn mean_squared_error(
    device: &Device,
    spec: &WeightsSpec,
    distribution: Distribution,
    seed: u64,
) -> Result<f64, WeightsError> {
    let (n, k) = SHAPE;
    let weight = draw(distribution, n * k, seed);
    let decoded = match quantize(spec, device, WeightSource::F32(&weight), n, k, None)? {
        Some(codes) => codes.dequantise(),
        None => weight.clone(),
    };
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let missed = squares(&mut weight.iter().zip(&decoded).map(|(&w, &d)| w as f64 - d as f64));
    Ok(missed / squares(&mut weight.iter().map(|&w| w as f64)))
}

/// Bits per weight that the packed form of a 256 x 4096 matrix streams, everything counted.
pub fn stored_bits(device: &Device, spec: &WeightsSpec, seed: u64) -> Result<f64, WeightsError> {
    let (n, k) = SHAPE;
    let weight = draw(Distribution::Gaussian, n * k, seed);
    let linear = build_linear(spec, device, WeightSource::F32(&weight), n, k, None)?;
    Ok(linear.weight_bytes() as f64 * 8.0 / (n * k) as f64)
}

fn draw(distribution: Distribution, len: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut one = || {
        let (u, v): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
        match distribution {
            Distribution::Gaussian => (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos(),
            Distribution::Laplace => -u.ln() * if v < 0.5 { 1.0 } else { -1.0 },
        }
    };
    (0..len).map(|_| one() as f32).collect()
}

/// x with Φ(x) = p, for p in (0.5, 1), by bisection.
fn normal_quantile(p: f64) -> f64 {
    let (mut low, mut high) = (0.0f64, 8.0f64);
    for _ in 0..80 {
        let middle = (low + high) / 2.0;
        if normal_cdf(middle) < p { low = middle } else { high = middle }
    }
    (low + high) / 2.0
}

/// Φ(x) = 1/2 + φ(x)·(x + x³/3 + x⁵/(3·5) + …), for x ≥ 0.
fn normal_cdf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for i in 1..200 {
        term *= x * x / (2 * i + 1) as f64;
        sum += term;
    }
    0.5 + sum * (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_a_normal_table() {
        for (p, want) in [(0.5, 0.0), (0.841344746, 1.0), (0.975, 1.959963985), (0.99865, 2.999976993)] {
            assert!((normal_quantile(p) - want).abs() < 1e-6, "{p}");
        }
    }
}
