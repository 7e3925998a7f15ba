//! Linears: y\[rows, n\] = x\[rows, k\] · W\[n, k\]ᵀ with weights packed at load time.
//!
//! | type | weight bits | activations | sum | method |
//! |---|---|---|---|---|
//! | [`PackedF32`] | 32 | f32 | f32 | panels of 16 outputs, one FMA chain over k per output |
//! | [`PackedF16`], [`PackedBf16`] | 16 | f32 | f32 | the same, widened in registers |
//! | [`PackedInt8`] | 8 | int8, per row or on given grids | i32 | exact integer dot, scaled once |
//! | [`PackedGroup`] | 2, 3, 4, 8 + scales | f32 | f32 | decoded in registers, one FMA chain over k |
//! | [`PackedGroupInt8`] | 2, 4, 8 + scales | int8, per row and 32 columns | i32, then f32 | exact integer dots per block |
//! | [`PackedBlocks`] | 2 to 6, 8 + scales (ggml's blocks) | int8, per row and 32 columns; or f32 | i32, then f32; or f32 | exact integer dots per block; or decoded in registers |
//! | [`PackedCodebook`] | 4 + scales | f32 | f32 | 16 values looked up in registers, one FMA chain over k |
//! | [`PackedLattice`] | 2 + a scale a row | f32 | f32 | 16-bit codes of 8 weights gathered from tables, then as above |
//! | [`PackedLut`] | 1 to 4 + scales | tables, per row | i16, f32 per 64 columns | partial sums looked up by byte shuffles |
//!
//! For one instruction set every output element has the same bits whatever the number of rows and threads; AVX2 and
//! AVX-512 give the same bits as each other, and int8 activations give the same bits everywhere.

mod block_dot;
mod block_f32;
mod block_form;
mod block_store;
mod blocks;
mod codebook;
mod codebook_walk;
mod coded;
mod codes;
mod f32;
mod gemm;
mod group;
mod group_dot;
mod group_int8;
mod group_store;
mod half_floats;
mod int8;
pub(crate) mod int8_dot;
mod int8_grid;
mod lattice;
pub(crate) mod lut;
mod panels;
pub(crate) mod rungs;
pub(crate) mod tile;

pub use block_form::{BlockForm, BlockRow};
pub use blocks::{BlockSource, PackedBlocks};
pub use codebook::{BlockScales, CodebookCodes, NestedScales, PackedCodebook, e4m3_to_f32, e8m0_to_f32};
pub use f32::PackedF32;
pub use group::PackedGroup;
pub use group_int8::PackedGroupInt8;
pub use group_store::GroupCodes;
pub use half_floats::{PackedBf16, PackedF16, PackedHalf};
pub use int8::PackedInt8;
pub use int8_grid::{Int8Grid, finite_range};
pub use lattice::{LatticeCodes, PackedLattice, e8p_magnitudes, e8p_point};
pub use lut::{LutTables, PackedLut};
