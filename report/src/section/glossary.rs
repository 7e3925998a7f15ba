//! The definition of every metric that the page prints.

use results::metric::METRICS;
use serde::Serialize;

use super::{Content, Section};
use crate::digest::Digest;
use crate::wording;

/// See the module.
pub const SECTION: Section = Section {
    id: "glossary",
    title: "Glossary",
    reading: "The formula behind every metric above. The version after @ changes whenever the meaning of a number changes, so numbers with \
              different versions are never compared.",
    template: include_str!("../../templates/glossary.tera"),
    content,
};

#[derive(Serialize)]
struct Entry {
    name: String,
    id: &'static str,
    formula_id: &'static str,
    formula: &'static str,
    unit: &'static str,
    better: &'static str,
    noise: &'static str,
}

#[derive(Serialize)]
struct Values {
    entries: Vec<Entry>,
    own: Vec<String>,
}

fn content(digest: &Digest) -> tera::TeraResult<Content> {
    let used = |id: &str| digest.aggregates.iter().any(|a| wording::base(&a.metric) == id);
    let entries = METRICS.iter().filter(|metric| used(metric.id())).map(|metric| Entry {
        name: wording::name(metric.id()),
        id: metric.id(),
        formula_id: metric.formula_id(),
        formula: metric.formula(),
        unit: metric.unit(),
        better: wording::better(metric.direction()),
        noise: metric.noise(),
    });
    let entries: Vec<Entry> = entries.collect();
    let mut own: Vec<String> = Vec::new();
    for a in &digest.aggregates {
        if wording::rank(&a.metric) == METRICS.len() && !own.contains(&a.metric) {
            own.push(a.metric.clone());
        }
    }
    if entries.is_empty() && own.is_empty() {
        return Ok(Content::Absent("no metric has been measured yet"));
    }
    Content::of(&Values { entries, own })
}
