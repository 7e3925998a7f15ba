//! What a cell does.

use serde::Deserialize;
use weights::WeightsSpec;

use super::{GpuProblem, PasskeyPart, TaskPart};

/// A workload; cells that cannot run it are skipped with a reason.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Workload {
    /// Likelihood of a text, with KL divergence and agreement against the reference cell on identical tokens.
    Perplexity {
        /// `embedded:NAME` or a text file.
        text: String,
        /// Protocols; all come from as few passes as their windows allow.
        protocols: Vec<Protocol>,
        /// Read only this many tokens of the text.
        max_tokens: Option<usize>,
    },
    /// Items with one right answer, judged by likelihood: accuracies, their intervals, and cells compared item by item.
    Task(TaskPart),
    /// Keys hidden in long texts, which a cache must keep: chosen by likelihood and said by greedy decoding.
    Passkey(PasskeyPart),
    /// Timed forward pass over synthetic tokens, like llama-bench `pp512`.
    Prefill {
        /// Prompt lengths; more than one makes a sweep.
        tokens: Vec<usize>,
    },
    /// Timed generation without a prompt's prefill, like llama-bench `tg128`.
    Decode {
        /// Tokens generated.
        tokens: usize,
        /// Tokens in the cache before the first.
        #[serde(default = "default_context")]
        context: usize,
        /// Sequences that advance together, a row of each in every Step; more than one are decoded greedily.
        #[serde(default = "default_batch")]
        sequences: usize,
    },
    /// Requests from prompt to last token, one after the other: TTFT, TPOT, ITL.
    Generate {
        /// Where prompts are cut from.
        text: String,
        /// Number of prompts, spread evenly over the text.
        #[serde(default = "default_prompts")]
        prompts: usize,
        /// Tokens per prompt.
        prompt_tokens: usize,
        /// Tokens generated per prompt.
        new_tokens: usize,
    },
    /// Rungs of a kernel ladder, each checked against its scalar rung, then timed.
    Kernels {
        /// Which ladders and sizes.
        kernels: Vec<Kernel>,
    },
    /// Rungs of a GPU's kernel ladders, each checked against f64, then timed by the device's clock; an emulated device
    /// counts what they do instead, on problems small enough for it.
    GpuKernels {
        /// Which operations and sizes.
        problems: Vec<GpuProblem>,
        /// Rungs to run; every rung when empty.
        #[serde(default)]
        rungs: Vec<String>,
    },
    /// Attention alone over growing lengths, random q, k, v: time, scratch bytes, counted words and FLOPs.
    AttentionSweep {
        /// Sequence lengths.
        lengths: Vec<usize>,
        /// Query heads.
        heads: usize,
        /// KV heads.
        kv_heads: usize,
        /// Features per head.
        head_dim: usize,
        /// Full (non-causal) attention beside the causal one, by giving every row the last position.
        #[serde(default)]
        full: bool,
        /// One row per sequence against as many cached entries as the length says, instead of a whole prompt.
        #[serde(default)]
        decode: bool,
        /// Sequences of a decode pass.
        #[serde(default = "default_batch")]
        batch: usize,
        /// Time on each of these numbers of threads, as metrics of their own (`attention_t2_ms`); by default on the
        /// scenario's.
        #[serde(default)]
        threads: Vec<usize>,
        /// Time the four products with weights around attention at each length too, as `projections_ms`.
        #[serde(default)]
        projections: bool,
    },
    /// Which projection of which layer minds being quantized, and the mixture that this recommends under each byte
    /// budget, measured beside the uniform choices. The cell's own weights are the full precision.
    Sensitivity {
        /// Where choices are made: `embedded:NAME` or a text file.
        text: String,
        /// Where mixtures are measured: another text.
        measured_on: String,
        /// Windows of each text, spread evenly.
        #[serde(default = "default_windows")]
        windows: usize,
        /// Tokens per window.
        #[serde(default = "default_window_tokens")]
        window_tokens: usize,
        /// What a matrix may get.
        #[serde(deserialize_with = "crate::part::list")]
        candidates: Vec<WeightsSpec>,
        /// Budgets, in bits per weight of the layers' matrices, scales included.
        budgets: Vec<f64>,
    },
    /// A counted loop whose cost is programmed: what comes out is known, so that a run shows what it can see. Its slow-downs are the cells.
    KnownAnswer {
        /// Steps of the reference's loop.
        #[serde(default = "default_units")]
        units: u64,
        /// Cost of each cell as a multiple of `units`; the first is the reference's and must be 1.
        slowdowns: Vec<f64>,
    },
    /// A named identity measured once: it emits values that a claim judges.
    Identity {
        /// Name in the identity registry.
        check: String,
    },
}

impl Workload {
    /// Name in results, unique in a scenario: `pp512`, `tg128`, `ppl-evaluation`.
    pub fn name(&self) -> String {
        let join = |numbers: &[usize]| numbers.iter().map(usize::to_string).collect::<Vec<_>>().join("-");
        match self {
            Workload::Perplexity { text, .. } => format!("ppl-{}", stem(text)),
            Workload::Task(part) => part.name(),
            Workload::Passkey(part) => part.name(),
            Workload::Prefill { tokens } => format!("pp{}", join(tokens)),
            Workload::Decode { tokens, context, sequences } => {
                let context = if *context == default_context() { String::new() } else { format!("@{context}") };
                let sequences = if *sequences == default_batch() { String::new() } else { format!("x{sequences}") };
                format!("tg{tokens}{sequences}{context}")
            }
            Workload::Generate { prompt_tokens, new_tokens, .. } => format!("generate-{prompt_tokens}-{new_tokens}"),
            Workload::Kernels { kernels } => {
                let mut ops: Vec<&str> = kernels.iter().map(|kernel| kernel.op.as_str()).collect();
                ops.dedup();
                format!("kernels-{}", ops.join("-"))
            }
            Workload::GpuKernels { problems, .. } => {
                let mut ops: Vec<&str> = problems.iter().map(GpuProblem::op).collect();
                ops.dedup();
                match (problems.last(), &ops[..]) {
                    (Some(last), [op]) => format!("gpu-{op}-{}", last.shape()),
                    _ => format!("gpu-{}", ops.join("-")),
                }
            }
            Workload::AttentionSweep { heads, kv_heads, head_dim, full, decode, batch, threads, .. } => {
                let threads = if threads.is_empty() { String::new() } else { format!("-t{}", join(threads)) };
                let mode = match (*decode, *full) {
                    (true, _) if *batch > 1 => format!("-decode{batch}"),
                    (true, _) => "-decode".into(),
                    (false, true) => "-full".into(),
                    (false, false) => String::new(),
                };
                format!("attention-{heads}-{kv_heads}-{head_dim}{mode}{threads}")
            }
            Workload::Sensitivity { text, .. } => format!("sensitivity-{}", stem(text)),
            Workload::KnownAnswer { .. } => "known-answer".into(),
            Workload::Identity { check } => check.clone(),
        }
    }

    /// Whether it runs a model's forward pass.
    pub fn needs_model(&self) -> bool {
        use Workload::*;
        self.reads_text() || matches!(self, Prefill { .. } | Decode { .. })
    }

    /// Whether it reads text, which random weights cannot.
    pub fn reads_text(&self) -> bool {
        use Workload::*;
        matches!(self, Perplexity { .. } | Task(_) | Passkey(_) | Generate { .. } | Sensitivity { .. })
    }

    /// Whether its result is a time, so that it is repeated and interleaved.
    pub fn is_timed(&self) -> bool {
        use Workload::*;
        matches!(
            self,
            Prefill { .. }
                | Decode { .. }
                | Generate { .. }
                | Kernels { .. }
                | GpuKernels { .. }
                | AttentionSweep { .. }
                | KnownAnswer { .. }
        )
    }

    /// Sequences that advance together.
    pub fn sequences(&self) -> usize {
        if let Workload::Decode { sequences, .. } = self { *sequences } else { 1 }
    }

    /// Tokens that one sequence of it holds at most.
    pub fn context_tokens(&self) -> usize {
        match self {
            Workload::Perplexity { protocols, .. } => protocols.iter().map(|p| p.window).max().unwrap_or(0),
            Workload::Passkey(part) => part.lengths.iter().copied().max().unwrap_or(0),
            Workload::Prefill { tokens } => tokens.iter().copied().max().unwrap_or(0),
            // one more: the prompt's pass gives a token that is not timed
            Workload::Decode { tokens, context, .. } => tokens.saturating_add(*context).saturating_add(1),
            Workload::Generate { prompt_tokens, new_tokens, .. } => prompt_tokens.saturating_add(*new_tokens),
            Workload::Sensitivity { window_tokens, .. } => *window_tokens,
            // a task takes what room its items need, up to the model's window
            Workload::Task(_)
            | Workload::Kernels { .. }
            | Workload::GpuKernels { .. }
            | Workload::AttentionSweep { .. }
            | Workload::KnownAnswer { .. }
            | Workload::Identity { .. } => 0,
        }
    }
}

/// A way to cut a text into windows and choose which tokens count.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Protocol {
    /// `gptq`, `llamacpp` or `hf-stride`; the printed id adds the window, e.g. `gptq-512`.
    pub rule: String,
    /// Tokens per window.
    pub window: usize,
    /// Step between windows (`hf-stride` only).
    pub stride: Option<usize>,
}

impl Protocol {
    /// Every rule there is.
    pub const RULES: [&'static str; 3] = ["gptq", "llamacpp", "hf-stride"];

    /// Tokens that a text needs for a number: a whole window; only hf-stride scores a text that ends inside its first one.
    pub fn least_tokens(&self) -> usize {
        if self.rule == "hf-stride" { 2 } else { self.window }
    }

    /// The smallest window in which a token is scored.
    pub fn least_window(&self) -> usize {
        // the second half of 2 tokens, without its first, is empty
        if self.rule == "llamacpp" { 3 } else { 2 }
    }
}

/// One ladder at one size.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// Operation of `cpu_kernels::OPS`.
    pub op: String,
    /// Rows (tokens).
    pub rows: usize,
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// Rungs to run; every rung when empty. The slow ones take minutes at large sizes.
    #[serde(default)]
    pub rungs: Vec<String>,
}

/// `evaluation` of `embedded:evaluation` and of `texts/evaluation.txt`.
pub(super) fn stem(text: &str) -> &str {
    let last = text.rsplit(['/', ':']).next().unwrap_or(text);
    last.rsplit_once('.').map_or(last, |(stem, _)| stem)
}

fn default_context() -> usize {
    16
}

/// About ten milliseconds of a release build.
fn default_units() -> u64 {
    5_000_000
}

fn default_windows() -> usize {
    8
}

fn default_window_tokens() -> usize {
    256
}

fn default_batch() -> usize {
    1
}

fn default_prompts() -> usize {
    8
}
