//! Every metric as a table that sorts: one group per workload, one table per metric, one row per cell.

use results::aggregate::Aggregate;
use results::metric::kernel::variant;
use results::metric::{Kind, metric};
use results::observation::{Direction, Status};
use results::summary::Role;
use serde::Serialize;

use super::{Content, Section};
use crate::chart::forest;
use crate::digest::{Digest, NOTHING_TOLD};
use crate::quantity::{Unit, significant};
use crate::reading::{Reading, ratio_text, read};
use crate::scale::Scale;
use crate::wording;

/// See the module.
pub const SECTION: Section = Section {
    id: "tables",
    title: "Tables",
    reading: "One table per metric: the median of all repetitions, its 95 % interval in brackets, and the paired ratio to the reference. A \
              ratio whose interval includes 1, that equal cells give more than once in a hundred runs, or that is no larger than the difference between two copies of the reference (the shaded \
              band), is within noise. n counts what is independent: repetitions of a clock, windows of text; 27 × 124 are 27 repetitions of \
              124 events each, and the interval draws whole repetitions. A kernel is compared with the reference’s on the same problem, and \
              with the first rung of its own ladder. Click a heading to sort.",
    template: include_str!("../../templates/tables.tera"),
    content,
};

/// Items behind a share: a median of zeros and ones says nothing, and shares have their intervals from them.
const BEHIND: &[&str] = &[
    "acc_item",
    "acc_norm_item",
    "acc_bytes_item",
    "exact_match_item",
    "acc_item_at",
    "exact_match_item_at",
    "answer_nll",
];

/// Metrics worth opening at first sight; the others start closed.
const OPEN: &[&str] = &[
    "ppl",
    "acc",
    "exact_match",
    "prefill_tok_s",
    "decode_tok_s",
    "ttft_ms",
    "tpot_ms",
    "gflop_s",
    "gb_s",
    "acceptance_rate",
];

#[derive(Serialize)]
struct Row {
    cell: String,
    icon: String,
    label: String,
    role: &'static str,
    places: Vec<String>,
    part: String,
    x: String,
    x_sort: f64,
    median: String,
    median_sort: f64,
    interval: String,
    n: String,
    n_sort: usize,
    cv: String,
    cv_sort: f64,
    band: &'static str,
    ratio: String,
    ratio_sort: f64,
    versus: String,
    climb: String,
    climb_sort: f64,
    climb_reading: Option<Reading>,
    forest: String,
    reading: Option<Reading>,
    note: String,
    path: String,
}

#[derive(Serialize)]
struct Table {
    id: String,
    name: String,
    metric: String,
    suffix: &'static str,
    better: &'static str,
    open: bool,
    gist: String,
    axes: Vec<&'static str>,
    has_part: bool,
    x_name: &'static str,
    has_spread: bool,
    has_ratio: bool,
    ladder: String,
    domain: String,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Workload {
    name: String,
    tables: Vec<Table>,
    skipped: Vec<(String, &'static str, String)>,
}

#[derive(Serialize)]
struct Values {
    workloads: Vec<Workload>,
}

fn content(digest: &Digest) -> tera::TeraResult<Content> {
    let mut workloads = Vec::new();
    // checks before timing belong to no workload
    for name in std::iter::once(&String::new()).chain(&digest.workloads) {
        let rows: Vec<&Aggregate> =
            digest.aggregates.iter().filter(|a| a.workload == *name && a.median.is_some()).collect();
        let tables = tables(digest, &rows, name);
        let skipped = skipped(digest, name);
        if !tables.is_empty() || !skipped.is_empty() {
            let name = if name.is_empty() { "before timing".to_owned() } else { name.clone() };
            workloads.push(Workload { name, tables, skipped });
        }
    }
    if workloads.is_empty() {
        return Ok(Content::Absent("no metric has been measured yet"));
    }
    Content::of(&Values { workloads })
}

/// Cells that did not run this workload although they are otherwise fine.
fn skipped(digest: &Digest, workload: &str) -> Vec<(String, &'static str, String)> {
    let mut skipped = Vec::new();
    for row in digest.run.observations.iter().filter(|row| row.workload == workload && !workload.is_empty()) {
        if row.status == Status::Ok || row.metric != "cell_status" {
            continue;
        }
        let label = digest.index(&row.cell).map_or(row.cell.clone(), |index| digest.cells[index].label.clone());
        let entry = (label, wording::status(row.status).1, row.reason.clone());
        if !skipped.contains(&entry) {
            skipped.push(entry);
        }
    }
    skipped
}

fn tables(digest: &Digest, rows: &[&Aggregate], workload: &str) -> Vec<Table> {
    let mut groups: Vec<(&str, Vec<&Aggregate>)> = Vec::new();
    for a in rows.iter().filter(|a| !BEHIND.contains(&wording::base(&a.metric))) {
        let base = wording::base(&a.metric);
        match groups.iter_mut().find(|(known, _)| *known == base) {
            Some((_, group)) => group.push(a),
            None => groups.push((base, vec![a])),
        }
    }
    groups.sort_by_key(|(base, _)| (wording::rank(base), *base));
    groups.into_iter().map(|(base, group)| table(digest, base, group, workload)).collect()
}

fn table(digest: &Digest, base: &str, mut rows: Vec<&Aggregate>, workload: &str) -> Table {
    let first = rows[0];
    let several = |pick: &dyn Fn(&Aggregate) -> Option<u64>| rows.iter().any(|a| pick(a) != pick(first));
    let has_x = several(&|a| a.x.map(f64::to_bits));
    let has_part = rows.iter().any(|a| a.metric != first.metric);
    let largest = rows.iter().filter_map(|a| a.median).fold(0.0, |l: f64, m| l.max(m.abs()));
    let unit = Unit::of(base, &first.unit, largest);
    let kind = metric(base).map(|metric| metric.kind());
    let ratios = rows.iter().filter_map(|a| digest.comparison(a)?.ratio);
    let scale = forest::ratio_scale(ratios.map(|r| (r.low, r.high)));
    sort(&mut rows, digest, has_x || has_part);
    let shown: Vec<Row> = rows.iter().map(|a| row(digest, a, &unit, &scale)).collect();
    let n_axes = digest.axes.len();
    Table {
        id: format!("{workload} {base}"),
        name: if base == first.metric || has_part { wording::name(base) } else { wording::name(&first.metric) },
        metric: base.to_owned(),
        suffix: unit.suffix,
        better: if rows.iter().any(|a| digest.comparison(a).is_some_and(|c| !c.note.is_empty())) {
            "neither way is better between some of these cells"
        } else {
            wording::better(first.direction)
        },
        open: OPEN.contains(&base) && !has_x,
        gist: gist(digest, &rows, &unit),
        axes: if n_axes > 1 { digest.axes.iter().map(|axis| axis.name).collect() } else { Vec::new() },
        has_part,
        x_name: if has_x { wording::coordinate(base) } else { "" },
        has_spread: matches!(kind, Some(Kind::Timing | Kind::Memory)) && shown.iter().any(|row| !row.cv.is_empty()),
        has_ratio: shown.iter().any(|row| !row.ratio.is_empty() || row.reading.is_some()),
        ladder: ladder(digest, &rows),
        domain: format!("{}× … {}×", significant(scale.domain.0, 2), significant(scale.domain.1, 3)),
        rows: shown,
    }
}

/// Heading of the column that compares the rungs of a ladder; empty where there is no ladder.
fn ladder(digest: &Digest, rows: &[&Aggregate]) -> String {
    let mut first: Vec<&str> = rows.iter().filter_map(|a| rung(&digest.climb(a)?.reference_metric)).collect();
    first.sort();
    first.dedup();
    match first[..] {
        [] => String::new(),
        [one] => format!("to {one}"),
        _ => "to the first rung".into(),
    }
}

fn rung(metric: &str) -> Option<&str> {
    variant(metric).map(|kernel| kernel.rung)
}

/// Best first; sweeps and ladders in their own order.
fn sort(rows: &mut [&Aggregate], digest: &Digest, ladder: bool) {
    if ladder {
        rows.sort_by(|a, b| {
            let key = |r: &Aggregate| (digest.index(&r.cell), r.metric.clone());
            key(a).cmp(&key(b)).then(a.x.unwrap_or(0.0).total_cmp(&b.x.unwrap_or(0.0)))
        });
        return;
    }
    let value = |a: &Aggregate| a.median.unwrap_or(f64::NAN);
    rows.sort_by(|a, b| match a.direction {
        Direction::Higher => value(b).total_cmp(&value(a)),
        _ => value(a).total_cmp(&value(b)),
    });
}

fn row(digest: &Digest, a: &Aggregate, unit: &Unit, scale: &Scale) -> Row {
    let cell = digest.index(&a.cell).map(|index| &digest.cells[index]);
    let median = a.median.unwrap_or(f64::NAN);
    let comparison = digest.comparison(a);
    let floor = digest.floor(a);
    let reading = comparison.map(|c| read(a, c, floor));
    let ratio = comparison.and_then(|c| c.ratio);
    let label = cell.map_or(a.cell.clone(), |cell| cell.label.clone());
    let text = comparison.map(ratio_text).unwrap_or_default();
    let climb = digest.climb(a);
    let versus = comparison.filter(|c| c.reference_metric != c.metric).and_then(|c| rung(&c.reference_metric));
    let tone = reading.as_ref().map_or("quiet", |reading| reading.tone);
    // a band over the whole axis would hide what it says nothing about
    let band = if floor < NOTHING_TOLD { floor } else { 0.0 };
    let drawn = ratio
        .map(|r| forest::ratio(scale, (r.ratio, r.low, r.high), band, tone, &format!("{label}: {text} the reference")));
    Row {
        cell: a.cell.clone(),
        icon: cell.map(|cell| cell.mark.icon()).unwrap_or_default(),
        role: match cell.map(|cell| cell.role) {
            Some(Role::Reference) => "reference",
            Some(Role::AaControl) => "A/A",
            _ => "",
        },
        places: if digest.axes.len() > 1 { cell.map_or(Vec::new(), |cell| cell.places.clone()) } else { Vec::new() },
        label,
        part: wording::part(&a.metric).to_owned(),
        x: a.x.map_or(String::new(), |x| significant(x, 4)),
        x_sort: a.x.unwrap_or(0.0),
        median: unit.number(median),
        median_sort: median,
        interval: match (a.low, a.high) {
            (Some(low), Some(high)) if low < high => format!("[{}, {}]", unit.number(low), unit.number(high)),
            _ => String::new(),
        },
        n: a.n_text(),
        n_sort: a.n,
        cv: a.cv.map_or(String::new(), |cv| format!("{}\u{202f}%", significant(100.0 * cv, 2))),
        cv_sort: a.cv.unwrap_or(0.0),
        band: a.cv.map_or("", wording::spread),
        ratio_sort: ratio.map_or(1.0, |r| r.ratio),
        ratio: text,
        versus: versus.map_or(String::new(), |rung| format!("vs {rung}")),
        climb: climb.map(ratio_text).unwrap_or_default(),
        climb_sort: climb.and_then(|c| c.ratio).map_or(1.0, |r| r.ratio),
        climb_reading: climb.map(|c| read(a, c, floor)),
        forest: drawn.unwrap_or_default(),
        reading,
        note: a.reason.clone(),
        path: a.kernel_path.clone(),
    }
}

/// What a closed table says: from best to worst.
fn gist(digest: &Digest, rows: &[&Aggregate], unit: &Unit) -> String {
    let ok = rows.iter().filter(|a| a.median.is_some_and(f64::is_finite));
    let by_value = |a: &&&Aggregate, b: &&&Aggregate| a.median.unwrap_or(0.0).total_cmp(&b.median.unwrap_or(0.0));
    let (Some(low), Some(high)) = (ok.clone().min_by(by_value), ok.max_by(by_value)) else { return String::new() };
    let (low_value, high_value) = (low.median.unwrap_or(0.0), high.median.unwrap_or(0.0));
    if low_value == high_value {
        return format!("{} everywhere", unit.text(low_value));
    }
    let name = |a: &Aggregate| {
        let label = digest.index(&a.cell).map_or(a.cell.clone(), |index| digest.cells[index].label.clone());
        let part = wording::part(&a.metric);
        if part.is_empty() || digest.cells.len() > 1 { label } else { part.to_owned() }
    };
    format!("{} ({}) to {} ({})", unit.number(low_value), name(low), unit.text(high_value), name(high))
}
