//! Sampling filters against their definitions.

use anyhow::Result;
use decoding::identities as measured;

use super::value;
use crate::worker::{Held, Outcome};

/// `mismatches` of the kept set over random logits, `shift_mismatches` after a number was added to all of them, and
/// `p_value` of sampled frequencies, x = p_base.
pub fn min_p_definition(held: &Held) -> Result<Outcome> {
    let seed = held.scenario().seed;
    let set = measured::min_p_definition(1000, 2000, seed)?;
    let mut events = vec![
        value("trials", 0.0, set.trials as f64),
        value("mismatches", 0.0, set.mismatches as f64),
        value("shift_mismatches", 0.0, set.shift_mismatches as f64),
    ];
    for base in [0.02f32, 0.1, 0.3] {
        let test = measured::min_p_frequencies(64, base, 100_000, seed)?;
        events.push(value("p_value", base, test.p_value));
    }
    Ok(events.into())
}
