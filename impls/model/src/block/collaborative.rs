//! What: collaborative attention: all heads share one projection of queries and one of keys, and mix their features.
//! Source: Cordonnier, Loukas, Jaggi 2020, arXiv 2006.16362, §3 (equation 6) and §4.2 (content bias).
//! Shapes: x `[rows, hidden]` → shared q `[rows, R]`, shared key `[rows, R + h]`, values `[rows, h·head_dim]`.
//! Method: head i scores q ∘ m_i against the shared key; feature R + i of a key is the head's content bias v_i·x, which its query
//! reads with a one. The cache holds one key head and h value heads.
//! Exactness: multi-head attention where R = h·d_k and the mixing is block one-hot, up to the terms of the key bias that are
//! constant along the softmax.
//! Cost: R + h cached key features per token instead of h·d_k; h·(R + h) multiply-adds per score row instead of h·d_k.
//! Not handled: rotary positions, which stand between the projections; fewer value heads than query heads.

use crate::architecture::Architecture;
use crate::{Activations, HeadShape, KvShape};

pub(super) fn kv_shape(a: &Architecture) -> KvShape {
    KvShape { n_key_heads: 1, key_dim: a.key_dim(), ..KvShape::new(a.n_layers, a.n_heads, a.head_dim) }
}

pub(super) fn head_shape(a: &Architecture) -> HeadShape {
    HeadShape { n_key_heads: 1, key_dim: a.key_dim(), ..HeadShape::new(a.n_heads, a.n_heads, a.head_dim) }
}

/// `out [rows, heads·(R + heads)]`: each head's mixture of `q [rows, R]`, and its one.
pub(super) fn mix(mixing: &[f32], heads: usize, q: &Activations, out: &mut Activations) {
    let rank = q.cols();
    let width = rank + heads;
    out.reshape(q.rows(), heads * width);
    for row in 0..q.rows() {
        let own = q.row(row);
        for (head, to) in out.row_mut(row).chunks_exact_mut(width).enumerate() {
            let mixing = &mixing[head * rank..][..rank];
            to.iter_mut().zip(own.iter().zip(mixing)).for_each(|(to, (q, m))| *to = q * m);
            to[rank..].fill(0.0);
            to[rank + head] = 1.0;
        }
    }
}
