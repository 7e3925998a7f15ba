//! Tasks: likelihoods and shares as lm-evaluation-harness has them, and what is said of files that cannot be used.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

use crate::{printed, refused};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tasks");

/// A scenario of `name` with these workloads.
fn scenario(folder: &Path, name: &str, workloads: &str) -> String {
    let head = format!(
        "name = \"{name}\"\nquestion = \"How many?\"\n[model]\nsource = \"embedded:draft\"\n[budget]\nthreads = 1\n\
         aa_control = false\nmeasure_machine = false\n[expect]\nprompt_tokens = 8\nlossless_tokens = 4\n"
    );
    let file = format!("{name}.toml");
    std::fs::write(folder.join(&file), head + workloads).expect("writable");
    file
}

/// Values of a run by workload, metric and item; of metrics at a length, of the last length.
fn values(folder: &Path, run: &str) -> HashMap<(String, String, usize), f64> {
    let csv = printed(folder, &["export", run, "--csv", "-"]);
    let mut lines = csv.lines();
    let header: Vec<&str> = lines.next().unwrap_or("").split(',').collect();
    let at = |name: &str| header.iter().position(|field| *field == name).expect(name);
    let (workload, metric, item, value) = (at("workload"), at("metric"), at("item"), at("value"));
    let cell = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        let key = (fields[workload].to_string(), fields[metric].to_string(), fields[item].parse().expect("a number"));
        Some((key, fields[value].parse().ok()?))
    };
    lines.filter_map(cell).collect()
}

/// The workload of one run of the fixture in TOML, and its name.
fn asked(run: &Value) -> (String, String) {
    let task = run["task"].as_str().expect("a task");
    let mut toml = format!("[[workload]]\nkind = \"task\"\ntask = '{FOLDER}/{task}.jsonl'\n");
    let mut name = format!("task-{task}");
    if let Some(labels) = run["labels"].as_str() {
        toml += &format!("labels = '{FOLDER}/{labels}'\n");
    }
    if let Some(shots) = run["shots"].as_str() {
        toml += &format!("few_shot = {{ from = '{FOLDER}/{shots}.jsonl', n = {} }}\n", run["n"]);
        name += &format!("-{}shot", run["n"]);
    }
    if let Some(window) = run["window"].as_u64() {
        toml += &format!("window = {window}\n");
        name += &format!("-window{window}");
    }
    (toml, name)
}

/// Oracle: the harness's own readers, prompts, cuts and judgements over another forward pass (see the fixture's `made_by`).
#[test]
fn likelihoods_and_shares_are_the_harnesss() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let fixture = std::fs::read_to_string(Path::new(FOLDER).join("expected.json")).expect("readable");
    let fixture: Value = serde_json::from_str(&fixture).expect("JSON");
    let runs = fixture["runs"].as_array().expect("runs");
    let workloads: String = runs.iter().map(|run| asked(run).0).collect();
    let file = scenario(folder.path(), "harness", &workloads);
    printed(folder.path(), &["run", &file, "--output", "out", "--quiet"]);
    let found = values(folder.path(), "out");
    let mut compared = 0;
    for run in runs {
        let name = asked(run).1;
        let get = |metric: &str, item: usize| {
            found
                .get(&(name.clone(), metric.to_string(), item))
                .copied()
                .unwrap_or_else(|| panic!("{name} {metric} {item}"))
        };
        for (index, item) in run["items"].as_array().expect("items").iter().enumerate() {
            let sums = item["log_likelihoods"].as_array().expect("sums");
            for (k, sum) in sums.iter().enumerate() {
                let several = found.contains_key(&(name.clone(), "answer_nll:answer 0".into(), index));
                let metric = if several { format!("answer_nll:answer {k}") } else { "answer_nll".into() };
                let (got, expected) = (-get(&metric, index), sum.as_f64().expect("a number"));
                // f32 products against f64: far below the 1e-3 at which anybody would call two numbers different
                assert!((got - expected).abs() <= 1e-4 * expected.abs(), "{name} item {index}: {got} != {expected}");
                compared += 1;
            }
            for share in ["acc", "acc_norm", "acc_bytes"] {
                if let Some(expected) = item[share].as_f64() {
                    assert_eq!(get(&format!("{share}_item"), index), expected, "{name} item {index} {share}");
                }
            }
        }
        for (metric, expected) in run["metrics"].as_object().expect("metrics") {
            let (got, expected) = (get(metric, 0), expected.as_f64().expect("a number"));
            assert!((got - expected).abs() <= 1e-5 * expected, "{name} {metric}: {got} != {expected}");
        }
        let cut = if run["window"].is_null() { 0.0 } else { run["items"].as_array().expect("items").len() as f64 };
        assert_eq!(get("cut_items", 0), cut, "{name}");
    }
    assert!(compared > 100, "{compared}");
}
