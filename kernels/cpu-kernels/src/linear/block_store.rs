//! What: ggml's blocks in panels of 16 outputs, as every product with them keeps them.
//! Source: none; the panels are those of `panels`, the bits of a code lie as `block_form` says.
//! Shapes: words `[⌈n/16⌉][k/32][bits][16]` u32 from a 64-byte boundary; f16 constants `[⌈n/16⌉][k/32 or k/256][1 or 2][16]`; integer
//! constants `[⌈n/16⌉][k/32][parts][1 or 2][16]` u8.
//! Method: 1. the 32 codes of a block and output are 8 quads of neighbouring columns, a byte each. The first plane holds their low
//! 2, 4 or 8 bits: quads q, q + 1 … of a word one above the other; the second plane their further bit or two: bit q of a byte is
//! that of quad q, or bits 2·(q mod 4) of word q div 4. 2. panels are packed 16 rows at a time, on all threads.
//! Exactness: nothing is rounded.
//! Cost: the nominal bits of the form, rows padded to 16; integer constants take a byte each, so that Q2_K has 3.13 bits instead of 2.63,
//! Q3_K 3.56 instead of 3.44, Q4_K 4.63 instead of 4.5 and Q5_K 5.63 instead of 5.5.
//! Not handled: rows that are no whole number of blocks.

use super::block_form::{BLOCK, BlockForm, BlockRow, SUPER};
use super::panels::n_panels;
use crate::cpu::{Cpu, SendPtr};
use crate::simd::{LANES, scalar::f16_to_f32};
use std::ops::Range;

/// Panels that are packed before the caller is told which rows were read, 8 MiB: little beside a model, and long enough for all threads.
const SPAN_BYTES: usize = 8 << 20;

/// Words from a 64-byte boundary, zero at first.
#[derive(Debug)]
pub(super) struct Words {
    buffer: Vec<u32>,
    start: usize,
    len: usize,
}

impl Words {
    fn zeroed(len: usize) -> Words {
        // pages of zeros come from the system untouched, which an aligned allocation does not promise
        let buffer = vec![0u32; len + LANES];
        let start = buffer.as_ptr().align_offset(64).min(LANES);
        Words { buffer, start, len }
    }

    fn as_mut(&mut self) -> &mut [u32] {
        &mut self.buffer[self.start..self.start + self.len]
    }
}

impl std::ops::Deref for Words {
    type Target = [u32];
    fn deref(&self) -> &[u32] {
        &self.buffer[self.start..self.start + self.len]
    }
}

impl Clone for Words {
    fn clone(&self) -> Words {
        let mut copy = Words::zeroed(self.len);
        copy.as_mut().copy_from_slice(self);
        copy
    }
}

/// Blocks of one form, `[n, k]`, in panel order.
#[derive(Debug, Clone)]
pub(super) struct BlockStore {
    pub(super) form: BlockForm,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) words: Words,
    pub(super) halves: Vec<u16>,
    pub(super) integers: Vec<u8>,
}

impl BlockStore {
    /// Packs `n` rows of `k` columns; `fill` takes row `i` apart, on any thread. `after` is told which rows were read, a span at a time.
    ///
    /// # Panics
    /// If `k` is no whole number of blocks.
    pub(super) fn pack(
        cpu: &Cpu,
        form: BlockForm,
        [n, k]: [usize; 2],
        fill: &(dyn Fn(usize, &mut BlockRow) + Sync),
        after: &mut dyn FnMut(Range<usize>),
    ) -> BlockStore {
        assert!(k.is_multiple_of(form.columns()), "{}: {k} columns are no whole number of blocks", form.name());
        let panels = n_panels(n);
        let mut store = BlockStore {
            form,
            n,
            k,
            words: Words::zeroed(panels * k / BLOCK * form.bits() * LANES),
            halves: vec![0; panels * form.halves(k) * form.kinds() * LANES],
            integers: vec![0; panels * form.integers(k) * form.kinds() * LANES],
        };
        let [words, halves, integers] = [store.panel_words(), store.panel_halves(), store.panel_integers()];
        let out = (
            SendPtr(store.words.as_mut().as_mut_ptr()),
            SendPtr(store.halves.as_mut_ptr()),
            SendPtr(store.integers.as_mut_ptr()),
        );
        let panel_bytes = 4 * words + 2 * halves + integers;
        let span = (SPAN_BYTES / panel_bytes.max(1)).max(8 * cpu.threads());
        for first in (0..panels).step_by(span) {
            let span = span.min(panels - first);
            let tasks = span.min(8 * cpu.threads());
            cpu.parallel(tasks, &|task| {
                let mut rows = vec![BlockRow::new(form, k); LANES];
                for panel in first + span * task / tasks..first + span * (task + 1) / tasks {
                    for (lane, row) in rows.iter_mut().enumerate() {
                        match panel * LANES + lane {
                            i if i < n => fill(i, row),
                            _ => *row = BlockRow::new(form, k),
                        }
                    }
                    // SAFETY: every panel belongs to one task, and the buffers outlive the call.
                    let (words, halves, integers) = unsafe {
                        (
                            std::slice::from_raw_parts_mut(out.0.get().add(panel * words), words),
                            std::slice::from_raw_parts_mut(out.1.get().add(panel * halves), halves),
                            std::slice::from_raw_parts_mut(out.2.get().add(panel * integers), integers),
                        )
                    };
                    pack_words(form, &rows, words);
                    interleave(&rows, [|r| &r.scales, |r| &r.minima], form.kinds(), halves);
                    interleave(&rows, [|r| &r.scale_integers, |r| &r.minimum_integers], form.kinds(), integers);
                }
            });
            after(first * LANES..n.min((first + span) * LANES));
        }
        store
    }

    /// Blocks of a row.
    pub(super) fn blocks(&self) -> usize {
        self.k / BLOCK
    }

    /// Words of one panel.
    pub(super) fn panel_words(&self) -> usize {
        self.blocks() * self.form.bits() * LANES
    }

    /// f16 constants of one panel.
    pub(super) fn panel_halves(&self) -> usize {
        self.form.halves(self.k) * self.form.kinds() * LANES
    }

    /// Integer constants of one panel.
    pub(super) fn panel_integers(&self) -> usize {
        self.form.integers(self.k) * self.form.kinds() * LANES
    }

    /// Bytes that one full read streams.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&self.words[..]) + size_of_val(&self.halves[..]) + size_of_val(&self.integers[..])
    }

    /// Whether every f16 constant is finite.
    pub(super) fn is_finite(&self) -> bool {
        self.halves.iter().all(|&h| h & 0x7c00 != 0x7c00)
    }

    /// The code of output `row` and column `j`.
    pub(super) fn code(&self, row: usize, j: usize) -> u32 {
        let (low, high) = (self.form.low(), self.form.high());
        let (quad, byte) = (j % BLOCK / 4, j % 4);
        let block = (row / LANES * self.blocks() + j / BLOCK) * self.form.bits();
        let word = |at: usize| self.words[(block + at) * LANES + row % LANES];
        let per_word = 8 / low;
        let first = word(quad / per_word) >> (8 * byte + low * (quad % per_word)) & ((1 << low) - 1);
        let second = match high {
            0 => 0,
            1 => word(low) >> (8 * byte + quad) & 1,
            _ => word(low + quad / 4) >> (8 * byte + 2 * (quad % 4)) & 3,
        };
        first | second << low
    }

    /// Scale and minimum (added) of output `row`, block `block` and half `part` of it.
    pub(super) fn constants(&self, row: usize, block: usize, part: usize) -> (f32, f32) {
        let (form, kinds) = (self.form, self.form.kinds());
        let (panel, lane) = (row / LANES, row % LANES);
        let group = if form.is_super() { block / SUPER } else { block };
        let half = |kind: usize| {
            let at = panel * self.panel_halves() + (group * kinds + kind) * LANES + lane;
            f16_to_f32(self.halves[at])
        };
        let integer = |kind: usize| {
            let at = panel * self.panel_integers() + ((block * form.parts() + part) * kinds + kind) * LANES + lane;
            self.integers[at]
        };
        match (form.is_super(), form.has_minima()) {
            (false, false) => (half(0), 0.0),
            (false, true) => (half(0), half(1)),
            (true, false) => (half(0) * f32::from(integer(0) as i8), 0.0),
            (true, true) => (half(0) * f32::from(integer(0)), -(half(1) * f32::from(integer(1)))),
        }
    }

    /// Rows `rows` as f32, row-major.
    pub(super) fn unpack(&self, rows: Range<usize>) -> Vec<f32> {
        let (form, mut out) = (self.form, Vec::with_capacity(rows.len() * self.k));
        for row in rows {
            for j in 0..self.k {
                let (scale, minimum) = self.constants(row, j / BLOCK, j % BLOCK * form.parts() / BLOCK);
                let value = scale * (self.code(row, j) as f32 - form.zero() as f32);
                out.push(if form.has_minima() { value + minimum } else { value });
            }
        }
        out
    }
}

/// Step 1 for the 16 rows of a panel.
fn pack_words(form: BlockForm, rows: &[BlockRow], words: &mut [u32]) {
    let (low, high) = (form.low(), form.high());
    let per_word = 8 / low;
    let mask = 0x0101_0101 * ((1u32 << low) - 1);
    for (block, words) in words.chunks_exact_mut(form.bits() * LANES).enumerate() {
        for (lane, row) in rows.iter().enumerate() {
            let codes = row.codes[block * BLOCK..][..BLOCK].as_chunks::<4>().0;
            let mut own = [0u32; 8];
            for (quad, codes) in codes.iter().enumerate() {
                let bytes = u32::from_le_bytes(*codes);
                own[quad / per_word] |= (bytes & mask) << (low * (quad % per_word));
                match high {
                    0 => {}
                    1 => own[low] |= (bytes >> low & 0x0101_0101) << quad,
                    _ => own[low + quad / 4] |= (bytes >> low & 0x0303_0303) << (2 * (quad % 4)),
                }
            }
            for (word, own) in own[..form.bits()].iter().enumerate() {
                words[word * LANES + lane] = *own;
            }
        }
    }
}

/// `[position][kind][16]` of the kinds of constants of 16 rows.
fn interleave<T: Copy>(rows: &[BlockRow], kinds: [fn(&BlockRow) -> &Vec<T>; 2], n_kinds: usize, out: &mut [T]) {
    for (at, out) in out.chunks_exact_mut(LANES).enumerate() {
        for (out, row) in out.iter_mut().zip(rows) {
            *out = kinds[at % n_kinds](row)[at / n_kinds];
        }
    }
}
