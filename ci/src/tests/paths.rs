//! Paths that are no baseline, baselines that show less than they should, and runs that share nothing.

use std::path::Path;

use results::observation::Status;
use results::run::Run;

use super::{claim, sample_run, summary, write};
use crate::check::{Mode, Permit, check};
use crate::policy::Policy;
use crate::verdict::CheckVerdict;
use crate::{Answer, CheckError, CheckOptions, Format, run_check, run_compare};
use results::claim::Verdict;

fn judged(baseline: &Path, head: &Path) -> Result<Answer, CheckError> {
    run_check(&CheckOptions { baseline: Some(baseline.into()), head: head.into(), ..CheckOptions::default() })
}

fn against(baseline: &Run, head: &Run) -> crate::check::Report {
    check(baseline, head, &Policy::shipped().expect("parses"), Mode::Recorded, Permit::default())
}

#[test]
fn a_baseline_that_was_named_and_is_none_never_passes() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    write(&sample_run("head"), &at("head"));
    let mut other = sample_run("other");
    summary(&mut other).scenario = "int4".to_owned();
    other.observations.iter_mut().for_each(|row| row.scenario = "int4".to_owned());
    write(&other, &at("other"));
    write(&other, &at("others").join("1"));
    std::fs::create_dir_all(at("others").join("2")).expect("a folder");
    std::fs::write(at("others").join("2").join("observations.parquet"), "x").expect("a file");
    std::fs::create_dir_all(at("empty").join("no-run")).expect("folders");
    std::fs::create_dir_all(at("damaged")).expect("a folder");
    std::fs::write(at("damaged").join("observations.parquet"), "x").expect("a file");
    std::fs::write(at("file"), "x").expect("a file");
    for (name, words) in [
        ("nowhere", "there is no such folder"),
        ("file", "is a file"),
        ("empty", "holds no run"),
        ("damaged", "cannot be read"),
        ("other", "is a run of `int4`, and the run to judge is one of `smoke`"),
        ("others", "none of its 2 runs is of the scenario `smoke`; there are runs of `int4`; these cannot be read"),
    ] {
        let error = judged(&at(name), &at("head")).expect_err(name);
        let said = error.to_string();
        assert_eq!(error.exit_code(), 2, "{said}");
        assert!(said.contains(words) && said.contains(&at(name).display().to_string()), "{said}");
    }
}

#[test]
fn a_damaged_run_beside_a_good_baseline_is_passed_over_in_words() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    write(&sample_run("head"), &at("head"));
    write(&sample_run("base"), &at("records").join("1"));
    let mut unfinished = sample_run("unfinished");
    summary(&mut unfinished).started = "2026-12-01T00:00:00Z".to_owned();
    summary(&mut unfinished).complete = false;
    write(&unfinished, &at("records").join("2"));
    std::fs::create_dir_all(at("records").join("3")).expect("a folder");
    std::fs::write(at("records").join("3").join("observations.parquet"), "x").expect("a file");
    let answer = judged(&at("records"), &at("head")).expect("a verdict");
    assert_eq!((answer.word, answer.code), ("pass", 0));
    assert!(
        answer.text.starts_with("smoke: base -> head") && answer.text.contains("was passed over"),
        "{}",
        answer.text
    );
}

#[test]
fn a_baseline_that_shows_less_is_no_pass() {
    let head = sample_run("head");
    let mut unfinished = sample_run("unfinished");
    summary(&mut unfinished).complete = false;
    let report = against(&unfinished, &head);
    assert_eq!(report.verdict, CheckVerdict::Inconclusive);
    assert!(report.summary.contains("the baseline was not finished"), "{}", report.summary);

    let mut without = sample_run("killed");
    without.summary = None;
    let report = against(&without, &head);
    // its rows carry the scenario, its facts the machine
    assert_eq!(report.verdict, CheckVerdict::Inconclusive, "{}", report.summary);
    assert!(report.summary.contains("no summary.json"), "{}", report.summary);

    let skipped = |id: &str| {
        let mut run = sample_run(id);
        run.observations.clear();
        summary(&mut run).cells.iter_mut().for_each(|cell| cell.status = Status::Skipped);
        run
    };
    for (base, head) in [(skipped("base"), skipped("head")), (skipped("base"), sample_run("head"))] {
        let report = against(&base, &head);
        assert_eq!(report.verdict, CheckVerdict::Inconclusive);
        assert!(report.summary.contains("nothing was compared"), "{}", report.summary);
    }
}

#[test]
fn a_worse_value_outweighs_an_unfinished_baseline() {
    let mut base = sample_run("base");
    summary(&mut base).complete = false;
    let mut head = sample_run("head");
    super::scale(&mut head, "flash", "weights_bytes", 2.0);
    let report = against(&base, &head);
    assert_eq!(report.verdict, CheckVerdict::Regression);
    assert!(report.warnings.iter().any(|w| w.contains("was not finished")), "{:?}", report.warnings);
}

#[test]
fn claims_without_a_counterpart_are_told() {
    let mut head = sample_run("head");
    head.claims.push(claim("c", Verdict::Reproduced));
    let report = against(&sample_run("base"), &head);
    assert!(report.warnings.iter().any(|w| w.contains("no judged claims")), "{:?}", report.warnings);
}

#[test]
fn a_workload_that_was_skipped_says_why_it_is_missing() {
    let mut head = sample_run("head");
    let mut skipped = head.observations[0].clone();
    head.observations.retain(|row| row.cell != "flash" || row.metric != "ppl");
    (skipped.cell, skipped.metric) = ("flash".to_owned(), "cell_status".to_owned());
    (skipped.status, skipped.value, skipped.reason) = (Status::Skipped, None, "fewer than one window".to_owned());
    head.observations.push(skipped);
    let report = against(&sample_run("base"), &head);
    let gate = report.gates.iter().find(|gate| gate.cell == "flash" && gate.metric == "ppl").expect("a gate");
    assert_eq!(gate.reason, "the head has no value: skipped: fewer than one window");
}

#[test]
fn runs_that_share_nothing_say_what_each_has() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let mut other = sample_run("b");
    other.observations.iter_mut().for_each(|row| row.workload = "tg128".to_owned());
    write(&sample_run("a"), &at("a"));
    write(&other, &at("b"));
    let error = run_compare(&at("a"), &at("b"), Format::Json).expect_err("nothing in common");
    let said = error.to_string();
    assert_eq!(error.exit_code(), 2);
    assert!(said.contains("A a (scenario smoke) has workloads pp512") && said.contains("workloads tg128"), "{said}");

    let mut unlike = sample_run("c");
    unlike.facts[0].value = "Other CPU".to_owned();
    unlike.observations.retain(|row| row.metric != "ppl");
    summary(&mut unlike).complete = false;
    write(&unlike, &at("c"));
    let text = run_compare(&at("a"), &at("c"), Format::Console).expect("a table").text;
    for words in ["B was not finished", "differs: cpu_model: Test CPU -> Other CPU", "2 metrics are in A alone"] {
        assert!(text.contains(words), "no {words:?} in\n{text}");
    }
    let missing = run_compare(&at("a"), &at("nowhere"), Format::Console).expect_err("no such run");
    assert!(missing.exit_code() == 2 && missing.to_string().contains("nowhere"), "{missing}");
}
