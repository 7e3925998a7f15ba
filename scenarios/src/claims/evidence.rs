//! Rows that may be believed, found by the tags of their cell.

use std::collections::BTreeSet;

use results::aggregate::{Aggregate, aggregate};
use results::observation::{Axes, Direction, Observation, Status};
use results::run::Run;
use results::summary::Role;

use crate::cell::{Cell, ResolvedScenario};
use crate::scenario::{Measure, Select};

/// Where the rows of a run against another build have their cells.
pub const HEAD: &str = "head/";

/// The rows of one run.
pub struct Evidence<'a> {
    scenario: &'a ResolvedScenario,
    run: &'a Run,
}

impl<'a> Evidence<'a> {
    /// Evidence for the claims of `scenario`.
    pub fn new(scenario: &'a ResolvedScenario, run: &'a Run) -> Evidence<'a> {
        Evidence { scenario, run }
    }

    /// The cell that `select` names. Axes it leaves open are the reference's.
    /// Of another engine, the one cell that has the tags it names.
    pub fn cell(&self, select: &Select) -> Result<&'a Cell, String> {
        if let Some(engine) = &select.engine {
            let fits = |wanted: &Option<String>, tag: &String| wanted.as_ref().is_none_or(|w| w == tag);
            let of = |a: &Axes| {
                a.engine == *engine
                    && fits(&select.attention, &a.attention)
                    && fits(&select.weights, &a.weights)
                    && fits(&select.kv, &a.kv)
            };
            let found: Vec<&Cell> = self.scenario.cells.iter().filter(|c| of(&c.axes)).collect();
            return match found[..] {
                [cell] => Ok(cell),
                [] => Err(format!("the scenario has no such cell of {engine}")),
                _ => Err(format!(
                    "{} cells of {engine} fit the claim ({}): it must name the attention, weights or kv that tell them apart",
                    found.len(),
                    found.iter().map(|cell| cell.label.as_str()).collect::<Vec<_>>().join(", ")
                )),
            };
        }
        let reference = &self.scenario.reference().axes;
        let wanted = [
            &reference.engine,
            select.model.as_ref().unwrap_or(&reference.model),
            select.attention.as_ref().unwrap_or(&reference.attention),
            select.weights.as_ref().unwrap_or(&reference.weights),
            select.kv.as_ref().unwrap_or(&reference.kv),
            select.decoding.as_ref().unwrap_or(&reference.decoding),
            select.device.as_ref().unwrap_or(&reference.device),
        ];
        let tags = |a: &'a Axes| [&a.engine, &a.model, &a.attention, &a.weights, &a.kv, &a.decoding, &a.device];
        let mut cells = self.scenario.cells.iter().filter(|c| c.role != Role::AaControl);
        cells.find(|c| tags(&c.axes) == wanted).ok_or_else(|| {
            let tags: Vec<&str> = wanted.iter().map(|tag| tag.as_str()).collect();
            format!("the scenario has no cell {}", tags.join("+"))
        })
    }

    /// Whether `measure` looks at a cell that was skipped because it needs a GPU.
    pub fn wants_absent_gpu(&self, measure: &Measure) -> bool {
        let absent = |cell: &Cell| cell.spec.device.is_gpu() && cell.unsupported.is_some();
        measure.selections().into_iter().any(|(_, select)| self.cell(select).is_ok_and(absent))
    }

    /// Believable rows of `cell`: measured, in a sitting that did not end with the cell wrong or failed.
    pub fn rows(&self, cell: &Cell) -> Vec<Observation> {
        let of_cell = || self.run.observations.iter().filter(|row| is_of(row, cell));
        let is_cell_status =
            |row: &&Observation| row.workload.is_empty() && matches!(row.status, Status::Wrong | Status::Failed);
        let bad: Vec<u32> = of_cell().filter(is_cell_status).map(|row| row.sitting).collect();
        let good = |row: &&Observation| row.status == Status::Ok && row.value.is_some() && !bad.contains(&row.sitting);
        of_cell().filter(good).cloned().collect()
    }

    /// Rows of one metric of `cell` under one workload; where none is named, under the only one that has the metric.
    pub fn metric(&self, cell: &Cell, workload: Option<&str>, metric: &str) -> Result<Vec<Observation>, String> {
        let mut rows = self.rows(cell);
        rows.retain(|row| row.metric == metric && workload.is_none_or(|name| row.workload == name));
        if rows.is_empty() {
            return Err(self.why_missing(cell, workload, metric));
        }
        one_workload(&rows, cell, metric)?;
        Ok(rows)
    }

    /// `pattern` itself, or, where it holds a `*`, the metric of `cell` with the best median among those that begin and end
    /// like it: the best rung of a ladder, `us_per_call:gemv/*_panel/1x64x64`.
    pub fn best_named(&self, cell: &Cell, pattern: &str) -> Result<String, String> {
        let Some((begin, end)) = pattern.split_once('*') else { return Ok(pattern.into()) };
        let mut rows = self.rows(cell);
        rows.retain(|row| row.metric.len() >= begin.len() + end.len());
        rows.retain(|row| row.metric.starts_with(begin) && row.metric.ends_with(end));
        let worth = |row: &Aggregate| match row.direction {
            Direction::Lower => row.median.map(|median| -median),
            _ => row.median,
        };
        let medians = aggregate(&rows).into_iter().filter_map(|row| Some((worth(&row)?, row.metric)));
        let best = medians.max_by(|a, b| a.0.total_cmp(&b.0));
        best.map(|(_, metric)| metric).ok_or_else(|| self.why_missing(cell, None, pattern))
    }

    /// Why `cell` has no row of `metric`.
    pub fn why_missing(&self, cell: &Cell, workload: Option<&str>, metric: &str) -> String {
        let label = &cell.label;
        if let Some(reason) = &cell.unsupported {
            return format!("the cell {label} was skipped: {reason}");
        }
        // the last word counts: a cell that failed in one sitting may have run in the next
        let concerns = |row: &&Observation| row.workload.is_empty() || workload.is_none_or(|name| row.workload == name);
        let bad = self
            .run
            .observations
            .iter()
            .rev()
            .filter(|row| is_of(row, cell) && row.status != Status::Ok)
            .find(concerns);
        match bad {
            Some(row) => format!("the cell {label} was {}: {}", word(row.status), row.reason),
            None => format!(
                "the cell {label} has no `{metric}`{}",
                workload.map_or(String::new(), |w| format!(" under {w}"))
            ),
        }
    }
}

/// An error where `rows` come from several workloads: a claim is about one of them and must say which.
pub fn one_workload(rows: &[Observation], cell: &Cell, metric: &str) -> Result<(), String> {
    let names: BTreeSet<&str> = rows.iter().map(|row| row.workload.as_str()).collect();
    match names.len() {
        0 | 1 => Ok(()),
        _ => Err(format!(
            "`{metric}` of {} was measured under {}: the claim must name one of them as its `workload`",
            cell.label,
            names.into_iter().collect::<Vec<_>>().join(" and ")
        )),
    }
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Ok => "measured",
        Status::Wrong => "wrong",
        Status::Failed => "stopped by a failure",
        Status::Skipped => "skipped",
    }
}

fn is_of(row: &Observation, cell: &Cell) -> bool {
    row.cell.strip_prefix(HEAD).unwrap_or(&row.cell) == cell.id
}
