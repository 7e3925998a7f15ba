//! What: weights as IEEE half, widened to f32 in registers.
//! Source: IEEE 754 binary16; conversion by F16C where the processor has it.
//! Shapes: x `[rows, in]` → y `[rows, out]`; W `[out, in]` packed in panels of output rows.
//! Method: 1. pack once at load (f16 sources without a detour through f32). 2. widen and multiply-add in f32.
//! Exactness: f16 sources bit-exact, others rounded to nearest even; then equal to the f32 format on those weights.
//! Cost: 2 bytes per weight and call, 2 flops and a conversion per weight and row tile.
//! Not handled: weights beyond ±65504 (refused when built).

use std::sync::Arc;

use cpu_kernels::{Cpu, PackedF16};
use model::{Activations, Linear};

/// The format.
#[derive(Debug)]
pub struct F16Linear {
    cpu: Arc<Cpu>,
    weight: PackedF16,
}

impl F16Linear {
    /// Multiplies with `weight` on `cpu`.
    pub fn new(cpu: Arc<Cpu>, weight: PackedF16) -> F16Linear {
        F16Linear { cpu, weight }
    }
}

impl Linear for F16Linear {
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
