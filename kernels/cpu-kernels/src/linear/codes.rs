//! What: bit packing of 2, 3, 4 and 8-bit codes, and the kernels that decode blocks of 32 in registers.
//! Source: none; the layout is ours.
//! Shapes: a block is 32 positions × 16 outputs = `bits` vectors of 16 u32 words.
//! Method: 2, 4, 8 bits: word j holds 32/bits codes, lowest bits first. 3 bits: word j of three holds codes
//! 10j … 10j+9 in its low 30 bits; codes 30 and 31 have their low two bits in the spare bits of words 0 and 1 and their
//! high bits in bits 30 and 31 of word 2: 3.0 bits a code. A decoded vector costs one shift, one or two operations to
//! become f32, and one FMA for scale and zero.
//! Exactness: decoded weights are the same bits on every level (see `group`).
//! Cost: per 16 weights about 4 instructions on AVX-512, 8–10 on AVX2, shared by all rows of the tile.
//! Not handled: groups that do not start on a block; `group` pads them.

use super::tile::{Tile, further};
use crate::simd::{Kernel, LANES, Simd};
use std::ops::Range;

/// Positions per block.
pub(crate) const BLOCK: usize = 32;

/// Codes held in the low bits of each word.
const fn per_word(bits: usize) -> usize {
    match bits {
        2 => 16,
        3 => 10,
        4 => 8,
        _ => 4,
    }
}

/// Adds code `i` of a block through `or(word, value)`.
pub(crate) fn put(bits: usize, code: u32, i: usize, mut or: impl FnMut(usize, u32)) {
    if bits == 3 && i >= 30 {
        or(i - 30, (code & 3) << 30);
        or(2, (code >> 2) << i);
    } else {
        let per_word = per_word(bits);
        or(i / per_word, code << (bits * (i % per_word)));
    }
}

/// Code `i` of a block whose words are `word(0..bits)`.
pub(crate) fn get(bits: usize, word: impl Fn(usize) -> u32, i: usize) -> u32 {
    if bits == 3 && i >= 30 {
        word(i - 30) >> 30 | ((word(2) >> i) & 1) << 2
    } else {
        let per_word = per_word(bits);
        (word(i / per_word) >> (bits * (i % per_word))) & ((1 << bits) - 1)
    }
}

/// Raw parts of consecutive panels; strides in elements.
#[derive(Clone, Copy)]
pub(crate) struct Coded {
    pub(crate) words: *const u32,
    /// Words per block: equal to the bits, but as a value, so that the loop over words stays a loop (unrolled, all 32
    /// decodings are hoisted and the accumulators spill).
    pub(crate) words_per_block: usize,
    pub(crate) panel_words: usize,
    pub(crate) scales: *const u16,
    pub(crate) panel_groups: usize,
    /// Zeros laid out as the scales, or null: then `equal_zero` is every zero.
    pub(crate) zeros: *const u16,
    pub(crate) equal_zero: f32,
    pub(crate) blocks_per_group: usize,
}

/// What receives decoded vectors, in ascending position.
pub(super) trait Sink<S: Simd, const P: usize> {
    /// Takes the 16·P weights of stored position `k`.
    fn take(&mut self, s: S, k: usize, w: [S::V; P]);
}

/// FMAs each vector into MR rows of accumulators.
pub(super) struct Accumulate<S: Simd, const MR: usize, const P: usize> {
    pub(super) acc: [[S::V; P]; MR],
    pub(super) a: *const f32,
    pub(super) a_stride: usize,
}

impl<S: Simd, const MR: usize, const P: usize> Sink<S, P> for Accumulate<S, MR, P> {
    #[inline(always)]
    fn take(&mut self, s: S, k: usize, w: [S::V; P]) {
        for r in 0..MR {
            // SAFETY: `stream`'s caller vouches for MR rows of all stored positions.
            let a = s.splat(unsafe { *self.a.add(r * self.a_stride + k) });
            for p in 0..P {
                self.acc[r][p] = s.fma(a, w[p], self.acc[r][p]);
            }
        }
    }
}

/// Writes each vector to memory.
pub(super) struct Write {
    pub(super) out: *mut f32,
    pub(super) first: usize,
}

impl<S: Simd> Sink<S, 1> for Write {
    #[inline(always)]
    fn take(&mut self, s: S, k: usize, w: [S::V; 1]) {
        // SAFETY: `decode`'s caller vouches for 16 values per position from `first` on.
        unsafe { s.store(self.out.add((k - self.first) * LANES), w[0]) };
    }
}

/// Decodes `blocks` of P panels into `sink`.
#[inline(always)]
unsafe fn walk<S: Simd, K: Sink<S, P>, const BITS: usize, const P: usize>(
    s: S,
    coded: Coded,
    blocks: Range<usize>,
    sink: &mut K,
) {
    let mut scale = [s.splat(0.0); P];
    let mut offset = [s.splat(0.0); P];
    let mut left_in_group = 0;
    for block in blocks {
        if left_in_group == 0 {
            let group = block / coded.blocks_per_group;
            left_in_group = coded.blocks_per_group - block % coded.blocks_per_group;
            for p in 0..P {
                let at = p * coded.panel_groups + group * LANES;
                // SAFETY: the caller vouches for P panels of this many groups.
                unsafe {
                    scale[p] = s.load_f16(coded.scales.add(at));
                    let zero =
                        if coded.zeros.is_null() { s.splat(coded.equal_zero) } else { s.load_f16(coded.zeros.add(at)) };
                    offset[p] = s.sub(s.splat(0.0), s.mul(zero, scale[p]));
                }
            }
        }
        left_in_group -= 1;
        let words = coded.words.wrapping_add(block * BITS * LANES);
        let mut k = block * BLOCK;
        for word in 0..coded.words_per_block {
            let mut codes = [s.splat_u32(0); P];
            for p in 0..P {
                // SAFETY: the caller vouches for P panels of this many blocks.
                codes[p] = unsafe { s.load_u32(words.add(p * coded.panel_words + word * LANES)) };
                let here = words.wrapping_add(p * coded.panel_words + word * LANES);
                let at = (block * BITS + word) * LANES * size_of::<u32>();
                s.prefetch(further(here.cast(), at, coded.panel_words * size_of::<u32>(), P));
            }
            for _ in 0..per_word(BITS) {
                let mut w = [s.splat(0.0); P];
                for p in 0..P {
                    w[p] = s.fma(widen::<S, BITS>(s, codes[p]), scale[p], offset[p]);
                    codes[p] = s.shr(codes[p], BITS as u32);
                }
                sink.take(s, k, w);
                k += 1;
            }
        }
        if BITS == 3 {
            for i in 0..2 {
                let mut w = [s.splat(0.0); P];
                for p in 0..P {
                    // SAFETY: as above.
                    let (low, high) = unsafe {
                        let panel = words.add(p * coded.panel_words);
                        (s.load_u32(panel.add(i as usize * LANES)), s.load_u32(panel.add(2 * LANES)))
                    };
                    let code = s.or(s.shr(low, 30), s.and(s.shr(high, 28 + i), s.splat_u32(4)));
                    w[p] = s.fma(s.code3(code), scale[p], offset[p]);
                }
                sink.take(s, k, w);
                k += 1;
            }
        }
    }
}

#[inline(always)]
fn widen<S: Simd, const BITS: usize>(s: S, codes: S::I) -> S::V {
    match BITS {
        2 => s.code2(codes),
        3 => s.code3(codes),
        4 => s.code4(codes),
        _ => s.code8(codes),
    }
}

struct Stream<const BITS: usize, const MR: usize, const P: usize> {
    coded: Coded,
    tile: Tile<()>,
}

impl<const BITS: usize, const MR: usize, const P: usize> Kernel for Stream<BITS, MR, P> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let t = self.tile;
        let mut sink = Accumulate::<S, MR, P> { acc: [[s.splat(0.0); P]; MR], a: t.a, a_stride: t.a_stride };
        // SAFETY: `stream`'s caller vouches for the panels, x and y.
        unsafe {
            walk::<S, _, BITS, P>(s, self.coded, 0..t.kk / BLOCK, &mut sink);
            for r in 0..MR {
                for p in 0..P {
                    let here = t.n_cols.saturating_sub(p * LANES).min(LANES);
                    s.store_first(t.c.add(r * t.c_stride + p * LANES), here, sink.acc[r][p]);
                }
            }
        }
    }
}

struct DecodeBlocks<const BITS: usize> {
    coded: Coded,
    blocks: Range<usize>,
    out: *mut f32,
}

impl<const BITS: usize> Kernel for DecodeBlocks<BITS> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut sink = Write { out: self.out, first: self.blocks.start * BLOCK };
        // SAFETY: `decode`'s caller vouches for the panel and the output.
        unsafe { walk::<S, _, BITS, 1>(s, self.coded, self.blocks, &mut sink) };
    }
}

/// Few rows: C\[rows, 16·panels\] over all blocks, decoding in registers.
///
/// # Safety
/// As [`super::tile::run_tile`], with `coded` spanning `panels` panels of `t.kk / 32` blocks.
#[inline(always)]
pub(crate) unsafe fn stream<S: Simd>(s: S, bits: usize, rows: usize, panels: usize, coded: Coded, t: Tile<()>) {
    // Decoding needs registers too: AVX2 takes half the panels that plain f32 does.
    let most = match (S::WIDE, rows) {
        (true, 1 | 2) => panels,
        (true, _) | (false, 1) => panels.min(2),
        (false, _) => 1,
    };
    for p in (0..panels).step_by(most) {
        let coded = Coded {
            words: coded.words.wrapping_add(p * coded.panel_words),
            scales: coded.scales.wrapping_add(p * coded.panel_groups),
            zeros: if coded.zeros.is_null() { coded.zeros } else { coded.zeros.wrapping_add(p * coded.panel_groups) },
            ..coded
        };
        let tile = Tile { c: t.c.wrapping_add(p * LANES), n_cols: t.n_cols - p * LANES, ..t };
        match bits {
            2 => stream_rows::<S, 2>(s, rows, most, coded, tile),
            3 => stream_rows::<S, 3>(s, rows, most, coded, tile),
            4 => stream_rows::<S, 4>(s, rows, most, coded, tile),
            _ => stream_rows::<S, 8>(s, rows, most, coded, tile),
        }
    }
}

#[inline(always)]
fn stream_rows<S: Simd, const BITS: usize>(s: S, rows: usize, panels: usize, coded: Coded, tile: Tile<()>) {
    macro_rules! pick {
        ($(($m:literal, $p:literal))*) => {
            match (rows, panels) {
                $(($m, $p) => s.vectorize(Stream::<BITS, $m, $p> { coded, tile }),)*
                _ => unreachable!("no {rows} × {panels} tile"),
            }
        };
    }
    if S::WIDE {
        pick!((1, 4)(2, 4)(1, 2)(2, 2)(3, 2)(4, 2)(5, 2)(6, 2)(7, 2)(8, 2)(1, 1)(2, 1)(3, 1)(4, 1)(5, 1)(6, 1)(7, 1)(
            8, 1
        ));
    } else {
        pick!((1, 2)(1, 1)(2, 1)(3, 1)(4, 1)(5, 1)(6, 1));
    }
}

/// Decodes `blocks` of one panel to f32, 16 values per position.
///
/// # Safety
/// `coded` must span `blocks`, and `out` hold 512 values per block.
#[inline(always)]
pub(crate) unsafe fn decode<S: Simd>(s: S, bits: usize, coded: Coded, blocks: Range<usize>, out: *mut f32) {
    match bits {
        2 => s.vectorize(DecodeBlocks::<2> { coded, blocks, out }),
        3 => s.vectorize(DecodeBlocks::<3> { coded, blocks, out }),
        4 => s.vectorize(DecodeBlocks::<4> { coded, blocks, out }),
        _ => s.vectorize(DecodeBlocks::<8> { coded, blocks, out }),
    }
}
