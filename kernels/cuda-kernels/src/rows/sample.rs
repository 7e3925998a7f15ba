//! What: the most likely token of each row of logits, and probabilities at a temperature.
//! Source: none; argmax and softmax.
//! Shapes: logits `[rows, cols]` → tokens `[rows]`, or probabilities `[rows, cols]`.
//! Method: one block per row: largest value by lanes, warps, block; then exponentials and their sum in a fixed order.
//! Exactness: argmax exact, of equal values the smallest index; probabilities within 1e-5 relative of f64.
//! Cost: one read of the logits (probabilities: three, two writes).
//! Not handled: filters (top-k, top-p), which stay on the host.

use super::require;
use crate::{Arg, Buffer, GpuError, KernelSpec, LaunchShape, Source};

static SOURCE: Source = Source { name: "rows/sample.cu", text: include_str!("sample.cu") };

/// Threads of a block; rows of logits are long.
const THREADS: usize = 256;

pub(super) fn kernels() -> Vec<KernelSpec> {
    ["argmax", "probabilities"].map(|entry| KernelSpec::new(&SOURCE, entry)).into()
}

/// The most likely token of each row.
pub fn argmax(logits: &Buffer<f32>, [rows, cols]: [usize; 2], tokens: &Buffer<u32>) -> Result<(), GpuError> {
    let fits = logits.len() >= rows * cols && tokens.len() >= rows && cols > 0;
    require("argmax", fits, || format!("{rows} rows of {cols} from {logits:?} to {tokens:?}"))?;
    let args = [logits.arg(), Arg::I32(cols as i32), tokens.arg()];
    // SAFETY: lengths are checked above.
    unsafe { tokens.gpu().launch(&KernelSpec::new(&SOURCE, "argmax"), LaunchShape::line(rows, THREADS), &args) }
}

/// `y = softmax(logits / temperature)`, row by row.
pub fn probabilities(
    logits: &Buffer<f32>,
    [rows, cols]: [usize; 2],
    temperature: f32,
    y: &Buffer<f32>,
) -> Result<(), GpuError> {
    let fits = logits.len() >= rows * cols && y.len() >= rows * cols && temperature > 0.0;
    require("probabilities", fits, || format!("{rows} rows of {cols} at temperature {temperature} to {y:?}"))?;
    let args = [logits.arg(), Arg::F32(temperature), Arg::I32(cols as i32), y.arg()];
    // SAFETY: lengths are checked above.
    unsafe { y.gpu().launch(&KernelSpec::new(&SOURCE, "probabilities"), LaunchShape::line(rows, THREADS), &args) }
}
