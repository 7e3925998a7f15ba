//! What: keys or values of a Step's rows, written to their places in a cache of fixed slots.
//! Source: none; a scatter.
//! Shapes: x `[rows, heads·dim]`; cache `[slots, heads, capacity, dim]` in f32 or f16.
//! Method: one block per row; neighbouring threads take neighbouring features.
//! Exactness: bit-equal in f32; f16 to nearest even, finite values beyond ±65504 held there.
//! Cost: one read, one write.
//! Not handled: scales beside codes.

use super::{STORED, Stored, require, threads};
use crate::{Arg, Buffer, GpuError, KernelSpec, LaunchShape, Source};

static SOURCE: Source = Source { name: "rows/cache.cu", text: include_str!("cache.cu") };

/// A cache of keys or of values of one layer: `[slots, heads, capacity, dim]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLayout {
    /// Sequences that fit.
    pub slots: usize,
    /// Heads.
    pub heads: usize,
    /// Entries that a sequence may have.
    pub capacity: usize,
    /// Features of a head.
    pub dim: usize,
}

impl CacheLayout {
    /// Values of the whole cache.
    pub fn values(&self) -> usize {
        self.slots * self.heads * self.capacity * self.dim
    }

    pub(super) fn check(&self, kernel: &'static str, cache: Stored<'_>) -> Result<Arg<'static>, GpuError> {
        let fits = cache.len() >= self.values() && !matches!(cache, Stored::Bf16(_));
        require(kernel, fits, || format!("{self:?} in f32 or f16 does not lie in {cache:?}"))?;
        Ok(cache.arg())
    }
}

/// Where the rows of a Step lie in the cache.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// Rows of the Step.
    pub rows: usize,
    /// Slot of each row's sequence.
    pub slots: &'a Buffer<i32>,
    /// Entry of each row in its sequence; it sees this one and those before.
    pub entries: &'a Buffer<i32>,
}

impl Places<'_> {
    pub(super) fn check(&self, kernel: &'static str) -> Result<(), GpuError> {
        let fits = self.slots.len() >= self.rows && self.entries.len() >= self.rows;
        require(kernel, fits, || format!("{self:?}"))
    }

    pub(super) fn args(&self) -> [Arg<'static>; 2] {
        [self.slots.arg(), self.entries.arg()]
    }
}

fn kernel(stored: &str) -> KernelSpec {
    KernelSpec::new(&SOURCE, "cache_append").define("STORED", stored)
}

pub(super) fn kernels() -> Vec<KernelSpec> {
    vec![kernel(STORED[0]), kernel(STORED[1])]
}

/// Rows of `x [rows, heads·dim]` to their places in `cache`.
pub fn cache_append(
    x: &Buffer<f32>,
    places: Places<'_>,
    layout: CacheLayout,
    cache: Stored<'_>,
) -> Result<(), GpuError> {
    places.check("cache_append")?;
    let width = layout.heads * layout.dim;
    require("cache_append", x.len() >= places.rows * width, || format!("{} rows of {width} in {x:?}", places.rows))?;
    let to = layout.check("cache_append", cache)?;
    let [heads, dim, capacity] = [layout.heads, layout.dim, layout.capacity].map(|n| Arg::I32(n as i32));
    let [slots, entries] = places.args();
    let args = [x.arg(), slots, entries, heads, dim, capacity, to];
    let shape = LaunchShape::line(places.rows, threads(width, 1));
    // SAFETY: lengths are checked above; the caller vouches that places lie in the cache.
    unsafe { x.gpu().launch(&kernel(cache.name()), shape, &args) }
}
