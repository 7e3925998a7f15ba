//! What: weights as bfloat16, widened to f32 in registers.
//! Source: bfloat16: the upper half of an f32.
//! Shapes: x `[rows, in]` → y `[rows, out]`; W `[out, in]` packed in panels of output rows.
//! Method: 1. pack once at load (bf16 sources without a detour through f32). 2. shift to f32 and multiply-add.
//! Exactness: bf16 sources bit-exact, others rounded to nearest even; then equal to the f32 format on those weights.
//! Cost: 2 bytes per weight and call, 2 flops and a shift per weight and row tile.
//! Not handled: bf16 dot-product instructions, which round sums differently.

use std::sync::Arc;

use cpu_kernels::{Cpu, PackedBf16};
use model::{Activations, Linear};

/// The format.
#[derive(Debug)]
pub struct Bf16Linear {
    cpu: Arc<Cpu>,
    weight: PackedBf16,
}

impl Bf16Linear {
    /// Multiplies with `weight` on `cpu`.
    pub fn new(cpu: Arc<Cpu>, weight: PackedBf16) -> Bf16Linear {
        Bf16Linear { cpu, weight }
    }
}

impl Linear for Bf16Linear {
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
