//! Verdicts over runs made by hand: every kind of measure, every word.

use results::claim::Verdict::{self, *};
use results::observation::{Direction, Observation, Status};
use results::run::Run;

use super::judge;
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
        (1.5, 0.05, "at_least = 1.5", Inconclusive),
        (1.2, 0.01, "at_least = 1.5", NotReproduced),
        (0.5, 0.01, "at_most = 0.8, no_effect = 1.0", Reproduced),
        (0.9, 0.01, "at_most = 0.8, no_effect = 1.0", DirectionOnly),
        (1.1, 0.01, "at_most = 0.8, no_effect = 1.0", NotReproduced),
        (2.0, 0.01, "at_least = 1.9, at_most = 2.1", Reproduced),
        (2.4, 0.01, "at_least = 1.9, at_most = 2.1", NotReproduced),
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
    let (found, measured, _) = verdict("ratio", &[(&measure, "at_least = 1.5")], rows.clone());
    assert_eq!(found, Reproduced);
    assert!((measured.expect("a number") - 3.0).abs() < 1e-9);
    let (_, measured, _) = verdict("ratio", &[(&format!("{measure}, x = 256"), "at_least = 1.5")], rows);
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
    let (found, measured, reason) = verdict("ratio", &[(measure, "at_least = 2.9")], rows);
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
    let parts = |second: &'static str| [(RATIO, "at_least = 1.1"), (RATIO, second)];
    assert_eq!(verdict("ratio", &parts("at_most = 1.3"), rows.clone()).0, Reproduced);
    assert_eq!(verdict("ratio", &parts("at_least = 2.0, no_effect = 1.0"), rows.clone()).0, DirectionOnly);
    assert_eq!(verdict("ratio", &parts("at_most = 0.9, no_effect = 1.0"), rows.clone()).0, NotReproduced);
    assert_eq!(verdict("ratio", &parts("report_only = true"), rows.clone()).0, Reproduced);
    assert_eq!(verdict("absolute", &parts("report_only = true"), rows).0, Reported);
}

#[test]
fn what_was_not_measured_fails_with_its_reason() {
    let (naive, flash) = (cell("naive", "f32"), cell("flash", "f32"));
    let parts = [(RATIO, "at_least = 1.1")];
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
    let (found, measured, reason) = verdict("ratio", &[(CLOSURE, "at_least = 0.3")], rows);
    assert_eq!(found, NotApplicableAtScale);
    assert!((measured.expect("shown all the same") - 0.6).abs() < 1e-9);
    assert!(reason.contains("less than the 1.0 %"), "{reason}");
}

#[test]
fn a_stated_reason_makes_any_claim_not_applicable() {
    let (naive, flash) = (cell("naive", "f32"), cell("flash", "f32"));
    let scenario = scenario("ratio", "not_applicable = \"no such hardware here.\"", &[(RATIO, "at_least = 1.5")]);
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
    let slope = [("kind = \"slope\", metric = \"m\", from = 256", "at_least = 1.9, at_most = 2.1")];
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
    let (found, measured, reason) = verdict("ratio", &[(best, "at_least = 1.0")], fast);
    assert_eq!(found, Reproduced);
    assert!((measured.expect("a ratio") - 1.5).abs() < 1e-9 && reason.contains("best is flash"), "{reason}");
}

#[test]
fn speedup_beside_its_formula() {
    let text = format!(
        "{}\n[[claim]]\nid = \"c\"\npaper = \"p\"\nsource = \"s\"\nstatement = \"t\"\ntier = \"ratio\"\npublished = \"u\"\ncounterpart = \"v\"\n[[claim.part]]\nlabel = \"part\"\nmeasure = {{ kind = \"speedup-over-model\", speculative = {{ decoding = \"speculative-g4\" }}, plain = {{ decoding = \"greedy\" }} }}\nrule = {{ at_least = 0.85, at_most = 1.15 }}\n",
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

/// The noise of a run is that of its clocks: copies of the reference that differ by up to half decide no speed, and do not touch counts.
#[test]
fn in_an_unusable_run_claims_of_speed_stay_open() {
    let tiers = |noise: f64, metric: &str, tier: &str| {
        let (naive, flash) = (cell("naive", "f32"), cell("flash", "f32"));
        let measure = RATIO.replace("\"m\"", &format!("{metric:?}"));
        let scenario = scenario(tier, "", &[(&measure, "at_least = 1.5, no_effect = 1.0")]);
        let reference = scenario.reference().clone();
        assert_eq!(reference.axes.attention, "naive");
        let mut rows = vec![];
        for repetition in 0..12 {
            let apart = if repetition % 2 == 0 { 1.0 + noise } else { 1.0 / (1.0 + noise) };
            let mut add = |cell: &Cell, metric: &str, value| {
                rows.push(Observation { formula_id: format!("{metric}@1"), ..row(cell, metric, repetition, 0, value) });
            };
            add(&naive, metric, 2.0);
            add(&flash, metric, 1.0);
            add(&naive, "prefill_ms", 10.0);
            add(&naive.control(), "prefill_ms", 10.0 * apart);
        }
        let scenario = ResolvedScenario { cells: [scenario.cells, vec![reference.control()]].concat(), ..scenario };
        let mut found = judge(&scenario, &run(rows), "").expect("judged");
        let result = found.remove(0);
        (result.verdict, result.reason)
    };
    assert_eq!(tiers(0.001, "tpot_ms", "ratio").0, Reproduced);
    let (verdict, reason) = tiers(0.5, "tpot_ms", "ratio");
    assert_eq!(verdict, Inconclusive, "{reason}");
    assert!(reason.contains("unusable") && reason.contains("over 12 pairs"), "{reason}");
    assert_eq!(tiers(0.5, "weights_bytes", "ratio").0, Reproduced);
}
