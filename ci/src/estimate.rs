//! How far head is from base, by the arithmetic that fits the kind of metric.

use std::collections::BTreeMap;

use results::aggregate::median_of_clusters;
use results::metric::Kind;
use results::pairing::{Grain, Taken, independent};
use results::statistics::{
    Center, mann_whitney, mean, median, median_interval, paired_difference, paired_ratio, signed_rank_p,
};
use serde::Serialize;

use crate::series::Series;

/// Seed of every bootstrap here: a check of the same files prints the same digits.
const SEED: u64 = 0;

/// Which samples of base and head are a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// One job: clocks pair by (sitting, repetition, item), taken next to each other; counts and scores by item, whenever they were had.
    Interleaved,
    /// Two runs: the same work at another time, which pairs counts and scores but not clocks.
    Recorded,
}

/// One side's values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Median.
    pub median: f64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Lower end of the median's 95 % interval; of counted metrics the least value.
    pub low: f64,
    /// Upper end, likewise.
    pub high: f64,
    /// Independent values: repetitions of a clock, items of what is counted or scored.
    pub n: usize,
}

/// What a change counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scale {
    /// head / base.
    Ratio,
    /// head - base, in the metric's unit.
    Difference,
}

/// A change with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Change {
    /// Ratio or difference.
    pub scale: Scale,
    /// The estimate.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Base, head and the way between them.
#[derive(Debug, Clone, PartialEq)]
pub struct Estimate {
    /// The baseline's values.
    pub base: Spread,
    /// The head's values.
    pub head: Spread,
    /// Independent pairs behind the change: repetitions for clocks, items for everything else.
    pub pairs: usize,
    /// head / base, for clocks and memory.
    pub ratio: Option<Change>,
    /// head - base: the mean over pairs with its interval; for counted metrics the ends are the extreme pairs.
    pub difference: Option<Change>,
    /// Chance of such a change between equals, for clocks.
    pub p: Option<f64>,
}

impl Estimate {
    /// Estimates the change from `base` to `head` by the arithmetic of `kind`.
    pub fn new(base: &Series, head: &Series, kind: Kind, pairing: Pairing) -> Self {
        let pairs = pair_up(&base.metric, &reduced(base), &reduced(head), pairing);
        let mut estimate = Self {
            base: spread(base, kind),
            head: spread(head, kind),
            pairs: pairs.len(),
            ratio: None,
            difference: None,
            p: None,
        };
        match kind {
            Kind::Deterministic => estimate.difference = extremes(&pairs),
            Kind::Memory => estimate.of_medians(),
            Kind::Quality => estimate.of_items(&pairs),
            Kind::Timing => match pairing {
                Pairing::Interleaved => estimate.of_repetitions(&pairs),
                Pairing::Recorded => estimate.of_unpaired(base, head),
            },
        }
        estimate
    }

    /// The change as a reader of this kind of metric wants it.
    pub fn change(&self) -> Option<Change> {
        self.ratio.or(self.difference)
    }

    fn of_medians(&mut self) {
        let difference = self.head.median - self.base.median;
        self.difference =
            Some(Change { scale: Scale::Difference, value: difference, low: difference, high: difference });
        if self.base.median > 0.0 {
            let ratio = self.head.median / self.base.median;
            self.ratio = Some(Change { scale: Scale::Ratio, value: ratio, low: ratio, high: ratio });
        }
    }

    /// Items (windows of a text) are the unit; repetitions of a deterministic score add nothing and are averaged.
    fn of_items(&mut self, pairs: &[Pair]) {
        let items = grouped(pairs, |pair| u64::from(pair.item));
        let averaged: Vec<(f64, f64)> = items
            .values()
            .filter_map(|group| Some((mean(&side(group, |pair| pair.head))?, mean(&side(group, |pair| pair.base))?)))
            .collect();
        self.pairs = averaged.len();
        self.difference = paired_difference(&averaged, Center::Mean, SEED).map(|interval| Change {
            scale: Scale::Difference,
            value: interval.estimate,
            low: interval.low,
            high: interval.high,
        });
    }

    /// Repetitions are the unit: items inside one share its luck, so each repetition gives one mean log ratio.
    fn of_repetitions(&mut self, pairs: &[Pair]) {
        let repetitions = grouped(pairs, |pair| (u64::from(pair.sitting) << 32) | u64::from(pair.repetition));
        self.pairs = repetitions.len();
        if pairs.iter().any(|pair| pair.base <= 0.0 || pair.head <= 0.0) {
            return;
        }
        let logs: Vec<f64> =
            repetitions.values().filter_map(|group| mean(&side(group, |pair| (pair.head / pair.base).ln()))).collect();
        let ratios: Vec<(f64, f64)> = logs.iter().map(|log| (log.exp(), 1.0)).collect();
        self.ratio = paired_ratio(&ratios, Center::Median, SEED).map(|ratio| Change {
            scale: Scale::Ratio,
            value: ratio.ratio,
            low: ratio.low,
            high: ratio.high,
        });
        self.p = signed_rank_p(&logs);
    }

    /// Ratio of medians; its interval joins the two medians' own on the log scale (MOVER, Zou and Donner 2008).
    fn of_unpaired(&mut self, base: &Series, head: &Series) {
        let (was, is) = (&self.base, &self.head);
        if [was.low, is.low, was.median, is.median].iter().all(|value| *value > 0.0) {
            let log = (is.median / was.median).ln();
            let below = (is.median / is.low).ln().hypot((was.high / was.median).ln());
            let above = (is.high / is.median).ln().hypot((was.median / was.low).ln());
            self.ratio = Some(Change {
                scale: Scale::Ratio,
                value: log.exp(),
                low: (log - below).exp(),
                high: (log + above).exp(),
            });
        }
        // events of one repetition share its luck: each repetition is one value
        let values = |series: &Series| clusters(series).iter().filter_map(|events| median(events)).collect::<Vec<_>>();
        self.p = mann_whitney(&values(base), &values(head));
    }
}

/// Two samples of the same work.
#[derive(Debug, Clone, Copy)]
struct Pair {
    sitting: u32,
    repetition: u32,
    item: u32,
    base: f64,
    head: f64,
}

/// One sample per repetition where items do not correspond one to one.
fn reduced(series: &Series) -> Vec<Taken> {
    if !series.pooled {
        return series.samples.clone();
    }
    let mut repetitions: BTreeMap<(u32, u32), Vec<f64>> = BTreeMap::new();
    for sample in &series.samples {
        repetitions.entry((sample.sitting, sample.repetition)).or_default().push(sample.value);
    }
    let one = |((sitting, repetition), values): ((u32, u32), Vec<f64>)| {
        Some(Taken { sitting, repetition, item: 0, value: median(&values)? })
    };
    repetitions.into_iter().filter_map(one).collect()
}

/// Every value of the head with every value of the base at the same place: a place holds several different values only where a
/// run that was resumed counted or scored something differently, and then none of them is hidden.
fn pair_up(metric: &str, base: &[Taken], head: &[Taken], pairing: Pairing) -> Vec<Pair> {
    let grain = match (pairing, Grain::of(metric, &[base, head])) {
        // sittings of two runs do not correspond
        (Pairing::Recorded, Grain::Sitting) => Grain::Repetition,
        (_, grain) => grain,
    };
    let bases = grain.places(base);
    let mut pairs = Vec::new();
    for (place, heads) in grain.places(head) {
        let (sitting, repetition, item) = place;
        for &base in bases.get(&place).into_iter().flatten() {
            pairs.extend(heads.iter().map(|&head| Pair { sitting, repetition, item, base, head }));
        }
    }
    pairs
}

fn grouped(pairs: &[Pair], key: impl Fn(&Pair) -> u64) -> BTreeMap<u64, Vec<Pair>> {
    let mut groups: BTreeMap<u64, Vec<Pair>> = BTreeMap::new();
    pairs.iter().for_each(|pair| groups.entry(key(pair)).or_default().push(*pair));
    groups
}

fn side(pairs: &[Pair], value: impl Fn(&Pair) -> f64) -> Vec<f64> {
    pairs.iter().map(value).collect()
}

/// Mean difference between the extreme differences of single pairs.
fn extremes(pairs: &[Pair]) -> Option<Change> {
    let differences = side(pairs, |pair| pair.head - pair.base);
    Some(Change {
        scale: Scale::Difference,
        value: mean(&differences)?,
        low: differences.iter().copied().fold(f64::INFINITY, f64::min),
        high: differences.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    })
}

/// Independent groups of a series' values: repetitions of a clock, items of what is counted or scored.
fn clusters(series: &Series) -> Vec<Vec<f64>> {
    independent(&series.metric, &series.samples)
}

fn spread(series: &Series, kind: Kind) -> Spread {
    let clusters = clusters(series);
    let values: Vec<f64> = clusters.iter().flatten().copied().collect();
    let (centre, average) = (median(&values).unwrap_or(f64::NAN), mean(&values).unwrap_or(f64::NAN));
    let interval = match kind {
        Kind::Deterministic => None,
        _ if clusters.iter().any(|events| events.len() > 1) => median_of_clusters(&clusters, SEED),
        Kind::Quality | Kind::Timing | Kind::Memory => median_interval(&values, SEED),
    };
    let (low, high) = match interval {
        Some(interval) => (interval.low, interval.high),
        None => (
            values.iter().copied().fold(f64::INFINITY, f64::min),
            values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        ),
    };
    Spread { median: centre, mean: average, low, high, n: clusters.len() }
}
