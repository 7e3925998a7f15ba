//! What the statistics promise, counted: false alarms, slow-downs that are found, intervals that cover.
//!
//! Runs of a machine that others use too are forged in virtual time, so that the truth is known and no clock is read. From the trace
//! on they take the way of real rows: metrics, comparison, the word of the report's tables and the verdict of the gate.

mod machine;

use results::aggregate::{Comparison, compare};
use results::observation::{Axes, Observation, SCHEMA_VERSION, Status};
use results::run::Run;
use results::statistics::Resolution;
use results::summary::{CellSummary, Role, Summary};

use crate::runner::timing::order;
use machine::{SharedMachine, Turns, measure};

/// Runs without a difference.
pub const EQUAL_RUNS: u64 = 2_000;
/// Runs with a slow-down.
pub const SLOW_RUNS: u64 = 400;
/// The slow-down.
pub const SLOWDOWN: f64 = 0.03;
/// Repetitions of the runs without a difference, in turn: from the fewest that say anything to many.
const REPETITIONS: [u32; 6] = [5, 6, 8, 12, 20, 40];
/// Seconds of the pilot from which the number of repetitions is asked.
const PILOT_SECONDS: f64 = 60.0;
/// A number of repetitions that nobody would run ends the wait for it.
const MOST_PAIRS: usize = 5_000;

const REFERENCE: &str = "reference";
const CANDIDATE: &str = "candidate";
const CONTROL: &str = "reference#aa";

/// What came of many runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// Runs without a difference in which the report said better or worse, or the gate saw a regression.
    pub false_alarms: u64,
    /// Runs with a slow-down in which the report said worse and the gate saw a regression.
    pub caught: u64,
    /// Intervals, and those that held the true ratio.
    pub intervals: u64,
    /// See `intervals`.
    pub covered: u64,
    /// Repetitions that the program asked for: fewest, middle, most.
    pub asked: [usize; 3],
}

impl Figures {
    /// Share of false alarms.
    pub fn alarm_rate(&self) -> f64 {
        self.false_alarms as f64 / EQUAL_RUNS as f64
    }

    /// Share of slow-downs that were found.
    pub fn catch_rate(&self) -> f64 {
        self.caught as f64 / SLOW_RUNS as f64
    }

    /// Share of intervals that held the truth.
    pub fn coverage(&self) -> f64 {
        self.covered as f64 / self.intervals as f64
    }

    /// Whether all three are what is promised.
    pub fn hold(&self) -> bool {
        self.alarm_rate() <= 0.01 && self.catch_rate() >= 0.95 && (0.93..=0.97).contains(&self.coverage())
    }
}

/// Counts all three.
pub fn figures() -> anyhow::Result<Figures> {
    let policy = ci::policy::Policy::shipped()?;
    let equal = many(EQUAL_RUNS, |run| {
        let judged = Judged::of(&equal_run(run, order), &policy);
        (judged.is_alarm(), judged.covers(1.0))
    });
    let slow = many(SLOW_RUNS, |run| {
        let (rows, asked) = slow_run(run);
        let judged = Judged::of(&rows, &policy);
        (judged.is_caught(), judged.covers(1.0 + SLOWDOWN), asked)
    });
    let mut asked: Vec<usize> = slow.iter().map(|(_, _, asked)| *asked).collect();
    asked.sort_unstable();
    let count = |n: usize| n as u64;
    Ok(Figures {
        false_alarms: count(equal.iter().filter(|(alarm, _)| *alarm).count()),
        caught: count(slow.iter().filter(|(caught, ..)| *caught).count()),
        intervals: count(equal.len() + slow.len()),
        covered: count(equal.iter().filter(|(_, covers)| *covers).count() + slow.iter().filter(|r| r.1).count()),
        asked: [asked[0], asked[asked.len() / 2], asked[asked.len() - 1]],
    })
}

/// Reference, candidate of the same cost, and control.
fn equal_run(run: u64, turns: Turns) -> Vec<Observation> {
    let rounds = REPETITIONS[run as usize % REPETITIONS.len()];
    let cells = [(CANDIDATE, 1.0), (REFERENCE, 1.0), (CONTROL, 1.0)];
    measure(&mut SharedMachine::new(run), &cells, turns, run, |round, _| round < rounds)
}

/// A pilot of as many cells, as `doctor --resolution` runs it, then the run of a slower candidate with as many repetitions as the pilot asks for, which come back too.
fn slow_run(run: u64) -> (Vec<Observation>, usize) {
    let machine = &mut SharedMachine::new(1_000_000 + run);
    let cells = [(CANDIDATE, 1.0 + SLOWDOWN), (REFERENCE, 1.0), (CONTROL, 1.0)];
    let pilot = measure(machine, &cells, order, run, |_, seconds| seconds < PILOT_SECONDS);
    let resolution = comparison(&pilot, CONTROL).and_then(|c| Resolution::of_copies(&c.ratio?));
    let asked = resolution.and_then(|found| found.pairs_for(SLOWDOWN)).unwrap_or(MOST_PAIRS).min(MOST_PAIRS);
    let rows = measure(machine, &cells, order, !run, |round, _| (round as usize) < asked);
    (rows, asked)
}

fn comparison(rows: &[Observation], cell: &str) -> Option<Comparison> {
    compare(rows, REFERENCE).into_iter().find(|c| c.cell == cell)
}

/// What the program says of a run.
struct Judged {
    candidate: Option<Comparison>,
    word: &'static str,
    regression: bool,
}

impl Judged {
    fn of(rows: &[Observation], policy: &ci::policy::Policy) -> Judged {
        let candidate = comparison(rows, CANDIDATE);
        let floor = comparison(rows, CONTROL).and_then(|c| c.reach()).unwrap_or(0.0);
        let word = candidate.as_ref().map_or("", |c| report::word(c, floor));
        let report = ci::check_interleaved(&interleaved(rows), policy);
        let regression = report.gates.iter().any(|gate| gate.outcome == ci::verdict::Outcome::Regression);
        Judged { candidate, word, regression }
    }

    fn is_alarm(&self) -> bool {
        self.word == "worse" || self.word == "better" || self.regression
    }

    fn is_caught(&self) -> bool {
        self.word == "worse" && self.regression
    }

    fn covers(&self, truth: f64) -> bool {
        let ratio = self.candidate.as_ref().and_then(|c| c.ratio);
        ratio.is_some_and(|r| r.low <= truth && truth <= r.high)
    }
}

/// The reference and the candidate as base and head of one job.
fn interleaved(rows: &[Observation]) -> Run {
    let sides = [(REFERENCE, "base/cell"), (CANDIDATE, "head/cell")];
    let named = |row: &Observation| {
        let (_, side) = sides.iter().find(|(cell, _)| row.cell == *cell)?;
        Some(Observation { cell: (*side).into(), ..row.clone() })
    };
    let cell = |(_, side): &(&str, &str)| CellSummary {
        id: (*side).into(),
        label: (*side).into(),
        axes: Axes::default(),
        role: Role::Candidate,
        status: Status::Ok,
        reason: String::new(),
    };
    let summary = Summary {
        schema_version: SCHEMA_VERSION,
        run_id: "self-test".into(),
        scenario: "self-test".into(),
        question: String::new(),
        analysis: String::new(),
        answer: vec![],
        caveats: vec![],
        models: vec![],
        cells: sides.iter().map(cell).collect(),
        command: String::new(),
        started: String::new(),
        elapsed_s: 0.0,
        complete: true,
        ending: None,
        missing: vec![],
        workloads: vec![],
        continue_with: String::new(),
    };
    Run { observations: rows.iter().filter_map(named).collect(), summary: Some(summary), ..Run::default() }
}

/// `task` of every number below `n`, in their order, on all processors.
fn many<T: Send>(n: u64, task: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let task = &task;
    let mut done: Vec<(u64, T)> = std::thread::scope(|scope| {
        let start = |first| scope.spawn(move || (first..n).step_by(threads as usize).map(|i| (i, task(i))).collect());
        let workers: Vec<std::thread::ScopedJoinHandle<'_, Vec<(u64, T)>>> = (0..threads).map(start).collect();
        // a worker that panicked has said why; the panic goes on here
        workers.into_iter().flat_map(|w| w.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, value)| value).collect()
}

#[cfg(test)]
mod tests;
