//! What to doubt before quoting a number.

use results::progress::Progress;
use results::run::Run;
use results::summary::{Ending, Summary};
use serde::Serialize;

use super::pareto::{Missing, missing};
use super::{Content, Section};
use crate::digest::Digest;

/// See the module.
pub const SECTION: Section = Section {
    id: "caveats",
    title: "Caveats",
    reading: "What limits these numbers. Read this before quoting any of them.",
    template: include_str!("../../templates/caveats.tera"),
    content,
};

#[derive(Serialize)]
struct Values {
    caveats: Vec<String>,
    missing: Vec<Missing>,
}

fn content(digest: &Digest) -> tera::TeraResult<Content> {
    let mut caveats: Vec<String> = Vec::new();
    match digest.summary() {
        None => caveats.push("The run has no summary: it ended before it wrote one, or was copied without it.".into()),
        Some(summary) if !summary.complete => caveats.extend(unfinished(digest.run, summary)),
        Some(_) => {}
    }
    let stated = digest.summary().into_iter().flat_map(|summary| &summary.caveats).chain(&digest.run.warnings);
    for caveat in stated {
        if !caveats.contains(caveat) {
            caveats.push(caveat.clone());
        }
    }
    let stated = digest.summary().into_iter().flat_map(|summary| &summary.missing);
    let stated: Vec<String> = stated.filter(|sentence| !caveats.contains(sentence)).cloned().collect();
    caveats.extend(stated);
    let missing = missing(digest);
    if caveats.is_empty() && missing.is_empty() {
        caveats
            .push("None were recorded. The numbers still hold for this machine, this build and this text only.".into());
    }
    Content::of(&Values { caveats, missing })
}

/// How far a run is that did not end, and the command that continues it.
fn unfinished(run: &Run, summary: &Summary) -> Option<String> {
    let said = |sentence: &String| !summary.continue_with.is_empty() && sentence.contains(&summary.continue_with);
    if summary.ending == Some(Ending::Skipped) || summary.missing.iter().any(said) {
        return None;
    }
    let how_far = match Progress::of(run) {
        Some(progress) => progress.in_words(),
        None => "some cells or repetitions are still owed".into(),
    };
    let command = match summary.continue_with.as_str() {
        "" => "infermark run --resume with its folder",
        command => command,
    };
    Some(format!("The run is partial: {how_far}. Continue it with: {command}"))
}
