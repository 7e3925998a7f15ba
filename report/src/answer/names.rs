//! Names of cells, alone and in sets: a set that is a product of parts is said as one, "int8 and greedy, with naive or flash".

use results::observation::Axes;
use results::summary::CellSummary;

use super::material::Material;

/// Labels that a set without a pattern lists.
const MOST_LISTED: usize = 4;

/// `once`, `twice`, `7 times`.
pub fn times(n: usize) -> String {
    match n {
        1 => "once".into(),
        2 => "twice".into(),
        n => format!("{n} times"),
    }
}

/// The part of a cell on one axis.
pub fn place<'a>(cell: &'a CellSummary, axis: &str) -> &'a str {
    cell.axes.named().into_iter().find(|(name, _)| *name == axis).map_or("", |(_, part)| part)
}

/// The different parts of `cells` on `axis`, in their order.
pub fn parts<'a>(cells: &[&'a CellSummary], axis: &str) -> Vec<&'a str> {
    let mut parts = vec![];
    for cell in cells {
        let part = place(cell, axis);
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    parts
}

/// The axes on which `cells` differ.
pub fn varying(cells: &[&CellSummary]) -> Vec<&'static str> {
    let axes = Axes::default().named().map(|(name, _)| name);
    axes.into_iter().filter(|axis| parts(cells, axis).len() > 1).collect()
}

/// Of cells that nothing tells apart, the one with fewest parts that are not the reference's.
pub fn simplest<'a>(material: &Material<'_>, ids: &[&'a str]) -> Option<&'a str> {
    let departures = |id: &str| {
        let cell = material.cells.iter().find(|c| c.id == id)?;
        let reference = material.reference?;
        let pairs = cell.axes.named().into_iter().zip(reference.axes.named());
        Some(pairs.filter(|(own, other)| own != other).count())
    };
    ids.iter().copied().min_by_key(|id| departures(id).unwrap_or(usize::MAX))
}

/// The name of a set of cells, and whether the verb is a plural's.
pub fn set(material: &Material<'_>, ids: &[&str]) -> (String, bool) {
    let cells: Vec<&CellSummary> =
        ids.iter().filter_map(|id| material.cells.iter().copied().find(|c| c.id == *id)).collect();
    if cells.len() < 2 || cells.len() < ids.len() {
        return (listed(&ids.iter().map(|id| material.label(id)).collect::<Vec<_>>()), ids.len() > 1);
    }
    let axes = varying(&material.cells);
    let values: Vec<Vec<&str>> = axes.iter().map(|axis| parts(&cells, axis)).collect();
    let product: usize = values.iter().map(Vec::len).product();
    // as many different cells as there are combinations are all combinations
    if product != cells.len() || !material.is_by_axes() || values.iter().any(|v| v.len() > MOST_LISTED) {
        return (listed(&cells.iter().map(|c| material.label(&c.id)).collect::<Vec<_>>()), true);
    }
    let fixed: Vec<&str> = values.iter().filter(|v| v.len() == 1).map(|v| v[0]).collect();
    let open: Vec<String> = values.iter().filter(|v| v.len() > 1).map(|v| joined(v, "or")).collect();
    let open = open.join(" and ");
    let name = if fixed.is_empty() { open } else { format!("{}, with {open}", joined(&fixed, "and")) };
    (name, true)
}

/// `a, b and c`.
pub fn joined(words: &[&str], last: &str) -> String {
    match words {
        [] => String::new(),
        [word] => (*word).to_owned(),
        [first @ .., end] => format!("{} {last} {end}", first.join(", ")),
    }
}

/// Some labels, and how many more there are.
pub fn listed(labels: &[&str]) -> String {
    match labels.len() {
        0..=MOST_LISTED => joined(labels, "and"),
        n => {
            let more = n - MOST_LISTED;
            let noun = if more == 1 { "other" } else { "others" };
            format!("{} and {more} {noun}", labels[..MOST_LISTED].join(", "))
        }
    }
}
