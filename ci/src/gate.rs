//! One gate: the estimate of a change, judged under the policy.

use results::metric::Kind;
use results::observation::{Axes, Direction};
use serde::Serialize;

use crate::estimate::{Change, Estimate, Spread};
use crate::numbers::{self, quantity};
use crate::policy::Policy;
use crate::series::SeriesKey;
use crate::verdict::{Outcome, Weight};

/// One row of a check.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gate {
    /// Cell id.
    pub cell: String,
    /// Short label of the cell.
    pub label: String,
    /// Place of the cell on every axis.
    pub axes: Axes,
    /// Workload name.
    pub workload: String,
    /// Metric id.
    pub metric: String,
    /// Sweep coordinate.
    pub x: Option<f64>,
    /// Which gate applied.
    pub kind: Kind,
    /// Unit of the metric.
    pub unit: String,
    /// Better direction.
    pub direction: Direction,
    /// The baseline's values.
    pub base: Option<Spread>,
    /// The head's values.
    pub head: Option<Spread>,
    /// Head against base.
    pub change: Option<Change>,
    /// Chance of a change this large between equals, before correction.
    pub p: Option<f64>,
    /// The same, all time gates of the check considered.
    pub adjusted_p: Option<f64>,
    /// What was found.
    pub outcome: Outcome,
    /// What an advisory row would have been if it gated.
    pub otherwise: Option<Outcome>,
    /// What it does to the verdict of the check.
    pub weight: Weight,
    /// Why, with the numbers behind it.
    pub reason: String,
}

impl Gate {
    /// Whether a short summary should show it: it did not simply pass.
    pub fn is_notable(&self) -> bool {
        match self.outcome {
            Outcome::Pass | Outcome::New => false,
            Outcome::Advisory => matches!(self.otherwise, Some(Outcome::Regression | Outcome::Improvement)),
            _ => true,
        }
    }

    /// Cell label, workload, metric and sweep coordinate in one line.
    pub fn title(&self) -> String {
        let x = self.x.map(|x| format!(" @ {x}")).unwrap_or_default();
        format!("{} · {} · {}{x}", self.label, self.workload, self.metric)
    }

    /// A row without an estimate: something to say about a series that could not be compared.
    pub fn without_estimate(key: &SeriesKey, kind: Kind, outcome: Outcome, weight: Weight, reason: String) -> Self {
        Self {
            cell: key.cell.clone(),
            label: key.cell.clone(),
            axes: Axes::default(),
            workload: key.workload.clone(),
            metric: key.metric.clone(),
            x: key.x(),
            kind,
            unit: String::new(),
            direction: Direction::None,
            base: None,
            head: None,
            change: None,
            p: None,
            adjusted_p: None,
            outcome,
            otherwise: None,
            weight,
            reason,
        }
    }
}

/// What a judgement needs beside the estimate.
pub struct Circumstances<'a> {
    /// The rules.
    pub policy: &'a Policy,
    /// Base and head were interleaved in one job.
    pub interleaved: bool,
    /// Run on machines that differ, by permission.
    pub different_hardware: bool,
    /// What two identical cells of this job differed by, as a log ratio.
    pub noise_floor: Option<f64>,
    /// The policy shows this metric without gating it.
    pub advisory: bool,
    /// p after correction.
    pub adjusted_p: Option<f64>,
}

/// A finding before it becomes a row.
pub struct Finding {
    /// What was found.
    pub outcome: Outcome,
    /// What it would have been if it gated.
    pub otherwise: Option<Outcome>,
    /// What it does to the verdict.
    pub weight: Weight,
    /// Why.
    pub reason: String,
}

impl Finding {
    fn new(outcome: Outcome, reason: String) -> Self {
        let weight = match outcome {
            Outcome::Regression | Outcome::Missing => Weight::Regression,
            Outcome::Inconclusive | Outcome::NotComparable => Weight::Open,
            Outcome::Failed => Weight::Failure,
            Outcome::Pass | Outcome::Improvement | Outcome::Advisory | Outcome::New => Weight::None,
        };
        Self { outcome, otherwise: None, weight, reason }
    }
}

/// Judges one estimate.
pub fn judge(metric: &str, kind: Kind, direction: Direction, estimate: &Estimate, on: &Circumstances) -> Finding {
    let finding = match kind {
        Kind::Deterministic | Kind::Memory => exact(metric, kind, direction, estimate, on),
        Kind::Quality => quality(metric, direction, estimate, on),
        Kind::Timing => timing(metric, direction, estimate, on),
    };
    let advisory = match kind {
        _ if on.advisory => Some("by the policy"),
        Kind::Timing if !on.interleaved => Some("base and head were not interleaved in one job"),
        Kind::Timing | Kind::Memory if on.different_hardware => Some("different hardware"),
        _ => None,
    };
    match advisory {
        Some(why) => Finding {
            otherwise: Some(finding.outcome),
            ..Finding::new(Outcome::Advisory, format!("advisory ({why}): {}", finding.reason))
        },
        None => finding,
    }
}

/// A change of the value itself, beyond a tolerance.
fn exact(metric: &str, kind: Kind, direction: Direction, estimate: &Estimate, on: &Circumstances) -> Finding {
    let allowed = on.policy.tolerance(metric, kind).allowance(estimate.base.median);
    let Some(change) = &estimate.difference else {
        return Finding::new(Outcome::Inconclusive, "no repetition of the head matches one of the baseline".to_owned());
    };
    // The ends are the extreme pairs of a counted metric, every one of which must stay inside the allowance.
    let (best, worst) = worse_interval(change, direction);
    let moved = if worst > allowed || worst.abs() >= best.abs() { worst } else { best };
    let numbers = match direction {
        Direction::None => format!("changed by {}, allowed {}", quantity(moved, ""), quantity(allowed, "")),
        _ => format!("{}, allowed {}", worse_or_better(moved, moved), quantity(allowed, "")),
    };
    if worst > allowed {
        Finding::new(Outcome::Regression, numbers)
    } else if best < -allowed {
        Finding::new(Outcome::Improvement, numbers)
    } else if moved == 0.0 {
        Finding::new(Outcome::Pass, "identical".to_owned())
    } else {
        Finding::new(Outcome::Pass, numbers)
    }
}

/// The paired interval of the mean difference against the tolerance.
fn quality(metric: &str, direction: Direction, estimate: &Estimate, on: &Circumstances) -> Finding {
    let allowed = on.policy.tolerance(metric, Kind::Quality).allowance(estimate.base.mean);
    let Some(change) = &estimate.difference else {
        return Finding::new(Outcome::Inconclusive, "no window of the head matches one of the baseline".to_owned());
    };
    let enough = estimate.pairs >= on.policy.quality.min_pairs;
    let (low, high) = if enough { worse_interval(change, direction) } else { point(change, direction) };
    let moved = worse_or_better(low, high);
    let pairs = estimate.pairs;
    let basis = if enough { format!("over {pairs} pairs") } else { format!("{pairs} pairs, so no interval") };
    let numbers = format!("{moved} ({basis}), allowed {}", quantity(allowed, ""));
    if low > allowed {
        Finding::new(Outcome::Regression, numbers)
    } else if high < -allowed {
        Finding::new(Outcome::Improvement, numbers)
    } else if high > allowed {
        Finding::new(Outcome::Inconclusive, numbers)
    } else if (low, high) == (0.0, 0.0) {
        Finding::new(Outcome::Pass, "identical".to_owned())
    } else {
        Finding::new(Outcome::Pass, numbers)
    }
}

/// The paired ratio against the corrected level, the noise floor and the smallest slow-down that matters.
fn timing(metric: &str, direction: Direction, estimate: &Estimate, on: &Circumstances) -> Finding {
    let rule = &on.policy.timing;
    let Some(change) = &estimate.ratio else {
        return Finding::new(Outcome::Inconclusive, "no ratio: a value is zero or nothing pairs up".to_owned());
    };
    if on.interleaved && estimate.pairs < rule.min_pairs {
        let reason = format!("{} interleaved repetitions, {} needed", estimate.pairs, rule.min_pairs);
        return Finding::new(Outcome::Inconclusive, reason);
    }
    let floor = on.noise_floor.unwrap_or(0.0) * rule.noise_multiplier;
    let min_effect = (1.0 + on.policy.min_effect(metric)).ln();
    let logs = Change { value: change.value.ln(), low: change.low.ln(), high: change.high.ln(), ..*change };
    let (low, high) = worse_interval(&logs, direction);
    let worse = worsening(logs.value, direction);
    let p = on.adjusted_p.unwrap_or(1.0);
    let significant = p <= rule.alpha;
    let numbers = format!(
        "{:+.1} % [{:+.1}, {:+.1}], matters from {:.1} %, noise {:.1} %, corrected p {}, {} pairs",
        percent(logs.value),
        percent(logs.low),
        percent(logs.high),
        percent(min_effect),
        percent(floor),
        numbers::probability(p),
        estimate.pairs
    );
    // A change counts when it is real (the test) and may be as large as what matters (the interval's far end). The estimate alone is no
    // bound: of a slow-down of exactly `min_effect` it falls short every other time.
    if direction == Direction::None {
        Finding::new(Outcome::Advisory, format!("no better direction: {numbers}"))
    } else if significant && low > 0.0 && worse > floor && high >= min_effect {
        Finding::new(Outcome::Regression, numbers)
    } else if significant && high < 0.0 && worse < -floor && low <= -min_effect {
        Finding::new(Outcome::Improvement, numbers)
    } else if high > min_effect {
        // A noisy job raises the bar for a regression, never the one for a pass.
        Finding::new(Outcome::Inconclusive, format!("cannot exclude a slow-down that matters: {numbers}"))
    } else {
        Finding::new(Outcome::Pass, numbers)
    }
}

/// `worse by 2`, `worse by 1 to 2`, `better by 1 to 2`, `between better by 1 and worse by 2`.
fn worse_or_better(low: f64, high: f64) -> String {
    let span = |from: f64, to: f64| {
        let (from, to) = (quantity(from, ""), quantity(to, ""));
        if from == to { from } else { format!("{from} to {to}") }
    };
    if low >= 0.0 {
        format!("worse by {}", span(low, high))
    } else if high <= 0.0 {
        format!("better by {}", span(-high, -low))
    } else {
        format!("between better by {} and worse by {}", quantity(-low, ""), quantity(high, ""))
    }
}

fn percent(log_ratio: f64) -> f64 {
    100.0 * log_ratio.exp_m1()
}

/// `change` with its sign turned so that positive is worse; without a direction any change is.
fn worsening(change: f64, direction: Direction) -> f64 {
    match direction {
        Direction::Lower => change,
        Direction::Higher => -change,
        Direction::None => change.abs(),
    }
}

fn worse_interval(change: &Change, direction: Direction) -> (f64, f64) {
    match direction {
        Direction::Lower => (change.low, change.high),
        Direction::Higher => (-change.high, -change.low),
        Direction::None if change.low > 0.0 => (change.low, change.high),
        Direction::None if change.high < 0.0 => (-change.high, -change.low),
        Direction::None => (0.0, change.high.max(-change.low)),
    }
}

fn point(change: &Change, direction: Direction) -> (f64, f64) {
    let worse = worsening(change.value, direction);
    (worse, worse)
}
