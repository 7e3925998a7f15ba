//! What papers claim beside what was measured here, judged by a rule that was written before the run.

use results::claim::{ClaimResult, PartResult, Tier};
use results::judgement::{self, Judgement};
use serde::Serialize;

use super::{Content, Section};
use crate::chart::forest;
use crate::claim_rule::{Bounds, bounds};
use crate::digest::Digest;
use crate::quantity::{Unit, trimmed};
use crate::wording;

/// See the module.
pub const SECTION: Section = Section {
    id: "claims",
    title: "Claims",
    reading: "What a paper says, what stands for it on this machine and at this scale, and the rule that judges it. The dot is the measured \
              value with its 95 % interval, the diamond is what the paper prints for it, the dashed line is no effect or no loss, and the \
              shaded range is where the claim holds. The share of the paper’s effect compares ratios by their logarithms and anything else \
              by its distance from no effect. Not reproduced is a result, too. Verdicts on other models were kept from runs on other days.",
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
    headline: Number<'a>,
    others: Vec<Number<'a>>,
    elsewhere: Vec<Elsewhere<'a>>,
}

/// The verdict on another model, which is kept with the program.
#[derive(Serialize)]
struct Elsewhere<'a> {
    model: String,
    tone: &'static str,
    icon: &'static str,
    word: &'static str,
    headline: Number<'a>,
    command: &'a str,
    when: &'a str,
}

/// One number of a claim, ready to print.
#[derive(Serialize)]
struct Number<'a> {
    label: &'a str,
    measured: String,
    interval: String,
    paper: String,
    found: &'a str,
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
    let here = judgement::of(digest.run).first().map_or(String::new(), |row| row.model.clone());
    Content::of(&Values { claims: digest.run.claims.iter().map(|each| claim(each, &here)).collect() })
}

/// What is kept of the claim `id` on models other than `here`: the headline of each.
fn elsewhere(id: &str, here: &str) -> Vec<Elsewhere<'static>> {
    let rows = || judgement::kept().iter().filter(|row| row.claim == id && row.model != here);
    let mut models: Vec<&'static str> = vec![];
    for row in rows() {
        if !models.contains(&row.model.as_str()) {
            models.push(&row.model);
        }
    }
    let headlines =
        models.iter().filter_map(|&model| judgement::headline(rows().filter(move |row| row.model == model)));
    let shown = |row: &'static Judgement| {
        let (icon, word) = wording::verdict(row.verdict);
        let tone = wording::tone(row.verdict);
        let headline = number(row.measured, row.low.zip(row.high), &row.unit, None, tone);
        let when = row.started.split('T').next().unwrap_or_default();
        Elsewhere { model: row.subject(), tone, icon, word, headline, command: &row.command, when }
    };
    headlines.map(shown).collect()
}

fn claim<'a>(claim: &'a ClaimResult, here: &str) -> Claim<'a> {
    let (icon, word) = wording::verdict(claim.verdict);
    let tone = wording::tone(claim.verdict);
    let others = claim.parts.iter().skip(1).filter(|part| part.measured.is_some());
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
        headline: claim.parts.first().map_or_else(|| from_text(claim, tone), part),
        others: others.map(part).collect(),
        elsewhere: elsewhere(&claim.id, here),
    }
}

fn part(part: &PartResult) -> Number<'_> {
    let bounds = Bounds { low: part.at_least, high: part.at_most };
    let rule = forest::Rule { bounds, origin: part.origin, paper: part.paper };
    let tone = wording::tone(part.verdict);
    Number {
        label: &part.label,
        found: &part.found,
        ..number(part.measured, part.interval, &part.unit, Some(rule), tone)
    }
}

/// Of a record that keeps its rule as text only.
fn from_text<'a>(claim: &'a ClaimResult, tone: &str) -> Number<'a> {
    let rule = bounds(&claim.rule).map(|bounds| forest::Rule { bounds, ..forest::Rule::default() });
    number(claim.measured, claim.interval, &claim.unit, rule, tone)
}

fn number<'a>(
    measured: Option<f64>,
    interval: Option<(f64, f64)>,
    unit: &str,
    rule: Option<forest::Rule>,
    tone: &str,
) -> Number<'a> {
    let known = Unit::of("", unit, measured.unwrap_or(0.0));
    let text = |value: f64| match (known.suffix, unit) {
        ("", "" | "1") => trimmed(value, 4),
        ("", unit) => format!("{}\u{202f}{unit}", trimmed(value, 4)),
        _ => known.text(value),
    };
    let scaled = |value: f64| trimmed(value * known.factor, 4);
    let measured = measured.filter(|value| value.is_finite());
    let interval = interval.filter(|(low, high)| low.is_finite() && high.is_finite() && low < high);
    // a number that is only reported, and for which the paper prints nothing, has nothing to be held against
    let held_against = rule.filter(|rule| rule.bounds != Bounds::default() || rule.paper.is_some());
    let bar = measured.zip(held_against).map(|(value, rule)| {
        let mut label = format!("measured {}", text(value));
        if let Some((low, high)) = interval {
            label += &format!(" [{}, {}]", scaled(low), scaled(high));
        }
        if rule.bounds != Bounds::default() {
            label += &format!(", the rule wants {}", rule.bounds.words(|bound| trimmed(bound, 4)));
        }
        if let Some(paper) = rule.paper {
            label += &format!(", the paper prints {}", text(paper));
        }
        forest::against(rule, value, interval, tone, &label)
    });
    Number {
        label: "",
        measured: measured.map_or("not measured".into(), text),
        interval: interval.map_or(String::new(), |(low, high)| format!("[{}, {}]", scaled(low), scaled(high))),
        paper: rule.and_then(|rule| rule.paper).map_or(String::new(), text),
        found: "",
        bar: bar.unwrap_or_default(),
    }
}
