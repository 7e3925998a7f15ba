//! int8: the ends of LLM.int8()'s threshold, and integer products against integers written out.

use cpu_kernels::{Int8Grid, PackedInt8};
use model::{Activations, Device};
use ndarray::Array2;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use super::gaussian;
use crate::{Int8Spec, WeightSource, WeightsError, WeightsSpec, build_linear};

/// How far a decomposed product is from what it should be at the ends of its threshold, relative to the largest result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ThresholdLimits {
    /// Threshold 0 against the f16 product.
    pub at_zero: f64,
    /// Threshold ∞ against vector-wise int8.
    pub at_infinity: f64,
    /// Threshold 6 against the f64 product, over the same of vector-wise int8: what decomposition gains here.
    pub error_ratio: f64,
}

/// Largest over layers of `[n, k]` with Gaussian inputs, six of whose features are 20 times as large.
pub fn threshold_limits(device: &Device, seed: u64) -> Result<ThresholdLimits, WeightsError> {
    let mut found = ThresholdLimits { at_zero: 0.0, at_infinity: 0.0, error_ratio: 0.0 };
    for (n, k, rows) in [(33, 130, 5), (256, 256, 64), (96, 1024, 17)] {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ (n * k) as u64);
        let weight = gaussian(&mut rng, n, k);
        let mut x = gaussian(&mut rng, rows, k);
        (0..6).for_each(|_| x.column_mut(rng.random_range(0..k)).mapv_inplace(|v| 20.0 * v));
        let product = |spec: &WeightsSpec| -> Result<Vec<f64>, WeightsError> {
            let values: Vec<f32> = weight.iter().copied().collect();
            let linear = build_linear(spec, device, WeightSource::F32(&values), n, k, None)?;
            let mut y = Activations::default();
            linear.forward(&Activations::from_vec(rows, k, x.iter().copied().collect()), &mut y);
            Ok(y.as_slice().iter().map(|&y| f64::from(y)).collect())
        };
        let above = |threshold: f32| {
            product(&WeightsSpec::Int8(Int8Spec { decompose: Some(threshold), ..Int8Spec::default() }))
        };
        let plain = product(&WeightsSpec::Int8(Int8Spec::default()))?;
        let half = product(&WeightsSpec::F16)?;
        found.at_zero = found.at_zero.max(largest_gap(&above(0.0)?, &half));
        found.at_infinity = found.at_infinity.max(largest_gap(&above(f32::INFINITY)?, &plain));
        let wide = |a: &Array2<f32>| a.mapv(f64::from);
        let exact: Vec<f64> = wide(&x).dot(&wide(&weight).t()).iter().copied().collect();
        found.error_ratio = found.error_ratio.max(largest_gap(&above(6.0)?, &exact) / largest_gap(&plain, &exact));
    }
    Ok(found)
}

/// Results of int8 products, with and without zero points, that differ from 64-bit integer arithmetic scaled once.
pub fn integer_product_mismatches(device: &Device, seed: u64) -> usize {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut mismatches = 0;
    for (n, k, rows) in [(1, 1, 1), (17, 33, 3), (70, 301, 9), (128, 2048, 40)] {
        let codes: Vec<i8> = (0..n * k).map(|_| rng.random_range(-127..=127)).collect();
        let scales: Vec<f32> = (0..n).map(|_| rng.random_range(0.001..0.1)).collect();
        let zeros: Vec<i32> = (0..n).map(|_| rng.random_range(-127..=127)).collect();
        let x: Vec<f32> = (0..rows * k).map(|_| rng.random_range(-3.0..3.0)).collect();
        let packed = PackedInt8::from_codes(&codes, &scales, n, k);
        for (grid, zeros) in [(Int8Grid::symmetric(2.5), &[][..]), (Int8Grid::affine(-1.0, 3.0), &zeros)] {
            let mut y = vec![0.0; rows * n];
            packed.forward_on(device.cpu(), &x, rows, &[grid], zeros, &mut y);
            for (at, y) in y.iter().enumerate() {
                let (x, w) = (&x[at / n * k..][..k], &codes[at % n * k..][..k]);
                let zero = i64::from(zeros.get(at % n).copied().unwrap_or(0));
                let code = |x: f32| i64::from(grid.code(x)) - i64::from(grid.zero);
                let sum: i64 = x.iter().zip(w).map(|(&x, &w)| code(x) * (i64::from(w) - zero)).sum();
                mismatches += usize::from(*y != sum as f32 * grid.scale * scales[at % n]);
            }
        }
    }
    mismatches
}

/// Largest |a − b| over the largest |b|.
fn largest_gap(a: &[f64], b: &[f64]) -> f64 {
    let largest = |values: &mut dyn Iterator<Item = f64>| values.map(f64::abs).fold(0.0, f64::max);
    largest(&mut a.iter().zip(b).map(|(a, b)| a - b)) / largest(&mut b.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cpu_kernels::{Cpu, Isa};
    use std::sync::Arc;

    #[test]
    fn the_ends_of_the_threshold_are_the_products_they_should_be() {
        for isa in Isa::available() {
            let device = Device::Cpu(Arc::new(Cpu::new(Some(isa), 2).expect("listed as available")));
            let found = threshold_limits(&device, 7).expect("builds");
            assert!(found.at_zero <= 1e-5 && found.at_infinity == 0.0 && found.error_ratio < 0.5, "{isa:?}: {found:?}");
            assert_eq!(integer_product_mismatches(&device, 7), 0, "{isa:?}");
        }
    }
}
