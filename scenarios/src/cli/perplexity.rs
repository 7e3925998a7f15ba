//! `perplexity`: one text, one protocol, one number.

use anyhow::anyhow;
use clap::Args;
use serde::Serialize;

use super::engine_choice::{EngineChoice, finite};
use super::{Blame, Failure, Outcome, PASS, json, print};
use crate::text;

/// The command `perplexity`.
#[derive(Args)]
#[command(
    after_help = "Disjoint windows, remainder dropped, all but the first token of a window scored (the protocol `gptq` of \
scenarios). Scenarios know more protocols and compare cells on identical tokens.

Exit codes: 0 a perplexity was printed, 2 wrong usage or a text shorter than one window, 3 a logit is not a number."
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
        self.check_length(tokens.len())?;
        let built = self.engine.build(target, self.window)?;
        let (mut nll, mut n, mut n_bytes, mut windows) = (0.0, 0, 0, 0);
        for window in tokens.chunks_exact(self.window) {
            let logits = built.logits(window)?;
            let first = windows * self.window;
            for i in 1..window.len() {
                let place =
                    || format!("{}: token {} of the text (token {i} of window {windows})", self.text, first + i);
                finite(logits.row(i - 1), place)?;
                nll += surprise(logits.row(i - 1), window[i].0 as usize);
            }
            n_bytes += ends[first + self.window - 1] - ends[first];
            n += window.len() - 1;
            windows += 1;
        }
        let mean = nll / n as f64;
        if !mean.exp().is_finite() {
            let cause = "the model gives some token of the text no probability at all, or nearly so";
            return Err(anyhow!("{}: {mean} nat per token, whose exponential is no number: {cause}", self.text))
                .failed();
        }
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

    /// A text that has not one window has no perplexity.
    fn check_length(&self, n: usize) -> Result<(), Failure> {
        if n >= self.window {
            return Ok(());
        }
        let what = if n == 1 { "1 token is".to_string() } else { format!("{n} tokens are") };
        let advice = match n {
            0 | 1 => "give a longer text: a perplexity needs at least 2 tokens".to_string(),
            n => format!("the largest --window that fits is {n}"),
        };
        Err(anyhow!("{}: {what} fewer than one window of {}; {advice}", self.text, self.window)).usage()
    }
}

/// −ln p(target), summed in f64.
fn surprise(logits: &[f32], target: usize) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = logits.iter().map(|&v| f64::from(v - most).exp()).sum();
    total.ln() + f64::from(most) - f64::from(logits[target])
}
