//! What: rotary position embedding, in the half-split layout (Hugging Face's `rotate_half`) and with interleaved pairs.
//! Source: Su et al. 2021 (arXiv:2104.09864, eq. 34): pairs (2i, 2i + 1); half-split: pairs (i, i + rotary_dim/2).
//! Shapes: x: rows `row_stride` apart, heads of `head_dim` one after the other; cos, sin \[rows, rotary_dim/2\].
//! Method: (a, b) → (a·cos − b·sin, b·cos + a·sin); dimensions from rotary_dim on are left alone.
//! Exactness: two products and one sum, each rounded: the same bits on every level.
//! Cost: 6 operations per pair.
//! Not handled: scaling of angles, which belongs to whoever fills cos and sin.

use crate::exp::{load_at, store_at};
use crate::simd::{LANES, Simd, dispatch};

dispatch! {
    /// Rotates `n_heads` heads of each row in place; `x` starts at the first head of the first row.
    pub fn rope_half_split(
        x: &mut [f32],
        rows: usize,
        row_stride: usize,
        n_heads: usize,
        head_dim: usize,
        rotary_dim: usize,
        cos: &[f32],
        sin: &[f32],
    ) = rope_generic::<HalfSplit, _>
}

dispatch! {
    /// [`rope_half_split`] for pairs (2i, 2i + 1), as the paper writes them.
    pub fn rope_interleaved(
        x: &mut [f32],
        rows: usize,
        row_stride: usize,
        n_heads: usize,
        head_dim: usize,
        rotary_dim: usize,
        cos: &[f32],
        sin: &[f32],
    ) = rope_generic::<Interleaved, _>
}

/// Which features of a head are a pair.
trait Pairs {
    /// Rotates the pairs of `x`, each by its angle.
    fn rotate<S: Simd>(s: S, x: &mut [f32], cos: &[f32], sin: &[f32]);
}

struct HalfSplit;
struct Interleaved;

impl Pairs for HalfSplit {
    #[inline(always)]
    fn rotate<S: Simd>(s: S, x: &mut [f32], cos: &[f32], sin: &[f32]) {
        let (low, high) = x.split_at_mut(cos.len());
        for start in (0..cos.len()).step_by(LANES) {
            let (a, b) = (load_at(s, low, start, 0.0), load_at(s, high, start, 0.0));
            let (c, d) = (load_at(s, cos, start, 0.0), load_at(s, sin, start, 0.0));
            store_at(s, low, start, s.sub(s.mul(a, c), s.mul(b, d)));
            store_at(s, high, start, s.add(s.mul(b, c), s.mul(a, d)));
        }
    }
}

impl Pairs for Interleaved {
    #[inline(always)]
    fn rotate<S: Simd>(_: S, x: &mut [f32], cos: &[f32], sin: &[f32]) {
        for ((pair, c), s) in x.chunks_exact_mut(2).zip(cos).zip(sin) {
            (pair[0], pair[1]) = (pair[0] * c - pair[1] * s, pair[1] * c + pair[0] * s);
        }
    }
}

#[inline(always)]
fn rope_generic<P: Pairs, S: Simd>(
    s: S,
    x: &mut [f32],
    rows: usize,
    row_stride: usize,
    n_heads: usize,
    head_dim: usize,
    rotary_dim: usize,
    cos: &[f32],
    sin: &[f32],
) {
    let half = rotary_dim / 2;
    assert!(rotary_dim <= head_dim && rotary_dim.is_multiple_of(2), "rotary_dim must be even and at most head_dim");
    assert!(cos.len() == rows * half && sin.len() == rows * half, "cos and sin must be [rows, rotary_dim/2]");
    for row in 0..rows {
        let (cos, sin) = (&cos[row * half..][..half], &sin[row * half..][..half]);
        for head in 0..n_heads {
            P::rotate(s, &mut x[row * row_stride + head * head_dim..][..rotary_dim], cos, sin);
        }
    }
}
