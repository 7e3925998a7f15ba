//! What: any format whose inputs are rounded to 16-bit floats first: what tensor cores of a GPU multiply.
//! Source: IEEE 754 binary16 and bfloat16, to nearest even.
//! Shapes: as the format inside.
//! Method: 1. x is copied and rounded. 2. the format inside multiplies.
//! Exactness: the format's own, on rounded inputs: the oracle of a GPU's products, which sum the same numbers in another order.
//! Cost: the format's, and a copy of x: this states what another device computes, and its speed stands for nothing.
//! Not handled: accumulation in less than f32.

use cpu_kernels::PackedF32;
use half::{bf16, f16};
use model::{Activations, Device, Linear};

use super::F32Linear;

/// Which 16 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sixteen {
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
}

impl Sixteen {
    /// `x` as the product reads it.
    pub(crate) fn rounded(self, x: &Activations) -> Activations {
        let round = |v: &f32| match self {
            Sixteen::F16 => f16::from_f32(*v).to_f32(),
            Sixteen::Bf16 => bf16::from_f32(*v).to_f32(),
        };
        Activations::from_vec(x.rows(), x.cols(), x.as_slice().iter().map(round).collect())
    }
}

/// A format behind that rounding.
pub(crate) struct HalfInput {
    inner: Box<dyn Linear>,
    inputs: Sixteen,
}

impl HalfInput {
    /// The weights that `format` stands for, in f32 on the processor of `device`, with inputs rounded to `inputs`.
    pub(crate) fn of(format: &dyn Linear, inputs: Sixteen, device: &Device) -> HalfInput {
        let (n, k) = (format.out_features(), format.in_features());
        let inner = F32Linear::new(device.cpu().clone(), PackedF32::pack(&format.dequantised(), n, k));
        HalfInput { inner: Box::new(inner), inputs }
    }
}

impl Linear for HalfInput {
    fn in_features(&self) -> usize {
        self.inner.in_features()
    }

    fn out_features(&self) -> usize {
        self.inner.out_features()
    }

    fn forward(&self, x: &Activations, y: &mut Activations) {
        // 1. and 2.
        self.inner.forward(&self.inputs.rounded(x), y);
    }

    fn weight_bytes(&self) -> usize {
        self.inner.weight_bytes()
    }

    fn dequantised(&self) -> Vec<f32> {
        self.inner.dequantised()
    }

    fn rounded_inputs(&self, x: &Activations) -> Option<Activations> {
        Some(self.inputs.rounded(x))
    }

    fn on(&self, device: &Device) -> Option<Box<dyn Linear>> {
        Some(Box::new(HalfInput::of(&*self.inner, self.inputs, device)))
    }

    fn kernel_name(&self) -> String {
        let name = match self.inputs {
            Sixteen::F16 => "f16",
            Sixteen::Bf16 => "bf16",
        };
        format!("{name}_inputs_{}", self.inner.kernel_name())
    }
}
