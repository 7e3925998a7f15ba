//! What: the register tile of every f32-accumulating matmul: C\[MR, 16·P\] (+)= A\[MR, kk\] · B\[kk, 16·P\].
//! Source: the micro-kernel of Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008), §5.
//! Shapes: A by rows or packed \[kk, MR\]; B as P column panels of 16; C row-major, the last panel may be cut.
//! Method: 1. load C or zero MR × P vectors; 2. for each k: broadcast MR values of A, load P vectors of B, MR·P FMAs;
//! 3. store.
//! Exactness: each output is one chain of FMAs over k in ascending order, whatever MR, P, and the cut of k into calls:
//! this is where row-count invariance comes from. Independent chains hide the FMA latency.
//! Cost: 2·MR·16·P FLOPs per k for MR broadcasts and P vector loads.
//! Not handled: shapes; callers cut them.

use crate::simd::{Kernel, LANES, Simd};

/// Where vectors of 16 weights come from.
pub(crate) trait Columns: Copy {
    /// The 16 weights of panel `p`, input `k`.
    ///
    /// # Safety
    /// `p` and `k` must lie inside the storage this was made from.
    unsafe fn load<S: Simd>(self, s: S, p: usize, k: usize) -> S::V;
    /// The address to prefetch while vector k of panel `p` out of `panels` is in use, if there is one worth it.
    fn ahead(self, p: usize, k: usize, panels: usize) -> Option<*const u8> {
        let _ = (p, k, panels);
        None
    }
}

/// Bytes of weights to ask for ahead of use, over all panels of a tile: a few times bandwidth × memory latency, because the
/// hardware's own prefetching stops at every 4 KiB page and at every end of a panel.
pub(crate) const AHEAD: usize = 8192;

/// Where the weights lie that are wanted [`AHEAD`] bytes after `here`, byte `at` of one of `panels` neighbouring panels of
/// `panel_bytes` each that are walked side by side: in the same panel, or towards its end in the one that follows them all.
#[inline(always)]
pub(crate) fn further(here: *const u8, at: usize, panel_bytes: usize, panels: usize) -> *const u8 {
    let lead = AHEAD / panels;
    let skip = if at + lead < panel_bytes { 0 } else { (panels - 1) * panel_bytes };
    here.wrapping_add(lead + skip)
}

/// f32 panels: vector k of panel p starts at `base + p·panel_stride + k·k_stride`.
#[derive(Clone, Copy)]
pub(crate) struct F32Columns<const K_STRIDE: usize> {
    pub(crate) base: *const f32,
    pub(crate) panel_stride: usize,
}

impl<const K_STRIDE: usize> Columns for F32Columns<K_STRIDE> {
    #[inline(always)]
    unsafe fn load<S: Simd>(self, s: S, p: usize, k: usize) -> S::V {
        // SAFETY: the caller vouches for p and k.
        unsafe { s.load(self.base.add(p * self.panel_stride + k * K_STRIDE)) }
    }
}

/// Decoded f32 panels in the cache, `panel_stride` values apart, with the stored bytes that will be wanted next.
#[derive(Clone, Copy)]
pub(crate) struct Decoded {
    pub(crate) base: *const f32,
    pub(crate) panel_stride: usize,
    pub(crate) next: Next,
}

/// Stored weights to prefetch while a tile runs: `per_k` bytes per k from `base`, per panel `panel_bytes` apart.
#[derive(Clone, Copy)]
pub(crate) struct Next {
    pub(crate) base: *const u8,
    pub(crate) panel_bytes: usize,
    pub(crate) per_k: usize,
}

impl Columns for Decoded {
    #[inline(always)]
    unsafe fn load<S: Simd>(self, s: S, p: usize, k: usize) -> S::V {
        // SAFETY: the caller vouches for p and k.
        unsafe { s.load(self.base.add(p * self.panel_stride + k * LANES)) }
    }
    #[inline(always)]
    fn ahead(self, p: usize, k: usize, _: usize) -> Option<*const u8> {
        Some(self.next.base.wrapping_add(p * self.next.panel_bytes + k * self.next.per_k))
    }
}

/// A number format of stored weights that widens to f32 exactly.
pub(crate) trait Stored: Copy + Default + Send + Sync + 'static {
    /// 16 of them, widened.
    ///
    /// # Safety
    /// `p` must be readable for 16 elements.
    unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::V;
}

impl Stored for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const f32) -> S::V {
        // SAFETY: the caller vouches for p.
        unsafe { s.load(p) }
    }
}

impl Stored for half::f16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const half::f16) -> S::V {
        // SAFETY: the caller vouches for p; an f16 is its bit pattern.
        unsafe { s.load_f16(p.cast()) }
    }
}

impl Stored for half::bf16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, p: *const half::bf16) -> S::V {
        // SAFETY: the caller vouches for p; a bf16 is its bit pattern.
        unsafe { s.load_bf16(p.cast()) }
    }
}

/// Packed panels that are read once, one after the other, `panel_stride` elements each.
#[derive(Clone, Copy)]
pub(crate) struct Streamed<E> {
    pub(crate) base: *const E,
    pub(crate) panel_stride: usize,
}

impl<E: Stored> Columns for Streamed<E> {
    #[inline(always)]
    unsafe fn load<S: Simd>(self, s: S, p: usize, k: usize) -> S::V {
        // SAFETY: the caller vouches for p and k.
        unsafe { E::load(s, self.base.add(p * self.panel_stride + k * LANES)) }
    }
    #[inline(always)]
    fn ahead(self, p: usize, k: usize, panels: usize) -> Option<*const u8> {
        let here = self.base.wrapping_add(p * self.panel_stride + k * LANES);
        Some(further(here.cast(), k * LANES * size_of::<E>(), self.panel_stride * size_of::<E>(), panels))
    }
}

/// A row-major f32 matrix read as column panels: vector k of panel p starts at `base + k·row_stride + 16·p`.
#[derive(Clone, Copy)]
pub(crate) struct RowMajor {
    pub(crate) base: *const f32,
    pub(crate) row_stride: usize,
}

impl Columns for RowMajor {
    #[inline(always)]
    unsafe fn load<S: Simd>(self, s: S, p: usize, k: usize) -> S::V {
        // SAFETY: the caller vouches for p and k.
        unsafe { s.load(self.base.add(k * self.row_stride + p * LANES)) }
    }
}

/// [`RowMajor`] rows that are read once, from memory: asks for those `ahead` values further on.
#[derive(Clone, Copy)]
pub(crate) struct RowStream {
    pub(crate) rows: RowMajor,
    pub(crate) ahead: usize,
}

impl Columns for RowStream {
    #[inline(always)]
    unsafe fn load<S: Simd>(self, s: S, p: usize, k: usize) -> S::V {
        // SAFETY: the caller vouches for p and k.
        unsafe { self.rows.load(s, p, k) }
    }
    #[inline(always)]
    fn ahead(self, p: usize, k: usize, _: usize) -> Option<*const u8> {
        Some(self.rows.base.wrapping_add(k * self.rows.row_stride + p * LANES + self.ahead).cast())
    }
}

/// One tile's operands; sizes in elements.
#[derive(Clone, Copy)]
pub(crate) struct Tile<C> {
    /// Length of the reduction.
    pub(crate) kk: usize,
    /// First value of A; packed \[kk, MR\], or rows `a_stride` apart.
    pub(crate) a: *const f32,
    /// Distance of A's rows where A is not packed.
    pub(crate) a_stride: usize,
    /// The weights.
    pub(crate) columns: C,
    /// First value of C.
    pub(crate) c: *mut f32,
    /// Distance of C's rows.
    pub(crate) c_stride: usize,
    /// Columns of C that exist, at most 16·P.
    pub(crate) n_cols: usize,
    /// Start from zero instead of from C.
    pub(crate) fresh: bool,
}

struct Call<C, const MR: usize, const P: usize, const PACKED: bool>(Tile<C>);

impl<C: Columns, const MR: usize, const P: usize, const PACKED: bool> Kernel for Call<C, MR, P, PACKED> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let t = self.0;
        let full = t.n_cols >= P * LANES;
        let mut acc = [[s.splat(0.0); P]; MR];
        // SAFETY: `run_tile`'s caller vouches for A, B and C at these extents; cut columns of the last panel are read and
        // written through `load_first` and `store_first` only.
        unsafe {
            if !t.fresh {
                for r in 0..MR {
                    for p in 0..P {
                        let c = t.c.add(r * t.c_stride + p * LANES);
                        let here = t.n_cols.saturating_sub(p * LANES).min(LANES);
                        acc[r][p] = if full { s.load(c) } else { s.load_first(c, here, 0.0) };
                    }
                }
            }
            for k in 0..t.kk {
                let mut b = [s.splat(0.0); P];
                for p in 0..P {
                    b[p] = t.columns.load(s, p, k);
                    if let Some(address) = t.columns.ahead(p, k, P) {
                        s.prefetch(address);
                    }
                }
                for r in 0..MR {
                    let a = s.splat(if PACKED { *t.a.add(k * MR + r) } else { *t.a.add(r * t.a_stride + k) });
                    for p in 0..P {
                        acc[r][p] = s.fma(a, b[p], acc[r][p]);
                    }
                }
            }
            for r in 0..MR {
                for p in 0..P {
                    let c = t.c.add(r * t.c_stride + p * LANES);
                    let here = t.n_cols.saturating_sub(p * LANES).min(LANES);
                    if full { s.store(c, acc[r][p]) } else { s.store_first(c, here, acc[r][p]) }
                }
            }
        }
    }
}

/// Most rows of one tile.
pub(crate) const fn max_rows(wide: bool) -> usize {
    if wide { 12 } else { 6 }
}

/// Most panels that `rows` rows leave registers for; `rows` is one of [`tile_rows`].
pub(crate) const fn max_panels(wide: bool, rows: usize) -> usize {
    match (wide, rows) {
        (true, 1..=4) | (false, 1) => 4,
        (true, _) | (false, 2 | 3) => 2,
        (false, _) => 1,
    }
}

/// Rows of the next tile when `left` rows remain: the largest size there is a kernel for.
pub(crate) const fn tile_rows(wide: bool, left: usize) -> usize {
    match (wide, left) {
        (true, 12..) => 12,
        (true, 8..) => 8,
        (false, 6..) => 6,
        _ => left,
    }
}

/// Runs one tile of `rows` rows and `panels` panels.
///
/// # Safety
/// A, B and C must be valid for `rows` rows, `panels` panels and `t.kk`, C exclusively; `rows` must come from
/// [`tile_rows`] and `panels` be 1, 2 or 4 and at most [`max_panels`].
#[inline(always)]
pub(crate) unsafe fn run_tile<S: Simd, C: Columns, const PACKED: bool>(s: S, rows: usize, panels: usize, t: Tile<C>) {
    macro_rules! pick {
        ($(($m:literal, $p:literal))*) => {
            match (rows, panels) {
                $(($m, $p) => s.vectorize(Call::<C, $m, $p, PACKED>(t)),)*
                _ => unreachable!("no {rows} × {panels} tile"),
            }
        };
    }
    if PACKED && S::WIDE {
        pick!((1, 2)(2, 2)(3, 2)(4, 2)(5, 2)(6, 2)(7, 2)(8, 2)(12, 2)(1, 1)(2, 1)(3, 1)(4, 1)(5, 1)(6, 1)(7, 1)(8, 1)(
            12, 1
        ));
    } else if PACKED {
        pick!((1, 1)(2, 1)(3, 1)(4, 1)(5, 1)(6, 1));
    } else if S::WIDE {
        pick!((1, 4)(2, 4)(3, 4)(4, 4)(1, 2)(2, 2)(3, 2)(4, 2)(5, 2)(6, 2)(7, 2)(8, 2)(12, 2)(1, 1)(2, 1)(3, 1)(4, 1)(
            5, 1
        )(6, 1)(7, 1)(8, 1)(12, 1));
    } else {
        pick!((1, 4)(1, 2)(2, 2)(3, 2)(1, 1)(2, 1)(3, 1)(4, 1)(5, 1)(6, 1));
    }
}

/// The next count of panels to take when `left` remain and at most `max` (1, 2 or 4) fit.
pub(crate) const fn panels_step(left: usize, max: usize) -> usize {
    if left >= 4 && max >= 4 {
        4
    } else if left >= 2 && max >= 2 {
        2
    } else {
        1
    }
}

impl Tile<()> {
    /// The same tile over `columns`.
    #[inline(always)]
    pub(crate) fn with<C>(self, columns: C) -> Tile<C> {
        let Tile { kk, a, a_stride, columns: (), c, c_stride, n_cols, fresh } = self;
        Tile { kk, a, a_stride, columns, c, c_stride, n_cols, fresh }
    }
}
