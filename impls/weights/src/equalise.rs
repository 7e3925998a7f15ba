//! Equalised inputs: a method may divide a layer's inputs per feature by s and multiply the columns of every matrix that
//! reads them, which changes no product but how well it quantizes. The engine folds 1/s into what makes the inputs.

use ndarray::ArrayView2;

use model::Device;
pub use model::block::Place;

use crate::{CalibrationStats, QuantizeError};

/// Matrices `[·, features]` that read one input, and what calibration saw of it.
pub struct SharedInput<'a> {
    /// What makes the input.
    pub place: Place,
    /// The matrices, in full precision.
    pub matrices: Vec<ArrayView2<'a, f32>>,
    /// Of the input, `features` wide.
    pub stats: &'a CalibrationStats,
    /// Where a search may compute.
    pub device: &'a Device,
}

/// Chooses the divisors of an input.
pub trait Equalise {
    /// Where it wants to be asked.
    fn places(&self) -> &[Place];
    /// s `[features]`, positive and finite: x becomes x/s, W becomes W·diag(s).
    fn scales(&self, shared: &SharedInput<'_>) -> Result<Vec<f32>, QuantizeError>;
}
