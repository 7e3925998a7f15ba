//! Attention: the forward ladder, decoding over a cache in splits, and prefill over the same cache.
//!
//! | forward rung | what it adds to the one before | rows × keys, threads |
//! |---|---|---|
//! | `a0_row_per_warp` | an online softmax, f32, to be read first | 1 × 1, a warp a row |
//! | `a1_unfused` | scores and weights in device memory, three kernels: what fusing saves | 16 × 16, 256 |
//! | `a2_tiled_f32` | fused: tiles in shared memory, 4 × 4 results a thread | 64 × 64, 256 |
//! | `a3_mma` | tensor cores; weights stay in registers | 64 × 64, 128 |
//! | `a4_ldmatrix_swizzle` | fragments by `ldmatrix`, no bank conflicts | 64 × 64, 128 |
//! | `a5_serial_rows` | the next tiles are copied meanwhile; tiles above the diagonal are not visited; a block does all rows of its head | 128 × 64, 256 |
//! | `a5_pipelined` | a block per 128 rows: the sequence is parallel work too | 128 × 64, 256 |
//! | `a6_wgmma_tma` | Hopper: warpgroup products, tensor copies | 128 × 128, 256 |
//! | `a7_specialised` | one thread asks for tiles, two warpgroups multiply | 128 × 128, 384 |
//! | `a8_ping_pong` | the two take turns: one multiplies while the other is at its softmax | 128 × 128, 384 |
//! | `a9_overlapped` | a warpgroup's softmax runs while its values are multiplied | 128 × 128, 384 |
//! | `a10_persistent` | one block per multiprocessor takes pieces of work, the longest first | 128 × 128, 384 |
//! | `a11_hidden_ends` | results leave in the background, the next queries come early; heads in sections that fit the L2 cache | 128 × 128, 384 |
//!
//! Decoding: `d0_unsplit`, `d1_split_kv`, `d2_paged`, and on tensor cores `d3_packed_heads`. Layouts: q and out `[batch, q_len, heads, dim]`, k and v
//! `[batch, kv_len, kv_heads, dim]` for the ladder; caches as [`KvView`] says for decoding and prefill.

mod bench;
mod cache;
mod decode;
mod decode_bench;
mod forward;
mod heads;
mod oracle;
mod packed;
mod prefill;
mod steps;

pub use bench::forward_bench;
pub use cache::{KvView, Rows, Stored};
pub use decode::{DecodeShape, DecodeWorkspace, decode, splits};
pub use decode_bench::decode_bench;
pub use forward::{ForwardShape, ForwardTensors, forward, rungs, scratch_len};
pub use heads::Heads;
pub use packed::{PackedShape, Sees, packed, packs};
pub use prefill::{PrefillShape, prefill};

use crate::KernelSpec;

/// Every kernel of this folder with every constant it is launched with.
pub fn kernels() -> Vec<KernelSpec> {
    let mut all = decode::kernels();
    all.extend(forward::kernels());
    all.extend(packed::kernels());
    all.extend(prefill::kernels());
    all
}
