//! Runs made up row by row, so that what a sentence may say is known before it is made.

use results::claim::{ClaimResult, Tier, Verdict};
use results::observation::{Axes, Direction, Fact, Observation, Status};
use results::run::Run;
use results::summary::{CellSummary, ModelCard, Role, Summary};

/// A run under construction.
pub struct Forge {
    pub run: Run,
}

/// `[attention, weights, decoding]`.
pub type Parts<'a> = [&'a str; 3];

pub fn id(parts: Parts<'_>) -> String {
    parts.join("+")
}

impl Forge {
    /// A complete run whose first cell is the reference; with `control`, a second copy of it.
    pub fn new(cells: &[Parts<'_>], control: bool) -> Forge {
        let cell = |parts: &Parts<'_>, role: Role| {
            let axes = Axes {
                attention: parts[0].into(),
                weights: parts[1].into(),
                decoding: parts[2].into(),
                ..Axes::default()
            };
            let end = if role == Role::AaControl { "#aa" } else { "" };
            let label = parts.join(" · ");
            CellSummary { id: id(*parts) + end, label, axes, role, status: Status::Ok, reason: String::new() }
        };
        let role = |at: usize| if at == 0 { Role::Reference } else { Role::Candidate };
        let mut all: Vec<CellSummary> = cells.iter().enumerate().map(|(at, parts)| cell(parts, role(at))).collect();
        if control {
            all.push(cell(&cells[0], Role::AaControl));
        }
        let summary = Summary {
            schema_version: 1,
            run_id: "forged".into(),
            scenario: "forged".into(),
            question: "What is true of these rows?".into(),
            analysis: String::new(),
            answer: vec![],
            caveats: vec![],
            models: vec![],
            cells: all,
            command: "infermark run forged.toml".into(),
            started: "2026-11-23T07:00:00Z".into(),
            elapsed_s: 1.0,
            complete: true,
            ..Summary::default()
        };
        Forge { run: Run { summary: Some(summary), ..Run::default() } }
    }

    pub fn summary(&mut self) -> &mut Summary {
        self.run.summary.as_mut().expect("a summary")
    }

    /// Changes the cell with this id.
    pub fn cell(&mut self, id: &str) -> &mut CellSummary {
        self.summary().cells.iter_mut().find(|c| c.id == id).expect("a known cell")
    }

    pub fn model(&mut self, source: &str, f32_bytes: u64) {
        let card = ModelCard { source: source.into(), parameters: f32_bytes / 4, f32_bytes, facts: vec![] };
        self.summary().models.push(card);
    }

    pub fn fact(&mut self, key: &str, value: &str) {
        self.fact_of("machine", key, value);
    }

    pub fn fact_of(&mut self, scope: &str, key: &str, value: &str) {
        let (run_id, scope) = ("forged".into(), scope.into());
        self.run.facts.push(Fact { run_id, scope, key: key.into(), value: value.into() });
    }

    /// One row per value, repetitions counted from 0; NaN leaves a repetition out.
    pub fn rows(&mut self, cell: &str, workload: &str, metric: &str, x: Option<f64>, values: &[f64]) {
        let base = metric.split(':').next().unwrap_or(metric);
        let known = results::metric::metric(base);
        let axes = self.summary().cells.iter().find(|c| c.id == cell).expect("a known cell").axes.clone();
        for (at, value) in values.iter().enumerate().filter(|(_, v)| !v.is_nan()) {
            self.run.observations.push(Observation {
                run_id: "forged".into(),
                scenario: "forged".into(),
                cell: cell.into(),
                axes: axes.clone(),
                workload: workload.into(),
                sitting: 0,
                repetition: at as u32,
                item: 0,
                metric: metric.into(),
                formula_id: known.map_or("value@1", |m| m.formula_id()).into(),
                unit: known.map_or("", |m| m.unit()).into(),
                direction: known.map_or(Direction::None, |m| m.direction()),
                value: Some(*value),
                x,
                status: Status::Ok,
                reason: String::new(),
                threads: 1,
                kernel_path: String::new(),
                seed: 1,
            });
        }
    }

    /// Losses per token of each window, and the perplexity that follows from them; `protocol` is empty where there is one only.
    pub fn losses(&mut self, cell: &str, protocol: &str, windows: &[f64]) {
        let part = if protocol.is_empty() { String::new() } else { format!(":{protocol}") };
        let mean = windows.iter().sum::<f64>() / windows.len() as f64;
        let from = self.run.observations.len();
        for window in windows {
            self.rows(cell, "ppl-text", &format!("nll_window{part}"), None, &[*window]);
        }
        for (item, row) in self.run.observations[from..].iter_mut().enumerate() {
            row.item = item as u32;
        }
        self.rows(cell, "ppl-text", &format!("ppl{part}"), None, &[mean.exp()]);
    }

    /// Generation of 128 tokens at context 16, tokens per second.
    pub fn generates(&mut self, cell: &str, values: &[f64]) {
        self.rows(cell, "tg128", "decode_tok_s", Some(16.0), values);
    }

    pub fn claim(&mut self, id: &str, tier: Tier, verdict: Verdict, measured: Option<(f64, f64, f64)>) {
        self.run.claims.push(ClaimResult {
            id: id.into(),
            paper: "Dettmers et al., LLM.int8(), NeurIPS 2022, arXiv 2208.07339".into(),
            source: "table 1".into(),
            statement: "8-bit weights need not degrade a model.".into(),
            tier,
            published: "a ratio of 1.007 for 125M".into(),
            counterpart: "perplexity of int8 over f32".into(),
            rule: "ratio: whole 95 % interval at most 1.02; no effect is 1.4".into(),
            measured: measured.map(|m| m.0),
            interval: measured.map(|m| (m.1, m.2)),
            unit: "×".into(),
            verdict,
            reason: String::new(),
            command: String::new(),
            parts: vec![],
        });
    }

    pub fn answer(&self) -> String {
        report::answer(&self.run).join("\n")
    }
}

/// Repeatable disturbances in -1..1.
pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    /// `n` values around `center`, off by up to `share` of it.
    pub fn around(&mut self, center: f64, share: f64, n: usize) -> Vec<f64> {
        (0..n).map(|_| center * (1.0 + share * self.next())).collect()
    }
}
