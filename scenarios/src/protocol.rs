//! What the runner and a worker say to each other: one JSON object per line.
//!
//! A worker is a child process that holds one cell (or one group of cells to verify), so that peak memory, panics and
//! out-of-memory stay in it; it leaves when its input ends. Another engine joins through `external`.

use std::path::PathBuf;

use results::trace::{Roof, Trace};
use serde::{Deserialize, Serialize};

/// Version of these messages; both sides must agree.
pub const PROTOCOL: u32 = 1;

/// Runner to worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Command {
    /// Measure the machine; `again` is a short look after a long one.
    Machine {
        threads: usize,
        #[serde(default)]
        again: bool,
    },
    /// Build the first of `cells` (they differ in decoding only).
    Build(Build),
    /// Check the built engine against its oracle, and every lossless decoder of the group against plain greedy.
    Verify,
    /// Compute the sample logits again; they must equal those seen by `Verify`.
    VerifyAgain { sample: Vec<f32> },
    /// Run one repetition of workload number `workload`; `roof` is the best seen of the machine by now.
    Run {
        workload: usize,
        repetition: u32,
        #[serde(default)]
        roof: Option<Roof>,
    },
}

/// What to build.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Build {
    /// Text of the scenario.
    pub scenario: String,
    /// Its file, when it has one: relative paths start there.
    pub file: Option<PathBuf>,
    /// Cell ids; the first is built.
    pub cells: Vec<String>,
    /// Worker threads.
    pub threads: usize,
    /// Whether the engine measured against is needed too (perplexity against the reference cell).
    pub with_reference: bool,
    /// Measured roofs.
    pub roof: Option<Roof>,
    /// Interpreter of the adapters of other engines.
    #[serde(default)]
    pub python: Option<PathBuf>,
    /// Folder where files for other engines may lie until the run ends.
    #[serde(default)]
    pub scratch: Option<PathBuf>,
}

/// Worker to runner.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum Reply {
    /// First line of every worker.
    Hello { protocol: u32, version: String },
    /// Still working.
    Progress { text: String, done: usize, of: usize },
    /// The machine's roofs.
    Machine { roof: Roof, facts: Vec<(String, String)> },
    /// The engine is ready.
    Built { kernel_path: String, isa: String, trace: Trace, facts: Vec<(String, String)> },
    /// Outcome of the checks of each cell of the group, and the sample logits.
    Verified { checks: Vec<CellChecks>, sample: Vec<f32> },
    /// Outcome of a repetition, and facts about the cell that it found out.
    Trace {
        trace: Trace,
        #[serde(default)]
        facts: Vec<(String, String)>,
    },
    /// The workload makes no sense for this cell.
    Refused { reason: String },
    /// The command failed; the worker can still be told to exit.
    Failed { reason: String },
}

/// Checks of one cell, as a trace of `Check` events.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CellChecks {
    /// The cell.
    pub cell: String,
    /// Its checks.
    pub trace: Trace,
}
