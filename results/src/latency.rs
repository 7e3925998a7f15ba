//! Latency distributions: a histogram of nanoseconds with three significant digits, and percentiles that admit when n is too small.

use hdrhistogram::Histogram;

/// Longest latency kept apart, one hour; longer ones count as this long.
const LONGEST_NS: u64 = 3_600_000_000_000;

/// Latencies of many events, nanoseconds, relative error below 0.1 %.
#[derive(Debug, Clone)]
pub struct Latencies {
    histogram: Histogram<u64>,
}

/// One percentile of a latency distribution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percentile {
    /// Level in percent, e.g. 99.0.
    pub percent: f64,
    /// Value in nanoseconds.
    pub ns: u64,
    /// Events behind it.
    pub n: u64,
    /// False when n is below [`events_needed`]: print the value grey, or not at all.
    pub trusted: bool,
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

impl Latencies {
    /// An empty distribution.
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("constant bounds are valid");
        Latencies { histogram }
    }

    /// A distribution of milliseconds, as the `*_ms` metrics hold them; negative and non-finite values are left out.
    pub fn from_ms(values: impl IntoIterator<Item = f64>) -> Self {
        let mut latencies = Latencies::new();
        for ms in values.into_iter().filter(|ms| ms.is_finite() && *ms >= 0.0) {
            latencies.record((ms * 1e6).round() as u64);
        }
        latencies
    }

    /// Adds one event.
    pub fn record(&mut self, ns: u64) {
        self.histogram.saturating_record(ns.max(1));
    }

    /// Events so far.
    pub fn n(&self) -> u64 {
        self.histogram.len()
    }

    /// The percentile at `percent` in 0..=100; `None` without events.
    pub fn percentile(&self, percent: f64) -> Option<Percentile> {
        let n = self.n();
        let ns = (n > 0).then(|| self.histogram.value_at_percentile(percent))?;
        Some(Percentile { percent, ns, n, trusted: n >= events_needed(percent) })
    }

    /// p50, p90, p95, p99 and p99.9.
    pub fn percentiles(&self) -> Vec<Percentile> {
        [50.0, 90.0, 95.0, 99.0, 99.9].iter().filter_map(|percent| self.percentile(*percent)).collect()
    }

    /// Occupied buckets in ascending order: `(highest ns of the bucket, events in it)`, for a plot.
    pub fn buckets(&self) -> Vec<(u64, u64)> {
        self.histogram.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
    }
}

/// Events before the largest of them exceeds the true percentile with 99 % probability: 1 - p^n >= 0.99. For p99 that is 459.
pub fn events_needed(percent: f64) -> u64 {
    let p = (percent / 100.0).clamp(0.0, 1.0);
    if p >= 1.0 {
        u64::MAX
    } else if p <= 0.01 {
        1
    } else {
        (0.01f64.ln() / p.ln()).ceil() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Oracle: 1 - 0.99^459 >= 0.99 > 1 - 0.99^458, by direct powers.
    #[test]
    fn events_needed_for_a_tail() {
        assert_eq!(events_needed(99.0), 459);
        assert!(1.0 - 0.99f64.powi(459) >= 0.99 && 1.0 - 0.99f64.powi(458) < 0.99);
        assert_eq!(events_needed(50.0), 7);
        assert_eq!(events_needed(90.0), 44);
        assert_eq!(events_needed(100.0), u64::MAX);
    }

    #[test]
    fn percentiles_of_a_ramp() {
        let latencies = Latencies::from_ms((1..=1000).map(f64::from));
        for percent in [50.0, 90.0, 99.0] {
            let got = latencies.percentile(percent).expect("events");
            let expected = percent * 10.0 * 1e6;
            assert!((got.ns as f64 / expected - 1.0).abs() < 2e-3, "{got:?}");
            assert!(got.trusted && got.n == 1000);
        }
        assert!(!latencies.percentile(99.9).expect("events").trusted);
        assert_eq!(latencies.buckets().iter().map(|(_, count)| count).sum::<u64>(), 1000);
    }

    #[test]
    fn odd_values() {
        let mut latencies = Latencies::from_ms([f64::NAN, -1.0, f64::INFINITY]);
        assert_eq!(latencies.n(), 0);
        assert_eq!(latencies.percentile(50.0), None);
        latencies.record(0);
        latencies.record(u64::MAX);
        assert_eq!(latencies.n(), 2);
    }
}
