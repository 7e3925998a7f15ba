//! What: sums, factors, caps, biases; columns and rows picked out of rows.
//! Source: none; plain arithmetic and copies.
//! Shapes: `[rows, cols]` row-major, in f32.
//! Method: a thread takes four neighbours where all widths allow, one otherwise; grid-stride.
//! Exactness: one rounding per operation (sums with a factor: a fused multiply-add); the cap to 1e-6 of itself.
//! Cost: one read of each input, one write.
//! Not handled: more than 2^31 values.

use super::{lanes, require, spread};
use crate::{Arg, Buffer, GpuError, KernelSpec, Source};

static SOURCE: Source = Source { name: "rows/elementwise.cu", text: include_str!("elementwise.cu") };

const ENTRIES: [&str; 6] = ["add_scaled", "add_bias", "scale", "soft_cap", "take_columns", "gather_rows"];

fn kernel(entry: &'static str, lanes: usize) -> KernelSpec {
    KernelSpec::new(&SOURCE, entry).define("LANES", lanes)
}

pub(super) fn kernels() -> Vec<KernelSpec> {
    ENTRIES.into_iter().flat_map(|entry| [1, 4].map(|lanes| kernel(entry, lanes))).collect()
}

fn int(n: usize) -> Arg<'static> {
    Arg::I32(n as i32)
}

/// `y += factor · x`, the first `n` values.
pub fn add_scaled(x: &Buffer<f32>, factor: f32, n: usize, y: &Buffer<f32>) -> Result<(), GpuError> {
    require("add_scaled", x.len() >= n && y.len() >= n, || format!("{n} values of {x:?} to {y:?}"))?;
    let lanes = lanes(&[n]);
    let args = [x.arg(), Arg::F32(factor), int(n), y.arg()];
    // SAFETY: lengths are checked above.
    unsafe { y.gpu().launch(&kernel("add_scaled", lanes), spread(n, lanes), &args) }
}

/// Every row of `x [rows, bias.len()]` += bias.
pub fn add_bias(bias: &Buffer<f32>, rows: usize, x: &Buffer<f32>) -> Result<(), GpuError> {
    let n = rows * bias.len();
    require("add_bias", x.len() >= n, || format!("{rows} rows of {} in {x:?}", bias.len()))?;
    let lanes = lanes(&[bias.len()]);
    let args = [bias.arg(), int(n), int(bias.len()), x.arg()];
    // SAFETY: lengths are checked above.
    unsafe { x.gpu().launch(&kernel("add_bias", lanes), spread(n, lanes), &args) }
}

/// The first `n` values of `x`, times `factor`.
pub fn scale(factor: f32, n: usize, x: &Buffer<f32>) -> Result<(), GpuError> {
    require("scale", x.len() >= n, || format!("{n} values of {x:?}"))?;
    let lanes = lanes(&[n]);
    // SAFETY: the length is checked above.
    unsafe { x.gpu().launch(&kernel("scale", lanes), spread(n, lanes), &[Arg::F32(factor), int(n), x.arg()]) }
}

/// The first `n` values of `x` become cap·tanh(x / cap).
pub fn soft_cap(cap: f32, n: usize, x: &Buffer<f32>) -> Result<(), GpuError> {
    require("soft_cap", x.len() >= n && cap > 0.0, || format!("cap {cap} on {n} values of {x:?}"))?;
    let lanes = lanes(&[n]);
    // SAFETY: the length is checked above.
    unsafe { x.gpu().launch(&kernel("soft_cap", lanes), spread(n, lanes), &[Arg::F32(cap), int(n), x.arg()]) }
}

/// `y [rows, width]` = columns `start .. start + width` of `x [rows, stride]`.
pub fn take_columns(
    x: &Buffer<f32>,
    [rows, stride]: [usize; 2],
    start: usize,
    width: usize,
    y: &Buffer<f32>,
) -> Result<(), GpuError> {
    let fits = x.len() >= rows * stride && y.len() >= rows * width && start + width <= stride;
    require("take_columns", fits, || format!("{width} columns at {start} of {rows} rows of {stride}"))?;
    let lanes = lanes(&[stride, start, width]);
    let args = [x.arg(), int(rows), int(stride), int(start), int(width), y.arg()];
    // SAFETY: lengths are checked above.
    unsafe { y.gpu().launch(&kernel("take_columns", lanes), spread(rows * width, lanes), &args) }
}

/// `y [n, cols]` = rows of `x [_, cols]` by the first `n` numbers of `rows`.
pub fn gather_rows(
    x: &Buffer<f32>,
    rows: &Buffer<u32>,
    n: usize,
    cols: usize,
    y: &Buffer<f32>,
) -> Result<(), GpuError> {
    let fits = rows.len() >= n && y.len() >= n * cols;
    require("gather_rows", fits, || format!("{n} rows of {cols} from {x:?} to {y:?}"))?;
    let lanes = lanes(&[cols]);
    let args = [x.arg(), rows.arg(), int(n), int(cols), y.arg()];
    // SAFETY: lengths are checked above; the caller vouches for the numbers.
    unsafe { y.gpu().launch(&kernel("gather_rows", lanes), spread(n * cols, lanes), &args) }
}
