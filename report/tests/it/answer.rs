//! What the sentences say of rows whose truth is known.

use std::path::Path;

use results::aggregate::compare;
use results::claim::{Tier, Verdict};
use results::observation::Status;
use results::run::Run;

use crate::forge::{Forge, Noise, id};

const NAIVE: [&str; 3] = ["naive", "f32", "greedy"];
const FLASH: [&str; 3] = ["flash", "f32", "greedy"];
const NAIVE_INT8: [&str; 3] = ["naive", "int8", "greedy"];
const FLASH_INT8: [&str; 3] = ["flash", "int8", "greedy"];
const SPECULATIVE: [&str; 3] = ["naive", "f32", "speculative"];

/// Ten repetitions that drift: the machine slows down to half.
fn drift(scale: f64) -> Vec<f64> {
    (0..10).map(|i| scale * 1000.0 / (1.0 + 0.1 * f64::from(i))).collect()
}

/// Sentences that name a winner or a speed.
fn speaks_of_speed(answer: &str) -> bool {
    ["fastest", "as fast", "the speed of", "tok/s", "faster"].iter().any(|word| answer.contains(word))
}

#[test]
fn the_winner_is_chosen_by_the_paired_ratio() {
    let mut forge = Forge::new(&[NAIVE, FLASH, ["blocked", "f32", "greedy"]], true);
    forge.generates(&id(NAIVE), &drift(1.0));
    forge.generates("naive+f32+greedy#aa", &drift(1.001));
    // 2.04 times the reference in every repetition, and 2.00 times in the first five, which were the fast ones
    forge.generates(&id(FLASH), &drift(2.04));
    let early: Vec<f64> = drift(2.0).iter().enumerate().map(|(i, v)| if i < 5 { *v } else { f64::NAN }).collect();
    forge.generates("blocked+f32+greedy", &early);
    let answer = forge.answer();
    let winner = "flash · f32 · greedy is the fastest, 2.04× the speed of the reference naive · f32 · greedy";
    assert!(answer.contains(winner), "{answer}");
    assert!(answer.contains("128 tokens at context 16"), "the length is named: {answer}");
}

#[test]
fn ties_are_named_as_a_set() {
    let cells = [NAIVE, FLASH, NAIVE_INT8, FLASH_INT8, SPECULATIVE, ["flash", "f32", "speculative"]];
    let mut forge = Forge::new(&cells, true);
    let mut noise = Noise(3);
    let speed = |parts: [&str; 3]| match parts {
        [_, "int8", _] => 2.0,
        [_, _, "speculative"] => 0.5,
        _ => 1.0,
    };
    for parts in cells {
        forge.generates(&id(parts), &noise.around(1000.0 * speed(parts), 0.01, 12));
    }
    forge.generates("naive+f32+greedy#aa", &noise.around(1000.0, 0.01, 12));
    let answer = forge.answer();
    assert!(answer.contains("the fastest are int8 and greedy, with naive or flash, not told apart"), "{answer}");
}

#[test]
fn where_nothing_is_told_the_copies_are_quoted() {
    let mut forge = Forge::new(&[NAIVE, FLASH], true);
    let mut noise = Noise(5);
    for cell in ["naive+f32+greedy", "flash+f32+greedy", "naive+f32+greedy#aa"] {
        forge.generates(cell, &noise.around(1000.0, 0.08, 12));
    }
    let answer = forge.answer();
    assert!(answer.contains("no difference could be measured (two copies of the reference: "), "{answer}");
    assert!(!answer.contains("fastest"), "{answer}");
    // the ratio of the copies stands with its interval, as `compare` has it
    let all = compare(&forge.run.observations, "naive+f32+greedy");
    let ratio = all.iter().find(|c| c.cell.ends_with("#aa")).and_then(|c| c.ratio).expect("a ratio");
    let quoted = format!("{:.2}× [{:.2}, {:.2}]", ratio.ratio, ratio.low, ratio.high);
    assert!(answer.contains(&quoted), "{quoted} in {answer}");
}

#[test]
fn few_repetitions_tell_nothing() {
    let mut forge = Forge::new(&[NAIVE, FLASH], false);
    forge.generates(&id(NAIVE), &[100.0, 101.0, 99.0]);
    forge.generates(&id(FLASH), &[130.0, 131.0, 129.0]);
    let answer = forge.answer();
    assert!(answer.contains("only 3 times, too few to tell them apart"), "{answer}");
    assert!(!answer.contains("fastest") && !answer.contains("as fast"), "{answer}");
}

#[test]
fn one_cell_is_never_the_fastest() {
    let mut forge = Forge::new(&[NAIVE], true);
    forge.generates(&id(NAIVE), &[400.0, 412.0, 420.0, 410.0, 415.0]);
    forge.generates("naive+f32+greedy#aa", &[401.0, 411.0, 421.0, 409.0, 416.0]);
    let answer = forge.answer();
    assert!(!answer.contains("fastest"), "{answer}");
    assert!(answer.contains("naive · f32 · greedy reaches 412 ["), "{answer}");
}

#[test]
fn losses_are_judged_by_their_interval_and_only_where_measured() {
    let base: Vec<f64> = (0..24).map(|i| 3.0 + 0.1 * f64::from(i % 5)).collect();
    let cells = [NAIVE, ["naive", "int8", "greedy"], ["naive", "gptq", "greedy"], ["naive", "rtn", "greedy"]];
    let mut forge = Forge::new(&cells, true);
    forge.losses("naive+f32+greedy", "", &base);
    // 0.2 % more in every window; 0.5 % more on average but reaching over 1 %; rtn was never scored
    forge.losses("naive+int8+greedy", "", &base.iter().map(|l| l + 0.002).collect::<Vec<_>>());
    let wide = |(i, l): (usize, &f64)| l + if i % 2 == 0 { 0.045 } else { -0.035 };
    forge.losses("naive+gptq+greedy", "", &base.iter().enumerate().map(wide).collect::<Vec<_>>());
    for (cell, speed) in [("f32", 1.0), ("int8", 1.5), ("gptq", 2.0), ("rtn", 3.0)] {
        forge.generates(&format!("naive+{cell}+greedy"), &drift(speed));
        forge.rows(&format!("naive+{cell}+greedy"), "load", "weights_bytes", None, &[16_777_216.0 / speed]);
    }
    forge.generates("naive+f32+greedy#aa", &drift(1.0));
    let answer = forge.answer();
    assert!(
        answer.contains(
            "of the 2 of 4 cells that are told to lose at most 1 % of perplexity, naive · int8 · greedy is the fastest"
        ),
        "{answer}"
    );
    assert!(answer.contains("Faster still is naive · rtn · greedy, 2× the speed of naive · int8 · greedy, but its perplexity was not compared"), "{answer}");
    assert!(answer.contains("Perplexity was compared for 3 of 4 cells"), "absence is no equality: {answer}");
    assert!(!answer.contains("No cell loses"), "{answer}");
}

#[test]
fn without_any_comparison_nothing_is_said_about_losses() {
    let mut forge = Forge::new(&[NAIVE, NAIVE_INT8], true);
    forge.losses(&id(NAIVE), "", &[3.0, 3.1, 3.2]);
    forge.generates(&id(NAIVE), &drift(1.0));
    forge.generates(&id(NAIVE_INT8), &drift(2.0));
    forge.generates("naive+f32+greedy#aa", &drift(1.0));
    let answer = forge.answer();
    assert!(answer.contains("Perplexity was compared for no cell but the reference"), "{answer}");
    assert!(
        answer.contains("none of the cells beside the reference is told to lose at most 1 % of perplexity"),
        "{answer}"
    );
}

#[test]
fn the_protocol_that_shows_most_decides() {
    let base: Vec<f64> = (0..24).map(|i| 3.0 + 0.1 * f64::from(i % 5)).collect();
    let mut forge = Forge::new(&[NAIVE, NAIVE_INT8], false);
    for (protocol, loss) in [("gptq-512", 0.001), ("llamacpp-512", 0.03)] {
        forge.losses(&id(NAIVE), protocol, &base);
        forge.losses(&id(NAIVE_INT8), protocol, &base.iter().map(|l| l + loss).collect::<Vec<_>>());
    }
    let answer = forge.answer();
    // e^0.03 = 1.0305, not e^0.001
    assert!(
        answer.contains("1.03") && answer.contains("by llamacpp-512, the protocol that shows it most clearly"),
        "{answer}"
    );
}

#[test]
fn every_speed_names_its_length() {
    let mut forge = Forge::new(&[NAIVE, FLASH], true);
    for (cell, scale) in [("naive+f32+greedy", 1.0), ("flash+f32+greedy", 1.5), ("naive+f32+greedy#aa", 1.0)] {
        for (x, more) in [(128.0, 1.2), (512.0, 1.5), (2048.0, 2.0)] {
            let values = drift(if scale > 1.0 { scale * more } else { 1.0 });
            forge.rows(cell, "pp128-512-2048", "prefill_tok_s", Some(x), &values);
        }
        for (workload, x) in [("tg16", 16.0), ("tg16@4000", 4000.0)] {
            forge.rows(cell, workload, "decode_tok_s", Some(x), &drift(scale));
        }
    }
    let answer = forge.answer();
    for words in [
        "(128 tokens) is 1.8× as fast",
        "(2048 tokens) is 3× as fast",
        "16 tokens at context 16",
        "16 tokens at context 4000",
    ] {
        assert!(answer.contains(words), "{words} in {answer}");
    }
}

#[test]
fn an_unusable_run_says_so_with_numbers_and_speaks_of_no_speed() {
    let mut forge = Forge::new(&[NAIVE, FLASH], true);
    let mut noise = Noise(9);
    forge.generates(&id(NAIVE), &noise.around(1000.0, 0.6, 8));
    forge.generates("naive+f32+greedy#aa", &noise.around(1000.0, 0.6, 8));
    forge.generates(&id(FLASH), &noise.around(4000.0, 0.1, 8));
    forge.rows(&id(NAIVE), "gemv", "us_per_call:gemv/v0/1x8x8", None, &[9.0; 8]);
    forge.rows(&id(NAIVE), "gemv", "us_per_call:gemv/v1/1x8x8", None, &[3.0; 8]);
    forge.claim("speed", Tier::Ratio, Verdict::Inconclusive, Some((4.0, 2.0, 6.0)));
    let answer = forge.answer();
    assert!(answer.contains("No speed can be told from this run: two copies of the same cell differ by "), "{answer}");
    assert!(answer.contains("× [") && answer.contains("tg128") && answer.contains("Run it again"), "{answer}");
    assert!(!speaks_of_speed(&answer), "{answer}");
}

#[test]
fn claims_lead_with_what_the_paper_prints() {
    let mut forge = Forge::new(&[NAIVE, FLASH], true);
    for cell in ["naive+f32+greedy", "flash+f32+greedy", "naive+f32+greedy#aa"] {
        forge.generates(cell, &drift(1.0));
    }
    forge.claim("exact", Tier::Identity, Verdict::Holds, Some((0.0, 0.0, 0.0)));
    forge.claim("int8-natural-ppl", Tier::Ratio, Verdict::Reproduced, Some((1.0012, 1.0003, 1.0021)));
    forge.claim("also-exact", Tier::Identity, Verdict::Violated, Some((1.0, 1.0, 1.0)));
    let sentences = report::answer(&forge.run);
    assert_eq!(
        sentences[0],
        "“8-bit weights need not degrade a model” (Dettmers et al., LLM.int8()): the paper has a ratio of 1.007 for 125M; here it is \
         1.0012× [1.0003, 1.0021]: reproduced."
    );
    assert_eq!(sentences[1], "Of 2 identities of papers 1 holds; also-exact: violated.");
}

/// Oracle by hand: with flash, generation is 1.1 times as fast in f32 and 1.3 times in int8 in every repetition, so √(1.1 · 1.3) =
/// 1.196 times over both.
#[test]
fn an_axis_is_paired_over_all_others() {
    let mut forge = Forge::new(&[NAIVE, FLASH, NAIVE_INT8, FLASH_INT8], true);
    for (cell, scale, bytes) in [(NAIVE, 1.0, 16), (FLASH, 1.1, 16), (NAIVE_INT8, 2.0, 5), (FLASH_INT8, 2.6, 5)] {
        forge.generates(&id(cell), &drift(scale));
        forge.rows(&id(cell), "load", "weights_bytes", None, &[f64::from(bytes << 20)]);
        forge.losses(&id(cell), "", &[3.0, 3.1, 3.2]);
    }
    forge.generates("naive+f32+greedy#aa", &drift(1.0));
    let answer = forge.answer();
    let attention = "With flash instead of naive attention and all else equal (2 pairs of cells), generation (128 tokens at context 16) is \
                     1.196× as fast and perplexity is equal to within 0.01 %.";
    assert!(answer.contains(attention), "{answer}");
    assert!(answer.contains("With int8 instead of f32 weights and all else equal (2 pairs of cells)"), "{answer}");
    assert!(answer.contains("weights take 5\u{202f}MiB instead of 16\u{202f}MiB"), "{answer}");
}

#[test]
fn a_ladder_says_its_share_of_the_roof() {
    let mut forge = Forge::new(&[NAIVE], false);
    let cell = id(NAIVE);
    for (rung, us, share) in [("v0_scalar", 14.0, 0.06), ("v1_avx2", 2.0, 0.42), ("v2_panel", 1.0, 0.84)] {
        let part = format!("gemv/{rung}/1x2048x2048");
        let jitter = |v: f64| (0..8).map(|i| v * (1.0 + 0.001 * f64::from(i % 3))).collect::<Vec<_>>();
        forge.rows(&cell, "kernels-gemv", &format!("us_per_call:{part}"), None, &jitter(us));
        forge.rows(&cell, "kernels-gemv", &format!("roof_fraction:{part}"), None, &jitter(share));
        forge.rows(&cell, "kernels-gemv", &format!("roof_bandwidth_fraction:{part}"), None, &jitter(share));
        forge.rows(&cell, "kernels-gemv", &format!("gb_s:{part}"), None, &jitter(40.0 * share));
    }
    forge.fact("stream_bytes_s", "12000000000");
    forge.fact("cache_bytes_s", "40000000000");
    let answer = forge.answer();
    assert!(
        answer.contains("gemv 1x2048x2048: v2_panel is the fastest of 3 rungs, 14×")
            || answer.contains("fastest of 3 rungs, 14.0×"),
        "{answer}"
    );
    assert!(
        answer.contains("the speed of v0_scalar; it reaches 84.1 %")
            && answer.contains("of the measured roof (cache bandwidth)"),
        "{answer}"
    );
}

#[test]
fn a_killed_run_says_how_far_it_got() {
    let mut forge = Forge::new(&[NAIVE, FLASH, NAIVE_INT8], true);
    forge.summary().complete = false;
    forge.losses(&id(NAIVE), "", &[3.0, 3.1]);
    forge.losses(&id(FLASH), "", &[3.0, 3.1]);
    let sentences = report::answer(&forge.run);
    assert_eq!(sentences[0], "The run was not finished: 2 of 3 cells scored, 0 timed.");
    let html = report::render(&forge.run).expect("renders");
    assert!(html.contains("2 of 3 cells scored, 0 timed") && !html.contains("summed up"), "the page says the same");
    assert!(html.contains("2 of 4 cells measured"), "cells without a row are not measured");
}

#[test]
fn a_run_of_nothing_says_what_was_missing() {
    let mut forge = Forge::new(&[NAIVE, FLASH], false);
    for cell in [id(NAIVE), id(FLASH)] {
        let cell = forge.cell(&cell);
        (cell.status, cell.reason) = (Status::Skipped, "needs a GPU, and there is no CUDA driver".into());
    }
    let answer = forge.answer();
    assert_eq!(answer, "Nothing was measured: all 2 cells were skipped (needs a GPU, and there is no CUDA driver).");
}

#[test]
fn caveats_name_cells_metrics_and_the_cache() {
    let mut forge = Forge::new(&[NAIVE, FLASH], false);
    forge.rows(&id(FLASH), "tg128", "roof_excess:decode", None, &[1.0, 0.0, 1.0]);
    forge.rows(&id(NAIVE), "tg128", "roof_excess:decode", None, &[0.0, 0.0, 0.0]);
    forge.model("embedded:base", 16 << 20);
    forge.fact("llc_bytes", "33554432");
    forge.fact("load_average", "1.93 0.8 0.5 2/345 1234");
    let caveats = report::caveats(&forge.run).join("\n");
    for words in [
        "2 measurements are faster than the roofs",
        "flash · f32 · greedy (decode, 2 of 3 repetitions)",
        "16\u{202f}MiB in f32, and the last-level cache holds 32\u{202f}MiB",
        "cache bandwidth",
        "1.9 programs were busy",
    ] {
        assert!(caveats.contains(words), "{words} in {caveats}");
    }
    assert!(!caveats.contains("naive · f32 · greedy ("), "{caveats}");
}

/// The property: whatever the rows, no sentence claims what an interval does not support. Oracle: `compare`, asked here again.
#[test]
fn no_sentence_claims_more_than_the_rows_do() {
    let cells = [NAIVE, FLASH, NAIVE_INT8, FLASH_INT8];
    let mut winners = 0;
    for seed in 0..24u64 {
        let mut noise = Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1);
        let mut forge = Forge::new(&cells, seed % 3 != 0);
        let spread = [0.01, 0.05, 0.3][(seed % 3) as usize];
        let n = 3 + (seed % 11) as usize;
        let effect = if seed % 2 == 0 { 0.0 } else { 0.4 };
        let all: Vec<String> = forge.summary().cells.iter().map(|c| c.id.clone()).collect();
        for cell in &all {
            let scale = if cell.starts_with("flash") { 1.0 + effect } else { 1.0 };
            forge.generates(cell, &noise.around(1000.0 * scale, spread, n));
        }
        let scored = seed % 4;
        for cell in all.iter().take(scored as usize) {
            let windows: Vec<f64> = (0..12).map(|_| 3.0 + 0.02 * noise.next()).collect();
            forge.losses(cell, "", &windows);
        }
        let answer = forge.answer();
        let comparisons = compare(&forge.run.observations, "naive+f32+greedy");
        let told = comparisons
            .iter()
            .filter(|c| c.metric == "decode_tok_s" && !c.cell.ends_with("#aa"))
            .any(|c| c.n_pairs >= 5 && c.ratio.is_some_and(|r| r.low > 1.0));
        winners += usize::from(answer.contains("fastest") || answer.contains("as fast"));
        assert!(told || !answer.contains("fastest"), "seed {seed}: {answer}");
        if scored < 2 {
            assert!(
                !answer.contains("lose at most 1 % of perplexity, naive") && !answer.contains("equal to within"),
                "seed {seed}: {answer}"
            );
        }
        if answer.contains("No speed can be told") {
            assert!(!speaks_of_speed(&answer), "seed {seed}: {answer}");
        }
        assert!(report::answer(&forge.run).len() <= 10, "{answer}");
        for word in ["NaN", "inf", "summed up", "MB"] {
            assert!(!answer.contains(word), "seed {seed}: {word} in {answer}");
        }
    }
    assert!(winners > 3, "the test would say nothing if there never were a winner: {winners}");
}

/// Where all cells are one cell, a winner is a false alarm.
#[test]
fn equal_cells_have_no_winner() {
    let cells = [NAIVE, FLASH, NAIVE_INT8, FLASH_INT8, SPECULATIVE, ["flash", "f32", "speculative"]];
    let mut alarms = 0;
    for seed in 0..24u64 {
        let mut noise = Noise(seed * 7919 + 13);
        let mut forge = Forge::new(&cells, true);
        let all: Vec<String> = forge.summary().cells.iter().map(|c| c.id.clone()).collect();
        for cell in &all {
            forge.generates(cell, &noise.around(1000.0, 0.1, 12));
        }
        alarms += usize::from(forge.answer().contains("fastest"));
    }
    assert!(alarms <= 1, "{alarms} of 24 runs of equal cells named a winner");
}

#[test]
fn an_old_record_is_summed_up_again() {
    let record = Path::new(env!("CARGO_MANIFEST_DIR")).join("../results/records/2026-11-23-epyc-2-cores/quickstart");
    let run = Run::load(&record).expect("the record loads");
    let answer = report::answer(&run);
    eprintln!("{}\n--\n{}", answer.join("\n"), report::caveats(&run).join("\n"));
    assert!(report::render(&run).is_ok());
    let text = answer.join(" ");
    for words in ["With flash instead of naive attention", "With int8 instead of f32 weights", "at context 16", "MiB"] {
        assert!(text.contains(words), "{words} in {text}");
    }
    assert!(!text.contains("fastest without losing") && !text.contains(" MB"), "{text}");
}

#[test]
fn summing_up_again_changes_the_sentences_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("run");
    let mut forge = Forge::new(&[NAIVE], false);
    forge.generates(&id(NAIVE), &drift(1.0));
    forge.summary().answer = vec!["naive is fastest of all.".into()];
    let mut directory = results::run::RunDirectory::create(&path).expect("a run directory");
    directory.append(&forge.run.observations).expect("rows");
    directory.write_summary(forge.run.summary.as_ref().expect("summary")).expect("written");
    directory.seal().expect("sealed");
    drop(directory);
    report::answer_again(&path).expect("summed up");
    let again = Run::load(&path).expect("loads");
    assert_eq!(again.summary.as_ref().map(|s| &s.answer), Some(&report::answer(&forge.run)));
    assert_eq!(again.observations, forge.run.observations);
}

/// Shares of a task: whether each item is answered.
fn answers(forge: &mut Forge, cell: &str, items: &[bool]) {
    let from = forge.run.observations.len();
    for yes in items {
        forge.rows(cell, "task-scenes", "acc_item", None, &[f64::from(u8::from(*yes))]);
    }
    for (item, row) in forge.run.observations[from..].iter_mut().enumerate() {
        row.item = item as u32;
    }
    let share = items.iter().filter(|yes| **yes).count() as f64 / items.len() as f64;
    forge.rows(cell, "task-scenes", "acc", None, &[share]);
}

#[test]
fn shares_of_items_are_told_apart_in_pairs_or_not_at_all() {
    let mut forge = Forge::new(&[NAIVE, FLASH, NAIVE_INT8], false);
    let right: Vec<bool> = (0..60).map(|i| i % 2 == 0).collect();
    answers(&mut forge, &id(NAIVE), &right);
    // three items lost and one won: on paper 3.3 points worse
    let near: Vec<bool> =
        right.iter().enumerate().map(|(i, yes)| if [0, 2, 4, 5].contains(&i) { !yes } else { *yes }).collect();
    answers(&mut forge, &id(FLASH), &near);
    // twelve lost and none won: 2 / 2^12
    let far: Vec<bool> = right.iter().enumerate().map(|(i, yes)| *yes && i >= 24).collect();
    answers(&mut forge, &id(NAIVE_INT8), &far);
    let answer = forge.answer();
    let own = "Of the 60 items of task-scenes, naive · f32 · greedy answers 50 % [36.8, 63.2]";
    assert!(answer.contains(own), "{answer}");
    assert!(
        answer.contains(
            "told apart from it, item by item (McNemar's exact test), is naive · int8 · greedy (−20 points ["
        ),
        "{answer}"
    );
    assert!(answer.contains("; the other cell is not."), "{answer}");

    let mut forge = Forge::new(&[NAIVE, FLASH], false);
    answers(&mut forge, &id(NAIVE), &right);
    answers(&mut forge, &id(FLASH), &near);
    let answer = forge.answer();
    assert!(answer.contains("the other cell is not told apart from it"), "{answer}");
    assert!(!answer.contains("points"), "a difference that is not told is not named: {answer}");
}

/// A run with limits: an exact cell, one that loses nothing and is faster, one that is faster still and loses 5 %.
fn with_limits(memory: Option<&str>) -> Forge {
    let cells = [NAIVE, NAIVE_INT8, ["naive", "gptq", "greedy"]];
    let mut forge = Forge::new(&cells, true);
    let base: Vec<f64> = (0..24).map(|i| 3.0 + 0.1 * f64::from(i % 5)).collect();
    for (parts, loss, speed, mib) in
        [(NAIVE, 0.0, 1.0, 600.0), (NAIVE_INT8, 0.005, 2.0, 300.0), (cells[2], 0.05, 3.0, 200.0)]
    {
        let cell = id(parts);
        forge.losses(&cell, "", &base.iter().map(|l| l + loss).collect::<Vec<_>>());
        forge.generates(&cell, &drift(speed));
        forge.rows(&cell, "load", "peak_rss_bytes", None, &[mib * 1_048_576.0]);
        forge.fact_of(&cell, "command", &format!("infermark generate --model m --weights {}", parts[1]));
    }
    forge.generates("naive+f32+greedy#aa", &drift(1.001));
    forge.fact_of("run", "choose_max_loss", "0.02");
    if let Some(bytes) = memory {
        forge.fact_of("run", "choose_max_memory", bytes);
    }
    forge
}

#[test]
fn the_fastest_that_keeps_the_limits_is_recommended() {
    let answer = with_limits(None).answer();
    assert!(answer.starts_with("Recommended: `infermark generate --model m --weights int8`\n"), "{answer}");
    // e^0.005 = 1.00501
    let why = "of the 2 cells told to lose at most 2 % of perplexity it generates fastest. It loses 0.501 % of perplexity [0.501, 0.501]";
    assert!(answer.contains(why), "{answer}");
    assert!(answer.contains("takes 300\u{202f}MiB at its peak"), "{answer}");
    assert!(answer.contains("The runner-up is naive · f32 · greedy, 0.5× as fast"), "{answer}");
    // e^0.05 = 1.0513; 3 over 2
    let beyond = "Beyond the limits naive · gptq · greedy would be 1.5× as fast: it loses 5.13 % of perplexity";
    assert!(answer.contains(beyond), "{answer}");
}

#[test]
fn a_choice_without_limits_is_not_made() {
    let mut forge = with_limits(None);
    forge.run.facts.retain(|fact| fact.scope != "run");
    assert!(!forge.answer().contains("ecommended"), "{}", forge.answer());
}

#[test]
fn where_none_fits_the_nearest_is_named() {
    let answer = with_limits(Some("104857600")).answer();
    let none = "Nothing is recommended: none of the 3 cells is told to lose at most 2 % of perplexity and to take at most 100\u{202f}MiB.";
    assert!(answer.contains(none), "{answer}");
    // 200 MiB are twice the limit, 300 three times: the loss beside it is small
    assert!(answer.contains("The nearest is naive · gptq · greedy, which loses 5.13 % of perplexity"), "{answer}");
    assert!(!answer.contains("Recommended:"), "{answer}");
}

#[test]
fn where_nothing_is_told_apart_the_least_memory_is_recommended() {
    let mut forge = with_limits(None);
    forge.run.observations.retain(|row| row.metric != "decode_tok_s");
    let mut noise = Noise(5);
    for cell in ["naive+f32+greedy", "naive+int8+greedy", "naive+gptq+greedy", "naive+f32+greedy#aa"] {
        forge.generates(cell, &noise.around(1000.0, 0.08, 12));
    }
    let answer = forge.answer();
    assert!(answer.contains("Recommended: `infermark generate --model m --weights int8`"), "{answer}");
    let why = "2 of which are not told apart from the one that generates fastest, it takes the least memory of these";
    assert!(answer.contains(why), "{answer}");
    assert!(answer.contains("whose speed is not told from it"), "{answer}");
}

#[test]
fn codes_in_the_file_are_said_to_be_requantised() {
    let mut forge = with_limits(None);
    forge.fact_of(&id(NAIVE), "stored_codes", "Q4_1 in blocks of 32");
    let answer = forge.answer();
    assert!(
        answer.contains("holds codes already (Q4_1 in blocks of 32)") && answer.contains("at equal bits"),
        "{answer}"
    );
}
