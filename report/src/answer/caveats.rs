//! Caveats that the numbers themselves raise.

use std::collections::BTreeMap;

use results::observation::Status;
use results::run::Run;

use super::names::listed;
use crate::quantity::{Unit, significant};
use crate::wording;

/// Weights below this multiple of the cache stay in it in part.
const CACHE_MULTIPLE: f64 = 4.0;
/// Programs that were ready to run, on average, above which the machine was not idle.
const IDLE_LOAD: f64 = 0.5;

/// What a reader must not overlook, from the rows and facts of `run`.
pub fn caveats(run: &Run) -> Vec<String> {
    let mut caveats = vec![];
    caveats.extend(cache(run));
    let models = run.summary.as_ref().map_or(&[][..], |summary| &summary.models);
    if models.iter().any(|model| model.source.starts_with("random:")) {
        caveats
            .push("The weights are random: speed and memory are meaningful, likelihood and acceptance are not.".into());
    }
    caveats.extend(above_the_roof(run));
    caveats.extend(load(run));
    caveats
}

/// Models whose weights the cache can hold, at least in part.
fn cache(run: &Run) -> Option<String> {
    let card = run.summary.as_ref()?.models.first()?;
    let llc = largest(run, "llc_bytes").filter(|bytes| *bytes > 0.0)?;
    let weights = card.f32_bytes as f64;
    let size = |value: f64| Unit::of("", "B", value).short(value);
    (weights < CACHE_MULTIPLE * llc).then(|| {
        format!(
            "The weights of {} take {} in f32, and the last-level cache holds {}. Weights smaller than four times the cache stay in it, at \
             least in part: these speeds depend on the cache bandwidth, not on the memory bandwidth, and say little about larger models.",
            card.source,
            size(weights),
            size(llc)
        )
    })
}

/// Cells and metrics with speeds that the measured roofs forbid.
fn above_the_roof(run: &Run) -> Option<String> {
    let label = |cell: &str| {
        let known = run.summary.iter().flat_map(|s| &s.cells).find(|c| c.id == cell);
        known.map_or(cell, |c| c.label.as_str()).to_owned()
    };
    // (cell, workload, part of the metric): rows above, rows in all
    let mut groups: BTreeMap<(&str, &str, &str), (usize, usize)> = BTreeMap::new();
    for row in run.observations.iter().filter(|row| row.status == Status::Ok) {
        if wording::base(&row.metric) != "roof_excess" {
            continue;
        }
        let group = groups.entry((&row.cell, &row.workload, wording::part(&row.metric))).or_default();
        group.0 += usize::from(row.value.is_some_and(|v| v > 0.0));
        group.1 += 1;
    }
    groups.retain(|_, (above, _)| *above > 0);
    let rows: usize = groups.values().map(|(above, _)| above).sum();
    let mut worst: Vec<_> = groups.into_iter().collect();
    worst.sort_by_key(|(_, (above, _))| std::cmp::Reverse(*above));
    let names: Vec<String> = worst
        .iter()
        .map(|((cell, workload, part), (above, all))| {
            let what = if part.is_empty() { *workload } else { *part };
            format!("{} ({what}, {above} of {all} repetitions)", label(cell))
        })
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let measurements = if rows == 1 { "1 measurement is" } else { &format!("{rows} measurements are") };
    (rows > 0).then(|| {
        format!(
            "{measurements} faster than the roofs that were measured on this machine allow: {}. Either other work ran while the roofs were \
             measured, or not all of the counted work was done. Do not trust these speeds.",
            listed(&names)
        )
    })
}

/// The largest number that any sitting began `key` of the machine with.
fn largest(run: &Run, key: &str) -> Option<f64> {
    let stated = run.facts.iter().filter(|fact| fact.scope == "machine" && fact.key == key);
    stated.filter_map(|fact| fact.value.split_whitespace().next()?.parse().ok()).reduce(f64::max)
}

/// Whether something else ran when the run began.
fn load(run: &Run) -> Option<String> {
    let load = largest(run, "load_average")?;
    (load > IDLE_LOAD).then(|| {
        format!(
            "When the run began, other work was running on this machine: in the minute before, {} programs were busy on average (the load \
             average). Times may be longer than on an idle machine, and intervals are wider.",
            significant(load, 2)
        )
    })
}
