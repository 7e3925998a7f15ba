//! Attention: the forward ladder, decoding over a cache in splits, and prefill over the same cache.
//!
//! Layouts: q and out `[batch, q_len, heads, dim]`, k and v `[batch, kv_len, kv_heads, dim]` for the ladder; caches as
//! [`KvView`] says for the other two.

mod bench;
mod cache;
mod decode;
mod decode_bench;
mod forward;
mod heads;
mod oracle;
mod prefill;

pub use bench::forward_bench;
pub use cache::{Element, KvView, Rows, Stored};
pub use decode::{DecodeShape, DecodeWorkspace, decode, splits};
pub use decode_bench::decode_bench;
pub use forward::{ForwardShape, ForwardTensors, forward, rungs, scratch_len};
pub use heads::Heads;
pub use prefill::{PrefillShape, prefill};

use crate::KernelSpec;

/// Every kernel of this folder with every constant it is launched with.
pub fn kernels() -> Vec<KernelSpec> {
    let mut all = decode::kernels();
    all.extend(forward::kernels());
    all.extend(prefill::kernels());
    all
}
