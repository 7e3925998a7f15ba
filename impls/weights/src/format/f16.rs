//! What: weights as IEEE half, widened to f32 in registers.
//! Source: IEEE 754 binary16; conversion by F16C where the processor has it.
//! Shapes: x `[rows, in]` → y `[rows, out]`; W `[out, in]` packed in panels of output rows.
//! Method: 1. pack once at load (f16 sources without a detour through f32). 2. widen and multiply-add in f32.
//! Exactness: f16 sources bit-exact, others rounded to nearest even; then equal to the f32 format on those weights.
//! Cost: 2 bytes per weight and call, 2 flops and a conversion per weight and row tile.
//! Not handled: weights beyond ±65504 (refused when built).

use cpu_kernels::PackedF16;

/// The format.
pub type F16Linear = super::Coat<PackedF16>;

coat!(PackedF16, int8: false);
