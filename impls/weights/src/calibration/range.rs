//! What: the largest magnitude that a static int8 range covers, chosen from a histogram of |x|.
//! Source: TensorRT 8-bit calibration (Migacz, GTC 2017) for the entropy rule; Wu et al. 2020 (arXiv 2004.09602) §5 for
//!   the four rules side by side.
//! Shapes: [`Magnitudes`] of one tensor → one limit T > 0; codes are round(127·clamp(x, ±T)/T).
//! Method: min-max: the largest |x|. Percentile: the smallest bin edge with that share of values below it. Mean squared error:
//!   the edge whose grid loses least, values at the middle of their bin. Entropy: the edge T for which the histogram below T,
//!   with everything beyond put into its last bin (P), is closest in KL divergence to itself merged into 128 levels (Q); where
//!   Q has nothing it counts as 1e-4, as in MXNet.
//! Exactness: percentiles and minima are those of the histogram, so within one bin (≤ 1/2048 of the largest |x|) of the values'.
//! Cost: entropy O(bins · candidates), once per tensor at load.
//! Not handled: limits below 127 bins (3 % of the range), where a step would be finer than a bin.

use serde::{Deserialize, Serialize};

use super::Magnitudes;

/// Largest code.
const CODES: usize = 127;
/// Levels of |x|, 0 included.
const LEVELS: usize = CODES + 1;
/// Q of a bin whose level is empty.
const SMOOTHING: f64 = 1e-4;
/// Edges tried by the searches.
const CANDIDATES: usize = 512;

/// How a static range comes out of what calibration saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RangeRule {
    /// Nothing that was seen is clipped.
    #[default]
    MinMax,
    /// The share of values in `percentile` is not clipped.
    Percentile,
    /// Least mean squared error.
    Mse,
    /// Least KL divergence.
    Entropy,
}

impl RangeRule {
    /// The limit T for values distributed like `seen`; `percentile` in (0, 100] belongs to its rule. 0 when nothing but
    /// zeros was seen.
    pub fn limit(self, seen: &Magnitudes, percentile: f64) -> f32 {
        let counts = seen.counts();
        let edge = match self {
            RangeRule::MinMax => return seen.largest(),
            RangeRule::Percentile => percentile_edge(counts, seen.zeros(), percentile),
            RangeRule::Mse => best_edge(counts.len(), |edge| squared_error(counts, edge)),
            RangeRule::Entropy => best_edge(counts.len(), |edge| divergence(counts, edge, LEVELS)),
        };
        // the last edge may lie beyond everything seen
        (edge as f32 * seen.width()).min(seen.largest())
    }
}

/// The first edge with at least `percentile` % of all values below it.
fn percentile_edge(counts: &[u64], zeros: u64, percentile: f64) -> usize {
    let n = zeros + counts.iter().sum::<u64>();
    let wanted = n as f64 * percentile / 100.0;
    let mut below = zeros;
    for (bin, count) in counts.iter().enumerate() {
        below += count;
        if below as f64 >= wanted {
            return bin + 1;
        }
    }
    counts.len()
}

/// The edge of least cost among evenly spaced ones from [`LEVELS`] to `last`; the larger one on ties.
fn best_edge(last: usize, cost: impl Fn(usize) -> f64) -> usize {
    let step = last.div_ceil(CANDIDATES).max(1);
    let edges = (0..).map(|i| last - i * step).take_while(|&edge| edge >= LEVELS.min(last)).take(CANDIDATES);
    let mut best = (last, f64::INFINITY);
    for edge in edges.take_while(|&edge| edge > 0) {
        let found = cost(edge);
        if found < best.1 {
            best = (edge, found);
        }
        if edge < step {
            break;
        }
    }
    best.0
}

/// Σ count · (middle − grid(middle))², in bin widths, when `edge` is the limit.
fn squared_error(counts: &[u64], edge: usize) -> f64 {
    let step = edge as f64 / CODES as f64;
    let loss = |(bin, &count): (usize, &u64)| {
        let x = bin as f64 + 0.5;
        let code = (x / step).round().min(CODES as f64);
        count as f64 * (x - code * step).powi(2)
    };
    counts.iter().enumerate().map(loss).sum()
}

/// KL(P‖Q) when `edge` is the limit.
fn divergence(counts: &[u64], edge: usize, levels: usize) -> f64 {
    let beyond: u64 = counts[edge..].iter().sum();
    let inside = &counts[..edge];
    let n = counts.iter().sum::<u64>() as f64;
    let n_inside = n - beyond as f64;
    let level = |bin: usize| bin * levels / edge;
    let (mut mass, mut occupied) = (vec![0u64; levels], vec![0u64; levels]);
    for (bin, &count) in inside.iter().enumerate() {
        mass[level(bin)] += count;
        occupied[level(bin)] += u64::from(count > 0);
    }
    let mut sum = 0.0;
    for (bin, &count) in inside.iter().enumerate() {
        let last = bin + 1 == edge;
        let p = (count + if last { beyond } else { 0 }) as f64 / n;
        if p == 0.0 {
            continue;
        }
        let q = match count {
            0 => SMOOTHING,
            _ => mass[level(bin)] as f64 / occupied[level(bin)] as f64 / n_inside,
        };
        sum += p * (p / q).ln();
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

    const ALL: [RangeRule; 4] = [RangeRule::MinMax, RangeRule::Percentile, RangeRule::Mse, RangeRule::Entropy];

    /// Laplace-like values, one in `every` far away.
    fn heavy(n: usize, every: usize, far: f32) -> Vec<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let draw = |i: usize| if i.is_multiple_of(every) { far } else { -(1.0 - rng.random::<f32>()).ln() };
        (0..n).map(draw).collect()
    }

    fn histogram(values: &[f32]) -> Magnitudes {
        let mut seen = Magnitudes::default();
        seen.add(values);
        seen
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_values() {
        let values = heavy(20_000, 500, 40.0);
        let seen = histogram(&values);
        let mut sorted: Vec<f32> = values.iter().map(|x| x.abs()).collect();
        sorted.sort_by(f32::total_cmp);
        for p in [50.0, 90.0, 99.0, 99.9, 100.0] {
            let exact = sorted[((values.len() as f64 * p / 100.0).ceil() as usize - 1).min(values.len() - 1)];
            let limit = RangeRule::Percentile.limit(&seen, p);
            assert!(limit >= exact && limit <= exact + seen.width(), "{p} %: {limit}, sorted values say {exact}");
        }
    }

    #[test]
    fn zeros_count_in_percentiles() {
        // 3 of 4 values are 0: 75 % are at most 0, and any more reach the fourth
        let seen = histogram(&[0.0, 0.0, 0.0, 2.0]);
        assert_eq!(RangeRule::Percentile.limit(&seen, 75.1), 2.0);
        assert_eq!(RangeRule::MinMax.limit(&histogram(&[0.0]), 100.0), 0.0);
        ALL.iter().for_each(|rule| assert_eq!(rule.limit(&histogram(&[0.0]), 100.0), 0.0, "{rule:?}"));
    }

    #[test]
    fn squared_error_is_least_over_all_edges_of_the_values_themselves() {
        let values = heavy(100_000, 100_000, 40.0);
        let seen = histogram(&values);
        let loss = |limit: f32| -> f64 {
            let step = f64::from(limit) / 127.0;
            let one = |&x: &f32| (f64::from(x) - (f64::from(x) / step).round().min(127.0) * step).powi(2);
            values.iter().map(one).sum()
        };
        let found = RangeRule::Mse.limit(&seen, 100.0);
        let best = (20..=400).map(|i| i as f32 * 0.1).map(loss).fold(f64::INFINITY, f64::min);
        assert!(loss(found) <= best * 1.01, "{found}: {} against {best}", loss(found));
        assert!(loss(found) < 0.8 * loss(40.0), "clipping the few far values pays");
    }

    /// KL by the definition, on whole distributions written out.
    fn plain_divergence(counts: &[u64], edge: usize, levels: usize) -> f64 {
        let mut p: Vec<f64> = counts[..edge].iter().map(|&c| c as f64).collect();
        let mut q = vec![0.0; edge];
        for level in 0..levels {
            let bins: Vec<usize> = (0..edge).filter(|b| b * levels / edge == level).collect();
            let total: f64 = bins.iter().map(|&b| p[b]).sum();
            let full: Vec<usize> = bins.into_iter().filter(|&b| p[b] > 0.0).collect();
            full.iter().for_each(|&b| q[b] = total / full.len() as f64);
        }
        p[edge - 1] += counts[edge..].iter().sum::<u64>() as f64;
        let (np, nq): (f64, f64) = (p.iter().sum(), q.iter().sum());
        q.iter_mut().for_each(|q| *q = if *q == 0.0 { 1e-4 } else { *q / nq });
        let term = |(&p, &q): (&f64, &f64)| if p == 0.0 { 0.0 } else { p / np * (p / np / q).ln() };
        p.iter().zip(&q).map(term).sum()
    }

    #[test]
    fn divergence_follows_its_definition() {
        let counts = [40, 25, 0, 12, 9, 9, 3, 2, 0, 1, 0, 0, 1];
        for levels in [2, 4] {
            for edge in levels..=counts.len() {
                let (found, plain) = (divergence(&counts, edge, levels), plain_divergence(&counts, edge, levels));
                let same = (found - plain).abs() < 1e-12 || found == plain;
                assert!(same, "edge {edge}, {levels} levels: {found} against {plain}");
            }
        }
    }

    #[test]
    fn entropy_clips_what_is_far_and_rare() {
        let seen = histogram(&heavy(200_000, 500, 400.0));
        let limit = RangeRule::Entropy.limit(&seen, 100.0);
        assert!(limit < 400.0 && limit > 3.0, "{limit}");
        // nothing is far: nothing is clipped by much
        let even: Vec<f32> = (1..=40_000).map(|i| i as f32 / 40_000.0).collect();
        assert!(RangeRule::Entropy.limit(&histogram(&even), 100.0) > 0.9);
    }

    #[test]
    fn limits_do_not_pass_the_largest_and_grow_with_the_values() {
        let values = heavy(5_000, 500, 12.0);
        let larger: Vec<f32> = values.iter().map(|x| 4.0 * x).collect();
        for rule in ALL {
            let (limit, four) = (rule.limit(&histogram(&values), 99.9), rule.limit(&histogram(&larger), 99.9));
            assert!(limit > 0.0 && limit <= 12.0, "{rule:?}: {limit}");
            // powers of two scale the histogram exactly
            assert_eq!(four, 4.0 * limit, "{rule:?}");
        }
        let at = |p| RangeRule::Percentile.limit(&histogram(&values), p);
        assert!(at(90.0) < at(99.0) && at(99.0) <= at(99.9) && at(99.9) <= at(100.0));
    }
}
