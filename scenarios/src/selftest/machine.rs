//! A machine that others use too, in virtual time: what disturbs its clock, and the runs that are measured on it.

use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use results::metric::observe;
use results::observation::{Axes, Direction, Observation, Status};
use results::trace::{Event, Trace, Work};

/// Seconds that a repetition of the reference takes undisturbed.
const REPETITION: f64 = 0.2;
/// Seconds between two looks at what the machine does.
const TICK: f64 = 0.05;
/// Drift of the clock frequency: this share up and down, once in [`DRIFT_PERIOD`] seconds.
const DRIFT: f64 = 0.10;
const DRIFT_PERIOD: f64 = 400.0;
/// Autocorrelated noise: its standard deviation, and what is left of it after a tick.
const WANDER: f64 = 0.03;
const MEMORY: f64 = 0.95;
/// Neighbours: mean seconds between bursts of theirs, mean seconds of one; each slows the machine by 10 to 100 %.
const BURST_EVERY: f64 = 15.0;
const BURST_LENGTH: f64 = 2.0;
/// Interruptions: share of repetitions, scale as a share of a repetition, exponent of the Pareto tail (infinite variance below 2).
const SPIKES: f64 = 0.05;
const SPIKE: f64 = 0.02;
const SPIKE_TAIL: f64 = 1.5;
/// Jitter of every repetition.
const JITTER: f64 = 0.005;
/// The first cell of a round starts after the runner has written rows: colder caches, a lower frequency.
const FIRST_OF_ROUND: f64 = 0.01;

/// The disturbed machine.
pub struct SharedMachine {
    rng: ChaCha8Rng,
    now: f64,
    phase: f64,
    wander: f64,
    burst: f64,
    burst_from: f64,
    burst_until: f64,
}

impl SharedMachine {
    /// A machine whose disturbances follow from `seed`.
    pub fn new(seed: u64) -> SharedMachine {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let phase = rng.random::<f64>() * std::f64::consts::TAU;
        let mut machine =
            SharedMachine { rng, now: 0.0, phase, wander: 0.0, burst: 1.0, burst_from: 0.0, burst_until: 0.0 };
        machine.wander = WANDER * machine.normal();
        machine.next_burst();
        machine
    }

    /// Seconds since it was started.
    pub fn now(&self) -> f64 {
        self.now
    }

    fn normal(&mut self) -> f64 {
        let (u, v): (f64, f64) = (self.rng.random(), self.rng.random());
        (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.rng.random::<f64>()).ln()
    }

    fn next_burst(&mut self) {
        self.burst_from = self.now + self.exponential(BURST_EVERY);
        self.burst_until = self.burst_from + self.exponential(BURST_LENGTH);
        self.burst = 1.1 + 0.9 * self.rng.random::<f64>();
    }

    /// How many times as long everything takes at this moment.
    fn slowness(&mut self) -> f64 {
        self.wander = MEMORY * self.wander + (1.0 - MEMORY * MEMORY).sqrt() * WANDER * self.normal();
        if self.now >= self.burst_until {
            self.next_burst();
        }
        let burst = if self.now >= self.burst_from { self.burst } else { 1.0 };
        let drift = DRIFT * (std::f64::consts::TAU * self.now / DRIFT_PERIOD + self.phase).sin();
        burst * (drift + self.wander).exp()
    }

    /// Seconds that `work` undisturbed seconds take now; time goes on by them.
    fn take(&mut self, work: f64, first_of_round: bool) -> f64 {
        let start = self.now;
        let mut left = work * (1.0 + JITTER * self.normal()).max(0.5);
        if first_of_round {
            left *= 1.0 + FIRST_OF_ROUND;
        }
        if self.rng.random::<f64>() < SPIKES {
            let size = (1.0 - self.rng.random::<f64>()).powf(-1.0 / SPIKE_TAIL);
            left += work * (SPIKE * size).min(20.0);
        }
        while left > 0.0 {
            let slowness = self.slowness();
            let done = (TICK / slowness).min(left);
            self.now += done * slowness;
            left -= done;
        }
        self.now - start
    }
}

/// The order of the cells in each round: the runner's, unless a test wants a worse one.
pub type Turns = fn(usize, &mut ChaCha8Rng) -> Vec<usize>;

/// Cells that are measured: id and cost.
pub type Costs<'a> = &'a [(&'a str, f64)];

/// The rows of rounds on `machine`, made as the runner makes them (a trace per repetition, the registry's metrics of each trace), as
/// long as `more(rounds, seconds)` says.
pub fn measure(
    machine: &mut SharedMachine,
    cells: Costs<'_>,
    turns: Turns,
    seed: u64,
    mut more: impl FnMut(u32, f64) -> bool,
) -> Vec<Observation> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let start = machine.now();
    let mut rows = vec![];
    let mut round = 0;
    while more(round, machine.now() - start) {
        for (turn, at) in turns(cells.len(), &mut rng).into_iter().enumerate() {
            let (cell, cost) = cells[at];
            let seconds = machine.take(REPETITION * cost, turn == 0);
            rows.extend(observe(&trace(cell, round, seconds), &blank()));
        }
        round += 1;
    }
    rows
}

fn trace(cell: &str, repetition: u32, seconds: f64) -> Trace {
    let timed = Event::Kernel {
        op: "counted-loop".into(),
        rung: "scalar".into(),
        shape: "virtual".into(),
        calls: 1,
        duration_ns: (seconds * 1e9).round() as u64,
        work: Work::default(),
    };
    Trace { cell: cell.into(), workload: "known-answer".into(), repetition, events: vec![timed], roof: None }
}

/// The columns that a trace does not know.
fn blank() -> Observation {
    Observation {
        run_id: "self-test".into(),
        scenario: "self-test".into(),
        cell: String::new(),
        axes: Axes::default(),
        workload: String::new(),
        sitting: 0,
        repetition: 0,
        item: 0,
        metric: String::new(),
        formula_id: String::new(),
        unit: String::new(),
        direction: Direction::None,
        value: None,
        x: None,
        status: Status::Ok,
        reason: String::new(),
        threads: 1,
        kernel_path: String::new(),
        seed: 1,
    }
}
