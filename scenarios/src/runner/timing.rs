//! Timed repetitions: warm up until stable, then A B C A B C …, in a new order each round, until every interval is
//! narrow enough or the budget is spent.

use std::collections::{HashMap, HashSet};

use anyhow::Result;
use rand::{SeedableRng, rngs::ChaCha8Rng, seq::SliceRandom};
use results::observation::Status;
use results::statistics::median_interval;
use results::trace::{Event, Trace};

use super::Session;
use super::batch::batches;
use super::process::{Worker, reason};
use super::quality::{build_command, failed_checks, spoken};
use crate::protocol::{Command, Reply};
use crate::stopwatch::Stopwatch;

/// Warm-up ends when two runs in a row differ by less than this share, or after `WARM_UP_RUNS`.
const STABLE: f64 = 0.05;
const WARM_UP_RUNS: usize = 6;
/// Repetition numbers of batch b start at b times this: repetitions pair inside a batch only.
const BATCH_STRIDE: u32 = 1_000_000;
/// A budget that cannot even hold the smallest number of repetitions is overrun by this factor at most.
const OVERRUN: f64 = 4.0;

/// A cell with its worker and what it has measured so far, per timed workload.
struct Timed {
    index: usize,
    worker: Worker,
    durations: Vec<Vec<f64>>,
    /// Workloads that the cell refused.
    refused: Vec<bool>,
}

/// Times everything that is still owed.
pub fn time(session: &mut Session) -> Result<()> {
    let workloads = timed_workloads(session);
    if workloads.is_empty() {
        return Ok(());
    }
    let batches = batches(session);
    if batches.len() > 1 {
        session.caveat(format!("memory holds {} batches of cells, not all at once: each batch is interleaved with the reference, cells of different batches are not", batches.len()))?;
    }
    let share = session.scenario.scenario.budget.seconds / batches.len().max(1) as f64;
    for (number, batch) in batches.iter().enumerate() {
        let done = rounds_done(session, batch, &workloads);
        if done >= session.scenario.scenario.budget.max_repetitions {
            continue;
        }
        let mut timed = start(session, batch, workloads.len())?;
        warm_up(session, &mut timed, &workloads)?;
        let rounds = Rounds { base: number as u32 * BATCH_STRIDE, done, seconds: share };
        rounds.run(session, &mut timed, &workloads)?;
        verify_again(session, &mut timed)?;
    }
    Ok(())
}

/// Whether anything is still to be timed, as far as can be told before cells are verified.
pub fn remains(session: &Session) -> bool {
    let workloads = timed_workloads(session);
    let running: Vec<usize> = (0..session.live.len()).filter(|&i| session.live[i].runs()).collect();
    !workloads.is_empty()
        && rounds_done(session, &running, &workloads) < session.scenario.scenario.budget.max_repetitions
}

/// Numbers of the workloads that a clock measures.
fn timed_workloads(session: &Session) -> Vec<usize> {
    let workloads = &session.scenario.scenario.workloads;
    (0..workloads.len()).filter(|&w| workloads[w].is_timed()).collect()
}

/// Rounds of earlier sittings that are whole: every cell of `batch` has every workload there, so that all of them pair.
/// The next round gets their number as its repetition, so that what depends on it (prompts, checks of the first) comes once.
fn rounds_done(session: &Session, batch: &[usize], workloads: &[usize]) -> u32 {
    let mut places: HashMap<(&str, &str), HashSet<(u32, u32)>> = HashMap::new();
    let mut refused: HashSet<(&str, &str)> = HashSet::new();
    for row in &session.before.observations {
        let key = (row.cell.as_str(), row.workload.as_str());
        match row.status {
            Status::Ok if !session.bad.contains(&(row.cell.clone(), row.sitting)) => {
                places.entry(key).or_default().insert((row.sitting, row.repetition));
            }
            Status::Skipped => _ = refused.insert(key),
            _ => {}
        }
    }
    let names: Vec<String> = workloads.iter().map(|&w| session.scenario.scenario.workloads[w].name()).collect();
    let cells = batch.iter().map(|&index| session.live[index].cell.id.as_str());
    let pairs = cells.flat_map(|cell| names.iter().map(move |name| (cell, name.as_str())));
    let whole = pairs
        .filter(|key| !refused.contains(key) || places.contains_key(key))
        .map(|key| places.get(&key).cloned().unwrap_or_default())
        .reduce(|whole, of_pair| &whole & &of_pair);
    whole.map_or(0, |whole| whole.len() as u32)
}

fn start(session: &mut Session, batch: &[usize], n_workloads: usize) -> Result<Vec<Timed>> {
    session.show.phase("building", batch.len());
    let mut timed = vec![];
    for &index in batch {
        let live = &session.live[index];
        let (id, cells) = (live.cell.id.clone(), vec![live.plain_id.clone()]);
        let started = session.programs[live.program].start().and_then(|mut worker| {
            let reply = spoken(session, &mut worker, &id, &Command::Build(build_command(session, cells, false)))?;
            Ok((worker, reply))
        });
        match started {
            Ok((worker, Reply::Built { trace, kernel_path, .. })) => {
                session.live[index].kernel_path = kernel_path;
                append(session, index, &trace)?;
                timed.push(Timed {
                    index,
                    worker,
                    durations: vec![vec![]; n_workloads],
                    refused: vec![false; n_workloads],
                });
            }
            Ok((_, other)) => session.mark(index, Status::Failed, &reason(&other))?,
            Err(error) => {
                let fault = session.fault(error)?;
                session.mark(index, Status::Failed, &fault)?;
            }
        }
        session.show.step();
    }
    Ok(timed)
}

/// Rows of a trace, and the end of the cell where a check in it failed.
fn append(session: &mut Session, index: usize, trace: &Trace) -> Result<()> {
    let end = failed_checks(trace).map(|wrong| (Status::Wrong, wrong));
    session.keep(vec![(index, session.rows_of(index, trace), end)])
}

/// One run of one workload on one cell; a worker that dies or fails takes its cell out.
fn one(
    session: &mut Session,
    timed: &mut Timed,
    slot: usize,
    workload: usize,
    repetition: u32,
) -> Result<Option<Trace>> {
    let id = session.live[timed.index].cell.id.clone();
    match spoken(session, &mut timed.worker, &id, &Command::Run { workload, repetition, roof: session.roof }) {
        Ok(Reply::Trace { trace, facts }) => {
            session.state(&id, &facts)?;
            match failed_checks(&trace) {
                None => Ok(Some(trace)),
                Some(_) => append(session, timed.index, &trace).map(|()| None),
            }
        }
        Ok(Reply::Refused { reason }) => {
            timed.refused[slot] = true;
            let live = &session.live[timed.index];
            let mut row = session.rows.status(&live.cell, Status::Skipped, &reason);
            row.workload = session.scenario.scenario.workloads[workload].name();
            session.directory.append(&[row])?;
            Ok(None)
        }
        Ok(other) => session.mark(timed.index, Status::Failed, &reason(&other)).map(|()| None),
        Err(error) => {
            let fault = session.fault(error)?;
            session.mark(timed.index, Status::Failed, &fault).map(|()| None)
        }
    }
}

fn warm_up(session: &mut Session, timed: &mut [Timed], workloads: &[usize]) -> Result<()> {
    session.show.phase("warming up", timed.len());
    for cell in timed.iter_mut() {
        for (slot, &workload) in workloads.iter().enumerate() {
            let mut last = f64::INFINITY;
            for _ in 0..WARM_UP_RUNS {
                if session.live[cell.index].status != Status::Ok || cell.refused[slot] {
                    break;
                }
                let Some(trace) = one(session, cell, slot, workload, 0)? else { break };
                let now = duration(&trace);
                if (now / last - 1.0).abs() < STABLE {
                    break;
                }
                last = now;
            }
        }
        session.show.step();
    }
    Ok(())
}

/// The rounds of one batch in this sitting.
struct Rounds {
    /// Number of the batch's first repetition.
    base: u32,
    /// Whole rounds of earlier sittings.
    done: u32,
    /// Seconds to spend.
    seconds: f64,
}

impl Rounds {
    fn run(&self, session: &mut Session, timed: &mut [Timed], workloads: &[usize]) -> Result<()> {
        let budget = session.scenario.scenario.budget.clone();
        // another order than in the rounds of earlier sittings
        let seed = session.scenario.scenario.seed ^ u64::from(self.base) ^ (u64::from(self.done) << 32);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let clock = Stopwatch::start();
        session.show.phase("timing", (budget.max_repetitions - self.done) as usize);
        for round in self.done..budget.max_repetitions {
            let owed = round < budget.min_repetitions;
            let over = clock.seconds() > if owed { self.seconds * OVERRUN } else { self.seconds };
            if over {
                return self.out_of_time(session, round, clock.seconds());
            }
            session.raise_roofs()?;
            for (slot, &workload) in workloads.iter().enumerate() {
                if owed || !all_settled(session, timed, slot) {
                    interleaved(session, timed, (slot, workload), self.base + round, &mut rng)?;
                }
            }
            session.show.step();
            if !owed && (0..workloads.len()).all(|slot| all_settled(session, timed, slot)) {
                break;
            }
        }
        Ok(())
    }

    /// The budget is spent after `round` of all rounds: what is owed is said at the end, from the rows.
    fn out_of_time(&self, session: &mut Session, round: u32, spent: f64) -> Result<()> {
        let budget = &session.scenario.scenario.budget;
        let missing = budget.min_repetitions.saturating_sub(round);
        if missing > 0 {
            // as long as the missing rounds take at the pace of this sitting
            let pace = spent / f64::from((round - self.done).max(1));
            session.seconds_owed = session.seconds_owed.max(budget.seconds).max(pace * f64::from(missing));
            return Ok(());
        }
        let seconds = self.seconds;
        session.caveat(format!("timing stopped after {round} repetitions with its budget of {seconds:.0} s spent; intervals are as wide as they are"))
    }
}

/// Whether one workload needs no more repetitions of any cell.
fn all_settled(session: &Session, timed: &[Timed], slot: usize) -> bool {
    let precision = session.scenario.scenario.budget.precision;
    let settled = |t: &Timed| {
        t.refused[slot] || session.live[t.index].status != Status::Ok || is_precise(&t.durations[slot], precision)
    };
    timed.iter().all(settled)
}

/// One repetition of one workload on every cell, in a new order.
fn interleaved(
    session: &mut Session,
    timed: &mut [Timed],
    (slot, workload): (usize, usize),
    repetition: u32,
    rng: &mut ChaCha8Rng,
) -> Result<()> {
    for at in order(timed.len(), rng) {
        let cell = &mut timed[at];
        if session.live[cell.index].status != Status::Ok || cell.refused[slot] {
            continue;
        }
        let Some(trace) = one(session, cell, slot, workload, repetition)? else { continue };
        append(session, cell.index, &trace)?;
        cell.durations[slot].push(duration(&trace));
        let id = &session.live[cell.index].cell.id;
        session.show.timed(id, &trace);
    }
    Ok(())
}

/// The order of one round: random, so that what disturbs a moment disturbs no cell more than another.
pub(crate) fn order(cells: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..cells).collect();
    order.shuffle(rng);
    order
}

fn verify_again(session: &mut Session, timed: &mut [Timed]) -> Result<()> {
    session.show.phase("verifying again", timed.len());
    for cell in timed.iter_mut().filter(|t| session.live[t.index].status == Status::Ok).collect::<Vec<_>>() {
        let sample = session.live[cell.index].sample.clone();
        match cell.worker.call(&Command::VerifyAgain { sample }, &mut |_, _, _| {}) {
            Ok(Reply::Trace { trace, .. }) => append(session, cell.index, &trace)?,
            Ok(other) => session.mark(cell.index, Status::Failed, &reason(&other))?,
            Err(error) => {
                let fault = session.fault(error)?;
                session.mark(cell.index, Status::Failed, &fault)?;
            }
        }
        session.show.step();
    }
    Ok(())
}

/// Seconds of everything timed in a trace: what the stopping rule looks at.
fn duration(trace: &Trace) -> f64 {
    let ns = |event: &Event| match event {
        Event::Prefill { duration_ns, .. } | Event::Decode { duration_ns, .. } | Event::Kernel { duration_ns, .. } => {
            *duration_ns
        }
        Event::Request { chunks, .. } => chunks.last().map_or(0, |c| c.at_ns),
        _ => 0,
    };
    trace.events.iter().map(ns).sum::<u64>() as f64 / 1e9
}

fn is_precise(durations: &[f64], precision: f64) -> bool {
    durations.len() >= 3
        && median_interval(durations, 0).is_some_and(|i| i.high - i.low <= 2.0 * precision * (i.high + i.low) / 2.0)
}
