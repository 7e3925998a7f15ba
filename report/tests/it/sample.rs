//! A small made-up run: seven cells, five workloads, claims of most verdicts, and strings that try to break out of the page.
//! The numbers are invented; only their shape is like a real run's.

use results::claim::{ClaimResult, PartResult, Share, Tier, Verdict};
use results::metric::observe;
use results::observation::{Axes, Direction, Fact, Observation, Status};
use results::run::Run;
use results::summary::{CellSummary, ModelCard, Role, Summary};
use results::trace::{Chunk, Event, Roof, Trace, Work};

/// Text that must never reach the page unescaped.
pub const HOSTILE: &str = "</script><img src=x onerror=\"document.documentElement.dataset.hacked='yes'\">";

const ROOF: Roof =
    Roof { stream_bytes_s: 11.8e9, cache_bytes_s: 38.0e9, fma_flop_s: 96.0e9, int8_op_s: 310.0e9, llc_bytes: 32 << 20 };

/// How a made-up cell performs.
struct Shape {
    attention: &'static str,
    weights: &'static str,
    decoding: &'static str,
    role: Role,
    status: Status,
    speed: f64,
    loss: f64,
    bytes: u64,
}

const fn cell(
    (attention, weights, decoding): (&'static str, &'static str, &'static str),
    role: Role,
    status: Status,
    speed: f64,
    loss: f64,
    bytes: u64,
) -> Shape {
    Shape { attention, weights, decoding, role, status, speed, loss, bytes }
}

const SHAPES: [Shape; 11] = [
    cell(("naive", "f32", "greedy"), Role::Reference, Status::Ok, 1.0, 0.0, 12_800_000),
    cell(("flash", "f32", "greedy"), Role::Candidate, Status::Ok, 1.06, 1e-9, 12_800_000),
    cell(("naive", "f16", "greedy"), Role::Candidate, Status::Ok, 1.71, 2e-5, 6_400_000),
    cell(("flash", "f16", "greedy"), Role::Candidate, Status::Ok, 1.82, 2e-5, 6_400_000),
    cell(("flash", "int8", "greedy"), Role::Candidate, Status::Ok, 2.65, 0.004, 3_300_000),
    cell(("flash", "gptq-4bit-g128", "greedy"), Role::Candidate, Status::Ok, 2.3, 0.031, 1_900_000),
    cell(("flash", "f32", "speculative-k4"), Role::Candidate, Status::Ok, 1.38, 1e-9, 14_600_000),
    cell(("flash", "int8", "speculative-k4"), Role::Candidate, Status::Ok, 2.43, 0.004, 3_900_000),
    cell(("naive", "gptq-4bit-g128", "greedy"), Role::Candidate, Status::Wrong, 9.0, 3.0, 1_900_000),
    cell(("flash", "gptq-3bit-g64", "greedy"), Role::Candidate, Status::Skipped, 1.0, 0.0, 1),
    cell(("naive", "f32", "greedy"), Role::AaControl, Status::Ok, 1.004, 0.0, 12_800_000),
];

/// Repeatable disturbances in -1..1.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

impl Shape {
    fn id(&self) -> String {
        let end = if self.role == Role::AaControl { "#aa" } else { "" };
        format!("{}+{}+contiguous+{}+cpu{end}", self.attention, self.weights, self.decoding)
    }

    fn label(&self) -> String {
        let again = if self.role == Role::AaControl { " (again)" } else { "" };
        let decoding = if self.decoding == "greedy" { String::new() } else { format!(" · {}", self.decoding) };
        format!("{} · {}{decoding}{again}", self.attention, self.weights)
    }

    fn axes(&self) -> Axes {
        Axes {
            engine: "infermark".into(),
            model: "embedded:base".into(),
            attention: self.attention.into(),
            weights: self.weights.into(),
            kv: "contiguous".into(),
            decoding: self.decoding.into(),
            device: "cpu-avx2".into(),
        }
    }

    fn base(&self) -> Observation {
        Observation {
            run_id: "sample-20261123T070000Z-0123abcd".into(),
            scenario: "sample".into(),
            cell: self.id(),
            axes: self.axes(),
            workload: String::new(),
            sitting: 0,
            repetition: 0,
            item: 0,
            metric: "cell_status".into(),
            formula_id: "cell_status@1".into(),
            unit: String::new(),
            direction: Direction::None,
            value: None,
            x: None,
            status: self.status,
            reason: self.reason(),
            threads: 2,
            kernel_path: format!("avx2: gemv_{}_panel16 + {}", self.weights, self.attention),
            seed: 1,
        }
    }

    fn reason(&self) -> String {
        match self.status {
            Status::Wrong => "logits is 3.100e0, limit 1.000e-3".into(),
            Status::Skipped => format!("needs a calibration text; this scenario names none {HOSTILE}"),
            _ => String::new(),
        }
    }

    fn trace(&self, workload: &str, repetition: u32, events: Vec<Event>) -> Trace {
        Trace { cell: self.id(), workload: workload.into(), repetition, events, roof: Some(ROOF) }
    }

    fn rows(&self, noise: &mut Noise, repetitions: u32) -> Vec<Observation> {
        let mut rows = vec![self.base()];
        if self.status == Status::Skipped {
            return rows;
        }
        let mut observe_all = |trace: Trace| rows.extend(observe(&trace, &self.base()));
        if self.role != Role::AaControl {
            observe_all(self.trace("ppl-evaluation", 0, self.scores()));
        }
        for repetition in 0..repetitions {
            let disturbance = 1.0 + 0.012 * noise.next();
            observe_all(self.trace("pp128-256-512-1024", repetition, self.prefills(disturbance)));
            observe_all(self.trace("tg128", repetition, self.decode(disturbance)));
            observe_all(self.trace("generate-64-48", repetition, self.requests(noise)));
            if self.weights == "f32" && self.decoding == "greedy" {
                observe_all(self.trace("attention-4-2-64", repetition, self.attention_sweep(noise)));
            }
        }
        rows
    }

    fn scores(&self) -> Vec<Event> {
        let windows = (0..24u32).map(|window| {
            let swing = 0.2 * f64::from(window % 7) - 0.6;
            let reference = 255.0 * (2.95 + swing);
            let wobble = 1.0 + 0.3 * f64::from(window % 5);
            Event::Score {
                protocol: "gptq-256".into(),
                window,
                n_tokens: 255,
                n_bytes: 980,
                nll: reference + 255.0 * self.loss * wobble,
                reference_nll: reference,
                kl: 255.0 * self.loss * 0.9 * wobble,
                kl_max: self.loss * 12.0,
                top1_agree: (255.0 * (1.0 - self.loss.sqrt() * 0.5)) as u64,
            }
        });
        windows.collect()
    }

    fn prefills(&self, disturbance: f64) -> Vec<Event> {
        let pass = |n: u32| {
            let quadratic =
                if self.attention == "naive" { 1.0 + f64::from(n) / 900.0 } else { 1.0 + f64::from(n) / 4000.0 };
            let ns = f64::from(n) * 76_000.0 * quadratic * disturbance / self.speed.sqrt();
            let work = Work { bytes: self.bytes, flops: u64::from(n) * 6_400_000, int8_ops: 0 };
            Event::Prefill { n_tokens: n, context: 0, duration_ns: ns as u64, work }
        };
        [128, 256, 512, 1024].into_iter().map(pass).collect()
    }

    fn decode(&self, disturbance: f64) -> Vec<Event> {
        let ns = 128.0 * 1_240_000.0 * disturbance / self.speed;
        let bytes = if self.weights == "int8" { 70 * self.bytes } else { 10 * self.bytes };
        let work = Work { bytes: 128 * bytes / 4, flops: 128 * 6_400_000, int8_ops: 0 };
        let memory = Event::Memory {
            weights_bytes: self.bytes,
            kv_logical_bytes: 262_144,
            kv_resident_bytes: 524_288,
            peak_rss_bytes: 48_000_000 + self.bytes,
        };
        vec![
            Event::Load { duration_ns: 180_000_000 },
            Event::Decode { n_tokens: 128, context: 1, duration_ns: ns as u64, work },
            memory,
        ]
    }

    fn requests(&self, noise: &mut Noise) -> Vec<Event> {
        let speculative = self.decoding != "greedy";
        let mut events = Vec::new();
        for request in 0..8 {
            let mut at = 5.2e6 * (1.0 + 0.2 * noise.next()) / self.speed.sqrt();
            let mut chunks = vec![Chunk { at_ns: at as u64, n_tokens: 1 }];
            let mut left = 47;
            while left > 0 {
                let tokens = if speculative { (1 + (noise.next().abs() * 4.0) as u32).min(left) } else { 1 };
                let stall = if noise.next() > 0.985 { 4.0 } else { 1.0 };
                at += 1.24e6 * stall * (1.0 + 0.06 * noise.next()) / self.speed * if speculative { 2.2 } else { 1.0 };
                chunks.push(Chunk { at_ns: at as u64, n_tokens: tokens });
                left -= tokens;
            }
            events.push(Event::Request { request, prompt_tokens: 64, chunks });
        }
        if speculative {
            events.push(Event::Speculation {
                drafted: 400,
                accepted: 251,
                target_runs: 100,
                emitted: 351,
                decided: 310,
                drafted_at: vec![100, 100, 100, 100],
                accepted_at: vec![88, 71, 54, 38],
                draft_ns: 21_000_000,
                verify_ns: 64_000_000,
            });
        }
        events
    }

    fn attention_sweep(&self, noise: &mut Noise) -> Vec<Event> {
        let point = |(n, jitter): (f64, f64)| {
            let (exponent, start) = if self.attention == "naive" { (2.02, 0.05) } else { (1.93, 0.034) };
            Event::Value { name: "attention_ms".into(), x: n, value: start * (n / 128.0).powf(exponent) * jitter }
        };
        [128.0, 256.0, 512.0, 1024.0, 2048.0].map(|n| (n, 1.0 + 0.04 * noise.next())).map(point).into()
    }
}

/// The run with `repetitions` of each timed workload.
pub fn run(repetitions: u32) -> Run {
    let mut noise = Noise(7);
    Run {
        observations: SHAPES.iter().flat_map(|shape| shape.rows(&mut noise, repetitions)).collect(),
        facts: facts(),
        claims: claims(),
        summary: Some(summary()),
        warnings: vec!["2 bytes of a torn batch at the end of observations.jsonl were ignored".into()],
    }
}

fn summary() -> Summary {
    let cell = |shape: &Shape| CellSummary {
        id: shape.id(),
        label: shape.label(),
        axes: shape.axes(),
        role: shape.role,
        status: shape.status,
        reason: shape.reason(),
    };
    Summary {
        schema_version: 1,
        run_id: "sample-20261123T070000Z-0123abcd".into(),
        scenario: "sample".into(),
        question: "Which cheap trick makes a small model generate faster without hurting it?".into(),
        analysis: "Decode reads every weight once per token, so fewer bytes should mean more tokens per second until arithmetic takes over.".into(),
        answer: vec![
            "flash · int8 generates fastest without losing 1 % of perplexity: 2137 tok/s, 2.65× the reference [2.63, 2.67].".into(),
            "The smallest weights within 1 % of the reference’s perplexity are those of flash · int8: 3.1 MiB instead of 12.2 MiB.".into(),
            "Two copies of the reference differed by up to 1.2 %: smaller differences of speed are noise on this machine.".into(),
            format!("A hostile label stays text: {HOSTILE}"),
        ],
        caveats: vec!["Other work was running when the run began (load average 1.93); intervals are wider for it.".into()],
        models: vec![ModelCard {
            source: "embedded:base".into(),
            parameters: 3_204_096,
            f32_bytes: 12_816_384,
            facts: vec![
                ("shape".into(), "6 layers, hidden 192, 6 query and 2 KV heads of 32, vocabulary 4096".into()),
                (
                    "held-out perplexity".into(),
                    "27.4 on books test split (window 512); a unigram model has 743.1, a bigram model 112.0 on the same tokens".into(),
                ),
                ("training tokens".into(), "61000000".into()),
            ],
        }],
        cells: SHAPES.iter().map(cell).collect(),
        command: "infermark run sample.toml".into(),
        started: "2026-11-23T07:00:00Z".into(),
        elapsed_s: 164.0,
        complete: false,
..Summary::default()
    }
}

fn facts() -> Vec<Fact> {
    let fact = |(scope, key, value): (&str, &str, &str)| Fact {
        run_id: "sample-20261123T070000Z-0123abcd".into(),
        scope: scope.into(),
        key: key.into(),
        value: value.into(),
    };
    [
        ("run", "git_commit", "6b782f842600a9cef3b84ada57773004d6282cff"),
        ("run", "rustc", "1.95.0"),
        ("run", "seed", "1"),
        ("run", "command", HOSTILE),
        ("machine", "cpu_model", "Example CPU 9000 @ 3.0 GHz"),
        ("machine", "isa_best", "avx2"),
        ("machine", "llc_bytes", "33554432"),
        ("machine", "stream_bytes_s", "11800000000"),
        ("machine", "cache_bytes_s", "38000000000"),
        ("machine", "fma_flop_s", "96000000000"),
        ("machine", "int8_op_s", "310000000000"),
        ("naive+f32+contiguous+greedy+cpu", "weights_blake3", "bd2c5f0cbbc13bb7"),
    ]
    .map(fact)
    .into()
}

fn claims() -> Vec<ClaimResult> {
    let claim = |id: &str, tier, verdict, measured: Option<f64>, interval, rule: &str, statement: &str| ClaimResult {
        id: id.into(),
        paper: "Frantar et al., GPTQ, ICLR 2023, arXiv 2210.17323".into(),
        source: "Table 3".into(),
        statement: statement.into(),
        tier,
        published: "OPT-175B on WikiText-2: 8.37 with 4 bits against 8.34 in FP16".into(),
        counterpart: "perplexity ratio of gptq-4bit-g128 to f32 on our own evaluation text".into(),
        rule: rule.into(),
        measured,
        interval,
        unit: "1".into(),
        verdict,
        reason: "The interval lies where the verdict says; 24 windows of 256 tokens.".into(),
        command: format!("infermark run reproduction/{id}"),
        parts: vec![],
    };
    let failed = ClaimResult {
        reason: format!("the cell failed: {HOSTILE}"),
        ..claim(
            "spec-walltime",
            Tier::Ratio,
            Verdict::Failed,
            None,
            None,
            "ratio >= 1.0",
            "Speculation shortens the wait.",
        )
    };
    vec![
        claim(
            "gptq-4bit-ppl",
            Tier::Ratio,
            Verdict::Reproduced,
            Some(1.045),
            Some((1.038, 1.052)),
            "ratio <= 1.06",
            "Four bits cost almost no perplexity when codes are chosen by GPTQ.",
        ),
        claim(
            "flash-exact",
            Tier::Identity,
            Verdict::Holds,
            Some(3.1e-7),
            None,
            "error <= 1e-5",
            "Tiled attention with a running softmax gives the same result.",
        ),
        claim(
            "gptq-3bit-ppl",
            Tier::Ratio,
            Verdict::NotReproduced,
            Some(0.93),
            Some((0.84, 1.02)),
            "closure at least 0.5 and at most 0.9",
            "At three bits GPTQ closes most of the gap that rounding leaves.",
        ),
        claim(
            "transformer-attn-quadratic",
            Tier::Ratio,
            Verdict::DirectionOnly,
            Some(1.71),
            Some((1.62, 1.78)),
            "slope ≥ 1.8",
            "The time of attention grows with the square of the length.",
        ),
        claim(
            "flash2-causal-skip",
            Tier::Ratio,
            Verdict::Inconclusive,
            Some(1.72),
            Some((1.55, 1.93)),
            "speed-up > 1.7",
            "Skipping masked blocks nearly halves the time.",
        ),
        claim(
            "spec-expected-tokens",
            Tier::Absolute,
            Verdict::Reported,
            Some(3.51),
            Some((3.4, 3.6)),
            "reported, never gated",
            "Expected tokens per run follow from the acceptance rate.",
        ),
        claim(
            "paged-waste",
            Tier::Ratio,
            Verdict::SkippedNoGpu,
            None,
            None,
            "waste < 0.04",
            "Paging wastes less than 4 % of the cache.",
        ),
        failed,
        ClaimResult {
            parts: vec![
                number("kept by activations over by weights", 0.9966, (0.9947, 0.9986), Some(0.484)),
                number("kept by activations over at random", 0.97, (0.96, 0.975), None),
            ],
            ..claim(
                "awq-salient-channels",
                Tier::Ratio,
                Verdict::DirectionOnly,
                Some(0.9966),
                Some((0.9947, 0.9986)),
                "kept by activations over by weights: whole 95 % interval at most 0.98, the smallest effect that matters",
                "The columns that matter most are told by the activations.",
            )
        },
    ]
}

/// A ratio that its rule wants to be at most 0.98, where no effect is 1.
fn number(label: &str, measured: f64, interval: (f64, f64), paper: Option<f64>) -> PartResult {
    let share = paper.map(|paper| Share { value: measured.ln() / paper.ln(), interval: None });
    PartResult {
        label: label.into(),
        measured: Some(measured),
        interval: Some(interval),
        unit: "×".into(),
        verdict: Verdict::DirectionOnly,
        at_least: None,
        at_most: Some(0.98),
        origin: Some(1.0),
        paper,
        share,
        found: share.map_or(String::new(), |_| "0.47 % of the paper's effect".into()),
        why_open: String::new(),
    }
}
