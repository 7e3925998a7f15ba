//! The seam of the attention axis: softmax(q·kᵀ)·v over the tiles that a cache shows.

use crate::{Activations, KvCache, Step};

/// Shape and scoring of the heads of one layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadShape {
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads; query head h reads KV head `h / (n_heads / n_kv_heads)`.
    pub n_kv_heads: usize,
    /// Features per head.
    pub head_dim: usize,
    /// Factor on q·k before the softmax, normally 1/√head_dim.
    pub scale: f32,
    /// Sliding window: a row at position p sees keys with `p - window < key <= p`.
    pub window: Option<usize>,
    /// Soft cap: scores become `cap · tanh(score / cap)` before the mask.
    pub softcap: Option<f32>,
}

impl HeadShape {
    /// Multi-head shape with `n_kv_heads` groups, scale 1/√head_dim, no window, no cap.
    pub fn new(n_heads: usize, n_kv_heads: usize, head_dim: usize) -> HeadShape {
        HeadShape { n_heads, n_kv_heads, head_dim, scale: 1.0 / (head_dim as f32).sqrt(), window: None, softcap: None }
    }

    /// Query heads per KV head.
    pub fn group(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }
}

/// An attention **variant**.
pub trait Attention: Send + Sync {
    /// `q [rows, n_heads·head_dim]` (positions applied) against layer `layer` of `kv`, whose rows of this Step are
    /// already appended → `out [rows, n_heads·head_dim]`; `out` is reshaped.
    fn forward(
        &self,
        step: &Step,
        layer: usize,
        shape: &HeadShape,
        q: &Activations,
        kv: &dyn KvCache,
        out: &mut Activations,
    );
    /// Bytes of scratch memory that a pass over `rows` queries and `keys` keys allocates beyond its output.
    fn scratch_bytes(&self, shape: &HeadShape, rows: usize, keys: usize) -> usize;
    /// Kernel that runs, e.g. `flash_q64_k256_avx2`.
    fn kernel_name(&self) -> String;
}
