//! What: 2, 3, 4 or 8-bit codes with a scale and a zero per group of columns; activations stay f32.
//! Source: the storage of GPTQ (arXiv 2210.17323) §4, shared by every quantizer that emits group codes.
//! Shapes: x `[rows, in]` → y `[rows, out]`; codes `[out, in]`, scales and zeros `[out, ⌈in/group⌉]` in f16; order `[in]` with act-order.
//! Method: 1. with act-order, gather x into stored order. 2. decode w = scale·(code − zero) in registers, multiply-add in f32.
//! Exactness: decoded weights equal `Quantized::dequantise` bit for bit; sums as in the f32 format.
//! Cost: bits/8 bytes per weight and call, and 2 to 4 bytes per group.
//! Not handled: mixed bit widths in one matrix, quantised activations.

use cpu_kernels::PackedGroup;

/// The format.
pub type GroupLinear = super::Coat<PackedGroup>;

coat!(PackedGroup, int8: false);
