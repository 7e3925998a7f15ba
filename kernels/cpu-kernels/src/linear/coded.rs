//! What: the product with a matrix of codes that are looked up while they are read, whatever its words are.
//! Source: none; `codebook` and `lattice` say what their codes mean.
//! Shapes: y \[rows, n\] = x \[rows, k\] · Wᵀ; stored columns are whole runs of 32.
//! Method: 1. rows of x are padded to the stored columns where k is no multiple of 32; 2. the register tiles of `gemm`, whose
//! weights come from `codebook_walk`.
//! Exactness: padding multiplies zeros by stored weights that are finite: it changes no sum.
//! Cost: that of `gemm`, and one copy of x for ragged k.
//! Not handled: weights that are not finite beyond k.

use super::codebook_walk::{self, Coded, Words};
use super::codes::BLOCK;
use super::gemm::{Columns16, Weights, linear};
use super::tile::{F32Columns, Tile};
use crate::simd::{LANES, Simd};
use crate::{Cpu, scratch};
use std::ops::Range;

/// Panels of 16 outputs whose words are looked up in a table of 16 values.
pub(crate) trait CodedPanels: Sync {
    /// How words are stored.
    type Words: Words;
    /// Outputs.
    fn n(&self) -> usize;
    /// Runs of 32 columns per row.
    fn runs(&self) -> usize;
    /// Bytes that one full read streams.
    fn bytes(&self) -> usize;
    /// Raw parts from panel `first` on, which span all runs of each.
    fn coded(&self, first: usize) -> Coded<Self::Words>;
    /// Where column `k` of panel `panel` is stored; the panel may be one past the last.
    fn word_at(&self, panel: usize, k: usize) -> *const u8;
}

impl<P: CodedPanels> Weights for P {
    fn n(&self) -> usize {
        CodedPanels::n(self)
    }
    fn k(&self) -> usize {
        self.runs() * BLOCK
    }
    fn bytes(&self) -> usize {
        CodedPanels::bytes(self)
    }
    #[inline(always)]
    unsafe fn stream<S: Simd>(&self, s: S, rows: usize, first: usize, panels: usize, t: Tile<()>) {
        // SAFETY: the caller vouches for the tile and the panels; `coded` spans all runs of each.
        unsafe { codebook_walk::stream(s, rows, panels, self.coded(first), t) };
    }
    #[inline(always)]
    fn decode<S: Simd>(&self, s: S, first: usize, panels: usize, ks: Range<usize>, buffer: &mut [f32]) -> Columns16 {
        let buffer = &mut buffer[..panels * ks.len() * LANES];
        for (p, out) in buffer.chunks_exact_mut(ks.len() * LANES).enumerate() {
            // SAFETY: `coded` spans all runs of panel first + p, and `out` holds 16 values per column.
            unsafe { codebook_walk::decode(s, self.coded(first + p), ks.clone(), out.as_mut_ptr()) };
        }
        F32Columns { base: buffer.as_ptr(), panel_stride: ks.len() * LANES }
    }
    #[inline(always)]
    fn stored_at(&self, panel: usize, k: usize) -> *const u8 {
        self.word_at(panel, k)
    }
}

/// y\[rows, n\] = x\[rows, k\] · Wᵀ, where the panels hold `k` columns and zeros up to whole runs.
pub(crate) fn product<P: CodedPanels>(cpu: &Cpu, panels: &P, k: usize, x: &[f32], rows: usize, y: &mut [f32]) {
    assert_eq!(x.len(), rows * k, "x must hold rows × k values");
    let stored = panels.runs() * BLOCK;
    if stored == k {
        return linear(cpu, panels, x, rows, y);
    }
    let mut padded = scratch::take(rows * stored);
    for (out, x) in padded.chunks_exact_mut(stored).zip(x.chunks_exact(k)) {
        out[..k].copy_from_slice(x);
        out[k..].fill(0.0);
    }
    linear(cpu, panels, &padded, rows, y);
}
