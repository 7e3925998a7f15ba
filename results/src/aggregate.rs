//! From rows to what a table prints: one [`Aggregate`] per group of repetitions, one [`Comparison`] per group and pair of cells.
//!
//! What counts as an independent value ([`crate::pairing`] has the rules): what is counted or scored counts once per item, however
//! often it was had. Of a clock, the repetition is the unit: events of one repetition share its luck, so an interval comes from
//! drawing whole repetitions, and a comparison from each repetition's mean log-ratio. Perplexity has one value per repetition, so
//! its interval comes from the windows behind it.

mod comparable;
mod compare;
mod ladder;
mod pooled;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::observation::{Axes, Direction, Observation, Status};
use crate::pairing::{Taken, independent};
use crate::statistics::{Center, Interval, Ratio, binomial_interval, bootstrap_interval, cv, median, median_interval};

use ladder::Ladders;

pub use comparable::unlike_chunks;
pub use pooled::median_of_clusters;

/// Seed of every interval made here, so that a report of the same rows is the same report.
const SEED: u64 = 0x1f_6d61_726b;

/// The repetitions of one metric of one cell under one workload, at one sweep coordinate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Aggregate {
    /// Cell id.
    pub cell: String,
    /// Place on the axes.
    pub axes: Axes,
    /// Workload name.
    pub workload: String,
    /// Metric id.
    pub metric: String,
    /// Formula id.
    pub formula_id: String,
    /// Unit of `median`, `low` and `high`.
    pub unit: String,
    /// Better direction.
    pub direction: Direction,
    /// Sweep coordinate.
    pub x: Option<f64>,
    /// Independent values behind the interval: repetitions of a clock, windows of a perplexity, items of anything else. One of them
    /// gives no interval: its ends are then the median.
    pub n: usize,
    /// Events inside each independent value.
    #[serde(default)]
    pub events: Events,
    /// Median; absent when no row was ok.
    pub median: Option<f64>,
    /// Lower end of the 95 % interval.
    pub low: Option<f64>,
    /// Upper end of the 95 % interval.
    pub high: Option<f64>,
    /// Coefficient of variation of the rows; absent below two.
    pub cv: Option<f64>,
    /// Ok when at least one row was.
    pub status: Status,
    /// Why rows are missing, when some are.
    pub reason: String,
    /// Kernel path of the first row.
    pub kernel_path: String,
}

/// How many events one repetition holds: fewest and most over the repetitions; 1 where a repetition is one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// Fewest of any repetition.
    pub least: usize,
    /// Most of any repetition.
    pub most: usize,
}

impl Default for Events {
    fn default() -> Events {
        Events { least: 1, most: 1 }
    }
}

impl Events {
    /// Fewest and most of these repetitions.
    pub fn of(sizes: impl Iterator<Item = usize>) -> Events {
        let all: Vec<usize> = sizes.collect();
        match (all.iter().min(), all.iter().max()) {
            (Some(&least), Some(&most)) => Events { least, most },
            _ => Events::default(),
        }
    }

    /// `27`, `27 × 124` for 27 repetitions of 124 events each, `27 × 98 to 124` where they hold unequally many.
    pub fn text(self, n: usize) -> String {
        match self {
            Events { most: 0 | 1, .. } => n.to_string(),
            Events { least, most } if least == most => format!("{n}\u{202f}×\u{202f}{most}"),
            Events { least, most } => format!("{n}\u{202f}×\u{202f}{least} to {most}"),
        }
    }
}

impl Aggregate {
    /// What stands behind the interval, in words: see [`Events::text`].
    pub fn n_text(&self) -> String {
        self.events.text(self.n)
    }
}

/// A cell against the reference in one metric under one workload, paired by the rules of [`crate::pairing`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Cell under test.
    pub cell: String,
    /// Cell it is compared with.
    pub reference: String,
    /// Workload name.
    pub workload: String,
    /// Metric id.
    pub metric: String,
    /// Metric id of the reference's values; another one where each kernel has its own variant in its id.
    #[serde(default)]
    pub reference_metric: String,
    /// Unit of `difference`.
    pub unit: String,
    /// Better direction; none where these two cells have no better and worse in this metric.
    pub direction: Direction,
    /// Why these two cells have no better and worse in a metric that has a direction; empty otherwise.
    #[serde(default)]
    pub note: String,
    /// Sweep coordinate.
    pub x: Option<f64>,
    /// Independent pairs behind the intervals.
    pub n_pairs: usize,
    /// cell / reference; absent when a value is not positive.
    pub ratio: Option<Ratio>,
    /// cell - reference, in the metric's unit.
    pub difference: Interval,
    /// Chance of pairs as one-sided as these between two equal cells: of clocks and memory by the signed-rank test, of shares of items by
    /// McNemar's.
    #[serde(default)]
    pub p: Option<f64>,
}

impl Comparison {
    /// How far the interval of the ratio reaches from 1, as a logarithm: between two copies of a cell, what is noise.
    pub fn reach(&self) -> Option<f64> {
        let ratio = self.ratio?;
        Some(ratio.low.ln().abs().max(ratio.high.ln().abs()))
    }
}

/// Groups rows by (cell, workload, metric, x), sorted by that key. Only ok rows count; a group without any keeps status and reason.
pub fn aggregate(rows: &[Observation]) -> Vec<Aggregate> {
    let groups = group(rows.iter());
    groups.iter().map(|(key, rows)| summarize(key, rows, &groups)).collect()
}

/// Every other cell against `reference`, sorted by (cell, workload, metric, x). Pairs need two ok rows of one formula.
/// A kernel whose variant the reference does not have is compared with the reference's first variant on the same problem.
pub fn compare(rows: &[Observation], reference: &str) -> Vec<Comparison> {
    let groups = group(rows.iter().filter(|row| is_ok(row)));
    let ladders = Ladders::of(&groups);
    let others = groups.keys().filter(|key| key.cell != reference);
    let compared = others.filter_map(|key| {
        let same = Key { cell: reference, ..*key };
        let other = if groups.contains_key(&same) { same } else { ladders.first(key, reference)? };
        compare::compare_groups(key, &other, &groups)
    });
    compared.collect()
}

/// Within each cell, every further rung of a kernel's ladder against the ladder's first on the same problem, sorted like [`compare`];
/// `reference` is the cell itself and `reference_metric` the first rung's.
pub fn climb(rows: &[Observation]) -> Vec<Comparison> {
    let groups = group(rows.iter().filter(|row| is_ok(row)));
    let ladders = Ladders::of(&groups);
    let climbed = groups.keys().filter_map(|key| {
        let first = ladders.first(key, key.cell)?;
        (first.metric != key.metric).then(|| compare::compare_groups(key, &first, &groups))?
    });
    climbed.collect()
}

/// The A/A control against the reference: differences of this size are noise.
pub fn noise_floor(rows: &[Observation], reference: &str, aa_cell: &str) -> Vec<Comparison> {
    let both: Vec<Observation> =
        rows.iter().filter(|row| row.cell == reference || row.cell == aa_cell).cloned().collect();
    compare(&both, reference)
}

/// What the rows of one group share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key<'a> {
    cell: &'a str,
    workload: &'a str,
    metric: &'a str,
    x: Option<u64>,
}

type Groups<'a> = BTreeMap<Key<'a>, Vec<&'a Observation>>;

fn group<'a>(rows: impl Iterator<Item = &'a Observation>) -> Groups<'a> {
    let mut groups = Groups::new();
    for row in rows {
        let key = Key { cell: &row.cell, workload: &row.workload, metric: &row.metric, x: row.x.map(ordered_bits) };
        groups.entry(key).or_default().push(row);
    }
    groups
}

/// Bits whose integer order is the order of the numbers.
fn ordered_bits(x: f64) -> u64 {
    let bits = (x + 0.0).to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

fn is_ok(row: &Observation) -> bool {
    row.status == Status::Ok && row.value.is_some_and(f64::is_finite)
}

fn summarize(key: &Key, rows: &[&Observation], groups: &Groups) -> Aggregate {
    let ok: Vec<&Observation> = rows.iter().copied().filter(|row| is_ok(row)).collect();
    let first = ok.first().unwrap_or(&rows[0]);
    let clusters = independent(key.metric, &taken(&ok));
    let values: Vec<f64> = clusters.iter().flatten().copied().collect();
    let of_windows = window_interval(key, &values, groups);
    let events = match of_windows {
        Some(_) => Events::default(),
        None => Events::of(clusters.iter().map(Vec::len)),
    };
    let interval = of_windows.or_else(|| match events.most {
        0 | 1 => median_interval(&values, SEED),
        _ => pooled::median_of_clusters(&clusters, SEED),
    });
    let missing = rows.iter().find(|row| row.status != Status::Ok);
    let reason = match missing {
        Some(row) if ok.is_empty() => row.reason.clone(),
        Some(row) => format!("{} of {} rows {}: {}", rows.len() - ok.len(), rows.len(), word(row.status), row.reason),
        None => String::new(),
    };
    Aggregate {
        cell: first.cell.clone(),
        axes: first.axes.clone(),
        workload: first.workload.clone(),
        metric: first.metric.clone(),
        formula_id: first.formula_id.clone(),
        unit: first.unit.clone(),
        direction: first.direction,
        x: first.x,
        n: interval.map_or(0, |interval| interval.n),
        events,
        median: median(&values),
        low: interval.map(|interval| interval.low),
        high: interval.map(|interval| interval.high),
        cv: cv(&values),
        status: if ok.is_empty() { missing.map_or(Status::Failed, |row| row.status) } else { Status::Ok },
        reason,
        kernel_path: first.kernel_path.clone(),
    }
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Ok => "without a value",
        Status::Wrong => "wrong",
        Status::Failed => "failed",
        Status::Skipped => "skipped",
    }
}

/// Values and their places.
fn taken(rows: &[&Observation]) -> Vec<Taken> {
    let of = |row: &&Observation| {
        Some(Taken { sitting: row.sitting, repetition: row.repetition, item: row.item, value: row.value? })
    };
    rows.iter().filter_map(of).collect()
}

/// How a per-repetition quality metric depends on the rows of windows or items that give its interval.
#[derive(Clone, Copy)]
enum Spread {
    /// The metric is the exponential of the windows' mean.
    Exponential,
    /// The metric is proportional to the windows' mean.
    Proportional,
    /// The metric is the share of items that count.
    Share,
}

fn windows_behind(metric: &str) -> Option<(String, Spread)> {
    let (base, part) = metric.split_at(metric.find(':').unwrap_or(metric.len()));
    let (windows, spread) = match base {
        "ppl" => ("nll_window", Spread::Exponential),
        "ppl_ratio" => ("delta_nll", Spread::Exponential),
        "nll" | "bits_per_byte" => ("nll_window", Spread::Proportional),
        "target_ppl" => ("target_nll", Spread::Exponential),
        "acc" => ("acc_item", Spread::Share),
        "acc_norm" => ("acc_norm_item", Spread::Share),
        "acc_bytes" => ("acc_bytes_item", Spread::Share),
        "exact_match" => ("exact_match_item", Spread::Share),
        "acc_at" => ("acc_item_at", Spread::Share),
        "exact_match_at" => ("exact_match_item_at", Spread::Share),
        _ => return None,
    };
    Some((format!("{windows}{part}"), spread))
}

/// Interval of a quality metric from the windows of the same cell and workload.
fn window_interval(key: &Key, values: &[f64], groups: &Groups) -> Option<Interval> {
    let estimate = median(values)?;
    let (name, spread) = windows_behind(key.metric)?;
    let rows = groups.get(&Key { metric: &name, ..*key })?;
    let ok: Vec<&Observation> = rows.iter().copied().filter(|row| is_ok(row)).collect();
    let losses: Vec<f64> = independent(&name, &taken(&ok)).into_iter().flatten().collect();
    if let Spread::Share = spread {
        let counted = losses.iter().filter(|value| **value > 0.5).count() as u64;
        return binomial_interval(counted, losses.len() as u64);
    }
    let windows = bootstrap_interval(&losses, Center::Mean, SEED)?;
    let end = |end: f64| match spread {
        Spread::Exponential => estimate * (end - windows.estimate).exp(),
        Spread::Proportional | Spread::Share => estimate * end / windows.estimate,
    };
    Some(Interval { estimate, low: end(windows.low), high: end(windows.high), n: windows.n })
}
