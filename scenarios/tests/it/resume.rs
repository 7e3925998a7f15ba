//! Runs that are stopped or killed in every phase, and continued: what comes out is what an undisturbed run gives.

#![cfg(unix)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use results::claim::Verdict;
use results::observation::Status;
use results::run::Run;
use results::summary::Ending;
use serde_json::Value;

use crate::{infermark, printed, refused};

/// Two formats and a control, two protocols, two repetitions, and a claim on the ratio of perplexities; no clock decides how much is done.
const SCENARIO: &str = r#"name = "kept"
question = "Does a run that was killed give what an undisturbed one gives?"
[model]
source = "embedded:draft"
[matrix]
weights = ["f32", "int8"]
decoding = ["greedy"]
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
protocols = [{ rule = "gptq", window = 32 }, { rule = "llamacpp", window = 64 }]
[[workload]]
kind = "prefill"
tokens = [8]
[[claim]]
id = "int8-costs-little"
paper = "p"
source = "s"
statement = "int8 weights lose less than a tenth of the perplexity"
tier = "ratio"
published = "1.00"
counterpart = "the same ratio here"
[[claim.part]]
label = "perplexity over f32's"
measure = { kind = "ratio", metric = "ppl:gptq-32", over = { weights = "int8" }, under = { weights = "f32" } }
rule = { at_most = 1.1, no_effect = 1.5, point = true }
"#;

fn write(folder: &Path) {
    let words = "The ferry left at nine, and nobody on the quay looked up from the newspaper. ".repeat(12);
    std::fs::write(folder.join("words.txt"), words).expect("writable");
    std::fs::write(folder.join("kept.toml"), SCENARIO).expect("writable");
    let measured = SCENARIO.replace("\"kept\"", "\"surveyed\"").replace("measure_machine = false\n", "");
    std::fs::write(folder.join("surveyed.toml"), measured).expect("writable");
}

/// When a run is ended from outside: by what it has said, or by what it has saved. Nothing waits for a time.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// It has begun this phase.
    Phase(&'static str),
    /// So many batches of rows are on disk.
    Batches(usize),
    /// It has written this file.
    File(&'static str),
}

fn batches(out: &Path) -> usize {
    std::fs::read_to_string(out.join("observations.jsonl")).map_or(0, |text| text.matches("\"end\":true").count())
}

/// Starts `words` and sends `signal` at `moment`; the exit code (128 + signal of one that was killed) and standard output.
fn ended_at(folder: &Path, words: &[&str], out: &str, moment: Moment, signal: i32) -> (i32, String) {
    let mut child = Command::new(assert_cmd::cargo::cargo_bin!("infermark"))
        .args(words)
        .current_dir(folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let stderr = BufReader::new(child.stderr.take().expect("piped"));
    let (sender, phases) = std::sync::mpsc::channel();
    std::thread::spawn(move || stderr.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok()));
    let out = folder.join(out);
    let mut said = vec![];
    let reached = |said: &[String]| match moment {
        Moment::Phase(name) => said.iter().any(|line| line.starts_with(name)),
        Moment::Batches(n) => batches(&out) >= n,
        Moment::File(name) => out.join(name).is_file(),
    };
    while !reached(&said) && child.try_wait().expect("a child").is_none() {
        said.extend(phases.recv_timeout(Duration::from_millis(2)));
    }
    send(&child, signal);
    let output = child.wait_with_output().expect("it ends");
    use std::os::unix::process::ExitStatusExt;
    let code = output.status.code().or_else(|| output.status.signal().map(|signal| 128 + signal)).unwrap_or(-1);
    (code, String::from_utf8_lossy(&output.stdout).into_owned())
}

fn send(child: &Child, signal: i32) {
    let pid = child.id().to_string();
    // one that has ended already cannot be ended any more
    let _ = Command::new("kill").args([format!("-{signal}"), pid]).stderr(Stdio::null()).status();
}

/// Id and verdict of a claim, and the bits of its number and interval.
type JudgedClaim = (String, Verdict, Option<u64>, Option<(u64, u64)>);

/// What must not depend on interruptions: verdicts with their numbers, every number that no clock made, and the answer
/// without its speeds.
#[derive(Debug, PartialEq)]
struct Outcome {
    claims: Vec<JudgedClaim>,
    numbers: BTreeMap<String, Vec<u64>>,
    compared: BTreeMap<String, (u64, u64, u64)>,
    answer: Vec<String>,
    ending: Option<Ending>,
    complete: bool,
}

fn outcome(folder: &Path, out: &str) -> Outcome {
    let run = Run::load(&folder.join(out)).expect("a run");
    let summary = run.summary.clone().expect("a summary");
    let claim = |c: &results::claim::ClaimResult| {
        let bits = |(low, high): (f64, f64)| (low.to_bits(), high.to_bits());
        (c.id.clone(), c.verdict, c.measured.map(f64::to_bits), c.interval.map(bits))
    };
    let no_clock = |workload: &str| workload.starts_with("ppl") || workload == "verify";
    let mut numbers: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for row in run.observations.iter().filter(|row| no_clock(&row.workload) && row.status == Status::Ok) {
        let key = format!("{} {} {} {}", row.cell, row.workload, row.metric, row.item);
        let values = numbers.entry(key).or_default();
        let new = row.value.map(f64::to_bits).filter(|bits| !values.contains(bits));
        values.extend(new);
    }
    let reference = &summary.cells[0].id;
    let compared = results::aggregate::compare(&run.observations, reference).into_iter();
    let compared = compared.filter(|c| no_clock(&c.workload) && c.workload != "verify").filter_map(|c| {
        let ratio = c.ratio?;
        Some((format!("{} {}", c.cell, c.metric), (ratio.ratio.to_bits(), ratio.low.to_bits(), ratio.high.to_bits())))
    });
    Outcome {
        claims: run.claims.iter().map(claim).collect(),
        numbers,
        compared: compared.collect(),
        answer: summary
            .answer
            .iter()
            .filter(|sentence| sentence.contains("perplexity"))
            .map(|s| without_speeds(s))
            .collect(),
        ending: summary.ending,
        complete: summary.complete,
    }
}

/// A sentence up to its first speed; one about a speed alone becomes empty.
fn without_speeds(sentence: &str) -> String {
    match sentence.contains("tok/s") || sentence.contains('×') {
        true => String::new(),
        false => sentence.into(),
    }
}

const KILL: i32 = 9;
const TERM: i32 = 15;
const INT: i32 = 2;

/// Ends a run at each moment, continues it, and compares it with one that nothing disturbed.
fn survives(moments: &[(&str, Moment, i32)], from_batches: &[(usize, i32)]) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    write(folder);
    let said = printed(folder, &["run", "kept.toml", "--output", "whole", "--quiet", "--no-report"]);
    assert!(said.ends_with("pass\n"), "{said}");
    let whole = outcome(folder, "whole");
    assert!(!whole.compared.is_empty() && whole.complete && !whole.claims.is_empty(), "{whole:?}");
    let last = batches(&folder.join("whole"));
    assert!(last >= 14, "two cells and a control leave {last} batches");
    let after = |&(eighth, signal): &(usize, i32)| ("kept", Moment::Batches(1 + eighth * (last - 2) / 8), signal);
    let moments = moments.iter().copied().chain(from_batches.iter().map(after));
    for (number, (scenario, moment, signal)) in moments.enumerate() {
        let out = format!("out{number}");
        let words = ["run", &format!("{scenario}.toml"), "--output", &out, "--no-report"];
        let (code, said) = ended_at(folder, &words, &out, moment, signal);
        let at = format!("{moment:?} ended by {signal}, exit code {code}");
        if code == 128 + signal && signal != KILL {
            let command = format!("continue with: infermark run --resume {out}");
            assert!(said.contains(&command) && said.ends_with("interrupted\n"), "{at}: {said}");
            let summary = Run::load(&folder.join(&out)).expect("a run").summary.expect("a summary");
            assert_eq!((summary.ending, summary.complete), (Some(Ending::Interrupted), false), "{at}");
        }
        // a run that ended before it had its scenario is none, and its folder is free
        let again: Vec<&str> = match folder.join(&out).join("scenario.toml").is_file() {
            true => vec!["run", "--resume", &out, "--no-report", "--quiet"],
            false => vec!["run", "kept.toml", "--output", &out, "--no-report", "--quiet"],
        };
        let said = printed(folder, &again);
        assert!(said.ends_with("pass\n"), "{at}: {said}");
        assert_eq!(outcome(folder, &out), whole, "{at}");
    }
}

#[test]
fn a_run_that_is_ended_before_it_times_and_continued_gives_what_an_undisturbed_one_gives() {
    use Moment::{File, Phase};
    let moments = [
        ("surveyed", Phase("measuring the machine"), KILL),
        ("surveyed", Phase("measuring the machine"), INT),
        ("kept", File("run.lock"), KILL),
        ("kept", File("scenario.toml"), KILL),
        ("kept", File("summary.json"), TERM),
        ("kept", Phase("verifying and scoring"), KILL),
        ("kept", Phase("building"), INT),
    ];
    survives(&moments, &[(0, KILL), (1, INT), (2, KILL), (3, TERM)]);
}

#[test]
fn a_run_that_is_ended_while_it_times_and_continued_gives_what_an_undisturbed_one_gives() {
    use Moment::{File, Phase};
    let moments = [
        ("kept", Phase("warming up"), KILL),
        ("kept", Phase("warming up"), TERM),
        ("kept", Phase("timing"), KILL),
        ("kept", Phase("verifying again"), KILL),
        ("kept", Phase("judging and writing"), KILL),
        ("kept", File("observations.parquet"), KILL),
    ];
    survives(&moments, &[(4, KILL), (5, INT), (6, KILL), (7, TERM)]);
}

#[test]
fn what_changes_no_meaning_can_be_set_when_a_run_is_continued_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    write(folder);
    let set =
        ["--set", "budget.seconds=0.000001", "--set", "budget.min_repetitions=3", "--set", "budget.max_repetitions=3"];
    let first = ["run", "kept.toml", "--output", "out", "--no-report", "--quiet"];
    let assert = infermark(folder).args(first).args(set).assert().code(3);
    let said = String::from_utf8_lossy(&assert.get_output().stdout).into_owned();
    assert!(said.contains("of 3 cells scored") && said.ends_with("incomplete\n"), "{said}");
    let command = said.lines().find_map(|line| line.split_once("Continue it with: infermark ")).expect("a command").1;
    assert!(command.contains("--resume out") && command.contains("--set budget.seconds="), "{said}");
    for (key, value) in [("budget.threads", "2"), ("weights", "f16"), ("seed", "3"), ("budget.measure_machine", "true")]
    {
        let said = refused(folder, &["run", "--resume", "out", "--set", &format!("{key}={value}")], 2);
        assert!(said.contains(key) && said.contains("budget.seconds, budget.min_repetitions"), "{said}");
    }
    let said = refused(folder, &["run", "--resume", "out", "--set", "budget.seconds=fast"], 2);
    assert!(said.contains("budget.seconds"), "{said}");
    // the printed command is typed as it stands
    let words: Vec<&str> = command.split(' ').collect();
    assert!(printed(folder, &words).ends_with("pass\n"));
    let run = Run::load(&folder.join("out")).expect("a run");
    assert!(run.values("sitting 1", "set").iter().any(|set| set.starts_with("budget.seconds=")), "{:?}", run.facts);
    assert_eq!(run.values("run", "scenario_blake3").len(), 1, "the scenario is what it was");
}

/// Replaces a fact of a run, as if another build had stated it.
fn restate(out: &Path, key: &str, value: &str) {
    let path = out.join("provenance.jsonl");
    let mut text = String::new();
    for line in std::fs::read_to_string(&path).expect("facts").lines() {
        let mut fact: Value = serde_json::from_str(line).expect("JSON");
        if fact["key"] == key {
            fact["value"] = value.into();
        }
        text += &format!("{fact}\n");
    }
    std::fs::write(&path, text).expect("writable");
    let _ = std::fs::remove_file(out.join("provenance.parquet"));
}

#[test]
fn another_build_is_refused_or_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    write(folder);
    printed(folder, &["run", "kept.toml", "--output", "out", "--no-report", "--quiet"]);
    restate(&folder.join("out"), "git_commit", "0123abc");
    restate(&folder.join("out"), "program_blake3", "feed");
    let said = refused(folder, &["run", "--resume", "out"], 2);
    assert!(
        said.contains("another build") && said.contains("0123abc") && said.contains("--allow-other-build"),
        "{said}"
    );
    let more = ["--set", "budget.max_repetitions=3"];
    let allowed = ["run", "--resume", "out", "--allow-other-build", "--quiet"];
    let said = printed(folder, &[&allowed[..], &more].concat());
    assert!(said.contains("caveat: The rows of sitting 1 were made by another build"), "{said}");
    let run = Run::load(&folder.join("out")).expect("a run");
    assert_eq!(run.values("sitting 0", "git_commit"), ["0123abc"]);
    assert_eq!(run.values("sitting 1", "git_commit").len(), 1);
    assert_eq!(run.values("run", "git_commit").len(), 2, "neither is the only one");
    assert!(run.fact("run", "git_commit").is_some_and(|text| text.starts_with("0123abc, then ")));
    assert!(run.observations.iter().any(|row| row.sitting == 1), "rows name their sitting, and it its build");
    let report = std::fs::read_to_string(folder.join("out/report.html")).expect("a report");
    assert!(report.contains("Rows with sitting 1") && report.contains("0123abc"));
}

#[test]
fn two_runs_of_one_second_are_two() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    write(folder);
    let start = || {
        Command::new(assert_cmd::cargo::cargo_bin!("infermark"))
            .args(["run", "kept.toml", "--no-report", "--quiet", "--set", "budget.max_repetitions=2"])
            .current_dir(folder)
            .stdout(Stdio::null())
            .spawn()
            .expect("it starts")
    };
    let children: Vec<Child> = (0..3).map(|_| start()).collect();
    for child in children {
        assert!(child.wait_with_output().expect("it ends").status.success());
    }
    let entries = std::fs::read_dir(folder.join("results/runs")).expect("runs");
    let runs: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    let mut ids: Vec<String> =
        runs.iter().map(|path| Run::load(path).expect("a run").run_id().expect("an id").to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!((runs.len(), ids.len()), (3, 3), "{runs:?}");
}

/// Workers of a run that was killed: this program's children, which its folder does not name, so they are known by their parent.
fn children_of(pid: u32) -> Vec<u32> {
    let listed = Command::new("ps").args(["-eo", "pid=,ppid="]).output().expect("ps");
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let pairs = text.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().filter_map(|word| word.parse::<u32>().ok());
        Some((numbers.next()?, numbers.next()?))
    });
    pairs.filter(|(_, parent)| *parent == pid).map(|(child, _)| child).collect()
}

fn is_alive(pid: u32) -> bool {
    let state = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output().expect("ps");
    let state = String::from_utf8_lossy(&state.stdout).trim().to_string();
    !state.is_empty() && !state.starts_with('Z')
}

/// One repetition of a minute: a worker that only listens between repetitions would not notice the end of its runner.
const LONG: &str = r#"name = "long"
question = "Does a worker end with its runner?"
[budget]
threads = 1
aa_control = false
measure_machine = false
[[workload]]
kind = "attention-sweep"
lengths = [65536]
heads = 8
kv_heads = 8
head_dim = 64
"#;

#[test]
fn workers_do_not_outlive_a_killed_run() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    std::fs::write(folder.join("long.toml"), LONG).expect("writable");
    let mut child = Command::new(assert_cmd::cargo::cargo_bin!("infermark"))
        .args(["run", "long.toml", "--output", "out"])
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let stderr = BufReader::new(child.stderr.take().expect("piped"));
    let begun = stderr.lines().map_while(Result::ok).any(|line| line.starts_with("warming up"));
    assert!(begun, "it warms up");
    let workers = children_of(child.id());
    assert!(!workers.is_empty(), "cells are processes");
    child.kill().expect("killed");
    child.wait().expect("gone");
    // they have a second, on a machine that may be busy
    for _ in 0..150 {
        if !workers.iter().any(|&pid| is_alive(pid)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{workers:?} go on without a runner");
}
