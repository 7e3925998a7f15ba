//! What a comparison lets a careful reader say: better, worse, equal, or within noise.
//!
//! Of a clock, better or worse is said only where two equal cells would give it at most one time in a hundred (`results`'s `ALPHA`):
//! from eight pairs on the signed-rank test says so. Five to seven pairs cannot reach that alone, but with the second copy of the reference
//! they can: the interval must then lie wholly beyond that of the copies. Three equal cells in a random order put one of them at the same end
//! in all of n rounds with the chance 2 / 3^n, which is 0.8 % for five. `infermark doctor --self-test` counts the false alarms.

use results::aggregate::{Aggregate, Comparison};
use results::metric::{Kind, metric};
use results::observation::Direction;
use results::statistics::{ALPHA, FEWEST_PAIRS, Ratio};
use serde::Serialize;

use crate::digest::NOTHING_TOLD;
use crate::quantity::{significant, times};

/// Quality that differs by less than this factor's logarithm differs by rounding.
const NEGLIGIBLE: f64 = 1e-4;

/// Divergence from the reference below this is rounding of the kernels.
const NEGLIGIBLE_DIFFERENCE: f64 = 1e-6;

/// With fewer pairs than this equal cells look different too often, whatever the other numbers are.
const FEWEST_WITH_COPIES: usize = 5;

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
    debug_assert_eq!(a.metric, comparison.metric);
    of_comparison(comparison, floor)
}

/// The same of the comparison alone.
pub fn of_comparison(comparison: &Comparison, floor: f64) -> Reading {
    let kind = metric(&comparison.metric).map(|metric| metric.kind());
    let Some(ratio) = comparison.ratio else {
        return of_difference(comparison, kind);
    };
    if kind == Some(Kind::Quality) && ratio.low.ln().abs().max(ratio.high.ln().abs()) < NEGLIGIBLE {
        return say("quiet", "=", "equal", "to within 0.01\u{202f}%".into());
    }
    if kind == Some(Kind::Timing) {
        return of_clock(comparison, ratio, floor);
    }
    let measured = kind == Some(Kind::Memory);
    if ratio.low == 1.0 && ratio.high == 1.0 {
        return say("quiet", "=", "equal", String::new());
    }
    if measured && comparison.n_pairs < 2 {
        return say("quiet", "?", "open", "one pair: no interval".into());
    }
    let single = ratio.low == ratio.high;
    if !single && ratio.low <= 1.0 && ratio.high >= 1.0 {
        return within("interval includes 1".into());
    }
    if measured && ratio.ratio.ln().abs() <= floor {
        return within(copies_differ(floor));
    }
    if !comparison.note.is_empty() {
        return directed(Direction::None, ratio.ratio > 1.0, comparison.note.clone());
    }
    let why = if single && kind == Some(Kind::Quality) { "one value: no interval".into() } else { String::new() };
    directed(comparison.direction, ratio.ratio > 1.0, why)
}

/// A clock: the level of the decision is the same for every number of pairs.
fn of_clock(comparison: &Comparison, ratio: Ratio, floor: f64) -> Reading {
    let open = |why: String| say("quiet", "?", "open", why);
    let n = comparison.n_pairs;
    if n < 2 {
        return open("one pair: no interval".into());
    }
    if n < FEWEST_WITH_COPIES {
        return open(format!("{n} pairs: too few to tell cells apart, {FEWEST_WITH_COPIES} are the least"));
    }
    if ratio.low <= 1.0 && ratio.high >= 1.0 {
        return within("interval includes 1".into());
    }
    if floor >= NOTHING_TOLD {
        return within(copies_differ(floor));
    }
    if n < FEWEST_PAIRS {
        if floor == 0.0 {
            let needed = format!("without a second copy of the reference {FEWEST_PAIRS} are the least");
            return open(format!("{n} pairs: {needed}"));
        }
        // the end that is nearer to 1
        if ratio.low.ln().abs().min(ratio.high.ln().abs()) <= floor {
            return within(format!("{n} pairs, and their interval is not wholly beyond: {}", copies_differ(floor)));
        }
        return directed(comparison.direction, ratio.ratio > 1.0, String::new());
    }
    match comparison.p {
        None => return open("no chance was computed".into()),
        Some(p) if p > ALPHA => {
            let percent = significant(100.0 * p, 2);
            return within(format!("equal cells give such pairs {percent}\u{202f}% of the time"));
        }
        Some(_) => {}
    }
    if ratio.ratio.ln().abs() <= floor {
        return within(copies_differ(floor));
    }
    directed(comparison.direction, ratio.ratio > 1.0, String::new())
}

fn within(why: String) -> Reading {
    say("quiet", "≈", "within noise", why)
}

fn copies_differ(floor: f64) -> String {
    if floor >= NOTHING_TOLD {
        return "this run is too noisy to tell speeds apart".into();
    }
    let percent = significant(100.0 * floor.exp_m1(), 2);
    format!("two copies of the reference may differ by {percent}\u{202f}%")
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
        with_chance(metric, direction, ratio, n, floor, 2.0 / 2f64.powi(n as i32))
    }

    fn with_chance(
        metric: &str,
        direction: Direction,
        ratio: (f64, f64, f64),
        n: usize,
        floor: f64,
        p: f64,
    ) -> &'static str {
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
            p: Some(p),
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

    /// Oracle: 2 / 2^8 = 0.8 % and 2 / 3^5 = 0.8 % are at most 1 %; 2 / 2^7 = 1.6 % and 2 / 3^4 = 2.5 % are not.
    #[test]
    fn a_clock_needs_pairs_that_equal_cells_give_at_most_once_in_a_hundred() {
        let slower = (1.5, 1.4, 1.6);
        let of = |ratio, n, floor| reading("ttft_ms", Direction::Lower, ratio, n, floor);
        assert_eq!([4, 5, 7, 8].map(|n| of(slower, n, 0.02)), ["open", "worse", "worse", "worse"]);
        assert_eq!([4, 5, 7, 8].map(|n| of(slower, n, 0.0)), ["open", "open", "open", "worse"]);
        // few pairs must be wholly beyond the copies, many only with their estimate: ln 1.5 = 0.41, ln 1.4 = 0.34
        assert_eq!([5, 7, 8].map(|n| of(slower, n, 0.38)), ["within noise", "within noise", "worse"]);
        // the interval excludes 1 at 95 %, and the test does not reach 1 %
        assert_eq!(with_chance("ttft_ms", Direction::Lower, slower, 12, 0.02, 0.011), "within noise");
        assert_eq!(with_chance("ttft_ms", Direction::Lower, slower, 12, 0.02, 0.01), "worse");
    }
}
