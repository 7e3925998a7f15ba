//! `summary.json`: what a run was about and how it ended, small enough for a CI script.

use serde::{Deserialize, Serialize};

use crate::observation::{Axes, Status};

/// The role of a cell in its comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Everything else is compared with it.
    Reference,
    /// A combination under test.
    Candidate,
    /// A second copy of the reference: its difference from the reference is the noise floor.
    AaControl,
}

/// One cell of the scenario's matrix and how it ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellSummary {
    /// Stable id.
    pub id: String,
    /// Short label for plots: the axes that vary in this scenario.
    pub label: String,
    /// Place on every axis.
    pub axes: Axes,
    /// Role in the comparison.
    pub role: Role,
    /// How it ended.
    pub status: Status,
    /// Why, when not ok.
    pub reason: String,
}

/// A model's place in the world: its size, and how good a language model it is beside counted baselines.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelCard {
    /// Source string, e.g. `embedded:base`.
    pub source: String,
    /// Number of parameters.
    pub parameters: u64,
    /// Bytes of the checkpoint's weights in f32.
    pub f32_bytes: u64,
    /// Facts worth a line each: held-out perplexity, unigram and bigram perplexity on the same text, training tokens.
    pub facts: Vec<(String, String)>,
}

/// The whole of `summary.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Layout version.
    pub schema_version: u32,
    /// Run id.
    pub run_id: String,
    /// Scenario name.
    pub scenario: String,
    /// The question the scenario asks.
    pub question: String,
    /// What a reader should know before the numbers (Markdown-free text).
    pub analysis: String,
    /// The answer in words, made from the measured numbers.
    pub answer: Vec<String>,
    /// Caveats that apply to this run.
    pub caveats: Vec<String>,
    /// Models used.
    pub models: Vec<ModelCard>,
    /// Every cell of the matrix, skipped ones included.
    pub cells: Vec<CellSummary>,
    /// Command that runs it again.
    pub command: String,
    /// UTC start, RFC 3339.
    pub started: String,
    /// Seconds of wall-clock, all sittings.
    pub elapsed_s: f64,
    /// False while cells are still owed (killed, out of budget).
    pub complete: bool,
}
