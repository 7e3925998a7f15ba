//! What: the 16-bit linears, IEEE half and bfloat16: weights widened in registers, f32 activations and sums.
//! Source: binary16 is IEEE 754-2008 §3.6; bfloat16 is the upper half of an f32 (Intel, BFLOAT16 Hardware Numerics
//! Definition, 2018).
//! Shapes: W\[n, k\] → `[⌈n/16⌉][k][16]`.
//! Exactness: the widening is exact, so results equal the f32 linear's on the rounded weights, bit for bit.
//! Cost: 2 bytes per weight and pass; one conversion per 16 weights (few rows) or per 192 rows.
//! Not handled: f16 weights beyond ±65504, which round to infinity; bfloat16 dot-product instructions, which round
//! sums differently.

use super::gemm::{Columns16, Weights, linear};
use super::panels::{deinterleave, interleave, interleave_by};
use super::tile::{Columns, F32Columns, Stored, Streamed, Tile, run_tile};
use crate::Cpu;
use crate::simd::{LANES, Simd};
use half::{bf16, f16, slice::HalfFloatSliceExt};
use std::ops::Range;

/// A 16-bit float format.
pub(crate) trait Half: Stored {
    const KERNELS: [&'static str; 3];
    fn round(w: &[f32], out: &mut [Self]);
    fn widen(self) -> f32;
}

macro_rules! stored16 {
    ($format:ident, $names:expr) => {
        impl Half for $format {
            const KERNELS: [&'static str; 3] = $names;
            fn round(w: &[f32], out: &mut [Self]) {
                out.convert_from_f32_slice(w);
            }
            fn widen(self) -> f32 {
                self.to_f32()
            }
        }
    };
}

stored16!(f16, ["f16_panel_scalar", "f16_panel_avx2", "f16_panel_avx512"]);
stored16!(bf16, ["bf16_panel_scalar", "bf16_panel_avx2", "bf16_panel_avx512"]);

/// 16-bit weights `[n, k]` in panel order.
#[derive(Debug, Clone)]
pub struct PackedHalf<H> {
    n: usize,
    k: usize,
    panels: Vec<H>,
}

/// IEEE half weights.
pub type PackedF16 = PackedHalf<f16>;

/// bfloat16 weights.
pub type PackedBf16 = PackedHalf<bf16>;

#[expect(private_bounds, reason = "there are two formats, both named above; nobody else needs the trait")]
impl<H: Half> PackedHalf<H> {
    /// Rounds row-major f32 `w` of `[n, k]` to nearest even and packs it.
    pub fn pack(w: &[f32], n: usize, k: usize) -> Self {
        assert_eq!(w.len(), n * k, "weights must hold n × k = {n} × {k} values");
        Self::pack_rows(n, k, |row, values| values.copy_from_slice(&w[row * k..][..k]))
    }

    /// As [`Self::pack`], row after row as `fill` gives them, so that no f32 copy of the matrix is held.
    pub fn pack_rows(n: usize, k: usize, mut fill: impl FnMut(usize, &mut [f32])) -> Self {
        let (mut values, mut rounded) = (vec![0.0; k], vec![H::default(); k]);
        let panels = interleave_by(n, k, |row, out: &mut Vec<H>| {
            fill(row, &mut values);
            H::round(&values, &mut rounded);
            out.extend_from_slice(&rounded);
        });
        Self { n, k, panels }
    }

    /// Packs row-major `w` of `[n, k]` as it is.
    pub fn pack_exact(w: &[H], n: usize, k: usize) -> Self {
        Self { n, k, panels: interleave(n, k, w) }
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
        H::KERNELS[cpu.isa() as usize]
    }

    /// y\[rows, n\] = x\[rows, k\] · Wᵀ.
    pub fn forward(&self, cpu: &Cpu, x: &[f32], rows: usize, y: &mut [f32]) {
        linear(cpu, self, x, rows, y);
    }

    /// The weights as row-major f32 `[n, k]`.
    pub fn unpack(&self) -> Vec<f32> {
        deinterleave(&self.panels, self.n, self.k, H::widen)
    }

    #[inline(always)]
    fn columns(&self, first: usize) -> Streamed<H> {
        let panel_stride = self.k * LANES;
        Streamed { base: self.panels.as_ptr().wrapping_add(first * panel_stride), panel_stride }
    }
}

impl<H: Half> Weights for PackedHalf<H> {
    fn n(&self) -> usize {
        self.n
    }
    fn k(&self) -> usize {
        self.k
    }
    fn bytes(&self) -> usize {
        PackedHalf::bytes(self)
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
