//! What two copies of the reference say about the speeds of a run.

use results::aggregate::Comparison;
use results::noise::{Noise, NoiseLevel};
use results::summary::Role;

use super::material::Material;
use crate::quantity::ratio_text;
use crate::wording;

/// `1.03× [0.83, 1.07] in “Generation speed” (tg128)`, with the length where the workload has several: of all comparisons of the copies
/// the one that reaches furthest from 1.
fn widest(noise: &Noise) -> Option<String> {
    let reach = |c: &Comparison| c.reach().unwrap_or(0.0);
    let c = noise.comparisons.iter().max_by(|a, b| reach(a).total_cmp(&reach(b))).unwrap_or(&noise.widest);
    let sweep = noise.comparisons.iter().any(|o| o.metric == c.metric && o.workload == c.workload && o.x != c.x);
    let at = c.x.filter(|_| sweep).map_or(String::new(), |x| format!(" at {x}"));
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
        widest(noise)?
    ))
}

/// How noisy a usable run was, with the numbers behind the word.
pub fn sentence(material: &Material<'_>) -> Option<String> {
    match &material.noise {
        Some(noise) if noise.level == NoiseLevel::Unusable => None,
        Some(noise) => Some(format!(
            "The run is {}: of what was timed, two copies of the reference differ most by {}.",
            noise.level.word(),
            widest(noise)?
        )),
        None => {
            let copied = material.planned.iter().any(|cell| cell.role == Role::AaControl);
            let unknown = match copied {
                true => "The second copy of the reference was timed too few times to say how noisy these speeds are.",
                false => "No second copy of the reference was timed, so the noise of these speeds is not known.",
            };
            material.is_timed().then(|| unknown.into())
        }
    }
}
