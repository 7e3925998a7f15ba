//! `perplexity`: one text, one protocol, one number.

use anyhow::anyhow;
use clap::Args;
use serde::Serialize;

use super::engine_choice::{EngineChoice, finite};
use super::{Blame, Failure, Outcome, PASS, input, json, print};
use crate::output;
use crate::scenario::Protocol;
use crate::worker::score::{plan, protocol_id, score_rows};

/// Tokens per window where nothing says how many and the model knows as many.
const WINDOW: usize = 512;

/// The command `perplexity`.
#[derive(Args)]
#[command(after_help = "The text is encoded once, with the token that begins it where the tokenizer has one. Rules:
  gptq       disjoint windows, remainder dropped, all but the first token of a window scored
  llamacpp   the same windows, each begun by that token, the second half scored (as llama-perplexity does)
  hf-stride  windows that overlap, only tokens new to a window scored (Hugging Face's guide)
Scenarios compare cells on identical tokens.

Exit codes: 0 a perplexity was printed, 2 wrong usage or a text shorter than one window, 3 a logit is not a number.")]
pub struct Perplexity {
    #[command(flatten)]
    engine: EngineChoice,
    /// A text file, embedded:NAME, or - for standard input
    #[arg(long, value_name = "FILE", default_value = "embedded:evaluation")]
    text: String,
    /// Which windows, and which of their tokens are scored: gptq, llamacpp or hf-stride
    #[arg(long, value_name = "RULE", default_value = "gptq", value_parser = ["gptq", "llamacpp", "hf-stride"])]
    rule: String,
    /// Tokens per window; no more than the model knows [default: 512]
    #[arg(long, value_name = "N")]
    window: Option<usize>,
    /// Tokens from one window to the next, for hf-stride [default: half a window]
    #[arg(long, value_name = "N")]
    stride: Option<usize>,
    /// Read only so many tokens of the text
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
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
    /// What was put around the text.
    beginning: String,
}

impl Perplexity {
    pub(super) fn obey(&self) -> Outcome {
        let target = self.engine.open()?;
        let window = self.window(target.architecture.context_limit())?;
        let protocol = Protocol { rule: self.rule.clone(), window, stride: self.stride };
        if self.stride.is_some_and(|stride| self.rule != "hf-stride" || !(1..=window).contains(&stride)) {
            return Err(anyhow!("--stride: only --rule hf-stride has one, of 1 to {window} tokens (the window)"))
                .usage();
        }
        let beginning = target.beginning().usage()?;
        let begins = target.begins_with().usage()?;
        let (mut tokens, mut ends) = target.encode_with_ends(&input::text(&self.text)?).failed()?;
        let keep = self.max_tokens.unwrap_or(usize::MAX).min(tokens.len());
        tokens.truncate(keep);
        ends.truncate(keep);
        let windows = plan(std::slice::from_ref(&protocol), &tokens, begins).usage()?;
        if windows.is_empty() {
            return Err(self.too_short(tokens.len(), window)).usage();
        }
        if windows.iter().all(|window| window.scored.iter().all(|(_, _, targets)| targets.is_empty())) {
            return Err(anyhow!(
                "--window {window}: --rule {} scores no token of windows this short; name a longer one",
                self.rule
            ))
            .usage();
        }
        let built = self.engine.build(target, window)?;
        let (mut nll, mut n, mut n_bytes) = (0.0, 0, 0);
        for window in &windows {
            let fed = window.fed(&tokens);
            let logits = built.logits(&fed)?;
            for i in 0..fed.len() - 1 {
                let at = window.tokens.start + i + 1;
                finite(logits.row(i), || format!("{}: token {at} of the text", self.name()))?;
            }
            let points = score_rows(&logits, None, &fed, self.engine.threads());
            for (_, _, targets) in &window.scored {
                let at = |i: usize| window.tokens.start + i;
                nll += points[targets.start - 1..targets.end - 1].iter().map(|point| point.nll).sum::<f64>();
                n_bytes += ends[at(targets.end - 1)] - ends[at(targets.start - 1)];
                n += targets.len();
            }
        }
        let mean = nll / n as f64;
        if !mean.exp().is_finite() {
            let cause = "the model gives some token of the text no probability at all, or nearly so";
            return Err(anyhow!("{}: {mean} nat per token, whose exponential is no number: {cause}", self.name()))
                .failed();
        }
        self.show(&Score {
            protocol: protocol_id(&protocol),
            perplexity: mean.exp(),
            nll_per_token: mean,
            bits_per_byte: nll / std::f64::consts::LN_2 / n_bytes.max(1) as f64,
            scored_tokens: n,
            windows: windows.len(),
            beginning,
        })
    }

    fn window(&self, limit: usize) -> Result<usize, Failure> {
        let asked = self.window.unwrap_or(WINDOW);
        if asked < 2 {
            return Err(anyhow!("--window {asked}: expected at least 2 tokens, one to read and one to score")).usage();
        }
        if asked > limit {
            output::note(&format!(
                "note: windows of {limit} tokens instead of {asked}: the model knows no more positions"
            ));
        }
        Ok(asked.min(limit))
    }

    /// What the text is called in errors.
    fn name(&self) -> &str {
        if self.text == "-" { "standard input" } else { &self.text }
    }

    /// A text that has not one window has no perplexity.
    fn too_short(&self, n: usize, window: usize) -> anyhow::Error {
        let what = if n == 1 { "1 token is".to_string() } else { format!("{n} tokens are") };
        let advice = match n {
            0 | 1 => "give a longer text: a perplexity needs at least 2 tokens".to_string(),
            n => format!("the largest --window that fits is {n}"),
        };
        anyhow!("{}: {what} fewer than one window of {window}; {advice}", self.name())
    }

    fn show(&self, score: &Score) -> Outcome {
        if self.json {
            print(&json(score)?)?;
            return Ok(PASS);
        }
        print(&format!(
            "perplexity {:.4} ({}: {} tokens in {} windows; {:.4} nat per token, {:.4} bits per byte; beginning {})\n",
            score.perplexity,
            score.protocol,
            score.scored_tokens,
            score.windows,
            score.nll_per_token,
            score.bits_per_byte,
            score.beginning
        ))?;
        Ok(PASS)
    }
}
