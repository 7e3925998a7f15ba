//! What: ggml's blocks decoded in registers for f32 activations.
//! Source: none; storage as `block_store`.
//! Shapes: 16 weights of a panel and column at a time, in ascending columns.
//! Method: w = scale·(code − zero), then + minimum where the form has one.
//! Exactness: scale·(code − zero) is exact in f32, so w is the same with and without FMA and equals ggml's.
//! Cost: per 16 weights a shift, a mask, a conversion and one or two operations on f32, shared by the rows of a tile.
//! Not handled: activations below f32 (`block_dot`).

use super::block_form::{BLOCK, SUPER};
use super::block_store::BlockStore;
use super::codes::{Accumulate, Sink, Write};
use super::gemm::{Columns16, Weights};
use super::tile::{F32Columns, Tile};
use crate::simd::{Kernel, LANES, Simd};
use std::ops::Range;

/// Scales and minima (added) of panel `panel`, part `part` of block `block`.
#[inline(always)]
fn constants<S: Simd>(s: S, store: &BlockStore, panel: usize, block: usize, part: usize) -> (S::V, S::V) {
    let (form, kinds) = (store.form, store.form.kinds());
    let group = if form.is_super() { block / SUPER } else { block };
    let halves = store.halves[panel * store.panel_halves() + group * kinds * LANES..][..kinds * LANES].as_ptr();
    // SAFETY: 16 values of each kind, sliced above.
    let (scale, minimum) =
        unsafe { (s.load_f16(halves), if kinds == 2 { s.load_f16(halves.add(LANES)) } else { s.splat(0.0) }) };
    if !form.is_super() {
        return (scale, minimum);
    }
    let at = panel * store.panel_integers() + (block * form.parts() + part) * kinds * LANES;
    let integers = store.integers[at..][..kinds * LANES].as_ptr();
    // SAFETY: 16 bytes of each kind, sliced above.
    unsafe {
        if kinds == 1 {
            return (s.mul(scale, s.load_i8(integers.cast())), minimum);
        }
        let negative = s.mul(minimum, s.to_f32(s.load_u8(integers.add(LANES))));
        (s.mul(scale, s.to_f32(s.load_u8(integers))), s.sub(s.splat(0.0), negative))
    }
}

/// Decodes `blocks` of `P` panels from `first` on into `sink`.
#[inline(always)]
fn walk<S: Simd, K: Sink<S, P>, const P: usize>(
    s: S,
    store: &BlockStore,
    first: usize,
    blocks: Range<usize>,
    sink: &mut K,
) {
    let form = store.form;
    let (low, high, bits) = (form.low(), form.high(), form.bits());
    let per_word = 8 / low;
    let (low_mask, high_mask) = (s.splat_u32((1 << low) - 1), s.splat_u32((1 << high) - 1));
    let zero = s.splat(form.zero() as f32);
    for block in blocks {
        let mut here = [std::ptr::null::<u32>(); P];
        for p in 0..P {
            let at = (first + p) * store.panel_words() + block * bits * LANES;
            here[p] = store.words[at..][..bits * LANES].as_ptr();
            for line in 0..bits {
                s.prefetch(here[p].wrapping_add(line * LANES).cast::<u8>().wrapping_add(super::tile::AHEAD / P));
            }
        }
        for part in 0..form.parts() {
            let mut both = [(s.splat(0.0), s.splat(0.0)); P];
            for p in 0..P {
                both[p] = constants(s, store, first + p, block, part);
            }
            let quads = 8 / form.parts();
            for quad in part * quads..(part + 1) * quads {
                for byte in 0..4 {
                    let mut w = [s.splat(0.0); P];
                    for p in 0..P {
                        let word = |i: usize| {
                            // SAFETY: `bits` words of 16 outputs, sliced above.
                            unsafe { s.load_u32(here[p].add(i * LANES)) }
                        };
                        let shift = 8 * byte + low * (quad % per_word);
                        let mut code = s.and(s.shr(word(quad / per_word), shift as u32), low_mask);
                        if high > 0 {
                            let (at, shift) = if high == 1 { (0, quad) } else { (quad / 4, 2 * (quad % 4)) };
                            let more = s.and(s.shr(word(low + at), (8 * byte + shift) as u32), high_mask);
                            code = s.or(code, s.shl(more, low as u32));
                        }
                        let (scale, minimum) = both[p];
                        w[p] = s.mul(scale, s.sub(s.to_f32(code), zero));
                        if form.has_minima() {
                            w[p] = s.add(w[p], minimum);
                        }
                    }
                    sink.take(s, block * BLOCK + quad * 4 + byte, w);
                }
            }
        }
    }
}

/// One register tile over the whole k.
struct Stream<'a, const MR: usize, const P: usize> {
    store: &'a BlockStore,
    first: usize,
    tile: Tile<()>,
}

impl<const MR: usize, const P: usize> Kernel for Stream<'_, MR, P> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let t = self.tile;
        let mut sums = Accumulate::<S, MR, P> { acc: [[s.splat(0.0); P]; MR], a: t.a, a_stride: t.a_stride };
        walk(s, self.store, self.first, 0..self.store.blocks(), &mut sums);
        for r in 0..MR {
            for p in 0..P {
                let here = t.n_cols.saturating_sub(p * LANES).min(LANES);
                // SAFETY: the caller of `stream` vouches for MR rows of `n_cols` columns.
                unsafe { s.store_first(t.c.add(r * t.c_stride + p * LANES), here, sums.acc[r][p]) };
            }
        }
    }
}

impl Weights for BlockStore {
    fn n(&self) -> usize {
        self.n
    }
    fn k(&self) -> usize {
        self.k
    }
    fn bytes(&self) -> usize {
        BlockStore::bytes(self)
    }
    #[inline(always)]
    unsafe fn stream<S: Simd>(&self, s: S, rows: usize, first: usize, panels: usize, t: Tile<()>) {
        macro_rules! pick {
            ($(($m:literal, $p:literal))*) => {
                match (rows, panels) {
                    $(($m, $p) => s.vectorize(Stream::<$m, $p> { store: self, first, tile: t }),)*
                    _ => unreachable!("no {rows} × {panels} tile"),
                }
            };
        }
        if S::WIDE {
            pick!((1, 4)(2, 4)(3, 4)(4, 4)(1, 2)(2, 2)(3, 2)(4, 2)(5, 2)(6, 2)(7, 2)(8, 2)(1, 1)(2, 1)(3, 1)(4, 1)(
                5, 1
            )(6, 1)(7, 1)(8, 1));
        } else {
            pick!((1, 4)(1, 2)(2, 2)(3, 2)(1, 1)(2, 1)(3, 1)(4, 1)(5, 1)(6, 1));
        }
    }
    #[inline(always)]
    fn decode<S: Simd>(&self, s: S, first: usize, panels: usize, ks: Range<usize>, buffer: &mut [f32]) -> Columns16 {
        let buffer = &mut buffer[..panels * ks.len() * LANES];
        for (p, out) in buffer.chunks_exact_mut(ks.len() * LANES).enumerate() {
            let mut write = Write { out: out.as_mut_ptr(), first: ks.start };
            walk::<S, Write, 1>(s, self, first + p, ks.start / BLOCK..ks.end / BLOCK, &mut write);
        }
        F32Columns { base: buffer.as_ptr(), panel_stride: ks.len() * LANES }
    }
    #[inline(always)]
    fn stored_at(&self, panel: usize, k: usize) -> *const u8 {
        self.words.as_ptr().wrapping_add(panel * self.panel_words() + k / BLOCK * self.form.bits() * LANES).cast()
    }
}
