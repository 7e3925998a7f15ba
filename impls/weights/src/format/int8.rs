//! What: W8A8: int8 weights per output channel, int8 activations per token, int32 accumulation.
//! Source: LLM.int8() (arXiv 2208.07339) §2, vector-wise absmax; no outlier decomposition.
//! Shapes: x `[rows, in]` → y `[rows, out]`; W codes `[out, in]` with scales `[out]`; x is coded per call, scales `[rows]`.
//! Method: 1. c_x = absmax of each row of x, codes = round(127·x/c_x). 2. int32 dot products. 3. y = dot · c_x/127 · c_w/127.
//! Exactness: the int32 sums are exact, so y equals the product of both dequantised operands up to the final f32 rounding.
//! Cost: 1 byte per weight and call; one pass over x to code it.
//! Not handled: outlier features in 16 bit, zero points, static activation scales.

use std::sync::Arc;

use cpu_kernels::{Cpu, PackedInt8};
use model::{Activations, Linear};

/// The format.
#[derive(Debug)]
pub struct Int8Linear {
    cpu: Arc<Cpu>,
    weight: PackedInt8,
}

impl Int8Linear {
    /// Multiplies with `weight` on `cpu`.
    pub fn new(cpu: Arc<Cpu>, weight: PackedInt8) -> Int8Linear {
        Int8Linear { cpu, weight }
    }
}

impl Linear for Int8Linear {
    fn in_features(&self) -> usize {
        self.weight.k()
    }

    fn out_features(&self) -> usize {
        self.weight.n()
    }

    fn forward(&self, x: &Activations, y: &mut Activations) {
        y.reshape(x.rows(), self.out_features());
        self.weight.forward(&self.cpu, x.as_slice(), x.rows(), y.as_mut_slice());
    }

    fn weight_bytes(&self) -> usize {
        self.weight.bytes()
    }

    fn dequantised(&self) -> Vec<f32> {
        self.weight.unpack()
    }

    fn is_int8(&self) -> bool {
        true
    }

    fn kernel_name(&self) -> String {
        self.weight.kernel_name(&self.cpu).to_string()
    }
}
