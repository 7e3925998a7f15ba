//! Primitives that attention variants are built from: score tiles, weighted sums, the online softmax step.
//!
//! What: Q·Kᵀ on a tile, P·V on a tile, and the (m, l) recurrence that joins tiles.
//! Source: Milakov and Gimelshein 2018 (arXiv:1805.02867, alg. 3); Dao et al. 2022 (arXiv:2205.14135, alg. 1).
//! Shapes: q \[n_q, d\], k and v \[n_k, d\] as f32, f16 or int8 with a scale per row; scores and p \[n_q, n_k\].
//! Method: keys are decoded and transposed 16 at a time into L1, values decoded 64 at a time, then both products run
//! the register tile of the linears. One to four queries, whose keys and values come from memory, have kernels of their
//! own, which keep all of that in registers (`few`).
//! Exactness: a score is one FMA chain over d times scale; an output adds one FMA per key in order. Neither depends on
//! n_q, so 1-row and k-row calls agree bit for bit. Same bits on AVX2 and AVX-512.
//! Cost: 2·n_q·n_k·d FLOPs each; scores also move n_k·d values once through L1.
//! Not handled: masks (write −∞ into scores), threads (callers run heads and query tiles in parallel).

mod few;
mod online;
mod rows;

use crate::linear::tile::{F32Columns, RowMajor, RowStream, Tile, max_panels, panels_step, run_tile, tile_rows};
use crate::scratch;
use crate::simd::{LANES, Simd, dispatch};
use rows::decode_generic;

pub use crate::exp::scale_row;
pub use online::online_softmax_update;
pub use rows::{Codes, Rows, decode_rows};

dispatch! {
    /// out\[i, j\] = (q_i · k_j)·scale for `n_q` queries and `n_k` keys of `d` values.
    pub fn scores_tile(
        q: &[f32],
        q_stride: usize,
        n_q: usize,
        k: Rows<'_>,
        n_k: usize,
        d: usize,
        scale: f32,
        out: &mut [f32],
        out_stride: usize,
    ) = scores_generic
}

dispatch! {
    /// out\[i, ..d\] += Σ_j p\[i, j\]·v_j for `n_q` rows of weights and `n_k` values.
    pub fn weighted_sum(
        p: &[f32],
        p_stride: usize,
        n_q: usize,
        v: Rows<'_>,
        n_k: usize,
        d: usize,
        out: &mut [f32],
        out_stride: usize,
    ) = weighted_sum_generic
}

/// Whether `rows` rows of `cols` values, `stride` apart, lie in `len` values.
fn fits(len: usize, rows: usize, stride: usize, cols: usize) -> bool {
    rows == 0 || cols == 0 || (cols <= stride || rows == 1) && (rows - 1) * stride + cols <= len
}

#[inline(always)]
fn scores_generic<S: Simd>(
    s: S,
    q: &[f32],
    q_stride: usize,
    n_q: usize,
    k: Rows<'_>,
    n_k: usize,
    d: usize,
    scale: f32,
    out: &mut [f32],
    out_stride: usize,
) {
    assert!(fits(q.len(), n_q, q_stride, d), "q must hold n_q rows of d");
    assert!(k.hold(n_k, d), "k must hold n_k rows of d");
    assert!(fits(out.len(), n_q, out_stride, n_k), "out must hold n_q rows of n_k");
    if n_q == 0 || n_k == 0 {
        return;
    }
    if few::takes(n_q, d) {
        // SAFETY: extents asserted above.
        return unsafe {
            few::scores(s, (q.as_ptr(), q_stride, n_q), k, (n_k, d, scale), (out.as_mut_ptr(), out_stride))
        };
    }
    let most = max_panels(S::WIDE, tile_rows(S::WIDE, n_q));
    let mut keys = scratch::take(most * d * LANES);
    let mut decoded = scratch::take(if matches!(k.codes, Codes::F32(_)) { 0 } else { LANES * d });
    let ahead = if n_q <= FEW { k.ahead(d) } else { 0 };
    let mut key = 0;
    while key < n_k {
        let panels = panels_step((n_k - key).div_ceil(LANES), most);
        for p in 0..panels {
            let first = key + p * LANES;
            let here = LANES.min(n_k - first);
            let (base, stride) = match k.codes {
                Codes::F32(values) => (values.as_ptr().wrapping_add(first * k.stride), k.stride),
                _ => {
                    decode_generic(s, k, first, here, d, &mut decoded);
                    (decoded.as_ptr(), d)
                }
            };
            // Slots beyond the last key repeat it: their scores are never stored.
            let mut rows = [std::ptr::null(); LANES];
            for lane in 0..LANES {
                rows[lane] = base.wrapping_add(lane.min(here - 1) * stride);
            }
            if ahead > 0 {
                for row in rows {
                    for i in (0..d).step_by(LANES) {
                        s.prefetch(row.wrapping_add(ahead * k.stride + i).cast());
                    }
                }
            }
            // SAFETY: 16 key rows of d values (asserted) into this panel's d × 16 values.
            unsafe { s.transpose(rows, d, keys.as_mut_ptr().add(p * d * LANES)) };
        }
        let n_cols = (n_k - key).min(panels * LANES);
        let mut row = 0;
        while row < n_q {
            let mr = tile_rows(S::WIDE, n_q - row);
            let tile = Tile {
                kk: d,
                a: q.as_ptr().wrapping_add(row * q_stride),
                a_stride: q_stride,
                columns: F32Columns::<LANES> { base: keys.as_ptr(), panel_stride: d * LANES },
                c: out.as_mut_ptr().wrapping_add(row * out_stride + key),
                c_stride: out_stride,
                n_cols,
                fresh: true,
            };
            // SAFETY: mr rows of q and out (asserted), `panels` transposed panels; `n_cols` cuts the last.
            unsafe { run_tile::<S, _, false>(s, mr, panels, tile) };
            row += mr;
        }
        for row in 0..if scale == 1.0 { 0 } else { n_q } {
            let row = &mut out[row * out_stride + key..][..n_cols];
            for start in (0..n_cols).step_by(LANES) {
                let v = s.mul(crate::exp::load_at(s, row, start, 0.0), s.splat(scale));
                crate::exp::store_at(s, row, start, v);
            }
        }
        key += panels * LANES;
    }
}

#[inline(always)]
fn weighted_sum_generic<S: Simd>(
    s: S,
    p: &[f32],
    p_stride: usize,
    n_q: usize,
    v: Rows<'_>,
    n_k: usize,
    d: usize,
    out: &mut [f32],
    out_stride: usize,
) {
    assert!(fits(p.len(), n_q, p_stride, n_k), "p must hold n_q rows of n_k");
    assert!(v.hold(n_k, d), "v must hold n_k rows of d");
    assert!(fits(out.len(), n_q, out_stride, d), "out must hold n_q rows of d");
    if few::takes(n_q, d) {
        // SAFETY: extents asserted above.
        return unsafe { few::sums(s, (p.as_ptr(), p_stride, n_q), v, (n_k, d), (out.as_mut_ptr(), out_stride)) };
    }
    if let Codes::F32(values) = v.codes {
        let ahead = if n_q <= FEW { v.ahead(d) } else { 0 };
        return weighted_f32(s, p, p_stride, n_q, values, v.stride, n_k, d, ahead, out, out_stride);
    }
    // An output is one chain over keys in order: cutting the keys into decoded blocks changes no bit.
    let mut decoded = scratch::take(DECODED * d);
    for first in (0..n_k).step_by(DECODED) {
        let n = DECODED.min(n_k - first);
        decode_generic(s, v, first, n, d, &mut decoded);
        weighted_f32(s, &p[first..], p_stride, n_q, &decoded, d, n, d, 0, out, out_stride);
    }
}

/// Queries of the register tile up to which keys and values come from memory faster than they are used.
const FEW: usize = 8;
/// Keys after which few queries go on to their next columns: both halves of a row are then near one another.
const BLOCK: usize = 32;

/// Values decoded at a time: 16 KiB at 64 features, half of L1.
const DECODED: usize = 64;

/// [`weighted_sum`] over f32 values; `ahead` rows on are asked for meanwhile, unless it is 0.
#[inline(always)]
fn weighted_f32<S: Simd>(
    s: S,
    p: &[f32],
    p_stride: usize,
    n_q: usize,
    v: &[f32],
    v_stride: usize,
    n_k: usize,
    d: usize,
    ahead: usize,
    out: &mut [f32],
    out_stride: usize,
) {
    let whole = d / LANES;
    let block = if ahead > 0 && whole > max_panels(S::WIDE, 1) { BLOCK } else { n_k.max(1) };
    for first in (0..n_k).step_by(block) {
        let mut row = 0;
        while row < n_q {
            let mr = tile_rows(S::WIDE, n_q - row);
            let mut panel = 0;
            while panel < whole {
                let panels = panels_step(whole - panel, max_panels(S::WIDE, mr));
                let base = v.as_ptr().wrapping_add(first * v_stride + panel * LANES);
                let columns = RowMajor { base, row_stride: v_stride };
                let tile = Tile {
                    kk: block.min(n_k - first),
                    a: p.as_ptr().wrapping_add(row * p_stride + first),
                    a_stride: p_stride,
                    columns: (),
                    c: out.as_mut_ptr().wrapping_add(row * out_stride + panel * LANES),
                    c_stride: out_stride,
                    n_cols: panels * LANES,
                    fresh: false,
                };
                // SAFETY: asserted extents; only whole panels of 16 columns are read here.
                unsafe {
                    if ahead > 0 && row == 0 {
                        let columns = RowStream { rows: columns, ahead: ahead * v_stride };
                        run_tile::<S, _, false>(s, mr, panels, tile.with(columns));
                    } else {
                        run_tile::<S, _, false>(s, mr, panels, tile.with(columns));
                    }
                }
                panel += panels;
            }
            row += mr;
        }
    }
    if d > whole * LANES {
        last_columns(s, p, p_stride, n_q, v, v_stride, n_k, d, out, out_stride);
    }
}

/// The d mod 16 last columns of [`weighted_sum`], through a copy padded to 16.
#[inline(always)]
fn last_columns<S: Simd>(
    s: S,
    p: &[f32],
    p_stride: usize,
    n_q: usize,
    v: &[f32],
    v_stride: usize,
    n_k: usize,
    d: usize,
    out: &mut [f32],
    out_stride: usize,
) {
    let (first, n_cols) = (d / LANES * LANES, d % LANES);
    let mut padded = scratch::take(n_k * LANES);
    for (j, slot) in padded.chunks_exact_mut(LANES).enumerate() {
        slot[..n_cols].copy_from_slice(&v[j * v_stride + first..][..n_cols]);
        slot[n_cols..].fill(0.0);
    }
    let mut row = 0;
    while row < n_q {
        let mr = tile_rows(S::WIDE, n_q - row);
        let tile = Tile {
            kk: n_k,
            a: p.as_ptr().wrapping_add(row * p_stride),
            a_stride: p_stride,
            columns: F32Columns::<LANES> { base: padded.as_ptr(), panel_stride: 0 },
            c: out.as_mut_ptr().wrapping_add(row * out_stride + first),
            c_stride: out_stride,
            n_cols,
            fresh: false,
        };
        // SAFETY: extents asserted by the caller; `padded` holds 16 columns per key.
        unsafe { run_tile::<S, _, false>(s, mr, 1, tile) };
        row += mr;
    }
}
