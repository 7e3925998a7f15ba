//! What: the kernels that look 4-bit codes up in registers, and decode the scales of their blocks.
//! Source: none; the layout is `codebook`'s.
//! Shapes: a word holds 8 columns of one output, lowest bits first; 16 outputs are a vector of words.
//! Method: 1. where a block of columns starts, 16 scales become f32; 2. per column and panel one shift, one lookup among 16
//! values (one permutation on AVX-512, two and a blend per half on AVX2), one product with the scales, and the FMAs.
//! Exactness: decoded weights are the same bits on every level (see `codebook`).
//! Cost: per 16 weights 3 instructions on AVX-512, 11 on AVX2, shared by all rows of the tile; per 16 scales one to four
//! instructions, or two gathers when they are double-quantised.
//! Not handled: blocks that do not start on a word.

use super::codes::{Accumulate, Sink, Write};
use super::tile::{Tile, further};
use crate::simd::{Kernel, LANES, Simd};
use std::ops::Range;

/// Columns per word.
pub(crate) const PER_WORD: usize = 8;

/// Scales of consecutive panels, `[panel][block][16]`.
#[derive(Clone, Copy)]
pub(crate) enum Scale {
    F32(*const f32),
    E8m0(*const u8),
    /// Codes, and what all are multiplied by.
    E4m3(*const u8, f32),
    Nested {
        codes: *const u8,
        map: *const f32,
        constants: *const f32,
        offset: f32,
        /// Row-major index of the first panel's first scale.
        first: u32,
        /// Of each lane, the row-major index of its first scale from the panel's on.
        lane_blocks: *const u32,
    },
}

/// Where words of 8 columns come from, of consecutive panels.
pub(crate) trait Words: Copy {
    /// The words of the 16 outputs of panel `p`.
    ///
    /// # Safety
    /// `p` and `word` must lie inside the storage this was made from.
    unsafe fn load<S: Simd>(self, s: S, p: usize, word: usize) -> S::I;
    /// What to prefetch while word `word` of panel `p` out of `panels` is in use.
    fn ahead(self, p: usize, word: usize, panels: usize) -> *const u8;
    /// The same from panel `p` on.
    fn panel(self, p: usize) -> Self;
}

/// Words as they are stored, `panel_words` apart from panel to panel.
#[derive(Clone, Copy)]
pub(crate) struct StoredWords {
    pub(crate) words: *const u32,
    pub(crate) panel_words: usize,
}

impl Words for StoredWords {
    #[inline(always)]
    unsafe fn load<S: Simd>(self, s: S, p: usize, word: usize) -> S::I {
        // SAFETY: the caller vouches for this word of this panel.
        unsafe { s.load_u32(self.words.add(p * self.panel_words + word * LANES)) }
    }
    #[inline(always)]
    fn ahead(self, p: usize, word: usize, panels: usize) -> *const u8 {
        let here = self.words.wrapping_add(p * self.panel_words + word * LANES);
        let bytes = |words: usize| words * size_of::<u32>();
        further(here.cast(), bytes(word * LANES), bytes(self.panel_words), panels)
    }
    #[inline(always)]
    fn panel(self, p: usize) -> StoredWords {
        StoredWords { words: self.words.wrapping_add(p * self.panel_words), ..self }
    }
}

/// Raw parts of consecutive panels; strides in elements.
#[derive(Clone, Copy)]
pub(crate) struct Coded<W> {
    pub(crate) words: W,
    /// 16 values.
    pub(crate) table: *const f32,
    pub(crate) scale: Scale,
    pub(crate) panel_scales: usize,
    pub(crate) words_per_scale: usize,
}

impl<W: Words> Coded<W> {
    fn panel(self, p: usize) -> Coded<W> {
        let at = p * self.panel_scales;
        let scale = match self.scale {
            Scale::F32(scales) => Scale::F32(scales.wrapping_add(at)),
            Scale::E8m0(codes) => Scale::E8m0(codes.wrapping_add(at)),
            Scale::E4m3(codes, tensor) => Scale::E4m3(codes.wrapping_add(at), tensor),
            Scale::Nested { codes, map, constants, offset, first, lane_blocks } => {
                let (codes, first) = (codes.wrapping_add(at), first + at as u32);
                Scale::Nested { codes, map, constants, offset, first, lane_blocks }
            }
        };
        Coded { words: self.words.panel(p), scale, ..self }
    }
}

/// The 16 scales of block `block` of the panel whose scales start at `at`.
#[inline(always)]
unsafe fn scales<S: Simd>(s: S, scale: Scale, at: usize, block: usize) -> S::V {
    let here = at + block * LANES;
    // SAFETY: the caller vouches for this block of this panel; indices into map and constants are those packing checked.
    unsafe {
        match scale {
            Scale::F32(scales) => s.load(scales.add(here)),
            Scale::E8m0(codes) => {
                // code 0 is 2⁻¹²⁷, a subnormal that the shift alone would lose
                let exponent = s.floats(s.shl(s.load_u8(codes.add(here)), 23));
                s.max(exponent, s.splat(f32::from_bits(0x0040_0000)))
            }
            Scale::E4m3(codes, tensor) => {
                let code = s.load_u8(codes.add(here));
                let sign = s.shl(s.and(code, s.splat_u32(0x80)), 24);
                let magnitude = s.floats(s.or(s.shl(s.and(code, s.splat_u32(0x7f)), 20), sign));
                s.mul(s.mul(magnitude, s.splat(f32::from_bits((120 + 127) << 23))), s.splat(tensor))
            }
            Scale::Nested { codes, map, constants, offset, first, lane_blocks } => {
                let value = s.gather(map, s.load_u8(codes.add(here)));
                let index = s.add_u32(s.load_u32(lane_blocks), s.splat_u32(first + (at + block) as u32));
                let constant = s.gather(constants, s.shr(index, 8));
                s.add(s.mul(value, constant), s.splat(offset))
            }
        }
    }
}

/// Decodes `words` (each 8 columns) of P panels into `sink`.
#[inline(always)]
unsafe fn walk<S: Simd, W: Words, K: Sink<S, P>, const P: usize>(
    s: S,
    coded: Coded<W>,
    words: Range<usize>,
    sink: &mut K,
) {
    // SAFETY: the table holds 16 values.
    let table = unsafe { s.load(coded.table) };
    let mut scale = [s.splat(0.0); P];
    let mut left_in_block = 0;
    for word in words {
        if left_in_block == 0 {
            let block = word / coded.words_per_scale;
            left_in_block = coded.words_per_scale - word % coded.words_per_scale;
            for p in 0..P {
                // SAFETY: the caller vouches for P panels of this many blocks.
                scale[p] = unsafe { scales(s, coded.scale, p * coded.panel_scales, block) };
            }
        }
        left_in_block -= 1;
        let mut codes = [s.splat_u32(0); P];
        for p in 0..P {
            // SAFETY: the caller vouches for P panels of this many words.
            codes[p] = unsafe { coded.words.load(s, p, word) };
            s.prefetch(coded.words.ahead(p, word, P));
        }
        for i in 0..PER_WORD {
            let mut w = [s.splat(0.0); P];
            for p in 0..P {
                w[p] = s.mul(s.lookup16(table, codes[p]), scale[p]);
                codes[p] = s.shr(codes[p], 4);
            }
            sink.take(s, word * PER_WORD + i, w);
        }
    }
}

struct Stream<W, const MR: usize, const P: usize> {
    coded: Coded<W>,
    tile: Tile<()>,
}

impl<W: Words, const MR: usize, const P: usize> Kernel for Stream<W, MR, P> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let t = self.tile;
        let mut sink = Accumulate::<S, MR, P> { acc: [[s.splat(0.0); P]; MR], a: t.a, a_stride: t.a_stride };
        // SAFETY: `stream`'s caller vouches for the panels, x and y.
        unsafe {
            walk::<S, W, _, P>(s, self.coded, 0..t.kk / PER_WORD, &mut sink);
            for r in 0..MR {
                for p in 0..P {
                    let here = t.n_cols.saturating_sub(p * LANES).min(LANES);
                    s.store_first(t.c.add(r * t.c_stride + p * LANES), here, sink.acc[r][p]);
                }
            }
        }
    }
}

struct DecodeColumns<W> {
    coded: Coded<W>,
    columns: Range<usize>,
    out: *mut f32,
}

impl<W: Words> Kernel for DecodeColumns<W> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut sink = Write { out: self.out, first: self.columns.start };
        let words = self.columns.start / PER_WORD..self.columns.end / PER_WORD;
        // SAFETY: `decode`'s caller vouches for the panel and the output.
        unsafe { walk::<S, W, _, 1>(s, self.coded, words, &mut sink) };
    }
}

/// Few rows: C\[rows, 16·panels\] over all columns, decoding in registers.
///
/// # Safety
/// As [`super::tile::run_tile`], with `coded` spanning `panels` panels of `t.kk` columns.
#[inline(always)]
pub(crate) unsafe fn stream<S: Simd, W: Words>(s: S, rows: usize, panels: usize, coded: Coded<W>, t: Tile<()>) {
    // The table, the scales and the codes need registers too.
    let most = match (S::WIDE, rows) {
        (true, 1 | 2) => panels,
        (true, _) => panels.min(2),
        (false, _) => 1,
    };
    macro_rules! pick {
        ($coded:ident, $tile:ident: $(($m:literal, $p:literal))*) => {
            match (rows, most) {
                $(($m, $p) => s.vectorize(Stream::<W, $m, $p> { coded: $coded, tile: $tile }),)*
                _ => unreachable!("no {rows} × {most} tile"),
            }
        };
    }
    for p in (0..panels).step_by(most) {
        let here = coded.panel(p);
        let tile = Tile { c: t.c.wrapping_add(p * LANES), n_cols: t.n_cols - p * LANES, ..t };
        if S::WIDE {
            pick!(here, tile: (1, 4)(2, 4)(1, 2)(2, 2)(3, 2)(4, 2)(5, 2)(6, 2)(7, 2)(8, 2)(1, 1)(2, 1)(3, 1)(4, 1)(5, 1)(
                6, 1
            )(7, 1)(8, 1));
        } else {
            pick!(here, tile: (1, 1)(2, 1)(3, 1)(4, 1)(5, 1)(6, 1));
        }
    }
}

/// Decodes `columns` (whole words) of one panel to f32, 16 values per column.
///
/// # Safety
/// `coded` must span `columns`, and `out` hold 16 values for each.
#[inline(always)]
pub(crate) unsafe fn decode<S: Simd, W: Words>(s: S, coded: Coded<W>, columns: Range<usize>, out: *mut f32) {
    s.vectorize(DecodeColumns { coded, columns, out });
}
