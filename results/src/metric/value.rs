//! Numbers and checks that a scenario names itself.

use std::collections::BTreeMap;

use super::{Definition, Kind, Value};
use crate::observation::Direction;
use crate::trace::{Event, Trace};

/// A number under the name the scenario gave it; the metric id of its rows is that name.
pub const VALUE: Definition = Definition {
    id: "value",
    formula_id: "value@1",
    formula: "a count, error or slope input as the workload computed it, under its own name; x orders a sweep",
    unit: "",
    direction: Direction::None,
    kind: Kind::Quality,
    noise: "stated by the scenario",
    pooled: false,
    derive: |trace| {
        named(trace, |event| match event {
            Event::Value { name, x, value } => {
                Some(Value { x: Some(*x), name: Some(name.clone()), ..Value::new(0, *value) })
            }
            _ => None,
        })
    },
};

/// The distance from an independent oracle; the metric id of its rows is `check:<name>`.
pub const CHECK: Definition = Definition {
    id: "check",
    formula_id: "check@1",
    formula: "distance from an independent oracle; above its limit the cell is wrong and its speed is not shown",
    unit: "",
    direction: Direction::Lower,
    kind: Kind::Deterministic,
    noise: "none between runs on one instruction set",
    pooled: false,
    derive: |trace| {
        named(trace, |event| match event {
            Event::Check { name, value, limit, passed } => Some(Value {
                name: Some(format!("check:{name}")),
                failure: if *passed { String::new() } else { format!("{name}: {value:e} is not within {limit:e}") },
                ..Value::new(0, *value)
            }),
            _ => None,
        })
    },
};

/// Values of the events that `pick` takes, items counted per name.
fn named(trace: &Trace, pick: fn(&Event) -> Option<Value>) -> Vec<Value> {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    let mut values: Vec<Value> = trace.events.iter().filter_map(pick).collect();
    for value in &mut values {
        let count = counts.entry(value.name.clone().unwrap_or_default()).or_default();
        value.item = *count;
        *count += 1;
    }
    values
}
