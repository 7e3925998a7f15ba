//! CUDA kernels: numbers in, numbers out. Texts are compiled by NVRTC when first used and launched on a [`Gpu`], which is a CUDA
//! device or, where there is none, an emulator of its PTX. Nothing of NVIDIA's is needed to build or to start.
//!
//! Each operation is a folder with a ladder of rungs, one idea each; each file of CUDA text stands beside its launcher,
//! which checks shapes and then makes the one `unsafe` launch.

pub mod attention;
mod driver;
mod emulated;
mod error;
pub mod gemm;
pub mod gemv;
mod gpu;
mod ladder;
pub mod linear;
mod number;
mod nvrtc;
pub mod quantized;
mod registry;
pub mod roofline;
pub mod rows;
mod sampled;
mod source;
mod tensor_map;
pub mod triton;
#[cfg(test)]
mod wgmma;

pub use error::GpuError;
pub use gpu::{Arg, Buffer, DeviceMemory, Gpu, LaunchShape, Moment, Recording};
pub use ladder::{Bench, Deviation, Rung};
pub use number::Number;
pub use nvrtc::{Compiled, Nvrtc, Resources};
pub use ptx_emulator::Counts;
pub use registry::all_kernels;
pub use source::{Arch, HEADERS, KernelSpec, Source};
pub use tensor_map::{TensorMap, TensorMapShape};
