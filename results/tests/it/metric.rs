//! Every formula against figures worked out by hand.

use std::collections::BTreeSet;

use results::metric::{METRICS, metric, observe};
use results::observation::{Observation, Status};
use results::trace::{Answer, Chunk, Counted, Event, Hidden, Judged, Roof, Trace, Work};

use crate::row;

fn rows_of(events: Vec<Event>, roof: Option<Roof>) -> Vec<Observation> {
    let trace = Trace { cell: "flash".to_owned(), workload: "pp512".to_owned(), repetition: 3, events, roof };
    observe(&trace, &row("template", "none", 0, 0, 0.0))
}

fn values(rows: &[Observation], metric: &str) -> Vec<f64> {
    rows.iter().filter(|row| row.metric == metric).filter_map(|row| row.value).collect()
}

fn near(got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len(), "{got:?} != {expected:?}");
    for (got, expected) in got.iter().zip(expected) {
        assert!((got - expected).abs() <= 1e-12 * expected.abs().max(1.0), "{got} != {expected}");
    }
}

fn score(protocol: &str, window: u32, n_tokens: u64, nll: f64, reference_nll: f64) -> Event {
    Event::Score {
        protocol: protocol.to_owned(),
        window,
        n_tokens,
        n_bytes: n_tokens * 4,
        nll,
        reference_nll,
        kl: 0.5,
        kl_max: 0.1 * f64::from(window + 1),
        top1_agree: n_tokens - 1,
    }
}

#[test]
fn the_registry_is_consistent() {
    let ids: BTreeSet<&str> = METRICS.iter().map(|metric| metric.id()).collect();
    let formulas: BTreeSet<&str> = METRICS.iter().map(|metric| metric.formula_id()).collect();
    assert_eq!((ids.len(), formulas.len()), (METRICS.len(), METRICS.len()));
    for metric in METRICS {
        assert!(metric.formula_id().contains('@') && !metric.id().contains([':', '@']), "{}", metric.id());
        assert!(metric.formula().len() > 20 && !metric.noise().is_empty(), "{}", metric.id());
        assert!(metric.derive(&Trace { roof: None, ..empty() }).is_empty(), "{}", metric.id());
    }
    assert_eq!(metric("ppl:gptq-256").map(|metric| metric.id()), Some("ppl"));
    assert_eq!(metric("check:logits").map(|metric| metric.id()), Some("check"));
    assert!(metric("some_count").is_none());
}

fn empty() -> Trace {
    Trace { cell: String::new(), workload: String::new(), repetition: 0, events: Vec::new(), roof: None }
}

#[test]
fn the_template_supplies_what_a_trace_does_not_know() {
    let rows = rows_of(vec![Event::Load { duration_ns: 1_500_000_000 }], None);
    assert_eq!(rows.len(), 1);
    let expected = Observation {
        cell: "flash".to_owned(),
        workload: "pp512".to_owned(),
        repetition: 3,
        metric: "load_s".to_owned(),
        formula_id: "load_s@1".to_owned(),
        unit: "s".to_owned(),
        value: Some(1.5),
        ..row("template", "none", 0, 0, 0.0)
    };
    assert_eq!(rows[0], expected);
}

#[test]
fn speeds_of_passes() {
    let work = Work::default();
    let rows = rows_of(
        vec![
            Event::Prefill { n_tokens: 512, context: 512, duration_ns: 250_000_000, work },
            Event::Decode { n_tokens: 128, context: 512, duration_ns: 3_200_000_000, work },
            Event::Decode { n_tokens: 128, context: 512, duration_ns: 0, work },
        ],
        None,
    );
    near(&values(&rows, "prefill_tok_s"), &[2048.0]);
    near(&values(&rows, "prefill_ms"), &[250.0]);
    near(&values(&rows, "decode_tok_s"), &[40.0]);
    near(&values(&rows, "decode_ms_per_token"), &[25.0]);
    assert_eq!(
        rows.iter().map(|row| row.x).collect::<Vec<_>>(),
        [Some(1024.0), Some(1024.0), Some(512.0), Some(512.0)]
    );
}

#[test]
fn latencies_of_requests() {
    let chunk = |ms: u64, n_tokens| Chunk { at_ns: ms * 1_000_000, n_tokens };
    let rows = rows_of(
        vec![
            // an empty chunk is not the first token; three tokens at once count as three
            Event::Request {
                request: 0,
                prompt_tokens: 9,
                chunks: vec![chunk(5, 0), chunk(10, 1), chunk(20, 1), chunk(50, 3)],
            },
            Event::Request { request: 1, prompt_tokens: 9, chunks: vec![chunk(8, 4)] },
            Event::Request { request: 2, prompt_tokens: 9, chunks: vec![] },
        ],
        None,
    );
    near(&values(&rows, "ttft_ms"), &[10.0, 8.0]);
    near(&values(&rows, "tpot_ms"), &[40.0 / 4.0]);
    near(&values(&rows, "itl_ms"), &[10.0, 30.0]);
    near(&values(&rows, "chunk_tokens"), &[1.0, 3.0]);
    near(&values(&rows, "e2e_ms"), &[50.0, 8.0]);
}

#[test]
fn likelihood_by_protocol() {
    // window means 2 and 4, total 20 nats over 8 tokens
    let events = |protocol: &str| vec![score(protocol, 0, 6, 12.0, 9.0), score(protocol, 1, 2, 8.0, 7.0)];
    let rows = rows_of(events("llamacpp-512"), None);
    near(&values(&rows, "nll"), &[2.5]);
    near(&values(&rows, "ppl"), &[2.5f64.exp()]);
    near(&values(&rows, "nll_window"), &[2.0, 4.0]);
    near(&values(&rows, "bits_per_byte"), &[20.0 / std::f64::consts::LN_2 / 32.0]);
    near(&values(&rows, "delta_nll"), &[0.5, 0.5]);
    near(&values(&rows, "ppl_ratio"), &[0.5f64.exp()]);
    near(&values(&rows, "kl_mean"), &[1.0 / 8.0]);
    near(&values(&rows, "kl_max"), &[0.2]);
    near(&values(&rows, "top1_agreement"), &[6.0 / 8.0]);
    assert_eq!(rows[0].formula_id, "ppl@2/llamacpp-512");

    let rows = rows_of(events("gptq-2048"), None);
    near(&values(&rows, "nll"), &[3.0]);
    near(&values(&rows, "ppl"), &[3f64.exp()]);
}

#[test]
fn several_protocols_in_one_trace_keep_apart() {
    let rows = rows_of(vec![score("gptq-64", 0, 4, 8.0, 8.0), score("hf-stride", 0, 4, 4.0, 4.0)], None);
    near(&values(&rows, "nll:gptq-64"), &[2.0]);
    near(&values(&rows, "nll:hf-stride"), &[1.0]);
    assert!(values(&rows, "nll").is_empty());
}

#[test]
fn without_a_reference_nothing_is_compared() {
    let rows = rows_of(vec![score("gptq-64", 0, 4, 8.0, 0.0)], None);
    assert_eq!(values(&rows, "ppl").len(), 1);
    for absent in ["delta_nll", "ppl_ratio", "kl_mean", "kl_max", "top1_agreement"] {
        assert!(values(&rows, absent).is_empty(), "{absent}");
    }
}

#[test]
fn not_a_number_makes_the_row_wrong() {
    let rows = rows_of(vec![score("gptq-64", 0, 4, f64::NAN, 8.0)], None);
    let ppl = rows.iter().find(|row| row.metric == "ppl").expect("row");
    assert_eq!((ppl.status, ppl.value), (Status::Wrong, None));
    assert!(ppl.reason.contains("NaN"), "{}", ppl.reason);
}

#[test]
fn a_cell_that_is_not_ok_shows_no_value() {
    let trace = Trace { events: vec![Event::Load { duration_ns: 5 }], ..empty() };
    let base = Observation { status: Status::Wrong, reason: "logits differ".to_owned(), ..row("a", "none", 0, 0, 0.0) };
    let rows = observe(&trace, &base);
    assert_eq!((rows[0].value, rows[0].reason.as_str()), (None, "logits differ"));
}

#[test]
fn speculation_ledger() {
    let rows = rows_of(
        vec![Event::Speculation {
            drafted: 40,
            decided: 36,
            accepted: 30,
            target_runs: 10,
            emitted: 40,
            drafted_at: vec![10, 10, 0],
            accepted_at: vec![9, 6, 0],
            draft_ns: 25_000_000,
            verify_ns: 75_000_000,
        }],
        None,
    );
    near(&values(&rows, "acceptance_rate"), &[0.75]);
    near(&values(&rows, "acceptance_alpha"), &[30.0 / 36.0]);
    near(&values(&rows, "tokens_per_run"), &[4.0]);
    near(&values(&rows, "draft_ms_per_run"), &[2.5]);
    near(&values(&rows, "verify_ms_per_run"), &[7.5]);
    near(&values(&rows, "draft_share"), &[0.25]);
    near(&values(&rows, "acceptance_at"), &[0.9, 0.6]);
    near(&values(&rows, "target_runs"), &[10.0]);
}

const ROOF: Roof =
    Roof { stream_bytes_s: 10e9, cache_bytes_s: 40e9, fma_flop_s: 100e9, int8_op_s: 200e9, llc_bytes: 1_000_000 };

#[test]
fn kernels_and_their_roof() {
    let kernel = |bytes, flops, int8_ops| Event::Kernel {
        op: "gemv".to_owned(),
        rung: "avx2".to_owned(),
        shape: "64x64".to_owned(),
        calls: 10,
        duration_ns: 1_000_000,
        work: Work { bytes, flops, int8_ops },
    };
    // 8 MB in ten calls of 0.8 MB: the cache's 40 GB/s is the limit, 8 GB/s is a fifth of it
    let rows = rows_of(vec![kernel(8_000_000, 50_000_000, 0)], Some(ROOF));
    near(&values(&rows, "us_per_call"), &[100.0]);
    near(&values(&rows, "gflop_s"), &[50.0]);
    near(&values(&rows, "gb_s"), &[8.0]);
    assert!(values(&rows, "gop_s").is_empty());
    near(&values(&rows, "roof_bandwidth_fraction"), &[0.2]);
    near(&values(&rows, "roof_flop_fraction"), &[0.5]);
    near(&values(&rows, "roof_fraction"), &[0.5]);
    near(&values(&rows, "roof_excess"), &[0.0]);

    // 12 MB in calls of 1.2 MB stream from memory: 12 GB/s over 10 GB/s is impossible
    let rows = rows_of(vec![kernel(12_000_000, 0, 40_000_000)], Some(ROOF));
    near(&values(&rows, "roof_int8_fraction"), &[0.2]);
    near(&values(&rows, "roof_fraction"), &[1.2]);
    near(&values(&rows, "roof_excess"), &[1.0]);
    assert!(values(&rows_of(vec![kernel(1, 1, 1)], None), "roof_fraction").is_empty());
}

#[test]
fn emulated_kernels_are_counted_and_never_timed() {
    let counted =
        Counted { thread_instructions: 6400, mma_flops: 4096, memory_bytes: 96, shared_requests: 8, bank_conflicts: 2 };
    let (op, rung, shape) = ("attention".to_owned(), "a5".to_owned(), "s64".to_owned());
    let rows = rows_of(vec![Event::Emulated { op, rung, shape, counted }], Some(ROOF));
    near(&values(&rows, "emulated_instructions"), &[6400.0]);
    near(&values(&rows, "emulated_mma_flops"), &[4096.0]);
    near(&values(&rows, "emulated_memory_bytes"), &[96.0]);
    near(&values(&rows, "emulated_bank_conflicts"), &[0.25]);
    assert!(values(&rows, "gflop_s").is_empty() && values(&rows, "roof_fraction").is_empty());
}

#[test]
fn decode_reads_its_weights_once_per_token() {
    // 100 tokens x 0.5 MB: each pass fits the cache although the total does not
    let work = Work { bytes: 50_000_000, flops: 0, int8_ops: 0 };
    let rows = rows_of(vec![Event::Decode { n_tokens: 100, context: 0, duration_ns: 5_000_000, work }], Some(ROOF));
    near(&values(&rows, "roof_fraction"), &[0.25]);
}

#[test]
fn values_and_checks_keep_their_names() {
    let check = |passed| Event::Check { name: "logits".to_owned(), value: 0.5, limit: 0.1, passed };
    let value = |x, value| Event::Value { name: "peak".to_owned(), x, value };
    let rows = rows_of(vec![value(128.0, 1.0), value(256.0, 2.0), check(false), check(true)], None);
    let peaks: Vec<_> =
        rows.iter().filter(|row| row.metric == "peak").map(|row| (row.item, row.x, row.value)).collect();
    assert_eq!(peaks, [(0, Some(128.0), Some(1.0)), (1, Some(256.0), Some(2.0))]);
    let checks: Vec<_> = rows.iter().filter(|row| row.metric == "check:logits").collect();
    assert_eq!((checks[0].status, checks[0].value), (Status::Wrong, None));
    assert!(checks[0].reason.contains("5e-1") && checks[0].reason.contains("1e-1"), "{}", checks[0].reason);
    assert_eq!((checks[1].status, checks[1].value), (Status::Ok, Some(0.5)));
}

#[test]
fn memory_that_was_not_measured_is_not_zero() {
    let rows = rows_of(
        vec![Event::Memory { weights_bytes: 4096, kv_logical_bytes: 0, kv_resident_bytes: 512, peak_rss_bytes: 0 }],
        None,
    );
    let metrics: Vec<_> = rows.iter().map(|row| (row.metric.as_str(), row.value)).collect();
    assert_eq!(metrics, [("weights_bytes", Some(4096.0)), ("kv_resident_bytes", Some(512.0))]);
}

#[test]
fn a_value_that_json_cannot_hold_is_a_row_that_says_so() {
    let event = Event::Value { name: "peak".into(), x: 0.0, value: f64::INFINITY };
    let line = serde_json::to_string(&event).expect("serialises");
    let Event::Value { value, .. } = serde_json::from_str(&line).expect("is read") else { panic!("another event") };
    assert!(value.is_nan(), "{line}");
}

fn answer(log_likelihood: f64, n_chars: u64, n_bytes: u64, greedy: bool) -> Answer {
    Answer { log_likelihood, n_tokens: 2, n_chars, n_bytes, greedy }
}

fn item(item: u32, judged: Judged, gold: u32, answers: Vec<Answer>, hidden: Option<Hidden>) -> Event {
    Event::Item {
        item,
        id: format!("item {item}"),
        judged,
        gold,
        answers,
        cut_tokens: u64::from(item == 1) * 3,
        hidden,
    }
}

/// Worked out by hand: sums −6, −8, −9; per character −3, −1, −1.5; per byte −3, −1, −0.9.
#[test]
fn items_are_judged_by_sums_by_characters_and_by_bytes() {
    let answers = || vec![answer(-6.0, 2, 2, true), answer(-8.0, 8, 8, false), answer(-9.0, 6, 10, false)];
    let events = (0..3).map(|gold| item(gold, Judged::Choice, gold, answers(), None)).collect();
    let rows = rows_of(events, None);
    for (metric, expected) in
        [("acc_item", [1.0, 0.0, 0.0]), ("acc_norm_item", [0.0, 1.0, 0.0]), ("acc_bytes_item", [0.0, 0.0, 1.0])]
    {
        near(&values(&rows, metric), &expected);
        near(&values(&rows, metric.trim_end_matches("_item")), &[1.0 / 3.0]);
    }
    near(&values(&rows, "target_nll"), &[6.0, 8.0, 9.0]);
    near(&values(&rows, "answer_nll:answer 2"), &[9.0; 3]);
    near(&values(&rows, "cut_items"), &[1.0]);
    assert!(values(&rows, "target_ppl").is_empty() && values(&rows, "exact_match").is_empty());
    // of equal answers the first counts, as argmax has it
    let equal = vec![answer(-5.0, 1, 1, false), answer(-5.0, 1, 1, false)];
    near(&values(&rows_of(vec![item(0, Judged::PlainChoice, 1, equal, None)], None), "acc"), &[0.0]);
}

#[test]
fn last_words_count_when_they_would_be_said() {
    let events = vec![
        item(0, Judged::LastWord, 0, vec![answer(-1.0, 4, 4, true)], None),
        item(1, Judged::LastWord, 0, vec![answer(-3.0, 4, 4, false)], None),
    ];
    let rows = rows_of(events, None);
    near(&values(&rows, "acc"), &[0.5]);
    near(&values(&rows, "target_ppl"), &[2f64.exp()]);
    assert!(values(&rows, "acc_norm").is_empty());
}

#[test]
fn hidden_answers_have_a_place() {
    let at = |length: f64, depth: &str| Some(Hidden { length, depth: depth.into() });
    let one = |greedy| vec![answer(-1.0, 5, 5, greedy), answer(-2.0, 5, 5, false)];
    let events = vec![
        item(0, Judged::Retrieval, 0, one(true), at(512.0, "depth 0")),
        item(1, Judged::Retrieval, 0, one(false), at(512.0, "depth 0")),
        item(2, Judged::Retrieval, 1, one(false), at(512.0, "depth 1")),
    ];
    let rows = rows_of(events, None);
    near(&values(&rows, "acc"), &[2.0 / 3.0]);
    near(&values(&rows, "exact_match"), &[1.0 / 3.0]);
    near(&values(&rows, "acc_at:depth 0"), &[1.0]);
    near(&values(&rows, "exact_match_at:depth 0"), &[0.5]);
    near(&values(&rows, "acc_at:depth 1"), &[0.0]);
    assert!(rows.iter().filter(|row| row.metric.starts_with("acc_at")).all(|row| row.x == Some(512.0)));
}

#[test]
fn a_likelihood_that_is_no_number_gives_no_share() {
    let rows = rows_of(
        vec![item(0, Judged::Choice, 0, vec![answer(f64::NAN, 1, 1, false), answer(-1.0, 1, 1, true)], None)],
        None,
    );
    let acc = rows.iter().find(|row| row.metric == "acc").expect("a row");
    assert_eq!((acc.status, acc.value), (Status::Wrong, None));
}
