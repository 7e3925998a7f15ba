//! How far a run is, counted in its rows: a summary is written at the start of a run and at its end, rows in between.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::observation::{Observation, Status};
use crate::run::Run;
use crate::summary::{CellSummary, Role, Summary, WorkloadSummary};

/// Cells with rows, per stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Cells that take part: those that were skipped do not.
    pub cells: usize,
    /// Cells that have done every workload that needs no clock; absent where the scenario has none.
    pub scored: Option<usize>,
    /// Cells with at least one repetition of every timed workload; absent where the scenario has none.
    pub timed: Option<usize>,
    /// Fewest repetitions of a timed cell, and how many each is owed.
    pub repetitions: Option<(u32, u32)>,
    /// Cells that still owe a workload or a repetition.
    pub owing: usize,
    /// Rows of the run.
    pub rows: usize,
}

/// What a cell has of one workload.
#[derive(Debug, Clone, Copy)]
enum Done {
    /// So many repetitions with a value.
    Repetitions(u32),
    /// It cannot do it, and says so.
    Refused,
}

impl Progress {
    /// The progress of `run`; `None` where no summary says what was planned.
    pub fn of(run: &Run) -> Option<Progress> {
        let summary = run.summary.as_ref().filter(|summary| !summary.workloads.is_empty())?;
        let done = done(run);
        let cells: Vec<&CellSummary> = summary.cells.iter().filter(|cell| cell.status != Status::Skipped).collect();
        let (timed, scored): (Vec<_>, Vec<_>) = summary.workloads.iter().partition(|workload| workload.timed);
        let repetitions = |cell: &CellSummary, workload: &WorkloadSummary| {
            let id = if workload.timed { &cell.id } else { scored_as(cell, summary) };
            match done.get(&(id, workload.name.as_str())) {
                Some(Done::Repetitions(n)) => *n,
                Some(Done::Refused) => u32::MAX,
                None => 0,
            }
        };
        let least = |cell: &CellSummary, of: &[&WorkloadSummary]| of.iter().map(|w| repetitions(cell, w)).min();
        let having = |of: &[&WorkloadSummary]| {
            (!of.is_empty()).then(|| cells.iter().filter(|cell| least(cell, of).is_some_and(|n| n > 0)).count())
        };
        let owes = |cell: &&&CellSummary| {
            let owes_score = least(cell, &scored) == Some(0);
            owes_score || timed.iter().any(|w| repetitions(cell, w) < w.repetitions)
        };
        let owed = timed.iter().map(|w| w.repetitions).max().unwrap_or(0);
        let fewest = cells.iter().filter_map(|cell| least(cell, &timed)).filter(|n| (1..u32::MAX).contains(n)).min();
        Some(Progress {
            cells: cells.len(),
            scored: having(&scored),
            timed: having(&timed),
            repetitions: fewest.map(|n| (n, owed)),
            owing: cells.iter().filter(owes).count(),
            rows: run.observations.len(),
        })
    }

    /// `12 of 29 cells scored, 0 timed`.
    pub fn in_words(&self) -> String {
        let mut stages = vec![];
        stages.extend(self.scored.map(|n| (n, "scored")));
        stages.extend(self.timed.map(|n| (n, "timed")));
        let mut words = vec![];
        for (n, stage) in stages {
            words.push(match words.is_empty() {
                true => format!("{n} of {} cells {stage}", self.cells),
                false => format!("{n} {stage}"),
            });
        }
        let short = self.repetitions.filter(|(n, owed)| n < owed && self.timed != Some(0));
        let repetitions = short.map(|(n, owed)| format!(" ({n} of at least {owed} repetitions)"));
        words.join(", ") + &repetitions.unwrap_or_default()
    }
}

/// The cell whose likelihoods are this cell's: the control is not scored, because its twin is.
fn scored_as<'a>(cell: &'a CellSummary, summary: &'a Summary) -> &'a str {
    let reference = || summary.cells.iter().find(|other| other.role == Role::Reference);
    match cell.role {
        Role::AaControl => reference().map_or(&cell.id, |reference| &reference.id),
        _ => &cell.id,
    }
}

/// Per cell and workload, what its believable rows say. The last word counts where a cell refused once and ran later.
fn done(run: &Run) -> BTreeMap<(&str, &str), Done> {
    let bad = bad_sittings(&run.observations);
    let mut places: BTreeMap<(&str, &str), BTreeSet<(u32, u32)>> = BTreeMap::new();
    let mut done = BTreeMap::new();
    for row in run.observations.iter().filter(|row| !bad.contains(&(row.cell.as_str(), row.sitting))) {
        let key = (row.cell.as_str(), row.workload.as_str());
        match row.status {
            Status::Ok if row.value.is_some() => {
                let places = places.entry(key).or_default();
                places.insert((row.sitting, row.repetition));
                done.insert(key, Done::Repetitions(places.len() as u32));
            }
            Status::Skipped => _ = done.entry(key).or_insert(Done::Refused),
            _ => {}
        }
    }
    done
}

/// Sittings that ended with a cell wrong or failed: what they measured of that cell is not believed, and is owed again.
pub fn bad_sittings(rows: &[Observation]) -> HashSet<(&str, u32)> {
    let bad = |row: &&Observation| row.workload.is_empty() && matches!(row.status, Status::Wrong | Status::Failed);
    rows.iter().filter(bad).map(|row| (row.cell.as_str(), row.sitting)).collect()
}
