//! A paper's claim, the number that stands for it here, and the rule that judges it.

use results::claim::Tier;
use serde::Deserialize;

/// One `[[claim]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// Claim id.
    pub id: String,
    /// Authors, short title, venue, arXiv id.
    pub paper: String,
    /// Section, table or equation.
    pub source: String,
    /// The claim in one sentence.
    pub statement: String,
    /// What kind of statement it is.
    pub tier: Tier,
    /// What the paper prints, with its conditions.
    pub published: String,
    /// What is measured here instead, and why it is the counterpart.
    pub counterpart: String,
    /// Printed instead of a verdict when the effect cannot exist at this scale; the number is still shown.
    #[serde(default)]
    pub not_applicable: Option<String>,
    /// Numbers and rules; all must hold. The first one is the headline number.
    #[serde(rename = "part")]
    pub parts: Vec<ClaimPart>,
}

/// One number and its rule.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimPart {
    /// What the number is, for the reader.
    pub label: String,
    /// How it comes out of the observations.
    pub measure: Measure,
    /// When it confirms the claim.
    #[serde(deserialize_with = "crate::part::table")]
    pub rule: Rule,
}

/// A number from the observations of this run.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Measure {
    /// One metric of one cell.
    Value {
        /// Metric id.
        metric: String,
        /// Workload name; absent means any that has the metric.
        workload: Option<String>,
        /// Which cell.
        #[serde(default)]
        cell: Select,
        /// Sweep coordinate.
        x: Option<f64>,
        /// How repetitions and items become one number.
        #[serde(default)]
        statistic: Statistic,
    },
    /// The largest median among the parts of a metric of one cell, e.g. the best rung of a ladder at one size: the metrics
    /// called `METRIC:…` that end in `part`.
    BestPart {
        /// Metric id, without a part.
        metric: String,
        /// How the part's name ends, e.g. `/512x512x512`.
        part: String,
        /// Workload name.
        workload: Option<String>,
        /// Which cell.
        #[serde(default)]
        cell: Select,
    },
    /// Metric of one cell over another's, paired by repetition.
    Ratio {
        /// Metric id; a `*` in it stands for whatever makes the best median, e.g. the best rung of `us_per_call:gemv/*/1x64x64`.
        metric: String,
        /// Workload name.
        workload: Option<String>,
        /// Upper cell.
        over: Select,
        /// Lower cell.
        under: Select,
        /// Workload of the lower cell, when it differs.
        under_workload: Option<String>,
        /// Metric of the lower cell, when it differs.
        under_metric: Option<String>,
        /// Sweep coordinate; the largest when absent and there is a sweep.
        x: Option<f64>,
    },
    /// `1 − Δnll(method)/Δnll(baseline)`, both against the reference, paired over windows.
    Closure {
        /// Workload name.
        workload: Option<String>,
        /// The method.
        method: Select,
        /// The baseline whose gap is closed.
        baseline: Select,
        /// Protocol id, e.g. `gptq-512`; the workload's first when absent.
        protocol: Option<String>,
        /// Smallest `ppl(baseline)/ppl(reference)` that leaves a gap to close; below it the claim is not applicable.
        #[serde(default = "smallest_gap")]
        smallest_gap: f64,
    },
    /// The largest of several ratios to one cell: what the best member of a family reaches.
    BestRatio {
        /// Metric id; larger is better.
        metric: String,
        /// Workload name.
        workload: Option<String>,
        /// Upper cells.
        over: Vec<Select>,
        /// Lower cell.
        under: Select,
    },
    /// Speed-up of speculative over plain decoding, divided by what Leviathan et al. predict for it,
    /// `(1 − α^{γ+1})/(1 − α) / (γc + v)`: α, the draft's cost c and the verification's cost v (both in plain steps) as
    /// measured in the same repetition.
    SpeedupOverModel {
        /// Workload name.
        workload: Option<String>,
        /// The speculative cell; γ is read from its decoding part.
        speculative: Select,
        /// The plain cell.
        plain: Select,
    },
    /// Slope of log(metric) against log(x).
    Slope {
        /// Metric id.
        metric: String,
        /// Workload name.
        workload: Option<String>,
        /// Which cell.
        #[serde(default)]
        cell: Select,
        /// Use x from here on.
        #[serde(default)]
        from: f64,
    },
    /// Share of the items of a metric that are at most `limit`.
    Share {
        /// Metric id.
        metric: String,
        /// Workload name.
        workload: Option<String>,
        /// Which cell.
        #[serde(default)]
        cell: Select,
        /// Upper limit.
        limit: f64,
    },
}

impl Measure {
    /// The metrics this measure reads, by the field that names them; some measures always read the same.
    pub fn metrics(&self) -> Vec<&str> {
        match self {
            Measure::Ratio { metric, under_metric, .. } => {
                [Some(metric), under_metric.as_ref()].into_iter().flatten().map(String::as_str).collect()
            }
            Measure::Value { metric, .. }
            | Measure::BestPart { metric, .. }
            | Measure::BestRatio { metric, .. }
            | Measure::Slope { metric, .. }
            | Measure::Share { metric, .. } => vec![metric],
            Measure::Closure { .. } => vec!["delta_nll"],
            Measure::SpeedupOverModel { .. } => vec!["decode_ms_per_token"],
        }
    }
}

/// How many values become one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Statistic {
    /// Median with a bootstrap interval.
    #[default]
    Median,
    /// Largest.
    Max,
    /// Smallest.
    Min,
}

/// Cells by the tags of their axes; the reference cell when empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Select {
    /// Engine; ours when absent.
    pub engine: Option<String>,
    /// Tag of the model axis, e.g. `embedded:mha[kv1-mean]`.
    pub model: Option<String>,
    /// Tag of the attention axis.
    pub attention: Option<String>,
    /// Tag of the weights axis.
    pub weights: Option<String>,
    /// Tag of the KV axis.
    pub kv: Option<String>,
    /// Tag of the decoding axis.
    pub decoding: Option<String>,
    /// Tag of the device axis.
    pub device: Option<String>,
}

/// When a number confirms a claim. Bounds are compared with the interval, not with the point.
///
/// A rule of the tier `ratio` says what its number is compared with:
/// - an **effect** states `no_effect`, and `smallest_effect` unless its bound already lies beyond no effect;
/// - a claim that **nothing is lost** (or that a formula is met) states `parity`, and its bounds are the margin allowed;
/// - a bare bound is a condition of the claim (an error below a tolerance, a count), not an effect.
///
/// Ratios and their like must be one of the first two. All of it is written before anything is measured. An example:
///
/// ```toml
/// # paper: 11.39 / 23.54
/// rule = { at_most = 1.0, no_effect = 1.0, smallest_effect = 0.98, paper = 0.484 }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// Confirmed when the whole interval is at least this.
    pub at_least: Option<f64>,
    /// Confirmed when the whole interval is at most this.
    pub at_most: Option<f64>,
    /// The value of no effect: beyond it on the claimed side, short of the bound, is `direction-only`.
    pub no_effect: Option<f64>,
    /// The smallest effect that matters, as a value of the number: confirmed only when the whole interval lies beyond this too.
    pub smallest_effect: Option<f64>,
    /// The value at which nothing is lost or gained.
    pub parity: Option<f64>,
    /// What the claim denies, e.g. the loss that others suffer: short of the bound, but better than this, is `direction-only`.
    /// In place of `no_effect` where an effect of the right sign may be refuted too.
    pub denied: Option<f64>,
    /// What the paper prints for this very number; of a range, the end nearest to no effect. Absent where it prints none.
    pub paper: Option<f64>,
    /// Judge the point value: the number is exact (a count, an identity), or the published rule says so.
    pub point: bool,
    /// Report the number without judging it.
    pub report_only: bool,
}

/// Which way an effect must go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The claim is that the number is larger.
    Above,
    /// The claim is that the number is smaller.
    Below,
}

impl Rule {
    /// The claimed side. With both bounds the lower one says which way the effect goes; without any, the paper's number does.
    pub fn side(&self) -> Option<Side> {
        match (self.at_least, self.at_most, self.no_effect.zip(self.paper)) {
            (Some(_), _, _) => Some(Side::Above),
            (None, Some(_), _) => Some(Side::Below),
            (None, None, Some((none, paper))) if paper > none => Some(Side::Above),
            (None, None, Some((none, paper))) if paper < none => Some(Side::Below),
            _ => None,
        }
    }

    /// The lower and the upper bound that confirm the claim, with the smallest effect that matters in them.
    pub fn bounds(&self) -> (Option<f64>, Option<f64>) {
        let stricter = |bound: f64, pick: fn(f64, f64) -> f64| self.smallest_effect.map_or(bound, |e| pick(bound, e));
        match self.side() {
            Some(Side::Above) => (self.at_least.map(|bound| stricter(bound, f64::max)), self.at_most),
            _ => (self.at_least, self.at_most.map(|bound| stricter(bound, f64::min))),
        }
    }

    /// Whether the number is judged at all.
    pub fn judges(&self) -> bool {
        !self.report_only && (self.at_least.is_some() || self.at_most.is_some())
    }
}

fn smallest_gap() -> f64 {
    1.01
}
