//! Latency distributions: a histogram of nanoseconds with three significant digits, and percentiles that admit when n is too small.
//!
//! Whether n is large enough depends on repetitions too: events of one repetition share its luck. A percentile is a share of
//! events, so the design effect of a share in a cluster sample says what N events in R repetitions are worth: N / (1 + (m - 1) ρ),
//! where m is the mean size of a repetition as an event sees it and ρ the intra-class correlation of "this event lies above the
//! percentile" (Kish, "Survey Sampling" (1965), 5.4 and 8.2; ρ from the one-way analysis of variance, Donner, "A review of
//! inference procedures for the intraclass correlation coefficient" (1986)). It lies between R, when each repetition is all luck, and
//! N, when it has none. Few repetitions cannot show their own correlation, so there is a least number of them as well.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::aggregate::Events;
use crate::observation::Observation;

/// Longest latency kept apart, one hour; longer ones count as this long.
const LONGEST_NS: u64 = 3_600_000_000_000;

/// Repetitions before the slowest of them is, with 99 % probability, slower than the median repetition: [`events_needed`] of 50 %.
pub const REPETITIONS_NEEDED: usize = 7;

/// Latencies of many events, nanoseconds, relative error below 0.1 %.
#[derive(Debug, Clone)]
pub struct Latencies {
    histogram: Histogram<u64>,
    /// Sitting and repetition, and their events.
    repetitions: BTreeMap<(u32, u32), Vec<u64>>,
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
    /// What these events are worth when each were independent of the others, at this level.
    pub n_effective: f64,
    /// False when `n_effective` is below [`events_needed`], or repetitions are fewer than [`REPETITIONS_NEEDED`]: print the value
    /// grey, or not at all.
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
        Latencies { histogram, repetitions: BTreeMap::new() }
    }

    /// The distribution of rows in milliseconds, as the `*_ms` metrics hold them; negative and non-finite values are left out.
    pub fn of_rows<'a>(rows: impl IntoIterator<Item = &'a Observation>) -> Self {
        let mut latencies = Latencies::new();
        for row in rows {
            if let Some(ms) = row.value.filter(|ms| ms.is_finite() && *ms >= 0.0) {
                latencies.record((row.sitting, row.repetition), (ms * 1e6).round() as u64);
            }
        }
        latencies
    }

    /// Adds one event of the repetition (sitting, repetition).
    pub fn record(&mut self, repetition: (u32, u32), ns: u64) {
        let ns = ns.clamp(1, LONGEST_NS);
        self.histogram.saturating_record(ns);
        self.repetitions.entry(repetition).or_default().push(ns);
    }

    /// Events so far.
    pub fn n(&self) -> u64 {
        self.histogram.len()
    }

    /// Repetitions and events of each, as tables print them: `27 × 124`.
    pub fn n_text(&self) -> String {
        Events::of(self.repetitions.values().map(Vec::len)).text(self.repetitions.len())
    }

    /// The percentile at `percent` in 0..=100; `None` without events.
    pub fn percentile(&self, percent: f64) -> Option<Percentile> {
        let n = self.n();
        let ns = (n > 0).then(|| self.histogram.value_at_percentile(percent))?;
        let n_effective = n as f64 / self.design_effect(ns);
        let enough = n_effective >= events_needed(percent) as f64 && self.repetitions.len() >= REPETITIONS_NEEDED;
        Some(Percentile { percent, ns, n, n_effective, trusted: enough })
    }

    /// By how much the clustering of "slower than `ns`" in repetitions divides the number of events.
    fn design_effect(&self, ns: u64) -> f64 {
        let sizes: Vec<f64> = self.repetitions.values().map(|events| events.len() as f64).collect();
        let above = |events: &Vec<u64>| events.iter().filter(|event| **event > ns).count() as f64;
        let shares: Vec<f64> = self.repetitions.values().map(|events| above(events) / events.len() as f64).collect();
        let (k, n) = (sizes.len() as f64, sizes.iter().sum::<f64>());
        // the size of the repetition that an event finds itself in
        let size_seen = sizes.iter().map(|size| size * size).sum::<f64>() / n;
        if k < 2.0 {
            return size_seen.max(1.0);
        }
        if n <= k {
            return 1.0;
        }
        let pairs = || sizes.iter().zip(&shares);
        let share = pairs().map(|(size, share)| size * share).sum::<f64>() / n;
        let between = pairs().map(|(size, own)| size * (own - share).powi(2)).sum::<f64>() / (k - 1.0);
        let within = pairs().map(|(size, own)| size * own * (1.0 - own)).sum::<f64>() / (n - k);
        let size = (n - size_seen) / (k - 1.0);
        let spread = between + (size - 1.0) * within;
        let correlation = if spread > 0.0 { ((between - within) / spread).clamp(0.0, 1.0) } else { 0.0 };
        1.0 + (size_seen - 1.0) * correlation
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

/// Independent events before the largest of them exceeds the true percentile with 99 % probability: 1 - p^n >= 0.99. For p99 that is 459.
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

    /// `events` of each of `repetitions`, in milliseconds.
    fn latencies(repetitions: u32, events: u32, ms: impl Fn(u32, u32) -> f64) -> Latencies {
        let mut latencies = Latencies::new();
        for repetition in 0..repetitions {
            (0..events).for_each(|event| latencies.record((0, repetition), (ms(repetition, event) * 1e6) as u64));
        }
        latencies
    }

    #[test]
    fn percentiles_of_a_ramp() {
        let latencies = latencies(10, 100, |repetition, event| f64::from(event * 10 + repetition + 1));
        for percent in [50.0, 90.0, 99.0] {
            let got = latencies.percentile(percent).expect("events");
            let expected = percent * 10.0 * 1e6;
            assert!((got.ns as f64 / expected - 1.0).abs() < 2e-3, "{got:?}");
            assert!(got.trusted && got.n == 1000);
        }
        assert!(!latencies.percentile(99.9).expect("events").trusted);
        assert_eq!(latencies.buckets().iter().map(|(_, count)| count).sum::<u64>(), 1000);
    }

    /// Oracle: by hand. 4 repetitions of 3 events; above 10 ms lie 3, 0, 0 and 1 of them, so the mean share is 1/3.
    /// between = 3 (4/9 + 1/9 + 1/9 + 0) / 3 = 2/3; within = 3 (1/3 · 2/3) / 8 = 1/12; ρ = (2/3 - 1/12) / (2/3 + 2/12) = 7/10;
    /// design effect 1 + 2 · 7/10 = 2.4, so 12 events are worth 5.
    #[test]
    fn the_design_effect_by_hand() {
        let slow = [[true; 3], [false; 3], [false; 3], [true, false, false]];
        let found = latencies(4, 3, |r, e| if slow[r as usize][e as usize] { 20.0 } else { 5.0 });
        assert!((found.design_effect(10_000_000) - 2.4).abs() < 1e-12);
    }

    /// Repetitions that are all luck are worth their number; without luck, their events count; one repetition is worth one.
    #[test]
    fn repetitions_are_worth_between_their_number_and_that_of_their_events() {
        let worth = |l: &Latencies| l.percentile(50.0).expect("events").n_effective;
        let lucky = latencies(20, 50, |repetition, _| f64::from(repetition + 1));
        assert!((worth(&lucky) - 20.0).abs() < 1e-9, "{}", worth(&lucky));
        let alike = latencies(20, 50, |_, event| f64::from(event + 1));
        assert_eq!(worth(&alike), 1000.0);
        let one = latencies(1, 1000, |_, event| f64::from(event + 1));
        assert_eq!(worth(&one), 1.0);
        // 44 independent events carry p90: 20 repetitions that are all luck do not, 1000 events do
        assert!(!lucky.percentile(90.0).expect("events").trusted && alike.percentile(90.0).expect("events").trusted);
        assert!(!one.percentile(50.0).expect("events").trusted);
    }

    #[test]
    fn few_repetitions_carry_nothing() {
        assert_eq!(REPETITIONS_NEEDED as u64, events_needed(50.0));
        for (repetitions, trusted) in [(6, false), (7, true)] {
            let found = latencies(repetitions, 500, |_, event| f64::from(event + 1));
            assert_eq!(found.percentile(99.0).expect("events").trusted, trusted, "{repetitions}");
        }
    }

    #[test]
    fn n_is_repetitions_times_events() {
        assert_eq!(latencies(27, 124, |_, _| 1.0).n_text(), "27\u{202f}×\u{202f}124");
        assert_eq!(latencies(5, 1, |_, _| 1.0).n_text(), "5");
        let mut unequal = latencies(3, 4, |_, _| 1.0);
        unequal.record((1, 0), 7);
        assert_eq!(unequal.n_text(), "4\u{202f}×\u{202f}1 to 4");
    }

    #[test]
    fn odd_values() {
        let mut latencies = Latencies::of_rows([]);
        assert_eq!(latencies.n(), 0);
        assert_eq!(latencies.percentile(50.0), None);
        latencies.record((0, 0), 0);
        latencies.record((0, 1), u64::MAX);
        assert_eq!(latencies.n(), 2);
    }
}
