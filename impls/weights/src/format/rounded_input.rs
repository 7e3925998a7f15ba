//! What: any format whose inputs are rounded to few bits per token first.
//! Source: the activation half of W4A4, QuaRot, arXiv 2404.00456, §5 (per-token symmetric, clipping ratio 0.9).
//! Shapes: as the format inside.
//! Method: 1. x is copied and rounded (see [`InputRounding`]). 2. the format inside multiplies.
//! Exactness: the format's own, on rounded inputs.
//! Cost: the format's, one more pass over x and its copy. This simulates the quality of low-bit activations in f32: its speed stands for nothing.
//! Not handled: integer products (those are formats of their own).

use cpu_kernels::PackedF32;
use model::{Activations, Device, InputRounding, Linear};

use super::F32Linear;

/// A format behind a rounding of its inputs.
pub struct RoundedInput {
    inner: Box<dyn Linear>,
    rounding: InputRounding,
}

impl RoundedInput {
    /// The rounding of W4A4.
    pub const A4: InputRounding = InputRounding { bits: 4, clip: 0.9 };

    /// `inner` on inputs rounded by `rounding`.
    pub fn new(inner: Box<dyn Linear>, rounding: InputRounding) -> RoundedInput {
        RoundedInput { inner, rounding }
    }
}

impl Linear for RoundedInput {
    fn in_features(&self) -> usize {
        self.inner.in_features()
    }

    fn out_features(&self) -> usize {
        self.inner.out_features()
    }

    fn forward(&self, x: &Activations, y: &mut Activations) {
        // 1.
        let mut rounded = x.clone();
        self.rounding.apply(&mut rounded);
        // 2.
        self.inner.forward(&rounded, y);
    }

    fn weight_bytes(&self) -> usize {
        self.inner.weight_bytes()
    }

    fn dequantised(&self) -> Vec<f32> {
        self.inner.dequantised()
    }

    fn input_levels(&self) -> Option<f32> {
        Some(self.rounding.levels())
    }

    fn rounded_inputs(&self, x: &Activations) -> Option<Activations> {
        let mut rounded = x.clone();
        self.rounding.apply(&mut rounded);
        Some(rounded)
    }

    fn on(&self, device: &Device) -> Option<Box<dyn Linear>> {
        let (n, k) = (self.out_features(), self.in_features());
        let plain = || Box::new(F32Linear::new(device.cpu().clone(), PackedF32::pack(&self.dequantised(), n, k)));
        let inner = self.inner.on(device).unwrap_or_else(|| plain());
        Some(Box::new(RoundedInput::new(inner, self.rounding)))
    }

    fn kernel_name(&self) -> String {
        format!("a{}_{}", self.rounding.bits, self.inner.kernel_name())
    }
}
