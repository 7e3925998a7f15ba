//! Papers' claims: identities measured on purpose, and verdicts over the observations of a run.
//!
//! [`identity()`] measures; [`judge`] only reads rows, so that a verdict can be given again from a record alone.

mod evidence;
mod identity;
mod measure;
mod share;
mod speedup;
mod too_noisy;
mod verdict;

pub use identity::{identities, identity};

use anyhow::Result;
use results::claim::{ClaimResult, PartResult, Tier, Verdict};
use results::run::Run;

use crate::cell::ResolvedScenario;
use crate::scenario::{Claim, ClaimPart};
use evidence::Evidence;
use measure::{Finding, Measured, measure};
use share::Found;
use too_noisy::TooNoisy;
use verdict::{combine, of_part};

/// One part of a claim with its number.
struct Judged<'a> {
    part: &'a ClaimPart,
    finding: Finding,
    verdict: Verdict,
    /// How much of the paper's effect it is.
    found: Found,
    /// Why a clock's number was not judged.
    too_noisy: Option<String>,
}

impl<'a> Judged<'a> {
    fn new(part: &'a ClaimPart, tier: Tier, evidence: &Evidence<'_>, noise: Option<&TooNoisy>) -> Judged<'a> {
        let finding = match measure(&part.measure, evidence) {
            Finding::Missing(why) if evidence.wants_absent_gpu(&part.measure) => Finding::NoGpu(why),
            finding => finding,
        };
        let verdict = of_part(tier, &part.rule, &finding);
        let found = match &finding {
            Finding::Number(measured) => share::found(&part.measure, &part.rule, measured),
            _ => Found::default(),
        };
        let too_noisy = match &finding {
            Finding::Number(measured) => {
                noise.and_then(|noise| noise.forbids(&part.measure, &part.rule, verdict, measured))
            }
            _ => None,
        };
        let verdict = if too_noisy.is_some() { Verdict::Inconclusive } else { verdict };
        Judged { part, finding, verdict, found, too_noisy }
    }

    fn result(&self) -> PartResult {
        let measured = self.finding.measured();
        let rule = &self.part.rule;
        let (at_least, at_most) = rule.bounds();
        PartResult {
            label: self.part.label.clone(),
            measured: measured.map(|m| m.value).filter(|value| value.is_finite()),
            interval: measured.and_then(|m| m.interval),
            unit: measured.map(|m| m.unit.clone()).unwrap_or_default(),
            verdict: self.verdict,
            at_least,
            at_most,
            origin: rule.no_effect.or(rule.parity),
            paper: rule.paper,
            share: self.found.share,
            found: self.found.words.clone(),
            why_open: self.why_open(),
        }
    }

    fn why_open(&self) -> String {
        match &self.finding {
            Finding::Number(_) => self.too_noisy.clone().unwrap_or_default(),
            Finding::NoEffectHere { why, .. } | Finding::NoGpu(why) | Finding::Missing(why) => why.clone(),
        }
    }
}

/// Judges every claim of `scenario` from the rows of `run`; `command` is what measures them again.
pub fn judge(scenario: &ResolvedScenario, run: &Run, command: &str) -> Result<Vec<ClaimResult>> {
    let evidence = Evidence::new(scenario, run);
    let noise = TooNoisy::of(scenario, run);
    let judge = |claim| judge_one(claim, &evidence, noise.as_ref(), command);
    Ok(scenario.scenario.claims.iter().map(judge).collect())
}

/// Ids of the claims that look at a cell of which `left_out` is true: nobody asked for it, so they are not judged.
pub fn of_left_out(scenario: &ResolvedScenario, run: &Run, left_out: impl Fn(&str) -> bool) -> Vec<String> {
    let evidence = Evidence::new(scenario, run);
    let looks = |part: &ClaimPart| {
        let mut selections = part.measure.selections().into_iter();
        selections.any(|(_, select)| evidence.cell(select).is_ok_and(|cell| left_out(&cell.id)))
    };
    let claims = scenario.scenario.claims.iter().filter(|claim| claim.parts.iter().any(looks));
    claims.map(|claim| claim.id.clone()).collect()
}

fn judge_one(claim: &Claim, evidence: &Evidence<'_>, noise: Option<&TooNoisy>, command: &str) -> ClaimResult {
    let parts: Vec<Judged<'_>> =
        claim.parts.iter().map(|part| Judged::new(part, claim.tier, evidence, noise)).collect();
    let judged = combine(claim.tier, parts.iter().map(|p| (&p.part.rule, p.verdict)));
    let verdict = match (&claim.not_applicable, claim.tier) {
        (Some(_), _) => Verdict::NotApplicableAtScale,
        (None, Tier::Absolute) if !matches!(judged, Verdict::Failed | Verdict::SkippedNoGpu) => Verdict::Reported,
        _ => judged,
    };
    let headline = parts.first().and_then(|p| p.finding.measured());
    ClaimResult {
        id: claim.id.clone(),
        paper: claim.paper.clone(),
        source: claim.source.clone(),
        statement: claim.statement.clone(),
        tier: claim.tier,
        published: claim.published.clone(),
        counterpart: claim.counterpart.clone(),
        rule: parts
            .iter()
            .map(|p| format!("{}: {}", p.part.label, verdict::in_words(&p.part.rule)))
            .collect::<Vec<_>>()
            .join("; "),
        measured: headline.map(|m| m.value),
        interval: headline.and_then(|m| m.interval),
        unit: headline.map(|m| m.unit.clone()).unwrap_or_default(),
        verdict,
        reason: reason(claim, &parts),
        command: command.into(),
        parts: parts.iter().map(Judged::result).collect(),
    }
}

/// Every part with its number, interval, rule and word; parts that are missing for one reason share the sentence.
fn reason(claim: &Claim, parts: &[Judged<'_>]) -> String {
    let mut sentences: Vec<(Vec<&str>, String)> = vec![];
    for part in parts {
        let said = outcome(part);
        match sentences.last_mut() {
            Some((labels, last)) if *last == said => labels.push(&part.part.label),
            _ => sentences.push((vec![&part.part.label], said)),
        }
    }
    let sentences = sentences.iter().map(|(labels, said)| format!("{}: {said}", labels.join(" and ")));
    let mut text =
        claim.not_applicable.as_ref().map_or(String::new(), |why| format!("{}. ", why.trim().trim_end_matches('.')));
    text += &sentences.collect::<Vec<_>>().join("; ");
    text
}

/// What came of one part, without its name.
fn outcome(part: &Judged<'_>) -> String {
    let word = part.verdict.word();
    match &part.finding {
        Finding::Number(m) => {
            let mut said = format!("{} ({}): {word}", number(m), verdict::in_words(&part.part.rule));
            if let Some(noise) = &part.too_noisy {
                said += &format!(", because {noise}");
            }
            if !part.found.words.is_empty() {
                said += &format!("; {}", part.found.words);
            }
            said
        }
        Finding::NoEffectHere { why, measured } => {
            let shown = measured.as_ref().map_or(String::new(), |m| format!("{}; ", number(m)));
            format!("{shown}{word}: {why}")
        }
        Finding::NoGpu(why) | Finding::Missing(why) => format!("{word}: {why}"),
    }
}

fn number(m: &Measured) -> String {
    let unit = match m.unit.as_str() {
        "" | "1" => String::new(),
        "×" => "×".into(),
        unit => format!(" {unit}"),
    };
    let mut text = format!("{}{unit}", show(m.value));
    if let Some((low, high)) = m.interval {
        text += &format!(" [{}, {}]", show(low), show(high));
    }
    if m.n > 1 {
        text += &format!(", n = {}", m.n);
    }
    if !m.note.is_empty() {
        text += &format!(", {}", m.note);
    }
    text
}

/// Four significant digits; exponents only where a reader would count zeros.
fn show(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if !(1e-3..1e6).contains(&size) => format!("{value:.2e}"),
        _ if value.fract() == 0.0 => format!("{value}"),
        size => {
            let digits = (3 - size.log10().floor() as i32).clamp(0, 6) as usize;
            format!("{value:.digits$}")
        }
    }
}

#[cfg(test)]
mod tests;
