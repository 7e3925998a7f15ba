//! How a matrix is stored and multiplied: one file per format, each a thin coat over a packed kernel.

mod bf16;
mod f16;
mod f32;
mod group;
mod int8;

pub use bf16::Bf16Linear;
pub use f16::F16Linear;
pub use f32::F32Linear;
pub use group::GroupLinear;
pub use int8::Int8Linear;
