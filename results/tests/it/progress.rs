//! How far a run is, counted by hand.

use results::observation::{Axes, Status};
use results::progress::Progress;
use results::run::Run;
use results::summary::{CellSummary, Role, Summary, WorkloadSummary};

use crate::row;

fn cell(id: &str, role: Role, status: Status) -> CellSummary {
    CellSummary { id: id.into(), label: id.into(), axes: Axes::default(), role, status, reason: String::new() }
}

fn workload(name: &str, timed: bool, repetitions: u32) -> WorkloadSummary {
    WorkloadSummary { name: name.into(), timed, repetitions }
}

/// A reference, its control, two candidates, and one that is skipped.
fn run() -> Run {
    let cells = vec![
        cell("a", Role::Reference, Status::Ok),
        cell("b", Role::Candidate, Status::Ok),
        cell("c", Role::Candidate, Status::Ok),
        cell("d", Role::Candidate, Status::Skipped),
        cell("a#aa", Role::AaControl, Status::Ok),
    ];
    let workloads = vec![workload("ppl-words", false, 1), workload("tg128", true, 2)];
    Run { summary: Some(Summary { cells, workloads, ..Summary::default() }), ..Run::default() }
}

fn add(run: &mut Run, cell: &str, workload: &str, sitting: u32, repetition: u32) {
    let mut added = row(cell, "ppl", repetition, 0, 1.0);
    (added.workload, added.sitting) = (workload.into(), sitting);
    run.observations.push(added);
}

#[test]
fn cells_are_counted_per_stage() {
    let mut run = run();
    let progress = Progress::of(&run).expect("planned");
    assert_eq!((progress.in_words().as_str(), progress.owing), ("0 of 4 cells scored, 0 timed", 4));
    add(&mut run, "a", "ppl-words", 0, 0);
    // the control's likelihoods are its twin's
    assert_eq!(Progress::of(&run).expect("planned").in_words(), "2 of 4 cells scored, 0 timed");
    add(&mut run, "b", "ppl-words", 0, 0);
    add(&mut run, "c", "ppl-words", 0, 0);
    for cell in ["a", "b", "c", "a#aa"] {
        add(&mut run, cell, "tg128", 0, 0);
    }
    let progress = Progress::of(&run).expect("planned");
    assert_eq!(progress.in_words(), "4 of 4 cells scored, 4 timed (1 of at least 2 repetitions)");
    assert_eq!(progress.owing, 4);
    for cell in ["a", "b", "c", "a#aa"] {
        // repetition 0 of another sitting is another repetition
        add(&mut run, cell, "tg128", 1, 0);
    }
    let progress = Progress::of(&run).expect("planned");
    assert_eq!((progress.in_words().as_str(), progress.owing, progress.rows), ("4 of 4 cells scored, 4 timed", 0, 11));
}

#[test]
fn what_a_cell_refuses_is_not_owed_and_what_it_measured_before_it_failed_is() {
    let mut run = run();
    for cell in ["a", "b", "c"] {
        add(&mut run, cell, "ppl-words", 0, 0);
    }
    for cell in ["a", "b", "c", "a#aa"] {
        add(&mut run, cell, "tg128", 0, 0);
        add(&mut run, cell, "tg128", 0, 1);
    }
    assert_eq!(Progress::of(&run).expect("planned").owing, 0);
    let mut failed = row("b", "cell_status", 0, 0, 0.0);
    (failed.workload, failed.status, failed.value) = (String::new(), Status::Failed, None);
    run.observations.push(failed);
    let progress = Progress::of(&run).expect("planned");
    assert_eq!((progress.in_words().as_str(), progress.owing), ("3 of 4 cells scored, 3 timed", 1));
    // another sitting: it is scored again, and says that it cannot generate
    add(&mut run, "b", "ppl-words", 1, 0);
    let mut refused = row("b", "cell_status", 0, 0, 0.0);
    (refused.workload, refused.status, refused.value, refused.sitting) = ("tg128".into(), Status::Skipped, None, 1);
    run.observations.push(refused);
    assert_eq!(Progress::of(&run).expect("planned").owing, 0);
}

#[test]
fn without_a_plan_nothing_is_counted() {
    assert_eq!(Progress::of(&Run::default()), None);
    // a run of a version that did not say what was planned
    assert_eq!(Progress::of(&Run { summary: Some(Summary::default()), ..Run::default() }), None);
}
