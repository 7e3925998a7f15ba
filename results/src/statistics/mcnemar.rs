//! Two cells on the same items: who is right where the other is wrong.
//!
//! Sources: McNemar, "Note on the sampling error of the difference between correlated proportions or percentages", Psychometrika 12 (1947),
//! in its exact form: of the items on which one of the two alone is right, each of two equal cells has half, whatever the items. Tango,
//! "Equivalence test and confidence interval for the difference in proportions for the paired-sample design", Statistics in Medicine 17
//! (1998), for the interval of the difference, which unlike the test must allow for how many such items another sample would hold.

use super::bootstrap::Interval;
use super::proportion::{binomial_interval, sign_test};
use super::special::bisect;

/// Normal quantile of a 95 % interval.
const Z: f64 = 1.959_963_984_540_054;

/// Two cells, item by item.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct McNemar {
    /// Items that the cell alone answers.
    pub gained: u64,
    /// Items that the reference alone answers.
    pub lost: u64,
    /// Items.
    pub items: u64,
}

impl McNemar {
    /// Counts `(cell, reference)` pairs of shares, of which anything above one half is right.
    pub fn of(pairs: &[(f64, f64)]) -> McNemar {
        let only = |wanted: (bool, bool)| pairs.iter().filter(|pair| (pair.0 > 0.5, pair.1 > 0.5) == wanted).count();
        McNemar { gained: only((true, false)) as u64, lost: only((false, true)) as u64, items: pairs.len() as u64 }
    }

    /// Two-sided exact chance of splits as uneven as this between equal cells; 1 where no item tells the two apart.
    pub fn p(&self) -> f64 {
        sign_test(self.gained, self.lost).unwrap_or(1.0)
    }

    /// Share of items gained less share lost, with a 95 % interval; `None` without items.
    ///
    /// The interval is the wider of Tango's and the one that the exact test inverts to on the items that differ, so that it leaves out 0 only
    /// where the test gives less than 5 %.
    pub fn difference(&self) -> Option<Interval> {
        let n = self.items as f64;
        if self.items == 0 {
            return None;
        }
        let estimate = (self.gained as f64 - self.lost as f64) / n;
        let differing = self.gained + self.lost;
        // Tango's statistic falls with the difference it is asked about
        let above = |difference: f64| self.score(difference) > Z;
        let below = |difference: f64| self.score(difference) < -Z;
        let end = |near: f64, far: f64, beyond: &dyn Fn(f64) -> bool| match beyond(far) {
            false => far,
            true => near + (far - near) * bisect(|t| if beyond(near + (far - near) * t) { 1.0 } else { -1.0 }),
        };
        let (low, high) = (end(estimate, -1.0, &above), end(estimate, 1.0, &below));
        let exact = binomial_interval(self.gained, differing).map_or((estimate, estimate), |share| {
            let scaled = |end: f64| (2.0 * end - 1.0) * differing as f64 / n;
            (scaled(share.low), scaled(share.high))
        });
        Some(Interval { estimate, low: low.min(exact.0), high: high.max(exact.1), n: self.items as usize })
    }

    /// Tango's score of the difference: its estimate less `difference`, over the standard error that `difference` would give.
    fn score(&self, difference: f64) -> f64 {
        let (b, c, n) = (self.gained as f64, self.lost as f64, self.items as f64);
        let linear = -b - c + (2.0 * n - b + c) * difference;
        let constant = -c * difference * (1.0 - difference);
        let lost = ((linear * linear - 8.0 * n * constant).max(0.0).sqrt() - linear) / (4.0 * n);
        let variance = n * (2.0 * lost + difference * (1.0 - difference));
        let distance = b - c - n * difference;
        if distance == 0.0 { 0.0 } else { distance / variance.max(1e-300).sqrt() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Oracles: sums of binomial coefficients for p; for the interval the score statistic with its nuisance parameter found by a numeric
    /// search for the largest likelihood, and roots by halving (an independent program).
    #[test]
    fn known_tables() {
        for (gained, lost, items, low, high, p) in [
            (5, 12, 100, -0.157_415_605_7, 0.011_863_210_3, 0.143_463_134_8),
            (1, 0, 44, -0.059_393_230_4, 0.118_077_096_98, 1.0),
            (9, 2, 150, 0.003_998_883_9, 0.098_872_801_0, 0.065_429_687_5),
            (0, 6, 60, -0.201_494_647_2, -0.033_810_964_3, 0.031_25),
        ] {
            let table = McNemar { gained, lost, items };
            assert!((table.p() - p).abs() < 1e-9, "{table:?}: {}", table.p());
            let found = table.difference().expect("items");
            // the exact test's own interval can only widen it
            assert!(found.low <= low + 1e-7 && found.high >= high - 1e-7, "{table:?}: {found:?}");
            let exact = binomial_interval(gained, gained + lost).expect("differing items");
            let scale = (gained + lost) as f64 / items as f64;
            let widest = (low.min((2.0 * exact.low - 1.0) * scale), high.max((2.0 * exact.high - 1.0) * scale));
            assert!((found.low - widest.0).abs() < 1e-7 && (found.high - widest.1).abs() < 1e-7, "{found:?}");
            assert_eq!(found.low > 0.0 || found.high < 0.0, p < 0.05, "test and interval say the same: {table:?}");
        }
    }

    #[test]
    fn equal_answers_still_have_an_interval() {
        let found = McNemar { gained: 0, lost: 0, items: 150 }.difference().expect("items");
        // Tango: z² / (n + z²) on both sides
        let end = Z * Z / (150.0 + Z * Z);
        assert!((found.high - end).abs() < 1e-9 && (found.low + end).abs() < 1e-9, "{found:?}");
        assert_eq!(McNemar { gained: 0, lost: 0, items: 0 }.difference(), None);
    }

    #[test]
    fn test_and_interval_never_disagree() {
        for items in [1, 7, 40] {
            for gained in 0..=items {
                for lost in 0..=items - gained {
                    let table = McNemar { gained, lost, items };
                    let found = table.difference().expect("items");
                    let told = found.low > 0.0 || found.high < 0.0;
                    assert_eq!(told, table.p() < 0.05, "{table:?}: {found:?}, p {}", table.p());
                    let back = McNemar { gained: lost, lost: gained, items }.difference().expect("items");
                    assert!((found.low + back.high).abs() < 1e-9, "{table:?}: {found:?} {back:?}");
                }
            }
        }
    }

    #[test]
    fn pairs_are_counted() {
        let pairs = [(1.0, 0.0), (1.0, 1.0), (0.0, 1.0), (0.0, 0.0), (1.0, 0.0)];
        assert_eq!(McNemar::of(&pairs), McNemar { gained: 2, lost: 1, items: 5 });
    }
}
