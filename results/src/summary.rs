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

/// How a run ended, in one word. Of several that fit, the first in this order is the one said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// Somebody stopped it: what was measured until then is kept.
    Interrupted,
    /// A cell failed or computes something wrong, or the measurement of a claim failed.
    Failed,
    /// Cells or repetitions are still owed.
    Incomplete,
    /// A claim was tested and refuted.
    Refuted,
    /// A workload was measured on no cell.
    Skipped,
    /// A claim was tested and stays open.
    Inconclusive,
    /// Everything asked for was measured and held.
    Pass,
}

impl Ending {
    /// The word printed for it.
    pub fn word(self) -> &'static str {
        match self {
            Ending::Interrupted => "interrupted",
            Ending::Failed => "failed",
            Ending::Incomplete => "incomplete",
            Ending::Refuted => "refuted",
            Ending::Skipped => "skipped",
            Ending::Inconclusive => "inconclusive",
            Ending::Pass => "pass",
        }
    }
}

/// A workload that every cell is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadSummary {
    /// Name in the rows.
    pub name: String,
    /// Whether a clock measures it; what needs no clock is done once.
    pub timed: bool,
    /// Repetitions that every cell is owed.
    pub repetitions: u32,
}

/// The whole of `summary.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
    /// How it ended; absent while it goes on, after a kill, and in runs of earlier versions.
    #[serde(default)]
    pub ending: Option<Ending>,
    /// Why it ended so, in sentences: what is missing, and for which reason.
    #[serde(default)]
    pub missing: Vec<String>,
    /// What every cell was asked to do.
    #[serde(default)]
    pub workloads: Vec<WorkloadSummary>,
    /// Command that continues the run from where it is; empty where it cannot be continued.
    #[serde(default)]
    pub continue_with: String,
}
