//! Raw events of one measurement, before any formula: what happened, when, and how much work it was.
//!
//! All durations are nanoseconds of one monotonic clock, all sizes bytes, all token counts tokens.

use serde::{Deserialize, Serialize};

/// Everything one worker saw while running one repetition of one workload of one cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// Identifier of the cell (stable across runs of the same scenario).
    pub cell: String,
    /// Name of the workload inside the scenario, e.g. `pp512`.
    pub workload: String,
    /// Repetition number from 0; cells of one comparison share it, so rows pair up.
    pub repetition: u32,
    /// What ran, in order.
    pub events: Vec<Event>,
    /// Limits of this machine as measured in the same run, when they were.
    pub roof: Option<Roof>,
}

/// Measured limits of the machine for the thread count of the run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Roof {
    /// Streaming read bandwidth from memory, bytes per second.
    pub stream_bytes_s: f64,
    /// Streaming read bandwidth from a buffer that fits the last-level cache, bytes per second.
    pub cache_bytes_s: f64,
    /// f32 fused multiply-add rate, FLOP per second.
    pub fma_flop_s: f64,
    /// int8 dot product rate, operations per second.
    pub int8_op_s: f64,
    /// Size of the last-level cache, bytes (0 when unknown).
    pub llc_bytes: u64,
}

/// Work that a timed region had to do at least, counted, not measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// Bytes of weights and keys/values that must be read.
    pub bytes: u64,
    /// Floating-point operations (a multiply-add is two).
    pub flops: u64,
    /// Integer operations of int8 matrix products (a multiply-add is two).
    pub int8_ops: u64,
}

/// Tokens that became visible to the user at one instant (speculation emits several at once).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Chunk {
    /// Time since the request started.
    pub at_ns: u64,
    /// Tokens in this chunk.
    pub n_tokens: u32,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A timed forward pass over `n_tokens` prompt tokens with `context` tokens already in the cache.
    Prefill { n_tokens: u32, context: u32, duration_ns: u64, work: Work },
    /// Timed autoregressive decoding of `n_tokens` after a `context`-token prompt, prompt excluded.
    Decode { n_tokens: u32, context: u32, duration_ns: u64, work: Work },
    /// One request from prompt to last token; `chunks` are cumulative times since the request started.
    Request { request: u32, prompt_tokens: u32, chunks: Vec<Chunk> },
    /// Ledger of one speculative generation; index i of the two vectors is draft position i.
    Speculation {
        drafted: u64,
        accepted: u64,
        target_runs: u64,
        emitted: u64,
        drafted_at: Vec<u64>,
        accepted_at: Vec<u64>,
        draft_ns: u64,
        verify_ns: u64,
    },
    /// Likelihood of one scored window under the cell and under the reference cell, on identical tokens (natural logs, summed).
    /// Without a reference, `reference_nll` is 0 and no comparison is derived.
    Score {
        protocol: String,
        window: u32,
        n_tokens: u64,
        n_bytes: u64,
        nll: f64,
        reference_nll: f64,
        /// Sum over tokens of KL(reference ‖ cell).
        kl: f64,
        kl_max: f64,
        /// Tokens whose most likely next token agrees with the reference.
        top1_agree: u64,
    },
    /// Memory of the worker process after the workload.
    Memory { weights_bytes: u64, kv_logical_bytes: u64, kv_resident_bytes: u64, peak_rss_bytes: u64 },
    /// Time spent making the engine ready (load, calibrate, quantize).
    Load { duration_ns: u64 },
    /// One timed batch of identical kernel calls; `duration_ns` and `work` are totals of the batch.
    Kernel { op: String, rung: String, shape: String, calls: u64, duration_ns: u64, work: Work },
    /// A named number that a scenario asked for (a count, an error, a slope input); `x` orders a sweep.
    Value { name: String, x: f64, value: f64 },
    /// A correctness check against an independent oracle; `passed` is `value <= limit`.
    Check { name: String, value: f64, limit: f64, passed: bool },
}
