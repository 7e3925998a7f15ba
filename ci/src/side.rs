//! One side of a check: a run, with a summary even where the run was killed before it wrote one.

use std::borrow::Cow;
use std::collections::BTreeMap;

use results::observation::{SCHEMA_VERSION, Status};
use results::run::Run;
use results::summary::{CellSummary, Role, Summary};

/// A run and what it was about.
#[derive(Debug, Clone)]
pub struct Side<'a> {
    /// The run.
    pub run: &'a Run,
    /// Its summary, or what its rows say in the place of one; then it is not complete.
    pub summary: Cow<'a, Summary>,
}

impl<'a> From<&'a Run> for Side<'a> {
    fn from(run: &'a Run) -> Self {
        let summary = match &run.summary {
            Some(summary) => Cow::Borrowed(summary),
            None => Cow::Owned(from_rows(run)),
        };
        Self { run, summary }
    }
}

impl Side<'_> {
    /// The cell with this id.
    pub fn cell(&self, id: &str) -> Option<&CellSummary> {
        self.summary.cells.iter().find(|cell| cell.id == id)
    }

    /// Whether the cell was measured and is right.
    pub fn is_ok(&self, id: &str) -> bool {
        self.cell(id).is_some_and(|cell| cell.status == Status::Ok)
    }
}

fn from_rows(run: &Run) -> Summary {
    let mut cells: BTreeMap<&str, CellSummary> = BTreeMap::new();
    for row in &run.observations {
        let cell = cells.entry(&row.cell).or_insert_with(|| CellSummary {
            id: row.cell.clone(),
            label: row.cell.clone(),
            axes: row.axes.clone(),
            role: Role::Candidate,
            status: Status::Ok,
            reason: String::new(),
        });
        if row.status != Status::Ok {
            cell.status = row.status;
            cell.reason = row.reason.clone();
        }
    }
    let first = run.observations.first();
    Summary {
        schema_version: SCHEMA_VERSION,
        run_id: first.map(|row| row.run_id.clone()).unwrap_or_default(),
        scenario: first.map(|row| row.scenario.clone()).unwrap_or_default(),
        question: String::new(),
        analysis: String::new(),
        answer: Vec::new(),
        caveats: Vec::new(),
        models: Vec::new(),
        cells: cells.into_values().collect(),
        command: String::new(),
        started: String::new(),
        elapsed_s: 0.0,
        complete: false,
        ..Summary::default()
    }
}
