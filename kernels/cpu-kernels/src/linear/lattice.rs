//! What: the linear of vector codes: 8 weights are one 16-bit code of a lattice codebook, with one scale per row.
//! Source: E8P of QuIP#, Tseng et al. 2024 (arXiv:2402.04396, §4.2): E8 + ¼ by 256 magnitudes, 7 signs and a shift; the packing is ours.
//! Shapes: codes\[n, ⌈k/8⌉\] u16 → bytes `[⌈n/16⌉][⌈k/32⌉·4][2][16]`; scales `[⌈n/16⌉][16]` f32.
//! Method: 1. magnitudes are points of ℤ⁸ + ½ in the positive orthant: all 227 of norm² ≤ 10, and the first 29 of norm² 12 with five
//! entries 3/2, in lexicographic order (QuIP# picks others of these). 2. signs make the sum even: the eighth follows from the other
//! seven and the magnitudes. 3. everything moves by ¼ up or down. 4. a kernel turns 16 codes into 16 words of eight nibbles (magnitude,
//! shift, sign) by two gathers from 1 KiB tables, added, and goes on as any 4-bit codebook (`codebook_walk`).
//! Exactness: w = fl(value · scale), value an odd multiple of ¼; the same bits on every level. Sums: one FMA chain over columns.
//! Cost: 1/4 byte per weight + 4 per row; per 128 weights two gathers more than a 4-bit codebook, both tables in L1.
//! Not handled: groups of columns with scales of their own.

use super::codebook_walk::{Coded, PER_WORD, Scale, Words};
use super::coded::{self, CodedPanels};
use super::codes::BLOCK;
use super::panels::n_panels;
use super::tile::further;
use crate::Cpu;
use crate::simd::{LANES, Simd};
use std::sync::LazyLock;

/// Codes as a quantiser hands them over: W\[i, 8·g + j\] = scale\[i\] · [`e8p_point`]\(code\[i, g\]\)\[j\].
#[derive(Debug, Clone, PartialEq)]
pub struct LatticeCodes {
    /// Output features.
    pub n: usize,
    /// Input features; the points of the last code of a row beyond `k` count for nothing.
    pub k: usize,
    /// Codes `[n, ⌈k/8⌉]`.
    pub codes: Vec<u16>,
    /// Scales `[n]`.
    pub scales: Vec<f32>,
}

/// Bytes of the codes of 8 columns of a panel.
const WORD_BYTES: usize = 2 * LANES;
/// Words of a run of 32 columns.
const WORDS: usize = BLOCK / PER_WORD;

/// Steps 1 and 2: twice the magnitude less one (0, 1 or 2) of each entry.
static MAGNITUDES: LazyLock<Vec<[u8; 8]>> = LazyLock::new(|| {
    let entries = (0..3usize.pow(8)).map(|i| std::array::from_fn(|j| (i / 3usize.pow(7 - j as u32) % 3) as u8));
    let quadruple_norm = |e: &[u8; 8]| e.iter().map(|&m| (2 * u32::from(m) + 1).pow(2)).sum::<u32>();
    let (mut all, mut last) = (vec![], vec![]);
    for entry in entries {
        match quadruple_norm(&entry) {
            0..=40 => all.push(entry),
            48 if entry.iter().all(|&m| m < 2) => last.push(entry),
            _ => {}
        }
    }
    all.extend(last.into_iter().take(256 - all.len()));
    all
});

/// Step 4: nibbles of the low byte (magnitudes, and whether the eighth sign turns) and of the high byte (signs, shift).
static NIBBLES: LazyLock<Box<[[u32; 256]; 2]>> = LazyLock::new(|| {
    let mut tables = Box::new([[0; 256]; 2]);
    for (word, magnitudes) in tables[0].iter_mut().zip(&*MAGNITUDES) {
        let odd = magnitudes.iter().map(|&m| u32::from(m)).sum::<u32>() % 2;
        *word = magnitudes.iter().enumerate().fold(odd << 31, |word, (j, &m)| word | u32::from(m) << (4 * j));
    }
    for (high, word) in (0u32..).zip(tables[1].iter_mut()) {
        let signs = (high & 127) | ((high & 127).count_ones() % 2) << 7;
        let shift = if high & 128 == 0 { 0 } else { 0x4444_4444 };
        *word = (0..8).fold(shift, |word, j| word | (signs >> j & 1) << (4 * j + 3));
    }
    tables
});

/// The value of each nibble: magnitude in bits 0 and 1, shift up in bit 2, sign in bit 3.
fn nibble_values() -> [f32; LANES] {
    std::array::from_fn(|nibble| {
        let magnitude = (nibble & 3) as f32 + 0.5;
        let signed = if nibble & 8 == 0 { magnitude } else { -magnitude };
        signed + if nibble & 4 == 0 { -0.25 } else { 0.25 }
    })
}

/// The 256 magnitudes of the codebook: entry m stands for m + ½.
pub fn e8p_magnitudes() -> &'static [[u8; 8]] {
    &MAGNITUDES
}

/// The point of a code: magnitudes in its low byte, seven signs in bits 8 to 14, bit 15 set for a shift of ¼ up.
pub fn e8p_point(code: u16) -> [f32; 8] {
    let magnitudes = &MAGNITUDES[usize::from(code & 255)];
    let shift = if code & 0x8000 == 0 { -0.25 } else { 0.25 };
    let negatives = magnitudes.iter().map(|&m| u32::from(m)).sum::<u32>() + (code >> 8 & 127).count_ones();
    std::array::from_fn(|j| {
        let negative = if j < 7 { code >> (8 + j) & 1 == 1 } else { negatives % 2 == 1 };
        let magnitude = f32::from(magnitudes[j]) + 0.5;
        shift + if negative { -magnitude } else { magnitude }
    })
}

/// Weights `[n, k]` of lattice codes, in panel order.
#[derive(Debug, Clone)]
pub struct PackedLattice {
    k: usize,
    panels: Panels,
}

#[derive(Debug, Clone)]
struct Panels {
    n: usize,
    /// Runs of 32 columns per row.
    runs: usize,
    bytes: Vec<u8>,
    /// `[⌈n/16⌉][16]`.
    scales: Vec<f32>,
    values: [f32; LANES],
}

/// The codes of consecutive panels.
#[derive(Clone, Copy)]
struct LatticeWords {
    bytes: *const u8,
    panel_bytes: usize,
    magnitudes: *const f32,
    signs: *const f32,
}

impl Words for LatticeWords {
    #[inline(always)]
    unsafe fn load<S: Simd>(self, s: S, p: usize, word: usize) -> S::I {
        // SAFETY: the caller vouches for this word of this panel; a byte is an index into tables of 256.
        unsafe {
            let here = self.bytes.add(p * self.panel_bytes + word * WORD_BYTES);
            let magnitudes = s.gather(self.magnitudes, s.load_u8(here));
            let signs = s.gather(self.signs, s.load_u8(here.add(LANES)));
            // no two share a bit but the eighth sign's, whose sum is taken modulo two: the carry falls off the word
            s.add_u32(s.bits(magnitudes), s.bits(signs))
        }
    }
    #[inline(always)]
    fn ahead(self, p: usize, word: usize, panels: usize) -> *const u8 {
        let here = self.bytes.wrapping_add(p * self.panel_bytes + word * WORD_BYTES);
        further(here, word * WORD_BYTES, self.panel_bytes, panels)
    }
    #[inline(always)]
    fn panel(self, p: usize) -> LatticeWords {
        LatticeWords { bytes: self.bytes.wrapping_add(p * self.panel_bytes), ..self }
    }
}

impl PackedLattice {
    /// Packs what a quantiser produced.
    ///
    /// # Panics
    /// On lengths that disagree with `n` and `k`.
    pub fn from_codes(source: &LatticeCodes) -> Self {
        let &LatticeCodes { n, k, .. } = source;
        let (words, runs) = (k.div_ceil(PER_WORD), k.div_ceil(BLOCK));
        assert_eq!(source.codes.len(), n * words, "codes must be [n, ⌈k/8⌉]");
        assert_eq!(source.scales.len(), n, "scales must be [n]");
        let mut bytes = vec![0u8; n_panels(n) * runs * WORDS * WORD_BYTES];
        for (row, codes) in source.codes.chunks_exact(words.max(1)).enumerate() {
            let base = (row / LANES) * runs * WORDS * WORD_BYTES + row % LANES;
            for (word, code) in codes.iter().enumerate() {
                let [low, high] = code.to_le_bytes();
                bytes[base + word * WORD_BYTES] = low;
                bytes[base + word * WORD_BYTES + LANES] = high;
            }
        }
        let mut scales = source.scales.clone();
        scales.resize(n_panels(n) * LANES, 0.0);
        Self { k, panels: Panels { n, runs, bytes, scales, values: nibble_values() } }
    }

    /// Output features.
    pub fn n(&self) -> usize {
        self.panels.n
    }

    /// Input features.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Bytes that one full read streams: codes, scales and tables, padding included.
    pub fn bytes(&self) -> usize {
        CodedPanels::bytes(&self.panels)
    }

    /// The kernel that [`Self::forward`] runs on `cpu`.
    pub fn kernel_name(&self, cpu: &Cpu) -> &'static str {
        ["e8p_panel_scalar", "e8p_panel_avx2", "e8p_panel_avx512"][cpu.isa() as usize]
    }

    /// y\[rows, n\] = x\[rows, k\] · Wᵀ.
    pub fn forward(&self, cpu: &Cpu, x: &[f32], rows: usize, y: &mut [f32]) {
        coded::product(cpu, &self.panels, self.k, x, rows, y);
    }

    /// The weights that [`Self::forward`] multiplies by, as row-major f32 `[n, k]`.
    pub fn unpack(&self) -> Vec<f32> {
        let panels = &self.panels;
        let mut out = Vec::with_capacity(panels.n * self.k);
        for row in 0..panels.n {
            let base = (row / LANES) * panels.runs * WORDS * WORD_BYTES + row % LANES;
            for word in 0..self.k.div_ceil(PER_WORD) {
                let at = base + word * WORD_BYTES;
                let point = e8p_point(u16::from_le_bytes([panels.bytes[at], panels.bytes[at + LANES]]));
                let here = PER_WORD.min(self.k - word * PER_WORD);
                out.extend(point[..here].iter().map(|value| value * panels.scales[row]));
            }
        }
        out
    }
}

impl CodedPanels for Panels {
    type Words = LatticeWords;

    fn n(&self) -> usize {
        self.n
    }
    fn runs(&self) -> usize {
        self.runs
    }
    fn bytes(&self) -> usize {
        self.bytes.len() + size_of_val(&self.scales[..]) + size_of_val(&**NIBBLES) + size_of_val(&self.values)
    }
    #[inline(always)]
    fn coded(&self, first: usize) -> Coded<LatticeWords> {
        let panel_bytes = self.runs * WORDS * WORD_BYTES;
        let [magnitudes, signs] = &**NIBBLES;
        Coded {
            words: LatticeWords {
                bytes: self.bytes.as_ptr().wrapping_add(first * panel_bytes),
                panel_bytes,
                magnitudes: magnitudes.as_ptr().cast(),
                signs: signs.as_ptr().cast(),
            },
            table: self.values.as_ptr(),
            scale: Scale::F32(self.scales.as_ptr().wrapping_add(first * LANES)),
            panel_scales: LANES,
            words_per_scale: (self.runs * WORDS).max(1),
        }
    }
    #[inline(always)]
    fn word_at(&self, panel: usize, k: usize) -> *const u8 {
        let word = panel * self.runs * WORDS + k / PER_WORD;
        self.bytes.as_ptr().wrapping_add(word * WORD_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_the_shifted_lattice() {
        assert_eq!(MAGNITUDES.len(), 256);
        let mut seen = std::collections::HashSet::new();
        for code in 0..=u16::MAX {
            let point = e8p_point(code);
            let shift = if code & 0x8000 == 0 { -0.25 } else { 0.25 };
            let lattice = point.map(|v| v - shift);
            assert!(lattice.iter().all(|v| (v - 0.5).fract() == 0.0), "{point:?}");
            assert_eq!(lattice.iter().sum::<f32>() % 2.0, 0.0, "{point:?}");
            assert!(lattice.iter().map(|v| v * v).sum::<f32>() <= 12.0);
            seen.insert(point.map(|v| (v * 4.0) as i8));
        }
        assert_eq!(seen.len(), 1 << 16, "every code is another point");
    }

    #[test]
    fn nibbles_say_the_same_as_the_definition() {
        let (tables, values) = (&**NIBBLES, nibble_values());
        for code in 0..=u16::MAX {
            let [low, high] = code.to_le_bytes();
            let word = tables[0][usize::from(low)].wrapping_add(tables[1][usize::from(high)]);
            let point: [f32; 8] = std::array::from_fn(|j| values[(word >> (4 * j) & 15) as usize]);
            assert_eq!(point, e8p_point(code), "code {code:#06x}");
        }
    }
}
