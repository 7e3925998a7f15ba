//! What: the driver of the f32-accumulating linears: y\[rows, n\] = x\[rows, k\] · Wᵀ for any packed weight format.
//! Source: blocking as in Goto and van de Geijn (2008); the small-row path is a plain panel walk.
//! Shapes: x and y row-major f32, W in panels of 16 output rows (see `panels`).
//! Method: 1. few rows (≤ 6 or 8): each panel is streamed once over the whole k by one register tile, decoding weights
//! in registers; 2. more rows: for each block of 96 rows, A is packed for a stretch of columns (as many as stay in the
//! cache), and W is walked straight through it: each panel block of 256 columns (16 KiB, decoded to f32 once) stays in
//! L1 while all row tiles pass over it, their sums in a small buffer. 3. Tasks are row blocks × ranges of panels.
//! Exactness: one FMA chain over k per output on both paths (see `tile`), partial sums kept in f32: bit-identical
//! for any row count, thread count and blocking.
//! Cost: 2·rows·n·k FLOPs; few rows: bytes(W) once. More rows: bytes(W) once per row block.
//! Not handled: transposed x, accumulation into y.

use super::codes::BLOCK;
use super::panels::n_panels;
use super::tile::{Decoded, F32Columns, Next, Tile, max_panels, max_rows, panels_step, run_tile, tile_rows};
use crate::cpu::{Cpu, SendPtr};
use crate::scratch;
use crate::simd::{Kernel, LANES, Simd, run};
use std::ops::Range;

/// Columns of one k block: 16 × 256 f32 weights are 16 KiB.
const KC: usize = 256;
/// Rows of one row block: what shares a decoded panel block.
const MC: usize = 96;
/// Activations packed at a time, 512 KiB: about half a second-level cache.
const A_VALUES: usize = 128 * 1024;

/// f32 weights of one or two panels over a k block.
pub(crate) type Columns16 = F32Columns<LANES>;

/// A weight format that the driver can run.
pub(crate) trait Weights: Sync {
    /// Output rows.
    fn n(&self) -> usize;
    /// Columns, padding included: what one row of x must hold.
    fn k(&self) -> usize;
    /// Bytes of one full read.
    fn bytes(&self) -> usize;
    /// Few rows: C\[rows, 16·panels\] over the whole k, straight from storage. `rows` is a tile size.
    ///
    /// # Safety
    /// As [`run_tile`], for panels `first .. first + panels` of this weight.
    unsafe fn stream<S: Simd>(&self, s: S, rows: usize, first: usize, panels: usize, t: Tile<()>);
    /// Panels `first .. first + panels`, columns `ks`, as f32: where they lie, or decoded into `buffer`
    /// (`panels · ks.len() · 16` values).
    fn decode<S: Simd>(&self, s: S, first: usize, panels: usize, ks: Range<usize>, buffer: &mut [f32]) -> Columns16;
    /// Where column `k` of panel `panel` is stored; the panel may be one past the last.
    fn stored_at(&self, panel: usize, k: usize) -> *const u8;
}

/// y = x · Wᵀ; `x` is `[rows, w.k()]`, `y` `[rows, w.n()]`.
pub(crate) fn linear<W: Weights>(cpu: &Cpu, w: &W, x: &[f32], rows: usize, y: &mut [f32]) {
    assert_eq!(x.len(), rows * w.k(), "x must hold rows × k values");
    assert_eq!(y.len(), rows * w.n(), "y must hold rows × n values");
    if rows == 0 || w.n() == 0 {
        return;
    }
    let wide = cpu.isa() == crate::Isa::Avx512;
    let few = tile_rows(wide, rows) == rows && rows <= 8;
    let panels = n_panels(w.n());
    let lane_cycles = rows * panels * w.k() / if wide { 2 } else { 1 };
    let cycles = lane_cycles.max(w.bytes() / 16);
    let row_blocks = if few { 1 } else { rows.div_ceil(MC) };
    // Few rows: four ranges per thread, so that a thread that starts late costs little. Many: enough tasks to go round.
    let ranges = if few {
        4 * cpu.threads()
    } else if row_blocks >= 4 * cpu.threads() {
        1
    } else {
        cpu.threads() * if row_blocks == 1 { 2 } else { 1 }
    };
    let per_range = panels.div_ceil(ranges).next_multiple_of(if few { 4 } else { 2 });
    let ranges = panels.div_ceil(per_range);
    let out = SendPtr(y.as_mut_ptr());
    let task = |i: usize| {
        let (range, block) = (i / row_blocks, i % row_blocks);
        let panels = range * per_range..((range + 1) * per_range).min(panels);
        let rows = if few { 0..rows } else { block * MC..((block + 1) * MC).min(rows) };
        run(cpu, Task { w, x, y: out, rows, panels, few });
    };
    cpu.parallel_if_worth(cycles, ranges * row_blocks, &task);
}

struct Task<'a, W> {
    w: &'a W,
    x: &'a [f32],
    y: SendPtr<f32>,
    rows: Range<usize>,
    panels: Range<usize>,
    few: bool,
}

impl<W: Weights> Kernel for Task<'_, W> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        if self.few { self.stream(s) } else { self.blocked(s) }
    }
}

impl<W: Weights> Task<'_, W> {
    /// C's tile at `row` and panel `panel`, without operands.
    #[inline(always)]
    fn tile_at(&self, row: usize, panel: usize) -> Tile<()> {
        let n = self.w.n();
        Tile {
            kk: self.w.k(),
            a: self.x.as_ptr().wrapping_add(row * self.w.k()),
            a_stride: self.w.k(),
            columns: (),
            c: self.y.get().wrapping_add(row * n + panel * LANES),
            c_stride: n,
            n_cols: n - panel * LANES,
            fresh: true,
        }
    }

    #[inline(always)]
    fn stream<S: Simd>(&self, s: S) {
        let rows = self.rows.len();
        let mut panel = self.panels.start;
        while panel < self.panels.end {
            let step = panels_step(self.panels.end - panel, max_panels(S::WIDE, rows));
            // SAFETY: x and y hold `rows` rows (asserted), the panels are this task's own columns of y.
            unsafe { self.w.stream(s, rows, panel, step, self.tile_at(0, panel)) };
            panel += step;
        }
    }

    #[inline(always)]
    fn blocked<S: Simd>(&self, s: S) {
        let pair = max_panels(S::WIDE, max_rows(S::WIDE));
        let (n, k, rows) = (self.w.n(), self.w.k(), self.rows.len());
        let stretch = (A_VALUES / rows / KC * KC).clamp(KC, k.max(KC));
        let mut a = scratch::take(rows * stretch);
        let mut b = scratch::take(pair * KC * LANES);
        let mut c = scratch::take(rows * pair * LANES);
        // One empty stretch where k is 0, so that y is still written.
        for start in (0..k.max(1)).step_by(stretch) {
            let packed = start..(start + stretch).min(k);
            self.pack_rows::<S>(&packed, &mut a);
            let mut panel = self.panels.start;
            while panel < self.panels.end {
                let step = panels_step(self.panels.end - panel, pair);
                let width = step * LANES;
                let n_cols = width.min(n - panel * LANES);
                // SAFETY: this task's rows and columns of y, inside it (asserted by `linear`).
                let y_row = |r: usize| unsafe {
                    let first = self.y.get().add((self.rows.start + r) * n + panel * LANES);
                    std::slice::from_raw_parts_mut(first, n_cols)
                };
                for (r, c) in c[..rows * width].chunks_exact_mut(width).enumerate() {
                    c.fill(0.0);
                    if start > 0 {
                        c[..n_cols].copy_from_slice(y_row(r));
                    }
                }
                for k0 in packed.clone().step_by(KC) {
                    let ks = k0..(k0 + KC).min(packed.end);
                    let F32Columns { base, panel_stride } = self.w.decode(s, panel, step, ks.clone(), &mut b);
                    let next = if ks.end < packed.end { (panel, ks.end) } else { (panel + step, packed.start) };
                    let next = Next {
                        base: self.w.stored_at(next.0, next.1),
                        panel_bytes: (self.w.stored_at(1, 0) as usize) - (self.w.stored_at(0, 0) as usize),
                        per_k: (self.w.stored_at(0, BLOCK) as usize - self.w.stored_at(0, 0) as usize) / BLOCK,
                    };
                    self.row_tiles(s, step, &packed, ks, &a, Decoded { base, panel_stride, next }, &mut c);
                }
                for (r, c) in c.chunks_exact(width).take(rows).enumerate() {
                    y_row(r).copy_from_slice(&c[..n_cols]);
                }
                panel += step;
            }
        }
    }

    /// All row tiles over `panels` decoded panels and the columns `ks` of the stretch `packed` in `a`.
    #[inline(always)]
    fn row_tiles<S: Simd>(
        &self,
        s: S,
        panels: usize,
        packed: &Range<usize>,
        ks: Range<usize>,
        a: &[f32],
        columns: Decoded,
        c: &mut [f32],
    ) {
        let (rows, width) = (self.rows.len(), panels * LANES);
        let mut columns = columns;
        let mut row = 0;
        while row < rows {
            let mr = tile_rows(S::WIDE, rows - row);
            let a = &a[row * packed.len() + (ks.start - packed.start) * mr..][..mr * ks.len()];
            let c = &mut c[row * width..][..mr * width];
            let tile = Tile {
                kk: ks.len(),
                a: a.as_ptr(),
                a_stride: 0,
                columns,
                c: c.as_mut_ptr(),
                c_stride: width,
                n_cols: width,
                fresh: false,
            };
            // SAFETY: A was packed for these rows, `columns` covers `panels` panels of this k block, c is sliced to size.
            unsafe { run_tile::<S, _, true>(s, mr, panels, tile) };
            // The first tile has asked for all of it; the others point at one line that is there.
            columns.next = Next { base: columns.base.cast(), panel_bytes: 0, per_k: 0 };
            row += mr;
        }
    }

    /// Step 2's packing: each row tile as `[k][mr]`, tiles one after the other.
    #[inline(always)]
    fn pack_rows<S: Simd>(&self, ks: &Range<usize>, a: &mut [f32]) {
        let k = self.w.k();
        let mut row = 0;
        while row < self.rows.len() {
            let mr = tile_rows(S::WIDE, self.rows.len() - row);
            let out = &mut a[row * ks.len()..][..mr * ks.len()];
            for r in 0..mr {
                let source = &self.x[(self.rows.start + row + r) * k..][ks.clone()];
                for (slot, &value) in out[r..].iter_mut().step_by(mr).zip(source) {
                    *slot = value;
                }
            }
            row += mr;
        }
    }
}
