//! What: the weight-only group-quantised linear (2, 3, 4 or 8 bits, a scale and a zero per group of columns).
//! Source: the storage of GPTQ (Frantar et al. 2023, arXiv:2210.17323, §4) and round-to-nearest.
//! Shapes: x\[rows, k\] f32, weights as in `group_store`, in the order of positions.
//! Method: kernels decode a block in registers, w = code·s + (−zero·s), and run the f32 chain (`codes`, `tile`).
//! Exactness: code·s is exact in f32, so w is the same with and without FMA, and equals s·(code − zero) exactly for
//! whole zeros. Sums: one FMA chain over stored positions.
//! Cost: the bytes of `group_store`; 2·rows·n·k FLOPs.
//! Not handled: activations below f32 (that is `group_int8`).

use super::codes::{self, BLOCK};
use super::gemm::{Columns16, Weights, linear};
use super::group_store::{Fill, GroupCodes, GroupStore, Zeros};
use super::tile::{F32Columns, Tile};
use crate::Cpu;
use crate::simd::{LANES, Simd};
use std::ops::Range;

/// Group-quantised weights `[n, k]` in panel order, for f32 activations.
#[derive(Debug, Clone)]
pub struct PackedGroup {
    store: GroupStore,
}

impl PackedGroup {
    /// Packs what a quantiser produced.
    ///
    /// # Panics
    /// On lengths that disagree with `n`, `k` and `group`, other bit widths, or codes of more than `bits` bits.
    pub fn from_codes(source: GroupCodes) -> Self {
        Self { store: GroupStore::from_codes(source, Fill::Positions) }
    }

    /// Output features.
    pub fn n(&self) -> usize {
        self.store.n
    }

    /// Input features.
    pub fn k(&self) -> usize {
        self.store.k
    }

    /// Bits per code.
    pub fn bits(&self) -> usize {
        self.store.bits
    }

    /// Bytes that one full read streams: codes, scales and zeros, padding included.
    pub fn bytes(&self) -> usize {
        self.store.bytes()
    }

    /// The kernel that [`Self::forward`] runs on `cpu`.
    pub fn kernel_name(&self, cpu: &Cpu) -> &'static str {
        let names = match self.store.bits {
            2 => ["group2_panel_scalar", "group2_panel_avx2", "group2_panel_avx512"],
            3 => ["group3_panel_scalar", "group3_panel_avx2", "group3_panel_avx512"],
            4 => ["group4_panel_scalar", "group4_panel_avx2", "group4_panel_avx512"],
            _ => ["group8_panel_scalar", "group8_panel_avx2", "group8_panel_avx512"],
        };
        names[cpu.isa() as usize]
    }

    /// y\[rows, n\] = x\[rows, k\] · Wᵀ.
    pub fn forward(&self, cpu: &Cpu, x: &[f32], rows: usize, y: &mut [f32]) {
        assert_eq!(x.len(), rows * self.store.k, "x must hold rows × k values");
        match self.store.gathered(cpu, x, rows) {
            Some(gathered) => linear(cpu, &self.store, &gathered, rows, y),
            None => linear(cpu, &self.store, x, rows, y),
        }
    }

    /// The codes that were packed, constants as f16 holds them.
    pub fn codes(&self) -> GroupCodes {
        self.store.codes()
    }

    /// The weights that [`Self::forward`] multiplies by, as row-major f32 `[n, k]` in input column order.
    pub fn unpack(&self) -> Vec<f32> {
        self.store.unpack()
    }
}

impl GroupStore {
    #[inline(always)]
    fn coded(&self, first: usize) -> codes::Coded {
        let groups = self.groups();
        let zeros = match &self.zeros {
            Zeros::Equal(zero) => (std::ptr::null(), *zero),
            Zeros::PerGroup(zeros) => (zeros.as_ptr().wrapping_add(first * groups * LANES), 0.0),
        };
        codes::Coded {
            words: self.words.as_ptr().wrapping_add(first * self.blocks * self.bits * LANES),
            words_per_block: self.bits,
            panel_words: self.blocks * self.bits * LANES,
            scales: self.scales.as_ptr().wrapping_add(first * groups * LANES),
            panel_groups: groups * LANES,
            zeros: zeros.0,
            equal_zero: zeros.1,
            blocks_per_group: self.blocks_per_group,
        }
    }
}

impl Weights for GroupStore {
    fn n(&self) -> usize {
        self.n
    }
    fn k(&self) -> usize {
        self.positions()
    }
    fn bytes(&self) -> usize {
        GroupStore::bytes(self)
    }
    #[inline(always)]
    unsafe fn stream<S: Simd>(&self, s: S, rows: usize, first: usize, panels: usize, t: Tile<()>) {
        // SAFETY: the caller vouches for the tile and the panels; `coded` spans all blocks of each.
        unsafe { codes::stream(s, self.bits, rows, panels, self.coded(first), t) };
    }
    #[inline(always)]
    fn decode<S: Simd>(&self, s: S, first: usize, panels: usize, ks: Range<usize>, buffer: &mut [f32]) -> Columns16 {
        let buffer = &mut buffer[..panels * ks.len() * LANES];
        for (p, out) in buffer.chunks_exact_mut(ks.len() * LANES).enumerate() {
            let blocks = ks.start / BLOCK..ks.end / BLOCK;
            // SAFETY: `coded` spans all blocks of panel first + p, and `out` holds 16 values per position.
            unsafe { codes::decode(s, self.bits, self.coded(first + p), blocks, out.as_mut_ptr()) };
        }
        F32Columns { base: buffer.as_ptr(), panel_stride: ks.len() * LANES }
    }
    #[inline(always)]
    fn stored_at(&self, panel: usize, k: usize) -> *const u8 {
        let block = panel * self.blocks + k / BLOCK;
        self.words.as_ptr().wrapping_add(block * self.bits * LANES).cast()
    }
}
