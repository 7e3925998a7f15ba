//! `plan`: what a scenario would run here.

mod engines;

use std::path::PathBuf;

use clap::Args;
use results::summary::Role;
use serde::Serialize;

use self::engines::Engines;
use super::changes::Changes;
use super::table::{bytes, table};
use super::{Blame, Failure, Outcome, PASS, Shape, find, json, print};
use crate::cell::{Cell, ResolvedScenario};
use crate::forecast::Forecast;
use crate::library;
use crate::scenario::{ModelPart, Workload};

/// Cells that one reason names before it counts them.
const MOST_NAMED: usize = 4;

/// The command `plan`.
#[derive(Args)]
#[command(
    after_help = "Nothing is measured. Other engines of a scenario are started once to hear whether they are there; texts are \
counted in tokens, so that a workload whose text is too short is shown as skipped."
)]
pub struct Plan {
    /// Name of a scenario, or the path of a .toml file
    #[arg(value_name = "NAME|FILE.toml")]
    scenario: String,
    #[command(flatten)]
    changes: Changes,
    /// Python that has the other engines of a scenario (PyTorch, llama-cpp-python, Triton) [default: python3]
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t)]
    format: Shape,
}

#[derive(Serialize)]
struct Planned<'a> {
    scenario: &'a str,
    question: &'a str,
    models: Vec<String>,
    workloads: Vec<String>,
    /// Where each workload runs and where it is left out.
    workload_plans: Vec<PlannedWorkload>,
    claims: Vec<&'a str>,
    /// Seconds of timed repetitions; building, checking and scoring come on top.
    timed_seconds: f64,
    cells: Vec<PlannedCell<'a>>,
}

#[derive(Serialize)]
struct PlannedCell<'a> {
    id: &'a str,
    label: &'a str,
    role: Role,
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<String>,
    /// Estimated bytes of the weights, from the parameter count and the nominal bits per weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    weights_bytes: Option<u64>,
}

/// A workload in the cells that run at all.
#[derive(Debug, Clone, Serialize)]
pub struct PlannedWorkload {
    name: String,
    /// Cells that run it.
    cells: usize,
    /// Cells that would run it if nothing were in the way.
    of: usize,
    skipped: Vec<LeftOut>,
}

/// Cells that leave a workload out for one reason.
#[derive(Debug, Clone, Serialize)]
struct LeftOut {
    reason: String,
    cells: Vec<String>,
}

impl Plan {
    pub(super) fn obey(&self) -> Outcome {
        let resolved = find::resolve(find::find(&self.scenario)?, &self.changes)?;
        let engines = Engines::ask(&resolved, &find::python(self.python.as_deref())?);
        let planned = plan(&resolved, &engines)?;
        match self.format {
            Shape::Json => print(&json(&planned)?)?,
            Shape::Table => print(&in_words(&planned))?,
        }
        Ok(PASS)
    }
}

fn plan<'a>(resolved: &'a ResolvedScenario, engines: &Engines) -> Result<Planned<'a>, Failure> {
    let scenario = &resolved.scenario;
    let models = scenario.models();
    let mut parameters = vec![];
    for part in &models {
        parameters.push(library::architecture_of(part, resolved.file.as_deref()).usage()?.map(|a| a.parameters()));
    }
    let weights_bytes = |cell: &'_ Cell| -> Option<u64> {
        let of = models.iter().position(|part| Some(part) == cell.model.as_ref())?;
        parameters[of].map(|n| (n as f64 * cell.spec.weights.bits_per_weight() / 8.0) as u64)
    };
    let cells: Vec<PlannedCell<'_>> = resolved
        .cells
        .iter()
        .map(|c| PlannedCell {
            id: &c.id,
            label: &c.label,
            role: c.role,
            skipped: c.unsupported.clone().or_else(|| engines.missing(c)),
            weights_bytes: weights_bytes(c),
        })
        .collect();
    let runs: Vec<&Cell> =
        resolved.cells.iter().zip(&cells).filter(|(_, planned)| planned.skipped.is_none()).map(|(c, _)| c).collect();
    Ok(Planned {
        scenario: &scenario.name,
        question: scenario.question.trim(),
        models: models.iter().map(ModelPart::tag).collect(),
        workloads: scenario.workloads.iter().map(Workload::name).collect(),
        workload_plans: workloads(resolved, &runs),
        claims: scenario.claims.iter().map(|c| c.id.as_str()).collect(),
        timed_seconds: scenario.budget.seconds,
        cells,
    })
}

/// What becomes of each workload in the cells `runs`. The second copy of the reference does only what a clock measures.
fn workloads(resolved: &ResolvedScenario, runs: &[&Cell]) -> Vec<PlannedWorkload> {
    let mut forecast = Forecast::default();
    let skips: Vec<_> = runs.iter().map(|cell| forecast.skips(resolved, cell)).collect();
    let of = |workload: &Workload| {
        let name = workload.name();
        let mut planned = PlannedWorkload { name: name.clone(), cells: 0, of: 0, skipped: vec![] };
        for (cell, skips) in runs.iter().zip(&skips) {
            if cell.role == Role::AaControl && !workload.is_timed() {
                continue;
            }
            planned.of += 1;
            let Some(skip) = skips.iter().find(|skip| skip.workload == name) else {
                planned.cells += 1;
                continue;
            };
            match planned.skipped.iter_mut().find(|left_out| left_out.reason == skip.reason) {
                Some(left_out) => left_out.cells.push(cell.id.clone()),
                None => planned.skipped.push(LeftOut { reason: skip.reason.clone(), cells: vec![cell.id.clone()] }),
            }
        }
        planned
    };
    resolved.scenario.workloads.iter().map(of).collect()
}

/// Workloads that no cell will run, with the reason: what a person should know before a run starts.
pub fn never_run(resolved: &ResolvedScenario) -> Vec<String> {
    let runs: Vec<&Cell> = resolved.cells.iter().filter(|cell| cell.unsupported.is_none()).collect();
    let never = |planned: PlannedWorkload| {
        (planned.cells == 0 && planned.of > 0)
            .then(|| format!("{} will be skipped in every cell: {}", planned.name, planned.reasons().join("; ")))
    };
    workloads(resolved, &runs).into_iter().filter_map(never).collect()
}

impl PlannedWorkload {
    fn reasons(&self) -> Vec<&str> {
        self.skipped.iter().map(|left_out| left_out.reason.as_str()).collect()
    }

    fn in_words(&self) -> String {
        match (self.cells, self.of) {
            (_, 0) => "skipped: no cell runs".into(),
            (0, _) => format!("skipped in every cell: {}", self.reasons().join("; ")),
            (n, of) if n == of => format!("runs in {of} {}", if of == 1 { "cell" } else { "cells" }),
            (n, of) => {
                let skipped: Vec<String> = self.skipped.iter().map(LeftOut::in_words).collect();
                format!("runs in {n} of {of} cells; {}", skipped.join("; "))
            }
        }
    }
}

impl LeftOut {
    fn in_words(&self) -> String {
        let cells = match self.cells.as_slice() {
            named if named.len() <= MOST_NAMED => named.join(", "),
            many => format!("{} cells", many.len()),
        };
        format!("skipped in {cells}: {}", self.reason)
    }
}

fn in_words(planned: &Planned<'_>) -> String {
    let role = |role: Role| match role {
        Role::Reference => "reference",
        Role::Candidate => "",
        Role::AaControl => "noise floor",
    };
    let rows = planned.cells.iter().map(|cell| {
        let outcome = cell.skipped.as_ref().map_or("runs".to_string(), |reason| format!("skipped: {reason}"));
        vec![cell.id.to_string(), role(cell.role).into(), cell.weights_bytes.map_or(String::new(), bytes), outcome]
    });
    let cells = table(&["cell", "role", "weights ≈", "here"], rows);
    let rows = planned.workload_plans.iter().map(|workload| vec![workload.name.clone(), workload.in_words()]);
    let workloads = table(&["workload", "here"], rows);
    let skipped = planned.cells.iter().filter(|c| c.skipped.is_some()).count();
    let claims = if planned.claims.is_empty() { "none".into() } else { planned.claims.join(", ") };
    format!(
        "{}\n\n{cells}\n{workloads}\n{} cells run, {skipped} skipped; model: {}; claims: {claims}\ntimed repetitions take at most {} s; building, checking and scoring come on top\n",
        planned.question,
        planned.cells.len() - skipped,
        if planned.models.is_empty() { "none".into() } else { planned.models.join(", ") },
        planned.timed_seconds,
    )
}
