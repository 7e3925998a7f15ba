//! What: 2, 4 or 8-bit codes with a scale and a zero per group of columns; activations coded to int8 in blocks of 32 columns.
//! Source: the products of ggml's Q4_0 and Q8_0 weights with Q8_0 activations; storage as `group`.
//! Shapes: x `[rows, in]` → y `[rows, out]`; codes `[out, in]`, scales and zeros `[out, ⌈in/group⌉]` in f16; order `[in]` with act-order.
//! Method: 1. with act-order, gather x into stored order. 2. per row and 32 stored columns: absmax/127 and codes of x.
//!   3. int32 dots of codes, scaled and summed in f32.
//! Exactness: equal bits on every instruction set; y is the product of both dequantised operands up to f32 rounding per block.
//! Cost: bits/8 bytes per weight and call, and 2 to 4 bytes per group; one pass over x to code it.
//! Not handled: 3 bits, activation scales chosen beforehand.

use cpu_kernels::PackedGroupInt8;
use model::{Activations, Device, Linear};

/// The format.
pub type GroupInt8Linear = super::Coat<PackedGroupInt8>;

coat!(
    PackedGroupInt8;
    fn is_int8(&self) -> bool {
        true
    }
    fn on(&self, device: &Device) -> Option<Box<dyn Linear>> {
        Some(self.boxed_on(device))
    }
    fn rounded_inputs(&self, x: &Activations) -> Option<Activations> {
        let seen = self.weight.coded_inputs(&self.cpu, x.as_slice(), x.rows());
        Some(Activations::from_vec(x.rows(), x.cols(), seen))
    }
);
