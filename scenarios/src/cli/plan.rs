//! `plan`: what a scenario would run here.

use clap::Args;
use results::summary::Role;
use serde::Serialize;

use super::table::{bytes, table};
use super::{Blame, Failure, Outcome, PASS, Shape, find, json, print};
use crate::cell::{Cell, ResolvedScenario};
use crate::library;
use crate::scenario::{ModelPart, Workload};

/// The command `plan`.
#[derive(Args)]
pub struct Plan {
    /// Name of a scenario, or the path of a .toml file
    #[arg(value_name = "NAME|FILE.toml")]
    scenario: String,
    /// Another value for an axis (weights=f32,int8) or a field (budget.seconds=10)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
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
    skipped: Option<&'a str>,
    /// Estimated bytes of the weights, from the parameter count and the nominal bits per weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    weights_bytes: Option<u64>,
}

impl Plan {
    pub(super) fn obey(&self) -> Outcome {
        let resolved = find::resolve(find::find(&self.scenario)?, &self.sets)?;
        let planned = plan(&resolved)?;
        match self.format {
            Shape::Json => print(&json(&planned)?)?,
            Shape::Table => print(&in_words(&planned))?,
        }
        Ok(PASS)
    }
}

fn plan(resolved: &ResolvedScenario) -> Result<Planned<'_>, Failure> {
    let scenario = &resolved.scenario;
    let models = scenario.models();
    let mut parameters = vec![];
    for part in &models {
        parameters.push(library::architecture_of(part, resolved.file.as_deref()).usage()?.map(|a| a.parameters()));
    }
    let cell = |cell: &'_ Cell| -> Option<u64> {
        let of = models.iter().position(|part| Some(part) == cell.model.as_ref())?;
        parameters[of].map(|n| (n as f64 * cell.spec.weights.bits_per_weight() / 8.0) as u64)
    };
    Ok(Planned {
        scenario: &scenario.name,
        question: scenario.question.trim(),
        models: models.iter().map(ModelPart::tag).collect(),
        workloads: scenario.workloads.iter().map(Workload::name).collect(),
        claims: scenario.claims.iter().map(|c| c.id.as_str()).collect(),
        timed_seconds: scenario.budget.seconds,
        cells: resolved
            .cells
            .iter()
            .map(|c| PlannedCell {
                id: &c.id,
                label: &c.label,
                role: c.role,
                skipped: c.unsupported.as_deref(),
                weights_bytes: cell(c),
            })
            .collect(),
    })
}

fn in_words(planned: &Planned<'_>) -> String {
    let role = |role: Role| match role {
        Role::Reference => "reference",
        Role::Candidate => "",
        Role::AaControl => "noise floor",
    };
    let rows = planned.cells.iter().map(|cell| {
        let outcome = cell.skipped.map_or("runs".to_string(), |reason| format!("skipped: {reason}"));
        vec![cell.id.to_string(), role(cell.role).into(), cell.weights_bytes.map_or(String::new(), bytes), outcome]
    });
    let cells = table(&["cell", "role", "weights ≈", "here"], rows);
    let skipped = planned.cells.iter().filter(|c| c.skipped.is_some()).count();
    let claims = if planned.claims.is_empty() { "none".into() } else { planned.claims.join(", ") };
    format!(
        "{}\n\n{cells}\n{} cells run, {skipped} skipped; model: {}; workloads: {}; claims: {claims}\ntimed repetitions take at most {} s; building, checking and scoring come on top\n",
        planned.question,
        planned.cells.len() - skipped,
        if planned.models.is_empty() { "none".into() } else { planned.models.join(", ") },
        planned.workloads.join(", "),
        planned.timed_seconds,
    )
}
