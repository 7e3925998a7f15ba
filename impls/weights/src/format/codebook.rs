//! What: 4-bit codes into a table of 16 values with a scale per block of columns; activations stay f32.
//! Source: the storage of QLoRA (arXiv 2305.14314) §3, of MXFP4 and of NVFP4, shared by every quantizer that emits such codes.
//! Shapes: x `[rows, in]` → y `[rows, out]`; codes `[out, in]`, scales `[out, ⌈in/block⌉]` in f32 or 8 bits.
//! Method: look 16 codes up in registers, multiply by the block's scales, multiply-add in f32.
//! Exactness: decoded weights equal `Quantized::dequantise` bit for bit; sums as in the f32 format.
//! Cost: 1/2 byte per weight and call, and 1 or 4 bytes per block.
//! Not handled: blocks across rows, quantised activations.

use cpu_kernels::PackedCodebook;

/// The format.
pub type CodebookLinear = super::Coat<PackedCodebook>;

coat!(PackedCodebook, int8: false);
