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
    /// Whether a clock measured what it looks at: by the registry, or by the unit in a name that a workload chose.
    pub fn is_timed(&self) -> bool {
        let of_clock = |name: &String| match results::metric::metric(name) {
            Some(known) => known.kind() == results::metric::Kind::Timing,
            None => name.split(':').next().is_some_and(|base| base.ends_with("_ms") || base.ends_with("_us")),
        };
        match self {
            Measure::Value { metric, .. }
            | Measure::BestPart { metric, .. }
            | Measure::BestRatio { metric, .. }
            | Measure::Slope { metric, .. }
            | Measure::Share { metric, .. } => of_clock(metric),
            Measure::Ratio { metric, under_metric, .. } => {
                of_clock(metric) || under_metric.as_ref().is_some_and(of_clock)
            }
            Measure::SpeedupOverModel { .. } => true,
            Measure::Closure { .. } => false,
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// Confirmed when the whole interval is at least this.
    pub at_least: Option<f64>,
    /// Confirmed when the whole interval is at most this.
    pub at_most: Option<f64>,
    /// The value of no effect: beyond it on the claimed side, short of the bound, is `direction-only`.
    pub no_effect: Option<f64>,
    /// Judge the point value: the number is exact (a count, an identity), or the published rule says so.
    pub point: bool,
    /// Report the number without judging it.
    pub report_only: bool,
}

fn smallest_gap() -> f64 {
    1.01
}
