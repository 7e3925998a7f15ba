//! How a run ends: one word, one exit code, and sentences that say what is missing and how to go on.

use anyhow::Result;
use results::claim::{ClaimResult, Verdict};
use results::observation::{Observation, Status};
use results::progress::Progress;
use results::run::Run;
use results::summary::{Ending, Role, Summary};

use super::{Live, RunOutcome, Session, answer, resume};
use crate::claims;
use crate::cli::{INCONCLUSIVE, PASS, REFUTED, RUN_FAILED, SKIPPED};
use crate::scenario::Workload;
use crate::stop::signal_word;

/// Judges what was measured, and writes claims, summary and the tidy files.
pub fn judge(session: &mut Session) -> Result<RunOutcome> {
    session.show.phase("judging and writing", 1);
    let path = session.directory.path().to_path_buf();
    // the rows decide: what is planned is in the summary, which is therefore written first
    session.write_summary()?;
    let mut run = Run::load(&path)?;
    let progress = Progress::of(&run);
    let mut summary = session.summary();
    let rests =
        |id: &str| session.live.iter().any(|live| live.plain_id == id && live.status == Status::Skipped && live.rests);
    let unasked = claims::of_left_out(&session.scenario, &run, rests);
    let mut claims = claims::judge(&session.scenario, &run, &summary.command)?;
    claims.retain(|claim| !unasked.contains(&claim.id));
    let measured = session.scenario.scenario.workloads.iter().any(|w| is_measured(&run, &w.name()));
    let owing = progress.as_ref().is_some_and(|p| p.owing > 0);
    summary.complete = measured && !owing && !session.live.iter().any(|l| is_broken(l.status));
    let missing = unmeasured(session, &run);
    let ending = word(session, &claims, &summary, measured, &missing);
    summary.ending = Some(ending);
    summary.missing = missing;
    if owing {
        summary.missing.extend(progress.as_ref().map(|p| owed(session, p)));
    }
    (run.claims, run.summary) = (claims.clone(), Some(summary.clone()));
    summary.answer = answer::answer(session, &run);
    if summary.answer.is_empty() && !measured {
        summary.answer.clone_from(&summary.missing);
    }
    summary.caveats = resume::caveats(&run);
    summary.caveats.extend(run.warnings.iter().cloned());
    summary.caveats.extend(answer::caveats(session, &run));
    if !unasked.is_empty() {
        let ids = unasked.join(", ");
        summary.caveats.push(format!("Not judged, because cells that they compare were left out by --cells: {ids}."));
    }
    session.directory.write_claims(&claims)?;
    session.directory.write_summary(&summary)?;
    session.directory.seal()?;
    session.show.done();
    Ok(RunOutcome { exit: exit_code(ending), run_dir: path, claims, summary, progress })
}

/// What is left of a run that somebody stopped: its rows in tidy files, and no judgement.
pub fn stopped(session: &Session, signal: u8) -> Result<RunOutcome> {
    let path = session.directory.path().to_path_buf();
    let mut summary = session.summary();
    summary.ending = Some(Ending::Interrupted);
    session.directory.write_summary(&summary)?;
    let run = Run::load(&path)?;
    let progress = Progress::of(&run);
    let counted = progress.as_ref().map(|p| format!(": {}", p.in_words())).unwrap_or_default();
    summary.missing = vec![format!("The run was stopped by {}{counted}.", signal_word(signal))];
    summary.caveats = resume::caveats(&run);
    session.directory.write_summary(&summary)?;
    session.directory.seal()?;
    // what a shell says of a process that a signal ended
    Ok(RunOutcome { exit: 128 + signal, run_dir: path, claims: vec![], summary, progress })
}

fn exit_code(ending: Ending) -> u8 {
    match ending {
        Ending::Pass => PASS,
        Ending::Refuted => REFUTED,
        Ending::Failed | Ending::Incomplete | Ending::Interrupted => RUN_FAILED,
        Ending::Inconclusive => INCONCLUSIVE,
        Ending::Skipped => SKIPPED,
    }
}

fn is_broken(status: Status) -> bool {
    matches!(status, Status::Failed | Status::Wrong)
}

fn word(session: &Session, claims: &[ClaimResult], summary: &Summary, measured: bool, missing: &[String]) -> Ending {
    let broken = session.live.iter().any(|l| is_broken(l.status));
    let any = |wanted: fn(Verdict) -> bool| claims.iter().any(|claim| wanted(claim.verdict));
    match () {
        _ if broken => Ending::Failed,
        // claims cannot have failed where nothing was tried
        _ if !measured && !missing.is_empty() => Ending::Skipped,
        _ if any(|verdict| verdict == Verdict::Failed) => Ending::Failed,
        _ if !summary.complete => Ending::Incomplete,
        _ if any(Verdict::is_refuted) => Ending::Refuted,
        _ if !missing.is_empty() => Ending::Skipped,
        _ if any(|verdict| verdict == Verdict::Inconclusive) => Ending::Inconclusive,
        _ => Ending::Pass,
    }
}

fn is_measured(run: &Run, workload: &str) -> bool {
    run.observations.iter().any(|row| row.workload == workload && row.status == Status::Ok && row.value.is_some())
}

/// A sentence for every workload that no cell has measured, with the reason. What was never going to be timed is not missing:
/// an emulated device has no clock, and a scenario of such cells alone says so itself.
fn unmeasured(session: &Session, run: &Run) -> Vec<String> {
    let scenario = &session.scenario.scenario;
    let running: Vec<&Live> = session.live.iter().filter(|l| l.status != Status::Skipped).collect();
    let names: Vec<String> = scenario.workloads.iter().map(Workload::name).collect();
    if running.is_empty() && !names.iter().any(|name| is_measured(run, name)) && !names.is_empty() {
        let cells = session.live.iter().filter(|l| l.cell.role != Role::AaControl);
        let reasons: Vec<String> = cells.map(|l| l.reason.clone()).collect();
        return vec![format!("Nothing could be measured here: every cell was skipped ({}).", in_words(&reasons))];
    }
    let timeless =
        session.live.iter().all(|l| matches!(&l.cell.spec.device, engine::DeviceSpec::Cuda(gpu) if gpu.emulate));
    let refused = |cell: &str, name: &str| {
        let of = |row: &Observation| row.cell == cell && row.workload == name && row.status == Status::Skipped;
        run.observations.iter().any(of)
    };
    // what a cell could still measure is owed and not missing
    let owed = |workload: &Workload| {
        let takes_part = |l: &&&Live| workload.is_timed() || l.cell.role != Role::AaControl;
        running.iter().filter(takes_part).any(|l| !refused(&l.cell.id, &workload.name()))
    };
    let missing = scenario.workloads.iter().filter(|w| {
        let timeless = w.is_timed() && timeless;
        !is_measured(run, &w.name()) && !timeless && !owed(w)
    });
    let sentence = |workload: &Workload| {
        let name = workload.name();
        let of_workload = |row: &&Observation| row.workload == name && row.status != Status::Ok;
        let mut reasons: Vec<String> =
            run.observations.iter().filter(of_workload).map(|row| row.reason.clone()).collect();
        if reasons.is_empty() {
            reasons = session.live.iter().filter(|l| !l.reason.is_empty()).map(|l| l.reason.clone()).collect();
        }
        let why = if reasons.is_empty() { String::new() } else { format!(": {}", in_words(&reasons)) };
        format!("No cell has measured `{name}`{why}.")
    };
    missing.map(sentence).collect()
}

/// The first of several reasons, and how many others there are.
fn in_words(reasons: &[String]) -> String {
    let mut different: Vec<&str> = vec![];
    for reason in reasons {
        if !different.contains(&reason.as_str()) {
            different.push(reason);
        }
    }
    match different.as_slice() {
        [] => "no reason was given".into(),
        [one] => one.to_string(),
        [first, others @ ..] => format!("{first}; and {} more reasons", others.len()),
    }
}

/// How far a run is that owes something, and what continues it.
fn owed(session: &Session, progress: &Progress) -> String {
    let count = format!("The run is partial: {}", progress.in_words());
    let asked = &session.asked;
    match session.seconds_owed {
        _ if asked.continue_with.is_empty() => format!("{count}."),
        0.0 => format!("{count}. Continue it with: {}", asked.continue_with),
        seconds => {
            let budget = session.scenario.scenario.budget.seconds;
            format!(
                "{count}; the time budget of {budget:.0} s held no more. Continue it with: {}",
                asked.continue_with_seconds(seconds)
            )
        }
    }
}
