//! The limits of the machine, measured in the same run, and how near each cell came to them.

mod plot;

use results::aggregate::Aggregate;
use results::metric::roof::EXCESS_LIMIT;
use serde::Serialize;

use super::{Content, Section};
use crate::answer::{bandwidth, listed};
use crate::chart::forest;
use crate::digest::Digest;
use crate::quantity::{Unit, significant};
use crate::wording;

/// See the module.
pub const SECTION: Section = Section {
    id: "roofline",
    title: "Roofline",
    reading: "The machine’s limits were measured in the same run. A bar is the least time that the counted work needs at those limits over the \
              time it took: near 100 % means that only less work or another machine can make it faster. More than 100 % is impossible and \
              casts doubt on the count, the limit or the clock.",
    template: include_str!("../../templates/roofline.tera"),
    content,
};

/// Weights below this multiple of the cache stay mostly inside it.
const CACHE_MULTIPLE: f64 = 4.0;

/// Longer tables start closed.
const MOST_OPEN_ROWS: usize = 20;

#[derive(Serialize)]
struct Roof {
    value: String,
    name: &'static str,
}

#[derive(Serialize)]
struct Row {
    cell: String,
    icon: String,
    label: String,
    part: String,
    bar: String,
    percent: String,
    sort: f64,
    limit: &'static str,
    flag: &'static str,
}

impl Row {
    /// The cell and which part of it.
    fn name(&self) -> String {
        if self.part.is_empty() { self.label.clone() } else { format!("{} ({})", self.label, self.part) }
    }
}

#[derive(Serialize)]
struct Workload {
    name: String,
    open: bool,
    has_part: bool,
    gist: String,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Values {
    roofs: Vec<Roof>,
    cache: Vec<String>,
    plots: Vec<plot::Plot>,
    workloads: Vec<Workload>,
}

fn content(digest: &Digest) -> tera::TeraResult<Content> {
    let roofs = roofs(digest);
    let fractions: Vec<&Aggregate> = of(digest, "roof_fraction").collect();
    if roofs.is_empty() && fractions.is_empty() {
        return Ok(Content::Absent("the machine’s limits were not measured in this run"));
    }
    let workloads = digest.workloads.iter().filter_map(|name| workload(digest, name, &fractions));
    Content::of(&Values { roofs, cache: cache(digest), plots: plot::plots(digest), workloads: workloads.collect() })
}

fn workload(digest: &Digest, name: &str, fractions: &[&Aggregate]) -> Option<Workload> {
    let fractions: Vec<&Aggregate> = fractions.iter().copied().filter(|a| a.workload == name).collect();
    let sweep = fractions.iter().any(|a| a.x != fractions[0].x);
    let mut rows: Vec<Row> = fractions.iter().map(|a| row(digest, a, sweep)).collect();
    rows.sort_by(|a, b| b.sort.total_cmp(&a.sort));
    let impossible: Vec<String> = rows.iter().filter(|row| row.sort > EXCESS_LIMIT).map(Row::name).collect();
    let impossible: Vec<&str> = impossible.iter().map(String::as_str).collect();
    (!rows.is_empty()).then(|| Workload {
        name: name.to_owned(),
        open: rows.len() <= MOST_OPEN_ROWS,
        has_part: rows.iter().any(|row| !row.part.is_empty()),
        gist: match impossible.len() {
            0 => format!("{} to {}", rows[rows.len() - 1].percent, rows[0].percent),
            _ => {
                format!("{} to {}; impossible: {}", rows[rows.len() - 1].percent, rows[0].percent, listed(&impossible))
            }
        },
        rows,
    })
}

fn of<'a>(digest: &'a Digest, base: &'a str) -> impl Iterator<Item = &'a Aggregate> {
    digest.aggregates.iter().filter(move |a| wording::base(&a.metric) == base && a.median.is_some())
}

fn roofs(digest: &Digest) -> Vec<Roof> {
    let rate = |value: f64, unit: &str| format!("{}\u{202f}{unit}", significant(value * 1e-9, 3));
    let size = |value: f64, _: &str| Unit::of("", "B", value).text(value);
    let tile = |value: Option<f64>, text: &dyn Fn(f64, &str) -> String, unit: &str, name: &'static str| {
        Some(Roof { value: text(value?, unit), name })
    };
    let (machine, gpu) = (|key: &str| digest.machine(key), |key: &str| digest.most(key));
    let all = [
        tile(machine("stream_bytes_s"), &rate, "GB/s", "memory bandwidth (reading)"),
        tile(machine("cache_bytes_s"), &rate, "GB/s", "cache bandwidth (reading)"),
        tile(machine("fma_flop_s"), &rate, "GFLOP/s", "f32 multiply-add"),
        tile(machine("int8_op_s"), &rate, "GOP/s", "int8 dot products"),
        tile(machine("llc_bytes"), &size, "", "last-level cache"),
        tile(gpu("gpu_stream_bytes_s"), &rate, "GB/s", "memory bandwidth of the GPU (reading)"),
        tile(gpu("gpu_cache_bytes_s"), &rate, "GB/s", "L2 cache bandwidth of the GPU (reading)"),
        tile(gpu("gpu_product_flop_s"), &rate, "GFLOP/s", "16-bit products on the GPU"),
        tile(gpu("gpu_l2_bytes"), &size, "", "L2 cache of the GPU"),
    ];
    all.into_iter().flatten().collect()
}

/// A sentence for each model whose weights the cache can hold.
fn cache(digest: &Digest) -> Vec<String> {
    let Some(llc) = digest.machine("llc_bytes") else { return Vec::new() };
    let bytes = |value: f64| Unit::of("", "B", value).text(value);
    let models = digest.summary().map_or(&[][..], |summary| &summary.models);
    let sentence = |model: &results::summary::ModelCard| {
        let weights = model.f32_bytes as f64;
        let (sizes, source) =
            (format!("{} in f32; the last-level cache holds {}", bytes(weights), bytes(llc)), &model.source);
        match weights {
            w if w <= llc => Some(format!(
                "The weights of {source} fit the last-level cache ({sizes}): their speed depends on the cache bandwidth and says nothing about memory bandwidth."
            )),
            w if w < CACHE_MULTIPLE * llc => Some(format!(
                "The weights of {source} are not much larger than the last-level cache ({sizes}): part of them, and all of them in a \
                 smaller format, stay in it, so their speed says little about memory bandwidth."
            )),
            _ => None,
        }
    };
    models.iter().filter_map(sentence).collect()
}

fn row(digest: &Digest, a: &Aggregate, sweep: bool) -> Row {
    let share = a.median.unwrap_or(0.0);
    let cell = digest.index(&a.cell).map(|index| &digest.cells[index]);
    let label = cell.map_or(a.cell.clone(), |cell| cell.label.clone());
    let percent = format!("{}\u{202f}%", significant(100.0 * share, 3));
    let (class, flag) = match share {
        s if s > EXCESS_LIMIT => ("bad", "✖ impossible: distrust this speed"),
        s if s > 1.0 => ("open", "▲ above 100 %, within the error of both measurements"),
        _ => ("ink", ""),
    };
    let interval = a.low.zip(a.high);
    Row {
        cell: a.cell.clone(),
        icon: cell.map(|cell| cell.mark.icon()).unwrap_or_default(),
        bar: forest::share(share, interval, class, &format!("{label}: {percent} of the roof")),
        label,
        part: part(a, sweep),
        percent,
        sort: share,
        limit: binding(digest, a),
        flag,
    }
}

fn part(a: &Aggregate, sweep: bool) -> String {
    let x = a.x.filter(|_| sweep).map(|x| format!("at {}", significant(x, 4)));
    [Some(wording::part(&a.metric).to_owned()).filter(|part| !part.is_empty()), x]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(", ")
}

/// The limit that `roof_fraction` was the largest share of.
fn binding(digest: &Digest, a: &Aggregate) -> &'static str {
    let limits = [
        ("roof_bandwidth_fraction", ""),
        ("roof_flop_fraction", "f32 arithmetic"),
        ("roof_int8_fraction", "int8 arithmetic"),
    ];
    let share = |id: &str| {
        let same = |b: &&Aggregate| {
            b.cell == a.cell
                && b.workload == a.workload
                && b.x == a.x
                && wording::part(&b.metric) == wording::part(&a.metric)
        };
        of(digest, id).find(same).and_then(|b| b.median)
    };
    let shares = limits.into_iter().filter_map(|(id, words)| Some((share(id)?, words)));
    match shares.max_by(|a, b| a.0.total_cmp(&b.0)) {
        None => "–",
        Some((share, "")) => level(digest, a, share),
        Some((_, words)) => words,
    }
}

/// Which level of memory the bytes of `a` were held against. Kernels have a rate, which over its share is the roof itself; a model's
/// pass reads its weights, which the cache can hold or cannot.
fn level(digest: &Digest, a: &Aggregate, share: f64) -> &'static str {
    let part = wording::part(&a.metric);
    let rate =
        of(digest, "gb_s").find(|b| b.cell == a.cell && b.workload == a.workload && wording::part(&b.metric) == part);
    if let Some(rate) = rate.and_then(|b| b.median) {
        let gpu = digest.most("gpu_stream_bytes_s").zip(digest.most("gpu_cache_bytes_s"));
        let on_gpu = digest.run.observations.iter().any(|row| row.cell == a.cell && row.axes.device.contains("cuda"));
        let machine = match gpu.filter(|_| on_gpu) {
            Some((stream, cache)) => [Some(stream), Some(cache)],
            None => ["stream_bytes_s", "cache_bytes_s"].map(|key| digest.machine(key)),
        };
        return bandwidth(Some(rate * 1e9 / share), machine);
    }
    let bytes = |id: &str| of(digest, id).filter(|b| b.cell == a.cell).filter_map(|b| b.median).reduce(f64::max);
    match (bytes("weights_bytes"), digest.machine("llc_bytes")) {
        (Some(weights), Some(llc)) if weights + bytes("kv_logical_bytes").unwrap_or(0.0) <= llc => "cache bandwidth",
        // a table of embeddings is stored and hardly read
        (Some(weights), Some(llc)) if weights > 2.0 * llc => "memory bandwidth",
        _ => "cache or memory bandwidth",
    }
}
