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

impl Roof {
    /// The higher of each limit: what either measurement saw, the machine can do.
    pub fn raised(self, other: Roof) -> Roof {
        Roof {
            stream_bytes_s: self.stream_bytes_s.max(other.stream_bytes_s),
            cache_bytes_s: self.cache_bytes_s.max(other.cache_bytes_s),
            fma_flop_s: self.fma_flop_s.max(other.fma_flop_s),
            int8_op_s: self.int8_op_s.max(other.int8_op_s),
            llc_bytes: self.llc_bytes.max(other.llc_bytes),
        }
    }
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

/// What one launch of a GPU kernel did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Instructions, summed over threads.
    pub thread_instructions: u64,
    /// Operations of tensor-core instructions (a multiply-add is two).
    pub mma_flops: u64,
    /// Bytes of device memory read and written, in whole sectors of 32.
    pub memory_bytes: u64,
    /// Requests of warps to shared memory.
    pub shared_requests: u64,
    /// Passes over shared memory beyond the least that each request needs, because lanes met in a bank.
    pub bank_conflicts: u64,
}

/// What one answer of an item came to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Sum of ln p(token) over the tokens of the answer.
    #[serde(deserialize_with = "number")]
    pub log_likelihood: f64,
    /// Tokens of the answer.
    pub n_tokens: u64,
    /// Characters of the answer as the task has it, without what is put between question and answer.
    pub n_chars: u64,
    /// The same in bytes of UTF-8.
    pub n_bytes: u64,
    /// Whether every token of it is the most likely one.
    pub greedy: bool,
}

/// How the answers of an item are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Judged {
    /// The most likely answer counts, by sums and by sums over the answers' lengths.
    Choice,
    /// The most likely answer counts; lengths say nothing, because all answers are letters or are followed by the same text.
    PlainChoice,
    /// There is one answer: it counts when it is what greedy decoding would say.
    LastWord,
    /// Something was hidden in a long text: both the most likely answer and greedy decoding count.
    Retrieval,
}

/// Where in a text something was hidden.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hidden {
    /// Tokens of the whole text.
    pub length: f64,
    /// Which depth, in words: `depth 0.5`.
    pub depth: String,
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
    /// A timed forward pass over prompt tokens.
    Prefill {
        /// Prompt tokens of the pass.
        n_tokens: u32,
        /// Tokens already in the cache.
        context: u32,
        /// Time of the pass.
        duration_ns: u64,
        /// Least work of the pass.
        work: Work,
    },
    /// Timed autoregressive decoding, prompt excluded.
    Decode {
        /// Generated tokens.
        n_tokens: u32,
        /// Prompt tokens in the cache before.
        context: u32,
        /// Time of all generated tokens together.
        duration_ns: u64,
        /// Least work of all generated tokens together.
        work: Work,
    },
    /// One request from prompt to last token.
    Request {
        /// Index of the request.
        request: u32,
        /// Prompt length.
        prompt_tokens: u32,
        /// What became visible when, in order; times count from the start of the request.
        chunks: Vec<Chunk>,
    },
    /// Ledger of one speculative generation.
    Speculation {
        /// Tokens that the draft proposed.
        drafted: u64,
        /// Proposed tokens whose acceptance was decided: all before them in their run were accepted.
        #[serde(default)]
        decided: u64,
        /// Proposed tokens that the target accepted.
        accepted: u64,
        /// Verification passes of the target.
        target_runs: u64,
        /// Tokens emitted by those passes: accepted ones, and one of the target's own per pass.
        emitted: u64,
        /// Proposals by draft position.
        drafted_at: Vec<u64>,
        /// Acceptances by draft position.
        accepted_at: Vec<u64>,
        /// Time spent drafting.
        draft_ns: u64,
        /// Time spent verifying.
        verify_ns: u64,
    },
    /// Likelihood of one scored window under the cell and under the reference cell, on identical tokens (natural logs, summed).
    /// Without a reference, `reference_nll` is 0 and no comparison is derived.
    Score {
        /// Protocol id, e.g. `gptq-256`; ids that start with `gptq` weigh every window alike.
        protocol: String,
        /// Index of the window.
        window: u32,
        /// Scored tokens.
        n_tokens: u64,
        /// Bytes of text that the scored tokens cover.
        n_bytes: u64,
        /// Sum of -ln p(token) under the cell.
        nll: f64,
        /// Sum of -ln p(token) under the reference cell.
        reference_nll: f64,
        /// Sum over tokens of KL(reference ‖ cell).
        kl: f64,
        /// Largest KL(reference ‖ cell) of a token.
        kl_max: f64,
        /// Tokens whose most likely next token agrees with the reference.
        top1_agree: u64,
    },
    /// One item of a task, its answers scored by likelihood.
    Item {
        /// Index of the item.
        item: u32,
        /// Name of the item in its file.
        id: String,
        /// How it is judged.
        judged: Judged,
        /// Index of the right answer.
        gold: u32,
        /// The answers in the order of the file.
        answers: Vec<Answer>,
        /// Tokens cut from the left of its context, because the window is shorter.
        cut_tokens: u64,
        /// Where the answer was hidden, where it was.
        #[serde(default)]
        hidden: Option<Hidden>,
    },
    /// Memory of the worker process after the workload; 0 where it was not measured.
    Memory {
        /// Weights in their format, scales included.
        weights_bytes: u64,
        /// Keys and values of live tokens.
        kv_logical_bytes: u64,
        /// Keys and values as allocated.
        kv_resident_bytes: u64,
        /// Largest resident set so far.
        peak_rss_bytes: u64,
    },
    /// The engine became ready (load, calibrate, quantize).
    Load {
        /// Time it took.
        duration_ns: u64,
    },
    /// One timed batch of identical kernel calls; `duration_ns` and `work` are totals of the batch.
    Kernel {
        /// Operation, e.g. `gemv_f16`.
        op: String,
        /// Rung of its ladder, e.g. `avx2_panel16`.
        rung: String,
        /// Shape in words, e.g. `4096x4096`.
        shape: String,
        /// Calls in the batch.
        calls: u64,
        /// Time of the batch.
        duration_ns: u64,
        /// Least work of the batch.
        work: Work,
    },
    /// One run of a GPU kernel on an emulated device: what it did, counted; nothing of it is a time.
    Emulated {
        /// Operation.
        op: String,
        /// Rung of its ladder.
        rung: String,
        /// Shape in words.
        shape: String,
        /// What was counted.
        counted: Counted,
    },
    /// A named number that a scenario asked for (a count, an error, a slope input).
    Value {
        /// Becomes the metric id.
        name: String,
        /// Orders a sweep.
        x: f64,
        /// The number.
        #[serde(deserialize_with = "number")]
        value: f64,
    },
    /// What quantizing one projection of one layer does to the model's output, everything else in full precision.
    Sensitivity {
        /// Tag of the weights it got.
        weights: String,
        /// Projection.
        projection: String,
        /// Layer.
        layer: u32,
        /// Mean KL divergence from full precision, nat per token.
        kl: f64,
        /// Bytes of the projection in these weights.
        bytes: u64,
    },
    /// A whole model under some weights, measured on text that no choice was made on.
    Mixture {
        /// What it stands for: `recommended` or `uniform`.
        series: String,
        /// Which one.
        name: String,
        /// Bits per weight of the layers' matrices, scales included.
        bits: f64,
        /// Perplexity.
        ppl: f64,
        /// Mean KL divergence from full precision, nat per token.
        kl: f64,
        /// Sum of the sensitivities of its parts: what `kl` would be if errors added up.
        predicted_kl: f64,
    },
    /// A correctness check against an independent oracle.
    Check {
        /// Becomes the metric id `check:<name>`.
        name: String,
        /// Distance from the oracle.
        #[serde(deserialize_with = "number")]
        value: f64,
        /// Largest distance allowed.
        limit: f64,
        /// Whether `value <= limit`.
        passed: bool,
    },
}

/// JSON has no NaN and no infinity and writes both as null: read as NaN, which becomes a row that says so instead of a
/// message nobody can read.
fn number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}
