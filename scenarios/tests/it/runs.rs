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
seconds = 1.5
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
