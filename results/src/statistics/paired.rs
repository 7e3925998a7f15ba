//! Differences between two cells whose repetitions were interleaved, so that drift of the machine cancels inside each pair.
//!
//! Pairs of clocks ([`Center::Median`]) get the Hodges-Lehmann estimate and the interval that inverts the signed-rank test: the order of
//! the cells inside a round is random, which is all that this test needs. Means of likelihoods get the bootstrap.

use serde::{Deserialize, Serialize};

use super::bootstrap::{Center, Interval, bootstrap_interval, ends, resample};
use super::signed_rank::hodges_lehmann;

/// Ratio of a cell to its reference with a 95 % interval; computed on logarithms, so that ratio(a, b) = 1 / ratio(b, a).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// cell / reference.
    pub ratio: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Pairs behind it.
    pub n: usize,
}

/// Center of ln(cell / reference) over `(cell, reference)` pairs, exponentiated; `None` without pairs or with a value that is not positive.
pub fn paired_ratio(pairs: &[(f64, f64)], center: Center, seed: u64) -> Option<Ratio> {
    if pairs.iter().any(|(cell, reference)| *cell <= 0.0 || *reference <= 0.0) {
        return None;
    }
    // a difference of logarithms changes its sign with the order of the pair, to the last bit
    let logarithms: Vec<f64> = pairs.iter().map(|(cell, reference)| cell.ln() - reference.ln()).collect();
    let interval = interval(&logarithms, center, seed)?;
    Some(Ratio { ratio: interval.estimate.exp(), low: interval.low.exp(), high: interval.high.exp(), n: interval.n })
}

/// Center of cell - reference over `(cell, reference)` pairs; of the median kind that is the Hodges-Lehmann estimate, which no seed changes.
pub fn paired_difference(pairs: &[(f64, f64)], center: Center, seed: u64) -> Option<Interval> {
    let differences: Vec<f64> = pairs.iter().map(|(cell, reference)| cell - reference).collect();
    interval(&differences, center, seed)
}

/// 95 % bootstrap interval of any statistic of pairs, pairs drawn whole; `None` where the sample itself has no statistic.
pub fn paired_statistic(
    pairs: &[(f64, f64)],
    seed: u64,
    statistic: impl Fn(&[(f64, f64)]) -> Option<f64>,
) -> Option<Interval> {
    let estimate = statistic(pairs).filter(|value| value.is_finite())?;
    let n = pairs.len();
    let values = resample(n, seed, |indices| {
        let drawn: Vec<(f64, f64)> = indices.iter().map(|&index| pairs[index]).collect();
        statistic(&drawn)
    });
    let (low, high) = ends(&values, n).unwrap_or((estimate, estimate));
    Some(Interval { estimate, low: low.min(estimate), high: high.max(estimate), n })
}

fn interval(values: &[f64], center: Center, seed: u64) -> Option<Interval> {
    match center {
        Center::Mean => bootstrap_interval(values, Center::Mean, seed),
        Center::Median => hodges_lehmann(values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratio_is_antisymmetric() {
        let pairs = [(2.0, 1.0), (4.2, 2.0), (1.9, 1.0), (3.0, 1.5), (8.4, 4.0)];
        let swapped: Vec<(f64, f64)> = pairs.iter().map(|&(a, b)| (b, a)).collect();
        let forth = paired_ratio(&pairs, Center::Median, 3).expect("positive");
        let back = paired_ratio(&swapped, Center::Median, 3).expect("positive");
        assert!((forth.ratio - 2.0).abs() < 1e-12);
        for (one, other) in [(forth.ratio, back.ratio), (forth.low, back.high), (forth.high, back.low)] {
            assert!((one * other - 1.0).abs() < 4.0 * f64::EPSILON, "{forth:?} {back:?}");
        }
        assert!(forth.low <= forth.ratio && forth.ratio <= forth.high && forth.n == 5);
        let forth = paired_difference(&pairs, Center::Median, 3).expect("pairs");
        let back = paired_difference(&swapped, Center::Median, 3).expect("pairs");
        assert_eq!((forth.estimate, forth.low, forth.high), (-back.estimate, -back.high, -back.low));
    }

    /// Oracle: by hand. The logarithms (base 2) of the ratios are 0, 1 and 3, so the pair means are 0, 0.5, 1, 1.5, 2, 3: the estimate is
    /// 2^1.25, and three pairs have their whole range, 1 to 8, as the interval. The median of the ratios would be 2.
    #[test]
    fn clocks_get_the_hodges_lehmann_estimate() {
        let ratio = paired_ratio(&[(1.0, 1.0), (4.0, 2.0), (8.0, 1.0)], Center::Median, 0).expect("positive");
        for (got, expected) in [(ratio.ratio, 2f64.powf(1.25)), (ratio.low, 1.0), (ratio.high, 8.0)] {
            assert!((got / expected - 1.0).abs() < 1e-12, "{ratio:?}");
        }
    }

    #[test]
    fn pairing_cancels_common_drift() {
        // the machine slows down threefold; the cell stays at 1.1 times the reference
        let pairs: Vec<(f64, f64)> =
            (0..12).map(|i| 1.0 + f64::from(i) * 0.2).map(|drift| (1.1 * drift, drift)).collect();
        let ratio = paired_ratio(&pairs, Center::Mean, 0).expect("positive");
        assert!((ratio.low - 1.1).abs() < 1e-9 && (ratio.high - 1.1).abs() < 1e-9);
    }

    /// Oracle: the mean of differences is the same number as the difference of means, so both intervals are one.
    #[test]
    fn any_statistic_of_pairs() {
        let pairs: Vec<(f64, f64)> = (0..9).map(|i| (f64::from(i * i % 7), f64::from(i % 4))).collect();
        let mean_of = |pairs: &[(f64, f64)]| {
            let sums = pairs.iter().fold((0.0, 0.0), |(a, b), pair| (a + pair.0, b + pair.1));
            Some((sums.0 - sums.1) / pairs.len() as f64)
        };
        let found = paired_statistic(&pairs, 4, mean_of).expect("pairs");
        let known = paired_difference(&pairs, Center::Mean, 4).expect("pairs");
        for (a, b) in [(found.estimate, known.estimate), (found.low, known.low), (found.high, known.high)] {
            assert!((a - b).abs() < 1e-12, "{found:?} {known:?}");
        }
        assert_eq!(paired_statistic(&pairs, 4, |_| None), None);
    }

    #[test]
    fn ratio_needs_positive_values() {
        assert_eq!(paired_ratio(&[(0.0, 1.0)], Center::Mean, 0), None);
        assert_eq!(paired_ratio(&[], Center::Mean, 0), None);
        let difference = paired_difference(&[(0.0, 1.0), (-2.0, 1.0)], Center::Mean, 0).expect("pairs");
        assert_eq!(difference.estimate, -2.0);
    }
}
