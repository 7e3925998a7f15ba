//! From logits to the distribution that is sampled, and a draw from it.
//!
//! The filters apply in Hugging Face's order: temperature, top-k, top-p, min-p. Each works on scores in f64, in place,
//! and removes a token by setting its score to -inf; each keeps at least one token.

pub mod min_p;
pub mod temperature;
pub mod top_k;
pub mod top_p;

use model::TokenId;
use serde::{Deserialize, Serialize};

use crate::SpecError;

/// Which distribution is sampled, and with which seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingSpec {
    /// Divides the logits; 0 means greedy.
    pub temperature: f32,
    /// Keep this many most likely tokens, and those tied with the last of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    /// Keep the smallest set of most likely tokens whose mass reaches this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    /// Keep tokens at least this fraction as likely as the most likely one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f32>,
    /// Seed of the sequences' random numbers.
    pub seed: u64,
}

impl Default for SamplingSpec {
    fn default() -> SamplingSpec {
        SamplingSpec { temperature: 1.0, top_k: None, top_p: None, min_p: None, seed: 0 }
    }
}

impl SamplingSpec {
    /// Checks every field's range.
    pub fn validate(&self) -> Result<(), SpecError> {
        let check = |holds: bool, field, value: &dyn std::fmt::Display, expected| {
            if holds { Ok(()) } else { Err(SpecError::OutOfRange { field, value: value.to_string(), expected }) }
        };
        let t = self.temperature;
        check(t.is_finite() && t >= 0.0, "temperature", &t, "a finite number, 0 (greedy) or larger")?;
        if let Some(k) = self.top_k {
            check(k >= 1, "top_k", &k, "at least 1; leave it out to keep every token")?;
        }
        if let Some(p) = self.top_p {
            check(p > 0.0 && p <= 1.0, "top_p", &p, "a number in (0, 1]; leave it out to keep every token")?;
        }
        if let Some(p) = self.min_p {
            check((0.0..=1.0).contains(&p), "min_p", &p, "a number in [0, 1]; leave it out to keep every token")?;
        }
        Ok(())
    }

    /// The spec in a few letters, e.g. `t0.8-k40-p0.95-m0.1-s7`; filters that are absent and seed 0 are left out.
    pub fn tag(&self) -> String {
        let mut tag = format!("t{}", self.temperature);
        let mut add = |letter: char, value: Option<String>| {
            if let Some(value) = value {
                tag.push_str(&format!("-{letter}{value}"));
            }
        };
        add('k', self.top_k.map(|k| k.to_string()));
        add('p', self.top_p.map(|p| p.to_string()));
        add('m', self.min_p.map(|p| p.to_string()));
        add('s', (self.seed != 0).then(|| self.seed.to_string()));
        tag
    }
}

/// Logits that define no distribution.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum UnusableLogits {
    /// A value is NaN or +inf.
    #[error("the logit of token {token} is {value}: check the checkpoint for damaged weights")]
    NotANumber {
        /// The first such token.
        token: u32,
        /// Its logit.
        value: f32,
    },
    /// No token is possible.
    #[error("no token has a logit above -inf: everything was masked")]
    NothingLeft,
}

/// The most likely token; the lowest id among equals.
pub fn argmax(logits: &[f32]) -> Result<TokenId, UnusableLogits> {
    let mut best: Option<(usize, f32)> = None;
    for (token, &value) in logits.iter().enumerate() {
        if value.is_nan() || value == f32::INFINITY {
            return Err(UnusableLogits::NotANumber { token: token as u32, value });
        }
        if value > best.map_or(f32::NEG_INFINITY, |(_, value)| value) {
            best = Some((token, value));
        }
    }
    best.map(|(token, _)| TokenId(token as u32)).ok_or(UnusableLogits::NothingLeft)
}

/// The distribution that `spec` samples from: `[vocab]` logits to `[vocab]` probabilities, removed tokens exactly 0.
pub fn distribution(logits: &[f32], spec: &SamplingSpec) -> Result<Vec<f64>, UnusableLogits> {
    let best = argmax(logits)?;
    if spec.temperature == 0.0 {
        let mut one_hot = vec![0.0; logits.len()];
        one_hot[best.0 as usize] = 1.0;
        return Ok(one_hot);
    }
    let mut scores: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
    temperature::apply(&mut scores, f64::from(spec.temperature));
    if let Some(k) = spec.top_k {
        top_k::apply(&mut scores, k);
    }
    if let Some(p) = spec.top_p {
        top_p::apply(&mut scores, f64::from(p));
    }
    if let Some(p) = spec.min_p {
        min_p::apply(&mut scores, f64::from(p));
    }
    softmax(&mut scores);
    Ok(scores)
}

/// The token at `u` in [0, 1) of the cumulative distribution, in token order; never one of probability 0.
/// `probabilities` need not sum to exactly 1.
pub fn draw(probabilities: &[f64], u: f64) -> TokenId {
    let threshold = u * probabilities.iter().sum::<f64>();
    let mut cumulative = 0.0;
    let mut last_possible = 0;
    for (token, &p) in probabilities.iter().enumerate() {
        if p > 0.0 {
            cumulative += p;
            last_possible = token;
            if threshold < cumulative {
                break;
            }
        }
    }
    TokenId(last_possible as u32)
}

fn softmax(scores: &mut [f64]) {
    let max = largest(scores);
    scores.iter_mut().for_each(|score| *score = (*score - max).exp());
    let sum: f64 = scores.iter().sum();
    scores.iter_mut().for_each(|score| *score /= sum);
}

fn largest(scores: &[f64]) -> f64 {
    scores.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}
