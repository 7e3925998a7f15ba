//! From rows to the number that a claim's rule looks at.

use std::collections::{BTreeMap, BTreeSet};

use results::aggregate::{aggregate, compare};
use results::observation::Observation;
use results::statistics::{Slope, binomial_interval, log_log_slope, median_interval, paired_statistic};

use super::evidence::{Evidence, one_workload};
use super::speedup;
use crate::cell::Cell;
use crate::scenario::{Measure, Select, Statistic};

/// Seed of every interval, so that the same rows give the same verdict.
pub const SEED: u64 = 0x1f_c1a1_0001;

/// A number with its uncertainty.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// The estimate.
    pub value: f64,
    /// 95 % interval; absent for counts and extremes, which are what they are.
    pub interval: Option<(f64, f64)>,
    /// Unit; `×` of ratios.
    pub unit: String,
    /// Independent values behind it.
    pub n: usize,
    /// Numbers behind the number, in words.
    pub note: String,
}

/// What came of a measure.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// A number.
    Number(Measured),
    /// There is no effect to measure on this model or machine.
    NoEffectHere {
        /// Why.
        why: String,
        /// The number all the same.
        measured: Option<Measured>,
    },
    /// It is about a GPU, and there is none.
    NoGpu(String),
    /// The rows it needs are not there.
    Missing(String),
}

impl Finding {
    /// The number, where there is one.
    pub fn measured(&self) -> Option<&Measured> {
        match self {
            Finding::Number(measured) => Some(measured),
            Finding::NoEffectHere { measured, .. } => measured.as_ref(),
            Finding::NoGpu(_) | Finding::Missing(_) => None,
        }
    }
}

impl Measured {
    fn exact(value: f64, unit: &str, n: usize) -> Measured {
        Measured { value, interval: None, unit: unit.into(), n, note: String::new() }
    }
}

/// Evaluates `measure`.
pub fn measure(measure: &Measure, evidence: &Evidence<'_>) -> Finding {
    let finding = match measure {
        Measure::Value { metric, workload, cell, x, statistic } => {
            value(evidence, cell, workload.as_deref(), metric, *x, *statistic)
        }
        Measure::BestPart { metric, part, workload, cell } => {
            best_part(evidence, cell, workload.as_deref(), metric, part)
        }
        Measure::Ratio { metric, workload, over, under, under_workload, under_metric, x } => {
            let over = Side { select: over, workload: workload.as_deref(), metric };
            let under_metric = under_metric.as_ref().unwrap_or(metric);
            let under_workload = under_workload.as_deref().or(workload.as_deref());
            ratio(evidence, over, Side { select: under, workload: under_workload, metric: under_metric }, *x)
        }
        Measure::Closure { workload, method, baseline, protocol, smallest_gap } => {
            return closure(evidence, workload.as_deref(), [method, baseline], protocol.as_deref(), *smallest_gap)
                .unwrap_or_else(Finding::Missing);
        }
        Measure::BestRatio { metric, workload, over, under } => {
            best_ratio(evidence, over, Side { select: under, workload: workload.as_deref(), metric })
        }
        Measure::SpeedupOverModel { workload, speculative, plain } => {
            speedup::over_model(evidence, workload.as_deref(), speculative, plain)
        }
        Measure::Slope { metric, workload, cell, from } => {
            let timed = measure.is_timed();
            slope(evidence, cell, Sweep { workload: workload.as_deref(), metric, from: *from, timed })
        }
        Measure::Share { metric, workload, cell, limit } => share(evidence, cell, workload.as_deref(), metric, *limit),
    };
    finding.map_or_else(Finding::Missing, Finding::Number)
}

/// Rows at `x`; without one, those at the largest, which the words then name.
fn at(rows: &mut Vec<Observation>, x: Option<f64>) -> Result<(Option<f64>, String), String> {
    let largest = rows.iter().filter_map(|row| row.x).reduce(f64::max);
    let wanted = x.or(largest);
    let all = rows.len();
    rows.retain(|row| row.x == wanted || wanted.is_none());
    let chosen = x.is_none() && rows.len() < all;
    match (rows.is_empty(), wanted) {
        (true, _) => Err(format!("nothing was measured at x = {}", wanted.unwrap_or(f64::NAN))),
        (false, Some(largest)) if chosen => Ok((wanted, format!("at {}, the largest measured", super::show(largest)))),
        (false, _) => Ok((wanted, String::new())),
    }
}

fn value(
    evidence: &Evidence<'_>,
    select: &Select,
    workload: Option<&str>,
    metric: &str,
    x: Option<f64>,
    statistic: Statistic,
) -> Result<Measured, String> {
    let cell = evidence.cell(select)?;
    let mut rows = evidence.metric(cell, workload, metric)?;
    let extreme = |rows: &[Observation], pick: fn(f64, f64) -> f64| {
        let found = rows.iter().filter_map(|row| row.value).reduce(pick).unwrap_or(f64::NAN);
        let which = if statistic == Statistic::Max { "largest" } else { "smallest" };
        let n = distinct(rows).len();
        let note = if n > 1 { format!("{which} of {n}") } else { String::new() };
        Measured { note, ..Measured::exact(found, &rows[0].unit, 1) }
    };
    match statistic {
        Statistic::Median => {}
        _ => {
            // an extreme is over the whole sweep unless one place is named
            if x.is_some() {
                at(&mut rows, x)?;
            }
            return Ok(extreme(&rows, if statistic == Statistic::Max { f64::max } else { f64::min }));
        }
    }
    let (x, note) = at(&mut rows, x)?;
    // all rows of the workload, because the interval of a perplexity comes from its windows
    let mut all = evidence.rows(cell);
    all.retain(|row| row.workload == rows[0].workload);
    let found = aggregate(&all).into_iter().find(|a| a.metric == metric && a.x == x);
    let found = found.and_then(|a| Some((a.median?, a.low?, a.high?, a.n, a.unit)));
    let (value, low, high, n, unit) = found.ok_or_else(|| evidence.why_missing(cell, workload, metric))?;
    Ok(Measured { interval: (n > 1).then_some((low, high)), note, ..Measured::exact(value, &unit, n) })
}

/// The part of `metric` with the largest median, among those whose name ends in `part`.
fn best_part(
    evidence: &Evidence<'_>,
    select: &Select,
    workload: Option<&str>,
    metric: &str,
    part: &str,
) -> Result<Measured, String> {
    let cell = evidence.cell(select)?;
    let named = |row: &Observation| {
        row.metric.strip_prefix(metric).is_some_and(|rest| rest.starts_with(':') && rest.ends_with(part))
    };
    let mut names: Vec<String> = evidence.rows(cell).into_iter().filter(named).map(|row| row.metric).collect();
    names.sort();
    names.dedup();
    let mut best: Option<Measured> = None;
    for name in names {
        let mut found = value(evidence, select, workload, &name, None, Statistic::Median)?;
        found.note = format!("best is {}", &name[metric.len() + 1..]);
        if best.as_ref().is_none_or(|b| found.value > b.value) {
            best = Some(found);
        }
    }
    best.ok_or_else(|| evidence.why_missing(cell, workload, &format!("{metric}:…{part}")))
}

/// One side of a ratio.
#[derive(Clone, Copy)]
struct Side<'a> {
    select: &'a Select,
    workload: Option<&'a str>,
    metric: &'a str,
}

/// Both sides become two cells of one workload and metric, which `results` pairs.
fn ratio(evidence: &Evidence<'_>, over: Side<'_>, under: Side<'_>, x: Option<f64>) -> Result<Measured, String> {
    let (over_cell, under_cell) = (evidence.cell(over.select)?, evidence.cell(under.select)?);
    let (over_metric, under_metric) =
        (evidence.best_named(over_cell, over.metric)?, evidence.best_named(under_cell, under.metric)?);
    let (over, under) = (Side { metric: &over_metric, ..over }, Side { metric: &under_metric, ..under });
    let mut over_rows = evidence.metric(over_cell, over.workload, over.metric)?;
    let mut under_rows = evidence.metric(under_cell, under.workload, under.metric)?;
    let wanted = x;
    let (x, place) = at(&mut over_rows, wanted)?;
    // a sweep coordinate of another workload (context of decoding, length of a prompt) is another coordinate
    let under_x = if under_rows[0].workload == over_rows[0].workload { x } else { at(&mut under_rows, None)?.0 };
    let (workload, formula) = (over_rows[0].workload.clone(), over_rows[0].formula_id.clone());
    let under_workload = under_rows[0].workload.clone();
    let mut pair: Vec<Observation> =
        evidence.rows(over_cell).into_iter().filter(|row| row.workload == workload).collect();
    pair.iter_mut().for_each(|row| row.cell = "over".into());
    for mut row in evidence.rows(under_cell).into_iter().filter(|row| row.workload == under_workload) {
        if row.metric == under.metric {
            // parts of one metric are numbered through; a pair of single rows is one all the same
            if is_single(&under_rows) && is_single(&over_rows) {
                row.item = over_rows[0].item;
            }
            if under.metric != over.metric {
                row.metric = over.metric.into();
                row.formula_id.clone_from(&formula);
            }
        } else if row.metric == over.metric {
            continue;
        }
        if row.x == under_x {
            row.x = x;
        }
        row.cell = "under".into();
        row.workload.clone_from(&workload);
        pair.push(row);
    }
    let comparison = compare(&pair, "under").into_iter().find(|c| c.metric == over.metric && c.x == x);
    let Some(comparison) = comparison else {
        return Err(format!("{} and {} share no repetition of `{}`", over_cell.label, under_cell.label, over.metric));
    };
    let ratio =
        comparison.ratio.ok_or_else(|| format!("a value of `{}` is not positive, so it has no ratio", over.metric))?;
    let interval = (ratio.n > 1).then_some((ratio.low, ratio.high));
    let metrics =
        if over.metric == under.metric { String::new() } else { format!("{} over {}", over.metric, under.metric) };
    let note = [metrics, place].into_iter().filter(|said| !said.is_empty()).collect::<Vec<_>>().join(", ");
    Ok(Measured { interval, note, ..Measured::exact(ratio.ratio, "×", ratio.n) })
}

/// Whether all rows have the same item: one per repetition.
fn is_single(rows: &[Observation]) -> bool {
    rows.iter().all(|row| row.item == rows[0].item)
}

fn best_ratio(evidence: &Evidence<'_>, over: &[Select], under: Side<'_>) -> Result<Measured, String> {
    let mut best: Option<Measured> = None;
    for select in over {
        let cell = evidence.cell(select)?;
        let mut found = ratio(evidence, Side { select, ..under }, under, None)?;
        found.note = format!("best is {}", cell.label);
        if best.as_ref().is_none_or(|b| found.value > b.value) {
            best = Some(found);
        }
    }
    best.ok_or_else(|| "no cell is named".into())
}

/// `delta_nll` of each window, by window, of one protocol.
fn losses(
    evidence: &Evidence<'_>,
    cell: &Cell,
    workload: Option<&str>,
    protocol: Option<&str>,
) -> Result<BTreeMap<u32, f64>, String> {
    const LOSS: &str = "delta_nll";
    let mut rows = evidence.rows(cell);
    rows.retain(|row| workload.is_none_or(|name| row.workload == name));
    rows.retain(|row| row.metric == LOSS || row.metric.starts_with("delta_nll:"));
    if rows.is_empty() {
        return Err(evidence.why_missing(cell, workload, LOSS));
    }
    one_workload(&rows, cell, LOSS)?;
    let of = |row: &Observation| row.formula_id.split_once('/').map_or("", |(_, protocol)| protocol).to_string();
    let protocols: BTreeSet<String> = rows.iter().map(of).collect();
    let wanted = match (protocol, protocols.first()) {
        (Some(named), _) => named,
        (None, Some(only)) if protocols.len() == 1 => only,
        _ => {
            let names = protocols.iter().map(String::as_str).collect::<Vec<_>>().join(" and ");
            return Err(format!(
                "{} was scored by {names}: the claim must name one of them as its `protocol`",
                cell.label
            ));
        }
    };
    rows.retain(|row| of(row) == wanted);
    match rows.is_empty() {
        true => Err(format!("{} was not scored by {wanted}", cell.label)),
        // no clock is involved, so a window that two sittings scored is one window
        false => Ok(rows.iter().filter_map(|row| Some((row.item, row.value?))).collect()),
    }
}

/// The values of `rows` without those that say the same again: an item that another repetition or sitting gave the same value
/// is one item. A clock never gives the same value again, so its values all count.
fn distinct(rows: &[Observation]) -> Vec<f64> {
    let key = |row: &Observation| (row.metric.clone(), row.x.map(f64::to_bits), row.item);
    let mut items = BTreeMap::new();
    for row in rows {
        let Some(value) = row.value else { continue };
        if items.insert(key(row), value).is_some_and(|before| before != value) {
            return rows.iter().filter_map(|row| row.value).collect();
        }
    }
    items.into_values().collect()
}

/// `1 − Δnll(method)/Δnll(baseline)`, windows drawn in pairs.
fn closure(
    evidence: &Evidence<'_>,
    workload: Option<&str>,
    [method, baseline]: [&Select; 2],
    protocol: Option<&str>,
    smallest_gap: f64,
) -> Result<Finding, String> {
    let (method, baseline) = (evidence.cell(method)?, evidence.cell(baseline)?);
    let ours = losses(evidence, method, workload, protocol)?;
    let theirs = losses(evidence, baseline, workload, protocol)?;
    let pairs: Vec<(f64, f64)> = ours.iter().filter_map(|(window, loss)| Some((*loss, *theirs.get(window)?))).collect();
    let means = |pairs: &[(f64, f64)]| {
        let n = pairs.len() as f64;
        pairs.iter().fold((0.0, 0.0), |(a, b), pair| (a + pair.0 / n, b + pair.1 / n))
    };
    if pairs.is_empty() {
        return Err(format!("{} and {} were scored on no common window", method.label, baseline.label));
    }
    let closed = |pairs: &[(f64, f64)]| {
        let (ours, theirs) = means(pairs);
        (theirs > 0.0).then(|| 1.0 - ours / theirs)
    };
    let (our_loss, their_loss) = means(&pairs);
    let note = format!(
        "perplexity {:+.2} % with {} and {:+.2} % with {}",
        100.0 * (our_loss.exp() - 1.0),
        method.label,
        100.0 * (their_loss.exp() - 1.0),
        baseline.label
    );
    let measured = paired_statistic(&pairs, SEED, closed).map(|i| Measured {
        interval: (i.n > 1).then_some((i.low, i.high)),
        note,
        ..Measured::exact(i.estimate, "1", i.n)
    });
    let gap = their_loss.exp();
    if gap < smallest_gap {
        let why = format!(
            "{} costs {:+.2} % of perplexity, less than the {:.1} % that would leave a gap to close",
            baseline.label,
            100.0 * (gap - 1.0),
            100.0 * (smallest_gap - 1.0)
        );
        return Ok(Finding::NoEffectHere { why, measured });
    }
    measured.map(Finding::Number).ok_or_else(|| "the closure is not a number".into())
}

/// Where a curve comes from.
struct Sweep<'a> {
    workload: Option<&'a str>,
    metric: &'a str,
    from: f64,
    /// Whether a clock measured it.
    timed: bool,
}

/// One slope per repetition; the interval is over repetitions, so that it holds noise and not the shape of the curve.
fn slope(evidence: &Evidence<'_>, select: &Select, sweep: Sweep<'_>) -> Result<Measured, String> {
    let Sweep { workload, metric, from, timed } = sweep;
    let cell = evidence.cell(select)?;
    // clocks compare within one sitting; counts are the same in every sitting, which may hold different lengths
    let mut repetitions: BTreeMap<(u32, u32), BTreeMap<u64, (f64, f64)>> = BTreeMap::new();
    for row in evidence.metric(cell, workload, metric)? {
        if let (Some(x), Some(y)) = (row.x.filter(|x| *x >= from), row.value) {
            let sitting = if timed { row.sitting } else { 0 };
            repetitions.entry((sitting, row.repetition)).or_default().insert(x.to_bits(), (x, y));
        }
    }
    let repetitions: Vec<Vec<(f64, f64)>> =
        repetitions.into_values().map(|points| points.into_values().collect()).collect();
    let longest = repetitions.iter().map(Vec::len).max().unwrap_or(0);
    let slopes: Vec<Slope> = repetitions
        .iter()
        .filter(|points| points.len() == longest)
        .filter_map(|points| log_log_slope(points, SEED))
        .collect();
    let values: Vec<f64> = slopes.iter().map(|s| s.slope).collect();
    let Some(interval) = median_interval(&values, SEED) else {
        return Err(format!(
            "`{metric}` has fewer than two different x from {from} on, or a value that is not positive"
        ));
    };
    let bounds = (interval.n > 1).then_some((interval.low, interval.high));
    let note = format!("{longest} lengths");
    Ok(Measured { interval: bounds, note, ..Measured::exact(interval.estimate, "1", interval.n) })
}

fn share(
    evidence: &Evidence<'_>,
    select: &Select,
    workload: Option<&str>,
    metric: &str,
    limit: f64,
) -> Result<Measured, String> {
    let cell = evidence.cell(select)?;
    let rows = evidence.metric(cell, workload, metric)?;
    let values = distinct(&rows);
    let within = values.iter().filter(|value| **value <= limit).count();
    let interval = binomial_interval(within as u64, values.len() as u64).ok_or("no item")?;
    let worst = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let note = format!("{within} of {} at most {limit}, largest {}", values.len(), super::show(worst));
    Ok(Measured { interval: Some((interval.low, interval.high)), note, ..Measured::exact(interval.estimate, "1", 1) })
}
