//! Which matrices mind being quantized, and what mixtures chosen from that are worth.

use super::{Definition, Kind, Value};
use crate::observation::Direction;
use crate::trace::{Event, Trace};

const ROUNDING: &str = "none but the order of summation";

/// Damage of one projection of one layer.
pub const SENSITIVITY_KL: Definition = Definition {
    id: "sensitivity_kl",
    formula_id: "sensitivity_kl@1",
    formula: "mean over tokens of KL(full precision || the model with this projection of layer x quantized and nothing else)",
    unit: "nat",
    direction: Direction::Lower,
    kind: Kind::Quality,
    noise: ROUNDING,
    pooled: false,
    derive: |trace| {
        let values = trace.events.iter().filter_map(|event| match event {
            Event::Sensitivity { weights, projection, layer, kl, .. } => {
                Some(Value::new(*layer as usize, *kl).at(f64::from(*layer)).of(&format!("{projection}, {weights}")))
            }
            _ => None,
        });
        values.collect()
    },
};

/// Perplexity of a mixture.
pub const MIXTURE_PPL: Definition = Definition {
    id: "mixture_ppl",
    formula_id: "mixture_ppl@1",
    formula: "exp(mean loss per token) on text that no choice was made on; x = bits per weight of the layers' matrices, scales included",
    unit: "1",
    direction: Direction::Lower,
    kind: Kind::Quality,
    noise: ROUNDING,
    pooled: false,
    derive: |trace| mixtures(trace, |ppl, _, _| ppl),
};

/// Divergence of a mixture.
pub const MIXTURE_KL: Definition = Definition {
    id: "mixture_kl",
    formula_id: "mixture_kl@1",
    formula: "mean over tokens of KL(full precision || mixture) on text that no choice was made on; x = bits per weight",
    unit: "nat",
    direction: Direction::Lower,
    kind: Kind::Quality,
    noise: ROUNDING,
    pooled: false,
    derive: |trace| mixtures(trace, |_, kl, _| kl),
};

/// What the sensitivities add up to.
pub const MIXTURE_PREDICTED_KL: Definition = Definition {
    id: "mixture_predicted_kl",
    formula_id: "mixture_predicted_kl@1",
    formula: "sum of the sensitivities of a mixture's parts: its KL if errors of different matrices added up",
    unit: "nat",
    direction: Direction::Lower,
    kind: Kind::Quality,
    noise: ROUNDING,
    pooled: false,
    derive: |trace| mixtures(trace, |_, _, predicted| predicted),
};

fn mixtures(trace: &Trace, figure: fn(f64, f64, f64) -> f64) -> Vec<Value> {
    let values = trace.events.iter().filter_map(|event| match event {
        Event::Mixture { series, bits, ppl, kl, predicted_kl, .. } => {
            Some((series, *bits, figure(*ppl, *kl, *predicted_kl)))
        }
        _ => None,
    });
    values.enumerate().map(|(i, (series, bits, value))| Value::new(i, value).at(bits).of(series)).collect()
}
