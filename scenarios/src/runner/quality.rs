//! Everything that is done once: checks against the oracle, likelihood, identities. Cells that differ in decoding only
//! compute the same logits, so one worker serves them all.

use anyhow::Result;
use results::observation::Status;
use results::summary::Role;
use results::trace::{Event, Trace};

use super::Session;
use super::process::{Worker, reason};
use crate::protocol::{Build, CellChecks, Command, Reply};
use crate::scenario::Workload;
use crate::worker::same_forward;

/// Verifies every cell, then runs the workloads that need no clock.
pub fn verify_and_score(session: &mut Session) -> Result<()> {
    let groups = groups(session);
    session.show.phase("verifying and scoring", groups.len());
    for group in groups {
        if let Err(error) = group_of(session, &group) {
            // the disk and the run directory are not the cell's fault
            if error.downcast_ref::<results::run::StoreError>().is_some() {
                return Err(error);
            }
            for &index in &group {
                session.mark(index, Status::Failed, &format!("{error:#}"))?;
            }
        }
        session.show.step();
    }
    Ok(())
}

/// Indices of cells that share a forward pass (and a program), in order; the A/A control joins its twin.
fn groups(session: &Session) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = vec![];
    for (index, live) in session.live.iter().enumerate().filter(|(_, l)| l.status == Status::Ok) {
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
        let cell = live.cell.id.clone();
        session.state(&cell, &facts)?;
    }
    let reply = spoken(session, &mut worker, &id, &Command::Verify)?;
    let Reply::Verified { checks, sample } = reply else { anyhow::bail!("{}", reason(&reply)) };
    for (&index, checks) in group.iter().zip(checks) {
        session.live[index].sample.clone_from(&sample);
        note_checks(session, index, &checks)?;
    }
    let once: Vec<usize> = (0..session.scenario.scenario.workloads.len())
        .filter(|&w| !session.scenario.scenario.workloads[w].is_timed())
        .collect();
    for workload in once {
        run_once(session, group, &mut worker, workload)?;
    }
    Ok(())
}

/// Rows of the checks; a check that fails makes the cell wrong, and nothing of it will be timed.
pub fn note_checks(session: &mut Session, index: usize, checks: &CellChecks) -> Result<()> {
    let live = &session.live[index];
    let rows = session.rows.of(&checks.trace, &live.cell, &live.kernel_path);
    session.directory.append(&rows)?;
    if let Some(reason) = failed_checks(&checks.trace) {
        session.mark(index, Status::Wrong, &reason)?;
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

/// Whether an earlier sitting already has this workload's rows of every cell of the group: they need no clock, so
/// running them again would give the same numbers.
fn is_done(session: &Session, group: &[usize], name: &str) -> bool {
    let has = |cell: &str| {
        session.before.observations.iter().any(|o| o.cell == cell && o.workload == name && o.value.is_some())
    };
    group.iter().map(|&i| &session.live[i].cell).filter(|c| c.role != Role::AaControl).all(|c| has(&c.id))
}

fn run_once(session: &mut Session, group: &[usize], worker: &mut Worker, workload: usize) -> Result<()> {
    if is_done(session, group, &session.scenario.scenario.workloads[workload].name()) {
        return Ok(());
    }
    let id = session.live[group[0]].cell.id.clone();
    let reply = spoken(session, worker, &id, &Command::Run { workload, repetition: 0, roof: session.roof })?;
    let name = session.scenario.scenario.workloads[workload].name();
    for &index in group {
        let live = &session.live[index];
        // the A/A control measures noise of the clock; likelihood has none
        if live.cell.role == Role::AaControl {
            continue;
        }
        let mut rows = match &reply {
            Reply::Trace { trace, .. } => session.rows.of(trace, &live.cell, &live.kernel_path),
            Reply::Refused { reason } => vec![session.rows.status(&live.cell, Status::Skipped, reason)],
            other => vec![session.rows.status(&live.cell, Status::Failed, &reason(other))],
        };
        if live.status == Status::Wrong {
            rows.iter_mut().for_each(|r| (r.status, r.value) = (Status::Wrong, None));
        }
        rows.iter_mut().for_each(|r| r.workload.clone_from(&name));
        session.directory.append(&rows)?;
        let cell = session.live[index].cell.id.clone();
        if index != group[0] {
            session.state(&cell, &[(format!("{name}_shared_with"), id.clone())])?;
        }
        if let Reply::Trace { facts, .. } = &reply {
            session.state(&cell, facts)?;
        }
        if let Reply::Failed { reason } = &reply {
            session.mark(index, Status::Failed, &format!("{name}: {reason}"))?;
        } else if let Some(reason) = trace_of(&reply).and_then(failed_checks) {
            session.mark(index, Status::Wrong, &reason)?;
        }
    }
    Ok(())
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
