//! Prefill and decode speed of timed passes, and the time to get ready.

use super::{Definition, Kind, Value};
use crate::observation::Direction;
use crate::trace::{Event, Trace};

const CLOCK_NOISE: &str = "clock frequency, neighbours on the machine, page faults, cache state; warm-up must be over";

/// Prompt tokens per second.
pub const PREFILL_TOK_S: Definition = Definition {
    id: "prefill_tok_s",
    formula_id: "prefill_tok_s@1",
    formula: "n_tokens / duration of one forward pass over n_tokens prompt tokens (logits included, sampling and tokenization excluded); \
              x = tokens in the cache after the pass",
    unit: "tok/s",
    direction: Direction::Higher,
    kind: Kind::Timing,
    noise: CLOCK_NOISE,
    pooled: false,
    derive: |trace| prefills(trace, |tokens, seconds| tokens / seconds),
};

/// Milliseconds of one prefill pass.
pub const PREFILL_MS: Definition = Definition {
    id: "prefill_ms",
    formula_id: "prefill_ms@1",
    formula: "duration of one forward pass over the prompt tokens; x = tokens in the cache after the pass",
    unit: "ms",
    direction: Direction::Lower,
    kind: Kind::Timing,
    noise: CLOCK_NOISE,
    pooled: false,
    derive: |trace| prefills(trace, |_, seconds| seconds * 1e3),
};

/// Generated tokens per second after the prompt.
pub const DECODE_TOK_S: Definition = Definition {
    id: "decode_tok_s",
    formula_id: "decode_tok_s@1",
    formula: "n_tokens / duration of decoding n_tokens, choice of the token included, prompt excluded; x = tokens in the cache before",
    unit: "tok/s",
    direction: Direction::Higher,
    kind: Kind::Timing,
    noise: CLOCK_NOISE,
    pooled: false,
    derive: |trace| decodes(trace, |tokens, seconds| tokens / seconds),
};

/// Milliseconds per generated token.
pub const DECODE_MS_PER_TOKEN: Definition = Definition {
    id: "decode_ms_per_token",
    formula_id: "decode_ms_per_token@1",
    formula: "duration of decoding n_tokens / n_tokens, prompt excluded; x = tokens in the cache before",
    unit: "ms",
    direction: Direction::Lower,
    kind: Kind::Timing,
    noise: CLOCK_NOISE,
    pooled: false,
    derive: |trace| decodes(trace, |tokens, seconds| seconds * 1e3 / tokens),
};

/// Seconds until the engine is ready.
pub const LOAD_S: Definition = Definition {
    id: "load_s",
    formula_id: "load_s@1",
    formula: "time from the checkpoint's name to an engine that can run: mapping, calibration, quantization, packing",
    unit: "s",
    direction: Direction::Lower,
    kind: Kind::Timing,
    noise: "page cache (first load reads the disk) and everything that disturbs a clock",
    pooled: false,
    derive: |trace| {
        let loads = trace.events.iter().filter_map(|event| match event {
            Event::Load { duration_ns } => Some(*duration_ns as f64 * 1e-9),
            _ => None,
        });
        loads.enumerate().map(|(item, seconds)| Value::new(item, seconds)).collect()
    },
};

fn prefills(trace: &Trace, figure: fn(f64, f64) -> f64) -> Vec<Value> {
    let passes = trace.events.iter().filter_map(|event| match event {
        Event::Prefill { n_tokens, context, duration_ns, .. } => {
            Some((*n_tokens, f64::from(*context) + f64::from(*n_tokens), *duration_ns))
        }
        _ => None,
    });
    timed(passes, figure)
}

fn decodes(trace: &Trace, figure: fn(f64, f64) -> f64) -> Vec<Value> {
    let passes = trace.events.iter().filter_map(|event| match event {
        Event::Decode { n_tokens, context, duration_ns, .. } => Some((*n_tokens, f64::from(*context), *duration_ns)),
        _ => None,
    });
    timed(passes, figure)
}

/// `(tokens, x, ns)` per pass; a pass without tokens or without time has no speed.
fn timed(passes: impl Iterator<Item = (u32, f64, u64)>, figure: fn(f64, f64) -> f64) -> Vec<Value> {
    let passes = passes.enumerate().filter(|(_, (tokens, _, ns))| *tokens > 0 && *ns > 0);
    passes.map(|(item, (tokens, x, ns))| Value::new(item, figure(f64::from(tokens), ns as f64 * 1e-9)).at(x)).collect()
}
