//! What: weights as bfloat16, widened to f32 in registers.
//! Source: bfloat16: the upper half of an f32.
//! Shapes: x `[rows, in]` → y `[rows, out]`; W `[out, in]` packed in panels of output rows.
//! Method: 1. pack once at load (bf16 sources without a detour through f32). 2. shift to f32 and multiply-add.
//! Exactness: bf16 sources bit-exact, others rounded to nearest even; then equal to the f32 format on those weights.
//! Cost: 2 bytes per weight and call, 2 flops and a shift per weight and row tile.
//! Not handled: bf16 dot-product instructions, which round sums differently.

use cpu_kernels::PackedBf16;

/// The format.
pub type Bf16Linear = super::Coat<PackedBf16>;

coat!(PackedBf16, int8: false);
