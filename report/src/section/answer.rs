//! The question, the answer in words, how the run ended, and the verdicts at a glance.

use results::claim::Verdict;
use results::metric::{Kind, metric};
use results::noise::{NoiseLevel, noise};
use results::observation::{Observation, Status};
use results::summary::{Ending, Role};
use serde::Serialize;

use super::{Content, Section};
use crate::answer::{answer, progress};
use crate::digest::Digest;
use crate::quantity::duration;
use crate::wording;

/// See the module.
pub const SECTION: Section = Section {
    id: "answer",
    title: "Answer",
    reading: "",
    template: include_str!("../../templates/answer.tera"),
    content,
};

#[derive(Serialize)]
struct Values {
    scenario: String,
    question: String,
    analysis: String,
    answer: Vec<Vec<Piece>>,
    complete: bool,
    state: String,
    facts: Vec<String>,
    command: String,
    verdicts: Vec<VerdictChip>,
    judged: String,
    noise: Option<NoiseBadge>,
}

/// A stretch of a sentence: plain words, or a command between backquotes.
#[derive(Serialize)]
struct Piece {
    code: bool,
    text: String,
}

/// `sentence` cut at its backquotes; where they are no pairs it stays whole.
fn pieces(sentence: &str) -> Vec<Piece> {
    let parts: Vec<&str> = sentence.split('`').collect();
    if parts.len().is_multiple_of(2) {
        return vec![Piece { code: false, text: sentence.to_owned() }];
    }
    let piece = |(i, text): (usize, &&str)| Piece { code: i % 2 == 1, text: (*text).to_owned() };
    parts.iter().enumerate().map(piece).filter(|piece| !piece.text.is_empty()).collect()
}

/// The noise of the run in a word, with the numbers behind it.
#[derive(Serialize)]
struct NoiseBadge {
    tone: &'static str,
    icon: &'static str,
    word: &'static str,
    numbers: String,
}

#[derive(Serialize)]
struct VerdictChip {
    id: String,
    tone: &'static str,
    icon: &'static str,
    word: &'static str,
}

fn content(digest: &Digest) -> tera::TeraResult<Content> {
    let summary = digest.summary();
    let has_rows = |id: &str| digest.aggregates.iter().any(|a| a.cell == id && a.median.is_some());
    let n_ok = digest.cells.iter().filter(|cell| cell.status == Status::Ok && has_rows(&cell.id)).count();
    let cells = format!("{n_ok} of {} cells measured", digest.cells.len());
    let complete = summary.is_some_and(|summary| summary.complete);
    let mut facts = Vec::new();
    if let Some(summary) = summary {
        facts.push(summary.started.replace('T', " ").replace('Z', " UTC"));
        facts.push(duration(summary.elapsed_s));
    }
    facts.push(cells);
    facts.extend(digest.run.fact("machine", "cpu_model"));
    facts.extend(threads(digest));
    let words = |pick: fn(&results::summary::Summary) -> &str| summary.map_or(String::new(), |s| pick(s).to_owned());
    let question = words(|s| &s.question);
    // a run that was killed has not been summed up: its rows say what there is
    let said = summary.map(|s| s.answer.clone()).filter(|a| !a.is_empty()).unwrap_or_else(|| answer(digest.run));
    Content::of(&Values {
        scenario: words(|s| &s.scenario),
        question: if question.is_empty() { "What did this run measure?".into() } else { question },
        analysis: words(|s| &s.analysis),
        answer: said.iter().map(|sentence| pieces(sentence)).collect(),
        complete: complete && !matches!(summary.and_then(|s| s.ending), Some(Ending::Skipped | Ending::Failed)),
        state: state(digest),
        facts,
        command: words(|s| &s.command),
        verdicts: chips(digest),
        judged: judged(digest),
        noise: noise_badge(digest),
    })
}

/// `None` where no clock was read, so that there is nothing to doubt.
fn noise_badge(digest: &Digest) -> Option<NoiseBadge> {
    let clock = |row: &Observation| {
        row.value.is_some() && !row.workload.is_empty() && row.metric != "load_s" && is_of_clock(&row.metric)
    };
    if !digest.run.observations.iter().any(clock) {
        return None;
    }
    let id = |role| digest.cells.iter().find(|cell| cell.role == role).map(|cell| cell.id.as_str());
    let known = |why: &str| NoiseBadge { tone: "quiet", icon: "?", word: "unknown", numbers: why.to_owned() };
    let (Some(reference), Some(control)) = (id(Role::Reference), id(Role::AaControl)) else {
        return Some(known(
            "No second copy of the reference ran (budget.aa_control), so nothing says how noisy the clocks were.",
        ));
    };
    Some(match noise(&digest.run.observations, reference, control) {
        None => known(
            "The two copies of the reference share fewer than five repetitions, which say nothing about the noise.",
        ),
        Some(found) => {
            let (tone, icon) = match found.level {
                NoiseLevel::Quiet => ("good", "✔"),
                NoiseLevel::Noisy => ("open", "◐"),
                NoiseLevel::Unusable => ("bad", "✘"),
            };
            NoiseBadge { tone, icon, word: found.level.word(), numbers: found.numbers() }
        }
    })
}

fn is_of_clock(id: &str) -> bool {
    metric(id).is_some_and(|metric| metric.kind() == Kind::Timing)
}

/// How the run ended, and how far it is where it did not.
fn state(digest: &Digest) -> String {
    let Some(summary) = digest.summary() else { return "partial: the run was not summed up".into() };
    let partial = || format!("partial: {}", progress(digest.run));
    match summary.ending {
        Some(Ending::Interrupted) => format!("stopped, {}", partial()),
        Some(Ending::Skipped) if !summary.complete => "skipped: nothing was measured".into(),
        Some(Ending::Skipped) => "skipped: a workload was measured on no cell".into(),
        Some(Ending::Failed) => "failed: a cell or the measurement of a claim failed".into(),
        _ if summary.complete => "complete".into(),
        _ => partial(),
    }
}

fn threads(digest: &Digest) -> Option<String> {
    let n: u32 = digest.run.observations.iter().map(|row| row.threads).max().filter(|n| *n > 0)?;
    Some(if n == 1 { "1 thread".into() } else { format!("{n} threads") })
}

fn chips(digest: &Digest) -> Vec<VerdictChip> {
    let chip = |claim: &results::claim::ClaimResult| {
        let (icon, word) = wording::verdict(claim.verdict);
        VerdictChip { id: claim.id.clone(), tone: wording::tone(claim.verdict), icon, word }
    };
    digest.run.claims.iter().map(chip).collect()
}

/// `5 claims from papers: 3 confirmed, 1 refuted, 1 open.`
fn judged(digest: &Digest) -> String {
    let claims = &digest.run.claims;
    let n = |pick: &dyn Fn(&results::claim::Verdict) -> bool| claims.iter().filter(|c| pick(&c.verdict)).count();
    let (confirmed, refuted) = (n(&|v| v.is_confirmed()), n(&|v| v.is_refuted()));
    let (reported, no_gpu) = (n(&|v| *v == Verdict::Reported), n(&|v| *v == Verdict::SkippedNoGpu));
    let open = claims.len() - confirmed - refuted - reported - no_gpu;
    let counts = [
        (confirmed, "confirmed"),
        (refuted, "refuted"),
        (open, "open"),
        (reported, "reported, not judged"),
        (no_gpu, "skipped, no GPU"),
    ];
    let counts: Vec<String> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
    let noun = if claims.len() == 1 { "claim from a paper" } else { "claims from papers" };
    format!("{} {noun}: {}", claims.len(), counts.join(", "))
}
