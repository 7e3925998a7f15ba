//! Rules of claims: what a number is compared with is stated, and the statements agree with each other.

use results::claim::Tier;

use super::Faults;
use crate::scenario::{Measure, Rule, Side};

/// Checks one rule at `path`.
pub(super) fn check(path: &str, tier: Tier, measure: &Measure, rule: &Rule, faults: &mut Faults<'_>) {
    let judged = rule.at_least.is_some() || rule.at_most.is_some();
    let title = "the rule judges nothing: no at_least, no at_most, not report_only";
    faults.need(judged || rule.report_only, path, title, "add a bound, or report_only = true");
    for (field, value) in fields(rule) {
        let title = format!("`{field}` is {value}, which is no number to compare with");
        faults.need(value.is_finite(), &format!("{path}.{field}"), &title, "give a finite number");
    }
    if fields(rule).into_iter().any(|(_, value)| !value.is_finite()) {
        return;
    }
    if tier == Tier::Identity {
        identity(path, rule, faults);
        return;
    }
    kinds(path, rule, faults);
    if let Some(none) = rule.no_effect {
        effect(path, rule, none, faults);
    }
    if let Some(parity) = rule.parity {
        nothing_lost(path, rule, parity, faults);
    }
    denied(path, rule, faults);
    let (at_least, at_most) = rule.bounds();
    if let Some((low, high)) = at_least.zip(at_most).filter(|(low, high)| low > high) {
        let title = format!("no number is at least {low} and at most {high}");
        faults.add(path, title, "bounds and the smallest effect that matters must leave a range where the claim holds");
    }
    let compares = matches!(
        measure,
        Measure::Ratio { .. } | Measure::BestRatio { .. } | Measure::Closure { .. } | Measure::Slope { .. }
    );
    if tier == Tier::Ratio && rule.judges() && compares && rule.no_effect.is_none() && rule.parity.is_none() {
        faults.add(
            path,
            "the rule does not say what the number is compared with",
            "state no_effect = 1.0 and smallest_effect where an effect is claimed, or parity = 1.0 where nothing may be lost",
        );
    }
}

fn fields(rule: &Rule) -> Vec<(&'static str, f64)> {
    let Rule { at_least, at_most, no_effect, smallest_effect, parity, denied, paper, .. } = *rule;
    let all = [
        ("at_least", at_least),
        ("at_most", at_most),
        ("no_effect", no_effect),
        ("smallest_effect", smallest_effect),
        ("parity", parity),
        ("denied", denied),
        ("paper", paper),
    ];
    all.into_iter().filter_map(|(field, value)| Some((field, value?))).collect()
}

/// An identity holds or is violated: it has no effect of which a share could be found.
fn identity(path: &str, rule: &Rule, faults: &mut Faults<'_>) {
    for (field, _) in fields(rule).into_iter().filter(|(field, _)| !field.starts_with("at_") && *field != "no_effect") {
        let title = format!("an identity has no `{field}`: it holds or is violated");
        faults.add(format!("{path}.{field}"), title, "leave it out, or make the claim's tier \"ratio\"");
    }
}

/// Fields that only mean something together.
fn kinds(path: &str, rule: &Rule, faults: &mut Faults<'_>) {
    if rule.no_effect.is_some() && rule.parity.is_some() {
        let title = "a rule claims an effect (`no_effect`) or that nothing is lost (`parity`), not both";
        faults.add(format!("{path}.parity"), title, "keep one of the two; use another part for the other");
    }
    let judged = rule.judges();
    for (field, given, needs, has, help) in [
        (
            "smallest_effect",
            rule.smallest_effect.is_some(),
            "no_effect",
            rule.no_effect.is_some(),
            "add no_effect, the value that would mean no effect, e.g. no_effect = 1.0 of a ratio",
        ),
        (
            "smallest_effect",
            rule.smallest_effect.is_some(),
            "a bound",
            judged,
            "add at_least or at_most, which also says which side is claimed, or leave smallest_effect out",
        ),
        (
            "denied",
            rule.denied.is_some(),
            "parity or no_effect",
            rule.parity.or(rule.no_effect).is_some(),
            "add parity, the value at which nothing is lost, e.g. parity = 1.0 of a ratio",
        ),
    ] {
        let title = format!("`{field}` means nothing without {needs}");
        faults.need(!given || has, &format!("{path}.{field}"), &title, help);
    }
}

/// Whether `value` lies beyond `origin` on `side`.
fn beyond(side: Side, value: f64, origin: f64) -> bool {
    match side {
        Side::Above => value > origin,
        Side::Below => value < origin,
    }
}

fn effect(path: &str, rule: &Rule, none: f64, faults: &mut Faults<'_>) {
    if let Some(paper) = rule.paper.filter(|paper| *paper == none || (none == 1.0 && *paper <= 0.0)) {
        let title = format!("the paper's {paper} is no effect of which a share could be found (no_effect is {none})");
        let help = "leave `paper` out where the paper prints no effect, or state parity where nothing may be lost";
        return faults.add(format!("{path}.paper"), title, help);
    }
    let Some(side) = rule.side() else { return };
    let (which, bound) = match side {
        Side::Above => ("at_least", rule.at_least),
        Side::Below => ("at_most", rule.at_most),
    };
    let word = if side == Side::Above { "above" } else { "below" };
    for (field, value) in [("smallest_effect", rule.smallest_effect), ("paper", rule.paper)] {
        let Some(value) = value.filter(|value| !beyond(side, *value, none)) else { continue };
        let title = format!("`{field}` is {value}, but {which} claims an effect {word} {none}");
        let help = format!("give a value {word} no_effect = {none}, or turn the bound round");
        faults.add(format!("{path}.{field}"), title, help);
    }
    let Some(bound) = bound.filter(|_| rule.judges()) else { return };
    if beyond(side, none, bound) {
        let title = format!("{which} = {bound} would confirm a number on the wrong side of no_effect = {none}");
        let help = "move the bound to the claimed side; where nothing may be lost, state parity instead of no_effect";
        faults.add(format!("{path}.{which}"), title, help);
    } else if bound == none && rule.smallest_effect.is_none() {
        let example = if side == Side::Above { "1.02" } else { "0.98" };
        let title = format!("{which} = {bound} would confirm any effect, however small");
        let help =
            format!("add the smallest effect that matters, fixed before measuring, e.g. smallest_effect = {example}");
        faults.add(path, title, help);
    }
}

fn nothing_lost(path: &str, rule: &Rule, parity: f64, faults: &mut Faults<'_>) {
    if !rule.judges() {
        return;
    }
    let low = rule.at_least.is_none_or(|bound| bound <= parity);
    let high = rule.at_most.is_none_or(|bound| bound >= parity);
    if !(low && high) {
        let title = format!("parity = {parity} itself would not confirm the claim");
        let help = "the bounds are the margin around parity; where an effect is claimed, state no_effect instead";
        faults.add(format!("{path}.parity"), title, help);
    }
}

/// What is denied lies beyond the bound that confirms, or at it: then nothing is direction-only.
fn denied(path: &str, rule: &Rule, faults: &mut Faults<'_>) {
    let Some(denied) = rule.denied.filter(|_| rule.judges()) else { return };
    // with both bounds the lower one counts, as everywhere in a rule
    let worse = match (rule.bounds(), rule.side()) {
        ((Some(bound), _), Some(Side::Above)) => denied <= bound,
        ((_, Some(bound)), _) => denied >= bound,
        _ => true,
    };
    let title = format!("`denied` is {denied}, a number that would confirm the claim");
    faults.need(
        worse,
        &format!("{path}.denied"),
        &title,
        "give a value at the bound or beyond it, where the claim is refuted",
    );
    let harder = rule.no_effect.zip(rule.side()).is_none_or(|(none, side)| !beyond(side, none, denied));
    let title = format!("`denied` is {denied}, on the wrong side of no_effect");
    faults.need(
        harder,
        &format!("{path}.denied"),
        &title,
        "an effect of the wrong sign is refuted without it: leave it out",
    );
}
