//! Bytes: what the parts need by count, what they hold, and what the operating system saw.

use super::{Definition, Kind, Value};
use crate::observation::Direction;
use crate::trace::{Event, Trace};

/// Weights as stored.
pub const WEIGHTS_BYTES: Definition = Definition {
    id: "weights_bytes",
    formula_id: "weights_bytes@1",
    formula: "bytes that every weight occupies in its format, scales and zero points included; each shared tensor once",
    unit: "B",
    direction: Direction::Lower,
    kind: Kind::Deterministic,
    noise: "none: counted from shapes",
    pooled: false,
    derive: |trace| memories(trace, |[weights, _, _, _]| weights),
};

/// Keys and values in use.
pub const KV_LOGICAL_BYTES: Definition = Definition {
    id: "kv_logical_bytes",
    formula_id: "kv_logical_bytes@1",
    formula: "bytes of the keys and values of live tokens in their encoding",
    unit: "B",
    direction: Direction::Lower,
    kind: Kind::Deterministic,
    noise: "none: counted from shapes",
    pooled: false,
    derive: |trace| memories(trace, |[_, logical, _, _]| logical),
};

/// Keys and values as allocated.
pub const KV_RESIDENT_BYTES: Definition = Definition {
    id: "kv_resident_bytes",
    formula_id: "kv_resident_bytes@1",
    formula: "bytes that the cache has allocated, unused slots included",
    unit: "B",
    direction: Direction::Lower,
    kind: Kind::Memory,
    noise: "growth policy of the cache",
    pooled: false,
    derive: |trace| memories(trace, |[_, _, resident, _]| resident),
};

/// High-water mark of the process.
pub const PEAK_RSS_BYTES: Definition = Definition {
    id: "peak_rss_bytes",
    formula_id: "peak_rss_bytes@1",
    formula: "largest resident set of the cell's worker process so far, memory-mapped pages included",
    unit: "B",
    direction: Direction::Lower,
    kind: Kind::Memory,
    noise: "allocator, page cache sharing, calibration before the measurement",
    pooled: false,
    derive: |trace| memories(trace, |[_, _, _, peak]| peak),
};

/// One value per memory event; a zero means "not measured" (or an empty cache) and is left out.
fn memories(trace: &Trace, figure: fn([u64; 4]) -> u64) -> Vec<Value> {
    let events = trace.events.iter().filter_map(|event| match event {
        Event::Memory { weights_bytes, kv_logical_bytes, kv_resident_bytes, peak_rss_bytes } => {
            Some([*weights_bytes, *kv_logical_bytes, *kv_resident_bytes, *peak_rss_bytes])
        }
        _ => None,
    });
    let figures = events.map(figure).enumerate().filter(|(_, bytes)| *bytes > 0);
    figures.map(|(item, bytes)| Value::new(item, bytes as f64)).collect()
}
