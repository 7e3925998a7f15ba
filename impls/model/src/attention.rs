//! The seam of the attention axis: softmax(q·kᵀ)·v over the tiles that a cache shows.

use crate::{Activations, KvCache, Step};

/// Attention with linear biases (Press et al. 2021, arXiv:2108.12409, §3): a score loses slope · distance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Alibi {
    /// The flattest of a power of two of heads has the slope 2^−max_bias.
    pub max_bias: f32,
}

impl Alibi {
    /// Slope of head `head` of `n_heads`: a geometric row where their number is a power of two; otherwise every second of the
    /// next power's row, then those between.
    pub fn slope(&self, head: usize, n_heads: usize) -> f32 {
        let power = n_heads.next_power_of_two();
        let place = match (power == n_heads, power / 2) {
            (true, _) => head + 1,
            (false, half) if head < half => 2 * (head + 1),
            (false, half) => 2 * (head - half) + 1,
        };
        (-self.max_bias * place as f32 / power as f32).exp2()
    }

    /// `scores[i] += factor · slope · (keys[i] − query)`.
    pub fn lower(&self, (head, n_heads): (usize, usize), factor: f32, query: u32, keys: &[u32], scores: &mut [f32]) {
        let slope = factor * self.slope(head, n_heads);
        scores.iter_mut().zip(keys).for_each(|(score, &key)| *score += slope * (key as f32 - query as f32));
    }
}

/// Shape and scoring of the heads of one layer.
///
/// Query heads form as many groups as there are key heads or value heads, whichever is more; query head h belongs to
/// group `h / (n_heads / groups)`, and a group reads one key head and one value head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadShape {
    /// Query heads.
    pub n_heads: usize,
    /// Key heads; divides or is divided by `n_value_heads`.
    pub n_key_heads: usize,
    /// Value heads.
    pub n_value_heads: usize,
    /// Features of a query and of a key.
    pub key_dim: usize,
    /// Features of a value and of an output head.
    pub value_dim: usize,
    /// Factor on q·k before the softmax, normally 1/√key_dim.
    pub scale: f32,
    /// Sliding window: a row at position p sees keys with `p - window < key <= p`.
    pub window: Option<usize>,
    /// Distances lower the scores, after the cap.
    pub alibi: Option<Alibi>,
    /// Soft cap: scores become `cap · tanh(score / cap)` before the mask.
    pub softcap: Option<f32>,
}

impl HeadShape {
    /// Multi-head shape with `n_kv_heads` groups, scale 1/√head_dim, no window, no cap.
    pub fn new(n_heads: usize, n_kv_heads: usize, head_dim: usize) -> HeadShape {
        HeadShape {
            n_heads,
            n_key_heads: n_kv_heads,
            n_value_heads: n_kv_heads,
            key_dim: head_dim,
            value_dim: head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            window: None,
            alibi: None,
            softcap: None,
        }
    }

    /// Groups of query heads that share a key head and a value head.
    pub fn groups(&self) -> usize {
        self.n_key_heads.max(self.n_value_heads)
    }

    /// Query heads per group.
    pub fn group(&self) -> usize {
        self.n_heads / self.groups()
    }

    /// Key head that group `group` reads.
    pub fn key_head(&self, group: usize) -> usize {
        group * self.n_key_heads / self.groups()
    }

    /// Value head that group `group` reads.
    pub fn value_head(&self, group: usize) -> usize {
        group * self.n_value_heads / self.groups()
    }
}

/// An attention **variant**.
pub trait Attention: Send + Sync {
    /// `q [rows, n_heads·key_dim]` (positions applied) against layer `layer` of `kv`, whose rows of this Step are
    /// already appended → `out [rows, n_heads·value_dim]`; `out` is reshaped.
    fn forward(
        &self,
        step: &Step,
        layer: usize,
        shape: &HeadShape,
        q: &Activations,
        kv: &dyn KvCache,
        out: &mut Activations,
    );
    /// Bytes of scratch memory that a pass over `rows` queries and `keys` f32 keys allocates beyond its output.
    fn scratch_bytes(&self, shape: &HeadShape, rows: usize, keys: usize) -> usize;
    /// Kernel that runs, e.g. `flash_q64_k256_avx2`.
    fn kernel_name(&self) -> String;
}
