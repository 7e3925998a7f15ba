//! A run's prompt processing and generation as llama-bench writes them: one JSON object per line, for llama.cpp's
//! `compare-llama-bench.py` and everything else that reads these lines.
//!
//! Each key has the type that llama-bench gives it, and keys of older and newer versions stand side by side (`use_mmap` became
//! `load_mode`): the script refuses lines that lack one of its own and passes over those that it does not know. A field about something that infermark has not (batches, GPU layers, polling) holds
//! llama-bench's own default. Two cells never have the same values in all fields by which the script groups lines, or their
//! speeds would be averaged: what no field of llama-bench's can say stands in `model_type`.

use results::observation::{Axes, Observation, Status};
use results::run::Run;
use serde::Serialize;

/// Digits of a commit, as llama-bench prints it.
const COMMIT_DIGITS: usize = 8;

/// Repetitions of one test: a cell, a workload and a length.
struct Test<'a> {
    first: &'a Observation,
    /// Tokens per second, finite and above zero.
    rates: Vec<f64>,
}

/// One line: the fields of llama-bench, then which cell of which run it was.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    build_commit: String,
    build_number: u64,
    cpu_info: String,
    gpu_info: String,
    backends: String,
    model_filename: &'a str,
    model_type: String,
    model_size: u64,
    model_n_params: u64,
    n_batch: u64,
    n_ubatch: u64,
    n_threads: u32,
    cpu_mask: &'a str,
    cpu_strict: bool,
    poll: u64,
    type_k: &'a str,
    type_v: &'a str,
    n_gpu_layers: u64,
    n_cpu_moe: u64,
    split_mode: &'a str,
    main_gpu: u64,
    no_kv_offload: bool,
    flash_attn: bool,
    devices: &'a str,
    tensor_split: &'a str,
    tensor_buft_overrides: &'a str,
    use_mmap: bool,
    load_mode: &'a str,
    lazy_mode: &'a str,
    embeddings: bool,
    no_op_offload: u64,
    no_host: bool,
    repack: bool,
    fit_target: u64,
    fit_min_ctx: u64,
    n_prompt: u64,
    n_gen: u64,
    n_depth: u64,
    test_time: &'a str,
    avg_ns: u64,
    stddev_ns: u64,
    avg_ts: f64,
    stddev_ts: f64,
    samples_ns: Vec<u64>,
    samples_ts: Vec<f64>,
    cell: &'a str,
    workload: &'a str,
    run_id: &'a str,
}

/// The lines, in the order of the rows.
pub fn lines(run: &Run) -> Vec<Line<'_>> {
    tests(run).into_iter().filter_map(|test| line(run, test)).collect()
}

fn tests(run: &Run) -> Vec<Test<'_>> {
    let mut tests: Vec<Test<'_>> = vec![];
    for row in run.observations.iter().filter(|row| row.status == Status::Ok && is_speed(&row.metric)) {
        let Some(rate) = row.value.filter(|rate| rate.is_finite() && *rate > 0.0) else { continue };
        let same = |first: &Observation| {
            (&first.cell, &first.workload, &first.metric, first.x) == (&row.cell, &row.workload, &row.metric, row.x)
        };
        match tests.iter_mut().find(|test| same(test.first)) {
            Some(test) => test.rates.push(rate),
            None => tests.push(Test { first: row, rates: vec![rate] }),
        }
    }
    tests
}

/// Whether llama-bench would have measured it.
fn is_speed(metric: &str) -> bool {
    ["prefill_tok_s", "decode_tok_s"].contains(&metric)
}

/// One object; none where the name of the workload says no length.
fn line<'a>(run: &'a Run, test: Test<'a>) -> Option<Line<'a>> {
    let row = test.first;
    let axes = &row.axes;
    let (n_prompt, n_gen, n_depth) = lengths(row)?;
    let tokens = (n_prompt + n_gen) as f64;
    let samples: Vec<f64> = test.rates.iter().map(|rate| tokens / rate * 1e9).collect();
    let whole = |ns: f64| ns.round() as u64;
    let on_gpu = axes.device.starts_with("cuda");
    let kv_type = kv_type(&axes.kv);
    Some(Line {
        build_commit: commit(run, &row.cell),
        build_number: 0,
        cpu_info: run.fact("machine", "cpu_model").unwrap_or_default(),
        gpu_info: if on_gpu {
            run.fact("machine", "gpu_name").unwrap_or_else(|| axes.device.clone())
        } else {
            String::new()
        },
        backends: format!("{} {}", axes.engine, axes.device),
        model_filename: &axes.model,
        model_type: model_type(axes),
        model_size: model_size(run, row),
        model_n_params: parameters(run, &axes.model),
        n_batch: 2048,
        n_ubatch: 512,
        n_threads: row.threads,
        cpu_mask: "0x0",
        cpu_strict: false,
        poll: 50,
        type_k: kv_type,
        type_v: kv_type,
        n_gpu_layers: if on_gpu { 99 } else { 0 },
        n_cpu_moe: 0,
        split_mode: "layer",
        main_gpu: 0,
        no_kv_offload: false,
        flash_attn: is_fused(&axes.attention),
        devices: "auto",
        tensor_split: "0.00",
        tensor_buft_overrides: "none",
        use_mmap: true,
        load_mode: "mmap",
        lazy_mode: "auto",
        embeddings: false,
        no_op_offload: 0,
        no_host: false,
        repack: true,
        fit_target: 0,
        fit_min_ctx: 0,
        n_prompt,
        n_gen,
        n_depth,
        test_time: started(run, row.sitting),
        avg_ns: whole(mean(&samples)),
        stddev_ns: whole(deviation(&samples)),
        avg_ts: mean(&test.rates),
        stddev_ts: deviation(&test.rates),
        samples_ns: samples.iter().map(|ns| whole(*ns)).collect(),
        samples_ts: test.rates,
        cell: &row.cell,
        workload: &row.workload,
        run_id: &row.run_id,
    })
}

/// Prompt, generated and cached tokens: 512, 0, 0 of `pp512`; 0, 128, 512 of `tg128@512`. A sweep's length is its coordinate.
fn lengths(row: &Observation) -> Option<(u64, u64, u64)> {
    let number = |text: &str| text.parse::<u64>().ok().filter(|n| *n > 0);
    let x = row.x.map(|x| x as u64);
    if row.metric == "prefill_tok_s" {
        let lengths: Vec<u64> = row.workload.strip_prefix("pp")?.split('-').filter_map(number).collect();
        let tokens = match (lengths.as_slice(), x) {
            ([only], _) => *only,
            (listed, Some(x)) if listed.contains(&x) => x,
            _ => return None,
        };
        return Some((tokens, 0, x.map_or(0, |after| after.saturating_sub(tokens))));
    }
    let (tokens, context) = match row.workload.strip_prefix("tg")?.split_once('@') {
        Some((tokens, context)) => (number(tokens)?, number(context)),
        None => (number(row.workload.strip_prefix("tg")?)?, None),
    };
    Some((0, tokens, x.or(context).unwrap_or(0)))
}

/// The commit in as many digits as llama-bench prints; the other build of `bench-against` did not leave its own.
fn commit(run: &Run, cell: &str) -> String {
    let is_other = cell.starts_with(ci::interleaved::BASE_PREFIX);
    // of several commits none is the one
    let stated = match run.values("run", "git_commit").as_slice() {
        [only] if !is_other => *only,
        _ => "unknown",
    };
    let digits: String = stated.chars().take_while(char::is_ascii_hexdigit).take(COMMIT_DIGITS).collect();
    if digits.len() == COMMIT_DIGITS { digits } else { "unknown".into() }
}

/// The checkpoint and its weights, then the parts that no field of llama-bench's can say.
fn model_type(axes: &Axes) -> String {
    let mut words = vec![axes.model.as_str(), axes.weights.as_str()];
    if !["naive", "plain", "flash"].contains(&axes.attention.as_str()) {
        words.push(&axes.attention);
    }
    if kv_placement(&axes.kv) != "contiguous" {
        words.push(&axes.kv);
    }
    if axes.decoding != "greedy" {
        words.push(&axes.decoding);
    }
    words.join(" ")
}

/// Whether scores are never stored whole.
fn is_fused(attention: &str) -> bool {
    attention.starts_with("flash") || attention.starts_with("cuda-flash")
}

/// `contiguous` of `contiguous-f16`; another engine's cache is named by its encoding alone.
fn kv_placement(kv: &str) -> &str {
    let (placement, encoding) = kv.rsplit_once('-').unwrap_or((kv, ""));
    match kv {
        "f32" | "f16" | "int8" => "contiguous",
        _ if ["f32", "f16", "int8"].contains(&encoding) => placement,
        _ => kv,
    }
}

/// The encoding of keys and values as llama.cpp spells it.
fn kv_type(kv: &str) -> &'static str {
    match kv.rsplit('-').next() {
        Some("f16") => "f16",
        Some("int8") => "q8_0",
        _ => "f32",
    }
}

/// Bytes of the weights as the cell holds them; of another engine, which does not say, from the bits of the format.
fn model_size(run: &Run, row: &Observation) -> u64 {
    let is_size = |r: &&Observation| r.cell == row.cell && r.metric == "weights_bytes" && r.status == Status::Ok;
    if let Some(bytes) = run.observations.iter().filter(is_size).find_map(|r| r.value) {
        return bytes as u64;
    }
    let bits = match row.axes.weights.as_str() {
        "f32" => 32.0,
        "f16" | "bf16" => 16.0,
        "q8_0" => 8.5,
        "q4_0" => 4.5,
        _ => 0.0,
    };
    (parameters(run, &row.axes.model) as f64 * bits / 8.0) as u64
}

fn parameters(run: &Run, model: &str) -> u64 {
    let cards = run.summary.as_ref().map_or(&[][..], |summary| &summary.models);
    let named = cards.iter().find(|card| card.source == model).or(cards.first());
    named.map_or(0, |card| card.parameters)
}

/// When the sitting of a row began.
fn started(run: &Run, sitting: u32) -> &str {
    let sittings = run.facts.iter().filter(|fact| fact.scope == "run" && fact.key == "sitting_started");
    let stated = sittings.map(|fact| fact.value.as_str()).nth(sitting as usize);
    stated.or(run.summary.as_ref().map(|summary| summary.started.as_str())).unwrap_or_default()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Of a sample, as llama-bench computes it; 0 of one value.
fn deviation(values: &[f64]) -> f64 {
    let (m, n) = (mean(values), values.len() as f64);
    if n < 2.0 { 0.0 } else { (values.iter().map(|v| (v - m) * (v - m)).sum::<f64>() / (n - 1.0)).sqrt() }
}

#[cfg(test)]
mod tests {
    use results::observation::{Direction, Fact};
    use serde_json::{Value, json};

    use super::*;

    fn values(run: &Run) -> Vec<Value> {
        lines(run).iter().map(|line| serde_json::to_value(line).expect("JSON")).collect()
    }

    /// What `compare-llama-bench.py` wants in every line before it reads one, by the type that SQLite is given.
    const STRINGS: [&str; 13] = [
        "load_mode",
        "cpu_info",
        "gpu_info",
        "backends",
        "tensor_buft_overrides",
        "model_filename",
        "model_type",
        "cpu_mask",
        "type_k",
        "type_v",
        "split_mode",
        "tensor_split",
        "build_commit",
    ];
    const WHOLE: [&str; 12] = [
        "n_cpu_moe",
        "fit_target",
        "fit_min_ctx",
        "n_gpu_layers",
        "n_batch",
        "n_ubatch",
        "poll",
        "n_threads",
        "main_gpu",
        "n_prompt",
        "n_gen",
        "n_depth",
    ];
    const FLAGS: [&str; 5] = ["embeddings", "cpu_strict", "use_mmap", "no_kv_offload", "flash_attn"];

    fn row(cell: &str, workload: &str, metric: &str, value: f64, x: f64) -> Observation {
        let axes = Axes {
            model: "embedded:base".into(),
            attention: "flash".into(),
            weights: "f32".into(),
            kv: "contiguous".into(),
            decoding: "greedy".into(),
            device: "cpu".into(),
            ..Axes::default()
        };
        Observation {
            run_id: "r".into(),
            scenario: "s".into(),
            cell: cell.into(),
            axes,
            workload: workload.into(),
            sitting: 0,
            repetition: 0,
            item: 0,
            metric: metric.into(),
            formula_id: format!("{metric}@1"),
            unit: "tok/s".into(),
            direction: Direction::Higher,
            value: Some(value),
            x: Some(x),
            status: Status::Ok,
            reason: String::new(),
            threads: 2,
            kernel_path: String::new(),
            seed: 1,
        }
    }

    fn run(rows: Vec<Observation>) -> Run {
        let fact = |key: &str, value: &str| Fact {
            run_id: "r".into(),
            scope: "run".into(),
            key: key.into(),
            value: value.into(),
        };
        let facts = vec![
            fact("git_commit", "0123456789abcdef0123 with uncommitted changes"),
            fact("sitting_started", "2026-01-02T03:04:05Z"),
        ];
        Run { observations: rows, facts, ..Run::default() }
    }

    #[test]
    fn every_key_of_the_script_is_there_with_its_type() {
        let lines = values(&run(vec![row("a", "pp512", "prefill_tok_s", 256.0, 512.0)]));
        let line = lines[0].as_object().expect("an object");
        STRINGS.iter().for_each(|key| assert!(line[*key].is_string(), "{key}: {:?}", line[*key]));
        WHOLE.iter().for_each(|key| assert!(line[*key].is_u64(), "{key}: {:?}", line[*key]));
        FLAGS.iter().for_each(|key| assert!(line[*key].is_boolean(), "{key}: {:?}", line[*key]));
        assert_eq!((&line["build_commit"], &line["test_time"]), (&json!("01234567"), &json!("2026-01-02T03:04:05Z")));
        // 512 tokens at 256 a second take two seconds
        assert_eq!((&line["avg_ns"], &line["avg_ts"]), (&json!(2_000_000_000_u64), &json!(256.0)));
        assert_eq!((&line["stddev_ns"], &line["samples_ns"]), (&json!(0), &json!([2_000_000_000_u64])));
    }

    #[test]
    fn lengths_come_from_names_and_coordinates() {
        let of = |workload: &str, metric: &str, x: f64| lengths(&row("a", workload, metric, 1.0, x));
        assert_eq!(of("pp512", "prefill_tok_s", 512.0), Some((512, 0, 0)));
        assert_eq!(of("pp128-512", "prefill_tok_s", 128.0), Some((128, 0, 0)));
        assert_eq!(of("tg128@512", "decode_tok_s", 512.0), Some((0, 128, 512)));
        assert_eq!(of("tg128", "decode_tok_s", 16.0), Some((0, 128, 16)));
        assert_eq!(of("generate-8-8", "decode_tok_s", 16.0), None);
    }

    #[test]
    fn repetitions_are_samples_and_what_is_no_number_is_left_out() {
        let rates = [100.0, 300.0, f64::NAN, 0.0, f64::INFINITY];
        let lines = values(&run(rates.map(|rate| row("a", "tg100", "decode_tok_s", rate, 16.0)).into()));
        assert_eq!((lines.len(), &lines[0]["samples_ts"]), (1, &json!([100.0, 300.0])));
        // s of 100 and 300 is 100 √2
        assert_eq!(lines[0]["stddev_ts"], json!(f64::sqrt(2.0) * 100.0));
        assert_eq!(lines[0]["samples_ns"], json!([1_000_000_000_u64, 333_333_333_u64]));
    }

    #[test]
    fn cells_that_differ_in_one_part_never_look_alike() {
        let mut rows: Vec<Observation> =
            (0..8).map(|i| row(&format!("cell{i}"), "pp8", "prefill_tok_s", 1.0, 8.0)).collect();
        rows[1].axes.attention = "naive".into();
        rows[2].axes.attention = "blocked".into();
        rows[3].axes.kv = "contiguous-int8".into();
        rows[4].axes.kv = "latent".into();
        rows[5].axes.decoding = "speculative".into();
        rows[6].axes.device = "cpu-scalar".into();
        rows[7].axes.weights = "int8".into();
        let lines = values(&run(rows));
        let key =
            |line: &Value| STRINGS.iter().chain(&WHOLE).chain(&FLAGS).map(|k| line[*k].to_string()).collect::<Vec<_>>();
        for (i, a) in lines.iter().enumerate() {
            assert!(lines[i + 1..].iter().all(|b| key(a) != key(b)), "{a}");
        }
        assert_eq!((&lines[3]["type_k"], &lines[1]["flash_attn"]), (&json!("q8_0"), &json!(false)));
    }
}
