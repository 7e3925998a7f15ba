//! What the user of one request waits for. Times count from the start of the request on one monotonic clock.

use super::{Definition, Kind, Value};
use crate::observation::Direction;
use crate::trace::{Chunk, Event, Trace};

const CLOCK_NOISE: &str = "clock frequency, neighbours on the machine, prompt length, tokens per chunk";

/// Time to first token.
pub const TTFT_MS: Definition = Definition {
    id: "ttft_ms",
    formula_id: "ttft@1",
    formula: "t_1 - t_send: start of the request to its first non-empty chunk, one value per request",
    unit: "ms",
    direction: Direction::Lower,
    kind: Kind::Timing,
    noise: CLOCK_NOISE,
    pooled: false,
    derive: |trace| per_request(trace, |chunks| chunks.first().map(|first| first.at_ns as f64 * 1e-6)),
};

/// Time per output token after the first.
pub const TPOT_MS: Definition = Definition {
    id: "tpot_ms",
    formula_id: "tpot@1",
    formula: "(t_end - t_1) / (n - 1) per request with n >= 2 tokens in at least two chunks; tokens that share the first chunk count as \
              arriving at t_1",
    unit: "ms",
    direction: Direction::Lower,
    kind: Kind::Timing,
    noise: CLOCK_NOISE,
    pooled: false,
    derive: |trace| {
        per_request(trace, |chunks| {
            let [first, .., last] = chunks else { return None };
            let tokens: u64 = chunks.iter().map(|chunk| u64::from(chunk.n_tokens)).sum();
            Some(last.at_ns.saturating_sub(first.at_ns) as f64 * 1e-6 / (tokens - 1) as f64)
        })
    },
};

/// Gap between consecutive chunks.
pub const ITL_MS: Definition = Definition {
    id: "itl_ms",
    formula_id: "itl@1",
    formula: "t_k - t_(k-1) between consecutive non-empty chunks, pooled over all requests; with speculation a chunk carries several \
              tokens (chunk_tokens, same item), so this is per step and its mean is not tpot_ms",
    unit: "ms",
    direction: Direction::Lower,
    kind: Kind::Timing,
    noise: CLOCK_NOISE,
    pooled: true,
    derive: |trace| gaps(trace, |before, after| after.at_ns.saturating_sub(before.at_ns) as f64 * 1e-6),
};

/// Tokens that arrived at the end of each gap of [`ITL_MS`].
pub const CHUNK_TOKENS: Definition = Definition {
    id: "chunk_tokens",
    formula_id: "chunk_tokens@1",
    formula: "tokens in the chunk that ends the gap with the same item in itl_ms",
    unit: "tok",
    direction: Direction::None,
    kind: Kind::Deterministic,
    noise: "none: fixed by seed, prompt and decoder",
    pooled: true,
    derive: |trace| gaps(trace, |_, after| f64::from(after.n_tokens)),
};

/// Whole request.
pub const E2E_MS: Definition = Definition {
    id: "e2e_ms",
    formula_id: "e2e@1",
    formula: "t_end - t_send: start of the request to its last token",
    unit: "ms",
    direction: Direction::Lower,
    kind: Kind::Timing,
    noise: CLOCK_NOISE,
    pooled: false,
    derive: |trace| per_request(trace, |chunks| chunks.last().map(|last| last.at_ns as f64 * 1e-6)),
};

/// Requests in order: `(request index, non-empty chunks)`.
fn requests(trace: &Trace) -> impl Iterator<Item = (u32, Vec<Chunk>)> {
    trace.events.iter().filter_map(|event| match event {
        Event::Request { request, chunks, .. } => {
            Some((*request, chunks.iter().copied().filter(|chunk| chunk.n_tokens > 0).collect()))
        }
        _ => None,
    })
}

fn per_request(trace: &Trace, figure: fn(&[Chunk]) -> Option<f64>) -> Vec<Value> {
    let figures = requests(trace).filter_map(|(request, chunks)| Some((request, figure(&chunks)?)));
    figures.map(|(request, value)| Value { item: request, value, ..Value::default() }).collect()
}

fn gaps(trace: &Trace, figure: fn(Chunk, Chunk) -> f64) -> Vec<Value> {
    let mut values = Vec::new();
    for (_, chunks) in requests(trace) {
        for pair in chunks.windows(2) {
            values.push(Value::new(values.len(), figure(pair[0], pair[1])));
        }
    }
    values
}
