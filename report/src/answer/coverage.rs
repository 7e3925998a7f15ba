//! How far a run got: nothing, a part, or all but some cells.

use std::collections::BTreeMap;

use results::metric::{Kind, metric};
use results::observation::Status;
use results::progress::Progress;
use results::run::Run;
use results::summary::{CellSummary, Role};

use super::material::Material;
use super::names::listed;

/// Cells with rows of each stage.
struct Stages {
    /// Cells of the plan, the second copy of the reference left out.
    planned: usize,
    /// Cells with a measure of quality.
    scored: usize,
    /// Cells with a time.
    timed: usize,
}

/// `14 of 28 cells scored, 0 timed`: against the plan where the summary holds it, as records of today do, else by the kinds of rows.
pub fn progress(run: &Run) -> String {
    in_words(&Material::read(run))
}

fn in_words(material: &Material<'_>) -> String {
    match Progress::of(material.run) {
        Some(progress) => progress.in_words(),
        None => {
            let stages = stages(material);
            format!("{} of {} cells scored, {} timed", stages.scored, stages.planned, stages.timed)
        }
    }
}

/// Counts cells by what their rows hold.
fn stages(material: &Material<'_>) -> Stages {
    let planned: Vec<&CellSummary> = material.planned.iter().filter(|c| c.role != Role::AaControl).collect();
    let has = |wanted: Kind| {
        let rows = material.run.observations.iter().filter(|row| row.value.is_some() && row.status == Status::Ok);
        let of = rows.filter(|row| {
            metric(&row.metric).is_some_and(|m| m.kind() == wanted)
                // getting ready is no stage of its own
                && row.metric != "load_s"
                && !row.workload.is_empty()
        });
        let mut cells: Vec<&str> = of.map(|row| row.cell.as_str()).collect();
        cells.sort_unstable();
        cells.dedup();
        planned.iter().filter(|c| cells.binary_search(&c.id.as_str()).is_ok()).count()
    };
    Stages { planned: planned.len(), scored: has(Kind::Quality), timed: has(Kind::Timing) }
}

/// What is missing, first of all sentences; nothing where the run got everything.
pub fn sentences(material: &Material<'_>) -> Vec<String> {
    // a run that has ended says itself what it lacks
    let mut said = material.run.summary.as_ref().map(|summary| summary.missing.clone()).unwrap_or_default();
    let ended = !said.is_empty();
    let stages = stages(material);
    let complete = material.run.summary.as_ref().is_some_and(|summary| summary.complete);
    if stages.planned == 0 {
        return said;
    }
    if !material.has_values() && !ended {
        let why = reasons(material);
        let skipped = material.planned.iter().all(|c| c.status == Status::Skipped);
        said.push(match (skipped, complete) {
            (true, _) => format!("Nothing was measured: all {} cells were skipped{why}.", stages.planned),
            (false, true) => format!("Nothing was measured by {} cells{why}.", stages.planned),
            (false, false) => format!("The run was not finished: {}{why}.", in_words(material)),
        });
        return said;
    }
    if !complete && !ended {
        said.push(format!("The run was not finished: {}.", in_words(material)));
    }
    let lost: Vec<&CellSummary> =
        material.planned.iter().filter(|c| matches!(c.status, Status::Failed | Status::Wrong)).collect();
    if !lost.is_empty() {
        let labels: Vec<&str> = lost.iter().map(|c| material.label(&c.id)).collect();
        said.push(format!(
            "{} of {} cells failed or gave wrong results and are left out: {}.",
            lost.len(),
            material.planned.len(),
            listed(&labels)
        ));
    }
    said
}

/// The reasons why cells gave nothing, the most frequent first.
fn reasons(material: &Material<'_>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for cell in material.planned.iter().filter(|c| !c.reason.is_empty()) {
        *counts.entry(cell.reason.as_str()).or_default() += 1;
    }
    let mut reasons: Vec<(&str, usize)> = counts.into_iter().collect();
    reasons.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    match reasons.first() {
        None => String::new(),
        Some((reason, _)) => {
            let more = if reasons.len() > 1 { format!("; {} other reasons", reasons.len() - 1) } else { String::new() };
            format!(" ({}{more})", reason.trim_end_matches('.'))
        }
    }
}
