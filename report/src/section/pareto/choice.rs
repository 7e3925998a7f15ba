//! The metrics that a trade-off can show, with the values of every cell, and which of them come first.

use std::collections::BTreeMap;

use results::aggregate::Aggregate;
use results::metric::{Kind, metric};
use results::observation::Direction;
use serde::Serialize;

use crate::digest::Digest;
use crate::quantity::{Unit, significant};
use crate::wording;

const QUALITY: &[&str] = &["ppl", "kl_mean", "bits_per_byte", "top1_agreement"];
const SPEED: &[&str] = &["decode_tok_s", "tpot_ms", "prefill_tok_s", "ttft_ms", "us_per_call"];
/// Metrics of memory, the preferred first: they size the points.
pub const MEMORY: &[&str] = &["weights_bytes", "peak_rss_bytes", "kv_resident_bytes", "kv_logical_bytes"];
/// Per-window and per-event figures, flags and checks make no point.
const NOT_PLOTTED: &[&str] = &["nll_window", "delta_nll", "chunk_tokens", "roof_excess", "check", "acceptance_at"];

/// A metric that the pickers offer.
#[derive(Serialize)]
pub struct Choice {
    /// Metric and workload in words.
    pub name: String,
    /// Printed unit.
    pub suffix: &'static str,
    /// From the stored to the printed unit.
    pub factor: f64,
    /// Better direction.
    pub direction: Direction,
    /// Better direction in words.
    pub better: &'static str,
    /// Metric id without its part.
    #[serde(skip)]
    pub id: String,
    /// `(median, low, high, n)` per cell, stored unit.
    pub values: Vec<Option<(f64, f64, f64, usize)>>,
}

/// Metrics with a value on at least two cells, registry order; a sweep gives one choice per coordinate.
pub fn choices(digest: &Digest) -> Vec<Choice> {
    let mut groups: BTreeMap<(usize, &str, &str, u64), Vec<&Aggregate>> = BTreeMap::new();
    for a in digest.aggregates.iter().filter(|a| a.median.is_some() && a.direction != Direction::None) {
        if !NOT_PLOTTED.contains(&wording::base(&a.metric)) {
            let x = a.x.map_or(0, |x| x.max(0.0).to_bits());
            groups.entry((wording::rank(&a.metric), &a.metric, &a.workload, x)).or_default().push(a);
        }
    }
    let several = |id: &str, workload: &str| groups.keys().filter(|key| key.1 == id && key.2 == workload).count() > 1;
    let wide: Vec<_> = groups.iter().filter(|(_, rows)| rows.len() > 1).collect();
    wide.into_iter().map(|(key, rows)| choice(digest, rows, several(key.1, key.2))).collect()
}

fn choice(digest: &Digest, rows: &[&Aggregate], sweep: bool) -> Choice {
    let first = rows[0];
    let largest = rows.iter().filter_map(|a| a.median).fold(0.0, f64::max);
    let unit = Unit::of(&first.metric, &first.unit, largest);
    let at = match first.x {
        Some(x) if sweep => format!(" at {}", significant(x, 4)),
        _ => String::new(),
    };
    let mut values = vec![None; digest.cells.len()];
    for a in rows {
        if let (Some(index), Some(median)) = (digest.index(&a.cell), a.median) {
            values[index] =
                Some(paired(digest, a).unwrap_or((median, a.low.unwrap_or(median), a.high.unwrap_or(median), a.n)));
        }
    }
    Choice {
        name: format!("{}, {}{at}", wording::name(&first.metric), first.workload),
        suffix: unit.suffix,
        factor: unit.factor,
        direction: first.direction,
        better: wording::better(first.direction),
        id: wording::base(&first.metric).to_owned(),
        values,
    }
}

/// For quality, the interval of the paired difference from the reference: all cells read the same text, so the text's own variance,
/// which dominates the plain interval, says nothing about their order.
fn paired(digest: &Digest, a: &Aggregate) -> Option<(f64, f64, f64, usize)> {
    let quality = metric(&a.metric).is_some_and(|metric| metric.kind() == Kind::Quality);
    let (median, comparison) = (a.median?, digest.comparison(a));
    match comparison.filter(|_| quality) {
        Some(c) => {
            let d = c.difference;
            Some((median, median + d.low - d.estimate, median + d.high - d.estimate, d.n))
        }
        None if quality && digest.is_reference(&a.cell) => Some((median, median, median, a.n)),
        None => None,
    }
}

/// The first choice of the first of `ids` that there is, except `not`.
pub fn pick(choices: &[Choice], ids: &[&str], not: &[usize]) -> Option<usize> {
    ids.iter().find_map(|id| (0..choices.len()).find(|c| choices[*c].id == *id && !not.contains(c)))
}

/// Speed to the right, quality upwards; where one of them is missing, whatever else there is.
pub fn defaults(choices: &[Choice]) -> Option<(usize, usize)> {
    let y = pick(choices, QUALITY, &[]).or_else(|| pick(choices, MEMORY, &[])).or_else(|| pick(choices, SPEED, &[]))?;
    let other = |c: &usize| *c != y && choices[*c].id != choices[y].id;
    let x = pick(choices, SPEED, &[y])
        .or_else(|| pick(choices, MEMORY, &[y]))
        .or_else(|| (0..choices.len()).find(other))?;
    Some((x, y))
}

/// The value of a cell with interval and n.
pub fn value_text(choice: &Choice, index: usize) -> String {
    let unit = Unit { factor: choice.factor, suffix: choice.suffix };
    match choice.values[index] {
        None => "–".into(),
        Some((median, low, high, n)) if low < high => {
            format!("{} [{}, {}], n = {n}", unit.text(median), unit.number(low), unit.number(high))
        }
        Some((median, _, _, n)) => format!("{}, n = {n}", unit.text(median)),
    }
}
