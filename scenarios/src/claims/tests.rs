//! Verdicts over runs made by hand: every kind of measure, every word.

use results::claim::Tier;
use results::claim::Verdict::{self, *};
use results::observation::{Direction, Observation, Status};
use results::run::Run;
use results::summary::Role;

use super::measure::Measured;
use super::{judge, share};
use crate::cell::{Cell, ResolvedScenario};

const HEAD: &str = r#"
name = "made-up"
question = "Does the judge read rows as a reader would?"
[matrix]
attention = ["naive", "flash"]
weights = ["f32", { kind = "rtn", bits = 4 }, { kind = "gptq", bits = 4 }]
[calibration]
text = "embedded:calibration"
[[workload]]
kind = "identity"
check = "gqa-degenerate"
"#;

/// A scenario with one claim of `tier` whose parts are given as TOML.
fn scenario(tier: &str, extra: &str, parts: &[(&str, &str)]) -> ResolvedScenario {
    let mut text = format!(
        "{HEAD}\n[[claim]]\nid = \"c\"\npaper = \"p\"\nsource = \"s\"\nstatement = \"t\"\ntier = \"{tier}\"\npublished = \"u\"\ncounterpart = \"v\"\n{extra}\n"
    );
    for (measure, rule) in parts {
        text += &format!("[[claim.part]]\nlabel = \"part\"\nmeasure = {{ {measure} }}\nrule = {{ {rule} }}\n");
    }
    ResolvedScenario::parse(&text, None).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

fn cell(attention: &str, weights: &str) -> Cell {
    let scenario = scenario("ratio", "", &[("kind = \"value\", metric = \"m\"", "report_only = true")]);
    let find = |c: &&Cell| c.axes.attention == attention && c.axes.weights.starts_with(weights);
    scenario.cells.iter().find(find).cloned().expect("a cell of the matrix")
}

fn row(cell: &Cell, metric: &str, repetition: u32, item: u32, value: f64) -> Observation {
    Observation {
        run_id: "r".into(),
        scenario: "made-up".into(),
        cell: cell.id.clone(),
        axes: cell.axes.clone(),
        workload: "load".into(),
        sitting: 0,
        repetition,
        item,
        metric: metric.into(),
        formula_id: format!("{metric}@1"),
        unit: "ms".into(),
        direction: Direction::Lower,
        value: Some(value),
        x: None,
        status: Status::Ok,
        reason: String::new(),
        threads: 2,
        kernel_path: String::new(),
        seed: 1,
    }
}

fn run(observations: Vec<Observation>) -> Run {
    Run { observations, ..Run::default() }
}

fn verdict(tier: &str, parts: &[(&str, &str)], rows: Vec<Observation>) -> (Verdict, Option<f64>, String) {
    let mut results = judge(&scenario(tier, "", parts), &run(rows), "infermark run made-up").expect("judged");
    let result = results.remove(0);
    assert_eq!(result.command, "infermark run made-up");
    (result.verdict, result.measured, result.reason)
}

/// Milliseconds of seven repetitions around `center`, with drift that both cells share.
fn times(cell: &Cell, center: f64, noise: f64) -> Vec<Observation> {
    let wobble = [0.0, 1.0, -1.0, 0.5, -0.5, 0.8, -0.8];
    let value = |i: usize| center * (1.0 + 0.3 * i as f64) * (1.0 + noise * wobble[i]);
    (0..wobble.len()).map(|i| row(cell, "m", i as u32, 0, value(i))).collect()
}

const RATIO: &str =
    "kind = \"ratio\", metric = \"m\", over = { attention = \"naive\" }, under = { attention = \"flash\" }";

#[test]
fn ratios_and_their_words() {
    let (naive, flash) = (cell("naive", "f32"), cell("flash", "f32"));
    for (center, noise, rule, expected) in [
        (2.0, 0.01, "at_least = 1.5, no_effect = 1.0", Reproduced),
        (1.2, 0.01, "at_least = 1.5, no_effect = 1.0", DirectionOnly),
        (0.8, 0.01, "at_least = 1.5, no_effect = 1.0", NotReproduced),
        (1.0, 0.05, "at_least = 1.5, no_effect = 1.0", Inconclusive),
        (1.5, 0.05, "at_least = 1.5, parity = 1.5", Inconclusive),
        (1.2, 0.01, "at_least = 1.5, parity = 1.5", NotReproduced),
        (0.5, 0.01, "at_most = 0.8, no_effect = 1.0", Reproduced),
        (0.9, 0.01, "at_most = 0.8, no_effect = 1.0", DirectionOnly),
        (1.1, 0.01, "at_most = 0.8, no_effect = 1.0", NotReproduced),
        (2.0, 0.01, "at_least = 1.9, at_most = 2.1, parity = 2.0", Reproduced),
        (2.4, 0.01, "at_least = 1.9, at_most = 2.1, parity = 2.0", NotReproduced),
        (9.0, 0.01, "report_only = true", Reported),
    ] {
        let rows = [times(&naive, center, noise), times(&flash, 1.0, 0.0)].concat();
        let (found, measured, reason) = verdict("ratio", &[(RATIO, rule)], rows);
        assert_eq!(found, expected, "{center} by {rule}: {reason}");
        assert!((measured.expect("a number") / center - 1.0).abs() < 0.06, "{measured:?}");
    }
}

#[test]
fn a_ratio_may_join_two_metrics_of_one_cell_at_the_longest_length() {
    let flash = cell("flash", "f32");
    let mut rows = vec![];
    for (i, n) in [256.0, 512.0].into_iter().enumerate() {
        for repetition in 0..3 {
            for (metric, value) in [("full_ms", n * 3.0), ("causal_ms", n * if n > 300.0 { 1.0 } else { 2.0 })] {
                rows.push(Observation { x: Some(n), ..row(&flash, metric, repetition, i as u32, value) });
            }
        }
    }
    let select = "{ attention = \"flash\" }";
    let measure = format!(
        "kind = \"ratio\", metric = \"full_ms\", under_metric = \"causal_ms\", over = {select}, under = {select}"
    );
    let (found, measured, _) = verdict("ratio", &[(&measure, "at_least = 1.5, no_effect = 1.0")], rows.clone());
    assert_eq!(found, Reproduced);
    assert!((measured.expect("a number") - 3.0).abs() < 1e-9);
    let (_, measured, _) =
        verdict("ratio", &[(&format!("{measure}, x = 256"), "at_least = 1.5, no_effect = 1.0")], rows);
    assert!((measured.expect("a number") - 1.5).abs() < 1e-9);
}

#[test]
fn a_ratio_may_join_two_workloads_with_coordinates_of_their_own() {
    let naive = cell("naive", "f32");
    let mut rows = vec![];
    for repetition in 0..5 {
        let drift = 1.0 + f64::from(repetition);
        rows.push(Observation { x: Some(512.0), ..row(&naive, "m", repetition, 0, 6.0 * drift) });
        rows.push(Observation {
            x: Some(16.0),
            workload: "verify".into(),
            ..row(&naive, "m", repetition, 0, 2.0 * drift)
        });
    }
    let measure =
        "kind = \"ratio\", metric = \"m\", workload = \"load\", under_workload = \"verify\", over = {}, under = {}";
    let (found, measured, reason) = verdict("ratio", &[(measure, "at_least = 2.9, no_effect = 1.0")], rows);
    assert_eq!(found, Reproduced, "{reason}");
    assert!((measured.expect("a ratio") - 3.0).abs() < 1e-9);
}

#[test]
fn identities_hold_or_are_violated() {
    let naive = cell("naive", "f32");
    let rows = |values: &[f64]| {
        values
            .iter()
            .enumerate()
            .map(|(i, &v)| Observation { x: Some(i as f64), ..row(&naive, "gap", 0, i as u32, v) })
            .collect()
    };
    let measure = "kind = \"value\", metric = \"gap\", statistic = \"max\"";
    let parts = [(measure, "at_most = 1e-5, point = true")];
    assert_eq!(verdict("identity", &parts, rows(&[1e-6, 9e-6, 2e-6])).0, Holds);
    let (found, measured, reason) = verdict("identity", &parts, rows(&[1e-6, 9e-5, 2e-6]));
    assert_eq!((found, measured), (Violated, Some(9e-5)));
    assert!(reason.contains("9.00e-5") && reason.contains("violated"), "{reason}");
    let least = [("kind = \"value\", metric = \"gap\", statistic = \"min\"", "at_least = 0.01, point = true")];
    assert_eq!(verdict("identity", &least, rows(&[0.5, 0.02])).0, Holds);
    let at = [("kind = \"value\", metric = \"gap\", x = 1", "at_least = 9, at_most = 9, point = true")];
    assert_eq!(verdict("identity", &at, rows(&[1.0, 9.0, 3.0])).0, Holds);
}

#[test]
fn one_broken_part_breaks_the_claim() {
    let (naive, flash) = (cell("naive", "f32"), cell("flash", "f32"));
    let rows = [times(&naive, 1.2, 0.01), times(&flash, 1.0, 0.0)].concat();
    let parts = |second: &'static str| [(RATIO, "at_least = 1.1, no_effect = 1.0"), (RATIO, second)];
    assert_eq!(verdict("ratio", &parts("at_most = 1.3, parity = 1.0"), rows.clone()).0, Reproduced);
    assert_eq!(verdict("ratio", &parts("at_least = 2.0, no_effect = 1.0"), rows.clone()).0, DirectionOnly);
    assert_eq!(verdict("ratio", &parts("at_most = 0.9, no_effect = 1.0"), rows.clone()).0, NotReproduced);
    assert_eq!(verdict("ratio", &parts("report_only = true"), rows.clone()).0, Reproduced);
    assert_eq!(verdict("absolute", &parts("report_only = true"), rows).0, Reported);
}

#[test]
fn what_was_not_measured_fails_with_its_reason() {
    let (naive, flash) = (cell("naive", "f32"), cell("flash", "f32"));
    let parts = [(RATIO, "at_least = 1.1, no_effect = 1.0")];
    let (found, measured, reason) = verdict("ratio", &parts, times(&naive, 1.0, 0.0));
    assert_eq!((found, measured), (Failed, None));
    assert!(reason.contains("flash") && reason.contains("`m`"), "{reason}");
    // a cell found wrong after its timing takes its rows with it
    let mut rows = [times(&naive, 2.0, 0.01), times(&flash, 1.0, 0.0)].concat();
    let status = Observation {
        workload: String::new(),
        status: Status::Wrong,
        reason: "logits differ".into(),
        value: None,
        ..row(&flash, "cell_status", 0, 0, 0.0)
    };
    rows.push(status);
    let (found, _, reason) = verdict("ratio", &parts, rows.clone());
    assert_eq!(found, Failed);
    assert!(reason.contains("wrong: logits differ"), "{reason}");
    // and a later sitting without that brings them back
    let again: Vec<Observation> = [times(&naive, 2.0, 0.01), times(&flash, 1.0, 0.0)].concat();
    rows.extend(again.into_iter().map(|row| Observation { sitting: 1, ..row }));
    assert_eq!(verdict("ratio", &parts, rows).0, Reproduced);
}

#[test]
fn the_head_of_two_builds_is_judged() {
    let (naive, flash) = (cell("naive", "f32"), cell("flash", "f32"));
    let of = |prefix: &str, center: f64| {
        let mut rows = [times(&naive, center, 0.0), times(&flash, 1.0, 0.0)].concat();
        rows.iter_mut().for_each(|row| row.cell = format!("{prefix}/{}", row.cell));
        rows
    };
    let rows = [of("base", 9.0), of("head", 2.0)].concat();
    let measured = verdict("ratio", &[(RATIO, "report_only = true")], rows).1;
    assert!((measured.expect("a number") - 2.0).abs() < 1e-9);
}

/// Windows whose losses are `scale` times 0.01 … 0.04.
fn losses(cell: &Cell, scale: f64, noise: f64) -> Vec<Observation> {
    let loss = |i: u32| scale * (0.01 + 0.001 * f64::from(i)) + noise * f64::from(i * 7 % 5);
    let window =
        |i: u32| Observation { formula_id: "delta_nll@1/gptq-512".into(), ..row(cell, "delta_nll", 0, i, loss(i)) };
    (0..30).map(window).collect()
}

const CLOSURE: &str =
    "kind = \"closure\", method = { weights = \"gptq-4bit-g128\" }, baseline = { weights = \"rtn-4bit-g128\" }";

#[test]
fn closure_of_a_gap() {
    let (rtn, gptq) = (cell("naive", "rtn"), cell("naive", "gptq"));
    let judged = |scale: f64, rule: &str| {
        verdict("ratio", &[(CLOSURE, rule)], [losses(&rtn, 1.0, 0.0), losses(&gptq, scale, 1e-4)].concat())
    };
    let (found, measured, reason) = judged(0.4, "at_least = 0.3, no_effect = 0.0");
    assert_eq!(found, Reproduced, "{reason}");
    // oracle: mean losses are 0.0245 and 0.4 · 0.0245 + 1e-4 · 2
    assert!((measured.expect("a number") - (1.0 - 0.4 - 2e-4 / 0.0245)).abs() < 1e-9);
    assert_eq!(judged(0.8, "at_least = 0.3, no_effect = 0.0").0, DirectionOnly);
    assert_eq!(judged(1.3, "at_least = 0.3, no_effect = 0.0").0, NotReproduced);
}

#[test]
fn a_gap_too_small_is_not_applicable_and_shown() {
    let (rtn, gptq) = (cell("naive", "rtn"), cell("naive", "gptq"));
    let rows = [losses(&rtn, 0.1, 0.0), losses(&gptq, 0.04, 0.0)].concat();
    let (found, measured, reason) = verdict("ratio", &[(CLOSURE, "at_least = 0.3, no_effect = 0.0")], rows);
    assert_eq!(found, NotApplicableAtScale);
    assert!((measured.expect("shown all the same") - 0.6).abs() < 1e-9);
    assert!(reason.contains("less than the 1.0 %"), "{reason}");
}

#[test]
fn a_stated_reason_makes_any_claim_not_applicable() {
    let (naive, flash) = (cell("naive", "f32"), cell("flash", "f32"));
    let scenario =
        scenario("ratio", "not_applicable = \"no such hardware here.\"", &[(RATIO, "at_least = 1.5, no_effect = 1.0")]);
    let rows = [times(&naive, 2.0, 0.0), times(&flash, 1.0, 0.0)].concat();
    let result = judge(&scenario, &run(rows), "").expect("judged").remove(0);
    assert_eq!(result.verdict, NotApplicableAtScale);
    assert!(result.reason.starts_with("no such hardware here. part: 2×"), "{}", result.reason);
    assert!(result.measured.is_some());
}

#[test]
fn slopes_shares_and_the_best_of_several() {
    let (naive, flash) = (cell("naive", "f32"), cell("flash", "f32"));
    let mut rows = vec![];
    for repetition in 0..5 {
        for (i, n) in [128.0f64, 256.0, 512.0, 1024.0].into_iter().enumerate() {
            let value = if n < 200.0 { 1e6 } else { n * n * (1.0 + 0.01 * f64::from(repetition)) };
            rows.push(Observation { x: Some(n), ..row(&naive, "m", repetition, i as u32, value) });
        }
    }
    let slope = [("kind = \"slope\", metric = \"m\", from = 256", "at_least = 1.9, at_most = 2.1, no_effect = 1.0")];
    let (found, measured, reason) = verdict("ratio", &slope, rows.clone());
    assert_eq!(found, Reproduced, "{reason}");
    assert!((measured.expect("a slope") - 2.0).abs() < 1e-9 && reason.contains("3 lengths"), "{reason}");

    let items = |values: &[f64]| values.iter().enumerate().map(|(i, &v)| row(&naive, "m", 0, i as u32, v)).collect();
    let share = [("kind = \"share\", metric = \"m\", limit = 0.8", "at_least = 0.9, point = true")];
    assert_eq!(verdict("ratio", &share, items(&[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.8, 0.9])).0, Reproduced);
    assert_eq!(verdict("ratio", &share, items(&[0.1, 0.9])).0, NotReproduced);

    let fast: Vec<Observation> =
        [times(&naive, 1.0, 0.0), times(&flash, 1.5, 0.0), times(&cell("naive", "rtn"), 1.2, 0.0)].concat();
    let best = "kind = \"best-ratio\", metric = \"m\", over = [{ attention = \"flash\" }, { weights = \"rtn-4bit-g128\" }], under = {}";
    let (found, measured, reason) =
        verdict("ratio", &[(best, "at_least = 1.0, no_effect = 1.0, smallest_effect = 1.05")], fast);
    assert_eq!(found, Reproduced);
    assert!((measured.expect("a ratio") - 1.5).abs() < 1e-9 && reason.contains("best is flash"), "{reason}");
}

#[test]
fn speedup_beside_its_formula() {
    let text = format!(
        "{}\n[[claim]]\nid = \"c\"\npaper = \"p\"\nsource = \"s\"\nstatement = \"t\"\ntier = \"ratio\"\npublished = \"u\"\ncounterpart = \"v\"\n[[claim.part]]\nlabel = \"part\"\nmeasure = {{ kind = \"speedup-over-model\", speculative = {{ decoding = \"speculative-g4\" }}, plain = {{ decoding = \"greedy\" }} }}\nrule = {{ at_least = 0.85, at_most = 1.15, parity = 1.0 }}\n",
        "name = \"made-up\"\nquestion = \"q\"\n[matrix]\ndecoding = [\"greedy\", { kind = \"speculative\", gamma = 4 }]\n[[workload]]\nkind = \"identity\"\ncheck = \"gqa-degenerate\"\n"
    );
    let scenario = ResolvedScenario::parse(&text, None).unwrap_or_else(|e| panic!("{e}"));
    let [plain, fast] = &scenario.cells[..] else { panic!("{:?}", scenario.cells) };
    // by hand: α = 1/2, γ = 4: E = 31/16; draft 4 · 0.1 and verification 1.2 plain steps: predicted 31/16 / 1.6
    let mut rows = vec![];
    for repetition in 0..5 {
        let step = 2.0 + f64::from(repetition);
        rows.push(row(plain, "decode_ms_per_token", repetition, 0, step));
        for (metric, value) in [
            ("decode_ms_per_token", step / (31.0 / 16.0 / 1.6) * 1.05),
            ("acceptance_alpha", 0.5),
            ("draft_ms_per_run", 0.4 * step),
            ("verify_ms_per_run", 1.2 * step),
        ] {
            rows.push(row(fast, metric, repetition, 0, value));
        }
        // drafts that were accepted while whole requests were answered, which timed no step
        let elsewhere = row(fast, "acceptance_alpha", repetition, 0, 0.9);
        rows.push(Observation { workload: "generate-64-32".into(), ..elsewhere });
    }
    let result = judge(&scenario, &run(rows), "").expect("judged").remove(0);
    assert_eq!(result.verdict, Reproduced, "{}", result.reason);
    assert!((result.measured.expect("a ratio") - 1.0 / 1.05).abs() < 1e-9);
    assert!(result.reason.contains("α = 0.50, c = 0.10, v = 1.20 at γ = 4"), "{}", result.reason);
}

#[test]
fn reproduction_scenarios_are_named_after_their_claim() {
    for definition in crate::library::definitions().iter().filter(|d| d.group() == "reproduction") {
        let scenario =
            ResolvedScenario::parse(definition.text, None).unwrap_or_else(|e| panic!("{}: {e}", definition.path));
        let ids: Vec<&str> = scenario.scenario.claims.iter().map(|claim| claim.id.as_str()).collect();
        assert_eq!(ids, [definition.name], "{}", definition.path);
    }
}

#[test]
fn a_run_without_rows_confirms_nothing() {
    for definition in crate::library::definitions() {
        let scenario =
            ResolvedScenario::parse(definition.text, None).unwrap_or_else(|e| panic!("{}: {e}", definition.path));
        // without a GPU that is what a claim about one says; with one, the missing rows are a failure
        let gpu = scenario.cells.iter().find(|cell| cell.spec.device.is_gpu());
        let absent = gpu.is_some_and(|cell| cell.unsupported.is_some());
        for result in judge(&scenario, &run(vec![]), "").expect("judged") {
            let expected = matches!(result.verdict, Failed | NotApplicableAtScale);
            let skipped = absent && result.verdict == SkippedNoGpu;
            assert!(expected || skipped, "{}: {:?}", result.id, result.verdict);
            assert_eq!(result.measured, None, "{}", result.id);
        }
    }
}

fn measured(value: f64, interval: (f64, f64)) -> Measured {
    Measured { value, interval: Some(interval), unit: "×".into(), n: 30, note: String::new() }
}

/// What is found of the paper's effect by a rule and a measure given as TOML.
fn found(measure: &str, rule: &str, value: f64, interval: (f64, f64)) -> (Option<f64>, String) {
    let scenario = scenario("ratio", "", &[(measure, rule)]);
    let part = &scenario.scenario.claims[0].parts[0];
    let found = share::found(&part.measure, &part.rule, &measured(value, interval));
    (found.share.map(|share| share.value), found.words)
}

#[test]
fn an_ordering_that_holds_by_a_third_of_a_per_cent_is_direction_only() {
    let rule = "at_most = 1.0, no_effect = 1.0, smallest_effect = 0.98, paper = 0.484";
    // by hand: ln 0.9966 = −0.0034058, ln 0.484 = −0.7256704, ln 0.9947 = −0.0053141, ln 0.9986 = −0.0014010
    let (share, words) = found(RATIO, rule, 0.9966, (0.9947, 0.9986));
    assert!((share.expect("a share") - 0.0046933).abs() < 1e-6, "{share:?}");
    assert_eq!(words, "0.47 % [0.19 %, 0.73 %] of the paper's effect (the paper's value is 0.4840)");

    let (naive, flash) = (cell("naive", "f32"), cell("flash", "f32"));
    for (center, noise, expected) in [
        (0.9966, 0.001, DirectionOnly),
        // the point lies beyond the smallest effect, its interval does not
        (0.978, 0.01, DirectionOnly),
        (0.97, 0.001, Reproduced),
        (0.484, 0.001, Reproduced),
        (1.0, 0.01, Inconclusive),
        (1.02, 0.001, NotReproduced),
    ] {
        let rows = [times(&naive, center, noise), times(&flash, 1.0, 0.0)].concat();
        let (found, _, reason) = verdict("ratio", &[(RATIO, rule)], rows);
        assert_eq!(found, expected, "{center}: {reason}");
    }
}

#[test]
fn the_share_stands_in_the_result_with_the_bound_that_was_applied() {
    let (naive, flash) = (cell("naive", "f32"), cell("flash", "f32"));
    let rule = "at_least = 1.0, no_effect = 1.0, smallest_effect = 1.05, paper = 4.0";
    let rows = [times(&naive, 2.0, 0.0), times(&flash, 1.0, 0.0)].concat();
    let result = judge(&scenario("ratio", "", &[(RATIO, rule)]), &run(rows), "").expect("judged").remove(0);
    // by hand: ln 2 / ln 4
    assert_eq!(result.found(), Some("50 % [50 %, 50 %] of the paper's effect (the paper's value is 4)"));
    let part = &result.parts[0];
    assert!((part.share.expect("a share").value - 0.5).abs() < 1e-12);
    assert_eq!((part.at_least, part.origin, part.paper), (Some(1.05), Some(1.0), Some(4.0)));
    assert!(result.rule.contains("at least 1.050, the smallest effect that matters"), "{}", result.rule);
    assert!(result.reason.contains("reproduced; 50 %"), "{}", result.reason);
    // records keep it, and records from before it load
    let text = serde_json::to_string(&result).expect("JSON");
    assert_eq!(serde_json::from_str::<results::claim::ClaimResult>(&text).expect("the same"), result);
}

#[test]
fn shares_and_distances_in_words() {
    let slope = "kind = \"slope\", metric = \"m\"";
    let ratio = "at_least = 1.5, no_effect = 1.0, paper = 4.0";
    let gap = "at_least = 0.15, no_effect = 0.0, paper = 0.33";
    let linear = "at_most = 1.1, no_effect = 2.0, paper = 1.0";
    let margin = "at_most = 1.02, parity = 1.0, paper = 1.007";
    let both = "at_least = 0.995, at_most = 1.005, parity = 1.0, paper = 1.0";
    for (measure, rule, value, interval, share, words) in [
        // 1 − 2 over 1 − 2 is all of it; half of the way from n² to n is half of it
        (slope, linear, 1.5, (1.4, 1.6), Some(0.5), "50 % [40 %, 60 %] of the paper's effect"),
        (slope, linear, 1.0, (1.0, 1.0), Some(1.0), "100 % [100 %, 100 %] of the paper's effect"),
        // a slope of 1 is not a ratio of 1: 0.9 over 2 − 1
        (slope, "at_least = 1.5, no_effect = 1.0, paper = 2.0", 1.9, (1.8, 2.0), Some(0.9), "90 % [80 %, 100 %]"),
        (CLOSURE, gap, 0.66, (0.44, 0.88), Some(2.0), "all of the paper's effect and more: 200 % [133 %, 267 %] of it"),
        (
            CLOSURE,
            gap,
            -0.33,
            (-0.66, -0.165),
            Some(-1.0),
            "the opposite of the paper's effect: -100 % [-200 %, -50 %]",
        ),
        (
            CLOSURE,
            gap,
            0.033,
            (-0.033, 0.099),
            Some(0.1),
            "not told from none of the paper's effect: 10 % [-10 %, 30 %]",
        ),
        (RATIO, ratio, 2.0, (1.0, 4.0), Some(0.5), "not told from none of the paper's effect: 50 % [0 %, 100 %] of it"),
        (
            RATIO,
            ratio,
            4f64.powi(11),
            (4f64.powi(10), 4f64.powi(12)),
            Some(11.0),
            "more than 10 times the paper's effect",
        ),
        (RATIO, "at_least = 1.5, no_effect = 1.0", 2.0, (1.9, 2.1), None, "the paper prints no effect to compare with"),
        // nothing lost: a distance, never a share of an effect
        (
            RATIO,
            margin,
            1.0003,
            (0.999, 1.002),
            None,
            "+0.030 % [-0.10 %, +0.20 %] from parity, within the paper's +0.70 %",
        ),
        (
            RATIO,
            margin,
            1.015,
            (1.013, 1.017),
            None,
            "+1.5 % [+1.3 %, +1.7 %] from parity, where the paper has +0.70 %",
        ),
        (RATIO, both, 1.001, (1.0, 1.002), None, "+0.10 % [0 %, +0.20 %] from parity, where the paper has 0 %"),
        (
            RATIO,
            "at_least = 1.0, parity = 1.0",
            1.1,
            (1.05, 1.2),
            None,
            "+10 % [+5.0 %, +20 %] from parity; the paper prints",
        ),
        ("kind = \"value\", metric = \"m\"", "at_most = 4.0, paper = 3.0", 3.1, (3.0, 3.2), None, "the paper prints 3"),
        ("kind = \"value\", metric = \"m\"", "at_most = 4.0", 3.1, (3.0, 3.2), None, ""),
    ] {
        let (found, said) = found(measure, rule, value, interval);
        assert!(said.starts_with(words), "{rule}: {said}");
        assert_eq!(found.is_some(), share.is_some(), "{said}");
        assert!(found.zip(share).is_none_or(|(a, b)| (a - b).abs() < 1e-9), "{said}: {found:?}");
    }
}

#[test]
fn nothing_lost_is_judged_by_its_margin_and_by_what_it_denies() {
    let (naive, flash) = (cell("naive", "f32"), cell("flash", "f32"));
    for (center, rule, expected) in [
        (1.001, "at_most = 1.02, parity = 1.0, denied = 1.4", Reproduced),
        (1.1, "at_most = 1.02, parity = 1.0, denied = 1.4", DirectionOnly),
        (1.5, "at_most = 1.02, parity = 1.0, denied = 1.4", NotReproduced),
        (1.1, "at_most = 1.02, parity = 1.0", NotReproduced),
        (0.7, "at_least = 0.8, parity = 1.0, denied = 0.5", DirectionOnly),
        (0.4, "at_least = 0.8, parity = 1.0, denied = 0.5", NotReproduced),
        // an effect of the right sign may be refuted all the same, where the rule says so
        (1.5, "at_least = 2.0, no_effect = 1.0, denied = 2.0", NotReproduced),
        (2.5, "at_least = 2.0, no_effect = 1.0, denied = 2.0", Reproduced),
    ] {
        let rows = [times(&naive, center, 0.001), times(&flash, 1.0, 0.0)].concat();
        let (found, _, reason) = verdict("ratio", &[(RATIO, rule)], rows);
        assert_eq!(found, expected, "{center} by {rule}: {reason}");
    }
}

#[test]
fn a_claim_never_takes_the_first_of_several_workloads_or_protocols() {
    let (rtn, gptq) = (cell("naive", "rtn"), cell("naive", "gptq"));
    let elsewhere = |rows: Vec<Observation>, name: &str| -> Vec<Observation> {
        rows.into_iter().map(|row| Observation { workload: name.into(), ..row }).collect()
    };
    let value = "kind = \"value\", metric = \"m\"";
    let naive = cell("naive", "f32");
    let rows = [times(&naive, 1.0, 0.0), elsewhere(times(&naive, 9.0, 0.0), "verify")].concat();
    let (found, measured, reason) = verdict("ratio", &[(value, "report_only = true")], rows.clone());
    assert_eq!((found, measured), (Failed, None));
    assert!(reason.contains("under load and verify: the claim must name one of them"), "{reason}");
    let named = format!("{value}, workload = \"load\"");
    assert_eq!(verdict("ratio", &[(&named, "report_only = true")], rows).0, Reported);

    let both =
        |cell: &Cell, scale: f64| [losses(cell, scale, 0.0), elsewhere(losses(cell, scale, 0.0), "verify")].concat();
    let (found, _, reason) =
        verdict("ratio", &[(CLOSURE, "report_only = true")], [both(&rtn, 1.0), both(&gptq, 0.4)].concat());
    assert_eq!(found, Failed);
    assert!(reason.contains("must name one of them as its `workload`"), "{reason}");

    let protocols = |cell: &Cell| {
        let mut rows = [losses(cell, 1.0, 0.0), losses(cell, 2.0, 0.0)].concat();
        rows[30..].iter_mut().for_each(|row| row.formula_id = "delta_nll@1/hf-stride-512".into());
        rows
    };
    let rows = [protocols(&rtn), protocols(&gptq)].concat();
    let (found, _, reason) = verdict("ratio", &[(CLOSURE, "report_only = true")], rows.clone());
    assert_eq!(found, Failed);
    assert!(reason.contains("gptq-512 and hf-stride-512: the claim must name one"), "{reason}");
    let named = format!("{CLOSURE}, protocol = \"gptq-512\"");
    assert_eq!(verdict("ratio", &[(&named, "report_only = true")], rows).0, Reported);
}

#[test]
fn an_item_that_two_sittings_gave_is_one_item() {
    let naive = cell("naive", "f32");
    let again =
        |rows: &[Observation]| rows.iter().map(|row| Observation { sitting: 1, ..row.clone() }).collect::<Vec<_>>();
    let items = |values: &[f64]| -> Vec<Observation> {
        values.iter().enumerate().map(|(i, &v)| row(&naive, "m", 0, i as u32, v)).collect()
    };
    let all = |kind: &str, rule: &str, rows: Vec<Observation>| {
        let scenario = scenario("ratio", "", &[(kind, rule)]);
        judge(&scenario, &run(rows), "").expect("judged").remove(0)
    };
    // nine of ten, not eighteen of twenty, whose interval would be narrower
    let share = "kind = \"share\", metric = \"m\", limit = 0.8";
    let once = items(&[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.8, 0.9]);
    let expected = all(share, "report_only = true", once.clone());
    let twice = all(share, "report_only = true", [once.clone(), again(&once[..7])].concat());
    assert_eq!((twice.interval, &twice.reason), (expected.interval, &expected.reason));
    let largest = "kind = \"value\", metric = \"m\", statistic = \"max\"";
    let expected = all(largest, "at_most = 1.0, point = true", once.clone());
    let twice = all(largest, "at_most = 1.0, point = true", [once.clone(), again(&once)].concat());
    assert_eq!(twice.reason, expected.reason);
    // the windows of one cell scored in another sitting than those of the other
    let (rtn, gptq) = (cell("naive", "rtn"), cell("naive", "gptq"));
    let (theirs, ours) = (losses(&rtn, 1.0, 0.0), losses(&gptq, 0.4, 1e-4));
    let rule = "at_least = 0.3, no_effect = 0.0";
    let expected = all(CLOSURE, rule, [theirs.clone(), ours.clone()].concat());
    let resumed = all(CLOSURE, rule, [theirs.clone(), again(&theirs[..4]), again(&ours)].concat());
    assert_eq!(resumed, expected);
    // a curve of counted bytes, half of it from each sitting
    let bytes =
        |n: u32| Observation { x: Some(f64::from(n)), ..row(&naive, "attention_scratch_bytes", 0, n, f64::from(n)) };
    let curve: Vec<Observation> = [256, 512, 1024, 2048].map(bytes).to_vec();
    let slope = "kind = \"slope\", metric = \"attention_scratch_bytes\"";
    let expected = all(slope, "at_most = 1.1, no_effect = 2.0, point = true", curve.clone());
    assert_eq!(expected.verdict, Reproduced, "{}", expected.reason);
    let resumed =
        all(slope, "at_most = 1.1, no_effect = 2.0, point = true", [&curve[..2], &again(&curve[2..])].concat());
    assert_eq!(resumed, expected);
}

#[test]
fn speed_is_not_judged_where_two_copies_of_the_reference_differ() {
    let claim = |metric: &str, rule: &str| {
        format!(
            "name = \"made-up\"\nquestion = \"q\"\n[model]\nsource = \"embedded:draft\"\n[matrix]\nweights = [\"f32\", \"f16\"]\n[reference]\nweights = \"f32\"\n\
             [[workload]]\nkind = \"decode\"\ntokens = 8\n[[workload]]\nkind = \"identity\"\ncheck = \"gqa-degenerate\"\n\
             [[claim]]\nid = \"c\"\npaper = \"p\"\nsource = \"s\"\nstatement = \"t\"\ntier = \"ratio\"\npublished = \"u\"\n\
             counterpart = \"v\"\n[[claim.part]]\nlabel = \"part\"\nmeasure = {{ kind = \"ratio\", metric = \"{metric}\", \
             over = {{ weights = \"f16\" }}, under = {{ weights = \"f32\" }} }}\nrule = {{ {rule} }}\n"
        )
    };
    let judged = |metric: &str, rule: &str, copy: f64, own: f64| {
        let scenario = ResolvedScenario::parse(&claim(metric, rule), None).unwrap_or_else(|e| panic!("{e}"));
        let of = |role: Role| scenario.cells.iter().find(|c| c.role == role).expect("such a cell");
        let (reference, control) = (of(Role::Reference), of(Role::AaControl));
        let candidate = of(Role::Candidate);
        let mut rows = vec![];
        for repetition in 0..9 {
            let drift = 1.0 + 0.1 * f64::from(repetition);
            let timed = |cell: &Cell, value: f64| Observation {
                workload: "tg8".into(),
                direction: Direction::Higher,
                ..row(cell, "decode_tok_s", repetition, 0, value * drift)
            };
            rows.extend([timed(reference, 1.0), timed(control, copy), timed(candidate, own)]);
            rows.extend([row(reference, "words", repetition, 0, 1.0), row(candidate, "words", repetition, 0, own)]);
        }
        judge(&scenario, &run(rows), "").expect("judged").remove(0)
    };
    let rule = "at_least = 1.5, no_effect = 1.0";
    assert_eq!(judged("decode_tok_s", rule, 1.01, 2.0).verdict, Reproduced);
    let noisy = judged("decode_tok_s", rule, 1.5, 2.0);
    assert_eq!(noisy.verdict, Inconclusive, "{}", noisy.reason);
    let why = "inconclusive, because this run is too noisy to judge speed: two copies of the reference have a ratio of 1.500 \
               [1.500, 1.500] in `decode_tok_s`";
    assert!(noisy.reason.contains(why), "{}", noisy.reason);
    // in a usable run, an effect that the copies reach as well is none
    let small = "at_least = 1.05, no_effect = 1.0";
    assert_eq!(judged("decode_tok_s", small, 1.01, 1.1).verdict, Reproduced);
    let alike = judged("decode_tok_s", small, 1.12, 1.1);
    assert_eq!(alike.verdict, Inconclusive, "{}", alike.reason);
    assert!(alike.reason.contains("two copies of the reference differ as much"), "{}", alike.reason);
    assert_eq!(judged("words", small, 1.12, 1.1).verdict, Reproduced);
    // what no clock measured stands, and what is only reported is still reported
    assert_eq!(judged("words", rule, 1.5, 2.0).verdict, Reproduced);
    assert_eq!(judged("decode_tok_s", "report_only = true", 1.5, 2.0).verdict, Reported);
}

#[test]
fn every_judged_number_says_what_it_is_compared_with() {
    // a bare bound is a condition of the claim; each of these is one, and none of them is an ordering
    const CONDITIONS: [&str; 13] = [
        "largest change of a score by the transform",
        "share of layers with an error ratio of at most 0.8",
        "features that meet the criterion, base",
        "differing sums, 1 to 4 bits",
        "relative error, 1 to 32 rows",
        "latent over multi-head, less 576/32768",
        "bits per weight, mean subtracted and dynamic 8-bit map (bitsandbytes)",
        "bits per weight, 8-bit floats (the paper)",
        "spread over orthogonal rotations (nat per token)",
        "largest kurtosis of a place after rotation, induced outliers",
        "largest change of a softmax weight",
        "i.i.d. tables, largest distance in standard errors",
        "incoherence of a weight with spikes, after over before Hadamard transforms",
    ];
    let mut bare = vec![];
    for definition in crate::library::definitions() {
        let scenario =
            ResolvedScenario::parse(definition.text, None).unwrap_or_else(|e| panic!("{}: {e}", definition.path));
        for claim in scenario.scenario.claims.iter().filter(|claim| claim.tier == Tier::Ratio) {
            for part in claim.parts.iter().filter(|part| part.rule.judges()) {
                if part.rule.no_effect.is_none() && part.rule.parity.is_none() {
                    bare.push(part.label.clone());
                }
            }
        }
    }
    assert_eq!(
        bare.iter().filter(|label| !CONDITIONS.contains(&label.as_str())).collect::<Vec<_>>(),
        Vec::<&String>::new()
    );
    assert_eq!(bare.len(), CONDITIONS.len());
}
