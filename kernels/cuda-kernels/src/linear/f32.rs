//! What: f32 weights, f32 activations, on the CUDA cores.
//! Source: none; plain arithmetic.
//! Shapes: x `[rows, k]` → y `[rows, n]`; W `[n, k]`, row-major.
//! Method: 1. one warp per 2 outputs of one row, or per 4 outputs of 8 rows (`warp_rows`).
//! Exactness: f32, fused multiply-adds, in an order that depends on k alone: an element has the same bits whatever the number of rows.
//! Cost: 4 bytes per weight and 8 rows.
//! Not handled: nothing.

use super::pack::check_len;
use super::tiles::check_rows;
use super::{DeviceLinear, Workspace};
use crate::{Arg, Buffer, Gpu, GpuError, KernelSpec, LaunchShape, Source};

pub(crate) static WARP_ROWS: Source = Source { name: "linear/warp_rows.cu", text: include_str!("warp_rows.cu") };
const WARPS: usize = 8;

fn kernel(rows: usize, outputs: usize, vector: usize) -> KernelSpec {
    KernelSpec::new(&WARP_ROWS, "warp_rows")
        .define("NUMBER", "F32")
        .define("ROWS", rows)
        .define("OUTPUTS", outputs)
        .define("VECTOR", vector)
}

/// Rows and outputs of a warp.
fn tile(rows: usize) -> (usize, usize) {
    if rows == 1 { (1, 2) } else { (8, 4) }
}

pub(crate) fn kernels() -> Vec<KernelSpec> {
    [1, 2]
        .into_iter()
        .flat_map(|rows| [1, 4].map(|vector| (tile(rows), vector)))
        .map(|((r, o), v)| kernel(r, o, v))
        .collect()
}

/// f32 weights in device memory.
#[derive(Debug)]
pub struct F32Weights {
    n: usize,
    k: usize,
    values: Buffer<f32>,
}

impl F32Weights {
    /// Sends row-major `values` `[n, k]` to `gpu`.
    pub fn upload(gpu: &Gpu, values: &[f32], n: usize, k: usize) -> Result<Self, GpuError> {
        check_len("f32 weights", "W", values.len(), n * k)?;
        Ok(F32Weights { n, k, values: gpu.upload(values)? })
    }
}

impl DeviceLinear for F32Weights {
    fn n(&self) -> usize {
        self.n
    }
    fn k(&self) -> usize {
        self.k
    }
    fn bytes(&self) -> usize {
        4 * self.values.len()
    }
    fn reserve(&self, _rows: usize, _workspace: &mut Workspace) -> Result<(), GpuError> {
        Ok(())
    }
    fn forward(
        &self,
        x: &Buffer<f32>,
        rows: usize,
        y: &Buffer<f32>,
        _workspace: &mut Workspace,
    ) -> Result<(), GpuError> {
        check_rows("warp_rows", x, y, rows, self.n, self.k)?;
        let vector = if self.k.is_multiple_of(4) { 4 } else { 1 };
        let (tile_rows, outputs) = tile(rows);
        let shape = LaunchShape::grid(self.n.div_ceil(WARPS * outputs), rows.div_ceil(tile_rows), 1, 32 * WARPS);
        let (rows, n, k) = (Arg::I32(rows as i32), Arg::I32(self.n as i32), Arg::I32(self.k as i32));
        let args = [self.values.arg(), x.arg(), y.arg(), rows, n, k];
        // SAFETY: W holds n × k values; x and y were checked; rows and outputs beyond the last are not stored.
        unsafe { x.gpu().launch(&kernel(tile_rows, outputs, vector), shape, &args) }
    }
}
