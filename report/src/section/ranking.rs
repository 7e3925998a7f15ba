//! Cells by quality, with what cannot be told apart said so.

use std::collections::BTreeMap;

use results::observation::Status;
use results::statistics::{Center, Interval, paired_difference};
use results::summary::Role;
use serde::Serialize;

use super::{Content, Section};
use crate::digest::Digest;
use crate::quantity::{Unit, significant};
use crate::wording;

/// See the module.
pub const SECTION: Section = Section {
    id: "ranking",
    title: "Ranking by quality",
    reading: "Cells ordered by loss on the same windows of text. Cells share a rank when the 95 % interval of their paired difference \
              from the best of that rank includes zero: their order is noise of the text.",
    template: include_str!("../../templates/ranking.tera"),
    content,
};

/// Fewest windows that can tell cells apart.
const FEWEST_WINDOWS: usize = 5;

#[derive(Serialize)]
struct Row {
    rank: usize,
    shared: bool,
    cell: String,
    icon: String,
    label: String,
    ppl: String,
    behind: String,
    kl: String,
    agreement: String,
    bytes: String,
    bytes_sort: f64,
}

#[derive(Serialize)]
struct Table {
    title: String,
    n_windows: usize,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Values {
    tables: Vec<Table>,
}

/// Loss of each window of each cell, by (workload, formula).
type Losses<'a> = BTreeMap<(&'a str, &'a str), BTreeMap<usize, BTreeMap<u32, f64>>>;

fn content(digest: &Digest) -> tera::TeraResult<Content> {
    let mut losses: Losses = BTreeMap::new();
    for row in digest.run.observations.iter().filter(|row| wording::base(&row.metric) == "nll_window") {
        let (Some(value), Some(cell)) = (row.value, digest.index(&row.cell)) else { continue };
        if row.status == Status::Ok && digest.cells[cell].role != Role::AaControl {
            let of_text = losses.entry((&row.workload, &row.formula_id)).or_default();
            of_text.entry(cell).or_default().insert(row.item, value);
        }
    }
    let tables: Vec<Table> =
        losses.iter().filter_map(|((workload, formula), cells)| table(digest, workload, formula, cells)).collect();
    if tables.is_empty() {
        return Ok(Content::Absent("fewer than three cells read the same text, or too few windows of it"));
    }
    Content::of(&Values { tables })
}

fn table(digest: &Digest, workload: &str, formula: &str, cells: &BTreeMap<usize, BTreeMap<u32, f64>>) -> Option<Table> {
    let n_windows = cells.values().map(BTreeMap::len).max()?;
    let whole: Vec<(usize, &BTreeMap<u32, f64>)> = cells
        .iter()
        .filter(|(_, windows)| windows.len() == n_windows)
        .map(|(cell, windows)| (*cell, windows))
        .collect();
    if whole.len() < 3 || n_windows < FEWEST_WINDOWS {
        return None;
    }
    let mean = |windows: &BTreeMap<u32, f64>| windows.values().sum::<f64>() / n_windows as f64;
    let mut ordered: Vec<(usize, f64, &BTreeMap<u32, f64>)> =
        whole.into_iter().map(|(cell, windows)| (cell, mean(windows), windows)).collect();
    ordered.sort_by(|a, b| a.1.total_cmp(&b.1));
    let (mut rank, mut leader, mut ranks) = (1, ordered[0].2, vec![]);
    for (place, (_, _, windows)) in ordered.iter().enumerate() {
        if place > 0 && behind(windows, leader).is_none_or(|d| d.low > 0.0) {
            (rank, leader) = (place + 1, windows);
        }
        ranks.push(rank);
    }
    let protocol = formula.rsplit_once('/').map_or("", |(_, protocol)| protocol);
    let first = ordered[0].2;
    let rows = ordered.iter().zip(&ranks).map(|((cell, _, windows), &rank)| {
        let shared = ranks.iter().filter(|&&r| r == rank).count() > 1;
        row(digest, (workload, protocol), *cell, (rank, shared), behind(windows, first))
    });
    Some(Table { title: format!("{workload}, {protocol}"), n_windows, rows: rows.collect() })
}

/// Mean loss of `cell` over that of `other`, window by window.
fn behind(cell: &BTreeMap<u32, f64>, other: &BTreeMap<u32, f64>) -> Option<Interval> {
    let pairs: Vec<(f64, f64)> = cell.iter().filter_map(|(item, a)| Some((*a, *other.get(item)?))).collect();
    paired_difference(&pairs, Center::Mean, 0)
}

fn row(
    digest: &Digest,
    (workload, protocol): (&str, &str),
    cell: usize,
    (rank, shared): (usize, bool),
    behind: Option<Interval>,
) -> Row {
    let of = &digest.cells[cell];
    let value = |id: &str, workload: Option<&str>| {
        let found = digest.aggregates.iter().find(|a| {
            a.cell == of.id
                && workload.is_none_or(|workload| a.workload == workload)
                && wording::base(&a.metric) == id
                && (wording::part(&a.metric).is_empty() || wording::part(&a.metric) == protocol)
        });
        found.and_then(|a| a.median)
    };
    let figure = |id: &str| value(id, Some(workload)).map_or("–".into(), |v| significant(v, 4));
    let bytes = value("weights_bytes", None);
    let behind = match behind.filter(|d| d.low < d.high) {
        Some(d) => {
            let percent = |nat: f64| significant(100.0 * nat.exp_m1(), 3);
            format!("{} % [{}, {}]", percent(d.estimate), percent(d.low), percent(d.high))
        }
        None => "–".into(),
    };
    Row {
        rank,
        shared,
        cell: of.id.clone(),
        icon: of.mark.icon(),
        label: of.label.clone(),
        ppl: figure("ppl"),
        behind,
        kl: figure("kl_mean"),
        agreement: value("top1_agreement", Some(workload)).map_or("–".into(), |v| format!("{:.1} %", 100.0 * v)),
        bytes: bytes.map_or("–".into(), |b| Unit::of("weights_bytes", "B", b).text(b)),
        bytes_sort: bytes.unwrap_or(0.0),
    }
}
