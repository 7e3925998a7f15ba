//! From traces to rows: the columns that a trace does not know.

use results::metric::observe;
use results::observation::{Direction, Observation, Status};
use results::trace::Trace;

use crate::cell::{Cell, ResolvedScenario};

/// Metric of the row that says how a cell ended.
pub const CELL_STATUS: &str = "cell_status";

/// Makes rows of one run.
pub struct Rows {
    /// Run id.
    pub run_id: String,
    scenario: String,
    /// Sitting of this process.
    pub sitting: u32,
    threads: u32,
    seed: u64,
}

impl Rows {
    /// Rows of `run_id`.
    pub fn new(run_id: &str, scenario: &ResolvedScenario, sitting: u32, threads: usize) -> Rows {
        let s = &scenario.scenario;
        Rows { run_id: run_id.into(), scenario: s.name.clone(), sitting, threads: threads as u32, seed: s.seed }
    }

    /// Rows of a trace of `cell`; the trace may come from another cell of its group.
    pub fn of(&self, trace: &Trace, cell: &Cell, kernel_path: &str) -> Vec<Observation> {
        let mut base = self.base(cell);
        base.kernel_path = kernel_path.into();
        let mut trace = trace.clone();
        trace.cell = cell.id.clone();
        observe(&trace, &base)
    }

    /// The row that says how a cell, or one workload of it, ended.
    pub fn status(&self, cell: &Cell, status: Status, reason: &str) -> Observation {
        Observation { status, reason: reason.into(), ..self.base(cell) }
    }

    fn base(&self, cell: &Cell) -> Observation {
        Observation {
            run_id: self.run_id.clone(),
            scenario: self.scenario.clone(),
            cell: cell.id.clone(),
            axes: cell.axes.clone(),
            workload: String::new(),
            sitting: self.sitting,
            repetition: 0,
            item: 0,
            metric: CELL_STATUS.into(),
            formula_id: "cell_status@1".into(),
            unit: String::new(),
            direction: Direction::None,
            value: None,
            x: None,
            status: Status::Ok,
            reason: String::new(),
            threads: self.threads,
            kernel_path: String::new(),
            seed: self.seed,
        }
    }
}

/// The printed word of a status.
pub fn word(status: Status) -> &'static str {
    match status {
        Status::Ok => "ok",
        Status::Wrong => "wrong",
        Status::Failed => "failed",
        Status::Skipped => "skipped",
    }
}
