//! Metrics along a coordinate: context length, sequence length, draft position.

use results::aggregate::Aggregate;
use results::statistics::log_log_slope;
use results::summary::Role;
use serde::Serialize;

use super::latency::anchor;
use super::{Content, Section};
use crate::chart::lines::{Plot, SMALL, Series, sample, scales};
use crate::digest::Digest;
use crate::mark::Mark;
use crate::quantity::{Unit, significant};
use crate::wording;

/// See the module.
pub const SECTION: Section = Section {
    id: "sweeps",
    title: "Sweeps",
    reading: "How a metric changes along one coordinate; the band around a line is its 95 % interval. On two logarithmic axes a straight line \
              is a power law, and its slope is the exponent: 1 is linear growth, 2 is quadratic.",
    template: include_str!("../../templates/sweeps.tera"),
    content,
};

#[derive(Serialize)]
struct Line {
    cell: String,
    icon: String,
    name: String,
    slope: String,
    values: Vec<String>,
}

#[derive(Serialize)]
struct Figure {
    title: String,
    metric: String,
    svg: String,
    columns: Vec<String>,
    x_name: &'static str,
    has_slope: bool,
    lines: Vec<Line>,
}

#[derive(Serialize)]
struct Values {
    figures: Vec<Figure>,
}

fn content(digest: &Digest) -> tera::TeraResult<Content> {
    let mut groups: Vec<((&str, &str), Vec<&Aggregate>)> = Vec::new();
    // shares of the roof have a section of their own
    let swept = |a: &&Aggregate| a.median.is_some() && a.x.is_some() && !a.metric.starts_with("roof_");
    for a in digest.aggregates.iter().filter(swept) {
        let key = (a.workload.as_str(), wording::base(&a.metric));
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, group)) => group.push(a),
            None => groups.push((key, vec![a])),
        }
    }
    groups.sort_by_key(|((workload, base), _)| {
        (digest.workloads.iter().position(|w| w == workload), wording::rank(base), *base)
    });
    let figures: Vec<Figure> =
        groups.into_iter().filter_map(|((w, base), rows)| figure(digest, w, base, &rows)).collect();
    if figures.is_empty() {
        return Ok(Content::Absent("no metric was measured at several points of a sweep"));
    }
    Content::of(&Values { figures })
}

fn figure(digest: &Digest, workload: &str, base: &str, rows: &[&Aggregate]) -> Option<Figure> {
    let mut xs: Vec<f64> = rows.iter().filter_map(|a| a.x).collect();
    xs.sort_by(f64::total_cmp);
    xs.dedup();
    if xs.len() < 2 {
        return None;
    }
    let largest = rows.iter().filter_map(|a| a.median).fold(0.0, |l: f64, m| l.max(m.abs()));
    let unit = Unit::of(base, &rows[0].unit, largest);
    let series = series(digest, rows, &unit);
    let (x, y) = scales(&series, SMALL);
    let name = wording::name(base);
    let title = format!("{name}, {workload}");
    let description = format!("{} lines over {} points. The table below lists every value.", series.len(), xs.len());
    let y_title = if unit.suffix.is_empty() { name.clone() } else { format!("{name} ({})", unit.suffix) };
    let x_name = wording::coordinate(base);
    let plot = Plot {
        id: &format!("sweep-{}", anchor(&title)),
        title: &title,
        description: &description,
        x: (x_name, x),
        y: (&y_title, y),
        size: SMALL,
    };
    let svg = plot.draw(&series, &|line, index| tip(line, index, unit.suffix));
    let lines: Vec<Line> = series.iter().map(|line| table_line(line, &xs)).collect();
    Some(Figure {
        title,
        metric: base.to_owned(),
        svg,
        columns: xs.iter().map(|x| significant(*x, 4)).collect(),
        x_name,
        has_slope: x.is_log() && y.is_log() && lines.iter().any(|line| !line.slope.is_empty()),
        lines,
    })
}

/// One series per cell and part, in printed units.
fn series(digest: &Digest, rows: &[&Aggregate], unit: &Unit) -> Vec<Series> {
    let several_parts = rows.iter().any(|a| a.metric != rows[0].metric);
    let mut series: Vec<(String, Series)> = Vec::new();
    for a in rows {
        let (Some(index), Some(x), Some(median)) = (digest.index(&a.cell), a.x, a.median) else { continue };
        let cell = &digest.cells[index];
        let key = format!("{}\0{}", a.cell, a.metric);
        if !series.iter().any(|(known, _)| *known == key) {
            let part = wording::part(&a.metric);
            let name = if several_parts { format!("{}, {part}", cell.label) } else { cell.label.clone() };
            let mark = if several_parts { numbered(series.len()) } else { cell.mark };
            let line = Series {
                cell: cell.id.clone(),
                name,
                mark,
                points: vec![],
                band: vec![],
                trusted: 0,
                marked: true,
                faint: cell.role == Role::AaControl,
            };
            series.push((key.clone(), line));
        }
        let Some((_, line)) = series.iter_mut().find(|(known, _)| *known == key) else { continue };
        line.points.push((x, median * unit.factor));
        line.band.push((a.low.unwrap_or(median) * unit.factor, a.high.unwrap_or(median) * unit.factor));
        line.trusted = line.points.len();
    }
    let mut series: Vec<(usize, Series)> =
        series.into_iter().map(|(_, line)| (digest.index(&line.cell).unwrap_or(0), line)).collect();
    series.sort_by_key(|(index, _)| *index);
    series.into_iter().map(|(_, line)| line).collect()
}

/// Looks for parts of one cell, which the axes cannot tell apart.
fn numbered(index: usize) -> Mark {
    use crate::mark::{N_COLOURS, SHAPES};
    Mark { colour: index % N_COLOURS, shape: index % SHAPES.len(), fill: index / N_COLOURS % 3, tick: 0 }
}

fn tip(line: &Series, index: usize, suffix: &str) -> String {
    let (x, y) = line.points[index];
    let (low, high) = line.band[index];
    let interval =
        if low < high { format!(" [{}, {}]", significant(low, 4), significant(high, 4)) } else { String::new() };
    format!("{}\nat {}: {}{interval} {suffix}", line.name, significant(x, 4), significant(y, 4))
}

fn table_line(line: &Series, xs: &[f64]) -> Line {
    let value = |x: &f64| {
        let index = line.points.iter().position(|p| p.0 == *x)?;
        Some(significant(line.points[index].1, 4))
    };
    let positive = line.points.iter().all(|p| p.0 > 0.0 && p.1 > 0.0);
    let slope = (positive && line.points.len() > 2).then(|| log_log_slope(&line.points, 1)).flatten();
    Line {
        cell: line.cell.clone(),
        icon: sample(&line.mark, true, line.faint),
        name: line.name.clone(),
        slope: slope.map_or(String::new(), |s| {
            format!("{} [{}, {}]", significant(s.slope, 3), significant(s.low, 3), significant(s.high, 3))
        }),
        values: xs.iter().map(|x| value(x).unwrap_or("–".into())).collect(),
    }
}
