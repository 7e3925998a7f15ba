//! What to do with a byte budget: mixtures of weights that sensitivities recommend, measured beside uniform ones.

use serde::Serialize;

use super::{Content, Section};
use crate::digest::Digest;
use crate::quantity::significant;

/// See the module.
pub const SECTION: Section = Section {
    id: "mixtures",
    title: "Under a byte budget",
    reading: "Each recommended mixture has the least sum of sensitivities its budget allows; what counts is the measured divergence beside it. \
              A recommended row pays when no uniform row of as many bits or fewer is better.",
    template: include_str!("../../templates/mixtures.tera"),
    content,
};

#[derive(Serialize)]
struct Row {
    series: String,
    bits: String,
    ppl: String,
    kl: String,
    predicted: String,
}

#[derive(Serialize)]
struct Mixture {
    title: String,
    toml: String,
}

#[derive(Serialize)]
struct Values {
    rows: Vec<Row>,
    mixtures: Vec<Mixture>,
}

const FACT: &str = "recommended_weights_";

fn content(digest: &Digest) -> tera::TeraResult<Content> {
    let figure = |metric: &str, like: &results::aggregate::Aggregate| {
        let part = crate::wording::part(&like.metric);
        let found = digest.aggregates.iter().find(|a| {
            (a.cell == like.cell && a.workload == like.workload && a.x == like.x)
                && crate::wording::base(&a.metric) == metric
                && crate::wording::part(&a.metric) == part
        });
        found.and_then(|a| a.median).map_or("–".into(), |value| significant(value, 4))
    };
    let mut found: Vec<_> = digest
        .aggregates
        .iter()
        .filter(|a| crate::wording::base(&a.metric) == "mixture_ppl" && a.median.is_some() && a.x.is_some())
        .collect();
    if found.is_empty() {
        return Ok(Content::Absent("no sensitivity was measured"));
    }
    found.sort_by(|a, b| a.x.unwrap_or(0.0).total_cmp(&b.x.unwrap_or(0.0)));
    let rows = found.iter().map(|a| Row {
        series: crate::wording::part(&a.metric).to_owned(),
        bits: significant(a.x.unwrap_or(f64::NAN), 4),
        ppl: figure("mixture_ppl", a),
        kl: figure("mixture_kl", a),
        predicted: figure("mixture_predicted_kl", a),
    });
    let mixtures = digest.run.facts.iter().filter_map(|fact| {
        let budget = fact.key.strip_prefix(FACT)?.strip_suffix("_bits")?;
        Some(Mixture { title: format!("Recommended at {budget} bits per weight"), toml: fact.value.clone() })
    });
    Content::of(&Values { rows: rows.collect(), mixtures: mixtures.collect() })
}
