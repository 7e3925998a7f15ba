//! Shares of items answered: the reference's with its interval, and which cells are told apart from it, item by item.
//!
//! Told apart is what McNemar's exact test says at 5 % after allowing for the number of cells (Benjamini and Hochberg). Of the others nothing is
//! said but that: two shares may differ on paper and not be told apart.

use results::aggregate::{Aggregate, Comparison, aggregate, compare};
use results::observation::Observation;
use results::statistics::benjamini_hochberg;

use super::material::Material;
use crate::quantity::significant;

/// The level of "told apart".
const LEVEL: f64 = 0.05;
/// Cells that a sentence names.
const MOST_NAMED: usize = 3;
/// Workloads that get a sentence.
const MOST_TASKS: usize = 4;

/// One sentence per task, the first ones.
pub fn sentences(material: &Material<'_>) -> Vec<String> {
    let shares = [("acc", "answers"), ("exact_match", "says in greedy decoding")];
    let rows: Vec<Observation> =
        ["acc", "acc_item", "exact_match", "exact_match_item"].iter().flat_map(|base| material.rows(base)).collect();
    let Some(reference) = material.reference.map(|cell| cell.id.as_str()) else { return vec![] };
    let (all, compared) = (aggregate(&rows), compare(&rows, reference));
    let mut workloads: Vec<&str> = vec![];
    for row in rows.iter().filter(|row| row.metric == "acc" && row.cell == reference) {
        if !workloads.contains(&row.workload.as_str()) {
            workloads.push(&row.workload);
        }
    }
    let of = |workload: &&str| {
        let own = |a: &&Aggregate| a.cell == reference && a.workload == *workload;
        // what was hidden is said or not: that is the harder question
        let (metric, verb) = *shares.iter().rev().find(|(m, _)| all.iter().filter(own).any(|a| a.metric == *m))?;
        let share = all.iter().filter(own).find(|a| a.metric == metric)?;
        let others: Vec<&Comparison> =
            compared.iter().filter(|c| c.workload == *workload && c.metric == metric && is_cell(material, c)).collect();
        Some(sentence(material, share, verb, &others))
    };
    workloads.iter().filter_map(of).take(MOST_TASKS).collect()
}

/// Whether the compared cell ended well and is not the control.
fn is_cell(material: &Material<'_>, comparison: &Comparison) -> bool {
    material.cells.iter().any(|cell| cell.id == comparison.cell)
}

fn sentence(material: &Material<'_>, share: &Aggregate, verb: &str, others: &[&Comparison]) -> String {
    let percent = |value: Option<f64>| significant(100.0 * value.unwrap_or(f64::NAN), 3);
    let own = format!(
        "Of the {} items of {}, {} {verb} {} % [{}, {}]",
        share.n,
        share.workload,
        material.label(&share.cell),
        percent(share.median),
        percent(share.low),
        percent(share.high)
    );
    if others.is_empty() {
        return format!("{own}.");
    }
    let adjusted = benjamini_hochberg(&others.iter().map(|c| c.p.unwrap_or(1.0)).collect::<Vec<_>>());
    let mut told: Vec<&Comparison> =
        others.iter().zip(adjusted).filter(|(_, p)| *p < LEVEL).map(|(comparison, _)| *comparison).collect();
    told.sort_by(|a, b| a.difference.estimate.total_cmp(&b.difference.estimate));
    let rest = others.len() - told.len();
    if told.is_empty() {
        let cells = match rest {
            1 => "the other cell is not".to_string(),
            n => format!("none of the other {n} cells is"),
        };
        return format!("{own}; {cells} told apart from it, item by item (McNemar's exact test).");
    }
    let point = |value: f64| significant(100.0 * value, 2);
    let name = |c: &&Comparison| {
        let d = c.difference;
        format!("{} ({} points [{}, {}])", material.label(&c.cell), point(d.estimate), point(d.low), point(d.high))
    };
    let mut named: Vec<String> = told.iter().take(MOST_NAMED).map(name).collect();
    if told.len() > MOST_NAMED {
        named.push(format!("{} more", told.len() - MOST_NAMED));
    }
    let last = named.pop().unwrap_or_default();
    let named = if named.is_empty() { last } else { format!("{} and {last}", named.join(", ")) };
    let rest = match rest {
        0 => String::new(),
        1 => "; the other cell is not".into(),
        n => format!("; the other {n} cells are not"),
    };
    let verb = if told.len() == 1 { "is" } else { "are" };
    format!("{own}; told apart from it, item by item (McNemar's exact test), {verb} {named}{rest}.")
}
