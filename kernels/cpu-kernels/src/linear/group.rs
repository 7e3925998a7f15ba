//! What: the weight-only group-quantised linear (2, 3, 4 or 8 bits, a scale and a zero per group of columns).
//! Source: the storage of GPTQ (Frantar et al. 2023, arXiv:2210.17323, §4) and round-to-nearest; the packing is ours.
//! Shapes: codes\[n, k\] → words `[⌈n/16⌉][k/32][bits][16]` u32; scales and zeros `[⌈n/16⌉][groups][16]` f16.
//! Method: 1. every group is cut into blocks of 32 columns, and 32 codes of one output are exactly `bits` words (for 3 bits:
//! ten codes in each of three words, two in the words' spare bits); 2. x is gathered into that order where it differs;
//! 3. kernels decode a block in registers, w = code·s + (−zero·s), and run the f32 chain (`codes`, `tile`).
//! Exactness: scales and zeros are rounded to f16 first; code·s is exact in f32, so w is the same with and without
//! FMA, and equals s·(code − zero) exactly for integer zeros. Sums: one FMA chain over stored positions.
//! Cost: bits/8 bytes per weight + 2 per group for the scale + 2 for the zero unless all zeros are equal.
//! Not handled: mixed bit widths in one matrix, activations below f32, scales that f16 cannot hold.

use super::codes::{self, BLOCK};
use super::gemm::{Columns16, Weights, linear};
use super::panels::n_panels;
use super::tile::{F32Columns, Tile};
use crate::simd::{LANES, Simd};
use crate::{Cpu, scratch};
use half::f16;
use std::ops::Range;

/// Quantised weights as a quantiser hands them over: W\[i, order\[j\]\] = scale·(code\[i, j\] − zero).
#[derive(Debug, Clone)]
pub struct GroupCodes {
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// Bits per code: 2, 3, 4 or 8.
    pub bits: u8,
    /// Columns per group; `k` for one group per row. The last group may be short.
    pub group: usize,
    /// Codes `[n, k]`, one a byte, each below 2^bits.
    pub codes: Vec<u8>,
    /// Scales `[n, groups]`.
    pub scales: Vec<f32>,
    /// Zeros `[n, groups]`, in code units.
    pub zeros: Vec<f32>,
    /// `order[j]` is the input column stored at position j (act-order); groups are over positions.
    pub order: Option<Vec<u32>>,
}

/// Group-quantised weights `[n, k]` in panel order.
#[derive(Debug, Clone)]
pub struct PackedGroup {
    k: usize,
    panels: Panels,
    /// Input column of each stored position, `None` where it is padding; absent where x can be used as it is.
    gather: Option<Vec<Option<u32>>>,
}

#[derive(Debug, Clone)]
struct Panels {
    n: usize,
    bits: usize,
    /// Blocks of 32 positions per row, and per group.
    blocks: usize,
    blocks_per_group: usize,
    words: Vec<u32>,
    scales: Vec<u16>,
    zeros: Zeros,
}

#[derive(Debug, Clone)]
enum Zeros {
    Equal(f32),
    PerGroup(Vec<u16>),
}

impl PackedGroup {
    /// Packs what a quantiser produced.
    ///
    /// # Panics
    /// On lengths that disagree with `n`, `k` and `group`, other bit widths, or codes of more than `bits` bits.
    pub fn from_codes(source: GroupCodes) -> Self {
        let GroupCodes { n, k, bits, group, codes, scales, zeros, order } = source;
        assert!(matches!(bits, 2 | 3 | 4 | 8), "bits must be 2, 3, 4 or 8, not {bits}");
        assert!(group > 0, "group must be at least 1 column");
        let groups = k.div_ceil(group);
        assert_eq!(codes.len(), n * k, "codes must be [n, k]");
        assert_eq!(scales.len(), n * groups, "scales must be [n, groups]");
        assert_eq!(zeros.len(), n * groups, "zeros must be [n, groups]");
        assert!(codes.iter().all(|&c| bits == 8 || c >> bits == 0), "a code does not fit {bits} bits");
        assert!(order.as_ref().is_none_or(|o| o.len() == k), "order must name each of the k columns");
        let gather = positions(k, group);
        let blocks = gather.len() / BLOCK;
        let words = pack_words(n, bits.into(), &codes, k, &gather);
        let all_equal = zeros.first().copied().filter(|z| zeros.iter().all(|other| other == z));
        let panels = Panels {
            n,
            bits: bits.into(),
            blocks,
            blocks_per_group: group.min(k).div_ceil(BLOCK),
            words,
            scales: panel_halves(n, groups, &scales),
            zeros: match all_equal {
                Some(zero) => Zeros::Equal(f16::from_f32(zero).to_f32()),
                None => Zeros::PerGroup(panel_halves(n, groups, &zeros)),
            },
        };
        let as_it_is = order.is_none() && gather.len() == k;
        let column = |j: u32| order.as_ref().map_or(j, |order| order[j as usize]);
        let gather = (!as_it_is).then(|| gather.into_iter().map(|j| j.map(column)).collect::<Vec<_>>());
        assert!(gather.iter().flatten().flatten().all(|&j| (j as usize) < k), "order names a column beyond k");
        Self { k, panels, gather }
    }

    /// Output features.
    pub fn n(&self) -> usize {
        self.panels.n
    }

    /// Input features.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Bits per code.
    pub fn bits(&self) -> usize {
        self.panels.bits
    }

    /// Bytes that one full read streams: codes, scales and zeros, padding included.
    pub fn bytes(&self) -> usize {
        Weights::bytes(&self.panels)
    }

    /// The kernel that [`Self::forward`] runs on `cpu`.
    pub fn kernel_name(&self, cpu: &Cpu) -> &'static str {
        let names = match self.panels.bits {
            2 => ["group2_panel_scalar", "group2_panel_avx2", "group2_panel_avx512"],
            3 => ["group3_panel_scalar", "group3_panel_avx2", "group3_panel_avx512"],
            4 => ["group4_panel_scalar", "group4_panel_avx2", "group4_panel_avx512"],
            _ => ["group8_panel_scalar", "group8_panel_avx2", "group8_panel_avx512"],
        };
        names[cpu.isa() as usize]
    }

    /// y\[rows, n\] = x\[rows, k\] · Wᵀ.
    pub fn forward(&self, cpu: &Cpu, x: &[f32], rows: usize, y: &mut [f32]) {
        assert_eq!(x.len(), rows * self.k, "x must hold rows × k values");
        let Some(gather) = &self.gather else {
            return linear(cpu, &self.panels, x, rows, y);
        };
        let mut gathered = scratch::take(rows * gather.len());
        let fill = |row: usize, out: &mut [f32]| {
            let x = &x[row * self.k..][..self.k];
            for (slot, column) in out.iter_mut().zip(gather) {
                *slot = column.map_or(0.0, |j| x[j as usize]);
            }
        };
        if rows * gather.len() < crate::cpu::WORTH_CYCLES {
            gathered.chunks_mut(gather.len().max(1)).enumerate().for_each(|(row, out)| fill(row, out));
        } else {
            cpu.parallel_chunks_mut(&mut gathered, gather.len(), &fill);
        }
        linear(cpu, &self.panels, &gathered, rows, y);
    }

    /// The weights that [`Self::forward`] multiplies by, as row-major f32 `[n, k]` in input column order.
    pub fn unpack(&self) -> Vec<f32> {
        let panels = &self.panels;
        let mut out = vec![0.0; panels.n * self.k];
        let positions = panels.blocks * BLOCK;
        for row in 0..panels.n {
            for position in 0..positions {
                let column = match &self.gather {
                    Some(gather) => gather[position],
                    None => Some(position as u32),
                };
                if let Some(column) = column {
                    out[row * self.k + column as usize] = panels.weight(row, position);
                }
            }
        }
        out
    }
}

impl Panels {
    /// The decoded weight at a stored position; the scalar statement of what kernels compute.
    fn weight(&self, row: usize, position: usize) -> f32 {
        let (panel, lane) = (row / LANES, row % LANES);
        let block = (panel * self.blocks + position / BLOCK) * self.bits * LANES;
        let word = |i: usize| self.words[block + i * LANES + lane];
        let code = codes::get(self.bits, word, position % BLOCK);
        let group = (panel * self.groups() + position / BLOCK / self.blocks_per_group) * LANES + lane;
        let scale = f16::from_bits(self.scales[group]).to_f32();
        let zero = match &self.zeros {
            Zeros::Equal(zero) => *zero,
            Zeros::PerGroup(zeros) => f16::from_bits(zeros[group]).to_f32(),
        };
        code as f32 * scale + -(zero * scale)
    }

    fn groups(&self) -> usize {
        self.blocks.div_ceil(self.blocks_per_group.max(1))
    }

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

impl Weights for Panels {
    fn n(&self) -> usize {
        self.n
    }
    fn k(&self) -> usize {
        self.blocks * BLOCK
    }
    fn bytes(&self) -> usize {
        let zeros = match &self.zeros {
            Zeros::Equal(_) => 0,
            Zeros::PerGroup(zeros) => size_of_val(&zeros[..]),
        };
        size_of_val(&self.words[..]) + size_of_val(&self.scales[..]) + zeros
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

/// The position in `0..k` stored at each slot, `None` for padding: every group starts on a block.
fn positions(k: usize, group: usize) -> Vec<Option<u32>> {
    let mut slots = Vec::with_capacity(k.next_multiple_of(BLOCK));
    for start in (0..k).step_by(group) {
        slots.extend((start..(start + group).min(k)).map(|j| Some(j as u32)));
        slots.resize(slots.len().next_multiple_of(BLOCK), None);
    }
    slots
}

/// Step 1: words in the order `[panel][block][bits][16]`; missing rows and padding get code 0.
fn pack_words(n: usize, bits: usize, codes: &[u8], k: usize, slots: &[Option<u32>]) -> Vec<u32> {
    let blocks = slots.len() / BLOCK;
    let mut words = vec![0u32; n_panels(n) * blocks * bits * LANES];
    for (row, codes) in codes.chunks_exact(k.max(1)).enumerate() {
        for (block, slots) in slots.chunks_exact(BLOCK).enumerate() {
            let base = ((row / LANES) * blocks + block) * bits * LANES + row % LANES;
            for (i, slot) in slots.iter().enumerate() {
                let code = slot.map_or(0, |j| u32::from(codes[j as usize]));
                codes::put(bits, code, i, |word, value| words[base + word * LANES] |= value);
            }
        }
    }
    words
}

/// `[n, groups]` as f16 in the order `[panel][group][16]`.
fn panel_halves(n: usize, groups: usize, values: &[f32]) -> Vec<u16> {
    let mut out = vec![0u16; n_panels(n) * groups * LANES];
    for row in 0..n {
        for group in 0..groups {
            let value = f16::from_f32(values[row * groups + group]);
            out[((row / LANES) * groups + group) * LANES + row % LANES] = value.to_bits();
        }
    }
    out
}
