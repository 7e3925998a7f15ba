//! What: weights as f32: the reference format.
//! Source: none; the plain product.
//! Shapes: x `[rows, in]` → y `[rows, out]`; W `[out, in]` packed in panels of output rows.
//! Method: 1. pack once at load. 2. one fused multiply-add chain over in_features per output.
//! Exactness: weights bit-exact; sums in f32, within a few in_features · 2⁻²⁴ of an f64 product.
//! Cost: 4 bytes per weight and call, 2 flops per weight and row.
//! Not handled: transposed or strided sources.

use cpu_kernels::PackedF32;

/// The format.
pub type F32Linear = super::Coat<PackedF32>;

coat!(PackedF32, int8: false);
