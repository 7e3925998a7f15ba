//! What: the curve of an MLP, alone or times its other half.
//! Source: Shazeer 2020, arXiv:2002.05202, eq. 6; Hendrycks and Gimpel 2016, arXiv:1606.08415, §2.
//! Shapes: x `[rows, 2·width]` → y `[rows, width]`; alone: x in place.
//! Method: a thread makes four neighbours where the width allows, one otherwise; grid-stride.
//! Exactness: relative 1e-5 against f64 where the curve is not near 0; full-range expf, erff, tanhf.
//! Cost: 12 bytes per value of y; 8 alone.
//! Not handled: other curves.

use super::{lanes, require, spread};
use crate::{Arg, Buffer, GpuError, KernelSpec, Source};

static SOURCE: Source = Source { name: "rows/activate.cu", text: include_str!("activate.cu") };

/// A curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    /// x / (1 + e^−x).
    Silu,
    /// x·Φ(x) with the error function.
    Gelu,
    /// x·Φ(x) with Φ by its tanh form.
    GeluTanh,
    /// max(x, 0).
    Relu,
}

impl Curve {
    /// All.
    pub const ALL: [Curve; 4] = [Curve::Silu, Curve::Gelu, Curve::GeluTanh, Curve::Relu];

    fn name(self) -> &'static str {
        match self {
            Curve::Silu => "SILU",
            Curve::Gelu => "GELU",
            Curve::GeluTanh => "GELU_TANH",
            Curve::Relu => "RELU",
        }
    }
}

fn kernel(entry: &'static str, curve: Curve, lanes: usize) -> KernelSpec {
    KernelSpec::new(&SOURCE, entry).define("KIND", curve.name()).define("LANES", lanes)
}

pub(super) fn kernels() -> Vec<KernelSpec> {
    let every = |curve| [1, 4].into_iter().flat_map(move |l| ["activate_mul", "activate"].map(|e| kernel(e, curve, l)));
    Curve::ALL.into_iter().flat_map(every).collect()
}

/// `y [rows, width]` = curve(first half of x's row) · second half.
pub fn activate_mul(curve: Curve, x: &Buffer<f32>, rows: usize, width: usize, y: &Buffer<f32>) -> Result<(), GpuError> {
    let n = rows * width;
    require("activate_mul", x.len() >= 2 * n && y.len() >= n, || {
        format!("{rows} rows of {width} from {x:?} to {y:?}")
    })?;
    let args = [x.arg(), Arg::I32(rows as i32), Arg::I32(width as i32), y.arg()];
    let lanes = lanes(&[width]);
    // SAFETY: lengths are checked above.
    unsafe { y.gpu().launch(&kernel("activate_mul", curve, lanes), spread(n, lanes), &args) }
}

/// The first `n` values of `x` become their curve.
pub fn activate(curve: Curve, n: usize, x: &Buffer<f32>) -> Result<(), GpuError> {
    require("activate", x.len() >= n, || format!("{n} values of {x:?}"))?;
    let lanes = lanes(&[n]);
    // SAFETY: the length is checked above.
    unsafe { x.gpu().launch(&kernel("activate", curve, lanes), spread(n, lanes), &[Arg::I32(n as i32), x.arg()]) }
}
