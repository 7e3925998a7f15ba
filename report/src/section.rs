//! The sections of the report. One section is one file below, one template beside it, and one line in [`SECTIONS`].

use serde::Serialize;
use tera::Context;

use crate::digest::Digest;

mod answer;
mod caveats;
mod claims;
mod glossary;
mod latency;
mod metrics;
mod mixtures;
mod models;
mod pareto;
mod provenance;
mod ranking;
mod roofline;
mod sweeps;

/// A part of the page.
pub struct Section {
    /// Anchor.
    pub id: &'static str,
    /// Heading; the entry of the contents.
    pub title: &'static str,
    /// How to read it, in one or two sentences for a newcomer.
    pub reading: &'static str,
    /// Template of the body; the heading is the page's.
    pub template: &'static str,
    /// What the template gets.
    pub content: fn(&Digest) -> tera::TeraResult<Content>,
}

/// What a section has to say about a run.
pub enum Content {
    /// Values for the template.
    Shown(Box<Context>),
    /// Nothing, and why.
    Absent(&'static str),
}

impl Content {
    /// The fields of `values` as template variables.
    pub fn of<T: Serialize>(values: &T) -> tera::TeraResult<Content> {
        Ok(Content::Shown(Box::new(Context::from_serialize(values)?)))
    }
}

/// All sections in the order of the page.
pub const SECTIONS: &[&Section] = &[
    &answer::SECTION,
    &pareto::SECTION,
    &ranking::SECTION,
    &metrics::SECTION,
    &latency::SECTION,
    &roofline::SECTION,
    &claims::SECTION,
    &mixtures::SECTION,
    &sweeps::SECTION,
    &models::SECTION,
    &caveats::SECTION,
    &glossary::SECTION,
    &provenance::SECTION,
];
