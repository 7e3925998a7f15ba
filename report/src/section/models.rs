//! The models: size, and how good a language model each is beside counting baselines.

use serde::Serialize;

use super::{Content, Section};
use crate::digest::Digest;
use crate::quantity::{Unit, significant};

/// See the module.
pub const SECTION: Section = Section {
    id: "models",
    title: "Models",
    reading: "What was run, and whether it is a language model worth believing: a unigram model only knows how common each token is, a \
              bigram model also the token before. A useful model has a clearly lower perplexity than both.",
    template: include_str!("../../templates/models.tera"),
    content,
};

#[derive(Serialize)]
struct Card {
    source: String,
    parameters: String,
    bytes: String,
    facts: Vec<(String, String)>,
    bars: Vec<Bar>,
}

/// A perplexity beside others on the same text.
#[derive(Serialize)]
struct Bar {
    name: &'static str,
    value: String,
    percent: f64,
}

#[derive(Serialize)]
struct Values {
    cards: Vec<Card>,
}

fn content(digest: &Digest) -> tera::TeraResult<Content> {
    let models = digest.summary().map_or(&[][..], |summary| &summary.models);
    if models.is_empty() {
        return Ok(Content::Absent("this run used no model"));
    }
    let cards = models.iter().map(|model| Card {
        source: model.source.clone(),
        parameters: significant(model.parameters as f64, 6),
        bytes: Unit::of("", "B", model.f32_bytes as f64).text(model.f32_bytes as f64),
        facts: model.facts.clone(),
        bars: model.facts.iter().find_map(|(key, text)| bars(key, text)).unwrap_or_default(),
    });
    Content::of(&Values { cards: cards.collect() })
}

/// Bars from a fact such as `19.8 on …; a unigram model has 743.1, a bigram model 112.0 …`; `None` when it does not read so.
fn bars(key: &str, text: &str) -> Option<Vec<Bar>> {
    if !key.contains("perplexity") {
        return None;
    }
    let after = |word: &str| first_number(&text[text.find(word)? + word.len()..]);
    let values = [("this model", first_number(text)?), ("bigram", after("bigram")?), ("unigram", after("unigram")?)];
    let largest = values.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let bar = |(name, value): (&'static str, f64)| Bar {
        name,
        value: significant(value, 3),
        percent: 100.0 * value / largest,
    };
    (largest > 0.0).then(|| values.map(bar).into())
}

fn first_number(text: &str) -> Option<f64> {
    let words = text.split(|c: char| !(c.is_ascii_digit() || c == '.'));
    words.filter_map(|word| word.trim_end_matches('.').parse().ok()).find(|value: &f64| value.is_finite())
}
