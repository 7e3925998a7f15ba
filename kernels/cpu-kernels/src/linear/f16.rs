//! What: the IEEE half linear: 16-bit weights widened in registers, f32 activations and sums.
//! Source: none; binary16 is IEEE 754-2008 §3.6.
//! Shapes: W\[n, k\] → `[⌈n/16⌉][k][16]` of 16-bit patterns.
//! Exactness: the widening is exact, so results equal the f32 linear's on the rounded weights, bit for bit.
//! Cost: 2 bytes per weight and pass; one conversion per 16 weights (few rows) or per 192 rows.
//! Not handled: weights beyond ±65504, which round to infinity.

use super::gemm::{Columns16, Weights, linear};
use super::panels::{deinterleave, interleave, interleave_by};
use super::tile::{Columns, F16Columns, F32Columns, Tile, run_tile};
use crate::Cpu;
use crate::simd::{LANES, Simd};
use half::{f16, slice::HalfFloatSliceExt};
use std::ops::Range;

/// IEEE half weights `[n, k]` in panel order.
#[derive(Debug, Clone)]
pub struct PackedF16 {
    n: usize,
    k: usize,
    panels: Vec<u16>,
}

impl PackedF16 {
    /// Rounds row-major f32 `w` of `[n, k]` to nearest even and packs it.
    pub fn pack(w: &[f32], n: usize, k: usize) -> Self {
        assert_eq!(w.len(), n * k, "weights must hold n × k = {n} × {k} values");
        let mut rounded = vec![f16::ZERO; k];
        let panels = interleave_by(n, k, |row, out: &mut Vec<u16>| {
            rounded.convert_from_f32_slice(&w[row * k..][..k]);
            out.extend_from_slice(rounded.reinterpret_cast());
        });
        Self { n, k, panels }
    }

    /// Packs row-major `w` of `[n, k]` as it is.
    pub fn pack_f16(w: &[f16], n: usize, k: usize) -> Self {
        Self { n, k, panels: interleave(n, k, w.reinterpret_cast()) }
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
            crate::Isa::Scalar => "f16_panel_scalar",
            crate::Isa::Avx2 => "f16_panel_avx2",
            crate::Isa::Avx512 => "f16_panel_avx512",
        }
    }

    /// y\[rows, n\] = x\[rows, k\] · Wᵀ.
    pub fn forward(&self, cpu: &Cpu, x: &[f32], rows: usize, y: &mut [f32]) {
        linear(cpu, self, x, rows, y);
    }

    /// The weights as row-major f32 `[n, k]`.
    pub fn unpack(&self) -> Vec<f32> {
        deinterleave(&self.panels, self.n, self.k, |w| f16::from_bits(w).to_f32())
    }

    #[inline(always)]
    fn columns(&self, first: usize) -> F16Columns {
        let panel_stride = self.k * LANES;
        F16Columns { base: self.panels.as_ptr().wrapping_add(first * panel_stride), panel_stride }
    }
}

impl Weights for PackedF16 {
    fn n(&self) -> usize {
        self.n
    }
    fn k(&self) -> usize {
        self.k
    }
    fn bytes(&self) -> usize {
        PackedF16::bytes(self)
    }
    #[inline(always)]
    unsafe fn stream<S: Simd>(&self, s: S, rows: usize, first: usize, panels: usize, t: Tile<()>) {
        // SAFETY: the caller vouches for the tile; the columns cover k.
        unsafe { run_tile::<S, _, false>(s, rows, panels, t.with(self.columns(first))) };
    }
    #[inline(always)]
    fn decode<S: Simd>(&self, s: S, first: usize, panels: usize, ks: Range<usize>, buffer: &mut [f32]) -> Columns16 {
        let buffer = &mut buffer[..panels * ks.len() * LANES];
        let columns = self.columns(first);
        for p in 0..panels {
            for (i, k) in ks.clone().enumerate() {
                // SAFETY: p and k are inside this weight, and the slot is inside `buffer`, cut to size above.
                unsafe {
                    let slot = buffer.as_mut_ptr().add((p * ks.len() + i) * LANES);
                    s.store(slot, columns.load(s, p, k));
                }
            }
        }
        F32Columns { base: buffer.as_ptr(), panel_stride: ks.len() * LANES }
    }
    #[inline(always)]
    fn stored_at(&self, panel: usize, k: usize) -> *const u8 {
        self.panels.as_ptr().wrapping_add((panel * self.k + k) * LANES).cast()
    }
}
