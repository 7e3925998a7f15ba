//! Pairing two cells: which rows belong together, and which pairs are independent.

use std::collections::BTreeMap;

use super::{Comparison, Groups, Key, SEED, Spread, by_item, windows_behind};
use crate::metric::{Kind, metric};
use crate::observation::Observation;
use crate::statistics::{Center, Interval, Ratio, mean, median, paired_difference, paired_ratio, signed_rank_p};

/// The comparison of one group with the reference's group of the same key; `None` without a pair.
pub(super) fn compare_group(key: &Key, rows: &[&Observation], groups: &Groups, reference: &str) -> Option<Comparison> {
    let pairs = pairs(rows, groups.get(&Key { cell: reference, ..*key })?);
    let center = center_of(key.metric);
    let (ratio, difference) = match window_comparison(key, &pairs, groups, reference) {
        Some((ratio, difference)) => (Some(ratio), difference),
        None => (clustered_ratio(&pairs, center), clustered_difference(&pairs, center)?),
    };
    Some(Comparison {
        cell: key.cell.to_owned(),
        reference: reference.to_owned(),
        workload: key.workload.to_owned(),
        metric: key.metric.to_owned(),
        unit: rows[0].unit.clone(),
        direction: rows[0].direction,
        x: rows[0].x,
        n_pairs: difference.n,
        ratio,
        difference,
        p: if center == Center::Median { chance(&pairs) } else { None },
    })
}

/// The signed-rank p of the independent pairs' log ratios; of their differences where a value is not positive.
fn chance(pairs: &[Pair]) -> Option<f64> {
    let positive = pairs.iter().all(|pair| pair.values.0 > 0.0 && pair.values.1 > 0.0);
    let apart = |(cell, reference): &(f64, f64)| if positive { cell.ln() - reference.ln() } else { cell - reference };
    let means = clusters(pairs).into_iter().filter_map(|cluster| mean(&cluster.iter().map(apart).collect::<Vec<_>>()));
    signed_rank_p(&means.collect::<Vec<_>>())
}

/// Clocks and memory err upwards, so their median speaks; sums of likelihoods and counts have a meaningful mean.
fn center_of(id: &str) -> Center {
    match metric(id).map(|metric| metric.kind()) {
        Some(Kind::Quality | Kind::Deterministic) => Center::Mean,
        _ => Center::Median,
    }
}

/// One pair of values with its place.
#[derive(Debug, Clone, Copy)]
struct Pair {
    sitting: u32,
    repetition: u32,
    item: u32,
    values: (f64, f64),
}

/// Pairs of equal (sitting, repetition, item) and formula; of a pooled metric, pairs of medians per repetition.
fn pairs(cell: &[&Observation], reference: &[&Observation]) -> Vec<Pair> {
    let formula = cell.first().map_or("", |row| row.formula_id.as_str());
    let pooled = cell.first().and_then(|row| metric(&row.metric)).is_some_and(|metric| metric.pooled());
    let places = |rows: &[&Observation]| {
        let mut places: BTreeMap<(u32, u32, u32), Vec<f64>> = BTreeMap::new();
        for row in rows.iter().filter(|row| row.formula_id == formula) {
            let item = if pooled { 0 } else { row.item };
            places.entry((row.sitting, row.repetition, item)).or_default().extend(row.value);
        }
        places
    };
    let reference = places(reference);
    let matched = places(cell).into_iter().filter_map(|((sitting, repetition, item), values)| {
        let other = reference.get(&(sitting, repetition, item))?;
        Some(Pair { sitting, repetition, item, values: (median(&values)?, median(other)?) })
    });
    matched.collect()
}

/// Independent groups of pairs: one per item when repetitions agree exactly, else one per repetition, else one per pair.
fn clusters(pairs: &[Pair]) -> Vec<Vec<(f64, f64)>> {
    let by_place: Vec<(u32, (f64, f64))> = pairs.iter().map(|pair| (pair.item, pair.values)).collect();
    if let Some(items) = by_item(&by_place) {
        return items.into_iter().map(|values| vec![values]).collect();
    }
    let mut repetitions: BTreeMap<(u32, u32), Vec<(f64, f64)>> = BTreeMap::new();
    for pair in pairs {
        repetitions.entry((pair.sitting, pair.repetition)).or_default().push(pair.values);
    }
    repetitions.into_values().collect()
}

fn clustered_ratio(pairs: &[Pair], center: Center) -> Option<Ratio> {
    if pairs.iter().any(|pair| pair.values.0 <= 0.0 || pair.values.1 <= 0.0) {
        return None;
    }
    let means = clusters(pairs).into_iter().filter_map(|cluster| {
        let logarithms: Vec<f64> = cluster.iter().map(|(cell, reference)| cell.ln() - reference.ln()).collect();
        Some((mean(&logarithms)?.exp(), 1.0))
    });
    paired_ratio(&means.collect::<Vec<_>>(), center, SEED)
}

fn clustered_difference(pairs: &[Pair], center: Center) -> Option<Interval> {
    let means = clusters(pairs).into_iter().filter_map(|cluster| {
        let differences: Vec<f64> = cluster.iter().map(|(cell, reference)| cell - reference).collect();
        Some((mean(&differences)?, 0.0))
    });
    paired_difference(&means.collect::<Vec<_>>(), center, SEED)
}

/// Ratio and difference of a quality metric, intervals from paired windows.
fn window_comparison(key: &Key, own: &[Pair], groups: &Groups, reference: &str) -> Option<(Ratio, Interval)> {
    let (name, spread) = windows_behind(key.metric)?;
    let window_rows = |cell| groups.get(&Key { cell, metric: &name, x: None, ..*key });
    let windows = pairs(window_rows(key.cell)?, window_rows(reference)?);
    let cell = mean(&own.iter().map(|pair| pair.values.0).collect::<Vec<_>>())?;
    let base = mean(&own.iter().map(|pair| pair.values.1).collect::<Vec<_>>())?;
    if cell <= 0.0 || base <= 0.0 {
        return None;
    }
    let spread_of_windows = clustered_difference(&windows, Center::Mean)?;
    let n = spread_of_windows.n;
    let ratio_at = |end: f64| match spread {
        Spread::Exponential => cell / base * (end - spread_of_windows.estimate).exp(),
        Spread::Proportional => {
            let per_window = base / mean(&windows.iter().map(|pair| pair.values.1).collect::<Vec<_>>()).unwrap_or(base);
            cell / base + (end - spread_of_windows.estimate) * per_window / base
        }
    };
    let ratio =
        Ratio { ratio: cell / base, low: ratio_at(spread_of_windows.low), high: ratio_at(spread_of_windows.high), n };
    let difference =
        Interval { estimate: cell - base, low: base * (ratio.low - 1.0), high: base * (ratio.high - 1.0), n };
    Some((ratio, difference))
}
