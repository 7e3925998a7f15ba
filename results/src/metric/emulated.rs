//! What GPU kernels did on an emulated device, counted. No clock is involved: these numbers are equal on every run, and say
//! nothing about speed.

use super::{Definition, Kind, Value};
use crate::observation::Direction;
use crate::trace::{Counted, Event, Trace};

const NO_NOISE: &str = "none: counted while the compiled code was executed";

/// A counted metric; fewer is better.
const fn counted(
    id: &'static str,
    formula_id: &'static str,
    formula: &'static str,
    unit: &'static str,
    derive: fn(&Trace) -> Vec<Value>,
) -> Definition {
    let (direction, kind) = (Direction::Lower, Kind::Deterministic);
    Definition { id, formula_id, formula, unit, direction, kind, noise: NO_NOISE, pooled: false, derive }
}

/// Instructions of all threads.
pub const INSTRUCTIONS: Definition = counted(
    "emulated_instructions",
    "emulated_instructions@1",
    "PTX instructions executed, summed over the threads of one launch; divergent lanes count when active",
    "1",
    |trace| each(trace, |c| Some(c.thread_instructions as f64)),
);

/// Tensor-core work.
pub const MMA_FLOPS: Definition = counted(
    "emulated_mma_flops",
    "emulated_mma_flops@1",
    "operations of the tensor-core instructions executed (a multiply-add is two), tiles outside the mask included",
    "FLOP",
    |trace| each(trace, |c| (c.mma_flops > 0).then_some(c.mma_flops as f64)),
);

/// Traffic to device memory.
pub const MEMORY_BYTES: Definition = counted(
    "emulated_memory_bytes",
    "emulated_memory_bytes@1",
    "32-byte sectors of device memory that warps asked for, read and written, times 32; no cache is modelled",
    "B",
    |trace| each(trace, |c| Some(c.memory_bytes as f64)),
);

/// Shared memory passes wasted.
pub const BANK_CONFLICTS: Definition = counted(
    "emulated_bank_conflicts",
    "emulated_bank_conflicts@1",
    "passes over shared memory beyond the least that a request of its width needs, over requests",
    "1",
    |trace| each(trace, |c| (c.shared_requests > 0).then(|| c.bank_conflicts as f64 / c.shared_requests as f64)),
);

fn each(trace: &Trace, figure: fn(&Counted) -> Option<f64>) -> Vec<Value> {
    let mut values = Vec::new();
    for (item, event) in trace.events.iter().filter(|event| matches!(event, Event::Emulated { .. })).enumerate() {
        let Event::Emulated { op, rung, shape, counted } = event else { continue };
        values.extend(figure(counted).map(|value| Value::new(item, value).of(&format!("{op}/{rung}/{shape}"))));
    }
    values
}
