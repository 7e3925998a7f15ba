//! A small scenario from its file to report, check and export.

use std::path::Path;

use crate::{infermark, printed, refused};

const TINY: &str = r#"name = "tiny"
question = "Does a run leave everything a reader needs?"
[model]
source = "embedded:draft"
[matrix]
weights = ["f32", "f16"]
[budget]
threads = 1
seconds = 60
min_repetitions = 2
max_repetitions = 2
measure_machine = false
[expect]
prompt_tokens = 8
lossless_tokens = 4
[[workload]]
kind = "perplexity"
text = "words.txt"
protocols = [{ rule = "gptq", window = 32 }]
[[workload]]
kind = "decode"
tokens = 4
"#;

fn write(folder: &Path, text: &str) {
    std::fs::write(folder.join("tiny.toml"), text).expect("writable");
    let words = "The ferry left at nine, and nobody on the quay looked up from the newspaper. ".repeat(12);
    std::fs::write(folder.join("words.txt"), words).expect("writable");
}

#[test]
fn a_run_leaves_what_a_reader_needs() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(folder.path(), TINY);
    let said = printed(folder.path(), &["run", "tiny.toml", "--output", "out", "--quiet"]);
    assert!(said.contains("report: out/report.html") && said.ends_with("pass\n"), "{said}");
    let files =
        ["observations.parquet", "provenance.parquet", "claims.json", "summary.json", "scenario.toml", "report.html"];
    for file in files {
        assert!(folder.path().join("out").join(file).is_file(), "{file}");
    }
    let csv = printed(folder.path(), &["export", "out", "--csv", "-"]);
    let header = csv.lines().next().unwrap_or("");
    assert!(header.contains("cell") && header.contains("metric") && header.contains("value"), "{header}");
    for words in ["ppl", "decode_tok_s", "#aa"] {
        assert!(csv.contains(words), "{words}");
    }
    let lines = printed(folder.path(), &["export", "out", "--llama-bench", "-"]);
    let first: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap_or("")).expect("JSON lines");
    assert_eq!((&first["n_gen"], &first["n_prompt"]), (&4.into(), &0.into()));
    let said = refused(folder.path(), &["export", "out", "--claims", "-"], 2);
    assert!(said.contains("--claims: out has no claim"), "an empty table would look like a result: {said}");
    assert!(printed(folder.path(), &["check", "--baseline", "out", "out"]).contains("pass"));
    assert!(printed(folder.path(), &["compare", "out", "out"]).contains("decode_tok_s"));

    let said = refused(folder.path(), &["run", "tiny.toml", "--output", "out"], 2);
    assert!(said.contains("out: not empty"), "an existing run is not overwritten: {said}");
    let said = printed(folder.path(), &["run", "tiny.toml", "--resume", "out", "--no-report", "--quiet"]);
    assert!(said.contains("run: out") && said.ends_with("pass\n"), "{said}");
    write(folder.path(), &TINY.replace("\"f16\"", "\"bf16\""));
    let said = refused(folder.path(), &["run", "tiny.toml", "--resume", "out"], 2);
    assert!(said.contains("another version"), "{said}");
}

#[test]
fn a_refuted_claim_ends_with_its_own_code() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let claim = "[[claim]]\nid = \"free-lunch\"\npaper = \"p\"\nsource = \"s\"\nstatement = \"f16 weights need no bytes\"\n\
                 tier = \"identity\"\npublished = \"0\"\ncounterpart = \"bytes of the weights\"\n[[claim.part]]\nlabel = \"bytes\"\n\
                 measure = { kind = \"value\", metric = \"weights_bytes\", workload = \"load\" }\nrule = { at_most = 0.0, point = true }\n";
    write(folder.path(), &format!("{TINY}{claim}"));
    let assert = infermark(folder.path()).args(["run", "tiny.toml", "--output", "out", "--quiet"]).assert().code(1);
    let said = String::from_utf8_lossy(&assert.get_output().stdout).into_owned();
    assert!(said.contains("claim free-lunch: violated") && said.ends_with("refuted\n"), "{said}");
}

#[test]
fn a_workload_that_no_cell_could_measure_is_no_pass() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let long = TINY.replace("window = 32", "window = 500");
    write(folder.path(), &long);
    let assert = infermark(folder.path()).args(["run", "tiny.toml", "--output", "out", "--quiet"]).assert().code(5);
    let said = String::from_utf8_lossy(&assert.get_output().stdout).into_owned();
    assert!(said.contains("No cell has measured `ppl-words`") && said.contains("fewer than one window"), "{said}");
    assert!(said.ends_with("skipped\n"), "{said}");
    let summary = std::fs::read_to_string(folder.path().join("out/summary.json")).expect("a summary");
    let summary: serde_json::Value = serde_json::from_str(&summary).expect("JSON");
    assert_eq!((&summary["ending"], &summary["complete"]), (&"skipped".into(), &true.into()));
    let report = std::fs::read_to_string(folder.path().join("out/report.html")).expect("a report");
    assert!(report.contains("skipped: a workload was measured on no cell") && report.contains("ppl-words"));

    // no machine has so many
    let nowhere = TINY.replace("[matrix]", "[engine]\ndevice = { kind = \"cuda\", ordinal = 63 }\n[matrix]");
    write(folder.path(), &nowhere);
    let assert = infermark(folder.path()).args(["run", "tiny.toml", "--output", "none", "--quiet"]).assert().code(5);
    let said = String::from_utf8_lossy(&assert.get_output().stdout).into_owned();
    assert!(said.starts_with("Nothing could be measured here: every cell was skipped ("), "{said}");
    assert!(said.ends_with("skipped\n"), "{said}");
    let summary = std::fs::read_to_string(folder.path().join("none/summary.json")).expect("a summary");
    let summary: serde_json::Value = serde_json::from_str(&summary).expect("JSON");
    assert_eq!((&summary["ending"], &summary["complete"]), (&"skipped".into(), &false.into()));
    let report = std::fs::read_to_string(folder.path().join("none/report.html")).expect("a report");
    assert!(report.contains("skipped: nothing was measured") && report.contains("Nothing could be measured here"));
    assert!(!report.contains("has not been summed up"));
}

#[test]
fn cells_that_were_left_out_are_named_and_can_be_added() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(folder.path(), TINY);
    let words = ["run", "tiny.toml", "--output", "out", "--quiet", "--no-report", "--cells", "f32"];
    assert!(printed(folder.path(), &words).ends_with("pass\n"));
    let left_out = || {
        let summary = std::fs::read_to_string(folder.path().join("out/summary.json")).expect("a summary");
        summary.matches("left out by --cells f32").count()
    };
    assert_eq!(left_out(), 1, "the cell in f16; the control's id contains f32 as well");
    let said = printed(folder.path(), &["run", "--resume", "out", "--quiet", "--no-report"]);
    assert!(said.ends_with("pass\n"), "{said}");
    assert_eq!(left_out(), 0);
    // what an earlier sitting measured stands, whatever a later one leaves out
    let said = printed(folder.path(), &["run", "--resume", "out", "--quiet", "--no-report", "--cells", "f32"]);
    assert!(said.ends_with("pass\n"), "{said}");
    assert_eq!(left_out(), 0);
}
