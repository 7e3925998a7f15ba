//! What a decoder does between its matrix products, on rows of f32 in device memory: every launcher checks lengths and makes
//! one launch. A row's result depends on that row alone, whatever rows share the call.

mod activate;
mod attend;
mod cache;
mod elementwise;
mod embed;
mod norm;
mod rope;
mod sample;

pub use activate::{Curve, activate, activate_mul};
pub use attend::{Heads, attend_rows};
pub use cache::{CacheLayout, Places, cache_append};
pub use elementwise::{add_bias, add_scaled, gather_rows, scale, soft_cap, take_columns};
pub use embed::{add_positions, embed_rows};
pub use norm::{add_rms_norm, layer_norm, rms_norm};
pub use rope::{Turn, rope, rope_append};
pub use sample::{argmax, probabilities};

use half::{bf16, f16};

use crate::{Arg, Buffer, GpuError, KernelSpec, LaunchShape};

/// Numbers in device memory as they are stored.
#[derive(Debug, Clone, Copy)]
pub enum Stored<'a> {
    /// 32-bit floats.
    F32(&'a Buffer<f32>),
    /// IEEE half precision.
    F16(&'a Buffer<f16>),
    /// bfloat16.
    Bf16(&'a Buffer<bf16>),
}

/// Names in the kernels' texts of the types that [`Stored`] tells apart.
const STORED: [&str; 3] = ["Single", "HalfStored", "Bf16Stored"];

impl Stored<'_> {
    /// How many.
    pub fn len(&self) -> usize {
        match self {
            Stored::F32(buffer) => buffer.len(),
            Stored::F16(buffer) => buffer.len(),
            Stored::Bf16(buffer) => buffer.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn arg(&self) -> Arg<'static> {
        match self {
            Stored::F32(buffer) => buffer.arg(),
            Stored::F16(buffer) => buffer.arg(),
            Stored::Bf16(buffer) => buffer.arg(),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Stored::F32(_) => STORED[0],
            Stored::F16(_) => STORED[1],
            Stored::Bf16(_) => STORED[2],
        }
    }
}

/// Every kernel here with every constant it is launched with.
pub(crate) fn kernels() -> Vec<KernelSpec> {
    let all = [activate::kernels(), attend::kernels(), cache::kernels(), elementwise::kernels(), embed::kernels()];
    let more = [norm::kernels(), rope::kernels(), sample::kernels()];
    all.into_iter().chain(more).flatten().collect()
}

fn require(kernel: &'static str, holds: bool, expected: impl FnOnce() -> String) -> Result<(), GpuError> {
    if holds { Ok(()) } else { Err(GpuError::shape(kernel, expected())) }
}

/// Values that a thread moves at once in rows whose parts have these widths.
fn lanes(widths: &[usize]) -> usize {
    if widths.iter().all(|width| width % 4 == 0) { 4 } else { 1 }
}

/// Threads of a block that walks `width` values, `lanes` at a time.
fn threads(width: usize, lanes: usize) -> usize {
    width.div_ceil(lanes).next_multiple_of(32).clamp(32, 512)
}

/// A launch over `n` values, `lanes` per thread, with more work per thread where the grid would grow beyond reason.
fn spread(n: usize, lanes: usize) -> LaunchShape {
    LaunchShape::line(n.div_ceil(256 * lanes).min(8192), 256)
}
