//! The median of events that come in repetitions.
//!
//! Events of one repetition share its luck (the clock frequency, a neighbour on the machine), so that ten thousand events of ten
//! repetitions are nearer to ten values than to ten thousand. The interval therefore draws whole repetitions with replacement and takes
//! the median of all their events (the cluster bootstrap: Davison and Hinkley, "Bootstrap Methods and their Application" (1997), 3.8).

use crate::statistics::{Interval, paired_statistic};

/// Median of all values and its 95 % interval over clusters; of one cluster the ends are the median itself.
pub fn median_of_clusters(clusters: &[Vec<f64>], seed: u64) -> Option<Interval> {
    let pool = Pool::of(clusters);
    // what is drawn is the number of a cluster
    let drawn: Vec<(f64, f64)> = (0..clusters.len()).map(|cluster| (cluster as f64, 0.0)).collect();
    paired_statistic(&drawn, seed, |drawn| {
        let mut times = vec![0usize; clusters.len()];
        drawn.iter().for_each(|(cluster, _)| times[*cluster as usize] += 1);
        pool.median(&times)
    })
}

/// Values between two places where the search may start.
const STEP: usize = 32;

/// Values of all clusters in ascending order, sorted once for all resamples.
struct Pool {
    /// Values and their clusters.
    sorted: Vec<(f64, usize)>,
    /// Values of each cluster before every [`STEP`]th place.
    before: Vec<Vec<usize>>,
    /// Values of each cluster.
    sizes: Vec<usize>,
}

impl Pool {
    fn of(clusters: &[Vec<f64>]) -> Pool {
        let mut sorted: Vec<(f64, usize)> = Vec::new();
        for (cluster, values) in clusters.iter().enumerate() {
            sorted.extend(values.iter().map(|value| (*value, cluster)));
        }
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut counts = vec![0; clusters.len()];
        let mut before = Vec::new();
        for (place, (_, cluster)) in sorted.iter().enumerate() {
            if place % STEP == 0 {
                before.push(counts.clone());
            }
            counts[*cluster] += 1;
        }
        Pool { sorted, before, sizes: counts }
    }

    /// Median when each cluster's values are there `times` times.
    fn median(&self, times: &[usize]) -> Option<f64> {
        let count = |counts: &[usize]| times.iter().zip(counts).map(|(times, count)| times * count).sum::<usize>();
        let total = count(&self.sizes);
        let (lower, upper) = (total.checked_sub(1)? / 2, total / 2);
        let start = self.before.partition_point(|counts| count(counts) <= lower).checked_sub(1)?;
        let mut seen = count(&self.before[start]);
        let mut low = None;
        for (value, cluster) in &self.sorted[start * STEP..] {
            seen += times[*cluster];
            if seen > lower {
                low = low.or(Some(*value));
            }
            if seen > upper {
                return low.map(|low| low + (value - low) * 0.5);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::median;

    /// Oracle: the median of the values written out, for every way to draw two of three clusters, sizes odd and even.
    #[test]
    fn a_drawn_median_is_the_median_of_the_drawn_values() {
        let clusters = [vec![3.0, 9.0, 4.0], vec![1.0, 2.5], vec![7.0, 7.0, 8.0, 2.0]];
        let pool = Pool::of(&clusters);
        for a in 0..3 {
            for b in 0..3 {
                let mut times = [0; 3];
                times[a] += 1;
                times[b] += 1;
                let written = [&clusters[a][..], &clusters[b][..]].concat();
                assert_eq!(pool.median(&times), median(&written), "{a} {b}");
            }
        }
        assert_eq!(pool.median(&[0, 0, 0]), None);
    }

    /// The same oracle over more values than one step of the search holds, with ties.
    #[test]
    fn the_search_may_start_anywhere() {
        let clusters: Vec<Vec<f64>> =
            (0..5u32).map(|c| (0..40 + c).map(|i| f64::from(i * 37 % 61) + f64::from(c % 2)).collect()).collect();
        let pool = Pool::of(&clusters);
        for times in [[1, 1, 1, 1, 1], [5, 0, 0, 0, 0], [0, 2, 0, 3, 0], [0, 0, 0, 0, 1], [1, 0, 3, 0, 1]] {
            let mut written = Vec::new();
            for (cluster, times) in clusters.iter().zip(times) {
                (0..times).for_each(|_| written.extend(cluster));
            }
            assert_eq!(pool.median(&times), median(&written), "{times:?}");
        }
    }

    #[test]
    fn one_cluster_has_no_interval() {
        let found = median_of_clusters(&[vec![1.0, 2.0, 9.0]], 1).expect("values");
        assert_eq!((found.estimate, found.low, found.high, found.n), (2.0, 2.0, 2.0, 1));
        assert_eq!(median_of_clusters(&[], 1), None);
    }
}
