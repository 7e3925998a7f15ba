//! How many bytes: the smallest weights that keep the quality, or the range where quality was not measured.

use super::material::Material;
use super::names::{set, simplest};
use super::quality::{Loss, Quality};
use crate::quantity::Unit;

/// Metrics of which the first that differs between cells is told.
const WHAT: [(&str, &str); 3] = [
    ("weights_bytes", "weights"),
    ("kv_logical_bytes", "keys and values"),
    ("kv_resident_bytes", "allocated keys and values"),
];

/// The smallest cell in the first sort of memory that differs between cells.
pub fn sentence(material: &Material<'_>, quality: &Quality) -> Option<String> {
    WHAT.into_iter().find_map(|(metric, what)| of(material, quality, metric, what))
}

fn of(material: &Material<'_>, quality: &Quality, metric: &str, what: &str) -> Option<String> {
    let reference = material.reference?;
    let found = material.aggregates(metric);
    let bytes = |id: &str| found.iter().filter(|a| a.cell == id).filter_map(|a| a.median).reduce(f64::max);
    let of_reference = bytes(&reference.id)?;
    let text = |value: f64| Unit::of("", "B", value).short(value);
    let cells = material.cells.iter().map(|c| c.id.as_str());
    let known: Vec<(&str, f64)> = cells.filter_map(|id| Some((id, bytes(id)?))).collect();
    if known.iter().all(|(_, b)| *b == of_reference) {
        return None;
    }
    let keeps = |id: &str| !quality.measured || quality.loss(id).is_some_and(Loss::is_small);
    let least = known.iter().filter(|(id, _)| keeps(id)).map(|(_, b)| *b).reduce(f64::min)?;
    if least >= of_reference {
        return Some(format!(
            "No cell that is told to lose at most 1 % of perplexity has smaller {what} than the reference, {}.",
            text(of_reference)
        ));
    }
    let ids: Vec<&str> = known.iter().filter(|(id, b)| keeps(id) && *b == least).map(|(id, _)| *id).collect();
    let (name, among) = match quality.measured {
        // what else varies does not change the weights: the simplest of them stands for all
        true => (
            material.label(simplest(material, &ids)?).to_owned(),
            " among cells told to lose at most 1 % of perplexity",
        ),
        false => (set(material, &ids).0, " (perplexity was not measured)"),
    };
    Some(format!("The smallest {what}{among} are those of {name}: {} instead of {}.", text(least), text(of_reference)))
}
