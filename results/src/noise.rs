//! How noisy a run was: what two copies of the reference cell differ by, in one word that sentences, badge and verdicts share.

use serde::{Deserialize, Serialize};

use crate::aggregate::{Comparison, noise_floor};
use crate::metric::{Kind, metric};
use crate::observation::{Direction, Observation};

/// Copies that agree within this share, interval included, make a quiet run.
const QUIET: f64 = 0.05;
/// Copies that may differ by more than this share make a run unusable for speed.
const UNUSABLE: f64 = 0.25;

/// What a reader may do with the speeds of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoiseLevel {
    /// Small differences can be told.
    Quiet,
    /// Only large differences can be told.
    Noisy,
    /// No difference of speed means anything.
    Unusable,
}

impl NoiseLevel {
    /// The word of the badge.
    pub fn word(self) -> &'static str {
        match self {
            NoiseLevel::Quiet => "quiet",
            NoiseLevel::Noisy => "noisy",
            NoiseLevel::Unusable => "unusable",
        }
    }
}

/// The reference and its copy, compared in everything that a clock measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Noise {
    /// The worst of the metrics decides.
    pub level: NoiseLevel,
    /// The comparison whose interval reaches furthest from 1.
    pub widest: Comparison,
    /// Every comparison behind it.
    pub comparisons: Vec<Comparison>,
}

/// The noise of the rows of `reference` and its copy `control`; `None` where no clock measured both.
pub fn noise(rows: &[Observation], reference: &str, control: &str) -> Option<Noise> {
    let timed = |c: &Comparison| {
        c.direction != Direction::None
            && c.ratio.is_some()
            && metric(&c.metric).is_some_and(|metric| metric.kind() == Kind::Timing)
    };
    let comparisons: Vec<Comparison> = noise_floor(rows, reference, control).into_iter().filter(timed).collect();
    let reach = |c: &Comparison| c.ratio.map_or(0.0, |r| r.low.ln().abs().max(r.high.ln().abs()));
    let widest = comparisons.iter().max_by(|a, b| reach(a).total_cmp(&reach(b)))?.clone();
    let level = match reach(&widest).exp_m1() {
        share if share <= QUIET => NoiseLevel::Quiet,
        share if share <= UNUSABLE => NoiseLevel::Noisy,
        _ => NoiseLevel::Unusable,
    };
    Some(Noise { level, widest, comparisons })
}
