//! C = A·Bᵀ, A `[m, k]`, B `[n, k]`, C `[m, n]`, all of one number format, sums in f32.
//!
//! | rung | idea | numbers | needs |
//! |---|---|---|---|
//! | `g0_naive` | a thread per element | f32, f16, bf16 | sm_80 |
//! | `g1_coalesced` | tiles read in rows and shared by a block | f32, f16, bf16 | sm_80 |
//! | `g2_register_tile` | 8 × 8 elements a thread, 16 bytes a load | f32, f16, bf16 | sm_80 |
//! | `g3_mma` | tensor cores, ldmatrix on swizzled tiles, copies in the background | f16, bf16 | sm_80 |
//! | `g4_wgmma` | warpgroup products on tiles that the tensor memory accelerator brings | f16, bf16 | sm_90a |
//! | `g5_specialised` | one warpgroup copies, two multiply | f16, bf16 | sm_90a |
//! | `g6_persistent` | blocks stay, and load the next tile while they store this one; tiles ordered for L2 | f16, bf16 | sm_90a |
//! | `g7_multicast` | two blocks below each other, each fetching half of B's tile for both | f16, bf16 | sm_90a |
//! | `cublaslt` | NVIDIA's library, the fastest of its own first proposals | f16, bf16 | the library |
//!
//! No rung's bits of an element depend on m, the library's may.

mod launch;
mod vendor;

pub use launch::{bench, kernels};
