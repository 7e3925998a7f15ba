//! How long single events took: cumulative distributions with percentiles that admit when too few events stand behind them.

use results::latency::{Latencies, Percentile};
use results::summary::Role;
use serde::Serialize;

use super::{Content, Section};
use crate::chart::area;
use crate::chart::lines::{Plot, SMALL, Series, sample};
use crate::digest::{Cell, Digest};
use crate::quantity::{Unit, significant};
use crate::scale::Scale;
use crate::wording;

/// See the module.
pub const SECTION: Section = Section {
    id: "latency",
    title: "Latency",
    reading: "Each line climbs from 0 to 100 % of the events: the further left, the faster; a long flat shoulder at the top is a slow tail. A \
              percentile is dashed or grey where the events are worth fewer independent ones than are needed before the largest exceeds it with \
              99 % probability, or come from fewer than seven repetitions: events of one repetition share its luck.",
    template: include_str!("../../templates/latency.tera"),
    content,
};

const METRICS: &[&str] = &["ttft_ms", "tpot_ms", "itl_ms", "e2e_ms"];
/// Steps in either direction that a line of this size can show.
const FINEST: f64 = 120.0;

#[derive(Serialize)]
struct Tail {
    text: String,
    trusted: bool,
    sort: f64,
}

#[derive(Serialize)]
struct Row {
    cell: String,
    icon: String,
    label: String,
    n: String,
    n_sort: u64,
    tails: Vec<Tail>,
}

#[derive(Serialize)]
struct Figure {
    title: String,
    svg: String,
    note: String,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Workload {
    name: String,
    figures: Vec<Figure>,
}

#[derive(Serialize)]
struct Values {
    workloads: Vec<Workload>,
    legend: Vec<(String, String, String)>,
}

fn content(digest: &Digest) -> tera::TeraResult<Content> {
    let mut workloads = Vec::new();
    let mut seen = vec![false; digest.cells.len()];
    for name in &digest.workloads {
        let figures: Vec<Figure> =
            METRICS.iter().filter_map(|metric| figure(digest, name, metric, &mut seen)).collect();
        if !figures.is_empty() {
            workloads.push(Workload { name: name.clone(), figures });
        }
    }
    if workloads.is_empty() {
        return Ok(Content::Absent("no workload sent whole requests"));
    }
    let drawn = digest.cells.iter().zip(&seen).filter(|(_, seen)| **seen);
    let legend = drawn
        .map(|(cell, _)| (cell.id.clone(), sample(&cell.mark, false, cell.role == Role::AaControl), cell.label.clone()))
        .collect();
    Content::of(&Values { workloads, legend })
}

fn figure(digest: &Digest, workload: &str, metric: &str, seen: &mut [bool]) -> Option<Figure> {
    let mut measured: Vec<(&Cell, Latencies)> = Vec::new();
    for ((cell, rows), seen) in digest.cells.iter().zip(digest.rows(workload, metric)).zip(seen) {
        let latencies = Latencies::of_rows(rows);
        if latencies.n() > 0 {
            *seen = true;
            measured.push((cell, latencies));
        }
    }
    if measured.is_empty() {
        return None;
    }
    let series: Vec<Series> = measured.iter().map(|(cell, latencies)| line(cell, latencies)).collect();
    let (x_pixels, y_pixels) = area(SMALL);
    let values = series.iter().flat_map(|line| line.points.iter().map(|p| p.0));
    // a factor of 2 already deserves equal distances for equal factors
    let x = Scale::fit_with(values, x_pixels, 2.0);
    let name = wording::name(metric);
    let title = format!("{name}, {workload}");
    let description = format!(
        "Cumulative distribution of {} for {} cells. The table below lists the percentiles.",
        name.to_lowercase(),
        series.len()
    );
    let plot = Plot {
        id: &format!("latency-{}", anchor(&title)),
        title: &title,
        description: &description,
        x: (&format!("{name} (ms)"), x),
        y: ("share of events (%)", Scale::linear(0.0, 100.0, y_pixels)),
        size: SMALL,
    };
    let svg = plot.draw(&series, &|line, _| line.name.clone());
    let note = digest.aggregates.iter().filter(|a| a.workload == workload && wording::base(&a.metric) == metric);
    let note = note.filter_map(|a| digest.comparison(a)).map(|c| c.note.clone()).find(|note| !note.is_empty());
    let note = note.map_or(String::new(), |note| format!("Not a ranking of all these cells: {note}."));
    Some(Figure {
        title: name,
        svg,
        note,
        rows: measured.iter().map(|(cell, latencies)| row(cell, latencies)).collect(),
    })
}

fn line(cell: &Cell, latencies: &Latencies) -> Series {
    let n = latencies.n() as f64;
    let buckets = latencies.buckets();
    let (first, last) = (buckets[0].0 as f64, buckets[buckets.len() - 1].0 as f64);
    let step = (last / first).ln() / FINEST;
    let (mut share, mut drawn) = (0.0, (0.0, 0.0));
    let mut points = vec![];
    for (index, (ns, count)) in buckets.iter().enumerate() {
        let ns = *ns as f64;
        share += 100.0 * *count as f64 / n;
        let worth = (ns / f64::max(drawn.0, 1.0)).ln() >= step || share - drawn.1 >= 100.0 / FINEST;
        if index == 0 || index + 1 == buckets.len() || worth {
            points.extend([(ns * 1e-6, drawn.1), (ns * 1e-6, share)]);
            drawn = (ns, share);
        }
    }
    // the levels below 100 % are percentiles; the last of them that these events carry ends the drawn-through line
    let carried = |level: f64| latencies.percentile(level).is_some_and(|p| p.trusted);
    let trusted = points.iter().take_while(|p| p.1 < 100.0 && carried(p.1)).count();
    let quick = |percent| latencies.percentile(percent).map_or(String::new(), |p| significant(p.ns as f64 * 1e-6, 3));
    let name = format!("{}\nmedian {} ms, p90 {} ms, n = {}", cell.label, quick(50.0), quick(90.0), latencies.n_text());
    Series {
        cell: cell.id.clone(),
        name,
        mark: cell.mark,
        points,
        band: vec![],
        trusted,
        marked: false,
        faint: cell.role == Role::AaControl,
    }
}

fn row(cell: &Cell, latencies: &Latencies) -> Row {
    let unit = Unit { factor: 1e-6, suffix: "ms" };
    let tail = |p: Percentile| Tail { text: unit.number(p.ns as f64), trusted: p.trusted, sort: p.ns as f64 };
    Row {
        cell: cell.id.clone(),
        icon: cell.mark.icon(),
        label: cell.label.clone(),
        n: latencies.n_text(),
        n_sort: latencies.n(),
        tails: latencies.percentiles().into_iter().map(tail).collect(),
    }
}

/// Letters and digits of `text`, the rest as dashes: safe as an id.
pub fn anchor(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
}
