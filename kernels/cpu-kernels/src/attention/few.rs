//! What: both products of attention for one to four queries, whose keys and values come from memory and are used once.
//! Source: none; the arithmetic is that of the register tile.
//! Shapes: as in the parent module, with d a multiple of 16.
//! Method: scores: 1. 16 keys × 16 features are loaded (and decoded) into registers and transposed there; 2. one FMA per
//! query and feature. Sums: 1. 16 features of a value are loaded (and decoded); 2. one FMA per query. Both ask for the
//! bytes some KiB further on: the hardware's own prefetching ends at each page of 4 KiB.
//! Exactness: a score is one FMA chain over d, an output one over keys, both ascending: bit-equal to the register tile.
//! Cost: 4 shuffles and 1 FMA per 16 key values; 1 load and 1 FMA per 16 values.
//! Not handled: d that is no multiple of 16, more queries: the parent takes the tile for those.

use super::rows::{Codes, Rows};
use crate::simd::{Kernel, LANES, Simd};

/// Most queries.
pub(super) const FEW: usize = 4;

/// Whether `n_q` queries of `d` values are few here.
pub(super) fn takes(n_q: usize, d: usize) -> bool {
    (1..=FEW).contains(&n_q) && d > 0 && d.is_multiple_of(LANES)
}

/// Stored rows behind a pointer.
trait Stored: Copy {
    /// Bytes of a value.
    const SIZE: usize;
    /// Values i to i + 15 of `row`.
    ///
    /// # Safety
    /// They must be there.
    unsafe fn load<S: Simd>(self, s: S, row: usize, i: usize) -> S::V;
    /// Where value `i` of `row` is, or would be.
    fn at(self, row: usize, i: usize) -> *const u8;
}

#[derive(Clone, Copy)]
struct Wide(*const f32, usize);
#[derive(Clone, Copy)]
struct Half(*const u16, usize);
#[derive(Clone, Copy)]
struct Byte(*const i8, usize, *const f32);

impl Stored for Wide {
    const SIZE: usize = 4;
    #[inline(always)]
    unsafe fn load<S: Simd>(self, s: S, row: usize, i: usize) -> S::V {
        // SAFETY: the caller vouches for row and i.
        unsafe { s.load(self.0.add(row * self.1 + i)) }
    }
    #[inline(always)]
    fn at(self, row: usize, i: usize) -> *const u8 {
        self.0.wrapping_add(row * self.1 + i).cast()
    }
}

impl Stored for Half {
    const SIZE: usize = 2;
    #[inline(always)]
    unsafe fn load<S: Simd>(self, s: S, row: usize, i: usize) -> S::V {
        // SAFETY: the caller vouches for row and i.
        unsafe { s.load_f16(self.0.add(row * self.1 + i)) }
    }
    #[inline(always)]
    fn at(self, row: usize, i: usize) -> *const u8 {
        self.0.wrapping_add(row * self.1 + i).cast()
    }
}

impl Stored for Byte {
    const SIZE: usize = 1;
    #[inline(always)]
    unsafe fn load<S: Simd>(self, s: S, row: usize, i: usize) -> S::V {
        // SAFETY: the caller vouches for row and i; each row has a scale.
        unsafe { s.mul(s.load_i8(self.0.add(row * self.1 + i)), s.splat(*self.2.add(row))) }
    }
    #[inline(always)]
    fn at(self, row: usize, i: usize) -> *const u8 {
        self.0.wrapping_add(row * self.1 + i).cast()
    }
}

/// Bytes of keys to ask for beyond the 16 at work, and of values beyond the one at work.
const KEYS_AHEAD: usize = 4096;
const VALUES_AHEAD: usize = 8192;
/// A cache line.
const LINE: usize = 64;
/// Keys after which the next columns of the values are taken: both parts of a row are then near one another.
const BLOCK: usize = 32;

/// One side of the work: queries or weights, stored rows, results.
#[derive(Clone, Copy)]
struct Few<R> {
    a: *const f32,
    a_stride: usize,
    rows: R,
    n_k: usize,
    d: usize,
    out: *mut f32,
    out_stride: usize,
}

/// Scores of Q queries.
struct Scores<R, const Q: usize> {
    few: Few<R>,
    scale: f32,
}

impl<R: Stored, const Q: usize> Kernel for Scores<R, Q> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Scores { few, scale } = self;
        let ahead = R::SIZE * LANES * few.d + KEYS_AHEAD;
        for first in (0..few.n_k).step_by(LANES) {
            let mut acc = [s.splat(0.0); Q];
            for i in (0..few.d).step_by(LANES) {
                let mut keys = [s.splat(0.0); LANES];
                for lane in 0..LANES {
                    // Slots beyond the last key repeat it: their scores are never stored.
                    let row = (first + lane).min(few.n_k - 1);
                    // SAFETY: n_k rows of d values.
                    keys[lane] = unsafe { few.rows.load(s, row, i) };
                }
                // These 16 × 16 values are as many bytes as the next piece of the keys, one after the other.
                ask(s, few.rows.at(first, i * LANES).wrapping_add(ahead), R::SIZE * LANES * LANES);
                let features = s.transpose_block(keys);
                for j in 0..LANES {
                    for q in 0..Q {
                        // SAFETY: Q queries of d values.
                        let a = s.splat(unsafe { *few.a.add(q * few.a_stride + i + j) });
                        acc[q] = s.fma(a, features[j], acc[q]);
                    }
                }
            }
            let here = (few.n_k - first).min(LANES);
            for q in 0..Q {
                let v = s.mul(acc[q], s.splat(scale));
                // SAFETY: Q rows of n_k results, `here` of them from `first` on.
                unsafe {
                    let out = few.out.add(q * few.out_stride + first);
                    if here == LANES { s.store(out, v) } else { s.store_first(out, here, v) }
                }
            }
        }
    }
}

/// Asks for `bytes` from `p` on.
#[inline(always)]
fn ask<S: Simd>(s: S, p: *const u8, bytes: usize) {
    for offset in (0..bytes).step_by(LINE) {
        s.prefetch(p.wrapping_add(offset));
    }
}

/// Sums of Q rows of weights over values, P × 16 columns from `column` on, keys `keys.0` to `keys.1`.
struct Sums<R, const Q: usize, const P: usize> {
    few: Few<R>,
    column: usize,
    keys: (usize, usize),
}

impl<R: Stored, const Q: usize, const P: usize> Kernel for Sums<R, Q, P> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Sums { few, column, keys } = self;
        let mut acc = [[s.splat(0.0); P]; Q];
        // SAFETY: Q rows of d results, Q rows of n_k weights, n_k rows of d values; columns from `column` on exist.
        unsafe {
            for q in 0..Q {
                for p in 0..P {
                    acc[q][p] = s.load(few.out.add(q * few.out_stride + column + p * LANES));
                }
            }
            for key in keys.0..keys.1 {
                ask(s, few.rows.at(key, column).wrapping_add(VALUES_AHEAD), R::SIZE * LANES * P);
                let mut values = [s.splat(0.0); P];
                for p in 0..P {
                    values[p] = few.rows.load(s, key, column + p * LANES);
                }
                for q in 0..Q {
                    let a = s.splat(*few.a.add(q * few.a_stride + key));
                    for p in 0..P {
                        acc[q][p] = s.fma(a, values[p], acc[q][p]);
                    }
                }
            }
            for q in 0..Q {
                for p in 0..P {
                    s.store(few.out.add(q * few.out_stride + column + p * LANES), acc[q][p]);
                }
            }
        }
    }
}

/// Scores of `n_q` rows at `q` against `n_k` rows of `d` values.
///
/// # Safety
/// [`takes`] holds; `q` has `n_q` rows of `d`, `k` holds `n_k` rows of `d`, `out` has `n_q` rows of `n_k` of its own.
#[inline(always)]
pub(super) unsafe fn scores<S: Simd>(
    s: S,
    (q, q_stride, n_q): (*const f32, usize, usize),
    k: Rows<'_>,
    (n_k, d, scale): (usize, usize, f32),
    (out, out_stride): (*mut f32, usize),
) {
    macro_rules! run {
        ($rows:expr) => {{
            let few = Few { a: q, a_stride: q_stride, rows: $rows, n_k, d, out, out_stride };
            match n_q {
                1 => s.vectorize(Scores::<_, 1> { few, scale }),
                2 => s.vectorize(Scores::<_, 2> { few, scale }),
                3 => s.vectorize(Scores::<_, 3> { few, scale }),
                _ => s.vectorize(Scores::<_, 4> { few, scale }),
            }
        }};
    }
    match k.codes {
        Codes::F32(values) => run!(Wide(values.as_ptr(), k.stride)),
        Codes::F16(codes) => run!(Half(codes.as_ptr(), k.stride)),
        Codes::Int8 { codes, scales } => run!(Byte(codes.as_ptr(), k.stride, scales.as_ptr())),
    }
}

/// Adds `n_q` weighted sums of `n_k` values of `d` features.
///
/// # Safety
/// [`takes`] holds; `p` has `n_q` rows of `n_k`, `v` holds `n_k` rows of `d`, `out` has `n_q` rows of `d` of its own.
#[inline(always)]
pub(super) unsafe fn sums<S: Simd>(
    s: S,
    (p, p_stride, n_q): (*const f32, usize, usize),
    v: Rows<'_>,
    (n_k, d): (usize, usize),
    (out, out_stride): (*mut f32, usize),
) {
    macro_rules! run {
        ($rows:expr) => {{
            let few = Few { a: p, a_stride: p_stride, rows: $rows, n_k, d, out, out_stride };
            match n_q {
                1 => blocks::<S, _, 1>(s, few),
                2 => blocks::<S, _, 2>(s, few),
                3 => blocks::<S, _, 3>(s, few),
                _ => blocks::<S, _, 4>(s, few),
            }
        }};
    }
    match v.codes {
        Codes::F32(values) => run!(Wide(values.as_ptr(), v.stride)),
        Codes::F16(codes) => run!(Half(codes.as_ptr(), v.stride)),
        Codes::Int8 { codes, scales } => run!(Byte(codes.as_ptr(), v.stride, scales.as_ptr())),
    }
}

/// All columns of a block of keys, then the next block; all keys at once where the registers hold all columns.
#[inline(always)]
fn blocks<S: Simd, R: Stored, const Q: usize>(s: S, few: Few<R>) {
    let most = match (S::WIDE, Q) {
        (true, 1) => 8,
        (true, _) | (false, 1) => 4,
        (false, 2) => 2,
        (false, _) => 1,
    };
    let block = if few.d <= most * LANES { few.n_k.max(1) } else { BLOCK };
    for first in (0..few.n_k).step_by(block) {
        let keys = (first, (first + block).min(few.n_k));
        let mut column = 0;
        while column < few.d {
            let left = ((few.d - column) / LANES).min(most);
            let panels = if left >= 8 { 8 } else { 1 << left.ilog2() };
            match panels {
                8 if Q == 1 => s.vectorize(Sums::<R, Q, 8> { few, column, keys }),
                4 => s.vectorize(Sums::<R, Q, 4> { few, column, keys }),
                2 => s.vectorize(Sums::<R, Q, 2> { few, column, keys }),
                _ => s.vectorize(Sums::<R, Q, 1> { few, column, keys }),
            }
            column += panels * LANES;
        }
    }
}
