//! The scenario: what a TOML file may say. Only these types derive `Deserialize`; once parsed, they are trusted.

mod choose;
mod claim;
mod gpu_problem;
mod model;
mod parse;
mod task;
mod validate;
mod workload;

use attention::AttentionSpec;
use decoding::DecodingSpec;
use engine::{Bos, DeviceSpec};
use kv_cache::KvSpec;
use serde::Deserialize;
use weights::WeightsSpec;

use crate::external::External;

pub use choose::{Choose, bytes_of, share_of};
pub use claim::{Claim, ClaimPart, Measure, Rule, Select, Side, Statistic};
pub use gpu_problem::{GpuNumber, GpuProblem};
pub use model::ModelPart;
pub use parse::{parse, read};
pub use task::{PasskeyPart, ShotChoice, TaskPart};
pub use workload::{Kernel, Protocol, Workload};

/// One scenario file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Name; equals the file stem.
    pub name: String,
    /// The question that the report answers.
    pub question: String,
    /// What a reader should know before the numbers.
    #[serde(default)]
    pub analysis: String,
    /// Seed of everything random.
    #[serde(default = "one")]
    pub seed: u64,
    /// Checkpoints of every cell, unless the matrix lists models; a scenario of kernels or identities alone needs none.
    #[serde(default, deserialize_with = "crate::part::optional_table")]
    pub model: Option<ModelChoice>,
    /// Calibration text of quantizers that need one.
    #[serde(default, deserialize_with = "crate::part::optional_table")]
    pub calibration: Option<Calibration>,
    /// Parts that all cells share; an axis left out takes its default.
    #[serde(default, deserialize_with = "crate::part::table")]
    pub engine: Parts,
    /// Lists of parts: their product is the cells.
    #[serde(default, deserialize_with = "crate::part::table")]
    pub matrix: Matrix,
    /// Further cells: each is the reference with other parts on the axes that it names.
    #[serde(default, rename = "cell")]
    pub cells: Vec<Parts>,
    /// Limits under which the run recommends one of its cells.
    #[serde(default, deserialize_with = "crate::part::optional_table")]
    pub choose: Option<Choose>,
    /// Other engines whose cells join ours.
    #[serde(default, rename = "external")]
    pub externals: Vec<External>,
    /// Parts of the reference cell; an axis left out takes the first of its list.
    #[serde(default, deserialize_with = "crate::part::table")]
    pub reference: Parts,
    /// How long and how often to measure.
    #[serde(default, deserialize_with = "crate::part::table")]
    pub budget: Budget,
    /// Correctness that must hold before anything is timed.
    #[serde(default, deserialize_with = "crate::part::table")]
    pub expect: Expect,
    /// What every cell does.
    #[serde(default, rename = "workload")]
    pub workloads: Vec<Workload>,
    /// Claims of papers, judged from the observations.
    #[serde(default, rename = "claim")]
    pub claims: Vec<Claim>,
}

/// Checkpoints of a scenario.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelChoice {
    /// `embedded:NAME`, `random:SHAPE`, `hf:org/name@revision`, or a folder or GGUF file (relative to the scenario file).
    pub source: String,
    /// Draft for speculative decoding, same forms.
    pub draft: Option<String>,
    /// Whether the token that begins a text is put before it: as the tokenizer says, always, never.
    #[serde(default)]
    pub bos: Bos,
}

/// Token windows for calibration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// `embedded:NAME` or a text file (relative to the scenario file).
    pub text: String,
    /// Number of windows drawn (all disjoint windows when the text is shorter).
    #[serde(default = "calibration_windows")]
    pub windows: usize,
    /// Tokens per window.
    #[serde(default = "calibration_window_tokens")]
    pub window_tokens: usize,
    /// Draws the windows at random; absent: evenly spaced over the text.
    pub seed: Option<u64>,
}

/// One part per axis, each optional.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Parts {
    /// Model; absent means the one of `[model]`.
    pub model: Option<ModelPart>,
    /// Attention variant.
    #[serde(deserialize_with = "crate::part::optional")]
    pub attention: Option<AttentionSpec>,
    /// Weights.
    #[serde(deserialize_with = "crate::part::optional")]
    pub weights: Option<WeightsSpec>,
    /// KV cache.
    #[serde(deserialize_with = "crate::part::optional")]
    pub kv: Option<KvSpec>,
    /// Decoding.
    #[serde(deserialize_with = "crate::part::optional")]
    pub decoding: Option<DecodingSpec>,
    /// Device.
    #[serde(deserialize_with = "crate::part::optional")]
    pub device: Option<DeviceSpec>,
}

/// Lists of parts; an empty list means the axis does not vary.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Matrix {
    /// Models; an empty list means the one of `[engine]` or `[model]`.
    pub model: Vec<ModelPart>,
    /// Attention variants.
    #[serde(deserialize_with = "crate::part::list")]
    pub attention: Vec<AttentionSpec>,
    /// Weights.
    #[serde(deserialize_with = "crate::part::list")]
    pub weights: Vec<WeightsSpec>,
    /// KV caches.
    #[serde(deserialize_with = "crate::part::list")]
    pub kv: Vec<KvSpec>,
    /// Decoding methods.
    #[serde(deserialize_with = "crate::part::list")]
    pub decoding: Vec<DecodingSpec>,
    /// Devices.
    #[serde(deserialize_with = "crate::part::list")]
    pub device: Vec<DeviceSpec>,
}

impl Scenario {
    /// The models of its cells: the matrix's, else the one that all cells share; empty where none is named.
    pub fn models(&self) -> Vec<ModelPart> {
        let own = |m: &ModelChoice| ModelPart { bos: m.bos, ..ModelPart::plain(&m.source) };
        let shared = || self.engine.model.clone().or_else(|| self.model.as_ref().map(own));
        match self.matrix.model.as_slice() {
            [] => shared().into_iter().collect(),
            list => list.to_vec(),
        }
    }

    /// The programmed costs that are the cells of a scenario of known answer; empty in every other.
    pub fn slowdowns(&self) -> &[f64] {
        let listed = |workload: &'_ Workload| matches!(workload, Workload::KnownAnswer { .. });
        match self.workloads.iter().find(|workload| listed(workload)) {
            Some(Workload::KnownAnswer { slowdowns, .. }) => slowdowns,
            _ => &[],
        }
    }

    /// The draft that every cell may use.
    pub fn draft(&self) -> Option<&str> {
        self.model.as_ref()?.draft.as_deref()
    }
}

/// How long and how often to measure.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// Worker threads; absent means the physical cores.
    pub threads: Option<usize>,
    /// Seconds of timed repetitions for the whole scenario; what is owed then is left out and said so.
    pub seconds: f64,
    /// Repetitions that every timed cell gets.
    pub min_repetitions: u32,
    /// Most repetitions.
    pub max_repetitions: u32,
    /// Stop when the 95 % interval of the median is within this share of it, for every timed metric.
    pub precision: f64,
    /// Add a second copy of the reference cell: its difference from the first is the noise floor.
    pub aa_control: bool,
    /// Measure the machine's roofs first.
    pub measure_machine: bool,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget {
            threads: None,
            seconds: 60.0,
            min_repetitions: 5,
            max_repetitions: 30,
            precision: 0.02,
            aa_control: true,
            measure_machine: true,
        }
    }
}

/// Correctness gates of every cell.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// Largest |Δlogit| against the oracle (same weights format, naive attention, scalar kernels), relative to the
    /// largest |logit|.
    pub logit_tolerance: f64,
    /// Tokens of greedy generation that a lossless decoder must reproduce.
    pub lossless_tokens: usize,
    /// Prompt tokens of the check.
    pub prompt_tokens: usize,
}

impl Default for Expect {
    fn default() -> Expect {
        Expect { logit_tolerance: 2e-4, lossless_tokens: 32, prompt_tokens: 48 }
    }
}

fn one() -> u64 {
    1
}

fn calibration_windows() -> usize {
    32
}

fn calibration_window_tokens() -> usize {
    256
}
