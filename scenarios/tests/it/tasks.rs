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

/// What is said of a task of these lines, asked with these fields.
fn said(lines: &str, fields: &str) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("items.jsonl"), lines).expect("writable");
    std::fs::write(folder.path().join("labels.txt"), "0\n7\n").expect("writable");
    let workload = format!("[[workload]]\nkind = \"task\"\ntask = \"items.jsonl\"\n{fields}\n");
    let file = scenario(folder.path(), "bad", &workload);
    refused(folder.path(), &["plan", &file], 2)
}

#[test]
fn what_cannot_be_asked_is_said_by_file_line_and_field() {
    let good = r#"{"context": "a", "choices": ["b", "c"], "answer": 0}"#;
    let piqa = r#"{"goal": "a", "sol1": "b", "sol2": "c"}"#;
    let named = r#"{"id": "x", "context": "a", "choices": ["b", "c"], "answer": 0}"#;
    for (lines, fields, words) in [
        ("", "", &["items.jsonl", "no items"][..]),
        ("[1, 2]", "", &["line 1", "one JSON object a line"]),
        ("{\n \"context\": 1}", "", &["line 1", "not JSON", "one JSON object a line"]),
        (r#"{"prompt": "a"}"#, "", &["line 1", "prompt", "hellaswag (ctx_a, ctx_b, endings)", "layout"]),
        (&format!("{good}\n{{\"context\": \"a\"}}"), "", &["line 2", "`choices` is missing", "layout plain expects"]),
        (&good.replace(": 0}", ": 2}"), "", &["line 1", "`answer` is 2", "0 to 1"]),
        (&good.replace("\"c\"", "\" \""), "", &["line 1", "`choices`", "none of them empty"]),
        (&good.replace("[\"b\", \"c\"]", "[]"), "", &["line 1", "`choices` is []", "two texts or more"]),
        (&format!("{named}\r\n{named}\r\n"), "", &["line 2", "id `x`", "line 1 too"]),
        (good, "layout = \"arc\"", &["line 1", "`choices`", "layout arc expects"]),
        (good, "layout = \"boolq\"", &["boolq", "hellaswag"]),
        (good, "labels = \"labels.txt\"", &["layout plain has its answers in its own lines"]),
        (piqa, "", &["line 1", "`label` is missing", "labels = \"FILE\""]),
        (&format!("{piqa}\n{piqa}"), "labels = \"labels.txt\"", &["line 2", "`7`", "expected 0 or 1"]),
        (piqa, "labels = \"labels.txt\"", &["labels.txt", "2 labels for 1 items"]),
        (piqa, "labels = \"gone.txt\"", &["gone.txt", "cannot read"]),
        (good, "few_shot = { from = \"items.jsonl\", n = 1 }", &["0 examples", "item line 1", "1 are wanted"]),
        (good, "few_shot = { from = \"items.jsonl\", n = 0 }", &["few_shot.n", "1 to 1000"]),
        (good, "limit = 0", &["limit", "at least 1"]),
        (
            r#"{"sentence": "no gap", "option1": "a", "option2": "b", "answer": "1"}"#,
            "",
            &["line 1", "`sentence`", "`_`"],
        ),
        (
            r#"{"ctx_a": "a", "ctx_b": "b", "activity_label": "c", "endings": ["d", "e"], "label": ""}"#,
            "",
            &["line 1", "`label`", "test split"],
        ),
        (
            r#"{"question": "a", "choices": {"text": ["b", "c"], "label": ["A", "B"]}, "answerKey": "E"}"#,
            "",
            &["line 1", "`answerKey` is \"E\"", "A, B"],
        ),
    ] {
        let found = said(lines, fields);
        assert!(words.iter().all(|word| found.contains(word)), "{words:?} in {found}");
        assert!(!found.contains("panicked"), "{found}");
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = scenario(folder.path(), "none", "[[workload]]\nkind = \"task\"\ntask = \"embedded:scene\"\n");
    let found = refused(folder.path(), &["plan", &file], 2);
    assert!(found.contains("did you mean embedded:scenes?") && found.contains("embedded:last-words"), "{found}");
}

#[test]
fn marks_of_byte_order_and_line_ends_of_other_systems_are_read() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let line = r#"{"context": "The sun rises in the", "choices": ["east", "sea"], "answer": 0}"#;
    std::fs::write(folder.path().join("items.jsonl"), format!("\u{feff}{line}\r\n\r\n{line}\r\n")).expect("writable");
    let workload = "[[workload]]\nkind = \"task\"\ntask = \"items.jsonl\"\n";
    let file = scenario(folder.path(), "marks", workload);
    printed(folder.path(), &["run", &file, "--output", "out", "--quiet"]);
    let found = values(folder.path(), "out");
    let get = |item: usize| found[&("task-items".to_string(), "target_nll".to_string(), item)];
    assert_eq!(get(0), get(1));
}

#[test]
fn a_chat_without_a_template_is_skipped_and_says_why() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let workload = "[[workload]]\nkind = \"task\"\ntask = \"embedded:questions\"\nchat = true\nlimit = 2\n";
    let file = scenario(folder.path(), "chat", workload);
    assert!(printed(folder.path(), &["plan", &file]).contains("has no chat template"));
    let workload = "[[workload]]\nkind = \"task\"\ntask = \"embedded:questions\"\nwindow = 100000\n";
    let file = scenario(folder.path(), "wide", workload);
    assert!(printed(folder.path(), &["plan", &file]).contains("a window of 100000 tokens is longer than"));
}

#[test]
fn keys_are_hidden_where_the_scenario_says() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let workload = "[[workload]]\nkind = \"passkey\"\nlengths = [128, 192]\ndepths = [0.0, 1.0]\nitems = 2\n";
    let file = scenario(folder.path(), "keys", workload);
    printed(folder.path(), &["run", &file, "--output", "out", "--quiet"]);
    let found = values(folder.path(), "out");
    let get = |metric: &str, item: usize| found.get(&("passkey-128-192".into(), metric.into(), item)).copied();
    assert!((0..8).all(|item| get("acc_item", item).is_some() && get("exact_match_item", item).is_some()));
    assert!(get("acc_at:depth 0", 0).is_some() && get("exact_match_at:depth 1", 0).is_some());
    let short = scenario(folder.path(), "short", "[[workload]]\nkind = \"passkey\"\nlengths = [64]\n");
    let found = refused(folder.path(), &["run", &short, "--output", "short", "--quiet"], 5);
    assert!(
        found.contains("no room") || printed(folder.path(), &["export", "short", "--csv", "-"]).contains("no room"),
        "{found}"
    );
    let wrong = scenario(
        folder.path(),
        "wrong",
        "[[workload]]\nkind = \"passkey\"\nlengths = [512, 512]\ndepths = [2.0]\nchoices = 1\n",
    );
    let found = refused(folder.path(), &["plan", &wrong], 2);
    for words in ["lists one twice", "depths of 0 to 1", "2 to 100 keys"] {
        assert!(found.contains(words), "{words} in {found}");
    }
}
