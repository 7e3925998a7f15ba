//! Grouping, pairing, and which values count as independent.

use results::aggregate::{aggregate, climb, compare, noise_floor};
use results::observation::{Direction, Observation, Status};

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

/// Scores of one cell in `sitting`: perplexity over eight windows, one more in each window than in the reference by 0.01 … 0.08.
fn scored(cell: &str, sitting: u32, extra: f64) -> Vec<Observation> {
    let base = |item: u32| 2.0 + 0.25 * f64::from(item % 3);
    let windows: Vec<f64> = (0..8).map(|item| base(item) + extra * f64::from(item + 1)).collect();
    let mean = windows.iter().sum::<f64>() / 8.0;
    let mut rows: Vec<Observation> =
        windows.iter().zip(0..).map(|(nll, item)| row(cell, "nll_window", 0, item, *nll)).collect();
    rows.extend(
        [("ppl", mean.exp()), ("nll", mean), ("kl_mean", 0.5 * extra), ("weights_bytes", 1e6 + extra)]
            .map(|(metric, value)| row(cell, metric, 0, 0, value)),
    );
    rows.push(row(cell, "layer_error", 3, 0, 0.2 + extra));
    rows.into_iter().map(|row| Observation { sitting, ..row }).collect()
}

/// Oracle: the same rows had in one sitting. The mean extra loss of eight windows is 0.01 · 4.5.
#[test]
fn a_resumed_run_compares_what_needs_no_clock_like_an_uninterrupted_one() {
    let whole = [scored("ref", 0, 0.0), scored("new", 0, 0.01)].concat();
    let (table, comparisons) = (aggregate(&whole), compare(&whole, "ref"));
    assert_eq!(comparisons.len(), 6);
    let ratio = comparisons.iter().find(|c| c.metric == "ppl").and_then(|c| c.ratio).expect("a ratio");
    assert!((ratio.ratio - 0.045f64.exp()).abs() < 1e-12 && ratio.n == 8 && ratio.low < ratio.high, "{ratio:?}");
    for resumed in [
        [scored("new", 0, 0.01), scored("ref", 1, 0.0)].concat(),
        [scored("ref", 0, 0.0), scored("new", 2, 0.01)].concat(),
        // scored again by the second sitting: counts once
        [scored("ref", 0, 0.0), scored("new", 0, 0.01), scored("ref", 1, 0.0)].concat(),
        [scored("new", 0, 0.01), scored("ref", 0, 0.0), scored("new", 1, 0.01), scored("ref", 1, 0.0)].concat(),
    ] {
        assert_eq!(aggregate(&resumed), table);
        assert_eq!(compare(&resumed, "ref"), comparisons);
    }
}

/// Repetitions of a decoder read other prompts: equal repetitions of two sittings are a pair, unequal ones are not.
#[test]
fn counts_that_follow_from_the_prompt_pair_by_repetition() {
    let counts = |cell: &str, sitting: u32, factor: f64| {
        let of = move |repetition| row(cell, "accepted_tokens", repetition, 0, factor * f64::from(10 + repetition));
        (0..4).map(of).map(|row| Observation { sitting, ..row }).collect::<Vec<_>>()
    };
    let rows = [counts("ref", 0, 1.0), counts("new", 1, 2.0)].concat();
    let found = &compare(&rows, "ref")[0];
    assert_eq!(found.n_pairs, 4);
    assert!((found.ratio.expect("positive").ratio - 2.0).abs() < 1e-12);
    // the difference is the count itself: 10 to 13, mean 11.5
    assert!((found.difference.estimate - 11.5).abs() < 1e-12);
}

/// A clock of another sitting measured another machine state, whoever named the metric.
#[test]
fn clocks_do_not_pair_across_sittings() {
    for metric in ["tpot_ms", "peak_rss_bytes", "attention_ms", "decode_llc_misses"] {
        let mut rows = repeated("ref", metric, &[10.0, 11.0, 12.0]);
        rows.extend(repeated("new", metric, &[5.0, 6.0, 5.5]).into_iter().map(|r| Observation { sitting: 1, ..r }));
        assert!(compare(&rows, "ref").is_empty(), "{metric}");
    }
}

/// Repeatable standard normal numbers.
struct Normal(rand::rngs::ChaCha8Rng);

impl Normal {
    fn next(&mut self) -> f64 {
        use rand::Rng;
        let mut uniform = || (f64::from(self.0.next_u32()) + 0.5) / 4_294_967_296.0;
        (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()
    }
}

/// Gaps of 10 ms between tokens: 5 % of luck that a repetition shares, 2 % of each token's own; symmetric on the log scale, so
/// that the median of all possible gaps is 10 ms.
fn simulated(cell: &str, source: &mut Normal) -> Vec<Observation> {
    let (repetitions, tokens) = (14, 15);
    let mut rows = Vec::new();
    for repetition in 0..repetitions {
        let luck = 0.05 * source.next();
        let gap = |item| row(cell, "itl_ms", repetition, item, 10.0 * (luck + 0.02 * source.next()).exp());
        rows.extend((0..tokens).map(gap));
    }
    rows
}

/// Oracle: the definition of a 95 % interval, over 400 simulated runs; each and the next are two copies of one cell. Intervals that
/// take tokens for independent cover far less, and call the copies different.
#[test]
fn intervals_of_events_cover_when_repetitions_share_their_luck() {
    use rand::SeedableRng;
    const RUNS: usize = 400;
    let mut source = Normal(rand::rngs::ChaCha8Rng::seed_from_u64(1));
    let (mut clustered, mut naive) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let rows = simulated("one", &mut source);
        let found = &aggregate(&rows)[0];
        assert_eq!((found.n, found.n_text().as_str()), (14, "14\u{202f}×\u{202f}15"));
        clustered.push((found.low.expect("low"), found.high.expect("high")));
        let tokens: Vec<f64> = rows.iter().filter_map(|row| row.value).collect();
        let found = results::statistics::median_interval(&tokens, 0).expect("values");
        naive.push((found.low, found.high));
    }
    let covered = |all: &[(f64, f64)]| {
        all.iter().filter(|(low, high)| *low <= 10.0 && 10.0 <= *high).count() as f64 / RUNS as f64
    };
    let overlapping = |all: &[(f64, f64)]| {
        all.chunks(2).filter(|two| two[0].0 <= two[1].1 && two[1].0 <= two[0].1).count() as f64 / (RUNS / 2) as f64
    };
    println!("of repetitions: {} cover, {} of the copies overlap", covered(&clustered), overlapping(&clustered));
    println!("of tokens: {} cover, {} of the copies overlap", covered(&naive), overlapping(&naive));
    assert!(covered(&clustered) >= 0.93 && overlapping(&clustered) >= 0.98);
    assert!(covered(&naive) < 0.7 && overlapping(&naive) < 0.8);
}

/// By hand: nine gaps of one repetition have a median and no interval; unequal repetitions say so.
#[test]
fn one_repetition_of_events_has_no_interval() {
    let gaps = |repetition, n| (0..n).map(move |item| row("a", "itl_ms", repetition, item, f64::from(item)));
    let alone: Vec<Observation> = gaps(0, 9).collect();
    let found = &aggregate(&alone)[0];
    assert_eq!((found.median, found.low, found.high, found.n), (Some(4.0), Some(4.0), Some(4.0), 1));
    assert_eq!(found.n_text(), "1\u{202f}×\u{202f}9");
    let unequal: Vec<Observation> = gaps(0, 9).chain(gaps(1, 5)).collect();
    assert_eq!(aggregate(&unequal)[0].n_text(), "2\u{202f}×\u{202f}5 to 9");
    // the same for a comparison: eight requests of one repetition are one pair
    let mut requests: Vec<Observation> = (0..8).map(|item| row("ref", "ttft_ms", 0, item, 10.0)).collect();
    requests.extend((0..8).map(|item| row("new", "ttft_ms", 0, item, 11.0 + f64::from(item))));
    assert_eq!(compare(&requests, "ref")[0].n_pairs, 1);
}

/// By hand: flash takes 2/4, 3/6 and 5/8 of naive's time on the small problem. The six pairwise means are 1/2 three times, √(1/2 · 5/8)
/// twice and 5/8, so their median, the Hodges-Lehmann ratio, is (1/2)^(3/4) · (5/8)^(1/4) = 0.528685632.
#[test]
fn a_kernel_is_compared_with_the_references_variant_of_the_same_problem() {
    let time = |cell: &str, rung: &str, shape: &str, times: &[f64]| {
        let id = format!("us_per_call:attention/{rung}/{shape}");
        let of = |(value, repetition): (&f64, u32)| row(cell, &id, repetition, repetition % 2 + 3, *value);
        times.iter().zip(0..).map(of).collect::<Vec<_>>()
    };
    let (small, large) = ("n512 h8/8 d64", "n1024 h8/8 d64");
    let mut rows = time("naive", "naive", small, &[4.0, 6.0, 8.0]);
    rows.extend(time("naive", "naive", large, &[40.0, 60.0, 80.0]));
    rows.extend(time("flash", "flash", small, &[2.0, 3.0, 5.0]));
    rows.extend(time("flash", "flash", large, &[30.0, 45.0, 60.0]));
    rows.extend(time("naive#aa", "naive", small, &[4.4, 6.6, 8.8]));
    let found = compare(&rows, "naive");
    let of = |cell: &str, shape: &str| {
        let found = found.iter().find(|c| c.cell == cell && c.metric.ends_with(shape)).expect("a comparison");
        (found.reference_metric.clone(), found.n_pairs, (found.ratio.expect("positive").ratio * 1e9).round() / 1e9)
    };
    assert_eq!(of("flash", small), (format!("us_per_call:attention/naive/{small}"), 3, 0.528685632));
    assert_eq!(of("flash", large), (format!("us_per_call:attention/naive/{large}"), 3, 0.75));
    assert_eq!(of("naive#aa", small).2, 1.1);
    assert_eq!(found.len(), 3);
    assert_eq!(noise_floor(&rows, "naive", "naive#aa").len(), 1);
    assert!(climb(&rows).is_empty(), "one rung is no ladder");
}

/// By hand: the third rung takes 10/40, 12/40 and 14/40 of the first's time. The middle two of the six pairwise means are √(0.25 · 0.35)
/// and 0.3, so the Hodges-Lehmann ratio is 0.29789. The first rung is the one that ran first, not the first by name.
#[test]
fn a_ladder_is_compared_with_its_first_rung() {
    let mut rows = Vec::new();
    for repetition in 0..3 {
        for (item, (rung, time)) in
            [("scalar", 40.0), ("avx2", 20.0), ("avx512", 10.0 + 2.0 * f64::from(repetition))].into_iter().enumerate()
        {
            let shift = 0.001 * f64::from(repetition);
            rows.push(row("cpu", &format!("us_per_call:gemv/{rung}/1x64x64"), repetition, item as u32, time + shift));
            rows.push(row(
                "cpu",
                &format!("roof_fraction:gemv/{rung}/1x64x64"),
                repetition,
                item as u32 + 7,
                1.0 / time,
            ));
        }
        rows.push(row("cpu", "us_per_call:gemv/scalar/1x64x96", repetition, 9, 1.0));
    }
    rows.reverse();
    let found = climb(&rows);
    let ids: Vec<&str> = found.iter().map(|c| c.metric.as_str()).collect();
    assert_eq!(
        ids,
        [
            "roof_fraction:gemv/avx2/1x64x64",
            "roof_fraction:gemv/avx512/1x64x64",
            "us_per_call:gemv/avx2/1x64x64",
            "us_per_call:gemv/avx512/1x64x64"
        ]
    );
    assert!(found.iter().all(|c| c.reference == "cpu" && c.reference_metric.contains("/scalar/1x64x64")));
    assert!((found[3].ratio.expect("positive").ratio - 0.29789).abs() < 1e-4 && found[3].n_pairs == 3);
    assert!(compare(&rows, "cpu").is_empty());
}

/// A decoder that emits two tokens at once has gaps twice as long and is not slower.
#[test]
fn gaps_between_chunks_of_unequal_size_are_neither_better_nor_worse() {
    let with_chunks = |cell: &str, tokens: f64| {
        let mut rows = Vec::new();
        for repetition in 0..3 {
            for item in 0..4 {
                rows.push(row(cell, "itl_ms", repetition, item, 10.0 * tokens + f64::from(repetition)));
                rows.push(row(cell, "chunk_tokens", repetition, item, tokens));
            }
        }
        rows
    };
    let gaps = |other: f64| {
        let rows = [with_chunks("greedy", 1.0), with_chunks("other", other)].concat();
        compare(&rows, "greedy").into_iter().find(|c| c.metric == "itl_ms").expect("gaps")
    };
    let (unlike, alike) = (gaps(2.0), gaps(1.0));
    assert_eq!(unlike.direction, Direction::None);
    assert!(unlike.note.contains("1.00") && unlike.note.contains("2.00"), "{}", unlike.note);
    assert_eq!((alike.direction, alike.note.as_str()), (Direction::Lower, ""));
}

/// Shares of the roof by cells that read unequally many bytes: the faster one may have the smaller share.
#[test]
fn shares_of_the_roof_rank_cells_of_equal_work_only() {
    let share = |cell: &str, weights: &str, value: f64| {
        let mut row = row(cell, "roof_fraction:decode", 0, 0, value);
        row.axes.weights = weights.into();
        Observation { direction: Direction::Higher, ..row }
    };
    let rows = [share("ref", "f32", 0.5), share("same", "f32", 0.6), share("int8", "int8", 0.4)];
    let found: Vec<(String, Direction)> = compare(&rows, "ref").into_iter().map(|c| (c.cell, c.direction)).collect();
    assert_eq!(found, [("int8".into(), Direction::None), ("same".into(), Direction::Higher)]);
}

/// Oracles: Clopper and Pearson's limits for 45 of 60 (quantiles of beta distributions from SciPy), and McNemar's exact p for 9 against 2.
#[test]
fn shares_have_their_intervals_from_items_in_pairs() {
    let of = |cell: &str, right: &dyn Fn(u32) -> bool| -> Vec<Observation> {
        let items = (0..60).map(|item| row(cell, "acc_item", 0, item, f64::from(u8::from(right(item)))));
        let share = (0..60).filter(|item| right(*item)).count() as f64 / 60.0;
        items.chain([row(cell, "acc", 0, 0, share)]).collect()
    };
    let mut rows = of("reference", &|item| item < 45);
    // two of the reference's are lost, nine of the others won
    rows.extend(of("cell", &|item| (2..54).contains(&item)));
    let share = aggregate(&rows).into_iter().find(|a| a.cell == "reference" && a.metric == "acc").expect("a share");
    let (low, high) = (share.low.expect("low"), share.high.expect("high"));
    assert!((low - 0.621_403_6).abs() < 1e-5 && (high - 0.852_813_9).abs() < 1e-5, "{low} {high}");
    assert_eq!((share.n, share.median), (60, Some(0.75)));
    let found = compare(&rows, "reference").into_iter().find(|c| c.metric == "acc").expect("a comparison");
    assert!((found.p.expect("p") - 0.065_429_687_5).abs() < 1e-9, "{found:?}");
    assert!((found.difference.estimate - 7.0 / 60.0).abs() < 1e-12 && found.n_pairs == 60, "{found:?}");
    assert!(found.difference.low < 0.0, "the interval holds what the test does not refuse: {found:?}");
    let ratio = found.ratio.expect("a ratio");
    assert!((ratio.ratio - (52.0 / 45.0)).abs() < 1e-12 && ratio.low < 1.0, "{ratio:?}");
}
