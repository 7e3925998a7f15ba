//! The metrics that a trade-off can show, with the values of every cell, and which of them come first.

use std::collections::BTreeMap;

use results::aggregate::Aggregate;
use results::metric::{Kind, metric};
use results::observation::Direction;
use results::pairing::needs_clock;
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
    /// Metric id, workload and sweep coordinate.
    #[serde(skip)]
    pub place: (String, String, Option<f64>),
    /// `(median, low, high, n)` per cell, stored unit.
    pub values: Vec<Option<(f64, f64, f64, usize)>>,
    /// n in words per cell.
    pub counts: Vec<String>,
    /// Whether a clock or the operating system measured it, so that a single value tells nothing apart.
    pub clocked: bool,
    /// Largest |ln ratio| between two copies of the reference.
    pub floor: f64,
    /// Row i, column j: `1` where cell i is better than cell j beyond noise, by their paired comparison; absent where only the
    /// intervals of the cells say so.
    pub told: Option<Vec<String>>,
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
    // gaps between chunks of unequal size, say, have no better end
    let ranks = |rows: &[&Aggregate]| rows.iter().all(|a| digest.comparison(a).is_none_or(|c| c.note.is_empty()));
    let wide: Vec<_> = groups.iter().filter(|(_, rows)| rows.len() > 1 && ranks(rows)).collect();
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
    let mut counts = vec![String::new(); digest.cells.len()];
    for a in rows {
        if let (Some(index), Some(median)) = (digest.index(&a.cell), a.median) {
            let paired = paired(digest, a);
            counts[index] = paired.map_or_else(|| a.n_text(), |value| value.3.to_string());
            values[index] = Some(paired.unwrap_or((median, a.low.unwrap_or(median), a.high.unwrap_or(median), a.n)));
        }
    }
    Choice {
        name: format!("{}, {}{at}", wording::name(&first.metric), first.workload),
        suffix: unit.suffix,
        factor: unit.factor,
        direction: first.direction,
        better: wording::better(first.direction),
        id: wording::base(&first.metric).to_owned(),
        place: (first.metric.clone(), first.workload.clone(), first.x),
        values,
        counts,
        clocked: needs_clock(&first.metric),
        floor: rows.iter().map(|a| digest.floor(a)).fold(0.0, f64::max),
        told: None,
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

/// Metrics that say one thing in several forms: two of them make a line, not a trade-off.
const FORMS: &[&[&str]] = &[
    &["ppl", "nll", "nll_window", "bits_per_byte", "delta_nll", "ppl_ratio"],
    &["kl_mean", "kl_max", "top1_agreement"],
    &["prefill_tok_s", "prefill_ms"],
    &["decode_tok_s", "decode_ms_per_token", "tpot_ms", "itl_ms"],
    &["us_per_call", "gflop_s", "gop_s", "gb_s"],
    &["roof_fraction", "roof_bandwidth_fraction", "roof_flop_fraction", "roof_int8_fraction"],
    &["kv_logical_bytes", "kv_resident_bytes"],
];

/// Values within this share of each other make no axis.
const CONSTANT: f64 = 1e-4;

fn are_forms_of_one(a: &Choice, b: &Choice) -> bool {
    a.id == b.id || FORMS.iter().any(|forms| forms.contains(&a.id.as_str()) && forms.contains(&b.id.as_str()))
}

/// Whether all cells have the same value.
fn is_constant(choice: &Choice) -> bool {
    let values = || choice.values.iter().flatten().map(|value| value.0);
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    high - low <= CONSTANT * high.abs().max(low.abs())
}

/// Speed to the right, quality upwards; where one of them is missing or the same everywhere, whatever else there is. Never two forms
/// of one metric, and a metric that is the same everywhere only where nothing else is left.
pub fn defaults(choices: &[Choice]) -> Option<(usize, usize)> {
    let preferred = |kinds: [&[&str]; 3], fits: &dyn Fn(usize) -> bool| {
        let known = kinds.concat();
        let rank = |c: &usize| known.iter().position(|id| *id == choices[*c].id).unwrap_or(known.len());
        let open = (0..choices.len()).filter(|c| fits(*c));
        open.min_by_key(|c| (is_constant(&choices[*c]), rank(c)))
    };
    let y = preferred([QUALITY, MEMORY, SPEED], &|_| true)?;
    let x = preferred([SPEED, MEMORY, QUALITY], &|c| !are_forms_of_one(&choices[c], &choices[y]))?;
    Some((x, y))
}

/// The value of a cell with interval and n.
pub fn value_text(choice: &Choice, index: usize) -> String {
    let unit = Unit { factor: choice.factor, suffix: choice.suffix };
    match choice.values[index] {
        None => "–".into(),
        Some((median, low, high, _)) if low < high => {
            format!("{} [{}, {}], n = {}", unit.text(median), unit.number(low), unit.number(high), choice.counts[index])
        }
        Some((median, ..)) => format!("{}, n = {}", unit.text(median), choice.counts[index]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(id: &str, values: [f64; 3]) -> Choice {
        Choice {
            name: id.into(),
            suffix: "",
            factor: 1.0,
            direction: Direction::Lower,
            better: "",
            id: id.into(),
            place: (id.into(), "w".into(), None),
            values: values.map(|value| Some((value, value, value, 1))).to_vec(),
            counts: vec!["1".into(); 3],
            clocked: false,
            floor: 0.0,
            told: None,
        }
    }

    /// The ids that come first of these metrics; `true` for one that differs between cells.
    fn shown(metrics: &[(&str, bool)]) -> Option<(String, String)> {
        let of =
            |(id, differs): &(&str, bool)| choice(id, if *differs { [1.0, 2.0, 3.0] } else { [7.0, 7.0, 7.000_001] });
        let choices: Vec<Choice> = metrics.iter().map(of).collect();
        defaults(&choices).map(|(x, y)| (choices[x].id.clone(), choices[y].id.clone()))
    }

    #[test]
    fn the_first_plot_shows_two_things_that_differ() {
        let pair = |x: &str, y: &str| Some((x.to_owned(), y.to_owned()));
        for (metrics, expected) in [
            (&[("ppl", true), ("decode_tok_s", true), ("weights_bytes", true)][..], pair("decode_tok_s", "ppl")),
            (
                &[("ppl", false), ("decode_tok_s", true), ("weights_bytes", true)][..],
                pair("decode_tok_s", "weights_bytes"),
            ),
            (
                &[("decode_tok_s", true), ("decode_ms_per_token", true), ("prefill_ms", true)][..],
                pair("prefill_ms", "decode_tok_s"),
            ),
            (&[("ppl", true), ("nll", true), ("weights_bytes", false), ("kl_mean", true)][..], pair("kl_mean", "ppl")),
            (&[("ppl", true), ("nll", true), ("weights_bytes", false)][..], pair("weights_bytes", "ppl")),
            (&[("decode_tok_s", true), ("decode_tok_s", true)][..], None),
            (&[("us_per_call", true), ("gflop_s", true)][..], None),
        ] {
            assert_eq!(shown(metrics), expected, "{metrics:?}");
        }
    }
}
