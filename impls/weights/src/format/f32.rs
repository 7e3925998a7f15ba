//! What: weights as f32: the reference format.
//! Source: none; the plain product.
//! Shapes: x `[rows, in]` → y `[rows, out]`; W `[out, in]` packed in panels of output rows.
//! Method: 1. pack once at load. 2. one fused multiply-add chain over in_features per output.
//! Exactness: weights bit-exact; sums in f32, within a few in_features · 2⁻²⁴ of an f64 product.
//! Cost: 4 bytes per weight and call, 2 flops per weight and row.
//! Not handled: transposed or strided sources.

use std::sync::Arc;

use cpu_kernels::{Cpu, PackedF32};
use model::{Activations, Linear};

/// The format.
#[derive(Debug)]
pub struct F32Linear {
    cpu: Arc<Cpu>,
    weight: PackedF32,
}

impl F32Linear {
    /// Multiplies with `weight` on `cpu`.
    pub fn new(cpu: Arc<Cpu>, weight: PackedF32) -> F32Linear {
        F32Linear { cpu, weight }
    }
}

impl Linear for F32Linear {
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

    fn kernel_name(&self) -> String {
        self.weight.kernel_name(&self.cpu).to_string()
    }
}
