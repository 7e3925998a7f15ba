//! Speed of one kernel over a batch of identical calls. `Work` and `duration_ns` of the event are both totals of the batch.

use super::{Definition, Kind, Value};
use crate::observation::Direction;
use crate::trace::{Event, Trace, Work};

const CLOCK_NOISE: &str = "clock frequency, neighbours on the machine, cache state before the batch";

/// Time of one call.
pub const US_PER_CALL: Definition = Definition {
    id: "us_per_call",
    formula_id: "us_per_call@1",
    formula: "duration of a batch of identical calls / calls",
    unit: "us",
    direction: Direction::Lower,
    kind: Kind::Timing,
    noise: CLOCK_NOISE,
    pooled: false,
    derive: |trace| batches(trace, |batch| (batch.calls > 0).then(|| batch.ns * 1e-3 / batch.calls as f64)),
};

/// Floating-point rate.
pub const GFLOP_S: Definition = Definition {
    id: "gflop_s",
    formula_id: "gflop_s@1",
    formula: "counted floating-point operations of the batch (a multiply-add is two) / duration",
    unit: "GFLOP/s",
    direction: Direction::Higher,
    kind: Kind::Timing,
    noise: CLOCK_NOISE,
    pooled: false,
    derive: |trace| batches(trace, |batch| rate(batch.work.flops, batch.ns)),
};

/// Integer rate.
pub const GOP_S: Definition = Definition {
    id: "gop_s",
    formula_id: "gop_s@1",
    formula: "counted integer operations of int8 products in the batch (a multiply-add is two) / duration",
    unit: "GOP/s",
    direction: Direction::Higher,
    kind: Kind::Timing,
    noise: CLOCK_NOISE,
    pooled: false,
    derive: |trace| batches(trace, |batch| rate(batch.work.int8_ops, batch.ns)),
};

/// Byte rate.
pub const GB_S: Definition = Definition {
    id: "gb_s",
    formula_id: "gb_s@1",
    formula: "counted bytes that the batch must read / duration, 1 GB = 1e9 B",
    unit: "GB/s",
    direction: Direction::Higher,
    kind: Kind::Timing,
    noise: CLOCK_NOISE,
    pooled: false,
    derive: |trace| batches(trace, |batch| rate(batch.work.bytes, batch.ns)),
};

struct Batch {
    calls: u64,
    ns: f64,
    work: Work,
}

/// Counts per nanosecond are billions per second.
fn rate(count: u64, ns: f64) -> Option<f64> {
    (count > 0).then(|| count as f64 / ns)
}

fn batches(trace: &Trace, figure: fn(&Batch) -> Option<f64>) -> Vec<Value> {
    let mut values = Vec::new();
    for (item, event) in trace.events.iter().filter(|event| matches!(event, Event::Kernel { .. })).enumerate() {
        let Event::Kernel { op, rung, shape, calls, duration_ns, work } = event else { continue };
        if *duration_ns == 0 {
            continue;
        }
        let batch = Batch { calls: *calls, ns: *duration_ns as f64, work: *work };
        values.extend(figure(&batch).map(|value| Value::new(item, value).of(&format!("{op}/{rung}/{shape}"))));
    }
    values
}
