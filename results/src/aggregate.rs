//! From rows to what a table prints: one [`Aggregate`] per group of repetitions, one [`Comparison`] per group and pair of cells.
//!
//! What counts as an independent value: repetitions that agree exactly count once (a deterministic number repeated five times is one
//! number); of several items in one repetition of a clock, comparisons use the repetition's mean log-ratio, because items share
//! their disturbances. Clocks are compared by ranks ([`crate::statistics::hodges_lehmann`]). Perplexity has one value per repetition, so its interval comes from the windows behind it.

mod compare;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::observation::{Axes, Direction, Observation, Status};
use crate::statistics::{Center, Interval, Ratio, bootstrap_interval, cv, median, median_interval};

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
    /// Independent values behind the interval (windows for perplexity).
    pub n: usize,
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

/// A cell against the reference in one metric under one workload, paired by (sitting, repetition, item).
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
    /// Unit of `difference`.
    pub unit: String,
    /// Better direction.
    pub direction: Direction,
    /// Sweep coordinate.
    pub x: Option<f64>,
    /// Independent pairs behind the intervals.
    pub n_pairs: usize,
    /// cell / reference; absent when a value is not positive.
    pub ratio: Option<Ratio>,
    /// cell - reference, in the metric's unit.
    pub difference: Interval,
    /// Chance of pairs as one-sided as these between two equal cells (signed-rank test); of clocks and memory only.
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
pub fn compare(rows: &[Observation], reference: &str) -> Vec<Comparison> {
    let groups = group(rows.iter().filter(|row| is_ok(row)));
    let others = groups.iter().filter(|(key, _)| key.cell != reference);
    others.filter_map(|(key, cell_rows)| compare::compare_group(key, cell_rows, &groups, reference)).collect()
}

/// The A/A control against the reference: differences of this size are noise.
pub fn noise_floor(rows: &[Observation], reference: &str, aa_cell: &str) -> Vec<Comparison> {
    let both: Vec<Observation> =
        rows.iter().filter(|row| row.cell == reference || row.cell == aa_cell).cloned().collect();
    compare(&both, reference)
}

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
    let values: Vec<f64> = ok.iter().filter_map(|row| row.value).collect();
    let interval = window_interval(key, &values, groups).or_else(|| median_interval(&independent(&ok), SEED));
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

/// The independent values of ok rows: one per item when all repetitions of every item agree exactly, else all.
fn independent(rows: &[&Observation]) -> Vec<f64> {
    let values: Vec<(u32, f64)> = rows.iter().filter_map(|row| Some((row.item, row.value?))).collect();
    match by_item(&values) {
        Some(items) => items,
        None => values.iter().map(|(_, value)| *value).collect(),
    }
}

/// One value per item, when repetitions of each item are equal.
fn by_item<T: Copy + PartialEq>(values: &[(u32, T)]) -> Option<Vec<T>> {
    let mut items: BTreeMap<u32, T> = BTreeMap::new();
    for (item, value) in values {
        if items.insert(*item, *value).is_some_and(|before| before != *value) {
            return None;
        }
    }
    Some(items.into_values().collect())
}

/// How a per-repetition quality metric depends on the per-window rows that give its interval.
#[derive(Clone, Copy)]
enum Spread {
    /// The metric is the exponential of the windows' mean.
    Exponential,
    /// The metric is proportional to the windows' mean.
    Proportional,
}

fn windows_behind(metric: &str) -> Option<(String, Spread)> {
    let (base, part) = metric.split_at(metric.find(':').unwrap_or(metric.len()));
    let (windows, spread) = match base {
        "ppl" => ("nll_window", Spread::Exponential),
        "ppl_ratio" => ("delta_nll", Spread::Exponential),
        "nll" | "bits_per_byte" => ("nll_window", Spread::Proportional),
        _ => return None,
    };
    Some((format!("{windows}{part}"), spread))
}

/// Interval of a quality metric from the windows of the same cell and workload.
fn window_interval(key: &Key, values: &[f64], groups: &Groups) -> Option<Interval> {
    let estimate = median(values)?;
    let (name, spread) = windows_behind(key.metric)?;
    let rows = groups.get(&Key { metric: &name, x: None, ..*key })?;
    let ok: Vec<&Observation> = rows.iter().copied().filter(|row| is_ok(row)).collect();
    let windows = bootstrap_interval(&independent(&ok), Center::Mean, SEED)?;
    let end = |end: f64| match spread {
        Spread::Exponential => estimate * (end - windows.estimate).exp(),
        Spread::Proportional => estimate * end / windows.estimate,
    };
    Some(Interval { estimate, low: end(windows.low), high: end(windows.high), n: windows.n })
}
