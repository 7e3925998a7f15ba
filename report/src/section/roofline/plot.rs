//! One roofline plot per device: every kernel whose operations and bytes were both counted, under the roofs it was judged by.

use std::collections::BTreeMap;

use results::aggregate::Aggregate;
use serde::Serialize;

use crate::chart::roofline::{Point, Roofs, draw};
use crate::digest::Digest;
use crate::mark::{Channel, Mark};
use crate::quantity::significant;
use crate::wording;

/// Two measured bandwidths nearer than this are one level of memory.
const SAME_LEVEL: f64 = 1.2;

/// A plot and what its marks mean.
#[derive(Serialize)]
pub struct Plot {
    device: String,
    svg: String,
    /// Icon and operation.
    legend: Vec<(String, String)>,
}

/// A kernel's figures.
struct Kernel<'a> {
    aggregate: &'a Aggregate,
    op: String,
    int8: bool,
    rate: f64,
    bytes: f64,
    bandwidth: Option<f64>,
    peak: Option<f64>,
}

/// The plots of all devices that have something to show.
pub fn plots(digest: &Digest) -> Vec<Plot> {
    let mut devices: BTreeMap<String, Vec<Kernel>> = BTreeMap::new();
    for kernel in ["gflop_s", "gop_s"].iter().flat_map(|id| kernels(digest, id)) {
        devices.entry(device(digest, &kernel.aggregate.cell)).or_default().push(kernel);
    }
    devices.into_iter().enumerate().filter_map(|(i, (device, kernels))| plot(digest, i, device, &kernels)).collect()
}

fn device(digest: &Digest, cell: &str) -> String {
    let found = digest.run.observations.iter().find(|row| row.cell == cell);
    found.map_or_else(String::new, |row| row.axes.device.clone())
}

fn kernels<'a>(digest: &'a Digest, id: &'a str) -> impl Iterator<Item = Kernel<'a>> {
    let int8 = id == "gop_s";
    let fraction_id = if int8 { "roof_int8_fraction" } else { "roof_flop_fraction" };
    super::of(digest, id).filter_map(move |a| {
        let beside = |id: &str| {
            let same = |b: &&Aggregate| {
                b.cell == a.cell && b.workload == a.workload && wording::part(&b.metric) == wording::part(&a.metric)
            };
            super::of(digest, id).find(same).and_then(|b| b.median).filter(|v| *v > 0.0)
        };
        let (rate, bytes) = (a.median?, beside("gb_s")?);
        let part = wording::part(&a.metric);
        Some(Kernel {
            aggregate: a,
            op: part.split('/').next().unwrap_or(part).to_owned(),
            int8,
            rate,
            bytes,
            bandwidth: beside("roof_bandwidth_fraction").map(|share| bytes / share),
            peak: beside(fraction_id).map(|share| rate / share),
        })
    })
}

fn plot(digest: &Digest, number: usize, device: String, kernels: &[Kernel]) -> Option<Plot> {
    let roofs = roofs(kernels)?;
    let mut ops: Vec<&str> = vec![];
    for kernel in kernels {
        if !ops.contains(&kernel.op.as_str()) {
            ops.push(&kernel.op);
        }
    }
    let mark =
        |op: &str| Mark::at(&[ops.iter().position(|known| *known == op).unwrap_or(0)], &[Channel::ColourAndShape]);
    let best = |kernel: &Kernel| kernels.iter().all(|other| other.op != kernel.op || other.rate <= kernel.rate);
    let points: Vec<Point> = kernels
        .iter()
        .map(|k| Point {
            cell: k.aggregate.cell.clone(),
            label: best(k).then(|| rung(wording::part(&k.aggregate.metric)).to_owned()),
            tip: tip(digest, k),
            mark: mark(&k.op),
            intensity: k.rate / k.bytes,
            rate: k.rate,
        })
        .collect();
    let title = format!("Roofline of {device}");
    let description = format!(
        "{} kernels of {} operations under the measured roofs of {device}; the table below has each one's share.",
        points.len(),
        ops.len()
    );
    let svg = draw(&format!("roofline-chart-{number}"), &title, &description, (960.0, 460.0), &points, &roofs);
    let legend = ops.iter().map(|op| (mark(op).icon(), (*op).to_owned())).collect();
    Some(Plot { device, svg, legend })
}

/// `op/rung/shape` is of this rung.
fn rung(part: &str) -> &str {
    part.split('/').nth(1).unwrap_or(part)
}

fn tip(digest: &Digest, kernel: &Kernel) -> String {
    let cell = digest.index(&kernel.aggregate.cell).map_or("", |index| digest.cells[index].label.as_str());
    format!(
        "{cell} {}: {} G{}/s at {} operations per byte",
        wording::part(&kernel.aggregate.metric),
        significant(kernel.rate, 3),
        if kernel.int8 { "OP" } else { "FLOP" },
        significant(kernel.rate / kernel.bytes, 3)
    )
}

/// The roofs that the kernels' own fractions were taken of; none where no fraction is known.
fn roofs(kernels: &[Kernel]) -> Option<Roofs> {
    let range = |values: &mut dyn Iterator<Item = f64>| {
        values.fold(None, |range: Option<(f64, f64)>, v| {
            let (low, high) = range.unwrap_or((v, v));
            Some((low.min(v), high.max(v)))
        })
    };
    let (slow, fast) = range(&mut kernels.iter().filter_map(|k| k.bandwidth))?;
    let mut bandwidths = vec![("memory", slow)];
    if fast > SAME_LEVEL * slow {
        bandwidths.push(("cache", fast));
    }
    let peak =
        |int8| range(&mut kernels.iter().filter(|k| k.int8 == int8).filter_map(|k| k.peak)).map(|(_, high)| high);
    let named = [("floating point", peak(false)), ("int8", peak(true))];
    let peaks: Vec<(&'static str, f64)> = named.into_iter().filter_map(|(name, peak)| Some((name, peak?))).collect();
    (!peaks.is_empty()).then_some(Roofs { bandwidths, peaks })
}
