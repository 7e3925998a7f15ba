//! Intervals by seeded resampling, and without resampling for long samples.
//!
//! The percentile bootstrap is too narrow for a handful of repetitions. Its percentiles are therefore moved outwards to
//! Φ(±√(n/(n-1)) t) as in Hesterberg, "What Teachers Should Know About the Bootstrap" (2015), section 4.5 ("expanded percentile"),
//! which vanishes as n grows. With five repetitions the interval is close to the whole range of resampled centers.

use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use super::describe::{mean, median, quantile_of_sorted};
use super::special::{normal_cdf, t_quantile};

/// Confidence of every interval in this crate.
const CONFIDENCE: f64 = 0.95;
const RESAMPLES: usize = 2000;
/// Above this the order statistics give the median's interval exactly and at once.
const LONG_SAMPLE: usize = 200;

/// A 95 % interval around an estimate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The estimate.
    pub estimate: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Values (or pairs) behind it.
    pub n: usize,
}

/// What stands for a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Center {
    /// Arithmetic mean: for sums such as log-likelihoods.
    Mean,
    /// Median: for clocks, which err upwards.
    Median,
}

impl Center {
    /// The center of `values`, `None` when there are none.
    pub fn of(self, values: &[f64]) -> Option<f64> {
        match self {
            Center::Mean => mean(values),
            Center::Median => median(values),
        }
    }
}

/// 95 % bootstrap interval of the center; a single value is its own interval.
pub fn bootstrap_interval(values: &[f64], center: Center, seed: u64) -> Option<Interval> {
    let estimate = center.of(values)?;
    let n = values.len();
    let centers = resample(n, seed, |indices| {
        let drawn: Vec<f64> = indices.iter().map(|&index| values[index]).collect();
        center.of(&drawn)
    });
    let (low, high) = ends(&centers, n).unwrap_or((estimate, estimate));
    Some(Interval { estimate, low: low.min(estimate), high: high.max(estimate), n })
}

/// 95 % interval of the median: bootstrap for short samples, order statistics (binomial argument, no resampling) for long ones.
pub fn median_interval(values: &[f64], seed: u64) -> Option<Interval> {
    if values.len() <= LONG_SAMPLE {
        return bootstrap_interval(values, Center::Median, seed);
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    // ranks n/2 ± 1.96 √n/2 of the binomial(n, 1/2), normal approximation, rounded outwards
    let half_width = 1.959_964 * (n as f64).sqrt() / 2.0;
    let low = (n as f64 / 2.0 - half_width).floor() as usize;
    let high = ((n as f64 / 2.0 + half_width).ceil() as usize).min(n - 1);
    Some(Interval { estimate: median(&sorted)?, low: sorted[low], high: sorted[high], n })
}

/// Statistics of 2000 resamples of `0..n` with replacement, sorted; resamples without a statistic are left out.
pub(super) fn resample(n: usize, seed: u64, mut statistic: impl FnMut(&[usize]) -> Option<f64>) -> Vec<f64> {
    let mut source = ChaCha8Rng::seed_from_u64(seed);
    let mut indices = vec![0usize; n];
    let mut statistics = Vec::with_capacity(RESAMPLES);
    if n < 2 {
        return statistics;
    }
    for _ in 0..RESAMPLES {
        for index in &mut indices {
            // multiply-shift: stable across versions of the rand crate, bias below n / 2^32
            *index = ((u64::from(source.next_u32()) * n as u64) >> 32) as usize;
        }
        statistics.extend(statistic(&indices).filter(|value| value.is_finite()));
    }
    statistics.sort_by(f64::total_cmp);
    statistics
}

/// Ends of the expanded percentile interval of sorted bootstrap statistics from a sample of `n`.
pub(super) fn ends(sorted: &[f64], n: usize) -> Option<(f64, f64)> {
    if n < 2 {
        return None;
    }
    let df = (n - 1) as f64;
    let tail = normal_cdf(-(n as f64 / df).sqrt() * t_quantile(0.5 + CONFIDENCE / 2.0, df));
    Some((quantile_of_sorted(sorted, tail)?, quantile_of_sorted(sorted, 1.0 - tail)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal_sample(n: usize, seed: u64) -> Vec<f64> {
        let mut source = ChaCha8Rng::seed_from_u64(seed);
        let mut uniform = || (f64::from(source.next_u32()) + 0.5) / 4_294_967_296.0;
        (0..n).map(|_| (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()).collect()
    }

    #[test]
    fn same_seed_same_interval() {
        let values = normal_sample(31, 5);
        assert_eq!(bootstrap_interval(&values, Center::Mean, 9), bootstrap_interval(&values, Center::Mean, 9));
        assert_ne!(bootstrap_interval(&values, Center::Mean, 9), bootstrap_interval(&values, Center::Mean, 10));
    }

    #[test]
    fn degenerate_samples() {
        assert_eq!(bootstrap_interval(&[], Center::Mean, 0), None);
        assert_eq!(
            bootstrap_interval(&[3.0], Center::Mean, 0),
            Some(Interval { estimate: 3.0, low: 3.0, high: 3.0, n: 1 })
        );
        let equal = median_interval(&[2.0; 9], 0).expect("values");
        assert_eq!((equal.low, equal.high), (2.0, 2.0));
    }

    /// Oracle: the definition of a 95 % interval. The mean of normal samples must be covered in about 95 of 100 cases, for short
    /// samples too (the plain percentile bootstrap covers about 83 % at n = 5).
    #[test]
    fn coverage_of_the_mean() {
        for (n, least) in [(5, 0.88), (8, 0.90), (20, 0.91)] {
            let covered = (0..300).filter(|&seed| {
                let interval = bootstrap_interval(&normal_sample(n, seed), Center::Mean, seed).expect("values");
                interval.low <= 0.0 && 0.0 <= interval.high
            });
            let share = covered.count() as f64 / 300.0;
            assert!(share >= least, "n {n}: covered {share}");
        }
    }

    /// Oracle: the same definition, for the order statistics of long samples.
    #[test]
    fn coverage_of_the_median() {
        let covered = (0..400).filter(|&seed| {
            let interval = median_interval(&normal_sample(301, seed), 0).expect("values");
            interval.low <= 0.0 && 0.0 <= interval.high
        });
        let share = covered.count() as f64 / 400.0;
        assert!((0.92..=0.99).contains(&share), "covered {share}");
    }
}
