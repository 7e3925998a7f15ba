//! SIMD and scalar primitives on slices: numbers in, numbers out; no model, no clock, no I/O.
//!
//! Every operation takes a [`Cpu`] first (instruction set and threads, decided at run time) and works on plain slices.
//! Kernels are written once over a 16-lane vector and compiled for each level; see `simd`. This crate is the home of
//! `unsafe`: intrinsics, the thread pool, and disjoint writes from tasks.

mod cpu;
mod isa;
mod pool;
mod rows;
mod scratch;
mod simd;

pub mod activation;
pub mod attention;
pub mod double;
pub mod exp;
pub mod hadamard;
pub mod ladder;
pub mod linear;
pub mod norm;
pub mod roofline;
pub mod rope;
pub mod vector;

pub use activation::{Activation, activate, activate_mul};
pub use attention::{online_softmax_update, scale_row, scores_tile, weighted_sum};
pub use cpu::{Cpu, UnsupportedIsa};
pub use double::subtract_combination;
pub use exp::{exp, log_sum_exp, row_max, softmax_row};
pub use hadamard::Hadamard;
pub use isa::{Avx2, Avx512, Isa, Scalar, Vnni};
pub use ladder::{OPS, Problem, Rung, ladder};
pub use linear::{
    BlockForm, BlockRow, BlockScales, BlockSource, CodebookCodes, GroupCodes, Int8Grid, LatticeCodes, NestedScales,
    PackedBf16, PackedBlocks, PackedCodebook, PackedF16, PackedF32, PackedGroup, PackedGroupInt8, PackedHalf,
    PackedInt8, PackedLattice, PackedLut, e4m3_to_f32, e8m0_to_f32, e8p_magnitudes, e8p_point, finite_range,
};
pub use norm::{layer_norm, rms_norm};
pub use rope::{rope_half_split, rope_interleaved};
pub use vector::{add_in_place, argmax, axpy, dot};
