//! How much of the paper's effect was found, as a number and in words.
//!
//! An effect is a distance from the value of no effect. Ratios, whose value of no effect is 1, are compared by their
//! logarithms: a perplexity of 0.9966 of another where the paper has 0.4839 is `ln 0.9966 / ln 0.4839`, half a per cent of
//! the effect. Slopes, fractions and differences are compared as they are: a closure of 0.3 where the paper has 0.6 is half.

use results::claim::Share;

use super::measure::Measured;
use super::show;
use crate::scenario::{Measure, Rule};

/// Shares beyond this are only said to be beyond it: the quantity is the same, the effect is not.
const LARGEST: f64 = 10.0;

/// The paper's number beside the measured one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// How much of the paper's effect was found.
    pub share: Option<Share>,
    /// In words; empty where there is nothing to compare with.
    pub words: String,
}

/// Puts `measured` beside the number that the paper prints.
pub fn found(measure: &Measure, rule: &Rule, measured: &Measured) -> Found {
    if !measured.value.is_finite() {
        return Found::default();
    }
    match (rule.no_effect, rule.parity, rule.paper) {
        (Some(none), _, Some(paper)) => of_effect(measure, none, paper, measured),
        (Some(_), _, None) => Found { share: None, words: "the paper prints no effect to compare with".into() },
        (None, Some(parity), paper) => {
            Found { share: None, words: from_parity(measure, rule, parity, paper, measured) }
        }
        (None, None, Some(paper)) => Found { share: None, words: format!("the paper prints {}", show(paper)) },
        (None, None, None) => Found::default(),
    }
}

/// Whether a distance from `origin` is one of logarithms.
fn is_ratio(measure: &Measure, origin: f64) -> bool {
    origin == 1.0 && !matches!(measure, Measure::Slope { .. } | Measure::Closure { .. } | Measure::Share { .. })
}

fn of_effect(measure: &Measure, none: f64, paper: f64, measured: &Measured) -> Found {
    let share = |value: f64| match is_ratio(measure, none) {
        true => value.ln() / paper.ln(),
        false => (value - none) / (paper - none),
    };
    let value = share(measured.value);
    if !value.is_finite() {
        return Found { share: None, words: format!("no share of the paper's {} can be given", show(paper)) };
    }
    let ends = measured.interval.map(|(low, high)| (share(low), share(high)));
    let interval = ends.map(|(a, b)| (a.min(b), a.max(b))).filter(|(low, high)| low.is_finite() && high.is_finite());
    let share = Share { value, interval };
    Found { share: Some(share), words: format!("{} (the paper's value is {})", in_words(&share), show(paper)) }
}

/// A share as a reader would say it.
fn in_words(share: &Share) -> String {
    let Share { value, interval } = *share;
    let number = match interval {
        Some((low, high)) => format!("{} [{}, {}]", percent(value), percent(low), percent(high)),
        None => percent(value),
    };
    let (low, high) = interval.unwrap_or((value, value));
    if value > LARGEST {
        return format!("more than {LARGEST:.0} times the paper's effect");
    }
    if high < 0.0 {
        return format!("the opposite of the paper's effect: {number} of it");
    }
    if low <= 0.0 {
        return format!("not told from none of the paper's effect: {number} of it");
    }
    if low > 1.0 {
        return format!("all of the paper's effect and more: {number} of it");
    }
    format!("{number} of the paper's effect")
}

/// How far from parity the number is, and how far the paper's is.
fn from_parity(measure: &Measure, rule: &Rule, parity: f64, paper: Option<f64>, measured: &Measured) -> String {
    let distance = |value: f64| match is_ratio(measure, parity) || parity == 1.0 {
        true => signed_percent(value - 1.0),
        false => format!("{}{}", if value < parity { "" } else { "+" }, show(value - parity)),
    };
    let number = match measured.interval {
        Some((low, high)) => format!("{} [{}, {}]", distance(measured.value), distance(low), distance(high)),
        None => distance(measured.value),
    };
    let (low, high) = measured.interval.unwrap_or((measured.value, measured.value));
    let number = match parity == 1.0 {
        true => format!("{number} from parity"),
        false => format!("{number} from the expected {}", show(parity)),
    };
    let Some(paper) = paper else { return format!("{number}; the paper prints no size") };
    // no worse than the paper's own loss, interval included, on every side that the claim bounds
    let no_lower = rule.at_least.is_none() || low >= paper.min(parity);
    let no_higher = rule.at_most.is_none() || high <= paper.max(parity);
    match no_lower && no_higher {
        true => format!("{number}, within the paper's {}", distance(paper)),
        false => format!("{number}, where the paper has {}", distance(paper)),
    }
}

/// Two significant digits, whole per cents from ten on.
fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    if percent == 0.0 || percent.abs() >= 9.95 {
        return format!("{percent:.0} %");
    }
    // the exponent after rounding, so that 0.09999 has as many digits as 0.1
    let exponent: i32 = format!("{percent:.1e}").split_once('e').and_then(|(_, e)| e.parse().ok()).unwrap_or(0);
    let digits = (1 - exponent).clamp(1, 4) as usize;
    format!("{percent:.digits$} %")
}

fn signed_percent(share: f64) -> String {
    let sign = if share > 0.0 { "+" } else { "" };
    format!("{sign}{}", percent(share))
}
