//! Unpaired comparison by ranks, and control of false discoveries over many metrics.

use super::special::normal_cdf;

/// Two-sided p-value of the Mann-Whitney U test: normal approximation with tie and continuity correction; `None` when a sample is
/// empty. Exact for neither side below about eight values: treat small samples as a hint.
pub fn mann_whitney(a: &[f64], b: &[f64]) -> Option<f64> {
    if a.is_empty() || b.is_empty() {
        return None;
    }
    let mut all: Vec<(f64, bool)> = a.iter().map(|&v| (v, true)).chain(b.iter().map(|&v| (v, false))).collect();
    all.sort_by(|left, right| left.0.total_cmp(&right.0));
    let (mut rank_sum, mut ties) = (0.0, 0.0);
    let mut start = 0;
    while start < all.len() {
        let equal = all[start..].iter().take_while(|(value, _)| *value == all[start].0).count();
        let rank = start as f64 + (equal as f64 + 1.0) / 2.0;
        rank_sum += rank * all[start..start + equal].iter().filter(|(_, from_a)| *from_a).count() as f64;
        ties += (equal as f64).powi(3) - equal as f64;
        start += equal;
    }
    let (n_a, n_b) = (a.len() as f64, b.len() as f64);
    let n = n_a + n_b;
    let u = rank_sum - n_a * (n_a + 1.0) / 2.0;
    let variance = n_a * n_b / 12.0 * ((n + 1.0) - ties / (n * (n - 1.0)));
    if variance <= 0.0 {
        return Some(1.0);
    }
    let distance = ((u - n_a * n_b / 2.0).abs() - 0.5).max(0.0);
    Some((2.0 * normal_cdf(-distance / variance.sqrt())).min(1.0))
}

/// Adjusted p-values of Benjamini and Hochberg (1995), in the order of the input: those at most `q` are discoveries at rate `q`.
pub fn benjamini_hochberg(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&left, &right| p_values[left].total_cmp(&p_values[right]));
    let mut adjusted = vec![1.0; p_values.len()];
    let mut least: f64 = 1.0;
    for (place, &index) in order.iter().enumerate().rev() {
        least = least.min(p_values[index] * p_values.len() as f64 / (place + 1) as f64);
        adjusted[index] = least;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Oracle: scipy's documented example for `mannwhitneyu` (males 19 22 16 29 24, females 20 11 17 12: U = 17, two-sided p with
    /// the asymptotic method and continuity correction 0.11134688653314041).
    #[test]
    fn mann_whitney_like_scipy() {
        let p = mann_whitney(&[19.0, 22.0, 16.0, 29.0, 24.0], &[20.0, 11.0, 17.0, 12.0]).expect("samples");
        assert!((p - 0.111_346_886_533_140_41).abs() < 1e-12, "{p}");
    }

    /// Oracle: by hand for a = {1, 2, 2}, b = {2, 3, 3}: ranks 1, 3, 3 | 3, 5.5, 5.5, so U = 1, ties (27 - 3) + (8 - 2) = 30,
    /// variance 9/12 (7 - 30/30) = 4.5, z = (3.5 - 0.5) / √4.5.
    #[test]
    fn ties_reduce_the_variance() {
        let p = mann_whitney(&[1.0, 2.0, 2.0], &[2.0, 3.0, 3.0]).expect("samples");
        assert!((p - 2.0 * normal_cdf(-3.0 / 4.5f64.sqrt())).abs() < 1e-14);
        assert_eq!(mann_whitney(&[1.0, 1.0], &[1.0]), Some(1.0));
        assert_eq!(mann_whitney(&[], &[1.0]), None);
    }

    /// Oracle: R's `p.adjust(c(0.01, 0.04, 0.03, 0.005), "BH")` = 0.02 0.04 0.04 0.02, by the definition.
    #[test]
    fn false_discovery_rate() {
        let adjusted = benjamini_hochberg(&[0.01, 0.04, 0.03, 0.005]);
        for (got, expected) in adjusted.iter().zip([0.02, 0.04, 0.04, 0.02]) {
            assert!((got - expected).abs() < 1e-15, "{adjusted:?}");
        }
        assert!(benjamini_hochberg(&[]).is_empty());
    }
}
