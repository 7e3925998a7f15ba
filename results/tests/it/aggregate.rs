//! Grouping, pairing, and which values count as independent.

use results::aggregate::{aggregate, compare, noise_floor};
use results::observation::{Observation, Status};

use crate::row;

fn repeated(cell: &str, metric: &str, values: &[f64]) -> Vec<Observation> {
    values.iter().zip(0..).map(|(value, repetition)| row(cell, metric, repetition, 0, *value)).collect()
}

#[test]
fn groups_are_sorted_and_complete() {
    let mut rows = repeated("b", "tpot_ms", &[3.0, 1.0, 2.0]);
    rows.extend(repeated("a", "tpot_ms", &[5.0]));
    let sweep = |x| Observation { x: Some(x), ..row("a", "prefill_ms", 0, 0, x) };
    rows.extend([sweep(1024.0), sweep(-1.0), sweep(128.0)]);
    let groups = aggregate(&rows);
    let keys: Vec<_> = groups.iter().map(|group| (group.cell.as_str(), group.metric.as_str(), group.x)).collect();
    let expected = [
        ("a", "prefill_ms", Some(-1.0)),
        ("a", "prefill_ms", Some(128.0)),
        ("a", "prefill_ms", Some(1024.0)),
        ("a", "tpot_ms", None),
        ("b", "tpot_ms", None),
    ];
    assert_eq!(keys, expected);
    let last = &groups[4];
    assert_eq!((last.n, last.median, last.axes.attention.as_str()), (3, Some(2.0), "b"));
    assert!(last.low >= Some(1.0) && last.high <= Some(3.0) && last.low < last.high);
    assert_eq!(last.cv, Some(0.5));
}

#[test]
fn rows_that_are_not_ok_do_not_count() {
    let failed = Observation {
        value: None,
        status: Status::Failed,
        reason: "out of memory".to_owned(),
        ..row("a", "tpot_ms", 9, 0, 0.0)
    };
    let alone = aggregate(std::slice::from_ref(&failed));
    assert_eq!((alone[0].status, alone[0].median, alone[0].reason.as_str()), (Status::Failed, None, "out of memory"));
    let mut rows = repeated("a", "tpot_ms", &[1.0, 2.0]);
    rows.push(failed);
    let mixed = aggregate(&rows);
    assert_eq!((mixed[0].status, mixed[0].median, mixed[0].n), (Status::Ok, Some(1.5), 2));
    assert_eq!(mixed[0].reason, "1 of 3 rows failed: out of memory");
}

#[test]
fn equal_repetitions_count_once() {
    let same = aggregate(&repeated("a", "weights_bytes", &[64.0; 5]));
    assert_eq!((same[0].n, same[0].low, same[0].high), (1, Some(64.0), Some(64.0)));
    let mut windows = Vec::new();
    for repetition in 0..4 {
        windows.extend((0..10).map(|item| row("a", "nll_window", repetition, item, f64::from(item) + 1.0)));
    }
    assert_eq!(aggregate(&windows)[0].n, 10);
}

/// Perplexity has one value, its interval comes from the windows: e^(mean ± ...) around it.
#[test]
fn perplexity_takes_its_interval_from_windows() {
    let window =
        |cell: &str, item: u32, shift: f64| row(cell, "nll_window", 0, item, 3.0 + 0.1 * f64::from(item % 5) + shift);
    let mut rows: Vec<_> = (0..40).map(|item| window("f32", item, 0.0)).collect();
    // the second cell is worse by exactly 0.02 in every window
    rows.extend((0..40).map(|item| window("int8", item, 0.02)));
    let mean: f64 = 3.2;
    rows.push(row("f32", "ppl", 0, 0, mean.exp()));
    rows.push(row("int8", "ppl", 0, 0, (mean + 0.02).exp()));
    rows.push(row("f32", "nll", 0, 0, mean));
    rows.push(row("int8", "nll", 0, 0, mean + 0.02));

    let groups = aggregate(&rows);
    let ppl = groups.iter().find(|group| group.cell == "f32" && group.metric == "ppl").expect("group");
    let (low, high) = (ppl.low.expect("low"), ppl.high.expect("high"));
    assert_eq!(ppl.n, 40);
    assert!(low < mean.exp() && mean.exp() < high);
    // sd of the windows 0.1414, standard error 0.0224, so about ± 4.4 %
    assert!((low / mean.exp() - 0.956).abs() < 0.01 && (high / mean.exp() - 1.045).abs() < 0.01, "{low} {high}");

    // paired, the windows' own variance cancels
    let comparisons = compare(&rows, "f32");
    let ppl = comparisons.iter().find(|comparison| comparison.metric == "ppl").expect("comparison");
    let ratio = ppl.ratio.expect("positive");
    assert_eq!(ppl.n_pairs, 40);
    for end in [ratio.low, ratio.ratio, ratio.high] {
        assert!((end - 0.02f64.exp()).abs() < 1e-12);
    }
    let nll = comparisons.iter().find(|comparison| comparison.metric == "nll").expect("comparison");
    assert!((nll.difference.low - 0.02).abs() < 1e-12 && (nll.difference.estimate - 0.02).abs() < 1e-12);
}

#[test]
fn comparisons_pair_within_a_sitting() {
    let mut rows = repeated("ref", "tpot_ms", &[10.0, 20.0, 30.0]);
    rows.extend(repeated("new", "tpot_ms", &[5.0, 10.0, 15.0, 99.0]));
    // the second sitting ran on a slower machine; its repetition 0 must not pair with that of the first
    rows.push(Observation { sitting: 1, ..row("ref", "tpot_ms", 0, 0, 100.0) });
    rows.push(Observation { sitting: 1, ..row("new", "tpot_ms", 0, 0, 50.0) });
    let comparisons = compare(&rows, "ref");
    assert_eq!(comparisons.len(), 1);
    let comparison = &comparisons[0];
    let ratio = comparison.ratio.expect("positive");
    assert_eq!((comparison.cell.as_str(), comparison.reference.as_str(), comparison.n_pairs), ("new", "ref", 4));
    assert!((ratio.ratio - 0.5).abs() < 1e-12 && (ratio.low - 0.5).abs() < 1e-12 && (ratio.high - 0.5).abs() < 1e-12);
}

#[test]
fn values_around_zero_have_a_difference_and_no_ratio() {
    let mut rows = repeated("ref", "drift", &[0.0, 0.1, -0.1]);
    rows.extend(repeated("new", "drift", &[1.0, 1.1, 0.9]));
    let comparison = &compare(&rows, "ref")[0];
    assert_eq!(comparison.ratio, None);
    assert!((comparison.difference.estimate - 1.0).abs() < 1e-12);
}

#[test]
fn formulas_of_different_versions_do_not_pair() {
    let mut rows = repeated("ref", "tpot_ms", &[1.0, 2.0]);
    rows.extend(
        repeated("new", "tpot_ms", &[1.0, 2.0])
            .into_iter()
            .map(|row| Observation { formula_id: "tpot@2".to_owned(), ..row }),
    );
    assert!(compare(&rows, "ref").is_empty());
}

#[test]
fn pooled_gaps_pair_by_repetition() {
    // speculation emits fewer, longer gaps: gap k of one cell is not gap k of the other
    let mut rows = Vec::new();
    for repetition in 0..5 {
        rows.extend((0..9).map(|item| row("plain", "itl_ms", repetition, item, 10.0 + f64::from(repetition))));
        rows.extend(
            (0..3).map(|item| row("speculative", "itl_ms", repetition, item, 20.0 + 2.0 * f64::from(repetition))),
        );
    }
    let comparison = &compare(&rows, "plain")[0];
    assert_eq!(comparison.n_pairs, 5);
    assert!((comparison.ratio.expect("positive").ratio - 2.0).abs() < 1e-12);
}

#[test]
fn requests_of_one_repetition_are_one_cluster() {
    let mut rows = Vec::new();
    for repetition in 0..4 {
        for item in 0..6 {
            rows.push(row("ref", "tpot_ms", repetition, item, 10.0));
            rows.push(row("new", "tpot_ms", repetition, item, 11.0 + 0.1 * f64::from(repetition)));
        }
    }
    assert_eq!(compare(&rows, "ref")[0].n_pairs, 4);
}

#[test]
fn the_noise_floor_is_the_control_alone() {
    let mut rows = repeated("ref", "tpot_ms", &[10.0, 10.2, 9.9]);
    rows.extend(repeated("aa", "tpot_ms", &[10.1, 10.0, 10.0]));
    rows.extend(repeated("fast", "tpot_ms", &[5.0, 5.0, 5.0]));
    let floor = noise_floor(&rows, "ref", "aa");
    assert_eq!(floor.len(), 1);
    assert_eq!(floor[0].cell, "aa");
    let ratio = floor[0].ratio.expect("positive");
    assert!(ratio.low <= 1.0 && 1.0 <= ratio.high);
}

#[test]
fn the_same_rows_give_the_same_table_in_any_order() {
    let mut rows = repeated("ref", "tpot_ms", &[10.0, 11.0, 9.0, 12.0, 10.5]);
    rows.extend(repeated("new", "tpot_ms", &[9.0, 10.0, 9.5, 11.0, 10.0]));
    let (table, comparison) = (aggregate(&rows), compare(&rows, "ref"));
    rows.reverse();
    // the order of rows decides which resamples are drawn, not what the table says beyond that
    assert_eq!(
        aggregate(&rows).iter().map(|group| group.median).collect::<Vec<_>>(),
        table.iter().map(|group| group.median).collect::<Vec<_>>()
    );
    assert_eq!(compare(&rows, "ref"), comparison);
}
