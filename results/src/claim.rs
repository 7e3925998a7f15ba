//! A paper's claim beside what was measured here.

use serde::{Deserialize, Serialize};

/// What kind of statement a claim is; decides the words of its verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// An identity that must hold at any scale: `holds` / `violated`.
    Identity,
    /// An ordering or ratio with a threshold for small scale: `reproduced` / `direction-only` / `not-reproduced`.
    Ratio,
    /// An absolute figure on named hardware: reported, never gated.
    Absolute,
}

/// The outcome of a claim. A claim that did not run never reads as a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Identity confirmed within its tolerance.
    Holds,
    /// Identity broken.
    Violated,
    /// The interval lies on the claimed side of the threshold.
    Reproduced,
    /// The effect has the claimed sign, its size misses the threshold.
    DirectionOnly,
    /// The effect is absent or reversed.
    NotReproduced,
    /// The interval straddles the threshold and its sign is open.
    Inconclusive,
    /// Reported beside the paper's figure, not judged.
    Reported,
    /// The effect needs a scale this model or machine does not have.
    NotApplicableAtScale,
    /// Needs a GPU.
    SkippedNoGpu,
    /// The measurement itself failed.
    Failed,
}

impl Verdict {
    /// Whether the claim was tested and refuted.
    pub fn is_refuted(self) -> bool {
        matches!(self, Verdict::Violated | Verdict::NotReproduced)
    }

    /// Whether the claim was tested and confirmed.
    pub fn is_confirmed(self) -> bool {
        matches!(self, Verdict::Holds | Verdict::Reproduced)
    }

    /// The word printed for it.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Holds => "holds",
            Verdict::Violated => "violated",
            Verdict::Reproduced => "reproduced",
            Verdict::DirectionOnly => "direction-only",
            Verdict::NotReproduced => "not-reproduced",
            Verdict::Inconclusive => "inconclusive",
            Verdict::Reported => "reported",
            Verdict::NotApplicableAtScale => "not-applicable-at-scale",
            Verdict::SkippedNoGpu => "skipped-no-gpu",
            Verdict::Failed => "failed",
        }
    }
}

/// One row of `claims.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClaimResult {
    /// Claim id, e.g. `gptq-4bit-ppl`.
    pub id: String,
    /// Paper: authors, short title, venue, arXiv id.
    pub paper: String,
    /// Where in the paper: section, table or equation.
    pub source: String,
    /// The claim in one sentence.
    pub statement: String,
    /// Kind of claim.
    pub tier: Tier,
    /// What the paper prints, as text with its conditions.
    pub published: String,
    /// Measured here instead, named.
    pub counterpart: String,
    /// The acceptance rule, as text.
    pub rule: String,
    /// Measured value of the first part, when there is one.
    pub measured: Option<f64>,
    /// 95 % interval of the measured value.
    pub interval: Option<(f64, f64)>,
    /// Unit of `measured`.
    pub unit: String,
    /// Outcome.
    pub verdict: Verdict,
    /// Why, with the numbers behind it.
    pub reason: String,
    /// Command that measures it again.
    pub command: String,
    /// Every number of the claim, the headline first; empty in records from before numbers were kept apart.
    #[serde(default)]
    pub parts: Vec<PartResult>,
}

/// One number of a claim beside its rule and beside the paper's number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PartResult {
    /// What the number is.
    pub label: String,
    /// Measured value, when there is one.
    pub measured: Option<f64>,
    /// 95 % interval of the measured value.
    #[serde(default)]
    pub interval: Option<(f64, f64)>,
    /// Unit of `measured`.
    #[serde(default)]
    pub unit: String,
    /// Outcome of this part alone.
    pub verdict: Verdict,
    /// The claim holds from here up; the smallest effect that matters is taken into it.
    #[serde(default)]
    pub at_least: Option<f64>,
    /// The claim holds up to here; the smallest effect that matters is taken into it.
    #[serde(default)]
    pub at_most: Option<f64>,
    /// The value that would mean no effect, or no loss.
    #[serde(default)]
    pub origin: Option<f64>,
    /// What the paper prints for this number, where it prints one.
    #[serde(default)]
    pub paper: Option<f64>,
    /// How much of the paper's effect was found; absent where the paper prints no effect of this kind.
    #[serde(default)]
    pub share: Option<Share>,
    /// The share, or the distance from parity, in words; empty where there is nothing to compare with.
    #[serde(default)]
    pub found: String,
    /// Why this number has no verdict, where it has none.
    #[serde(default)]
    pub why_open: String,
}

/// Measured effect over the paper's: logarithms of ratios, differences of anything else. 1 is the paper's effect, 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Of the measured value.
    pub value: f64,
    /// Of the ends of its 95 % interval, the smaller first.
    #[serde(default)]
    pub interval: Option<(f64, f64)>,
}

impl ClaimResult {
    /// The share of the paper's effect, or the distance from parity, of the headline number, in words.
    pub fn found(&self) -> Option<&str> {
        self.parts.first().map(|part| part.found.as_str()).filter(|words| !words.is_empty())
    }
}
