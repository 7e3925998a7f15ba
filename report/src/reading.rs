//! What a comparison lets a careful reader say: better, worse, equal, or within noise.

use results::aggregate::{Aggregate, Comparison};
use results::metric::{Kind, metric};
use results::observation::Direction;
use serde::Serialize;

use crate::quantity::{significant, times};

/// Quality that differs by less than this factor's logarithm differs by rounding.
const NEGLIGIBLE: f64 = 1e-4;

/// Divergence from the reference below this is rounding of the kernels.
const NEGLIGIBLE_DIFFERENCE: f64 = 1e-6;

/// The words beside a ratio.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reading {
    /// `good`, `bad`, `open` or `quiet`.
    pub tone: &'static str,
    /// Icon, never alone.
    pub icon: &'static str,
    /// Word.
    pub word: &'static str,
    /// Why, when it is not obvious.
    pub why: String,
}

fn say(tone: &'static str, icon: &'static str, word: &'static str, why: String) -> Reading {
    Reading { tone, icon, word, why }
}

/// Reads the comparison of `a` with the reference; `floor` is the largest |ln ratio| between two copies of the reference.
pub fn read(a: &Aggregate, comparison: &Comparison, floor: f64) -> Reading {
    let kind = metric(&a.metric).map(|metric| metric.kind());
    let Some(ratio) = comparison.ratio else {
        return of_difference(comparison, kind);
    };
    if kind == Some(Kind::Quality) && ratio.low.ln().abs().max(ratio.high.ln().abs()) < NEGLIGIBLE {
        return say("quiet", "=", "equal", "to within 0.01\u{202f}%".into());
    }
    let clocked = matches!(kind, Some(Kind::Timing | Kind::Memory));
    if ratio.low == 1.0 && ratio.high == 1.0 {
        return say("quiet", "=", "equal", String::new());
    }
    if clocked && comparison.n_pairs < 2 {
        return say("quiet", "?", "open", "one pair: no interval".into());
    }
    let single = ratio.low == ratio.high;
    if !single && ratio.low <= 1.0 && ratio.high >= 1.0 {
        return say("quiet", "≈", "within noise", "interval includes 1".into());
    }
    if clocked && ratio.ratio.ln().abs() <= floor {
        let percent = significant(100.0 * floor.exp_m1(), 2);
        return say(
            "quiet",
            "≈",
            "within noise",
            format!("two copies of the reference differ by up to {percent}\u{202f}%"),
        );
    }
    if !comparison.note.is_empty() {
        return directed(Direction::None, ratio.ratio > 1.0, comparison.note.clone());
    }
    let why = if single && kind == Some(Kind::Quality) { "one value: no interval".into() } else { String::new() };
    directed(comparison.direction, ratio.ratio > 1.0, why)
}

/// Without a ratio (a zero on one side) only the sign of the difference speaks.
fn of_difference(comparison: &Comparison, kind: Option<Kind>) -> Reading {
    let difference = comparison.difference;
    if difference.low == 0.0 && difference.high == 0.0 {
        return say("quiet", "=", "equal", String::new());
    }
    if difference.low <= 0.0 && difference.high >= 0.0 {
        return say("quiet", "≈", "within noise", "interval of the difference includes 0".into());
    }
    if kind == Some(Kind::Quality) && difference.low.abs().max(difference.high.abs()) < NEGLIGIBLE_DIFFERENCE {
        return say("quiet", "=", "equal", "to within one in a million".into());
    }
    directed(comparison.direction, difference.estimate > 0.0, "no ratio to zero".into())
}

fn directed(direction: Direction, up: bool, why: String) -> Reading {
    match (direction, up) {
        (Direction::None, true) => say("quiet", "▲", "higher", why),
        (Direction::None, false) => say("quiet", "▼", "lower", why),
        (Direction::Higher, true) => say("good", "▲", "better", why),
        (Direction::Higher, false) => say("bad", "▼", "worse", why),
        (Direction::Lower, true) => say("bad", "▲", "worse", why),
        (Direction::Lower, false) => say("good", "▼", "better", why),
    }
}

/// `1.84× [1.80, 1.88]`, or the ratio alone when it has no width.
pub fn ratio_text(comparison: &Comparison) -> String {
    match comparison.ratio {
        None => String::new(),
        Some(ratio) if ratio.low == ratio.high => times(ratio.ratio),
        Some(ratio) => {
            let end = |value: f64| times(value).trim_end_matches('×').to_owned();
            format!("{} [{}, {}]", times(ratio.ratio), end(ratio.low), end(ratio.high))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use results::observation::{Axes, Status};
    use results::statistics::{Interval, Ratio};

    fn reading(metric: &str, direction: Direction, ratio: (f64, f64, f64), n: usize, floor: f64) -> &'static str {
        let a = Aggregate {
            cell: "c".into(),
            axes: Axes::default(),
            workload: "w".into(),
            metric: metric.into(),
            formula_id: String::new(),
            unit: String::new(),
            direction,
            x: None,
            n,
            events: results::aggregate::Events::default(),
            median: Some(1.0),
            low: None,
            high: None,
            cv: None,
            status: Status::Ok,
            reason: String::new(),
            kernel_path: String::new(),
        };
        let comparison = Comparison {
            cell: "c".into(),
            reference: "r".into(),
            workload: "w".into(),
            metric: metric.into(),
            reference_metric: metric.into(),
            unit: String::new(),
            direction,
            note: String::new(),
            x: None,
            n_pairs: n,
            ratio: Some(Ratio { ratio: ratio.0, low: ratio.1, high: ratio.2, n }),
            difference: Interval { estimate: 0.0, low: 0.0, high: 0.0, n },
        };
        read(&a, &comparison, floor).word
    }

    #[test]
    fn only_what_exceeds_noise_is_better_or_worse() {
        use Direction::{Higher, Lower};
        assert_eq!(reading("decode_tok_s", Higher, (1.5, 1.4, 1.6), 5, 0.02), "better");
        assert_eq!(reading("ttft_ms", Lower, (1.5, 1.4, 1.6), 5, 0.02), "worse");
        assert_eq!(reading("decode_tok_s", Higher, (1.01, 0.99, 1.03), 5, 0.0), "within noise");
        assert_eq!(reading("decode_tok_s", Higher, (1.01, 1.005, 1.015), 5, 0.02), "within noise");
        assert_eq!(reading("decode_tok_s", Higher, (1.5, 1.5, 1.5), 1, 0.0), "open");
        assert_eq!(reading("ppl", Lower, (1.000_002, 1.000_001, 1.000_003), 24, 0.0), "equal");
        assert_eq!(reading("weights_bytes", Lower, (0.25, 0.25, 0.25), 1, 0.0), "better");
        assert_eq!(reading("weights_bytes", Lower, (1.0, 1.0, 1.0), 1, 0.0), "equal");
    }
}
