//! What an emulated device has shown and cannot show, and rungs that a real one lost.

use super::material::Material;
use super::names::joined;
use crate::wording;

/// Kernels checked on the emulated device, and kernels that gave no time on a real one.
pub fn sentences(material: &Material<'_>) -> Vec<String> {
    let checked = material.aggregates("emulated_instructions");
    let mut ops: Vec<&str> = checked.iter().filter_map(|a| wording::part(&a.metric).split('/').next()).collect();
    ops.retain(|op| !op.is_empty());
    ops.dedup();
    let mut said = vec![];
    if !checked.is_empty() {
        let which = if ops.is_empty() { String::new() } else { format!(" ({})", joined(&ops, "and")) };
        said.push(format!(
            "On the emulated device {} kernels{which} gave what their oracles say; nothing is timed there.",
            checked.len()
        ));
    }
    let lost = material.cells.iter().filter_map(|cell| material.value(&cell.id, "rungs_lost")).fold(0.0, f64::max);
    if lost > 0.0 {
        said.push(format!(
            "{lost} kernels failed or disagreed with their oracles: they have no times here, and the provenance says why."
        ));
    }
    said
}
