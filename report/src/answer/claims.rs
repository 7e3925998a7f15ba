//! Claims lead the answer: what a paper says and prints, what was measured here, and the verdict.

use results::claim::{ClaimResult, Tier, Verdict};
use results::statistics::Ratio;

use super::material::Material;
use crate::quantity::{Unit, ratio_text, trimmed};
use crate::wording;

/// Claims that are told one by one; the others are counted.
const MOST_TOLD: usize = 4;
/// Longest quotation of what a paper prints.
const MOST_LETTERS: usize = 200;

/// Claims with numbers one by one, then identities and the rest in a sentence each.
pub fn sentences(material: &Material<'_>) -> Vec<String> {
    let alone = material.claims.len() == 1;
    let (mut told, mut identities, mut counted) = (vec![], vec![], vec![]);
    for claim in material.claims {
        // the clock has nothing to report in a run whose copies disagree, and an open verdict says no more than that
        let mute = material.is_unusable() && matches!(claim.verdict, Verdict::Inconclusive | Verdict::Reported);
        match claim.tier {
            Tier::Identity if !alone => identities.push(claim),
            _ if claim.measured.is_none() || mute || told.len() == MOST_TOLD => counted.push(claim),
            _ => told.push(claim),
        }
    }
    let mut said: Vec<String> = told.iter().map(|claim| in_full(claim)).collect();
    said.extend(of_identities(&identities));
    said.extend(rest(&counted, told.is_empty() && identities.is_empty()));
    said
}

fn in_full(claim: &ClaimResult) -> String {
    let paper = paper(&claim.paper);
    let statement = claim.statement.trim().trim_end_matches('.');
    let published = match claim.published.trim() {
        "" | "identity" => String::new(),
        printed => format!(" the paper has {};", shortened(printed)),
    };
    let share = claim.found().map_or(String::new(), |words| format!("; {words}"));
    format!(
        "“{statement}” ({paper}):{published} here it is {}: {}{share}.",
        measured(claim),
        wording::verdict(claim.verdict).1
    )
}

/// Authors and title of `Dettmers et al., LLM.int8(), NeurIPS 2022, arXiv 2208.07339`.
fn paper(paper: &str) -> String {
    paper.split(", ").take(2).collect::<Vec<_>>().join(", ")
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MOST_LETTERS) {
        None => text.trim_end_matches('.').to_owned(),
        Some((at, _)) => {
            let cut = &text[..at];
            format!("{} …", cut.rsplit_once(' ').map_or(cut, |(words, _)| words))
        }
    }
}

fn measured(claim: &ClaimResult) -> String {
    let Some(value) = claim.measured.filter(|value| value.is_finite()) else { return "not measured".into() };
    let interval = claim.interval.filter(|(low, high)| low.is_finite() && high.is_finite() && low < high);
    if claim.unit == "×" {
        let (low, high) = interval.unwrap_or((value, value));
        return ratio_text(&Ratio { ratio: value, low, high, n: 0 });
    }
    let unit = Unit::of("", &claim.unit, value);
    let word = match (unit.suffix, claim.unit.as_str()) {
        ("", "" | "1") => String::new(),
        ("", other) => format!(" {other}"),
        (suffix, _) => format!(" {suffix}"),
    };
    let number = |v: f64| trimmed(v * unit.factor, 4);
    match interval {
        Some((low, high)) => format!("{} [{}, {}]{word}", number(value), number(low), number(high)),
        None => format!("{}{word}", number(value)),
    }
}

/// `3 identities: 2 hold; flash-exact is violated`.
fn of_identities(claims: &[&ClaimResult]) -> Option<String> {
    let holds = claims.iter().filter(|c| c.verdict == Verdict::Holds).count();
    let others: Vec<String> = claims
        .iter()
        .filter(|c| c.verdict != Verdict::Holds)
        .map(|c| format!("{}: {}", c.id, wording::verdict(c.verdict).1))
        .collect();
    match (claims.len(), holds) {
        (0, _) => None,
        (1, 1) => Some(format!("The identity {} holds.", claims[0].id)),
        (2, 2) => Some("Both identities of papers that were checked hold.".into()),
        (n, h) if n == h => Some(format!("All {n} identities of papers that were checked hold.")),
        (1, _) => Some(format!("The identity {}.", others[0])),
        (n, 1) => Some(format!("Of {n} identities of papers 1 holds; {}.", others.join("; "))),
        (n, h) => Some(format!("Of {n} identities of papers {h} hold; {}.", others.join("; "))),
    }
}

/// Claims that are only counted, by what became of them.
fn rest(claims: &[&ClaimResult], all: bool) -> Option<String> {
    let mut counts: Vec<(Verdict, usize)> = vec![];
    for claim in claims {
        match counts.iter_mut().find(|(verdict, _)| *verdict == claim.verdict) {
            Some((_, n)) => *n += 1,
            None => counts.push((claim.verdict, 1)),
        }
    }
    let words: Vec<String> = counts.iter().map(|(v, n)| format!("{n} {}", wording::verdict(*v).1)).collect();
    let (other, noun) =
        (if all { "" } else { "other " }, if claims.len() == 1 { "claim of a paper" } else { "claims of papers" });
    (!claims.is_empty()).then(|| format!("{} {other}{noun}: {}.", claims.len(), words.join(", ")))
}
