//! One tidy row: a value of one metric for one repetition of one cell.

use serde::{Deserialize, Serialize};

/// Version of the row layout; a reader refuses a newer one.
pub const SCHEMA_VERSION: u32 = 1;

/// Which way a metric gets better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Smaller is better (latency, bytes, perplexity).
    Lower,
    /// Larger is better (tokens per second, agreement).
    Higher,
    /// Neither (counts, states).
    None,
}

impl Direction {
    /// The word in the `direction` column.
    pub fn word(self) -> &'static str {
        match self {
            Direction::Lower => "lower",
            Direction::Higher => "higher",
            Direction::None => "none",
        }
    }

    /// The direction of a word.
    pub fn from_word(word: &str) -> Option<Direction> {
        [Direction::Lower, Direction::Higher, Direction::None].into_iter().find(|direction| direction.word() == word)
    }
}

/// Whether a row may be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Measured, and the cell's correctness checks held before and after.
    Ok,
    /// The cell failed its correctness check: its speed is suppressed.
    Wrong,
    /// The cell crashed, ran out of memory or could not load.
    Failed,
    /// The combination makes no sense or is not available here; see `reason`.
    Skipped,
}

impl Status {
    /// The word in the `status` column.
    pub fn word(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Wrong => "wrong",
            Status::Failed => "failed",
            Status::Skipped => "skipped",
        }
    }

    /// The status of a word.
    pub fn from_word(word: &str) -> Option<Status> {
        [Status::Ok, Status::Wrong, Status::Failed, Status::Skipped].into_iter().find(|status| status.word() == word)
    }
}

/// The place of a cell on each axis, as the scenario's tags print (`flash`, `gptq-4bit-g128`, …).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Axes {
    /// Engine: `infermark`, or another one measured beside it.
    #[serde(default = "own_engine")]
    pub engine: String,
    /// Checkpoint, e.g. `embedded:base`.
    pub model: String,
    /// Attention variant.
    pub attention: String,
    /// Weight format and quantizer.
    pub weights: String,
    /// Placement, eviction and encoding of the KV cache.
    pub kv: String,
    /// Decoding method.
    pub decoding: String,
    /// Device and instruction set, e.g. `cpu-avx2`.
    pub device: String,
}

/// Name of this engine on the `engine` axis, and of every row that was written before there was one.
pub const OWN_ENGINE: &str = "infermark";

fn own_engine() -> String {
    OWN_ENGINE.into()
}

impl Axes {
    /// The part on each axis, by the axis's name, in the order of the columns.
    pub fn named(&self) -> [(&'static str, &str); 7] {
        [
            ("engine", &self.engine),
            ("model", &self.model),
            ("attention", &self.attention),
            ("weights", &self.weights),
            ("kv", &self.kv),
            ("decoding", &self.decoding),
            ("device", &self.device),
        ]
    }
}

impl Default for Axes {
    fn default() -> Axes {
        let [model, attention, weights, kv, decoding, device] = Default::default();
        Axes { engine: own_engine(), model, attention, weights, kv, decoding, device }
    }
}

/// One row of `observations.parquet`; the column names are the field names, axes flattened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// Run this row belongs to.
    pub run_id: String,
    /// Scenario name.
    pub scenario: String,
    /// Cell id, stable across runs of the same scenario.
    pub cell: String,
    /// Place on the axes.
    #[serde(flatten)]
    pub axes: Axes,
    /// Workload name, e.g. `pp512`.
    pub workload: String,
    /// Sitting of the run: 0, and one more after each `--resume`. Clocks pair only inside one sitting (see [`crate::pairing`]).
    pub sitting: u32,
    /// Repetition number; times of two cells with equal (sitting, repetition, item) are a pair.
    pub repetition: u32,
    /// Window, request, token or sweep index inside the repetition; 0 when there is one value.
    pub item: u32,
    /// Metric id, e.g. `tpot_ms`.
    pub metric: String,
    /// Versioned formula, e.g. `tpot@1`.
    pub formula_id: String,
    /// Unit, e.g. `ms`, `tok/s`, `B`, `nat`.
    pub unit: String,
    /// Better direction.
    pub direction: Direction,
    /// The value; absent when `status` is not ok.
    pub value: Option<f64>,
    /// Sweep coordinate (context length, N of a kernel) where one exists.
    pub x: Option<f64>,
    /// Believability.
    pub status: Status,
    /// Why, when the status is not ok.
    pub reason: String,
    /// Worker threads.
    pub threads: u32,
    /// Kernel path actually taken, e.g. `avx2: gemv_f16_panel16 + flash_generic`.
    pub kernel_path: String,
    /// Seed of everything random in the cell.
    pub seed: u64,
}

/// One row of `provenance.parquet`: a fact about the run (`scope = "run"`) or about one cell (`scope` = cell id).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// Run this row belongs to.
    pub run_id: String,
    /// `run`, `machine`, or a cell id.
    pub scope: String,
    /// e.g. `git_commit`, `cpu_model`, `weights_sha256`.
    pub key: String,
    /// The fact, as text.
    pub value: String,
}
