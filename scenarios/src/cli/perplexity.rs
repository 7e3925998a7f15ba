//! `perplexity`: one text, one protocol, one number.

use anyhow::anyhow;
use clap::Args;
use serde::Serialize;

use super::engine_choice::EngineChoice;
use super::{Blame, Outcome, PASS, json, print};
use crate::text;

/// The command `perplexity`.
#[derive(Args)]
#[command(
    after_help = "Disjoint windows, remainder dropped, all but the first token of a window scored (the protocol `gptq` of \
scenarios). Scenarios know more protocols and compare cells on identical tokens."
)]
pub struct Perplexity {
    #[command(flatten)]
    engine: EngineChoice,
    /// A text file, or embedded:NAME
    #[arg(long, value_name = "FILE", default_value = "embedded:evaluation")]
    text: String,
    /// Tokens per window
    #[arg(long, value_name = "N", default_value_t = 512)]
    window: usize,
    /// For programs
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Score {
    protocol: String,
    perplexity: f64,
    nll_per_token: f64,
    bits_per_byte: f64,
    scored_tokens: usize,
    windows: usize,
}

impl Perplexity {
    pub(super) fn obey(&self) -> Outcome {
        let target = self.engine.open()?;
        let limit = target.architecture.max_positions;
        if !(2..=limit).contains(&self.window) {
            return Err(anyhow!("--window {}: expected 2 to {limit}, the positions that the model knows", self.window))
                .usage();
        }
        let Some(tokenizer) = &target.tokenizer else {
            return Err(anyhow!(
                "{}: no tokenizer, so it cannot read text; choose a trained checkpoint",
                target.source
            ))
            .usage();
        };
        let (tokens, ends) = tokenizer.encode_with_ends(&text::resolve(&self.text, None).usage()?).failed()?;
        let built = self.engine.build(target, self.window)?;
        let (mut nll, mut n, mut n_bytes, mut windows) = (0.0, 0, 0, 0);
        for window in tokens.chunks_exact(self.window) {
            let logits = built.logits(window)?;
            nll += (1..window.len()).map(|i| surprise(logits.row(i - 1), window[i].0 as usize)).sum::<f64>();
            let first = windows * self.window;
            n_bytes += ends[first + self.window - 1] - ends[first];
            n += window.len() - 1;
            windows += 1;
        }
        if windows == 0 {
            let problem = anyhow!(
                "{}: {} tokens are fewer than one window of {}; shorten --window",
                self.text,
                tokens.len(),
                self.window
            );
            return Err(problem).usage();
        }
        let mean = nll / n as f64;
        let score = Score {
            protocol: format!("gptq-{}", self.window),
            perplexity: mean.exp(),
            nll_per_token: mean,
            bits_per_byte: nll / std::f64::consts::LN_2 / n_bytes.max(1) as f64,
            scored_tokens: n,
            windows,
        };
        match self.json {
            true => print(&json(&score)?)?,
            false => print(&format!(
                "perplexity {:.4} ({}: {n} tokens in {windows} windows of {}; {:.4} nat per token, {:.4} bits per byte)\n",
                score.perplexity, score.protocol, self.window, mean, score.bits_per_byte
            ))?,
        }
        Ok(PASS)
    }
}

/// −ln p(target), summed in f64.
fn surprise(logits: &[f32], target: usize) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = logits.iter().map(|&v| f64::from(v - most).exp()).sum();
    total.ln() + f64::from(most) - f64::from(logits[target])
}
