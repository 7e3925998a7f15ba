//! What ends a command: paths that are not there, pipes that nobody reads, full disks, numbers that are none. Run directories are
//! made here and not measured.

use std::path::Path;
use std::process::{Command, Output};

use results::observation::{Axes, Direction, Fact, Observation, SCHEMA_VERSION, Status};
use results::run::RunDirectory;
use results::summary::Summary;

use crate::{infermark, printed, refused};

const CELL: &str = "flash+f32+contiguous+greedy+cpu";

fn axes() -> Axes {
    Axes {
        model: "embedded:base".into(),
        attention: "flash".into(),
        weights: "f32".into(),
        kv: "contiguous".into(),
        decoding: "greedy".into(),
        device: "cpu".into(),
        ..Axes::default()
    }
}

fn row(scenario: &str, workload: &str, metric: &str, repetition: u32, value: f64) -> Observation {
    Observation {
        run_id: format!("{scenario}-run"),
        scenario: scenario.into(),
        cell: CELL.into(),
        axes: axes(),
        workload: workload.into(),
        sitting: 0,
        repetition,
        item: 0,
        metric: metric.into(),
        formula_id: format!("{metric}@1"),
        unit: "tok/s".into(),
        direction: if metric.ends_with("tok_s") { Direction::Higher } else { Direction::Lower },
        value: Some(value),
        x: workload.starts_with("tg").then_some(512.0),
        status: Status::Ok,
        reason: String::new(),
        threads: 2,
        kernel_path: "scalar".into(),
        seed: 1,
    }
}

/// A finished run of `scenario` with the speeds of `workload`, repeated `repetitions` times.
fn forge(path: &Path, scenario: &str, workload: &str, metric: &str, repetitions: u32) {
    let mut directory = RunDirectory::create(path).expect("a new folder");
    let mut rows: Vec<Observation> =
        (0..repetitions).map(|n| row(scenario, workload, metric, n, 100.0 + f64::from(n % 7))).collect();
    rows.push(row(scenario, "load", "weights_bytes", 0, 4096.0));
    rows.push(row(scenario, workload, metric, repetitions, f64::NAN));
    directory.append(&rows).expect("rows");
    let fact = |scope: &str, key: &str, value: &str| Fact {
        run_id: format!("{scenario}-run"),
        scope: scope.into(),
        key: key.into(),
        value: value.into(),
    };
    let commit = "0123456789abcdef0123456789abcdef01234567";
    directory
        .append_facts(&[fact("run", "git_commit", commit), fact("machine", "cpu_model", "Test CPU")])
        .expect("facts");
    // as JSON, where a field that is not there takes its default
    let summary: Summary = serde_json::from_value(serde_json::json!({
        "schema_version": SCHEMA_VERSION,
        "run_id": format!("{scenario}-run"),
        "scenario": scenario,
        "question": "Is it so?",
        "analysis": "",
        "answer": [],
        "caveats": [],
        "models": [{ "source": "embedded:base", "parameters": 1000, "f32_bytes": 4000, "facts": [] }],
        "cells": [{ "id": CELL, "label": "flash", "axes": axes(), "role": "reference", "status": "ok", "reason": "" }],
        "command": "infermark run",
        "started": "2026-01-02T03:04:05Z",
        "elapsed_s": 1.0,
        "complete": true,
    }))
    .expect("a summary");
    directory.write_summary(&summary).expect("summary");
    directory.write_claims(&[]).expect("claims");
    directory.seal().expect("parquet");
}

#[test]
fn a_baseline_that_is_not_there_is_a_mistake_of_the_caller() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    forge(&at.join("run"), "one", "tg128@512", "decode_tok_s", 8);
    forge(&at.join("other"), "two", "tg128@512", "decode_tok_s", 8);
    std::fs::create_dir(at.join("empty")).expect("a folder");
    std::fs::write(at.join("file"), "x").expect("writable");
    for baseline in ["nowhere", "empty", "file", "other", "run/observations.jsonl"] {
        for strict in [&[][..], &["--strict"]] {
            let words = [&["check", "run", "--baseline", baseline][..], strict].concat();
            let said = refused(at, &words, 2);
            assert!(said.contains(&format!("--baseline {baseline}")), "{said}");
        }
    }
    assert!(printed(at, &["check", "run", "--baseline", "run"]).ends_with("pass\n"));
    assert!(printed(at, &["check", "run"]).ends_with("no-baseline\n"));
    infermark(at).args(["check", "run", "--strict"]).assert().code(4);
}

#[test]
fn a_path_that_is_not_there_is_named_by_every_command() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    forge(&at.join("run"), "one", "tg128@512", "decode_tok_s", 3);
    std::fs::create_dir(at.join("empty")).expect("a folder");
    let draft = ["--model", "embedded:draft"];
    let cases: Vec<Vec<&str>> = vec![
        vec!["report", "nowhere"],
        vec!["report", "empty/nowhere"],
        vec!["export", "nowhere", "--csv", "-"],
        vec!["export", "run", "--csv", "nowhere/x.csv"],
        vec!["check", "nowhere"],
        vec!["check", "run", "--policy", "nowhere"],
        vec!["check", "run", "--output", "nowhere/x.txt"],
        vec!["compare", "run", "nowhere"],
        vec!["compare", "nowhere", "run"],
        vec!["run", "--resume", "nowhere"],
        vec!["run", "nowhere.toml"],
        vec!["run", "smoke", "--python", "./nowhere"],
        vec!["plan", "nowhere.toml"],
        vec!["plan", "smoke", "--python", "nowhere/python"],
        vec!["doctor", "--python", "nowhere/python3"],
        [&["perplexity", "--text", "nowhere.txt"][..], &draft].concat(),
        vec!["perplexity", "--model", "nowhere"],
        vec!["logits", "--model", "nowhere", "--tokens", "1"],
        vec!["generate", "--model", "nowhere", "--prompt", "a"],
        [&["generate", "--prompt", "a", "--draft", "nowhere", "--decoding", "speculative"][..], &draft].concat(),
        [&["generate", "--prompt", "a", "--adapter", "nowhere"][..], &draft].concat(),
        [
            &[
                "generate",
                "--prompt",
                "a",
                "--weights",
                "{ kind = \"gptq\", bits = 4 }",
                "--calibration",
                "nowhere.txt",
            ][..],
            &draft,
        ]
        .concat(),
        vec!["quantize", "--model", "nowhere", "--output", "out"],
        [&["quantize", "--output", "out", "--text", "nowhere.txt"][..], &draft].concat(),
        [&["quantize", "--output", "out", "--calibration", "nowhere.txt"][..], &draft].concat(),
        vec!["convert", "--model", "nowhere", "--output", "x.gguf"],
        vec!["convert", "--model", "embedded:draft", "--output", "nowhere/x.gguf"],
        vec!["bench-against", "main", "--scenario", "nowhere.toml"],
        vec!["bench-against", "main", "--scenario", "smoke", "--policy", "nowhere"],
        [&["logits", "--tokens", "1", "--output", "nowhere/x"][..], &draft].concat(),
    ];
    for words in cases {
        assert!(refused(at, &words, 2).contains("nowhere"), "{words:?}");
    }
    for words in [vec!["report", "empty"], vec!["export", "empty", "--csv", "-"], vec!["compare", "empty", "run"]] {
        let said = refused(at, &words, 2);
        assert!(said.contains("empty: holds no run"), "{words:?}: {said}");
    }
    assert!(refused(at, &["run", "--resume", "empty"], 2).contains("no run"));
    // where there is a repository, a commit that it has not
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    if here.join("../.git").exists() {
        let said = refused(here, &["bench-against", "no-such-commit", "--scenario", "smoke"], 2);
        assert!(said.contains("no-such-commit: not a commit"), "{said}");
    }
}

#[test]
fn runs_that_share_nothing_say_so() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    forge(&at.join("a"), "one", "tg128@512", "decode_tok_s", 3);
    forge(&at.join("b"), "two", "pp512", "prefill_tok_s", 3);
    std::fs::remove_file(at.join("b/observations.parquet")).expect("a file");
    let rows = std::fs::read_to_string(at.join("b/observations.jsonl")).expect("the log");
    let rows: Vec<&str> = rows.lines().filter(|line| !line.contains("weights_bytes")).collect();
    std::fs::write(at.join("b/observations.jsonl"), rows.join("\n") + "\n").expect("writable");
    for format in ["console", "markdown", "json"] {
        let said = refused(at, &["compare", "a", "b", "--format", format], 2);
        assert!(said.contains("nothing in common") && said.contains("pp512") && said.contains("tg128@512"), "{said}");
    }
    assert!(printed(at, &["compare", "a", "a"]).contains("decode_tok_s"));
}

#[cfg(unix)]
fn shell(at: &Path, script: &str) -> Output {
    let program = assert_cmd::cargo::cargo_bin!("infermark").display().to_string();
    Command::new("bash").args(["-c", script]).env("I", program).current_dir(at).output().expect("bash starts")
}

#[cfg(unix)]
#[test]
fn a_reader_that_has_seen_enough_ends_every_command_quietly() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    // more text than a pipe holds
    forge(&at.join("run"), "one", "tg128@512", "decode_tok_s", 4000);
    for command in [
        "export run --csv -",
        "export run --csv /dev/stdout",
        "export run --llama-bench -",
        "export run --github-benchmark -",
        "check run",
        "check run --format json",
        "check run --baseline run --format markdown",
        "compare run run",
        "list",
        "list --format json",
        "show quickstart",
        "plan quickstart",
        "plan quickstart --format json",
        "logits --model embedded:draft --tokens 1,2,3 --all --format json",
        "generate --model embedded:draft --prompt It --max-new-tokens 8",
    ] {
        // `true` reads nothing at all: the first write fails
        for reader in ["true", "head -c 1"] {
            let output = shell(at, &format!("\"$I\" {command} | {reader} >/dev/null; exit ${{PIPESTATUS[0]}}"));
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                output.status.code() == Some(0) && said.is_empty(),
                "{command} | {reader}: {:?} {said}",
                output.status
            );
        }
    }
    // a gate keeps its exit code, whoever reads it
    let output = shell(at, "\"$I\" check run --strict | true; exit ${PIPESTATUS[0]}");
    assert_eq!(output.status.code(), Some(4));
    // progress and notes have readers too
    let output = shell(at, "\"$I\" plan smoke --set weights=f32 2>&1 >/dev/null | true; exit ${PIPESTATUS[0]}");
    assert_eq!(output.status.code(), Some(0));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_with_the_path() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    forge(&at.join("run"), "one", "tg128@512", "decode_tok_s", 3);
    for (command, named) in [
        ("export run --csv /dev/full", "/dev/full"),
        ("export run --llama-bench /dev/full", "/dev/full"),
        ("export run --github-benchmark /dev/full", "/dev/full"),
        ("export run --csv - >/dev/full", "standard output"),
        ("check run --output /dev/full", "/dev/full"),
        ("check run >/dev/full", "standard output"),
        ("compare run run --output /dev/full", "/dev/full"),
        ("list >/dev/full", "standard output"),
        ("show smoke >/dev/full", "standard output"),
        ("plan smoke >/dev/full", "standard output"),
        ("logits --model embedded:draft --tokens 1,2 >/dev/full", "standard output"),
        ("logits --model embedded:draft --tokens 1,2 --output /dev/full", "/dev/full"),
    ] {
        let output = shell(at, &format!("\"$I\" {command}"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(3) && said.contains(named), "{command}: {:?} {said}", output.status);
    }
}

/// What llama.cpp's `compare-llama-bench.py` wants in a line before it reads one; `use_mmap` in its older versions, `load_mode` and
/// what follows in its newer ones.
const SCRIPT_KEYS: &str = "cpu_info gpu_info backends n_gpu_layers tensor_buft_overrides model_filename model_type n_batch n_ubatch \
                           embeddings cpu_mask cpu_strict poll n_threads type_k type_v use_mmap no_kv_offload split_mode main_gpu \
                           tensor_split flash_attn n_prompt n_gen n_depth build_commit test_time avg_ts \
                           load_mode n_cpu_moe fit_target fit_min_ctx";
/// What llama-bench writes besides.
const OTHER_KEYS: &str = "build_number model_size model_n_params lazy_mode repack devices no_op_offload no_host avg_ns stddev_ns stddev_ts \
                          samples_ns samples_ts";

#[test]
fn lines_of_llama_bench_have_what_their_reader_demands() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    forge(&folder.path().join("run"), "one", "tg128@512", "decode_tok_s", 3);
    let text = printed(folder.path(), &["export", "run", "--llama-bench", "-"]);
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 1, "the row that is no number is no sample of its own");
    for key in SCRIPT_KEYS.split_whitespace().chain(OTHER_KEYS.split_whitespace()) {
        assert!(!lines[0][key].is_null(), "{key}");
    }
    let line = &lines[0];
    assert_eq!((&line["n_prompt"], &line["n_gen"], &line["n_depth"]), (&0.into(), &128.into(), &512.into()));
    assert_eq!((&line["model_size"], &line["model_n_params"]), (&4096.into(), &1000.into()));
    assert_eq!((&line["build_commit"], &line["type_k"]), (&"01234567".into(), &"f32".into()));
    assert_eq!(line["samples_ts"], serde_json::json!([100.0, 101.0, 102.0]));
    assert_eq!((&line["avg_ts"], &line["stddev_ts"]), (&101.0.into(), &1.0.into()));
    // 128 tokens at 100 a second
    assert_eq!(line["samples_ns"][0], 1_280_000_000u64);
}

#[test]
fn exports_hold_every_row_and_no_number_that_is_none() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    forge(&folder.path().join("run"), "one", "tg128@512", "decode_tok_s", 3);
    let csv = printed(folder.path(), &["export", "run", "--csv", "-"]);
    assert_eq!(csv.lines().count(), 1 + 3 + 2, "{csv}");
    let larger: serde_json::Value =
        serde_json::from_str(&printed(folder.path(), &["export", "run", "--github-benchmark", "-"])).expect("JSON");
    let smaller = printed(folder.path(), &["export", "run", "--github-benchmark-smaller", "-"]);
    let smaller: serde_json::Value = serde_json::from_str(&smaller).expect("JSON");
    let all = [&larger, &smaller].map(|list| list.as_array().expect("a list").clone()).concat();
    assert!(!all.is_empty() && all.iter().all(|entry| entry["value"].is_f64()), "{all:?}");
    assert!(all.iter().any(|entry| entry["name"].as_str().is_some_and(|name| name.contains("weights_bytes"))));
}

#[test]
fn a_perplexity_that_is_no_number_is_an_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    std::fs::write(at.join("short.txt"), "It was a short text.").expect("writable");
    std::fs::write(at.join("empty.txt"), "").expect("writable");
    let ppl = |more: &[&'static str]| [&["perplexity", "--model", "embedded:draft"][..], more].concat();
    let said = refused(at, &ppl(&["--text", "short.txt", "--window", "64"]), 2);
    assert!(said.contains("short.txt") && said.contains("fewer than one window of 64; the largest --window"), "{said}");
    let fits: usize =
        said.rsplit("that fits is ").next().and_then(|rest| rest.trim().parse().ok()).expect("a number of tokens");
    let window = fits.to_string();
    let said = infermark(at)
        .args(["perplexity", "--model", "embedded:draft", "--text", "short.txt", "--window", window.as_str()])
        .assert()
        .success();
    assert!(String::from_utf8_lossy(&said.get_output().stdout).starts_with("perplexity "));
    assert!(refused(at, &ppl(&["--text", "empty.txt"]), 2).contains("no text"));
    assert!(refused(at, &ppl(&["--window", "1"]), 2).contains("--window 1"));
}

/// A checkpoint in the folder `m` whose values overflow on the way to the logits.
fn broken_model(at: &Path) {
    let plain =
        ["quantize", "--model", "embedded:draft", "--method", "f16", "--format", "safetensors", "--text", "none"];
    printed(at, &[&plain[..], &["--output", "m"]].concat());
    let weights = |path: &std::path::PathBuf| path.extension().is_some_and(|e| e == "safetensors");
    let files = std::fs::read_dir(at.join("m")).expect("a folder").flatten().map(|entry| entry.path());
    let file = files.into_iter().find(weights).expect("weights");
    let bytes = std::fs::read(&file).expect("readable");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    // 3·10³⁸ as a bfloat16: a number, of which two have no sum
    let changed: Vec<(String, Vec<u8>)> = tensors
        .tensors()
        .into_iter()
        .filter(|(name, _)| name.contains("down_proj"))
        .map(|(name, view)| (name, [0x61, 0x7f].repeat(view.data().len() / 2)))
        .collect();
    assert!(!changed.is_empty());
    let views = tensors.tensors().into_iter().map(|(name, view)| match changed.iter().find(|(of, _)| *of == name) {
        Some((_, data)) => {
            let dtype = safetensors::tensor::Dtype::BF16;
            (name, safetensors::tensor::TensorView::new(dtype, view.shape().to_vec(), data).expect("a tensor"))
        }
        None => (name, view),
    });
    let whole = safetensors::serialize(views.collect::<Vec<_>>(), None).expect("safetensors");
    std::fs::write(&file, whole).expect("writable");
}

#[test]
fn weights_that_are_not_numbers_are_told_and_nothing_is_printed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    broken_model(at);
    std::fs::write(at.join("words.txt"), "It was a short text of a few words, and no more than that. ".repeat(8))
        .expect("writable");
    for words in [
        vec!["perplexity", "--model", "m", "--text", "words.txt", "--window", "16"],
        vec!["logits", "--model", "m", "--tokens", "1,2,3"],
        vec!["logits", "--model", "m", "--tokens", "1,2,3", "--format", "json"],
        vec!["generate", "--model", "m", "--prompt", "It was"],
        vec!["generate", "--model", "m", "--prompt", "It was", "--decoding", "sampled", "--json"],
    ] {
        let assert = infermark(at).args(&words).assert().code(3);
        let output = assert.get_output();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("not numbers") && output.stdout.is_empty(), "{words:?}: {said}");
    }
    let words = [
        "quantize",
        "--model",
        "m",
        "--method",
        "rtn",
        "--calibration",
        "words.txt",
        "--window-tokens",
        "16",
        "--output",
        "q",
    ];
    let said = refused(at, &[&words[..], &["--windows", "2", "--text-windows", "1"]].concat(), 3);
    assert!(said.contains("is not a number") && !at.join("q").exists(), "{said}");
}

const SHORT: &str = r#"name = "short"
question = "What does int8 cost?"
[model]
source = "embedded:draft"
[matrix]
weights = ["f32", "int8"]
[budget]
threads = 1
seconds = 1.0
min_repetitions = 2
max_repetitions = 2
aa_control = false
measure_machine = false
[expect]
lossless_tokens = 4
prompt_tokens = 8
[[workload]]
kind = "perplexity"
text = "words.txt"
protocols = [{ rule = "gptq", window = 256 }]
[[workload]]
kind = "generate"
text = "words.txt"
prompt_tokens = 200
new_tokens = 4
[[workload]]
kind = "decode"
tokens = 4
"#;

#[test]
fn a_window_that_no_token_fills_is_refused_before_anything_runs() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    std::fs::write(at.join("words.txt"), "A few words.").expect("writable");
    for (change, words) in [
        ("window = 256 }]\nmax_tokens = 100", "max_tokens = 100"),
        ("window = 1 }]", "at least 2"),
        ("window = 256, stride = 8 }]", "stride"),
    ] {
        std::fs::write(at.join("short.toml"), SHORT.replacen("window = 256 }]", change, 1)).expect("writable");
        for command in ["plan", "run"] {
            let said = refused(at, &[command, "short.toml"], 2);
            assert!(said.contains(words) && said.contains("short.toml:"), "{said}");
        }
    }
    let half = SHORT.replace("rule = \"gptq\", window = 256", "rule = \"llamacpp\", window = 2");
    std::fs::write(at.join("short.toml"), half).expect("writable");
    assert!(refused(at, &["plan", "short.toml"], 2).contains("at least 3"));
}

#[test]
fn a_calibration_text_without_one_window_is_refused_before_anything_runs() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    std::fs::write(at.join("words.txt"), "The ferry left at nine.").expect("writable");
    let gptq = SHORT.replace("\"int8\"]", "{ kind = \"gptq\", bits = 4 }]\n[calibration]\ntext = \"words.txt\"");
    std::fs::write(at.join("short.toml"), gptq).expect("writable");
    for command in ["plan", "run"] {
        let said = refused(at, &[command, "short.toml"], 2);
        assert!(said.contains("words.txt has") && said.contains("fewer than one window of 256"), "{said}");
    }
}

#[test]
fn a_plan_says_which_workloads_a_text_is_too_short_for() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    std::fs::write(at.join("words.txt"), "The ferry left at nine.").expect("writable");
    std::fs::write(at.join("short.toml"), SHORT).expect("writable");
    let plan = printed(at, &["plan", "short.toml"]);
    let line = |name: &str| {
        plan.lines()
            .map(str::trim_start)
            .find(|line| line.starts_with(name))
            .unwrap_or_else(|| panic!("{name} in\n{plan}"))
    };
    assert!(line("ppl-words").contains("skipped in every cell: words.txt has"), "{plan}");
    assert!(line("generate-200-4").contains("skipped in every cell"), "{plan}");
    assert!(line("tg4").contains("runs in 2 cells"), "{plan}");
    let plan: serde_json::Value =
        serde_json::from_str(&printed(at, &["plan", "short.toml", "--format", "json"])).expect("JSON");
    let of = |i: usize| &plan["workload_plans"][i];
    assert_eq!((&of(0)["cells"], &of(0)["of"], &of(2)["cells"]), (&0.into(), &2.into(), &2.into()));
    assert_eq!(of(0)["skipped"][0]["cells"].as_array().map(Vec::len), Some(2));

    let ran = infermark(at).args(["run", "short.toml", "--output", "r", "--no-report"]).assert();
    let said = String::from_utf8_lossy(&ran.get_output().stderr).into_owned();
    assert!(said.contains("note: ppl-words will be skipped in every cell: words.txt has"), "{said}");
    let csv = printed(at, &["export", "r", "--csv", "-"]);
    let left_out = csv.lines().filter(|row| row.contains("ppl-words") && row.contains("skipped")).count();
    assert_eq!(left_out, 2, "{csv}");
}

#[cfg(unix)]
#[test]
fn a_plan_asks_the_other_engines_of_a_scenario() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    let python = at.join("python");
    let text = "#!/bin/sh\necho '{\"say\":\"refused\",\"reason\":\"it is not installed for this Python\"}'\n";
    std::fs::write(&python, text).expect("writable");
    std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    let plan = printed(at, &["plan", "attention-pytorch", "--python", "./python"]);
    let external: Vec<&str> = plan.lines().filter(|line| line.trim_start().starts_with("pytorch+")).collect();
    assert!(!external.is_empty(), "{plan}");
    assert!(external.iter().all(|line| line.contains("skipped: it is not installed for this")), "{plan}");
}
