//! What papers claim beside what was measured here, judged by a rule that was written before the run.

use results::claim::{ClaimResult, Tier};
use serde::Serialize;

use super::{Content, Section};
use crate::chart::forest;
use crate::claim_rule::bounds;
use crate::digest::Digest;
use crate::quantity::{Unit, trimmed};
use crate::wording;

/// See the module.
pub const SECTION: Section = Section {
    id: "claims",
    title: "Claims",
    reading: "What a paper says, what stands for it on this machine and at this scale, and the rule that judges it. The bar shows the measured \
              value with its 95 % interval; the shaded range is where the claim holds. Not reproduced is a result, too.",
    template: include_str!("../../templates/claims.tera"),
    content,
};

#[derive(Serialize)]
struct Claim<'a> {
    claim: &'a ClaimResult,
    tier: &'static str,
    tone: &'static str,
    icon: &'static str,
    word: &'static str,
    measured: String,
    interval: String,
    bar: String,
}

#[derive(Serialize)]
struct Values<'a> {
    claims: Vec<Claim<'a>>,
}

fn content(digest: &Digest) -> tera::TeraResult<Content> {
    if digest.run.claims.is_empty() {
        return Ok(Content::Absent("this scenario tests no paper’s claim"));
    }
    Content::of(&Values { claims: digest.run.claims.iter().map(claim).collect() })
}

fn claim(claim: &ClaimResult) -> Claim<'_> {
    let (icon, word) = wording::verdict(claim.verdict);
    let tone = wording::tone(claim.verdict);
    let unit = if claim.unit == "1" { "" } else { claim.unit.as_str() };
    let known = Unit::of("", &claim.unit, claim.measured.unwrap_or(0.0));
    let text = |value: f64| match known.suffix {
        "" if unit.is_empty() => trimmed(value, 4),
        "" => format!("{}\u{202f}{unit}", trimmed(value, 4)),
        _ => known.text(value),
    };
    let number = |value: f64| trimmed(value * known.factor, 4);
    let measured = claim.measured.filter(|value| value.is_finite());
    let interval = claim.interval.filter(|(low, high)| low.is_finite() && high.is_finite() && low < high);
    let bar = measured.zip(bounds(&claim.rule)).map(|(value, bounds)| {
        let label = format!("measured {}, the rule wants {}", text(value), bounds.words(|bound| trimmed(bound, 4)));
        forest::against(bounds, value, interval, tone, &label)
    });
    Claim {
        claim,
        tier: match claim.tier {
            Tier::Identity => "identity: must hold at any scale",
            Tier::Ratio => "ordering or ratio: threshold for small scale",
            Tier::Absolute => "absolute figure: reported, never gated",
        },
        tone,
        icon,
        word,
        measured: measured.map_or("not measured".into(), text),
        interval: interval.map_or(String::new(), |(low, high)| format!("[{}, {}]", number(low), number(high))),
        bar: bar.unwrap_or_default(),
    }
}
