//! Counts: shares of successes, signs, and observed against expected frequencies.

use super::bootstrap::Interval;
use super::special::{beta_i, bisect, gamma_q};

/// Share of `successes` in `trials` with the exact 95 % interval of Clopper and Pearson (1934); `None` without trials or with more
/// successes than trials.
pub fn binomial_interval(successes: u64, trials: u64) -> Option<Interval> {
    if trials == 0 || successes > trials {
        return None;
    }
    let (k, n) = (successes as f64, trials as f64);
    // P(X >= k | p) = I_p(k, n - k + 1) rises with p, P(X <= k | p) = 1 - I_p(k + 1, n - k) falls
    let low = if successes == 0 { 0.0 } else { bisect(|p| beta_i(k, n - k + 1.0, p) - 0.025) };
    let high = if successes == trials { 1.0 } else { bisect(|p| beta_i(k + 1.0, n - k, p) - 0.975) };
    Some(Interval { estimate: k / n, low, high, n: usize::try_from(trials).unwrap_or(usize::MAX) })
}

/// Two-sided p-value of the sign test: `above` of `above + below` differences are positive, ties left out; `None` without differences.
pub fn sign_test(above: u64, below: u64) -> Option<f64> {
    let n = above + below;
    if n == 0 {
        return None;
    }
    let fewer = above.min(below);
    if fewer * 2 == n {
        return Some(1.0);
    }
    // P(X <= k) for X ~ binomial(n, 1/2) is I_{1/2}(n - k, k + 1)
    Some((2.0 * beta_i((n - fewer) as f64, fewer as f64 + 1.0, 0.5)).min(1.0))
}

/// Upper-tail p-value of a chi-square statistic; small means that the counts do not follow the expected distribution.
pub fn chi_square_p(statistic: f64, degrees_of_freedom: u64) -> f64 {
    if degrees_of_freedom == 0 { 1.0 } else { gamma_q(degrees_of_freedom as f64 / 2.0, statistic.max(0.0) / 2.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Oracles: Clopper-Pearson limits of 10 in 100 are 4.9005 % to 17.6223 % (R `binom.test(10, 100)`); for 0 of n the upper limit
    /// is 1 - 0.025^(1/n) exactly.
    #[test]
    fn clopper_pearson() {
        let interval = binomial_interval(10, 100).expect("trials");
        assert!((interval.low - 0.049_005).abs() < 1e-6 && (interval.high - 0.176_223).abs() < 1e-6, "{interval:?}");
        let none = binomial_interval(0, 20).expect("trials");
        assert_eq!(none.low, 0.0);
        assert!((none.high - (1.0 - 0.025f64.powf(1.0 / 20.0))).abs() < 1e-12);
        assert_eq!(binomial_interval(3, 3).expect("trials").high, 1.0);
        assert_eq!(binomial_interval(0, 0), None);
    }

    /// Oracle: sums of binomial coefficients, 2 (1 + 8) / 2^8 for one of eight and 2 / 2^5 for none of five.
    #[test]
    fn signs() {
        assert!((sign_test(7, 1).expect("signs") - 18.0 / 256.0).abs() < 1e-12);
        assert!((sign_test(0, 5).expect("signs") - 2.0 / 32.0).abs() < 1e-12);
        assert_eq!(sign_test(4, 4), Some(1.0));
        assert_eq!(sign_test(0, 0), None);
    }

    /// Oracle: critical values of the NIST/SEMATECH handbook table 1.3.6.7.4 (upper tail).
    #[test]
    fn chi_square_table() {
        for (df, statistic, p) in [
            (1, 3.841, 0.05),
            (1, 6.635, 0.01),
            (10, 18.307, 0.05),
            (10, 29.588, 0.001),
            (50, 67.505, 0.05),
            (100, 124.342, 0.05),
        ] {
            let got = chi_square_p(statistic, df);
            assert!((got - p).abs() < 2e-4 * p.max(0.05) * 20.0, "df {df}: {got} != {p}");
        }
        assert!((chi_square_p(5.0, 2) - (-2.5f64).exp()).abs() < 1e-13);
        assert_eq!(chi_square_p(0.0, 3), 1.0);
    }
}
