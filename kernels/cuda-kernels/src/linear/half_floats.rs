//! What: weights of 16 bits, f16 or bf16; activations rounded to the same, f32 sums on tensor cores.
//! Source: IEEE 754 binary16; bfloat16.
//! Shapes: x `[rows, k]` → y `[rows, n]`, f32; W `[n, k]`.
//! Method: 1. weights are packed in the order of mma's operands. 2. x is rounded to the weights' format. 3. `tile_gemv` or `tile_gemm`.
//! Exactness: x rounded to nearest even (f16: beyond ±65504 infinite); f32 sums in an order that depends on k alone: an element has the
//! same bits whatever the number of rows.
//! Cost: 2 bytes per weight.
//! Not handled: nothing.

use super::pack::{check_len, pack_16, units};
use super::tiles::{Format, Tiled, Tiles};
use crate::{Gpu, GpuError};

/// f16 weights in device memory.
#[derive(Debug)]
pub struct F16Weights(pub(crate) Tiles);

/// bf16 weights in device memory.
#[derive(Debug)]
pub struct Bf16Weights(pub(crate) Tiles);

fn tiles(gpu: &Gpu, format: Format, bits: &[u16], n: usize, k: usize) -> Result<Tiles, GpuError> {
    check_len("16-bit weights", "W", bits.len(), n * k)?;
    let words = gpu.upload(&pack_16(bits, n, k))?;
    Ok(Tiles { format, n, k, units: units(k), words, gather: None, scales: None, zeros: None, output_scales: None })
}

macro_rules! half_weights {
    ($weights:ty, $format:expr, $number:literal) => {
        impl $weights {
            #[doc = concat!("Packs row-major ", $number, " bits `[n, k]` and sends them to `gpu`.")]
            pub fn upload(gpu: &Gpu, bits: &[u16], n: usize, k: usize) -> Result<Self, GpuError> {
                tiles(gpu, $format, bits, n, k).map(Self)
            }
        }

        impl Tiled for $weights {
            fn tiles(&self) -> &Tiles {
                &self.0
            }
        }
    };
}

half_weights!(F16Weights, Format::F16, "f16");
half_weights!(Bf16Weights, Format::Bf16, "bf16");
