//! How near a timed region came to the limits of this machine that the same run measured (the roofline model of Williams et al., 2009).
//!
//! A region cannot be faster than its counted work over the measured limits; a fraction above one means that the count, the limit or
//! the clock is wrong, and the report has to say so. Bytes per pass that fit the last-level cache are held against the cache's bandwidth.

use super::{Definition, Kind, Value};
use crate::observation::Direction;
use crate::trace::{Event, Roof, Trace, Work};

/// A fraction above this cannot be timer noise.
pub const EXCESS_LIMIT: f64 = 1.05;

const NOISE: &str = "that of the region and that of the roof's own measurement";

/// Share of the read bandwidth.
pub const BANDWIDTH_FRACTION: Definition = Definition {
    id: "roof_bandwidth_fraction",
    formula_id: "roof_bandwidth_fraction@1",
    formula: "counted bytes / duration / streaming bandwidth (of the cache when the bytes of one pass fit the last-level cache)",
    unit: "1",
    direction: Direction::Higher,
    kind: Kind::Timing,
    noise: NOISE,
    pooled: false,
    derive: |trace| regions(trace, |bound| bound.bytes_s),
};

/// Share of the f32 multiply-add rate.
pub const FLOP_FRACTION: Definition = Definition {
    id: "roof_flop_fraction",
    formula_id: "roof_flop_fraction@1",
    formula: "counted floating-point operations / duration / measured f32 fused multiply-add rate",
    unit: "1",
    direction: Direction::Higher,
    kind: Kind::Timing,
    noise: NOISE,
    pooled: false,
    derive: |trace| regions(trace, |bound| bound.flops_s),
};

/// Share of the int8 rate.
pub const INT8_FRACTION: Definition = Definition {
    id: "roof_int8_fraction",
    formula_id: "roof_int8_fraction@1",
    formula: "counted integer operations / duration / measured int8 dot product rate",
    unit: "1",
    direction: Direction::Higher,
    kind: Kind::Timing,
    noise: NOISE,
    pooled: false,
    derive: |trace| regions(trace, |bound| bound.int8_s),
};

/// Share of the limit that binds.
pub const ROOF_FRACTION: Definition = Definition {
    id: "roof_fraction",
    formula_id: "roof_fraction@1",
    formula: "max(bytes / bandwidth, flops / FMA rate, int8 operations / int8 rate) / duration: lower bound of the time over the time",
    unit: "1",
    direction: Direction::Higher,
    kind: Kind::Timing,
    noise: NOISE,
    pooled: false,
    derive: |trace| regions(trace, Bound::binding),
};

/// Flag of an impossible speed.
pub const ROOF_EXCESS: Definition = Definition {
    id: "roof_excess",
    formula_id: "roof_excess@1",
    formula: "1 when roof_fraction > 1.05 (faster than the machine: distrust the count, the roof or the clock), else 0",
    unit: "1",
    direction: Direction::Lower,
    kind: Kind::Timing,
    noise: NOISE,
    pooled: false,
    derive: |trace| {
        regions(trace, |bound| bound.binding().map(|fraction| f64::from(u8::from(fraction > EXCESS_LIMIT))))
    },
};

/// Fractions of each limit; absent without work of that sort or without a measured limit.
struct Bound {
    bytes_s: Option<f64>,
    flops_s: Option<f64>,
    int8_s: Option<f64>,
}

impl Bound {
    fn new(work: Work, passes: u64, duration_ns: u64, roof: &Roof) -> Bound {
        let fraction = |count: u64, limit: f64| {
            (count > 0 && limit > 0.0 && duration_ns > 0).then(|| count as f64 / (duration_ns as f64 * 1e-9) / limit)
        };
        Bound {
            bytes_s: fraction(work.bytes, bandwidth(work.bytes / passes.max(1), roof)),
            flops_s: fraction(work.flops, roof.fma_flop_s),
            int8_s: fraction(work.int8_ops, roof.int8_op_s),
        }
    }

    fn binding(&self) -> Option<f64> {
        [self.bytes_s, self.flops_s, self.int8_s].into_iter().flatten().reduce(f64::max)
    }
}

/// The bandwidth that `bytes` per pass may reach; an unknown cache size gets the higher limit, which accuses nobody falsely.
fn bandwidth(bytes: u64, roof: &Roof) -> f64 {
    if roof.llc_bytes == 0 {
        roof.cache_bytes_s.max(roof.stream_bytes_s)
    } else if bytes <= roof.llc_bytes && roof.cache_bytes_s > 0.0 {
        roof.cache_bytes_s
    } else {
        roof.stream_bytes_s
    }
}

fn regions(trace: &Trace, figure: fn(&Bound) -> Option<f64>) -> Vec<Value> {
    let Some(roof) = &trace.roof else { return Vec::new() };
    let mut values = Vec::new();
    for (item, event) in trace.events.iter().enumerate() {
        let (part, x, passes, ns, work) = match event {
            Event::Prefill { n_tokens, context, duration_ns, work } => {
                ("prefill".to_owned(), Some(f64::from(*context) + f64::from(*n_tokens)), 1, *duration_ns, *work)
            }
            Event::Decode { n_tokens, context, duration_ns, work } => {
                ("decode".to_owned(), Some(f64::from(*context)), u64::from(*n_tokens), *duration_ns, *work)
            }
            Event::Kernel { op, rung, shape, calls, duration_ns, work } => {
                (format!("{op}/{rung}/{shape}"), None, *calls, *duration_ns, *work)
            }
            _ => continue,
        };
        if let Some(fraction) = figure(&Bound::new(work, passes, ns, roof)) {
            values.push(Value { x, ..Value::new(item, fraction).of(&part) });
        }
    }
    values
}
