//! What: 1 to 4-bit codes in bit planes, multiplied by table lookup; activations enter through tables rounded to bytes.
//! Source: Wei et al., "T-MAC", EuroSys 2025 (arXiv 2407.00088) §3.
//! Shapes: x `[rows, in]` → y `[rows, out]`; codes `[out, in]`, scales and zeros `[out, ⌈in/group⌉]` in f16.
//! Method: 1. tables of the signed sums of every 4 inputs, one scale per 64. 2. a byte shuffle per bit plane and 4 columns.
//! Exactness: within [`PackedLut::rounding_bound`] of the product with the decoded weights; the same bits on every level.
//! Cost: bits/8 bytes per weight and call, 2 bytes per group; tables cost 4 operations per input and row.
//! Not handled: act-order, groups that are not multiples of 64 columns, products of many rows (each reads the weights).

use std::sync::Arc;

use cpu_kernels::Cpu;
use cpu_kernels::linear::{LutTables, PackedLut};
use model::{Activations, Device, Linear};

/// The format.
#[derive(Debug)]
pub struct LutLinear {
    cpu: Arc<Cpu>,
    weight: Arc<PackedLut>,
}

impl LutLinear {
    /// Multiplies with `weight` on `cpu`.
    pub fn new(cpu: Arc<Cpu>, weight: PackedLut) -> LutLinear {
        LutLinear { cpu, weight: Arc::new(weight) }
    }
}

impl Linear for LutLinear {
    fn in_features(&self) -> usize {
        self.weight.k()
    }

    fn out_features(&self) -> usize {
        self.weight.n()
    }

    fn forward(&self, x: &Activations, y: &mut Activations) {
        y.reshape(x.rows(), self.weight.n());
        self.weight.forward(&self.cpu, x.as_slice(), x.rows(), y.as_mut_slice());
    }

    fn weight_bytes(&self) -> usize {
        self.weight.bytes()
    }

    fn dequantised(&self) -> Vec<f32> {
        self.weight.unpack()
    }

    fn rounding_bound(&self, x: &[f32]) -> Vec<f32> {
        self.weight.rounding_bound(&LutTables::of(&self.cpu, x))
    }

    fn is_int8(&self) -> bool {
        true
    }

    fn on(&self, device: &Device) -> Option<Box<dyn Linear>> {
        Some(Box::new(LutLinear { cpu: device.cpu().clone(), weight: self.weight.clone() }))
    }

    fn kernel_name(&self) -> String {
        self.weight.kernel_name(&self.cpu).to_string()
    }
}
