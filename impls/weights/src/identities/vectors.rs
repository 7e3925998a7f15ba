//! Two bits a weight: vectors against scalars on a Gaussian source, and what a Hadamard transform does to an odd weight.

use ndarray::{Array2, ArrayView2};
use rand::{SeedableRng, rngs::ChaCha8Rng};

use super::gaussian;
use crate::quantizer::e8p::{E8p, Incoherence};
use crate::{E8pSpec, QuantizeError, Quantizer};
use model::Device;

/// Mean squared error of three 2-bit codes of a standard Gaussian, each at its best scale.
#[derive(Debug, Clone, Copy)]
pub struct TwoBitErrors {
    /// The E8P codebook.
    pub e8p: f64,
    /// Four levels placed by Lloyd and Max.
    pub lloyd_max: f64,
    /// Four evenly spaced levels.
    pub uniform: f64,
}

/// Errors on `n` x `k` draws; rows share E8P's scale as weights do.
pub fn two_bit_errors(device: &Device, n: usize, k: usize, seed: u64) -> Result<TwoBitErrors, QuantizeError> {
    let source = gaussian(&mut ChaCha8Rng::seed_from_u64(seed), n, k);
    let spec = E8pSpec { feedback: false, hadamard: false, ..E8pSpec::default() };
    let decoded = E8p::new(spec, device).quantize(source.view(), None)?.dequantise();
    let mean = |error: &dyn Fn(usize, f64) -> f64| {
        let errors = source.iter().enumerate().map(|(i, &x)| error(i, f64::from(x)).powi(2));
        errors.sum::<f64>() / source.len() as f64
    };
    let levels = lloyd_max(&source);
    let nearest = |levels: &[f64], x: f64| levels.iter().map(|l| (x - l).abs()).fold(f64::INFINITY, f64::min);
    let even = |step: f64| [-1.5, -0.5, 0.5, 1.5].map(|l| l * step);
    let uniform = (60..140).map(|i| even(f64::from(i) / 100.0)).map(|levels| mean(&|_, x| nearest(&levels, x)));
    Ok(TwoBitErrors {
        e8p: mean(&|i, x| x - f64::from(decoded[i])),
        lloyd_max: mean(&|_, x| nearest(&levels, x)),
        uniform: uniform.fold(f64::INFINITY, f64::min),
    })
}

/// Four levels, each the mean of what is nearest to it, found by repeating that.
fn lloyd_max(source: &Array2<f32>) -> [f64; 4] {
    let mut levels = [-1.5, -0.5, 0.5, 1.5];
    for _ in 0..100 {
        let (mut sums, mut counts) = ([0.0; 4], [0.0f64; 4]);
        for &x in source {
            let x = f64::from(x);
            let distance = |i: usize| (x - levels[i]).abs();
            let i = (1..4).fold(0, |best, i| if distance(i) < distance(best) { i } else { best });
            sums[i] += x;
            counts[i] += 1.0;
        }
        levels = std::array::from_fn(|i| sums[i] / counts[i].max(1.0));
    }
    levels
}

/// μ of a weight `[n, k]`, max|w|·√(n·k)/‖W‖, as it is and between randomised Hadamard matrices.
pub fn incoherence(weight: ArrayView2<f32>, seed: u64) -> [f64; 2] {
    let (n, k) = weight.dim();
    let mu = |w: &[f64]| {
        let norm = w.iter().map(|v| v * v).sum::<f64>().sqrt();
        w.iter().fold(0.0f64, |m, v| m.max(v.abs())) * ((n * k) as f64).sqrt() / norm.max(f64::MIN_POSITIVE)
    };
    let mut w: Vec<f64> = weight.iter().map(|&v| f64::from(v)).collect();
    let before = mu(&w);
    Incoherence::draw(n, k, seed).weight(&mut w, [n, k]);
    [before, mu(&w)]
}

/// A Gaussian weight `[n, k]` with one entry per `every` of them 20 times as large.
pub fn spiky_weight(n: usize, k: usize, every: usize, seed: u64) -> Array2<f32> {
    let mut weight = gaussian(&mut ChaCha8Rng::seed_from_u64(seed), n, k);
    weight.iter_mut().step_by(every.max(1)).for_each(|w| *w *= 20.0);
    weight
}
