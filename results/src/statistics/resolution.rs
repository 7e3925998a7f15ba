//! What a measurement can see: the smallest slow-down that it tells, and how many repetitions a given slow-down needs, from two copies of
//! one cell.
//!
//! The rule that decides (`report`'s reading, `ci`'s gate) calls a cell slower when the signed-rank test of its pairs gives at most
//! [`ALPHA`] and its ratio lies beyond the far end of the interval of the two copies. With E the estimate of the copies, X that of a cell that is
//! slower by d, both with standard error s and correlated by 1/2 because they share the reference, the second condition is
//! X > |E| + 1.96 s. X - E then has standard deviation s and X + E has s √3, so the condition holds in 95 of 100 runs when
//! d = (1.96 + 2.9) s: Φ(-2.9) + Φ(-2.9 / √3) = 0.002 + 0.047. The test alone needs (2.58 + 1.64) s, which is less.
//!
//! That holds for noise that is as strong in the run as it was between the copies. On a shared machine it is not: bursts come in clusters, and the
//! run meets others. `infermark doctor --self-test` plays this through; the standard error may be a third larger than it was.

use serde::{Deserialize, Serialize};

use super::paired::Ratio;

/// The share of false alarms that a decision may have.
pub const ALPHA: f64 = 0.01;
/// Fewer pairs than this have no signed-rank p of [`ALPHA`] or less.
pub const FEWEST_PAIRS: usize = 8;
/// Fewer pairs than this tell nothing about their own spread.
const FEWEST_OF_COPIES: usize = 5;

/// Standard errors in a slow-down that is told in 95 of 100 runs; see above.
const STANDARD_ERRORS: f64 = 4.9;
/// How much larger the standard error of the next run may be.
const UNSTEADY: f64 = 1.33;
/// Half-width of a 95 % interval, in standard errors.
const HALF_WIDTH: f64 = 1.959_964;
/// Two copies whose estimate is further from 1 than this many standard errors do differ: one time in a hundred by chance.
const BEYOND_CHANCE: f64 = 2.575_829;
/// Normal quantile of 5 %: the spread is taken as large as 19 of 20 estimates of it would allow.
const ALLOWED: f64 = 1.644_854;

/// How finely pairs of one size of noise tell two cells apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Resolution {
    /// Pairs of the two copies.
    pub pairs: usize,
    /// Upper bound (95 %) of the spread of one pair's log ratio, in the sense that n pairs have the standard error `spread` / √n.
    pub spread: f64,
    /// The log ratio by which the two copies differ beyond chance, 0 where they do not: no number of repetitions removes it.
    pub bias: f64,
}

impl Resolution {
    /// From the comparison of two copies; `None` below five pairs.
    ///
    /// The interval's width gives the spread, because it is the spread of the estimate that decides and not that of single pairs, which one
    /// spike moves. It is itself an estimate from few pairs: the bound is that of a standard deviation with as many values (chi-square,
    /// by the approximation of Wilson and Hilferty), which for eight pairs is twice the estimate and for sixty 1.2 times.
    pub fn of_copies(copies: &Ratio) -> Option<Resolution> {
        let (low, high) = (copies.low.ln(), copies.high.ln());
        if copies.n < FEWEST_OF_COPIES || !(low.is_finite() && high.is_finite()) {
            return None;
        }
        let pairs = copies.n as f64;
        let standard_error = (high - low) / (2.0 * HALF_WIDTH);
        let distance = copies.ratio.ln().abs();
        let bias = if distance > BEYOND_CHANCE * standard_error { distance } else { 0.0 };
        Some(Resolution { pairs: copies.n, spread: standard_error * pairs.sqrt() * allowance(copies.n - 1), bias })
    }

    /// The smallest slow-down, as a share (0.03 is 3 %), that is told in 95 of 100 runs of as many repetitions as the copies had.
    pub fn slowdown(&self) -> f64 {
        self.slowdown_at(self.pairs)
    }

    /// The same for runs of `pairs` repetitions.
    pub fn slowdown_at(&self, pairs: usize) -> f64 {
        (self.bias + STANDARD_ERRORS * UNSTEADY * self.spread / (pairs.max(1) as f64).sqrt()).exp_m1()
    }

    /// Repetitions after which a slow-down of this share is told in 95 of 100 runs; `None` where the copies themselves differ by as much.
    pub fn pairs_for(&self, slowdown: f64) -> Option<usize> {
        let room = slowdown.ln_1p() - self.bias;
        if room <= 0.0 {
            return None;
        }
        let pairs = (STANDARD_ERRORS * UNSTEADY * self.spread / room).powi(2).ceil();
        // past what a usize holds the cast stops at its largest value, which nobody runs either
        Some((pairs as usize).max(FEWEST_PAIRS))
    }
}

/// How many times its estimate a standard deviation may be, 19 times of 20.
fn allowance(degrees_of_freedom: usize) -> f64 {
    let ninth = 2.0 / (9.0 * degrees_of_freedom.max(1) as f64);
    let cube_root = (1.0 - ninth - ALLOWED * ninth.sqrt()).max(0.1);
    cube_root.powf(-1.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copies(log_ratio: f64, half_width: f64, n: usize) -> Ratio {
        let [ratio, low, high] = [log_ratio, log_ratio - half_width, log_ratio + half_width].map(f64::exp);
        Ratio { ratio, low, high, n }
    }

    /// Oracle: √(df / quantile) with the lower 5 % quantiles of chi-square in the NIST/SEMATECH table 1.3.6.7.4: 0.711, 2.167, 3.940, 43.188.
    #[test]
    fn the_allowance_is_that_of_chi_square() {
        for (df, quantile) in [(4, 0.711), (7, 2.167), (10, 3.940), (60, 43.188)] {
            let expected = (df as f64 / quantile).sqrt();
            assert!((allowance(df) / expected - 1.0).abs() < 0.02, "{df}: {} {expected}", allowance(df));
        }
        assert!(allowance(0).is_finite());
    }

    /// Oracle: by hand. A half-width of 1.96 % over 100 pairs is a standard error of 1 %, so a spread of 10 % times the allowance for 99
    /// degrees of freedom, √(99 / 77.046) = 1.134. 4.9 · 1.33 standard errors are 7.39 % in logarithms, 7.67 % as a share.
    #[test]
    fn a_resolution_by_hand() {
        let found = Resolution::of_copies(&copies(0.0, 0.019_599_64, 100)).expect("pairs");
        assert!((found.spread - 0.1134).abs() < 0.0005, "{found:?}");
        assert!((found.slowdown() - 0.0767).abs() < 0.0005, "{}", found.slowdown());
        // four times the pairs, half the slow-down in logarithms
        assert!((found.slowdown_at(400).ln_1p() * 2.0 - found.slowdown().ln_1p()).abs() < 1e-12);
        // (0.7391 / ln 1.03)² = 625.2
        let pairs = found.pairs_for(0.03).expect("no bias");
        assert!((615..=635).contains(&pairs), "{pairs}");
        assert!(found.slowdown_at(pairs) <= 0.03 && found.slowdown_at(pairs - 1) > 0.03);
    }

    #[test]
    fn copies_that_differ_beyond_chance_bound_what_can_be_told() {
        let found = Resolution::of_copies(&copies(0.05, 0.004, 50)).expect("pairs");
        assert!((found.bias - 0.05).abs() < 1e-12);
        assert_eq!(found.pairs_for(0.03), None);
        assert!(found.pairs_for(0.10).is_some_and(|n| n >= FEWEST_PAIRS) && found.slowdown() > 0.05);
        // the same distance inside a wide interval is no difference
        assert_eq!(Resolution::of_copies(&copies(0.05, 0.06, 50)).expect("pairs").bias, 0.0);
    }

    #[test]
    fn too_few_pairs_say_nothing_and_a_quiet_machine_needs_eight() {
        assert_eq!(Resolution::of_copies(&copies(0.0, 0.01, 4)), None);
        let quiet = Resolution::of_copies(&copies(0.0, 0.0, 20)).expect("pairs");
        assert_eq!((quiet.slowdown(), quiet.pairs_for(0.01)), (0.0, Some(FEWEST_PAIRS)));
        // 2 / 2^8 is at most 1 %, 2 / 2^7 is not
        assert!(2.0 / 2f64.powi(FEWEST_PAIRS as i32) <= ALPHA && 2.0 / 2f64.powi(FEWEST_PAIRS as i32 - 1) > ALPHA);
    }
}
