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

impl<W: Clone> Coat<W>
where
    Coat<W>: model::Linear + 'static,
{
    /// The same codes on another device.
    fn boxed_on(&self, device: &model::Device) -> Box<dyn model::Linear> {
        Box::new(Coat { cpu: device.cpu().clone(), weight: self.weight.clone() })
    }
}

/// The packed kernels agree in the names of their methods and share no trait: `cpu-kernels` knows no `Linear`.
macro_rules! coat {
    ($packed:ty, int8: false) => {
        coat!($packed;);
    };
    ($packed:ty, int8: true) => {
        coat!(
            $packed;
            fn int8_inputs(&self) -> Option<model::Int8Inputs> {
                Some(model::Int8Inputs::PER_ROW)
            }
            fn on(&self, device: &model::Device) -> Option<Box<dyn model::Linear>> {
                Some(self.boxed_on(device))
            }
        );
    };
    // with the methods of a format that rounds its inputs
    ($packed:ty; $($rounding:item)*) => {
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

            fn on_cuda(
                self: Box<Self>,
                cuda: &std::sync::Arc<model::Cuda>,
            ) -> Result<Box<dyn model::Linear>, model::PlacementError> {
                match crate::format::cuda::OnCuda::upload(&self.weight, cuda.gpu())? {
                    Some((weights, kernel)) => Ok(crate::format::cuda::CudaLinear::boxed(cuda, weights, kernel, self)),
                    None => Err(model::PlacementError::NoKernel(self.kernel_name())),
                }
            }

            $($rounding)*

            fn kernel_name(&self) -> String {
                self.weight.kernel_name(&self.cpu).to_string()
            }
        }
    };
}

mod bf16;
mod blocks;
mod codebook;
mod cuda;
mod f16;
mod f32;
mod group;
mod group_int8;
mod half_input;
mod int8;
mod int8_grid;
mod lattice;
mod low_rank;
mod lut;
mod rounded_input;
mod salient;
mod stacked;

pub use bf16::Bf16Linear;
pub use blocks::BlocksLinear;
pub use codebook::CodebookLinear;
pub use f16::F16Linear;
pub use f32::F32Linear;
pub use group::GroupLinear;
pub use group_int8::GroupInt8Linear;
pub use int8::Int8Linear;
pub use int8_grid::Int8GridLinear;
pub use lattice::LatticeLinear;
pub use low_rank::{LowRankLinear, LowRankPair};
pub use lut::LutLinear;
pub use rounded_input::RoundedInput;
pub use salient::SalientLinear;
pub use stacked::StackedLinear;
