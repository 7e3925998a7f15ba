//! Every rung of the attention ladders against the f64 oracle, on small shapes around the tile sizes, outputs poisoned.

mod cache;
mod forward;
mod traffic;
mod traps;

use cuda_kernels::Number;
use cuda_kernels::attention::ForwardShape;

/// One sequence, one head, causal, bf16.
fn shape(q_len: usize, kv_len: usize, dim: usize) -> ForwardShape {
    ForwardShape {
        batch: 1,
        q_len,
        kv_len,
        heads: 1,
        kv_heads: 1,
        dim,
        causal: true,
        window: None,
        number: Number::Bf16,
    }
}
