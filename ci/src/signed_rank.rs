//! Wilcoxon's signed-rank test (1945): whether paired differences are centred on zero, without assuming their shape.
//!
//! A repetition that the operating system interrupted is one large rank, not a mean that it drags along. The smallest p of
//! n pairs is 2^(1 - n): eight pairs can reach 0.008, twelve 0.0005.

/// Up to this many differences the null distribution is counted, not approximated.
const EXACT: usize = 40;

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

/// Share of the 2^n sign patterns whose positive ranks sum to at most `sum`, both tails.
fn exact(doubled: &[usize], sum: usize) -> f64 {
    let total: usize = doubled.iter().sum();
    let mut patterns = vec![0.0f64; total + 1];
    patterns[0] = 1.0;
    for &rank in doubled {
        for reached in (rank..=total).rev() {
            patterns[reached] += patterns[reached - rank];
        }
    }
    let tail: f64 = patterns[..=sum].iter().sum();
    (2.0 * tail / 2.0f64.powi(doubled.len() as i32)).min(1.0)
}

/// Normal approximation; the variance of a sum of signed ranks is the sum of squares / 4, which holds with ties too.
fn approximate(doubled: &[usize], sum: usize) -> f64 {
    let total: usize = doubled.iter().sum();
    let variance = doubled.iter().map(|&rank| (rank * rank) as f64).sum::<f64>() / 4.0;
    // continuity: one rank is two in doubled units
    let distance = ((sum as f64 - total as f64 / 2.0).abs() - 1.0).max(0.0);
    (2.0 * results::statistics::normal_cdf(-distance / variance.sqrt())).min(1.0)
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
        let values: Vec<f64> = (1..=40).map(|i| f64::from(i) * if i % 3 == 0 { -1.0 } else { 1.0 }).collect();
        let doubled = doubled_ranks(&values);
        let negative: usize =
            doubled.iter().zip(&values).filter(|(_, value)| **value < 0.0).map(|(rank, _)| rank).sum();
        assert!((exact(&doubled, negative) - approximate(&doubled, negative)).abs() < 2e-3);
    }
}
