//! What: rotary positions on rows of heads, in place; and the same in one pass with the cut of q, k, v and the cache append.
//! Source: Su et al. 2021, arXiv:2104.09864, eq. 34; angles come as tables, so every scaling of them is the host's.
//! Shapes: x `[rows, heads·head_dim]`; cos, sin `[rows, dim/2]`; qkv `[rows, (heads + 2·kv_heads)·head_dim]`; cache as in
//!   [`CacheLayout`].
//! Method: a thread turns one pair (in place), or makes one feature of q, k or v (fused) from the two it depends on.
//! Exactness: two products and a sum in f32 per feature; fused and unfused agree but for contraction into FMA.
//! Cost: 3 FLOPs per feature; fused, each value is read once and written once (separately: three times).
//! Not handled: angles that differ between heads.

use super::{CacheLayout, Places, STORED, Stored, require, spread, threads};
use crate::{Arg, Buffer, GpuError, KernelSpec, LaunchShape, Source};

static SOURCE: Source = Source { name: "rows/rope.cu", text: include_str!("rope.cu") };

/// Which features of a head turn, and by how much.
#[derive(Debug, Clone, Copy)]
pub struct Turn<'a> {
    /// Leading features that turn; even; 0: none.
    pub dim: usize,
    /// Pairs are `(2i, 2i + 1)` instead of `(i, i + dim/2)`.
    pub interleaved: bool,
    /// Cosines `[rows, dim/2]`.
    pub cos: &'a Buffer<f32>,
    /// Sines `[rows, dim/2]`.
    pub sin: &'a Buffer<f32>,
}

fn kernel(entry: &'static str, stored: &str) -> KernelSpec {
    KernelSpec::new(&SOURCE, entry).define("STORED", stored)
}

pub(super) fn kernels() -> Vec<KernelSpec> {
    vec![kernel("rope", STORED[0]), kernel("rope_append", STORED[0]), kernel("rope_append", STORED[1])]
}

impl Turn<'_> {
    fn check(&self, kernel: &'static str, rows: usize, head_dim: usize) -> Result<(), GpuError> {
        let angles = rows * self.dim / 2;
        let fits =
            self.dim.is_multiple_of(2) && self.dim <= head_dim && self.cos.len() >= angles && self.sin.len() >= angles;
        require(kernel, fits, || format!("{rows} rows of heads of {head_dim}, {self:?}"))
    }
}

/// Turns the leading features of every head of `x [rows, heads·head_dim]`.
pub fn rope(turn: &Turn<'_>, [rows, heads, head_dim]: [usize; 3], x: &Buffer<f32>) -> Result<(), GpuError> {
    turn.check("rope", rows, head_dim)?;
    require("rope", x.len() >= rows * heads * head_dim, || format!("{rows} rows of {heads} heads in {x:?}"))?;
    let [rows_arg, heads_arg, head_dim] = [rows, heads, head_dim].map(|n| Arg::I32(n as i32));
    let [dim, interleaved] = [turn.dim, usize::from(turn.interleaved)].map(|n| Arg::I32(n as i32));
    let args = [turn.cos.arg(), turn.sin.arg(), rows_arg, heads_arg, head_dim, dim, interleaved, x.arg()];
    // SAFETY: lengths are checked above.
    unsafe { x.gpu().launch(&kernel("rope", STORED[0]), spread(rows * heads * turn.dim / 2, 1), &args) }
}

/// `qkv` → `q [rows, heads·head_dim]`, turned; its keys, turned, and its values go to their places in `keys`, `values`.
pub fn rope_append(
    qkv: &Buffer<f32>,
    turn: &Turn<'_>,
    places: Places<'_>,
    heads: usize,
    layout: CacheLayout,
    q: &Buffer<f32>,
    [keys, values]: [Stored<'_>; 2],
) -> Result<(), GpuError> {
    let (rows, head_dim) = (places.rows, layout.dim);
    turn.check("rope_append", rows, head_dim)?;
    places.check("rope_append")?;
    let width = (heads + 2 * layout.heads) * head_dim;
    let fits = qkv.len() >= rows * width && q.len() >= rows * heads * head_dim;
    require("rope_append", fits, || format!("{rows} rows of {width} from {qkv:?} to {q:?}"))?;
    let [k, v] = [layout.check("rope_append", keys)?, layout.check("rope_append", values)?];
    require("rope_append", keys.name() == values.name(), || "keys and values are stored differently".into())?;
    let numbers = [heads, layout.heads, head_dim, turn.dim, usize::from(turn.interleaved), layout.capacity];
    let [heads, kv_heads, head_dim, dim, interleaved, capacity] = numbers.map(|n| Arg::I32(n as i32));
    let [slots, entries] = places.args();
    let args = [
        qkv.arg(),
        turn.cos.arg(),
        turn.sin.arg(),
        slots,
        entries,
        heads,
        kv_heads,
        head_dim,
        dim,
        interleaved,
        capacity,
        q.arg(),
        k,
        v,
    ];
    let shape = LaunchShape::line(rows, threads(width, 1));
    // SAFETY: lengths are checked above; the caller vouches that places lie in the cache.
    unsafe { q.gpu().launch(&kernel("rope_append", keys.name()), shape, &args) }
}
