//! Products with weights of 4 and 8 bits, x and y f32.
//!
//! | rung | idea | bits depend on rows |
//! |---|---|---|
//! | `q0_thread_per_output` | codes taken out of their words one by one | no |
//! | `q1_warp_per_output` | 16 bytes of codes a lane, coalesced | no |
//! | `q2_tile_gemv` | weights as the A operand of mma: code − 8 exactly in f16, scales on the sums; up to 16 rows for the price of one | no |
//! | `q3_tile_gemm` | the same tiles through shared memory, for more rows | no |
//! | `q4_split_gemm` | each slice of k on its own block, slices added in order | no |
//! | `i0_dp4a` | int8 codes, four products an instruction; inputs coded per row | no (exact) |
//! | `i1_tile_gemv`, `i2_tile_gemm` | int8 mma | no (exact) |
//! | `i3_wgmma` | int8 wgmma on Hopper, tiles brought by TMA, a producer and two consumers | no (exact) |

mod int4;
mod int8;

use crate::{Bench, Gpu, GpuError, KernelSpec};

/// y `[rows, n]` = x `[rows, k]` · Wᵀ with weights of 4 bits in groups of 32, 64 or 128 columns (scale·(code − 8)), or of 8 bits with a scale
/// per output (`group` is then not looked at).
pub fn bench(
    gpu: &Gpu,
    bits: usize,
    group: usize,
    rows: usize,
    n: usize,
    k: usize,
    seed: u64,
) -> Result<Box<dyn Bench>, GpuError> {
    if rows == 0 || n == 0 || k == 0 {
        return Err(GpuError::shape("quantized", format!("{rows} rows of {k} → {n}: none may be 0")));
    }
    match bits {
        4 => int4::bench(gpu, group, rows, n, k, seed),
        8 => int8::bench(gpu, rows, n, k, seed),
        _ => Err(GpuError::shape("quantized", format!("{bits} bits, expected 4 or 8"))),
    }
}

/// Every kernel of this folder in every form that is launched; those of tiles are [`crate::linear`]'s.
pub fn kernels() -> Vec<KernelSpec> {
    [int4::kernels(), int8::kernels()].concat()
}
