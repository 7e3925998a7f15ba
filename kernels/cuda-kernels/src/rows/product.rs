//! What: y = x·Wᵀ for every shape and float format: the plain form.
//! Source: none; the formula.
//! Shapes: x `[rows, k]`, W `[n, k]` in f32, f16 or bf16 → y `[rows, n]`.
//! Method: one warp per row and output feature: lanes stride over k, then a tree over the lanes.
//! Exactness: f32 sums in an order that k alone decides; within k · 2⁻²⁴ of f64.
//! Cost: 2·n·k FLOPs per row; every row reads all weights.
//! Not handled: reuse of weights between rows.

use super::{STORED, Stored, require};
use crate::{Arg, Buffer, GpuError, KernelSpec, LaunchShape, Source};

static SOURCE: Source = Source { name: "rows/product.cu", text: include_str!("product.cu") };

/// Output features of a block: one per warp.
const WARPS: usize = 4;

fn kernel(stored: &str) -> KernelSpec {
    KernelSpec::new(&SOURCE, "product_rows").define("STORED", stored)
}

pub(super) fn kernels() -> Vec<KernelSpec> {
    STORED.map(kernel).into()
}

/// `y [rows, n]` = `x [rows, k]` · `weight [n, k]`ᵀ.
pub fn product_rows(
    x: &Buffer<f32>,
    rows: usize,
    weight: Stored<'_>,
    [n, k]: [usize; 2],
    y: &Buffer<f32>,
) -> Result<(), GpuError> {
    let fits = x.len() >= rows * k && weight.len() >= n * k && y.len() >= rows * n;
    require("product_rows", fits, || format!("{rows} rows of {k}, {n} features, {weight:?} to {y:?}"))?;
    let args = [x.arg(), weight.arg(), Arg::I32(n as i32), Arg::I32(k as i32), y.arg()];
    let shape = LaunchShape::grid(n.div_ceil(WARPS), rows, 1, 32 * WARPS);
    // SAFETY: lengths are checked above.
    unsafe { y.gpu().launch(&kernel(weight.name()), shape, &args) }
}
