//! What the ladders of all operations have in common: one problem in device memory, several rungs that solve it, one oracle.

use crate::{Arch, GpuError};

/// One implementation of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rung {
    /// Place in the ladder and technique, e.g. `a5_pipelined`.
    pub name: &'static str,
    /// What it adds to the rung before, in a few words.
    pub idea: &'static str,
    /// The oldest architecture it runs on.
    pub needs: Arch,
}

/// How far a result lies from the f64 oracle, and how far it may.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Deviation {
    /// Largest |result − oracle| over the checked elements; not a number where a result is none.
    pub largest: f64,
    /// What the rung may have, of the same kind.
    pub allowed: f64,
}

impl Deviation {
    /// Whether the result may be timed.
    pub fn is_within(&self) -> bool {
        self.largest <= self.allowed
    }
}

/// A problem with its inputs in device memory: seeded normal numbers, never zeros.
pub trait Bench: Send {
    /// Operation and sizes, e.g. `attention b1 h32/8 s8192 d128 causal bf16`.
    fn label(&self) -> String;
    /// The rungs that can solve it on this device, from the simplest to the fastest; those it cannot run, with the reason.
    fn rungs(&self) -> Vec<(Rung, Result<(), String>)>;
    /// Floating-point (or integer) operations by the convention of the operation's papers, whatever a rung really does.
    fn flops(&self) -> u64;
    /// The least bytes of device memory that any rung must move.
    fn bytes(&self) -> u64;
    /// Fills outputs and workspaces with NaN, so that what a rung does not write is seen.
    fn poison(&self) -> Result<(), GpuError>;
    /// Puts one run of rung `name` behind the work before.
    fn run(&self, name: &str) -> Result<(), GpuError>;
    /// Compares what the last run left with an f64 oracle computed on the CPU (of all elements, or of rows drawn by seed).
    fn deviation(&self, name: &str) -> Result<Deviation, GpuError>;
}
