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

/// Times everything; true when repetitions are still owed.
pub fn time(session: &mut Session) -> Result<bool> {
    let workloads: Vec<usize> = (0..session.scenario.scenario.workloads.len())
        .filter(|&w| session.scenario.scenario.workloads[w].is_timed())
        .collect();
    if workloads.is_empty() {
        return Ok(false);
    }
    let done = rounds_done(session, &workloads);
    let budget = &mut session.scenario.scenario.budget;
    budget.min_repetitions = budget.min_repetitions.saturating_sub(done);
    budget.max_repetitions = budget.max_repetitions.saturating_sub(done);
    if budget.max_repetitions == 0 {
        return Ok(false);
    }
    let batches = batches(session);
    if batches.len() > 1 {
        session.caveats.push(format!("memory holds {} batches of cells, not all at once: each batch is interleaved with the reference, cells of different batches are not", batches.len()));
    }
    let share = session.scenario.scenario.budget.seconds / batches.len().max(1) as f64;
    let mut owed = false;
    for (number, batch) in batches.iter().enumerate() {
        let mut timed = start(session, batch, workloads.len())?;
        warm_up(session, &mut timed, &workloads)?;
        owed |= rounds(session, &mut timed, &workloads, number as u32 * BATCH_STRIDE, share)?;
        verify_again(session, &mut timed)?;
    }
    Ok(owed)
}

/// Repetitions that every live cell already has of every timed workload from earlier sittings.
fn rounds_done(session: &Session, workloads: &[usize]) -> u32 {
    let names: Vec<String> = workloads.iter().map(|&w| session.scenario.scenario.workloads[w].name()).collect();
    let mut repetitions: HashMap<(&str, &str), HashSet<(u32, u32)>> = HashMap::new();
    let mut refused: HashSet<(&str, &str)> = HashSet::new();
    for row in &session.before.observations {
        let key = (row.cell.as_str(), row.workload.as_str());
        match row.status {
            Status::Ok => _ = repetitions.entry(key).or_default().insert((row.sitting, row.repetition)),
            Status::Skipped => _ = refused.insert(key),
            Status::Wrong | Status::Failed => {}
        }
    }
    let live = session.live.iter().filter(|l| l.status == Status::Ok);
    let pairs = live.flat_map(|l| names.iter().map(move |name| (l.cell.id.as_str(), name.as_str())));
    let counts = pairs.filter(|key| !refused.contains(key)).map(|key| repetitions.get(&key).map_or(0, HashSet::len));
    counts.min().unwrap_or(0) as u32
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
            Err(error) => session.mark(index, Status::Failed, &format!("{error:#}"))?,
        }
        session.show.step();
    }
    Ok(timed)
}

fn append(session: &mut Session, index: usize, trace: &Trace) -> Result<()> {
    let live = &session.live[index];
    let rows = session.rows.of(trace, &live.cell, &live.kernel_path);
    Ok(session.directory.append(&rows)?)
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
                Some(wrong) => {
                    append(session, timed.index, &trace)?;
                    session.mark(timed.index, Status::Wrong, &wrong)?;
                    Ok(None)
                }
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
        Err(error) => session.mark(timed.index, Status::Failed, &format!("{error:#}")).map(|()| None),
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

fn rounds(session: &mut Session, timed: &mut [Timed], workloads: &[usize], base: u32, seconds: f64) -> Result<bool> {
    let budget = session.scenario.scenario.budget.clone();
    let mut rng = ChaCha8Rng::seed_from_u64(session.scenario.scenario.seed ^ u64::from(base));
    let clock = Stopwatch::start();
    session.show.phase("timing", budget.max_repetitions as usize);
    for round in 0..budget.max_repetitions {
        let owed = round < budget.min_repetitions;
        let over = clock.seconds() > if owed { seconds * OVERRUN } else { seconds };
        if over {
            session.caveats.push(match owed {
                true => format!("the time budget of {seconds:.0} s held {round} of at least {} repetitions; raise budget.seconds and resume", budget.min_repetitions),
                false => format!("timing stopped after {round} repetitions with its budget of {seconds:.0} s spent; intervals are as wide as they are"),
            });
            return Ok(owed);
        }
        session.raise_roofs();
        for (slot, &workload) in workloads.iter().enumerate() {
            let settled = |t: &Timed| {
                t.refused[slot]
                    || session.live[t.index].status != Status::Ok
                    || is_precise(&t.durations[slot], budget.precision)
            };
            if !owed && timed.iter().all(settled) {
                continue;
            }
            for at in order(timed.len(), &mut rng) {
                let cell = &mut timed[at];
                if session.live[cell.index].status != Status::Ok || cell.refused[slot] {
                    continue;
                }
                let Some(trace) = one(session, cell, slot, workload, base + round)? else { continue };
                append(session, cell.index, &trace)?;
                cell.durations[slot].push(duration(&trace));
                let id = &session.live[cell.index].cell.id;
                session.show.timed(id, &trace);
            }
        }
        session.show.step();
        if !owed
            && timed.iter().all(|t| {
                session.live[t.index].status != Status::Ok
                    || t.durations.iter().zip(&t.refused).all(|(d, &r)| r || is_precise(d, budget.precision))
            })
        {
            break;
        }
    }
    Ok(false)
}

/// The order of one round: random, so that what disturbs a moment disturbs no cell more than another.
pub(crate) fn order(cells: usize, rng: &mut ChaCha8Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..cells).collect();
    order.shuffle(rng);
    order
}

fn verify_again(session: &mut Session, timed: &mut [Timed]) -> Result<()> {
    for cell in timed.iter_mut().filter(|t| session.live[t.index].status == Status::Ok).collect::<Vec<_>>() {
        let sample = session.live[cell.index].sample.clone();
        match cell.worker.call(&Command::VerifyAgain { sample }, &mut |_, _, _| {}) {
            Ok(Reply::Trace { trace, .. }) => {
                append(session, cell.index, &trace)?;
                if let Some(wrong) = failed_checks(&trace) {
                    session.mark(cell.index, Status::Wrong, &wrong)?;
                }
            }
            Ok(other) => session.mark(cell.index, Status::Failed, &reason(&other))?,
            Err(error) => session.mark(cell.index, Status::Failed, &format!("{error:#}"))?,
        }
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
