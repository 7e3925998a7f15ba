//! Verdict tables: synthetic runs with a known truth, the verdict that must follow.

use std::path::Path;

use results::claim::{ClaimResult, Tier, Verdict};
use results::metric::metric;
use results::observation::{Axes, Fact, Observation, SCHEMA_VERSION, Status};
use results::run::Run;
use results::summary::{CellSummary, Role, Summary};

use crate::check::{Mode, Permit, Report, check, check_alone};
use crate::format::Format;
use crate::gate::Gate;
use crate::policy::{DEFAULT_POLICY, Policy};
use crate::verdict::{CheckVerdict, Outcome};
use crate::{CheckError, CheckOptions, check_interleaved, run_check, run_compare};

mod paths;

const REPETITIONS: u32 = 12;

/// A run of two cells on one machine, with the rows of every kind of metric.
fn sample_run(id: &str) -> Run {
    let mut run = Run {
        summary: Some(Summary {
            schema_version: SCHEMA_VERSION,
            run_id: id.to_owned(),
            scenario: "smoke".to_owned(),
            question: "Does it still work?".to_owned(),
            analysis: String::new(),
            answer: Vec::new(),
            caveats: Vec::new(),
            models: Vec::new(),
            cells: Vec::new(),
            command: "infermark run smoke".to_owned(),
            started: "2026-01-01T00:00:00Z".to_owned(),
            elapsed_s: 1.0,
            complete: true,
            ..Summary::default()
        }),
        ..Run::default()
    };
    for (scope, key, value) in
        [("machine", "cpu_model", "Test CPU"), ("machine", "threads", "2"), ("run", "weights_sha256", "abc")]
    {
        run.facts.push(fact(scope, key, value));
    }
    for cell in ["naive", "flash"] {
        add_cell(&mut run, cell, Role::Candidate);
        add(&mut run, cell, "weights_bytes", |_, _| 1000.0, 1);
        add(&mut run, cell, "accepted_tokens", |_, _| 77.0, 1);
        add(&mut run, cell, "peak_rss_bytes", |_, _| 2e8, 1);
        add(&mut run, cell, "delta_nll", |_, item| 0.01 + 0.001 * f64::from(item), 20);
        add(&mut run, cell, "ppl", |_, _| 20.0, 1);
    }
    run
}

fn summary(run: &mut Run) -> &mut Summary {
    run.summary.as_mut().expect("a sample run has a summary")
}

fn fact(scope: &str, key: &str, value: &str) -> Fact {
    Fact { run_id: String::new(), scope: scope.to_owned(), key: key.to_owned(), value: value.to_owned() }
}

fn add_cell(run: &mut Run, id: &str, role: Role) {
    summary(run).cells.push(CellSummary {
        id: id.to_owned(),
        label: id.to_owned(),
        axes: Axes { attention: id.to_owned(), ..Axes::default() },
        role,
        status: Status::Ok,
        reason: String::new(),
    });
}

/// Adds rows of a registered metric: `value(repetition, item)`.
fn add(run: &mut Run, cell: &str, id: &str, value: impl Fn(u32, u32) -> f64, items: u32) {
    let known = metric(id).expect("a registered metric");
    for repetition in 0..REPETITIONS {
        for item in 0..items {
            run.observations.push(Observation {
                run_id: String::new(),
                scenario: "smoke".to_owned(),
                cell: cell.to_owned(),
                axes: Axes::default(),
                workload: "pp512".to_owned(),
                sitting: 0,
                repetition,
                item,
                metric: id.to_owned(),
                formula_id: known.formula_id().to_owned(),
                unit: known.unit().to_owned(),
                direction: known.direction(),
                value: Some(value(repetition, item)),
                x: None,
                status: Status::Ok,
                reason: String::new(),
                threads: 2,
                kernel_path: "scalar".to_owned(),
                seed: 1,
            });
        }
    }
}

/// Multiplies the values of one metric of one cell.
fn scale(run: &mut Run, cell: &str, id: &str, factor: f64) {
    for row in run.observations.iter_mut().filter(|row| row.cell == cell && row.metric == id) {
        row.value = row.value.map(|value| value * factor);
    }
}

fn claim(id: &str, verdict: Verdict) -> ClaimResult {
    ClaimResult {
        id: id.to_owned(),
        paper: String::new(),
        source: String::new(),
        statement: "it is so".to_owned(),
        tier: Tier::Identity,
        published: String::new(),
        counterpart: String::new(),
        rule: String::new(),
        measured: None,
        interval: None,
        unit: String::new(),
        verdict,
        reason: "numbers".to_owned(),
        command: String::new(),
        parts: vec![],
    }
}

/// A repeatable number in -1..1 that looks random: a hash of its coordinates.
fn jitter(a: u32, b: u32, c: u32) -> f64 {
    let mut state = u64::from(a) << 40 ^ u64::from(b) << 20 ^ u64::from(c) ^ 0x9e37_79b9_7f4a_7c15;
    for _ in 0..3 {
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    }
    (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

fn policy() -> Policy {
    Policy::shipped().expect("the shipped policy parses")
}

fn recorded(base: &Run, head: &Run) -> Report {
    check(base, head, &policy(), Mode::Recorded, Permit::default())
}

fn gate<'a>(report: &'a Report, cell: &str, id: &str) -> &'a Gate {
    let found = report.gates.iter().find(|gate| gate.cell == cell && gate.metric == id);
    found.unwrap_or_else(|| panic!("no gate {cell} {id}"))
}

/// A job that measured `metrics` prefill times of base and head in turns; `ratio(metric)` is the truth, `noise` the half width
/// of each repetition's disturbance, `drift` what both sides share.
fn interleaved(metrics: u32, ratio: impl Fn(u32) -> f64, noise: f64) -> Run {
    let mut run = sample_run("job");
    run.observations.clear();
    summary(&mut run).cells.clear();
    for (side, prefix) in [(0, "base/"), (1, "head/")] {
        for index in 0..metrics {
            let cell = format!("{prefix}cell{index}");
            add_cell(&mut run, &cell, Role::Candidate);
            let truth = if side == 1 { ratio(index) } else { 1.0 };
            let time = |repetition: u32, _: u32| {
                let drift = 1.0 + 0.3 * jitter(9, 9, repetition);
                100.0 * truth * drift * (1.0 + noise * jitter(side + 1, index, repetition))
            };
            add(&mut run, &cell, "prefill_ms", time, 1);
        }
    }
    run
}

#[test]
fn identical_runs_pass() {
    let report = recorded(&sample_run("a"), &sample_run("b"));
    assert_eq!(report.verdict, CheckVerdict::Pass, "{report:#?}");
    assert_eq!(report.gates.len(), 10);
    assert!(report.gates.iter().all(|gate| gate.outcome == Outcome::Pass && !gate.is_notable()));
}

#[test]
fn deterministic_changes_gate_in_their_direction() {
    for (id, factor, expected) in [
        ("weights_bytes", 1.001, Outcome::Regression),
        ("weights_bytes", 0.9, Outcome::Improvement),
        ("accepted_tokens", 0.99, Outcome::Regression),
        ("accepted_tokens", 1.1, Outcome::Improvement),
        ("peak_rss_bytes", 1.04, Outcome::Pass),
        ("peak_rss_bytes", 1.2, Outcome::Regression),
        ("ppl", 1.001, Outcome::Pass),
        ("ppl", 1.01, Outcome::Regression),
        ("ppl", 0.9, Outcome::Improvement),
    ] {
        let mut head = sample_run("b");
        scale(&mut head, "flash", id, factor);
        let report = recorded(&sample_run("a"), &head);
        assert_eq!(gate(&report, "flash", id).outcome, expected, "{id} x {factor}: {:#?}", gate(&report, "flash", id));
        assert_eq!(gate(&report, "naive", id).outcome, Outcome::Pass);
        let verdict = if expected == Outcome::Regression { CheckVerdict::Regression } else { CheckVerdict::Pass };
        assert_eq!(report.verdict, verdict, "{id} x {factor}");
    }
}

#[test]
fn one_bad_repetition_of_a_counted_metric_is_enough() {
    let mut head = sample_run("b");
    let row = head.observations.iter_mut().find(|row| row.metric == "accepted_tokens").expect("a row");
    row.value = Some(76.0);
    assert_eq!(recorded(&sample_run("a"), &head).verdict, CheckVerdict::Regression);
}

#[test]
fn quality_is_judged_by_its_paired_interval() {
    let shifted = |shift: f64, wobble: f64| {
        let mut head = sample_run("b");
        for row in head.observations.iter_mut().filter(|row| row.metric == "delta_nll") {
            let item = row.item;
            row.value = row.value.map(|value| value + shift + wobble * jitter(1, 2, item));
        }
        gate(&recorded(&sample_run("a"), &head), "flash", "delta_nll").outcome
    };
    assert_eq!(shifted(0.002, 0.0005), Outcome::Regression);
    assert_eq!(shifted(0.0, 0.00001), Outcome::Pass);
    assert_eq!(shifted(0.0002, 0.01), Outcome::Inconclusive);
    assert_eq!(shifted(-0.002, 0.0005), Outcome::Improvement);
}

#[test]
fn recorded_time_is_advisory() {
    let (mut base, mut head) = (sample_run("a"), sample_run("b"));
    add(&mut base, "flash", "prefill_ms", |repetition, _| 10.0 + 0.01 * jitter(1, 1, repetition), 1);
    add(&mut head, "flash", "prefill_ms", |repetition, _| 20.0 + 0.01 * jitter(1, 2, repetition), 1);
    let report = recorded(&base, &head);
    let row = gate(&report, "flash", "prefill_ms");
    assert_eq!((row.outcome, row.otherwise), (Outcome::Advisory, Some(Outcome::Regression)), "{row:#?}");
    assert!(row.is_notable());
    assert_eq!(report.verdict, CheckVerdict::Pass);
}

#[test]
fn interleaved_time_gates() {
    for (truth, noise, expected) in [
        (1.0, 0.01, CheckVerdict::Pass),
        (1.10, 0.01, CheckVerdict::Regression),
        (1.015, 0.005, CheckVerdict::Pass),
        (0.8, 0.01, CheckVerdict::Pass),
        (1.0, 0.6, CheckVerdict::Inconclusive),
    ] {
        let report = check_interleaved(&interleaved(1, |_| truth, noise), &policy());
        assert_eq!(report.verdict, expected, "{truth} with noise {noise}: {:#?}", report.gates);
    }
    let faster = check_interleaved(&interleaved(1, |_| 0.8, 0.01), &policy());
    assert_eq!(faster.gates[0].outcome, Outcome::Improvement);
    let change = faster.gates[0].change.expect("a change");
    assert!(change.low <= 0.8 && 0.8 <= change.high + 0.02, "{change:?}");
}

#[test]
fn pairing_sees_through_drift() {
    // the machine drifts by 30 % within the job; unpaired, 4 % would drown
    let report = check_interleaved(&interleaved(1, |_| 1.06, 0.01), &policy());
    assert_eq!(report.verdict, CheckVerdict::Regression, "{:#?}", report.gates);
}

#[test]
fn too_few_pairs_decide_nothing() {
    let mut run = interleaved(1, |_| 2.0, 0.01);
    run.observations.retain(|row| row.repetition < 3);
    let report = check_interleaved(&run, &policy());
    assert_eq!(report.verdict, CheckVerdict::Inconclusive);
    assert!(report.gates[0].reason.contains("3 interleaved repetitions"), "{}", report.gates[0].reason);
}

#[test]
fn repetitions_of_different_sittings_do_not_pair() {
    let mut run = interleaved(1, |_| 1.0, 0.01);
    run.observations.iter_mut().filter(|row| row.cell.starts_with("head/")).for_each(|row| row.sitting = 1);
    assert_eq!(check_interleaved(&run, &policy()).verdict, CheckVerdict::Inconclusive);
}

/// A job that was interrupted: the head was scored and counted in the second sitting. The gates say what they say of a whole job.
#[test]
fn scores_and_counts_of_a_resumed_job_pair() {
    let job = |sitting: u32| {
        let mut run = interleaved(1, |_| 1.0, 0.01);
        for (prefix, extra) in [("base/", 0.0), ("head/", 0.02)] {
            let cell = format!("{prefix}cell0");
            add(&mut run, &cell, "delta_nll", |_, item| 0.01 + extra + 0.001 * f64::from(item), 20);
            add(&mut run, &cell, "ppl", |_, _| 20.0 + extra, 1);
            add(&mut run, &cell, "weights_bytes", |_, _| 1000.0 + 100.0 * extra, 1);
            add(&mut run, &cell, "accepted_tokens", |repetition, _| 70.0 + f64::from(repetition), 1);
        }
        let clocked = |row: &Observation| row.metric == "prefill_ms";
        for row in run.observations.iter_mut().filter(|row| row.cell.starts_with("head/") && !clocked(row)) {
            row.sitting = sitting;
        }
        check_interleaved(&run, &policy()).gates
    };
    let (whole, resumed) = (job(0), job(1));
    assert_eq!(whole, resumed);
    let outcomes: Vec<(&str, Outcome)> = resumed.iter().map(|gate| (gate.metric.as_str(), gate.outcome)).collect();
    let expected = [
        ("accepted_tokens", Outcome::Pass),
        ("delta_nll", Outcome::Regression),
        ("ppl", Outcome::Pass),
        ("prefill_ms", Outcome::Pass),
        ("weights_bytes", Outcome::Regression),
    ];
    assert_eq!(outcomes, expected);
}

/// Two recorded runs whose token gaps differ by the luck of six repetitions: tokens taken for independent would make it a certainty.
#[test]
fn recorded_gaps_are_worth_their_repetitions() {
    let run = |id: &str, seed: u32| {
        let mut run = sample_run(id);
        add(&mut run, "flash", "itl_ms", |r, item| 10.0 + jitter(seed, 1, r) + 0.01 * jitter(seed, r, item), 100);
        run.observations.retain(|row| row.metric != "itl_ms" || row.repetition < 6);
        run
    };
    let report = recorded(&run("a", 1), &run("b", 3));
    let row = gate(&report, "flash", "itl_ms");
    assert_eq!(row.base.expect("a base").n, 6);
    assert!(row.p.is_some_and(|p| p > 0.002), "the smallest p of six and six repetitions is 2/924: {row:#?}");
}

#[test]
fn gaps_between_chunks_of_another_size_do_not_gate() {
    let job = |tokens: f64| {
        let mut run = interleaved(1, |_| 1.0, 0.01);
        for (prefix, tokens) in [("base/", 1.0), ("head/", tokens)] {
            let cell = format!("{prefix}cell0");
            add(&mut run, &cell, "itl_ms", |r, item| 20.0 + 0.01 * jitter(2, r, item) + 10.0 * tokens, 8);
            add(&mut run, &cell, "chunk_tokens", |_, _| tokens, 8);
        }
        gate(&check_interleaved(&run, &policy()), "cell0", "itl_ms").clone()
    };
    assert_eq!(job(1.0).outcome, Outcome::Pass);
    let unlike = job(2.0);
    assert_eq!(unlike.outcome, Outcome::Advisory);
    assert!(unlike.reason.contains("unequally many tokens"), "{}", unlike.reason);
}

#[test]
fn many_metrics_raise_no_false_alarm_and_hide_no_slow_down() {
    let null = check_interleaved(&interleaved(100, |_| 1.0, 0.2), &policy());
    let below = |level: f64| null.gates.iter().filter(|gate| gate.p.is_some_and(|p| p <= level)).count();
    assert!(below(0.05) >= 1, "of 100 tests without an effect some fall below 5 %");
    assert!(null.gates.iter().all(|gate| gate.outcome != Outcome::Regression));

    let slow = check_interleaved(&interleaved(60, |index| if index % 20 == 0 { 1.3 } else { 1.0 }, 0.05), &policy());
    let found: Vec<&str> =
        slow.gates.iter().filter(|gate| gate.outcome == Outcome::Regression).map(|gate| gate.cell.as_str()).collect();
    assert_eq!(found.len(), 3, "{found:?}");
}

#[test]
fn the_noise_floor_raises_the_bar_for_a_regression_only() {
    let with_control = |control: f64| {
        let mut run = interleaved(1, |_| 1.05, 0.002);
        for prefix in ["base/", "head/"] {
            let (reference, twin) = (format!("{prefix}reference"), format!("{prefix}twin"));
            add_cell(&mut run, &reference, Role::Reference);
            add_cell(&mut run, &twin, Role::AaControl);
            add(&mut run, &reference, "prefill_ms", |_, _| 100.0, 1);
            add(&mut run, &twin, "prefill_ms", |_, _| 100.0 * control, 1);
        }
        gate(&check_interleaved(&run, &policy()), "cell0", "prefill_ms").outcome
    };
    assert_eq!(with_control(1.001), Outcome::Regression);
    assert_eq!(with_control(1.08), Outcome::Inconclusive);
}

#[test]
fn different_hardware_is_refused_or_labelled() {
    let mut head = sample_run("b");
    head.facts.retain(|fact| fact.key != "cpu_model");
    head.facts.push(fact("machine", "cpu_model", "Other CPU"));
    let refused = recorded(&sample_run("a"), &head);
    assert_eq!(refused.verdict, CheckVerdict::NotComparable);
    assert!(refused.gates.is_empty() && refused.summary.contains("Test CPU -> Other CPU"), "{}", refused.summary);

    let permit = Permit { different_hardware: true };
    let allowed = check(&sample_run("a"), &head, &policy(), Mode::Recorded, permit);
    assert_eq!(allowed.verdict, CheckVerdict::Pass);
    assert_eq!(gate(&allowed, "flash", "peak_rss_bytes").outcome, Outcome::Advisory);
    assert_eq!(allowed.differences.len(), 1);
}

#[test]
fn different_inputs_are_refused_whatever_is_allowed() {
    let permit = Permit { different_hardware: true };
    let mut weights = sample_run("b");
    weights.facts.iter_mut().filter(|fact| fact.key == "weights_sha256").for_each(|fact| fact.value = "def".to_owned());
    let mut scenario = sample_run("b");
    summary(&mut scenario).scenario = "other".to_owned();
    let mut silent = sample_run("b");
    silent.facts.retain(|fact| fact.key != "weights_sha256");
    for head in [weights, scenario, silent] {
        let report = check(&sample_run("a"), &head, &policy(), Mode::Recorded, permit);
        assert_eq!(report.verdict, CheckVerdict::NotComparable);
    }
    let mut one_cell = sample_run("b");
    one_cell.facts.push(fact("flash", "weights_sha256", "def"));
    let report = recorded(&sample_run("a"), &one_cell);
    assert_eq!(report.verdict, CheckVerdict::Inconclusive);
    assert!(report.gates.iter().all(|gate| gate.cell == "naive"));
}

#[test]
fn another_formula_or_seed_is_not_the_same_measurement() {
    let mut head = sample_run("b");
    head.observations.iter_mut().filter(|row| row.metric == "ppl").for_each(|row| row.formula_id = "ppl@2".to_owned());
    let report = recorded(&sample_run("a"), &head);
    assert_eq!(gate(&report, "flash", "ppl").outcome, Outcome::NotComparable);
    assert_eq!(report.verdict, CheckVerdict::Inconclusive);
}

#[test]
fn cells_and_metrics_that_come_and_go() {
    let mut bigger = sample_run("b");
    add_cell(&mut bigger, "paged", Role::Candidate);
    let new = recorded(&sample_run("a"), &bigger);
    assert_eq!((new.verdict, new.cells[0].outcome), (CheckVerdict::Pass, Outcome::New));

    let gone = recorded(&bigger, &sample_run("b"));
    assert_eq!((gone.verdict, gone.cells[0].outcome), (CheckVerdict::Regression, Outcome::Missing));

    let mut poorer = sample_run("b");
    poorer.observations.retain(|row| !(row.cell == "flash" && row.metric == "ppl"));
    let report = recorded(&sample_run("a"), &poorer);
    assert_eq!(gate(&report, "flash", "ppl").outcome, Outcome::Missing);
    assert_eq!(report.verdict, CheckVerdict::Regression);

    let mut not_finite = sample_run("b");
    scale(&mut not_finite, "flash", "ppl", f64::NAN);
    assert_eq!(recorded(&sample_run("a"), &not_finite).verdict, CheckVerdict::Regression);
}

#[test]
fn failed_wrong_and_unfinished_runs_are_failures() {
    for status in [Status::Failed, Status::Wrong] {
        let mut head = sample_run("b");
        summary(&mut head).cells[1].status = status;
        summary(&mut head).cells[1].reason = "out of memory".to_owned();
        head.observations.retain(|row| row.cell != "flash");
        let report = recorded(&sample_run("a"), &head);
        assert_eq!(report.verdict, CheckVerdict::RunFailed);
        assert_eq!(report.cells.len(), 1, "a failed cell is not also missing: {:#?}", report.cells);
    }
    let mut unfinished = sample_run("b");
    summary(&mut unfinished).complete = false;
    assert_eq!(recorded(&sample_run("a"), &unfinished).verdict, CheckVerdict::RunFailed);
    let mut killed = sample_run("b");
    killed.summary = None;
    assert_eq!(recorded(&sample_run("a"), &killed).verdict, CheckVerdict::RunFailed);
    // a failure outweighs a regression elsewhere
    let mut both = sample_run("b");
    summary(&mut both).cells[1].status = Status::Failed;
    scale(&mut both, "naive", "weights_bytes", 2.0);
    assert_eq!(recorded(&sample_run("a"), &both).verdict, CheckVerdict::RunFailed);
}

#[test]
fn claims() {
    use Verdict::{DirectionOnly, Failed, Holds, NotReproduced, Reproduced, SkippedNoGpu, Violated};
    for (base, head, expected) in [
        (Some(Holds), Holds, CheckVerdict::Pass),
        (Some(Holds), Violated, CheckVerdict::Regression),
        (None, Violated, CheckVerdict::Regression),
        (Some(Violated), Violated, CheckVerdict::Pass),
        (Some(NotReproduced), Reproduced, CheckVerdict::Pass),
        (Some(Reproduced), DirectionOnly, CheckVerdict::Inconclusive),
        (Some(Reproduced), SkippedNoGpu, CheckVerdict::Inconclusive),
        (None, SkippedNoGpu, CheckVerdict::Pass),
        (Some(Holds), Failed, CheckVerdict::RunFailed),
    ] {
        let (mut a, mut b) = (sample_run("a"), sample_run("b"));
        a.claims.extend(base.map(|verdict| claim("c", verdict)));
        b.claims.push(claim("c", head));
        assert_eq!(recorded(&a, &b).verdict, expected, "{base:?} -> {head:?}");
    }
    let mut a = sample_run("a");
    a.claims.push(claim("gone", Holds));
    assert_eq!(recorded(&a, &sample_run("b")).verdict, CheckVerdict::Inconclusive);

    let mut refuted = sample_run("b");
    refuted.claims.push(claim("c", Violated));
    assert_eq!(check_alone(&refuted, &policy()).verdict, CheckVerdict::Regression);
    let strict_text = DEFAULT_POLICY.replace("known = \"advisory\"", "known = \"regression\"");
    let strict = Policy::parse(&strict_text, Path::new("strict.toml")).expect("still a policy");
    let again = check(&refuted, &refuted, &strict, Mode::Recorded, Permit::default());
    assert_eq!(again.verdict, CheckVerdict::Regression);
}

#[test]
fn no_baseline_is_its_own_outcome() {
    let report = check_alone(&sample_run("a"), &policy());
    assert_eq!(report.verdict, CheckVerdict::NoBaseline);
    assert_eq!((report.verdict.exit_code(false), report.verdict.exit_code(true)), (0, 4));
}

#[test]
fn values_that_a_scenario_names_are_advisory_until_a_rule_says_otherwise() {
    let named = |run: &mut Run, value: f64| {
        add(run, "flash", "value", |_, _| value, 1);
        run.observations
            .iter_mut()
            .filter(|row| row.metric == "value")
            .for_each(|row| row.metric = "layers".to_owned());
    };
    let (mut base, mut head) = (sample_run("a"), sample_run("b"));
    named(&mut base, 4.0);
    named(&mut head, 5.0);
    assert_eq!(gate(&recorded(&base, &head), "flash", "layers").outcome, Outcome::Advisory);
    let text =
        format!("{DEFAULT_POLICY}\n[[rule]]\nmetrics = [\"layers\"]\ngate = \"deterministic\"\nreason = \"a count\"\n");
    let counted = Policy::parse(&text, Path::new("counted.toml")).expect("a policy");
    let report = check(&base, &head, &counted, Mode::Recorded, Permit::default());
    assert_eq!(gate(&report, "flash", "layers").outcome, Outcome::Regression);
}

#[test]
fn every_format_ends_with_or_holds_the_verdict() {
    let mut head = sample_run("b");
    scale(&mut head, "flash", "weights_bytes", 2.0);
    summary(&mut head).cells[1].label = "fl|ash <b>&\"'`\n::error::".to_owned();
    let report = recorded(&sample_run("a"), &head);
    let text = |format: Format| format.render(&report, false).expect("it renders");
    assert_eq!(text(Format::Console).lines().last(), Some("regression"));
    let markdown = text(Format::Markdown);
    assert!(markdown.starts_with("### ❌ infermark `smoke`: regression") && !markdown.contains("<b>"), "{markdown}");
    let rows: Vec<&str> =
        markdown.lines().filter(|line| line.contains("weights\\_bytes") && line.starts_with('|')).collect();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].replace("\\|", "").matches('|').count(), 6);
    let junit = text(Format::Junit);
    assert!(junit.contains("<failure type=\"regression\"") && !junit.contains("<b>"), "{junit}");
    assert_eq!(junit.matches("<testcase").count(), junit.matches("</testcase>").count());
    let annotations = text(Format::Annotations);
    assert!(
        annotations.lines().all(|line| ["::error ", "::warning ", "::notice "].iter().any(|c| line.starts_with(c)))
    );
    let json: serde_json::Value = serde_json::from_str(&text(Format::Json)).expect("JSON");
    assert_eq!((json["verdict"].as_str(), json["exit_code"].as_u64()), (Some("regression"), Some(1)));
}

/// Writes a run directory as `infermark run` leaves it.
fn write(run: &Run, folder: &Path) {
    let mut directory = results::run::RunDirectory::create(folder).expect("a new folder");
    directory.append(&run.observations).expect("rows");
    directory.append_facts(&run.facts).expect("facts");
    directory.write_summary(run.summary.as_ref().expect("a summary")).expect("summary");
    directory.write_claims(&run.claims).expect("claims");
    directory.seal().expect("parquet");
}

#[test]
fn exit_codes_of_the_command() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    write(&sample_run("a"), &at("base"));
    let mut worse = sample_run("b");
    scale(&mut worse, "flash", "weights_bytes", 2.0);
    write(&worse, &at("worse"));
    let mut failed = sample_run("c");
    summary(&mut failed).cells[0].status = Status::Failed;
    write(&failed, &at("failed"));
    let mut other = sample_run("d");
    other.facts[0].value = "Other CPU".to_owned();
    write(&other, &at("other"));
    std::fs::create_dir(at("damaged")).expect("a folder");
    std::fs::write(at("damaged").join("observations.parquet"), "not parquet").expect("a file");
    std::fs::write(at("bad.toml"), "schema = 1\nnonsense = 2\n").expect("a file");

    let code = |baseline: Option<&str>, head: &str, strict: bool, policy: Option<&str>| {
        let options = CheckOptions {
            baseline: baseline.map(at),
            head: at(head),
            policy: policy.map(at),
            strict,
            ..CheckOptions::default()
        };
        run_check(&options).map_or_else(|error| error.exit_code(), |answer| answer.code)
    };
    for (baseline, head, policy, plain, strict) in [
        (Some("base"), "base", None, 0, 0),
        (Some("base"), "worse", None, 1, 1),
        (Some("base"), "failed", None, 3, 3),
        (Some("base"), "other", None, 0, 4),
        (None, "base", None, 0, 4),
        (Some("never-made"), "base", None, 2, 2),
        (Some("base"), "nowhere", None, 2, 2),
        (Some("base"), "base", Some("bad.toml"), 2, 2),
        (Some("base"), "base", Some("no.toml"), 2, 2),
        (Some("base"), "damaged", None, 3, 3),
        (Some("damaged"), "base", None, 2, 2),
    ] {
        let case = format!("{baseline:?} {head} {policy:?}");
        assert_eq!(
            (code(baseline, head, false, policy), code(baseline, head, true, policy)),
            (plain, strict),
            "{case}"
        );
    }
    let unknown = CheckOptions { head: at("base"), policy: Some(at("bad.toml")), ..CheckOptions::default() };
    let error = run_check(&unknown).expect_err("a bad policy").to_string();
    assert!(error.contains("bad.toml:2:") && error.contains("nonsense"), "{error}");
}

#[test]
fn a_folder_of_records_gives_the_newest_that_fits() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let mut elsewhere = sample_run("elsewhere");
    elsewhere.facts[0].value = "Other CPU".to_owned();
    summary(&mut elsewhere).started = "2026-03-01T00:00:00Z".to_owned();
    let mut newer = sample_run("newer");
    summary(&mut newer).started = "2026-02-01T00:00:00Z".to_owned();
    for (name, run) in [("1", sample_run("older")), ("2", newer), ("3", elsewhere)] {
        write(&run, &folder.path().join("records").join(name));
    }
    write(&sample_run("head"), &at("head"));
    let options = CheckOptions {
        baseline: Some(at("records")),
        head: at("head"),
        format: Format::Json,
        ..CheckOptions::default()
    };
    let answer = run_check(&options).expect("a verdict");
    assert_eq!(answer.code, 0);
    let json: serde_json::Value = serde_json::from_str(&answer.text).expect("JSON");
    assert_eq!(json["base_run"].as_str(), Some("newer"));
}

#[test]
fn compare_lists_what_both_have() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let mut other = sample_run("b");
    scale(&mut other, "flash", "ppl", 1.5);
    write(&sample_run("a"), &at("a"));
    write(&other, &at("b"));
    let text = run_compare(&at("a"), &at("b"), Format::Console).expect("a table").text;
    let row = text.lines().find(|line| line.starts_with("flash") && line.contains(" ppl ")).expect("a row");
    assert!(row.contains("+10"), "{row}");
    assert!(text.contains("10 shared metrics"));
    assert!(matches!(run_compare(&at("a"), &at("b"), Format::Junit), Err(CheckError::Format)));
}
