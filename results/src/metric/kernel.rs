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

/// A kernel that a metric's id names: `us_per_call:gemv/v1_avx2/1x64x64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variant<'a> {
    /// Operation.
    pub op: &'a str,
    /// Rung of the operation's ladder, or the variant on an axis.
    pub rung: &'a str,
    /// Shape of the problem; it may hold slashes.
    pub shape: &'a str,
}

/// The kernel in the part of `id`; `None` where the part is no kernel. Checks name theirs in free text.
pub fn variant(id: &str) -> Option<Variant<'_>> {
    let (base, part) = id.split_once(':')?;
    if base == super::value::CHECK.id || super::metric(base).is_none() {
        return None;
    }
    let mut pieces = part.splitn(3, '/');
    let (op, rung, shape) = (pieces.next()?, pieces.next()?, pieces.next()?);
    (!op.is_empty() && !rung.is_empty() && !shape.is_empty()).then_some(Variant { op, rung, shape })
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_names_a_kernel_or_does_not() {
        let found = variant("us_per_call:attention/naive/n512 h8/8 d64").expect("a kernel");
        assert_eq!((found.op, found.rung, found.shape), ("attention", "naive", "n512 h8/8 d64"));
        for id in ["us_per_call", "roof_fraction:decode", "ppl:gptq-256", "check:a/b/c", "mine:a/b/c", "gb_s:a//c"] {
            assert_eq!(variant(id), None, "{id}");
        }
    }
}
