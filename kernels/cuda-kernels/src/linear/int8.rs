//! What: int8 weights with a scale per output, activations coded to int8 per row, int32 sums.
//! Source: LLM.int8() (Dettmers et al. 2022, arXiv:2208.07339) §2.1, vector-wise absmax; no outliers.
//! Shapes: x `[rows, k]` → y `[rows, n]`, f32; codes `[n, k]`, scales `[n]`.
//! Method: 1. per row: codes = round-half-even(x·(127/absmax)), scale absmax/127. 2. int32 sums by mma. 3. y = sum·sx·sw in this order.
//! Exactness: equal to the scalar statement bit for bit, so also whatever the number of rows.
//! Cost: 1 byte per weight, 4 per output.
//! Not handled: outlier columns; k beyond 131 072 (int32 could overflow).

use super::pack::{check_len, pack_int8, units};
use super::tiles::{Format, Tiled, Tiles};
use crate::{Gpu, GpuError};

const NAME: &str = "int8 weights";
const MAX_K: usize = 131_072;

/// int8 weights in device memory.
#[derive(Debug)]
pub struct Int8Weights(pub(crate) Tiles);

impl Int8Weights {
    /// Packs row-major `codes` `[n, k]` with `scales` `[n]` (W = code·scale) and sends them to `gpu`.
    pub fn upload(gpu: &Gpu, codes: &[i8], scales: &[f32], n: usize, k: usize) -> Result<Self, GpuError> {
        check_len(NAME, "codes", codes.len(), n * k)?;
        check_len(NAME, "scales", scales.len(), n)?;
        if k > MAX_K {
            return Err(GpuError::shape(NAME, format!("k = {k} could overflow int32 sums; at most {MAX_K} columns")));
        }
        Ok(Int8Weights(Tiles {
            format: Format::Int8,
            n,
            k,
            units: units(k),
            words: gpu.upload(&pack_int8(codes, n, k))?,
            gather: None,
            scales: None,
            zeros: None,
            output_scales: Some(gpu.upload(scales)?),
        }))
    }
}

impl Tiled for Int8Weights {
    fn tiles(&self) -> &Tiles {
        &self.0
    }
}
