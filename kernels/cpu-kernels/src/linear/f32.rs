//! What: the f32 linear, weights repacked once into panels of 16 output rows.
//! Source: panels as in Goto and van de Geijn 2008 (Anatomy of High-Performance Matrix Multiplication, §5).
//! Shapes: W\[n, k\] → `[⌈n/16⌉][k][16]`.
//! Exactness: one FMA chain over k per output (two roundings a step on scalar); unpack is bit-exact.
//! Cost: 4 bytes per weight and pass.

use super::gemm::{Columns16, Weights, linear};
use super::panels::{deinterleave, interleave, interleave_by, n_panels};
use super::tile::{F32Columns, Streamed, Tile, run_tile};
use crate::Cpu;
use crate::simd::{LANES, Simd};
use std::ops::Range;

/// f32 weights `[n, k]` in panel order.
#[derive(Debug, Clone)]
pub struct PackedF32 {
    n: usize,
    k: usize,
    panels: Vec<f32>,
}

impl PackedF32 {
    /// Packs row-major `w` of `[n, k]`.
    pub fn pack(w: &[f32], n: usize, k: usize) -> Self {
        Self { n, k, panels: interleave(n, k, w) }
    }

    /// Packs row after row as `fill` gives them, so that no second copy of the matrix is held meanwhile.
    pub fn pack_rows(n: usize, k: usize, mut fill: impl FnMut(usize, &mut [f32])) -> Self {
        let mut values = vec![0.0; k];
        let panels = interleave_by(n, k, |row, out: &mut Vec<f32>| {
            fill(row, &mut values);
            out.extend_from_slice(&values);
        });
        Self { n, k, panels }
    }

    /// Output features.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Input features.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Bytes that one full read streams.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.panels[..])
    }

    /// The kernel that [`Self::forward`] runs on `cpu`.
    pub fn kernel_name(&self, cpu: &Cpu) -> &'static str {
        match cpu.isa() {
            crate::Isa::Scalar => "f32_panel_scalar",
            crate::Isa::Avx2 => "f32_panel_avx2",
            crate::Isa::Avx512 => "f32_panel_avx512",
        }
    }

    /// y\[rows, n\] = x\[rows, k\] · Wᵀ.
    pub fn forward(&self, cpu: &Cpu, x: &[f32], rows: usize, y: &mut [f32]) {
        linear(cpu, self, x, rows, y);
    }

    /// The weights as row-major f32 `[n, k]`.
    pub fn unpack(&self) -> Vec<f32> {
        deinterleave(&self.panels, self.n, self.k, |w| w)
    }

    #[inline(always)]
    fn columns(&self, first: usize) -> F32Columns<LANES> {
        debug_assert!(first < n_panels(self.n));
        F32Columns { base: self.panels.as_ptr().wrapping_add(first * self.k * LANES), panel_stride: self.k * LANES }
    }
}

impl Weights for PackedF32 {
    fn n(&self) -> usize {
        self.n
    }
    fn k(&self) -> usize {
        self.k
    }
    fn bytes(&self) -> usize {
        PackedF32::bytes(self)
    }
    #[inline(always)]
    unsafe fn stream<S: Simd>(&self, s: S, rows: usize, first: usize, panels: usize, t: Tile<()>) {
        let F32Columns { base, panel_stride } = self.columns(first);
        // SAFETY: the caller vouches for the tile; the columns cover k.
        unsafe { run_tile::<S, _, false>(s, rows, panels, t.with(Streamed { base, panel_stride })) };
    }
    #[inline(always)]
    fn decode<S: Simd>(&self, _: S, first: usize, _: usize, ks: Range<usize>, _: &mut [f32]) -> Columns16 {
        let columns = self.columns(first);
        F32Columns { base: columns.base.wrapping_add(ks.start * LANES), ..columns }
    }
    #[inline(always)]
    fn stored_at(&self, panel: usize, k: usize) -> *const u8 {
        self.panels.as_ptr().wrapping_add((panel * self.k + k) * LANES).cast()
    }
}
