//! Rules and the words of verdicts.

use results::claim::{Tier, Verdict};

use super::measure::{Finding, Measured};
use super::show;
use crate::scenario::{Rule, Side};

/// The verdict of one part.
pub fn of_part(tier: Tier, rule: &Rule, finding: &Finding) -> Verdict {
    let measured = match finding {
        Finding::Missing(_) => return Verdict::Failed,
        Finding::NoGpu(_) => return Verdict::SkippedNoGpu,
        Finding::NoEffectHere { .. } => return Verdict::NotApplicableAtScale,
        Finding::Number(measured) => measured,
    };
    if rule.report_only || tier == Tier::Absolute {
        return Verdict::Reported;
    }
    if measured.value.is_nan() {
        return if tier == Tier::Identity { Verdict::Violated } else { Verdict::Failed };
    }
    let (low, high) = ends(rule, measured);
    let (at_least, at_most) = rule.bounds();
    let confirmed = at_least.is_none_or(|bound| low >= bound) && at_most.is_none_or(|bound| high <= bound);
    match tier {
        Tier::Identity if confirmed => Verdict::Holds,
        Tier::Identity => Verdict::Violated,
        _ if confirmed => Verdict::Reproduced,
        _ => short_of_the_bound(rule, low, high),
    }
}

/// What the rule looks at: the point or the interval.
fn ends(rule: &Rule, measured: &Measured) -> (f64, f64) {
    match measured.interval {
        Some(interval) if !rule.point => interval,
        _ => (measured.value, measured.value),
    }
}

fn short_of_the_bound(rule: &Rule, low: f64, high: f64) -> Verdict {
    let word = |claimed: bool, refuted: bool| match (claimed, refuted) {
        (true, _) => Verdict::DirectionOnly,
        (_, true) => Verdict::NotReproduced,
        _ => Verdict::Inconclusive,
    };
    match (rule.denied.or(rule.no_effect), rule.side()) {
        (Some(none), Some(Side::Above)) => word(low > none, high < none || high == none && low == high),
        (Some(none), Some(Side::Below)) => word(high < none, low > none || low == none && low == high),
        _ => {
            let below = rule.at_least.is_some_and(|bound| high < bound);
            let above = rule.at_most.is_some_and(|bound| low > bound);
            word(false, below || above)
        }
    }
}

/// The verdict of a claim: that of its worst part; parts that are only reported do not count.
pub fn combine<'a>(tier: Tier, parts: impl Iterator<Item = (&'a Rule, Verdict)>) -> Verdict {
    const WORST_FIRST: [Verdict; 8] = [
        Verdict::Failed,
        Verdict::Violated,
        Verdict::SkippedNoGpu,
        Verdict::NotReproduced,
        Verdict::NotApplicableAtScale,
        Verdict::Inconclusive,
        Verdict::DirectionOnly,
        Verdict::Reported,
    ];
    // a part that is only reported and could not be measured is still a failure to report
    let unmeasured = |verdict: Verdict| matches!(verdict, Verdict::Failed | Verdict::SkippedNoGpu);
    let counted =
        |(rule, verdict): &(&Rule, Verdict)| !rule.report_only || unmeasured(*verdict) || tier == Tier::Absolute;
    let verdicts: Vec<Verdict> = parts.filter(counted).map(|(_, verdict)| verdict).collect();
    if verdicts.is_empty() {
        return Verdict::Reported;
    }
    let worst = WORST_FIRST.into_iter().find(|word| verdicts.contains(word));
    worst.unwrap_or(if tier == Tier::Identity { Verdict::Holds } else { Verdict::Reproduced })
}

/// The rule as a reader would say it.
pub fn in_words(rule: &Rule) -> String {
    if rule.report_only {
        return "reported, not judged".into();
    }
    let (at_least, at_most) = rule.bounds();
    let mut words = match (at_least, at_most) {
        (Some(low), Some(high)) if low == high => format!("exactly {}", show(low)),
        (Some(low), Some(high)) => format!("between {} and {}", show(low), show(high)),
        (Some(low), None) => format!("at least {}", show(low)),
        (None, Some(high)) => format!("at most {}", show(high)),
        (None, None) => "no bound".into(),
    };
    if !rule.point {
        words = format!("whole 95 % interval {words}");
    }
    // a reader must see where the bound comes from when it is not the one that the claim itself would set
    if rule.smallest_effect.is_some_and(|smallest| at_least == Some(smallest) || at_most == Some(smallest)) {
        words += ", the smallest effect that matters";
    }
    if let Some(none) = rule.no_effect {
        words += &format!("; no effect is {}", show(none));
    }
    if let Some(parity) = rule.parity {
        words += &format!("; parity is {}", show(parity));
    }
    if let Some(denied) = rule.denied {
        words += &format!("; the claim denies {}", show(denied));
    }
    words
}
