//! How a matrix is stored and multiplied: one file per format, each naming the packed kernel that it is a coat over.

use std::sync::Arc;

use cpu_kernels::Cpu;

/// A packed kernel on the processor that runs it.
#[derive(Debug)]
pub struct Coat<W> {
    cpu: Arc<Cpu>,
    weight: W,
}

impl<W> Coat<W> {
    /// Multiplies with `weight` on `cpu`.
    pub fn new(cpu: Arc<Cpu>, weight: W) -> Coat<W> {
        Coat { cpu, weight }
    }
}

/// The packed kernels agree in the names of their methods and share no trait: `cpu-kernels` knows no `Linear`.
macro_rules! coat {
    ($packed:ty, int8: $int8:expr) => {
        impl model::Linear for crate::format::Coat<$packed> {
            fn in_features(&self) -> usize {
                self.weight.k()
            }

            fn out_features(&self) -> usize {
                self.weight.n()
            }

            fn forward(&self, x: &model::Activations, y: &mut model::Activations) {
                y.reshape(x.rows(), self.weight.n());
                self.weight.forward(&self.cpu, x.as_slice(), x.rows(), y.as_mut_slice());
            }

            fn weight_bytes(&self) -> usize {
                self.weight.bytes()
            }

            fn dequantised(&self) -> Vec<f32> {
                self.weight.unpack()
            }

            fn is_int8(&self) -> bool {
                $int8
            }

            fn kernel_name(&self) -> String {
                self.weight.kernel_name(&self.cpu).to_string()
            }
        }
    };
}

mod bf16;
mod codebook;
mod f16;
mod f32;
mod group;
mod int8;
mod salient;

pub use bf16::Bf16Linear;
pub use codebook::CodebookLinear;
pub use f16::F16Linear;
pub use f32::F32Linear;
pub use group::GroupLinear;
pub use int8::Int8Linear;
pub use salient::SalientLinear;
