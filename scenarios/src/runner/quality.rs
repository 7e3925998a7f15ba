//! Everything that is done once: checks against the oracle, likelihood, identities. Cells that differ in decoding only
//! compute the same logits, so one worker serves them all.

use anyhow::Result;
use results::observation::{Observation, Status};
use results::summary::Role;
use results::trace::{Event, Trace};

use super::process::{Worker, reason};
use super::{Session, advice, timing};
use crate::protocol::{Build, Command, Reply};
use crate::scenario::Workload;
use crate::worker::same_forward;

/// Verifies every cell, then runs the workloads that need no clock.
pub fn verify_and_score(session: &mut Session) -> Result<()> {
    let groups = groups(session);
    session.show.phase("verifying and scoring", groups.len());
    for group in groups {
        if !owes_nothing(session, &group)
            && let Err(error) = group_of(session, &group)
        {
            let reason = session.fault(error)?;
            for &index in &group {
                session.mark(index, Status::Failed, &reason)?;
            }
        }
        session.show.step();
    }
    Ok(())
}

/// Whether earlier sittings have all of the group, and it will not be timed: it need not be built again.
fn owes_nothing(session: &Session, group: &[usize]) -> bool {
    let once = session.scenario.scenario.workloads.iter().filter(|w| !w.is_timed()).map(Workload::name);
    let mut names: Vec<String> = once.collect();
    names.push("verify".into());
    let scored = |&index: &usize| names.iter().all(|name| is_done(session, index, name));
    !timing::remains(session) && group.iter().filter(|&&i| session.live[i].cell.role != Role::AaControl).all(scored)
}

/// Indices of cells that share a forward pass (and a program), in order; the A/A control joins its twin.
fn groups(session: &Session) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = vec![];
    for (index, live) in session.live.iter().enumerate().filter(|(_, l)| l.runs()) {
        let twin = |g: &&mut Vec<usize>| {
            let first = &session.live[g[0]];
            first.program == live.program && same_forward(&first.cell, &live.cell)
        };
        match groups.iter_mut().find(twin) {
            Some(group) => group.push(index),
            None => groups.push(vec![index]),
        }
    }
    groups
}

fn group_of(session: &mut Session, group: &[usize]) -> Result<()> {
    let scores = session.scenario.scenario.workloads.iter().any(|w| matches!(w, Workload::Perplexity { .. }));
    let first = group[0];
    let mut worker = session.programs[session.live[first].program].start()?;
    let cells = group.iter().map(|&i| session.live[i].plain_id.clone()).collect();
    let id = session.live[first].cell.id.clone();
    let build = build_command(session, cells, scores);
    let reply = spoken(session, &mut worker, &id, &Command::Build(build))?;
    if let Reply::Refused { reason } = &reply {
        for &index in group {
            session.mark(index, Status::Skipped, reason)?;
        }
        return Ok(());
    }
    let Reply::Built { kernel_path, facts, .. } = reply else { anyhow::bail!("{}", reason(&reply)) };
    for &index in group {
        let live = &mut session.live[index];
        live.kernel_path.clone_from(&kernel_path);
        let cell = live.cell.clone();
        session.state(&cell.id, &facts)?;
        session.state(&cell.id, &advice::of_cell(&session.scenario, &cell))?;
    }
    let reply = spoken(session, &mut worker, &id, &Command::Verify)?;
    let Reply::Verified { checks, sample } = reply else { anyhow::bail!("{}", reason(&reply)) };
    let mut kept = vec![];
    for (&index, checks) in group.iter().zip(checks) {
        session.live[index].sample.clone_from(&sample);
        // a check that fails makes the cell wrong, and nothing of it will be timed
        let end = failed_checks(&checks.trace).map(|reason| (Status::Wrong, reason));
        kept.push((index, session.rows_of(index, &checks.trace), end));
    }
    session.keep(kept)?;
    let once: Vec<usize> = (0..session.scenario.scenario.workloads.len())
        .filter(|&w| !session.scenario.scenario.workloads[w].is_timed())
        .collect();
    for workload in once {
        run_once(session, group, &mut worker, workload)?;
    }
    Ok(())
}

/// What failed among the checks of a trace.
pub fn failed_checks(trace: &Trace) -> Option<String> {
    let failed = trace.events.iter().filter_map(|e| match e {
        Event::Check { name, value, limit, passed: false } => Some(format!("{name} is {value:.3e}, limit {limit:.3e}")),
        _ => None,
    });
    let failed: Vec<String> = failed.collect();
    (!failed.is_empty()).then(|| failed.join("; "))
}

/// Whether an earlier sitting already has the cell's rows of this workload, or its refusal. It needs no clock, so doing it
/// again would give the same. What a sitting measured of a cell that ended wrong or failed there is not believed.
fn is_done(session: &Session, index: usize, name: &str) -> bool {
    let cell = session.live[index].cell.id.as_str();
    let settles = |o: &Observation| o.value.is_some() || o.status == Status::Skipped;
    let rows = session.before.observations.iter().filter(|o| o.cell == cell && o.workload == name);
    rows.filter(|o| settles(o)).any(|o| !session.bad.contains(&(cell.to_string(), o.sitting)))
}

fn run_once(session: &mut Session, group: &[usize], worker: &mut Worker, workload: usize) -> Result<()> {
    let name = session.scenario.scenario.workloads[workload].name();
    // the A/A control measures noise of the clock; likelihood has none
    let owed = |&&index: &&usize| session.live[index].cell.role != Role::AaControl && !is_done(session, index, &name);
    let owing: Vec<usize> = group.iter().filter(owed).copied().collect();
    if owing.is_empty() {
        return Ok(());
    }
    let id = session.live[group[0]].cell.id.clone();
    let reply = spoken(session, worker, &id, &Command::Run { workload, repetition: 0, roof: session.roof })?;
    // rows come last and at once: where they are, everything that belongs to them is
    for &index in &owing {
        let cell = session.live[index].cell.id.clone();
        if index != group[0] {
            session.state(&cell, &[(format!("{name}_shared_with"), id.clone())])?;
        }
        if let Reply::Trace { facts, .. } = &reply {
            session.state(&cell, facts)?;
        }
    }
    let mut kept = vec![];
    for &index in &owing {
        let live = &session.live[index];
        let mut rows = match &reply {
            Reply::Trace { trace, .. } => session.rows_of(index, trace),
            Reply::Refused { reason } => vec![session.rows.status(&live.cell, Status::Skipped, reason)],
            other => vec![session.rows.status(&live.cell, Status::Failed, &reason(other))],
        };
        if live.status == Status::Wrong {
            rows.iter_mut().for_each(|r| (r.status, r.value) = (Status::Wrong, None));
        }
        rows.iter_mut().for_each(|r| r.workload.clone_from(&name));
        let end = match &reply {
            Reply::Failed { reason } => Some((Status::Failed, format!("{name}: {reason}"))),
            other => trace_of(other).and_then(failed_checks).map(|reason| (Status::Wrong, reason)),
        };
        kept.push((index, rows, end));
    }
    session.keep(kept)
}

fn trace_of(reply: &Reply) -> Option<&Trace> {
    match reply {
        Reply::Trace { trace, .. } => Some(trace),
        _ => None,
    }
}

/// The build command of `cells` (ids as the scenario knows them).
pub fn build_command(session: &Session, cells: Vec<String>, with_reference: bool) -> Build {
    Build {
        scenario: session.scenario.source_text.clone(),
        file: session.scenario.file.clone(),
        cells,
        threads: session.threads,
        with_reference,
        roof: session.roof,
        python: Some(session.python.clone()),
        scratch: Some(session.scratch()),
    }
}

/// A call whose progress is shown on the cell's line.
pub fn spoken(session: &Session, worker: &mut Worker, cell: &str, command: &Command) -> Result<Reply> {
    let show = &session.show;
    worker.call(command, &mut |text, done, of| show.cell(cell, &format!("{text} {done}/{of}")))
}
