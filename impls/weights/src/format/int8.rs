//! What: W8A8: int8 weights per output channel, int8 activations per token, int32 accumulation.
//! Source: LLM.int8() (arXiv 2208.07339) §2, vector-wise absmax; no outlier decomposition.
//! Shapes: x `[rows, in]` → y `[rows, out]`; W codes `[out, in]` with scales `[out]`; x is coded per call, scales `[rows]`.
//! Method: 1. c_x = absmax of each row of x, codes = round(127·x/c_x). 2. int32 dot products. 3. y = dot · c_x/127 · c_w/127.
//! Exactness: the int32 sums are exact, so y equals the product of both dequantised operands up to the final f32 rounding.
//! Cost: 1 byte per weight and call; one pass over x to code it.
//! Not handled: outlier features in 16 bit, zero points, static activation scales.

use cpu_kernels::PackedInt8;

/// The format.
pub type Int8Linear = super::Coat<PackedInt8>;

coat!(PackedInt8, int8: true);
