//! Claims about speed in a run whose clock cannot be believed: two copies of one cell differ by more than any claim asks for.

use results::aggregate::Comparison;
use results::claim::Verdict;
use results::metric::{Kind, metric};
use results::noise::{Noise, NoiseLevel, noise};
use results::run::Run;
use results::summary::Role;

use super::evidence::HEAD;
use super::measure::Measured;
use super::show;
use crate::cell::ResolvedScenario;
use crate::scenario::{Measure, Rule};

/// How values that a scenario names end when a clock made them: `attention_full_ms`, `padded_over_dropless_time`.
const CLOCKS: [&str; 2] = ["_ms", "_time"];

/// What the reference and its copy say of a run's speeds.
pub struct TooNoisy {
    noise: Noise,
}

impl TooNoisy {
    /// `None` where no copy of the reference was timed often enough.
    pub fn of(scenario: &ResolvedScenario, run: &Run) -> Option<TooNoisy> {
        let reference = &scenario.reference().id;
        let control = &scenario.cells.iter().find(|cell| cell.role == Role::AaControl)?.id;
        let of =
            |prefix: &str| noise(&run.observations, &format!("{prefix}{reference}"), &format!("{prefix}{control}"));
        Some(TooNoisy { noise: of("").or_else(|| of(HEAD))? })
    }

    /// Why `verdict` on the `measured` number of `measure` is none, where it rests on a clock: the run is unusable, or the copies differ as
    /// much in that very quantity.
    pub fn forbids(&self, measure: &Measure, rule: &Rule, verdict: Verdict, measured: &Measured) -> Option<String> {
        let judged = matches!(
            verdict,
            Verdict::Holds | Verdict::Violated | Verdict::Reproduced | Verdict::DirectionOnly | Verdict::NotReproduced
        );
        if !judged || !measure.is_timed() {
            return None;
        }
        if self.noise.level == NoiseLevel::Unusable {
            return Some(format!(
                "this run is too noisy to judge speed: two copies of the reference{}",
                ratio_of(&self.noise.widest)
            ));
        }
        let copies = self.copies(measure)?;
        // a ratio about 1 that two equal cells reach as well is no effect; where parity is claimed, the margin judges
        let alike = rule.no_effect == Some(1.0) && measured.value.ln().abs() <= copies.reach()?;
        alike.then(|| format!("two copies of the reference differ as much: they{}", ratio_of(copies)))
    }

    /// The copies in the quantity that a ratio compares, at its place in a sweep: of several the ones that differ most.
    fn copies(&self, measure: &Measure) -> Option<&Comparison> {
        let (ids, at) = match measure {
            Measure::Ratio { x, .. } => (measure.metrics(), *x),
            Measure::BestRatio { .. } => (measure.metrics(), None),
            _ => return None,
        };
        let is_named = |c: &&Comparison| ids.contains(&c.metric.as_str());
        let largest = self.noise.comparisons.iter().filter(is_named).filter_map(|c| c.x).reduce(f64::max);
        let here = self.noise.comparisons.iter().filter(is_named).filter(|c| c.x.is_none() || c.x == at.or(largest));
        here.max_by(|a, b| a.reach().unwrap_or(0.0).total_cmp(&b.reach().unwrap_or(0.0)))
    }
}

/// ` have a ratio of 1.03 [0.98, 1.08] in `decode_tok_s``.
fn ratio_of(copies: &Comparison) -> String {
    match &copies.ratio {
        Some(r) => {
            format!(" have a ratio of {} [{}, {}] in `{}`", show(r.ratio), show(r.low), show(r.high), copies.metric)
        }
        None => format!(" differ in `{}`", copies.metric),
    }
}

impl Measure {
    /// Whether a clock is behind the number.
    pub fn is_timed(&self) -> bool {
        self.metrics().into_iter().any(|id| match metric(id) {
            Some(metric) => metric.kind() == Kind::Timing,
            None => CLOCKS.iter().any(|end| id.ends_with(end)),
        })
    }
}
