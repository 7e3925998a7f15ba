//! Commands that measure nothing.

use crate::{infermark, printed, refused};

#[test]
fn names_are_found_and_slips_are_guessed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let said = refused(folder.path(), &["run", "quikstart"], 2);
    assert!(said.contains("did you mean `quickstart`") && said.contains("infermark list"), "{said}");
    let said = refused(folder.path(), &["show", "zzzzzzz"], 2);
    assert!(!said.contains("did you mean"), "{said}");
    assert!(refused(folder.path(), &["run"], 2).contains("NAME|FILE.toml"));
    assert!(refused(folder.path(), &["frobnicate"], 2).contains("frobnicate"));
}

#[test]
fn every_shipped_scenario_is_listed_shown_and_planned() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let rows: serde_json::Value =
        serde_json::from_str(&printed(folder.path(), &["list", "--format", "json"])).expect("JSON");
    let names: Vec<&str> = rows.as_array().expect("a list").iter().filter_map(|r| r["name"].as_str()).collect();
    let table = printed(folder.path(), &["list"]);
    for name in ["quickstart", "smoke", "gemm"] {
        assert!(names.contains(&name) && table.contains(name), "{name}");
    }
    for name in names {
        assert!(printed(folder.path(), &["show", name]).contains(&format!("name = \"{name}\"")), "{name}");
        let plan = printed(folder.path(), &["plan", name]);
        assert!(plan.contains("cells run") && plan.contains("reference"), "{plan}");
    }
}

#[test]
fn what_show_prints_runs_as_a_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = printed(folder.path(), &["show", "smoke"]).replace("name = \"smoke\"", "name = \"mine\"");
    std::fs::write(folder.path().join("mine.toml"), text).expect("writable");
    let plan: serde_json::Value =
        serde_json::from_str(&printed(folder.path(), &["plan", "mine.toml", "--format", "json"])).expect("JSON");
    assert_eq!(plan["scenario"], "mine");
    assert_eq!(plan["cells"][0]["role"], "reference");
}

#[test]
fn overrides_change_the_cells() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let plan = printed(folder.path(), &["plan", "smoke", "--set", "weights=f16,bf16", "--set", "budget.seconds=3"]);
    assert!(plan.contains("flash+f16+") && plan.contains("flash+bf16+") && !plan.contains("int8"), "{plan}");
    assert!(plan.contains("at most 3 s"), "{plan}");
    let said = refused(folder.path(), &["plan", "smoke", "--set", "weights=f23"], 2);
    assert!(said.contains("did you mean `f32`"), "{said}");
    assert!(refused(folder.path(), &["plan", "smoke", "--set", "weights"], 2).contains("KEY=VALUE"));
}

#[test]
fn refusals_become_skipped_cells_with_a_reason() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let plan = printed(folder.path(), &["plan", "smoke", "--set", "decoding=greedy,speculative"]);
    assert!(plan.contains("skipped") && plan.contains("draft"), "{plan}");
}

#[test]
fn runs_that_are_none_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for words in [
        vec!["report", "nowhere"],
        vec!["export", "nowhere", "--csv", "-"],
        vec!["check", "nowhere"],
        vec!["compare", "nowhere", "elsewhere"],
        vec!["run", "--resume", "nowhere"],
    ] {
        assert!(refused(folder.path(), &words, 2).contains("nowhere"), "{words:?}");
    }
    let said = refused(folder.path(), &["run", "smoke", "--cells", "mamba"], 2);
    assert!(said.contains("no cell's id contains it") && said.contains("flash+f32"), "{said}");
}

#[test]
fn output_ends_quietly_when_nobody_reads() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = assert_cmd::cargo::cargo_bin!("infermark").display().to_string();
    let status = std::process::Command::new("sh")
        .args(["-c", &format!("'{program}' show quickstart | head -c 10 >/dev/null")])
        .current_dir(folder.path())
        .output()
        .expect("sh starts");
    assert!(status.stderr.is_empty(), "{}", String::from_utf8_lossy(&status.stderr));
}

#[test]
fn the_doctor_names_what_there_is() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let said = printed(folder.path(), &["doctor"]);
    for words in ["isa_best", "embedded:draft", "embedded:evaluation", "worker threads", "CUDA"] {
        assert!(said.contains(words), "no {words:?} in\n{said}");
    }
    infermark(folder.path()).args(["logits", "--model", "embedded:draught", "--tokens", "1"]).assert().code(2);
    assert!(
        refused(folder.path(), &["logits", "--model", "embedded:draft", "--tokens", "1,x"], 2).contains("token id")
    );
    assert!(
        refused(folder.path(), &["logits", "--model", "embedded:draft", "--tokens", "99999999"], 2)
            .contains("vocabulary")
    );
}

#[test]
fn a_model_speaks() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let words = ["generate", "--model", "embedded:draft", "--prompt", "It was", "--max-new-tokens", "6", "--json"];
    let said: serde_json::Value = serde_json::from_str(&printed(folder.path(), &words)).expect("JSON");
    assert_eq!(said["ids"].as_array().map(Vec::len), Some(6), "{said}");
    let rows: serde_json::Value = serde_json::from_str(&printed(
        folder.path(),
        &["logits", "--model", "embedded:draft", "--tokens", "1,2,3", "--all", "--format", "json"],
    ))
    .expect("JSON");
    assert_eq!(rows.as_array().map(Vec::len), Some(3));
    printed(
        folder.path(),
        &["logits", "--model", "embedded:draft", "--tokens", "1,2,3", "--output", "logits.safetensors"],
    );
    let bytes = std::fs::read(folder.path().join("logits.safetensors")).expect("written");
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("safetensors");
    let tensor = file.tensor("logits").expect("the tensor");
    assert_eq!(tensor.shape()[0], 3);
    let first = f32::from_le_bytes(tensor.data()[..4].try_into().expect("four bytes"));
    assert_eq!(Some(f64::from(first)), rows[0]["logits"][0].as_f64().map(|v| f64::from(v as f32)));
}

#[test]
fn a_quantized_folder_is_whole_and_runs_on_its_codes() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let quantize = ["quantize", "--model", "random:llama-tiny", "--windows", "4", "--window-tokens", "32"];
    let with = |more: &[&'static str]| [&quantize[..], more].concat();
    for (format, method, extra) in [("gptq", "gptq", "--act-order"), ("awq", "rtn", "--shard-mib=1")] {
        let said = printed(
            folder.path(),
            &with(&["--method", method, "--bits", "4", "--group", "32", extra, "--format", format, "--output", format]),
        );
        assert!(said.contains("output error") && said.contains("bits per quantized weight"), "{said}");
        let logits = printed(folder.path(), &["logits", "--model", format, "--weights", "stored", "--tokens", "1,2,3"]);
        assert!(logits.contains("highest logits"), "{logits}");
        let quality: serde_json::Value = serde_json::from_str(
            &std::fs::read_to_string(folder.path().join(format).join("quality.json")).expect("written"),
        )
        .expect("JSON");
        assert_eq!(quality["errors"].as_array().map(Vec::len), Some(8), "four products in each of two layers");
        assert!(quality["bits_per_weight"].as_f64().is_some_and(|bits| (4.0..6.0).contains(&bits)), "{quality}");
    }
    assert!(folder.path().join("gptq/quantize_config.json").exists());
    let mut left: Vec<_> =
        std::fs::read_dir(folder.path()).expect("readable").flatten().map(|e| e.file_name()).collect();
    left.sort();
    assert_eq!(left, ["awq", "gptq"], "nothing unfinished stays");
    let again = refused(folder.path(), &with(&["--output", "gptq"]), 2);
    assert!(again.contains("exists already"), "{again}");
    let said = refused(folder.path(), &with(&["--bits", "3", "--format", "awq", "--output", "new"]), 2);
    assert!(said.contains("--bits 4"), "{said}");
    let said = refused(folder.path(), &with(&["--method", "gptk", "--output", "new"]), 2);
    assert!(said.contains("gptk") && said.contains("--method"), "{said}");
    let said = refused(
        folder.path(),
        &["quantize", "--model", "random:llama-tiny", "--window-tokens", "1", "--output", "new"],
        2,
    );
    assert!(said.contains("--window-tokens"), "{said}");
}
