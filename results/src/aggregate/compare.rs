//! Pairing two cells: which rows belong together, and which pairs are independent.

use std::collections::BTreeMap;

use super::{Comparison, Groups, Key, SEED, Spread, comparable, taken, windows_behind};
use crate::metric::{Kind, kernel, metric};
use crate::observation::{Direction, Observation};
use crate::pairing::{Grain, Taken, needs_clock};
use crate::statistics::{
    Center, Interval, McNemar, Ratio, mean, median, paired_difference, paired_ratio, signed_rank_p,
};

/// The comparison of the group `key` with the group `other`; `None` without a pair.
pub(super) fn compare_groups(key: &Key, other: &Key, groups: &Groups) -> Option<Comparison> {
    let rows = groups.get(key)?;
    let pairs = Pairs::of(rows, groups.get(other)?);
    let center = center_of(key.metric);
    let chance = || if center == Center::Median { pairs.chance() } else { None };
    let of_items = item_comparison(key, groups, other.cell);
    let of_windows = || window_comparison(key, &pairs, groups, other.cell).map(|(ratio, d)| (Some(ratio), d, None));
    let (ratio, difference, p) = match of_items.or_else(of_windows) {
        Some(found) => found,
        None => (pairs.ratio(center), pairs.difference(center)?, chance()),
    };
    let note = comparable::why_not(key, other, groups);
    Some(Comparison {
        cell: key.cell.to_owned(),
        reference: other.cell.to_owned(),
        workload: key.workload.to_owned(),
        metric: key.metric.to_owned(),
        reference_metric: other.metric.to_owned(),
        unit: rows[0].unit.clone(),
        direction: if note.is_some() { Direction::None } else { rows[0].direction },
        note: note.unwrap_or_default(),
        x: rows[0].x,
        n_pairs: difference.n,
        ratio,
        difference,
        p,
    })
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

/// The pairs of two groups.
struct Pairs {
    clocked: bool,
    pairs: Vec<Pair>,
}

impl Pairs {
    /// Pairs of one formula at equal places. Where items do not correspond one to one, each repetition gives its median: gaps
    /// between tokens, kernels whose place in the trace follows from what else ran, and lone values under different numbers.
    fn of(cell: &[&Observation], reference: &[&Observation]) -> Pairs {
        let id = cell[0].metric.as_str();
        let clocked = needs_clock(id);
        let shared = cell.iter().find(|row| reference.iter().any(|other| other.formula_id == row.formula_id));
        let formula = shared.map_or("", |row| row.formula_id.as_str());
        let of_formula = |rows: &[&Observation]| {
            let rows: Vec<&Observation> = rows.iter().copied().filter(|row| row.formula_id == formula).collect();
            taken(&rows)
        };
        let mut sides = [of_formula(cell), of_formula(reference)];
        let pooled = metric(id).is_some_and(|metric| metric.pooled()) || kernel::variant(id).is_some();
        if pooled || (clocked && sides.iter().all(|side| is_lone(side))) {
            sides = sides.map(|side| medians(&side));
        }
        let grain = Grain::of(id, &[&sides[0], &sides[1]]);
        let reference = grain.places(&sides[1]);
        let matched = grain.places(&sides[0]).into_iter().filter_map(|(place, values)| {
            let (sitting, repetition, item) = place;
            let values = (median(&values)?, median(reference.get(&place)?)?);
            Some(Pair { sitting, repetition, item, values })
        });
        Pairs { clocked, pairs: matched.collect() }
    }

    /// Independent groups of pairs. What is counted or scored: one per item where repetitions agree. Else one per repetition.
    fn clusters(&self) -> Vec<Vec<(f64, f64)>> {
        let mut items: BTreeMap<u32, (f64, f64)> = BTreeMap::new();
        let agree = self.pairs.iter().all(|pair| *items.entry(pair.item).or_insert(pair.values) == pair.values);
        // requests of one repetition of a clock share its luck, however few repetitions there are
        if agree && (!self.clocked || items.len() == 1) {
            return items.into_values().map(|values| vec![values]).collect();
        }
        let mut repetitions: BTreeMap<(u32, u32), Vec<(f64, f64)>> = BTreeMap::new();
        for pair in &self.pairs {
            repetitions.entry((pair.sitting, pair.repetition)).or_default().push(pair.values);
        }
        repetitions.into_values().collect()
    }

    fn ratio(&self, center: Center) -> Option<Ratio> {
        if self.pairs.iter().any(|pair| pair.values.0 <= 0.0 || pair.values.1 <= 0.0) {
            return None;
        }
        let means = self.clusters().into_iter().filter_map(|cluster| {
            let logarithms: Vec<f64> = cluster.iter().map(|(cell, reference)| cell.ln() - reference.ln()).collect();
            Some((mean(&logarithms)?.exp(), 1.0))
        });
        paired_ratio(&means.collect::<Vec<_>>(), center, SEED)
    }

    fn difference(&self, center: Center) -> Option<Interval> {
        let means = self.clusters().into_iter().filter_map(|cluster| {
            let differences: Vec<f64> = cluster.iter().map(|(cell, reference)| cell - reference).collect();
            Some((mean(&differences)?, 0.0))
        });
        paired_difference(&means.collect::<Vec<_>>(), center, SEED)
    }

    /// The signed-rank p of the clusters' mean log ratios; of their differences where a value is not positive.
    fn chance(&self) -> Option<f64> {
        let positive = self.pairs.iter().all(|pair| pair.values.0 > 0.0 && pair.values.1 > 0.0);
        let apart =
            |(cell, reference): &(f64, f64)| if positive { cell.ln() - reference.ln() } else { cell - reference };
        let means =
            self.clusters().into_iter().filter_map(|cluster| mean(&cluster.iter().map(apart).collect::<Vec<_>>()));
        signed_rank_p(&means.collect::<Vec<_>>())
    }

    /// Means of the cell's and of the reference's values.
    fn means(&self) -> Option<(f64, f64)> {
        let side = |pick: fn(&Pair) -> f64| mean(&self.pairs.iter().map(pick).collect::<Vec<_>>());
        Some((side(|pair| pair.values.0)?, side(|pair| pair.values.1)?))
    }
}

/// Whether no repetition holds more than one value.
fn is_lone(side: &[Taken]) -> bool {
    let mut seen = std::collections::BTreeSet::new();
    side.iter().all(|one| seen.insert((one.sitting, one.repetition)))
}

/// The median of each repetition, as its only item.
fn medians(side: &[Taken]) -> Vec<Taken> {
    let mut repetitions: BTreeMap<(u32, u32), Vec<f64>> = BTreeMap::new();
    for one in side {
        repetitions.entry((one.sitting, one.repetition)).or_default().push(one.value);
    }
    let one = |((sitting, repetition), values): ((u32, u32), Vec<f64>)| {
        Some(Taken { sitting, repetition, item: 0, value: median(&values)? })
    };
    repetitions.into_iter().filter_map(one).collect()
}

/// Ratio, difference and McNemar's chance of a share of items, from the items in pairs.
fn item_comparison(key: &Key, groups: &Groups, reference: &str) -> Option<(Option<Ratio>, Interval, Option<f64>)> {
    let (name, Spread::Share) = windows_behind(key.metric)? else { return None };
    let items = |cell| groups.get(&Key { cell, metric: &name, ..*key });
    let pairs = Pairs::of(items(key.cell)?, items(reference)?);
    let values: Vec<(f64, f64)> = pairs.pairs.iter().map(|pair| pair.values).collect();
    let table = McNemar::of(&values);
    let difference = table.difference()?;
    let (_, base) = pairs.means()?;
    let over = |end: f64| (base + end) / base;
    // the ends of a difference of shares can lie below minus the base, where no ratio is
    let ratio = (base > 0.0 && base + difference.low > 0.0).then(|| Ratio {
        ratio: over(difference.estimate),
        low: over(difference.low),
        high: over(difference.high),
        n: difference.n,
    });
    Some((ratio, difference, Some(table.p())))
}

/// Ratio and difference of a quality metric, intervals from paired windows.
fn window_comparison(key: &Key, own: &Pairs, groups: &Groups, reference: &str) -> Option<(Ratio, Interval)> {
    let (name, spread) = windows_behind(key.metric)?;
    let window_rows = |cell| groups.get(&Key { cell, metric: &name, x: None, ..*key });
    let windows = Pairs::of(window_rows(key.cell)?, window_rows(reference)?);
    let (cell, base) = own.means()?;
    if cell <= 0.0 || base <= 0.0 {
        return None;
    }
    let spread_of_windows = windows.difference(Center::Mean)?;
    let n = spread_of_windows.n;
    let ratio_at = |end: f64| match spread {
        Spread::Exponential => cell / base * (end - spread_of_windows.estimate).exp(),
        Spread::Proportional | Spread::Share => {
            let per_window = base / windows.means().map_or(base, |(_, base)| base);
            cell / base + (end - spread_of_windows.estimate) * per_window / base
        }
    };
    let ratio =
        Ratio { ratio: cell / base, low: ratio_at(spread_of_windows.low), high: ratio_at(spread_of_windows.high), n };
    let difference =
        Interval { estimate: cell - base, low: base * (ratio.low - 1.0), high: base * (ratio.high - 1.0), n };
    Some((ratio, difference))
}
