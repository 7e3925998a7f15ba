//! What: causal attention of single rows over the cache in every shape: windows, caps, any grouping, head widths up to 256.
//! Source: Vaswani et al. 2017, eq. 1; Milakov and Gimelshein 2018, arXiv:1805.02867, for the running softmax.
//! Shapes: q `[rows, heads·key_dim]`; keys, values as [`CacheLayout`] in f32 or f16; out `[rows, heads·value_dim]`.
//! Method: one warp per row and query head; per 32 keys: 1. a lane scores one key; 2. the warp's maximum and weights; 3. lanes
//!   mix values feature by feature.
//! Exactness: 1e-5 of the largest |out| against f64 (f32 cache); a row's bits depend on its own keys alone.
//! Cost: 2·(key_dim + value_dim) FLOPs per key and head; every query head reads its keys for itself.
//! Not handled: trees, other visibility; speed, which `attention` is for.

use super::{CacheLayout, Places, STORED, Stored, require};
use crate::{Arg, Buffer, GpuError, KernelSpec, LaunchShape, Source};

static SOURCE: Source = Source { name: "rows/attend.cu", text: include_str!("attend.cu") };

/// Widest value head, in warps of features.
const MOST_FEATURES: usize = 8;

/// How the heads of a layer score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heads {
    /// Query heads.
    pub n: usize,
    /// Factor on q·k.
    pub scale: f32,
    /// A row at entry p sees entries beyond `p - window`.
    pub window: Option<usize>,
    /// Scores become cap·tanh(score / cap).
    pub cap: Option<f32>,
}

fn kernel(stored: &str, features: usize) -> KernelSpec {
    KernelSpec::new(&SOURCE, "attend_rows").define("STORED", stored).define("FEATURES", features)
}

pub(super) fn kernels() -> Vec<KernelSpec> {
    [1, 2, 4, MOST_FEATURES].into_iter().flat_map(|f| [kernel(STORED[0], f), kernel(STORED[1], f)]).collect()
}

/// Attention of each row of `q` over its sequence's entries up to its own.
pub fn attend_rows(
    q: &Buffer<f32>,
    places: Places<'_>,
    heads: Heads,
    keys: (CacheLayout, Stored<'_>),
    values: (CacheLayout, Stored<'_>),
    out: &Buffer<f32>,
) -> Result<(), GpuError> {
    places.check("attend_rows")?;
    let ((k, key_cache), (v, value_cache)) = (keys, values);
    let groups = k.heads.max(v.heads);
    let features = v.dim.div_ceil(32).next_power_of_two();
    let fits = q.len() >= places.rows * heads.n * k.dim && out.len() >= places.rows * heads.n * v.dim;
    let divides = heads.n.is_multiple_of(groups)
        && groups.is_multiple_of(k.heads)
        && groups.is_multiple_of(v.heads)
        && k.capacity == v.capacity;
    let small = features <= MOST_FEATURES && k.dim * 4 <= 48 << 10;
    require("attend_rows", fits && divides && small, || format!("{heads:?} on {k:?} and {v:?}, {q:?} to {out:?}"))?;
    require("attend_rows", key_cache.name() == value_cache.name(), || "keys and values are stored differently".into())?;
    let [k_arg, v_arg] = [k.check("attend_rows", key_cache)?, v.check("attend_rows", value_cache)?];
    let [slots, entries] = places.args();
    let numbers = [heads.n, k.heads, v.heads, k.dim, v.dim, k.capacity, heads.window.unwrap_or(0)];
    let [n, key_heads, value_heads, key_dim, value_dim, capacity, window] = numbers.map(|n| Arg::I32(n as i32));
    let [cap, scale] = [heads.cap.unwrap_or(0.0), heads.scale].map(Arg::F32);
    let args = [
        q.arg(),
        k_arg,
        v_arg,
        slots,
        entries,
        n,
        key_heads,
        value_heads,
        key_dim,
        value_dim,
        capacity,
        window,
        cap,
        scale,
        out.arg(),
    ];
    let shape = LaunchShape::grid(places.rows, heads.n, 1, 32).with_shared(k.dim * size_of::<f32>());
    // SAFETY: lengths are checked above; the caller vouches that places lie in the cache and entries were written.
    unsafe { out.gpu().launch(&kernel(key_cache.name(), features), shape, &args) }
}
