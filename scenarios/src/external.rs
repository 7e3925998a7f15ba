//! Engines that are not ours, as cells of a scenario: same workloads, same threads, repetitions interleaved with ours,
//! and a check against our own numbers before any of their speed is shown.
//!
//! A worker process holds such a cell like any other and keeps the engine in a Python child of its own; the two speak
//! the lines of [`adapter`]. What the child says is not trusted: its lines are bounded and its silence is timed.

pub mod adapter;
mod export;
mod held;
mod logits;

use std::collections::BTreeMap;

use cpu_kernels::Isa;
use serde::Deserialize;
use weights::WeightsSpec;

use crate::scenario::Workload;

pub use held::HeldExternal;

/// Weights of a cell that reads the model's own file, where that is a GGUF file, instead of one made from its values.
pub const OWN_FILE: &str = "file";

/// An engine that has an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum ExternalEngine {
    /// PyTorch's `scaled_dot_product_attention`.
    #[serde(rename = "pytorch")]
    PyTorch,
    /// llama.cpp through llama-cpp-python.
    #[serde(rename = "llama.cpp")]
    LlamaCpp,
    /// Our Triton kernels, compiled and tuned by that machine's Triton.
    #[serde(rename = "triton")]
    Triton,
}

impl ExternalEngine {
    /// Every engine there is an adapter for.
    pub const ALL: [ExternalEngine; 3] = [ExternalEngine::PyTorch, ExternalEngine::LlamaCpp, ExternalEngine::Triton];

    /// Value of the `engine` column.
    pub fn name(self) -> &'static str {
        match self {
            ExternalEngine::PyTorch => "pytorch",
            ExternalEngine::LlamaCpp => "llama.cpp",
            ExternalEngine::Triton => "triton",
        }
    }

    /// Text of its adapter: the shared parts and its own.
    fn source(self) -> String {
        let gpu = include_str!("../external/gpu_problems.py");
        let own = match self {
            ExternalEngine::PyTorch => [gpu, include_str!("../external/pytorch_adapter.py")].join("\n"),
            ExternalEngine::LlamaCpp => include_str!("../external/llama_cpp_adapter.py").to_string(),
            ExternalEngine::Triton => {
                let kernels: BTreeMap<_, _> = cuda_kernels::triton::TEXTS.into_iter().collect();
                // a JSON object of texts is a dict in Python
                let kernels = format!("KERNELS = {}", serde_json::json!(kernels));
                [gpu, &kernels, include_str!("../external/triton_adapter.py")].join("\n")
            }
        };
        format!("{}\n{own}", include_str!("../external/lines.py"))
    }

    /// What it calls its attention variants.
    pub fn attention(self) -> &'static [&'static str] {
        match self {
            ExternalEngine::PyTorch => &["sdpa", "cuda-flash", "cuda-cudnn"],
            ExternalEngine::LlamaCpp => &["plain", "flash"],
            ExternalEngine::Triton => &["fused"],
        }
    }

    /// Weight formats it can be given.
    pub fn weights(self) -> &'static [&'static str] {
        match self {
            ExternalEngine::PyTorch | ExternalEngine::Triton => &["f32"],
            ExternalEngine::LlamaCpp => &["f32", "f16", "q4_0", "q8_0", OWN_FILE],
        }
    }

    /// Encodings of its KV cache.
    pub fn kv(self) -> &'static [&'static str] {
        match self {
            ExternalEngine::PyTorch | ExternalEngine::Triton => &["f32"],
            ExternalEngine::LlamaCpp => &["f32", "f16"],
        }
    }
}

/// One `[[external]]`: the product of its lists joins the cells.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct External {
    /// Which engine.
    pub engine: ExternalEngine,
    /// Attention variants, in its words; empty means its first.
    #[serde(default)]
    pub attention: Vec<String>,
    /// Weight formats; empty means its first.
    #[serde(default)]
    pub weights: Vec<String>,
    /// Encodings of the KV cache; empty means its first.
    #[serde(default)]
    pub kv: Vec<String>,
}

/// What one external cell is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalPart {
    /// Which engine.
    pub engine: ExternalEngine,
    /// Its attention.
    pub attention: String,
    /// Its weights; of quantised ones the head (and the embedding it may be tied to) stays f16, as ours does.
    pub weights: String,
    /// Its KV cache.
    pub kv: String,
}

impl ExternalPart {
    /// Whether it computes on a CUDA device.
    pub fn is_on_gpu(&self) -> bool {
        self.engine == ExternalEngine::Triton || self.attention.starts_with("cuda")
    }

    /// Whether both sides code activations to int8.
    pub fn codes_inputs(&self) -> bool {
        matches!(self.weights.as_str(), "q4_0" | "q8_0" | OWN_FILE)
    }

    /// Our kind that stores the same weights.
    pub fn same_weights(&self) -> WeightsSpec {
        match self.weights.as_str() {
            "f16" => WeightsSpec::F16,
            "q4_0" => WeightsSpec::Q4_0,
            "q8_0" => WeightsSpec::Q8_0,
            OWN_FILE => WeightsSpec::StoredInt8,
            _ => WeightsSpec::F32,
        }
    }
}

impl External {
    /// The lists with what may be in them, by field.
    pub fn lists(&self) -> [(&'static str, &[String], &'static [&'static str]); 3] {
        let e = self.engine;
        [
            ("attention", &self.attention, e.attention()),
            ("weights", &self.weights, e.weights()),
            ("kv", &self.kv, e.kv()),
        ]
    }

    /// Its cells.
    pub fn parts(&self) -> Vec<ExternalPart> {
        let [attention, weights, kv] = self.lists().map(|(_, list, known)| match list {
            [] => vec![known[0].to_string()],
            list => list.to_vec(),
        });
        let mut parts = vec![];
        for attention in &attention {
            for weights in &weights {
                for kv in &kv {
                    parts.push(ExternalPart {
                        engine: self.engine,
                        attention: attention.clone(),
                        weights: weights.clone(),
                        kv: kv.clone(),
                    });
                }
            }
        }
        parts
    }
}

/// Why the adapter of `engine` cannot run `workload`, where it cannot.
pub fn refusal(engine: ExternalEngine, workload: &Workload) -> Option<String> {
    let has = match workload {
        Workload::Prefill { .. } | Workload::Decode { .. } => engine == ExternalEngine::LlamaCpp,
        Workload::AttentionSweep { batch: 1, .. } => engine == ExternalEngine::PyTorch,
        Workload::GpuKernels { .. } => engine != ExternalEngine::LlamaCpp,
        _ => false,
    };
    (!has).then(|| format!("the adapter of {} has no workload {}", engine.name(), workload.name()))
}

/// What the processor of this machine offers, for a reader who compares engines.
fn best_isa() -> String {
    Isa::available().last().map_or_else(|| "scalar".to_string(), |isa| isa.name().to_string())
}
