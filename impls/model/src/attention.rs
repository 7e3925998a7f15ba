//! The seam of the attention axis: softmax(q·kᵀ)·v over the tiles that a cache shows.

use crate::{Activations, KvCache, Step};

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
