//! Wilcoxon's signed-rank test (1945) of paired differences, and the estimate and interval that belong to it (Hodges and Lehmann 1963).
//!
//! Why this one: the cells of a round run in a random order, so between two equal cells the sign of each difference is the toss of a
//! coin, however the machine drifts and whoever else uses it meanwhile. The test needs nothing else, so its level holds under drift,
//! bursts, autocorrelation and spikes. One repetition that the operating system interrupted is one large rank, not a mean that it
//! drags along. The smallest two-sided p of n differences is 2^(1 - n): eight reach 0.008, seven cannot reach 0.01.

use super::bootstrap::Interval;
use super::special::normal_cdf;

/// Up to this many differences the null distribution is counted, not approximated.
const EXACT: usize = 50;
/// Each end of the interval may miss with this chance.
const TAIL: f64 = 0.025;
/// Normal quantile of [`TAIL`].
const TAIL_QUANTILE: f64 = 1.959_964;

/// Two-sided p-value; zero differences are left out, ties share their mean rank. `None` without differences.
pub fn signed_rank_p(differences: &[f64]) -> Option<f64> {
    if differences.is_empty() {
        return None;
    }
    let mut nonzero: Vec<f64> = differences.iter().copied().filter(|difference| *difference != 0.0).collect();
    nonzero.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    let doubled = doubled_ranks(&nonzero);
    let positive: usize = doubled.iter().zip(&nonzero).filter(|(_, value)| **value > 0.0).map(|(rank, _)| rank).sum();
    let total: usize = doubled.iter().sum();
    let smaller = positive.min(total - positive);
    if nonzero.len() <= EXACT { Some(exact(&doubled, smaller)) } else { Some(approximate(&doubled, smaller)) }
}

/// The Hodges-Lehmann estimate of the centre of `differences` (the median of the means of all pairs of them, each with itself too), with
/// the interval of all centres that the signed-rank test does not reject at 5 %. The interval covers the true centre with the chance
/// [`interval_coverage`]. `None` without differences.
pub fn hodges_lehmann(differences: &[f64]) -> Option<Interval> {
    let n = differences.len();
    if n == 0 {
        return None;
    }
    let mut sorted = differences.to_vec();
    sorted.sort_by(f64::total_cmp);
    let means = n as u64 * (n as u64 + 1) / 2;
    let cut = means_cut_off(n);
    // an even number of means has two in the middle
    let estimate = 0.5 * pair_mean(&sorted, means.div_ceil(2)) + 0.5 * pair_mean(&sorted, means / 2 + 1);
    let (low, high) = (pair_mean(&sorted, cut + 1), pair_mean(&sorted, means - cut));
    Some(Interval { estimate, low, high, n })
}

/// The chance that the interval of [`hodges_lehmann`] of `n` differences covers the true centre: the least possible chance that is at
/// least 95 %. Up to five differences no interval reaches that, and theirs is the whole range: 93.75 % for five, 87.5 % for four,
/// 75 % for three, 50 % for two.
pub fn interval_coverage(n: usize) -> f64 {
    match n {
        0 | 1 => 0.0,
        _ => 1.0 - 2.0 * chance_of_at_most(n, means_cut_off(n)),
    }
}

/// How many of the ordered pair means lie outside at each end: the most for which [`chance_of_at_most`] stays within [`TAIL`].
fn means_cut_off(n: usize) -> u64 {
    let (mean, sd) = moments(n);
    if n > EXACT {
        return (mean - TAIL_QUANTILE * sd - 0.5).max(0.0).floor() as u64;
    }
    let (all, mut reached) = (2.0f64.powi(n as i32), 0.0);
    let within = |count: &f64| {
        reached += count;
        reached / all <= TAIL
    };
    (sums(&plain_ranks(n)).into_iter().take_while(within).count() as u64).saturating_sub(1)
}

/// Chance that the ranks of the positive ones among `n` differences without ties sum to at most `sum`.
fn chance_of_at_most(n: usize, sum: u64) -> f64 {
    if n > EXACT {
        let (mean, sd) = moments(n);
        return normal_cdf((sum as f64 + 0.5 - mean) / sd);
    }
    sums(&plain_ranks(n)).into_iter().take(sum as usize + 1).sum::<f64>() / 2.0f64.powi(n as i32)
}

fn plain_ranks(n: usize) -> Vec<usize> {
    (1..=n).collect()
}

/// Mean and standard deviation of the sum of positive ranks without ties.
fn moments(n: usize) -> (f64, f64) {
    let n = n as f64;
    (n * (n + 1.0) / 4.0, (n * (n + 1.0) * (2.0 * n + 1.0) / 24.0).sqrt())
}

/// The `k`-th smallest (from 1) of the means of all pairs of `sorted`, each with itself too. There are n (n + 1) / 2 of them, and none
/// is written down: the answer is the smallest number that at least `k` means do not exceed, found by halving the numbers between the
/// smallest and the largest value, and means below a number are counted in one walk.
fn pair_mean(sorted: &[f64], k: u64) -> f64 {
    let (mut low, mut high) = (place(sorted[0]), place(sorted[sorted.len() - 1]));
    while low < high {
        let middle = low + (high - low) / 2;
        if means_up_to(sorted, number(middle)) >= k {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    number(low) + 0.0 // minus zero is zero
}

/// How many pair means are at most `bound`.
fn means_up_to(sorted: &[f64], bound: f64) -> u64 {
    let (mut count, mut end) = (0, sorted.len());
    for (start, value) in sorted.iter().enumerate() {
        // the partner of a larger value must be smaller
        while end > start && 0.5 * value + 0.5 * sorted[end - 1] > bound {
            end -= 1;
        }
        if end <= start {
            break;
        }
        count += (end - start) as u64;
    }
    count
}

/// Place of a finite number in the order of all of them.
fn place(value: f64) -> u64 {
    let bits = value.to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

/// The number at a place.
fn number(place: u64) -> f64 {
    f64::from_bits(if place >> 63 == 1 { place & !(1 << 63) } else { !place })
}

/// Twice the rank of each value (so that mean ranks of ties stay whole), values sorted by magnitude.
fn doubled_ranks(sorted: &[f64]) -> Vec<usize> {
    let mut ranks = Vec::with_capacity(sorted.len());
    while ranks.len() < sorted.len() {
        let start = ranks.len();
        let equal = sorted[start..].iter().take_while(|value| value.abs() == sorted[start].abs()).count();
        // ranks start+1 ..= start+equal, their mean doubled
        ranks.extend(std::iter::repeat_n(2 * start + equal + 1, equal));
    }
    ranks
}

/// How many of the 2^n sign patterns give each sum of positive ranks, from 0.
fn sums(ranks: &[usize]) -> Vec<f64> {
    let total: usize = ranks.iter().sum();
    let mut patterns = vec![0.0f64; total + 1];
    patterns[0] = 1.0;
    let mut reachable = 0;
    for &rank in ranks {
        reachable += rank;
        for sum in (rank..=reachable).rev() {
            patterns[sum] += patterns[sum - rank];
        }
    }
    patterns
}

/// Share of the sign patterns whose positive ranks sum to at most `sum`, both tails.
fn exact(doubled: &[usize], sum: usize) -> f64 {
    let tail: f64 = sums(doubled)[..=sum].iter().sum();
    (2.0 * tail / 2.0f64.powi(doubled.len() as i32)).min(1.0)
}

/// Normal approximation; the variance of a sum of signed ranks is the sum of squares / 4, which holds with ties too.
fn approximate(doubled: &[usize], sum: usize) -> f64 {
    let total: usize = doubled.iter().sum();
    let variance = doubled.iter().map(|&rank| (rank * rank) as f64).sum::<f64>() / 4.0;
    // continuity: one rank is two in doubled units
    let distance = ((sum as f64 - total as f64 / 2.0).abs() - 1.0).max(0.0);
    (2.0 * normal_cdf(-distance / variance.sqrt())).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Oracle: by enumeration. For n = 3 all positive, 1 of 8 patterns has a sum as extreme on each side: p = 2/8.
    #[test]
    fn small_samples_by_enumeration() {
        assert_eq!(signed_rank_p(&[1.0, 2.0, 3.0]), Some(0.25));
        // negative ranks {1}: sums 0 and 1 of the 8 patterns on each side
        assert_eq!(signed_rank_p(&[-1.0, 2.0, 3.0]), Some(0.5));
        assert_eq!(signed_rank_p(&[]), None);
        assert_eq!(signed_rank_p(&[0.0, 0.0]), Some(1.0));
    }

    /// Oracle: brute force over all sign patterns, with ties.
    #[test]
    fn counting_agrees_with_brute_force() {
        let magnitudes: [f64; 9] = [1.0, 1.0, 2.0, 3.0, 3.0, 3.0, 5.0, 8.0, 9.0];
        let ranks = [1.5, 1.5, 3.0, 5.0, 5.0, 5.0, 7.0, 8.0, 9.0];
        let positive_sum =
            |pattern: u32| -> f64 { (0..9).filter(|bit| pattern >> bit & 1 == 1).map(|bit| ranks[bit]).sum() };
        for pattern in [0u32, 1, 3, 9, 66, 181, 300] {
            let values: Vec<f64> =
                (0..9).map(|bit| if pattern >> bit & 1 == 1 { magnitudes[bit] } else { -magnitudes[bit] }).collect();
            let smaller = positive_sum(pattern).min(45.0 - positive_sum(pattern));
            let as_extreme = (0..512u32).filter(|other| positive_sum(*other) <= smaller).count();
            let expected = (2.0 * as_extreme as f64 / 512.0).min(1.0);
            let p = signed_rank_p(&values).expect("differences");
            assert!((p - expected).abs() < 1e-12, "pattern {pattern}: {p}, expected {expected}");
        }
    }

    #[test]
    fn the_approximation_joins_the_exact_count() {
        let values: Vec<f64> = (1..=50).map(|i| f64::from(i) * if i % 3 == 0 { -1.0 } else { 1.0 }).collect();
        let doubled = doubled_ranks(&values);
        let negative: usize =
            doubled.iter().zip(&values).filter(|(_, value)| **value < 0.0).map(|(rank, _)| rank).sum();
        assert!((exact(&doubled, negative) - approximate(&doubled, negative)).abs() < 2e-3);
    }

    /// Oracle: the published two-sided 5 % critical values of the signed-rank sum (Wilcoxon and Wilcox 1964; in any textbook's table), the
    /// largest sum that is significant: 0 for n = 6, 2, 3, 5, 8, 10, 13, 17, 21, 25 up to n = 15, 52 for 20, 89 for 25, 137 for 30, 434 for 50.
    #[test]
    fn critical_values_of_the_published_table() {
        let table = [(6, 0), (7, 2), (8, 3), (9, 5), (10, 8), (11, 10), (12, 13), (13, 17), (14, 21), (15, 25)];
        for (n, critical) in table.into_iter().chain([(20, 52), (25, 89), (30, 137), (50, 434)]) {
            assert_eq!(means_cut_off(n), critical, "n = {n}");
        }
        // no sum is significant at 5 % for five and fewer: the interval is the whole range
        assert!((1..=5).all(|n| means_cut_off(n) == 0));
    }

    /// Oracle: powers of two for the smallest samples (2 / 2^n outside); the definition, 95 %, for the rest.
    #[test]
    fn coverage_is_between_93_and_97_per_cent_from_five_pairs_on() {
        assert_eq!([2, 3, 4, 5, 6].map(interval_coverage), [0.5, 0.75, 0.875, 0.9375, 0.96875]);
        assert!((5..400).all(|n| (0.93..=0.97).contains(&interval_coverage(n))));
        assert!((6..400).all(|n| interval_coverage(n) >= 0.95 - 1e-9));
    }

    /// Oracle: R's documented example of `wilcox.test`, the depression scores of Hollander and Wolfe (1973), p. 29: nine pairs with
    /// V = 40 and p = 0.03906; the estimate and interval are those of `conf.int = TRUE`: 0.46, with [0.01, 0.786] (95 % asked, 96.1 % reached).
    #[test]
    #[allow(clippy::approx_constant)] // 3.14 is a score
    fn the_example_of_hollander_and_wolfe() {
        let before = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30];
        let after = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29];
        let differences: Vec<f64> = before.iter().zip(after).map(|(a, b)| a - b).collect();
        assert!((signed_rank_p(&differences).expect("pairs") - 0.039_062_5).abs() < 1e-12);
        let shift = hodges_lehmann(&differences).expect("pairs");
        for (got, expected) in [(shift.estimate, 0.46), (shift.low, 0.01), (shift.high, 0.786)] {
            assert!((got - expected).abs() < 1e-9, "{shift:?}");
        }
    }

    /// Oracle: all pair means written down and sorted; by hand for {1, 2, 4}: 1, 1.5, 2, 2.5, 3, 4.
    #[test]
    fn pair_means_are_those_of_the_definition() {
        assert_eq!((1..=6).map(|k| pair_mean(&[1.0, 2.0, 4.0], k)).collect::<Vec<_>>(), [1.0, 1.5, 2.0, 2.5, 3.0, 4.0]);
        let mut state = 7u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // coarse, so that ties occur; of both signs
            ((state >> 40) as f64 / 65_536.0).round() / 16.0 - 8.0
        };
        for n in [1usize, 2, 5, 17, 60] {
            let mut values: Vec<f64> = (0..n).map(|_| next()).collect();
            values.sort_by(f64::total_cmp);
            let mut all: Vec<f64> =
                (0..n).flat_map(|i| (i..n).map(|j| 0.5 * values[i] + 0.5 * values[j]).collect::<Vec<_>>()).collect();
            all.sort_by(f64::total_cmp);
            for (k, expected) in all.iter().enumerate() {
                assert_eq!(pair_mean(&values, k as u64 + 1), *expected, "n = {n}, k = {k}");
            }
        }
    }

    /// A hundred thousand pairs have five thousand million pair means; the answer is there at once, and is that of the definition:
    /// for 1, 2, …, n the centre is (n + 1) / 2.
    #[test]
    fn many_pairs_stay_fast() {
        let values: Vec<f64> = (1..=100_000).map(f64::from).collect();
        let shift = hodges_lehmann(&values).expect("values");
        assert_eq!(shift.estimate, 50_000.5);
        // half-width 1.96 · sd / √n with sd = n / √12, and the test is fully efficient for uniform values
        let expected = 1.96 * 100_000.0 / 12f64.sqrt() / 100_000f64.sqrt();
        assert!(((shift.high - shift.low) / 2.0 / expected - 1.0).abs() < 0.02, "{shift:?}, {expected}");
    }
}
