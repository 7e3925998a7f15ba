//! What to doubt before quoting a number.

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
        Some(summary) if !summary.complete => {
            caveats.push(format!(
                "The run is partial: some cells or repetitions are still owed. Continue it with: {} --resume",
                summary.command
            ));
        }
        Some(_) => {}
    }
    let stated = digest.summary().into_iter().flat_map(|summary| &summary.caveats).chain(&digest.run.warnings);
    for caveat in stated {
        if !caveats.contains(caveat) {
            caveats.push(caveat.clone());
        }
    }
    let missing = missing(digest);
    if caveats.is_empty() && missing.is_empty() {
        caveats
            .push("None were recorded. The numbers still hold for this machine, this build and this text only.".into());
    }
    Content::of(&Values { caveats, missing })
}
