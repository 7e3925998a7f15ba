//! What two copies of the reference say about the speeds of a run.

use results::aggregate::Comparison;
use results::noise::NoiseLevel;

use super::material::{Material, is_clocked};
use crate::quantity::ratio_text;
use crate::wording;

/// `1.03× [0.83, 1.07] in generation speed (tg128, 16 tokens in the cache)`.
fn widest(c: &Comparison) -> Option<String> {
    let at = c.x.map_or(String::new(), |x| format!(" at {x}"));
    let name = wording::name(&c.metric);
    let workload = if c.workload.is_empty() { String::new() } else { format!(" ({}{at})", c.workload) };
    Some(format!("{} in “{name}”{workload}", ratio_text(&c.ratio?)))
}

/// Instead of every sentence about speed, where no speed means anything.
pub fn warning(material: &Material<'_>) -> Option<String> {
    let noise = material.noise.as_ref().filter(|_| material.is_unusable())?;
    Some(format!(
        "No speed can be told from this run: two copies of the same cell differ by {}. Run it again on a machine that does nothing \
         else, or with more repetitions (budget.seconds, budget.max_repetitions).",
        widest(&noise.widest)?
    ))
}

/// How noisy a usable run was, with the numbers behind the word.
pub fn sentence(material: &Material<'_>) -> Option<String> {
    match &material.noise {
        Some(noise) if noise.level == NoiseLevel::Unusable => None,
        Some(noise) => Some(format!(
            "The run is {}: of what was timed, two copies of the reference differ most by {}.",
            noise.level.word(),
            widest(&noise.widest)?
        )),
        None => {
            let timed = material.run.observations.iter().any(|row| {
                is_clocked(&row.metric) && !row.workload.is_empty() && row.metric != "load_s" && material.is_believed(row)
            });
            timed.then(|| "No second copy of the reference was timed, so the noise of these speeds is not known.".into())
        }
    }
}
