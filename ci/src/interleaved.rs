//! One run that holds both sides: `infermark bench-against` prefixes the cells of the base with `base/`, the head's with `head/`.

use results::run::Run;

use crate::side::Side;

/// Prefix of the base's cell ids.
pub const BASE_PREFIX: &str = "base/";

/// Prefix of the head's cell ids.
pub const HEAD_PREFIX: &str = "head/";

/// Whether `run` holds a base and a head.
pub fn is_interleaved(run: &Run) -> bool {
    let has = |prefix: &str| Side::from(run).summary.cells.iter().any(|cell| cell.id.starts_with(prefix));
    has(BASE_PREFIX) && has(HEAD_PREFIX)
}

/// The two sides of `run`, prefixes removed: cells that were measured next to each other now share their id.
/// Facts of the machine belong to both; claims without a prefix to the head.
pub fn split(run: &Run) -> (Run, Run) {
    (side(run, BASE_PREFIX, "base", false), side(run, HEAD_PREFIX, "head", true))
}

fn side(run: &Run, prefix: &str, name: &str, takes_plain_claims: bool) -> Run {
    let mut side = run.clone();
    side.observations.retain_mut(|row| strip(&mut row.cell, prefix));
    if let Some(summary) = &mut side.summary {
        summary.run_id = format!("{} ({name})", summary.run_id);
        summary.cells.retain_mut(|cell| {
            strip(&mut cell.label, prefix);
            strip(&mut cell.id, prefix)
        });
    }
    side.facts.retain_mut(|fact| matches!(fact.scope.as_str(), "run" | "machine") || strip(&mut fact.scope, prefix));
    side.claims.retain_mut(|claim| {
        let plain = !claim.id.starts_with(BASE_PREFIX) && !claim.id.starts_with(HEAD_PREFIX);
        strip(&mut claim.id, prefix) || (plain && takes_plain_claims)
    });
    side
}

/// Removes `prefix` where it stands; says whether it did.
fn strip(text: &mut String, prefix: &str) -> bool {
    let rest = text.strip_prefix(prefix).map(str::to_owned);
    rest.map(|rest| *text = rest).is_some()
}
