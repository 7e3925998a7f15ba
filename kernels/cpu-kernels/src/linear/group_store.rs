//! What: group codes in panels of 16 outputs, as every group-quantised linear keeps them.
//! Source: the storage of GPTQ (Frantar et al. 2023, arXiv:2210.17323, §4) and round-to-nearest; the packing is ours.
//! Shapes: codes\[n, k\] → words `[⌈n/16⌉][k/32][bits][16]` u32; scales and zeros `[⌈n/16⌉][groups][16]` f16.
//! Method: 1. every group is cut into blocks of 32 columns, the last one padded, so that a group starts on a block;
//! 2. 32 codes of one output are exactly `bits` words (`codes`), in one of two orders: by position for kernels that decode
//! one column at a time, or by quads for those that multiply four neighbouring columns in the bytes of a word;
//! 3. x is gathered into stored order where that differs (act-order, padding).
//! Exactness: scales and zeros are rounded to f16 first.
//! Cost: bits/8 bytes per weight + 2 per group for the scale + 2 for the zero unless all zeros are one whole number.
//! Not handled: mixed bit widths in one matrix, scales that f16 cannot hold.

use super::codes::{self, BLOCK};
use super::panels::n_panels;
use crate::Cpu;
use crate::scratch::{self, Scratch};
use crate::simd::LANES;
use half::f16;

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

/// In which order the 32 codes of a block fill its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fill {
    /// Position i is code i.
    Positions,
    /// Positions 4q … 4q + 3 are the same bits of the four bytes of one word.
    Quads,
}

impl Fill {
    /// The code that holds position `i` of a block.
    fn code_of(self, bits: usize, i: usize) -> usize {
        match self {
            Fill::Positions => i,
            Fill::Quads => {
                let (quad, byte, per_byte) = (i / 4, i % 4, 8 / bits);
                (quad / per_byte * 4 + byte) * per_byte + quad % per_byte
            }
        }
    }
}

/// Zeros in code units.
#[derive(Debug, Clone)]
pub(super) enum Zeros {
    /// The same whole number everywhere.
    Equal(f32),
    /// Laid out as the scales.
    PerGroup(Vec<u16>),
}

/// Group-quantised weights `[n, k]` in panel order.
#[derive(Debug, Clone)]
pub(super) struct GroupStore {
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) bits: usize,
    /// Blocks of 32 positions per row, and per group.
    pub(super) blocks: usize,
    pub(super) blocks_per_group: usize,
    pub(super) words: Vec<u32>,
    pub(super) scales: Vec<u16>,
    pub(super) zeros: Zeros,
    /// Input column of each stored position, `None` where it is padding; absent where x can be used as it is.
    gather: Option<Vec<Option<u32>>>,
    fill: Fill,
}

impl GroupStore {
    /// Packs what a quantiser produced.
    ///
    /// # Panics
    /// On lengths that disagree with `n`, `k` and `group`, other bit widths, or codes of more than `bits` bits.
    pub(super) fn from_codes(source: GroupCodes, fill: Fill) -> Self {
        let GroupCodes { n, k, bits, group, codes, scales, zeros, order } = source;
        assert!(matches!(bits, 2 | 3 | 4 | 8), "bits must be 2, 3, 4 or 8, not {bits}");
        assert!(group > 0, "group must be at least 1 column");
        let groups = k.div_ceil(group);
        assert_eq!(codes.len(), n * k, "codes must be [n, k]");
        assert_eq!(scales.len(), n * groups, "scales must be [n, groups]");
        assert_eq!(zeros.len(), n * groups, "zeros must be [n, groups]");
        assert!(codes.iter().all(|&c| bits == 8 || c >> bits == 0), "a code does not fit {bits} bits");
        assert!(order.as_ref().is_none_or(|o| o.len() == k), "order must name each of the k columns");
        let slots = positions(k, group);
        let bits = usize::from(bits);
        let words = pack_words(n, bits, fill, &codes, k, &slots);
        let whole = |z: &f32| z.fract() == 0.0 && zeros.iter().all(|other| other == z);
        let zeros = match zeros.first().copied().filter(whole) {
            Some(zero) => Zeros::Equal(f16::from_f32(zero).to_f32()),
            None => Zeros::PerGroup(panel_halves(n, groups, &zeros)),
        };
        let as_it_is = order.is_none() && slots.len() == k;
        let column = |j: u32| order.as_ref().map_or(j, |order| order[j as usize]);
        let blocks = slots.len() / BLOCK;
        let gather = (!as_it_is).then(|| slots.into_iter().map(|j| j.map(column)).collect::<Vec<_>>());
        assert!(gather.iter().flatten().flatten().all(|&j| (j as usize) < k), "order names a column beyond k");
        let (blocks_per_group, scales) = (group.min(k).div_ceil(BLOCK), panel_halves(n, groups, &scales));
        Self { n, k, bits, blocks, blocks_per_group, words, scales, zeros, gather, fill }
    }

    /// Groups per row.
    pub(super) fn groups(&self) -> usize {
        self.blocks.div_ceil(self.blocks_per_group.max(1))
    }

    /// Stored positions per row, padding included.
    pub(super) fn positions(&self) -> usize {
        self.blocks * BLOCK
    }

    /// Bytes that one full read streams: codes, scales and zeros, padding included.
    pub(super) fn bytes(&self) -> usize {
        let zeros = match &self.zeros {
            Zeros::Equal(_) => 0,
            Zeros::PerGroup(zeros) => size_of_val(&zeros[..]),
        };
        size_of_val(&self.words[..]) + size_of_val(&self.scales[..]) + zeros
    }

    /// x\[rows, k\] in stored order, `[rows, positions]`, where it has to be moved.
    pub(super) fn gathered(&self, cpu: &Cpu, x: &[f32], rows: usize) -> Option<Scratch> {
        let gather = self.gather.as_ref()?;
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
        Some(gathered)
    }

    /// The input column at a stored position, `None` where it is padding.
    pub(super) fn column(&self, position: usize) -> Option<usize> {
        self.gather.as_ref().map_or(Some(position), |gather| gather[position].map(|j| j as usize))
    }

    /// The stored weights as row-major f32 `[n, k]` in input column order.
    pub(super) fn unpack(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.n * self.k];
        for row in 0..self.n {
            for position in 0..self.positions() {
                if let Some(column) = self.column(position) {
                    out[row * self.k + column] = self.weight(row, position);
                }
            }
        }
        out
    }

    /// The codes that were packed, constants as f16 holds them.
    pub(super) fn codes(&self) -> GroupCodes {
        let stored: Vec<(usize, usize)> =
            (0..self.positions()).filter_map(|position| Some((position, self.column(position)?))).collect();
        // without padding a group is its blocks; with it, what of them is filled
        let group = stored.iter().filter(|(position, _)| *position < self.blocks_per_group * BLOCK).count();
        let groups = self.groups();
        let mut codes = GroupCodes {
            n: self.n,
            k: self.k,
            bits: self.bits as u8,
            group: group.max(1),
            codes: Vec::with_capacity(self.n * self.k),
            scales: Vec::with_capacity(self.n * groups),
            zeros: Vec::with_capacity(self.n * groups),
            order: None,
        };
        for row in 0..self.n {
            codes.codes.extend(stored.iter().map(|&(position, _)| self.code(row, position) as u8));
            for block in (0..self.blocks).step_by(self.blocks_per_group.max(1)) {
                let (scale, zero) = self.constants(row, block * BLOCK);
                codes.scales.push(scale);
                codes.zeros.push(zero);
            }
        }
        let in_order = stored.iter().enumerate().all(|(j, &(_, column))| j == column);
        codes.order = (!in_order).then(|| stored.iter().map(|&(_, column)| column as u32).collect());
        codes
    }

    fn code(&self, row: usize, position: usize) -> u32 {
        let block = (row / LANES * self.blocks + position / BLOCK) * self.bits * LANES;
        let word = |i: usize| self.words[block + i * LANES + row % LANES];
        codes::get(self.bits, word, self.fill.code_of(self.bits, position % BLOCK))
    }

    /// Scale and zero of a stored position.
    fn constants(&self, row: usize, position: usize) -> (f32, f32) {
        let group = row / LANES * self.groups() + position / BLOCK / self.blocks_per_group;
        let at = group * LANES + row % LANES;
        let zero = match &self.zeros {
            Zeros::Equal(zero) => *zero,
            Zeros::PerGroup(zeros) => f16::from_bits(zeros[at]).to_f32(),
        };
        (f16::from_bits(self.scales[at]).to_f32(), zero)
    }

    /// The decoded weight at a stored position; the scalar statement of what kernels compute.
    fn weight(&self, row: usize, position: usize) -> f32 {
        let (scale, zero) = self.constants(row, position);
        self.code(row, position) as f32 * scale + -(zero * scale)
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

/// Step 2: words in the order `[panel][block][bits][16]`; missing rows and padding get code 0.
fn pack_words(n: usize, bits: usize, fill: Fill, codes: &[u8], k: usize, slots: &[Option<u32>]) -> Vec<u32> {
    let blocks = slots.len() / BLOCK;
    let mut words = vec![0u32; n_panels(n) * blocks * bits * LANES];
    for (row, codes) in codes.chunks_exact(k.max(1)).enumerate() {
        for (block, slots) in slots.chunks_exact(BLOCK).enumerate() {
            let base = ((row / LANES) * blocks + block) * bits * LANES + row % LANES;
            for (i, slot) in slots.iter().enumerate() {
                let code = slot.map_or(0, |j| u32::from(codes[j as usize]));
                codes::put(bits, code, fill.code_of(bits, i), |word, value| words[base + word * LANES] |= value);
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
