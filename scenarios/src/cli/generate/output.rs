//! What `generate` shows: text as it comes, or JSON at the end, and a line about speed.

use decoding::{Finish, Hypothesis, Sequence};
use engine::{TextStream, Tokenizer};
use model::TokenId;
use serde::Serialize;

use crate::cli::table::bytes;
use crate::{machine, output};

/// The JSON of `--json`.
#[derive(Serialize)]
pub struct Continuation {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_ids: Option<Vec<u32>>,
    pub prompt_ids: Vec<u32>,
    pub ids: Vec<u32>,
    pub text: Option<String>,
    /// Why it ended: `end-token`, `stop-text`, `length`, `context`.
    pub finish: &'static str,
    /// What beam search found, best first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hypotheses: Vec<Found>,
}

/// One hypothesis of beam search.
#[derive(Serialize)]
pub struct Found {
    pub ids: Vec<u32>,
    pub score: f64,
    pub text: Option<String>,
}

/// How tokens of one continuation become text.
pub struct Reader<'a> {
    /// None where the model has no tokenizer: ids are shown then.
    pub tokenizer: Option<&'a Tokenizer>,
    /// Tokens that are no part of the text.
    pub hidden: &'a [TokenId],
    /// Texts that end it.
    pub stops: &'a [String],
}

impl Reader<'_> {
    /// A stream behind `prompt`.
    pub fn stream(&self, prompt: &[TokenId]) -> Option<TextStream<'_>> {
        self.tokenizer.map(|tokenizer| TextStream::new(tokenizer, prompt, self.hidden, self.stops))
    }

    /// The text of `hypothesis`.
    pub fn found(&self, prompt: &[TokenId], hypothesis: &Hypothesis) -> Found {
        let text = self.stream(prompt).map(|mut stream| stream.push(&hypothesis.tokens) + &stream.finish());
        Found { ids: numbers(&hypothesis.tokens), score: hypothesis.score, text }
    }
}

/// Ids as numbers.
pub fn numbers(tokens: &[TokenId]) -> Vec<u32> {
    tokens.iter().map(|token| token.0).collect()
}

/// Ids in a line, a blank behind each.
pub fn ids_in_line(tokens: &[TokenId]) -> String {
    tokens.iter().map(|token| format!("{} ", token.0)).collect()
}

/// Why `sequence` ended.
pub fn finish(sequence: &Sequence, stopped: bool, cut: bool) -> &'static str {
    match sequence.finished() {
        _ if stopped => "stop-text",
        Some(Finish::Stop) => "end-token",
        _ if cut => "context",
        _ => "length",
    }
}

/// Seconds until the first token, and in all.
pub struct Times {
    pub first: f64,
    pub all: f64,
}

/// The line about speed, on standard error.
pub fn show_speed(n_prompt: usize, n_generated: usize, times: &Times, weights: &str) {
    let rate = |tokens: usize, seconds: f64| if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 };
    let behind = n_generated.saturating_sub(1);
    let generation = match behind {
        0 => String::new(),
        _ => format!(", generation {:.1} tok/s ({n_generated} tokens)", rate(behind, times.all - times.first)),
    };
    let tokens = if n_prompt == 1 { "token" } else { "tokens" };
    let speed = rate(n_prompt, times.first);
    output::note(&format!(
        "prompt {speed:.1} tok/s ({n_prompt} {tokens}){generation}, weights {weights}, peak memory {}",
        bytes(machine::peak_rss())
    ));
}
