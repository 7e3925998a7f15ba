//! The seam of the weights axis: a matrix product with stored weights.

use crate::{Activations, InputRounding};

/// A weight **format**: y = x·Wᵀ, W `[out_features, in_features]`, no bias.
///
/// Each output element must not depend on how many rows share the call (row-count invariance), so that one-row
/// decoding and many-row verification agree bit for bit.
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
    /// Whether the product itself runs on int8 (activations quantised too); decides which roof applies.
    fn is_int8(&self) -> bool {
        false
    }
    /// How inputs are rounded before an f32 product, where they are; int8 products say [`Linear::is_int8`] instead.
    fn input_rounding(&self) -> Option<InputRounding> {
        None
    }
    /// Kernel that runs, e.g. `f16_panel16_avx2`.
    fn kernel_name(&self) -> String;
}
