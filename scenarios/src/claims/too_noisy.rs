//! Claims about speed in a run whose clock cannot be believed: two copies of one cell differ by more than any claim asks for.

use std::fmt;

use results::aggregate::Comparison;
use results::claim::Verdict;
use results::metric::{Kind, metric};
use results::noise::{NoiseLevel, noise};
use results::run::Run;
use results::summary::Role;

use super::evidence::HEAD;
use super::show;
use crate::cell::ResolvedScenario;
use crate::scenario::Measure;

/// How values that a scenario names end when a clock made them: `attention_full_ms`, `padded_over_dropless_time`.
const CLOCKS: [&str; 2] = ["_ms", "_time"];

/// The reference and its copy, in a run that is unusable for speed.
pub struct TooNoisy {
    widest: Comparison,
}

impl TooNoisy {
    /// `None` where the run is good enough, or where no copy of the reference says what it is.
    pub fn of(scenario: &ResolvedScenario, run: &Run) -> Option<TooNoisy> {
        let reference = &scenario.reference().id;
        let control = &scenario.cells.iter().find(|cell| cell.role == Role::AaControl)?.id;
        let of =
            |prefix: &str| noise(&run.observations, &format!("{prefix}{reference}"), &format!("{prefix}{control}"));
        let noise = of("").or_else(|| of(HEAD))?;
        (noise.level == NoiseLevel::Unusable).then_some(TooNoisy { widest: noise.widest })
    }

    /// Whether `verdict` on a number of `measure` rests on the clock.
    pub fn forbids(&self, measure: &Measure, verdict: Verdict) -> bool {
        let judged = matches!(
            verdict,
            Verdict::Holds | Verdict::Violated | Verdict::Reproduced | Verdict::DirectionOnly | Verdict::NotReproduced
        );
        judged && measure.is_timed()
    }
}

impl fmt::Display for TooNoisy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this run is too noisy to judge speed: two copies of the reference")?;
        match &self.widest.ratio {
            Some(r) => write!(
                f,
                " have a ratio of {} [{}, {}] in `{}`",
                show(r.ratio),
                show(r.low),
                show(r.high),
                self.widest.metric
            ),
            None => write!(f, " differ in `{}`", self.widest.metric),
        }
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
