//! The seam of the weights axis: a matrix product with stored weights.

use std::sync::Arc;

use cuda_kernels::GpuError;

use crate::{Activations, Cuda, Device};

/// A matrix product that cannot move to a GPU.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PlacementError {
    /// No kernel there reads its codes.
    #[error("weights stored as `{0}` have no kernel on a GPU; use f32, f16, bf16, int8 or 4-bit groups")]
    NoKernel(String),
    /// The device refused.
    #[error(transparent)]
    Gpu(#[from] GpuError),
}

/// How a format rounds its inputs before it multiplies: x ≈ step·(code − zero), codes −127 … 127.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Int8Inputs {
    /// Which values share a step.
    pub range: Int8Range,
    /// Whether the grid runs from the smallest to the largest value, with a code for 0, instead of over ±the largest magnitude.
    pub zero_point: bool,
    /// Values of larger magnitude are taken out of the row, ranges included, and multiplied as they are.
    pub exact_above: f32,
}

/// Which inputs share an int8 grid, and where its ends come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Int8Range {
    /// The values of each row.
    Row,
    /// All values of a call: a row then depends on the others.
    Call,
    /// All values ever, from ends chosen beforehand; what lies beyond is clipped.
    Fixed {
        /// Smallest value; −high where there is no zero point.
        low: f32,
        /// Largest value.
        high: f32,
    },
}

impl Int8Inputs {
    /// Symmetric grids of each row's own.
    pub const PER_ROW: Int8Inputs = Int8Inputs { range: Int8Range::Row, zero_point: false, exact_above: f32::INFINITY };
}

/// A weight **format**: y = x·Wᵀ, W `[out_features, in_features]`, no bias.
///
/// Each output element must not depend on how many rows share the call (row-count invariance), so that one-row
/// decoding and many-row verification agree bit for bit; a format that cannot promise it says so in [`Linear::rows_are_independent`].
pub trait Linear: Send + Sync {
    /// Columns of x.
    fn in_features(&self) -> usize;
    /// Columns of y.
    fn out_features(&self) -> usize;
    /// `x [rows, in_features]` → `y [rows, out_features]`; `y` is reshaped.
    fn forward(&self, x: &Activations, y: &mut Activations);
    /// Bytes that one call must read of the stored weights, scales and indices included.
    fn weight_bytes(&self) -> usize;
    /// The weights this format stands for, dequantised, `[out_features, in_features]` row-major: the oracle of tests
    /// and of layer-error metrics.
    fn dequantised(&self) -> Vec<f32>;
    /// How inputs are rounded to int8; `None`: they are not.
    fn int8_inputs(&self) -> Option<Int8Inputs> {
        None
    }
    /// How far each of a row's results may lie from the product with the dequantised weights because the format rounds
    /// combinations of the row's inputs; empty where it does not.
    fn rounding_bound(&self, x: &[f32]) -> Vec<f32> {
        let _ = x;
        vec![]
    }
    /// Whether the product itself runs on int8 (activations quantised too); decides which roof applies.
    fn is_int8(&self) -> bool {
        self.int8_inputs().is_some()
    }
    /// Whether a row of y depends on its row of x alone.
    fn rows_are_independent(&self) -> bool {
        self.int8_inputs().is_none_or(|inputs| inputs.range != Int8Range::Call)
    }
    /// Bytes that the stored weights occupy, where a call does not always read all of them.
    fn resident_bytes(&self) -> usize {
        self.weight_bytes()
    }
    /// The same codes on another device, for formats that round their inputs; `None` where [`Linear::dequantised`] weights
    /// say all there is to know.
    fn on(&self, device: &Device) -> Option<Box<dyn Linear>> {
        let _ = device;
        None
    }
    /// The same codes on a GPU, where activations then are.
    fn on_cuda(self: Box<Self>, cuda: &Arc<Cuda>) -> Result<Box<dyn Linear>, PlacementError> {
        let _ = cuda;
        Err(PlacementError::NoKernel(self.kernel_name()))
    }
    /// Codes on each side of 0 that inputs are rounded to, where they are: how coarse that is.
    fn input_levels(&self) -> Option<f32> {
        self.is_int8().then_some(127.0)
    }
    /// `x [rows, in_features]` as the product reads it, where it rounds in a way that [`Linear::int8_inputs`] cannot say.
    fn rounded_inputs(&self, x: &Activations) -> Option<Activations> {
        let _ = x;
        None
    }
    /// Kernel that runs, e.g. `f16_panel16_avx2`.
    fn kernel_name(&self) -> String;
}
