//! Matrix products of a decoder: y = x·Wᵀ with f32 activations in and out, for every weight format.
//!
//! | weights | activations | kernels by rows | element's bits depend on the number of rows |
//! |---|---|---|---|
//! | [`F32Weights`] | f32 | `warp_rows` | no |
//! | [`F16Weights`], [`Bf16Weights`] | rounded to the same | ≤ 16: `tile_gemv` (≤ 4: it rounds x itself); more: `tile_gemm` | no |
//! | [`Int8Weights`] | int8 per row | the same | no (exact sums) |
//! | [`Group4Weights`] | rounded to f16 | the same | no |
//!
//! Tensor-core kernels read weights in the order of mma's operands (`pack`, `tile.cuh`). k is summed in 8 slices whose ends do not depend
//! on the rows: one warp a slice where rows are few, one block all of them in turn where they are many, one block a slice in between
//! (`Route`); slices are added in order. So speculation verified by 5 rows equals decoding by 1, bit for bit: as far as an `mma` gives an
//! element the same bits wherever in its tile it stands, which the emulator assumes and `tests/kernels/linear.rs` asks of a real device.
//!
//! Not here: wgmma. Its sums need not have the order of `mma`'s, so prompts on Hopper would differ from decoding; `gemm` has it.

mod f32;
mod group4;
mod half_floats;
mod int8;
mod pack;
pub(crate) mod tiles;
mod workspace;

pub use f32::F32Weights;
pub(crate) use f32::WARP_ROWS;
pub use group4::{Group4Weights, GroupCodes};
pub use half_floats::{Bf16Weights, F16Weights};
pub use int8::Int8Weights;
pub use pack::{pack_16, pack_int4, pack_int8, place_16, place_int4, place_int8};
pub use workspace::Workspace;

use crate::{Buffer, GpuError, KernelSpec};

/// Weights of one product in device memory.
pub trait DeviceLinear: Send + Sync + std::fmt::Debug {
    /// Columns of y.
    fn n(&self) -> usize;
    /// Columns of x.
    fn k(&self) -> usize;
    /// Bytes of weights that one call reads, scales included.
    fn bytes(&self) -> usize;
    /// Makes `workspace` large enough for any number of rows up to `rows`, so that [`Self::forward`] allocates nothing.
    fn reserve(&self, rows: usize, workspace: &mut Workspace) -> Result<(), GpuError>;
    /// y `[rows, n]` = x `[rows, k]` · Wᵀ, behind the work before. Buffers may be longer than that.
    fn forward(&self, x: &Buffer<f32>, rows: usize, y: &Buffer<f32>, workspace: &mut Workspace)
    -> Result<(), GpuError>;
}

/// Every kernel of this folder in every form that is launched.
pub fn kernels() -> Vec<KernelSpec> {
    [f32::kernels(), tiles::kernels()].concat()
}
