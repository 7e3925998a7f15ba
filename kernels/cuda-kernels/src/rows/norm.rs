//! What: RMSNorm and LayerNorm of rows or of groups of features, and RMSNorm of a residual stream as it takes a sum.
//! Source: Zhang and Sennrich 2019, arXiv:1910.07467, eq. 4; Ba et al. 2016, arXiv:1607.06450, eq. 3–4.
//! Shapes: x, y `[groups, width]`; gain, bias `[width]`, or one after the other for the groups of a row.
//! Method: 1. a block sums the squares (about the mean) of its group, warp tree then warps; 2. it scales the group again
//!   from cache. Four values per move where the width allows. In place is fine.
//! Exactness: relative 1e-5 against f64 for widths up to 2^16; the order of sums is fixed by the width alone.
//! Cost: 4 FLOPs and 8 bytes per value (fused with the sum: 16 bytes instead of 20).
//! Not handled: unit offsets, which the loader adds to the gain.

use super::{lanes, require, threads};
use crate::{Arg, Buffer, GpuError, KernelSpec, LaunchShape, Source};

static SOURCE: Source = Source { name: "rows/norm.cu", text: include_str!("norm.cu") };

fn kernel(entry: &'static str, lanes: usize) -> KernelSpec {
    KernelSpec::new(&SOURCE, entry).define("LANES", lanes)
}

pub(super) fn kernels() -> Vec<KernelSpec> {
    let entries = ["rms_norm", "layer_norm", "add_rms_norm"];
    entries.into_iter().flat_map(|entry| [1, 4].map(|lanes| kernel(entry, lanes))).collect()
}

/// `y = x / rms(x) · gain` for each of `groups` groups of `width` features; group g has the gains of part
/// `g mod (gain.len() / width)`.
pub fn rms_norm(
    x: &Buffer<f32>,
    gain: &Buffer<f32>,
    [groups, width]: [usize; 2],
    eps: f32,
    y: &Buffer<f32>,
) -> Result<(), GpuError> {
    check("rms_norm", x, gain, [groups, width], y)?;
    let parts = Arg::I32((gain.len() / width) as i32);
    let args = [x.arg(), gain.arg(), Arg::I32(width as i32), parts, Arg::F32(eps), y.arg()];
    let lanes = lanes(&[width]);
    // SAFETY: lengths are checked above.
    unsafe { y.gpu().launch(&kernel("rms_norm", lanes), LaunchShape::line(groups, threads(width, lanes)), &args) }
}

/// `y = (x − mean) / deviation · gain + bias`, shapes as in [`rms_norm`].
pub fn layer_norm(
    x: &Buffer<f32>,
    gain: &Buffer<f32>,
    bias: &Buffer<f32>,
    [groups, width]: [usize; 2],
    eps: f32,
    y: &Buffer<f32>,
) -> Result<(), GpuError> {
    check("layer_norm", x, gain, [groups, width], y)?;
    require("layer_norm", bias.len() == gain.len(), || format!("gain {gain:?}, bias {bias:?}"))?;
    let parts = Arg::I32((gain.len() / width) as i32);
    let args = [x.arg(), gain.arg(), bias.arg(), Arg::I32(width as i32), parts, Arg::F32(eps), y.arg()];
    let lanes = lanes(&[width]);
    // SAFETY: lengths are checked above.
    unsafe { y.gpu().launch(&kernel("layer_norm", lanes), LaunchShape::line(groups, threads(width, lanes)), &args) }
}

/// `x += factor · added`, then `y = x / rms(x) · gain`, all `[rows, width]`.
pub fn add_rms_norm(
    added: &Buffer<f32>,
    factor: f32,
    gain: &Buffer<f32>,
    [rows, width]: [usize; 2],
    eps: f32,
    x: &Buffer<f32>,
    y: &Buffer<f32>,
) -> Result<(), GpuError> {
    check("add_rms_norm", x, gain, [rows, width], y)?;
    let fits = added.len() >= rows * width && gain.len() == width;
    require("add_rms_norm", fits, || format!("{rows} rows of {width} from {added:?}, gain {gain:?}"))?;
    let width_arg = Arg::I32(width as i32);
    let args = [added.arg(), Arg::F32(factor), gain.arg(), width_arg, Arg::F32(eps), x.arg(), y.arg()];
    let lanes = lanes(&[width]);
    // SAFETY: lengths are checked above.
    unsafe { y.gpu().launch(&kernel("add_rms_norm", lanes), LaunchShape::line(rows, threads(width, lanes)), &args) }
}

fn check(
    kernel: &'static str,
    x: &Buffer<f32>,
    gain: &Buffer<f32>,
    [groups, width]: [usize; 2],
    y: &Buffer<f32>,
) -> Result<(), GpuError> {
    let n = groups * width;
    let fits = x.len() >= n && y.len() >= n && width > 0 && !gain.is_empty() && gain.len().is_multiple_of(width);
    require(kernel, fits, || format!("{groups} groups of {width} from {x:?} to {y:?}, gain {gain:?}"))
}
