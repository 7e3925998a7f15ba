//! Pearson's goodness of fit: do counts come from given probabilities?

/// Counts, what they should be, and how far they are apart.
#[derive(Debug, Clone, PartialEq)]
pub struct ChiSquare {
    /// Σ (observed - expected)² / expected over the cells; infinite if something impossible was observed.
    pub statistic: f64,
    /// Degrees of freedom: cells less one.
    pub dof: usize,
    /// Upper tail of the χ² distribution with `dof` degrees of freedom at `statistic`.
    pub p_value: f64,
    /// Observations per outcome, before pooling.
    pub counts: Vec<u64>,
    /// Expected observations per outcome, before pooling.
    pub expected: Vec<f64>,
}

/// Below this expectation, outcomes share one cell: the χ² approximation needs about five per cell.
const LEAST_EXPECTED: f64 = 5.0;

/// Compares `counts` with `probabilities` of the same outcomes. Outcomes expected fewer than five times are pooled.
///
/// # Panics
/// If the lengths differ.
pub fn goodness_of_fit(counts: Vec<u64>, probabilities: &[f64]) -> ChiSquare {
    assert_eq!(counts.len(), probabilities.len(), "one probability per outcome");
    let n: u64 = counts.iter().sum();
    let expected: Vec<f64> = probabilities.iter().map(|p| p * n as f64).collect();
    let impossible = counts.iter().zip(probabilities).any(|(&count, &p)| count > 0 && p == 0.0);
    let (mut statistic, mut n_cells) = (0.0, 0usize);
    let (mut pooled_count, mut pooled_expected) = (0.0, 0.0);
    let mut add = |observed: f64, expected: f64| {
        statistic += (observed - expected).powi(2) / expected;
        n_cells += 1;
    };
    for (&count, &expected) in counts.iter().zip(&expected) {
        if expected >= LEAST_EXPECTED {
            add(count as f64, expected);
        } else {
            pooled_count += count as f64;
            pooled_expected += expected;
        }
    }
    if pooled_expected > 0.0 {
        add(pooled_count, pooled_expected);
    }
    let statistic = if impossible { f64::INFINITY } else { statistic };
    let dof = n_cells.saturating_sub(1);
    ChiSquare { statistic, dof, p_value: upper_tail(statistic, dof), counts, expected }
}

/// P(X ≥ `statistic`) for X of the χ² distribution with `dof` degrees of freedom, error below 1e-9.
///
/// Q(a, x) with a = dof/2 and x = statistic/2, climbed from Q(1, x) = e^{-x} or Q(1/2, x) = erfc √x by
/// Q(a + 1, x) = Q(a, x) + x^a e^{-x} / Γ(a + 1).
pub fn upper_tail(statistic: f64, dof: usize) -> f64 {
    if statistic == f64::INFINITY {
        return 0.0;
    }
    if dof == 0 || statistic <= 0.0 {
        return 1.0;
    }
    let (a, x) = (dof as f64 / 2.0, statistic / 2.0);
    let is_even = dof.is_multiple_of(2);
    let mut at = if is_even { 1.0 } else { 0.5 };
    // Γ(2) = 1, Γ(3/2) = √π / 2
    let ln_gamma = if is_even { 0.0 } else { (std::f64::consts::PI.sqrt() / 2.0).ln() };
    let mut ln_term = at * x.ln() - x - ln_gamma;
    let mut tail = if is_even { (-x).exp() } else { erfc_of_sqrt(x) };
    while at < a {
        tail += ln_term.exp();
        at += 1.0;
        ln_term += x.ln() - at.ln();
    }
    tail.min(1.0)
}

/// erfc √x = 1 - Σ_{k≥0} x^{k+1/2} e^{-x} / Γ(k + 3/2); beyond x = 30 it is below 1e-14 and taken as 0.
fn erfc_of_sqrt(x: f64) -> f64 {
    if x > 30.0 {
        return 0.0;
    }
    let mut term = x.sqrt() * (-x).exp() * 2.0 / std::f64::consts::PI.sqrt();
    let mut sum = 0.0;
    let mut k = 0.5;
    while term > 1e-18 {
        sum += term;
        k += 1.0;
        term *= x / k;
    }
    (1.0 - sum).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_agree_with_published_quantiles() {
        // upper 5 %, 1 % and 50 % points of printed χ² tables
        let table = [
            (3.841_459, 1, 0.05),
            (6.634_897, 1, 0.01),
            (5.991_465, 2, 0.05),
            (18.307_038, 10, 0.05),
            (24.724_970, 11, 0.01),
            (99.334_129, 100, 0.5),
            (135.806_723, 100, 0.01),
            (1_074.679_449, 1000, 0.05),
        ];
        for (statistic, dof, tail) in table {
            let found = upper_tail(statistic, dof);
            assert!((found - tail).abs() < 1e-6, "χ²({dof}) at {statistic}: {found}, expected {tail}");
        }
    }

    #[test]
    fn extremes_are_finite() {
        assert_eq!(upper_tail(0.0, 5), 1.0);
        assert_eq!(upper_tail(f64::INFINITY, 5), 0.0);
        assert!(upper_tail(1e6, 4000) < 1e-12);
        assert!(upper_tail(1.0, 4000) > 1.0 - 1e-12);
    }

    #[test]
    fn the_impossible_is_rejected_and_the_rare_is_pooled() {
        assert_eq!(goodness_of_fit(vec![10, 1], &[1.0, 0.0]).p_value, 0.0);
        let rare = goodness_of_fit(vec![96, 3, 1], &[0.96, 0.02, 0.02]);
        assert_eq!(rare.dof, 1);
        assert_eq!(rare.statistic, 0.0);
    }
}
