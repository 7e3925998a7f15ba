//! What: the driver of the f32-accumulating linears: y\[rows, n\] = x\[rows, k\] · Wᵀ for any packed weight format.
//! Source: blocking as in Goto and van de Geijn (2008); the small-row path is a plain panel walk.
//! Shapes: x and y row-major f32, W in panels of 16 output rows (see `panels`).
//! Method: 1. few rows (≤ 6 or 8): each panel is streamed once over the whole k by one register tile, decoding weights
//! in registers; 2. more rows: for each block of 192 rows and 256 columns, A is packed, each panel block (16 KiB,
//! decoded to f32 once) stays in L1 while all row tiles pass over it. 3. Tasks are row blocks × ranges of panels.
//! Exactness: one FMA chain over k per output on both paths (see `tile`), partial sums kept in f32 in y: bit-identical
//! for any row count, thread count and blocking.
//! Cost: 2·rows·n·k FLOPs; few rows: bytes(W) once. More rows: bytes(W) once per row block.
//! Not handled: transposed x, accumulation into y.

use super::panels::n_panels;
use super::tile::{F32Columns, Tile, max_panels, max_rows, panels_step, run_tile, tile_rows};
use crate::cpu::{Cpu, SendPtr};
use crate::scratch;
use crate::simd::{Kernel, LANES, Simd, run};
use std::ops::Range;

/// Columns of one k block: 16 × 256 f32 weights are 16 KiB.
const KC: usize = 256;
/// Rows of one row block: 192 × 256 f32 activations are 192 KiB.
const MC: usize = 192;

/// Decoded f32 weights of one or two panels over a k block.
pub(crate) type Decoded = F32Columns<LANES>;

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
    fn decode<S: Simd>(&self, s: S, first: usize, panels: usize, ks: Range<usize>, buffer: &mut [f32]) -> Decoded;
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
        let mut a = scratch::take(self.rows.len() * KC);
        let mut b = scratch::take(pair * KC * LANES);
        for k0 in (0..self.w.k()).step_by(KC) {
            let ks = k0..(k0 + KC).min(self.w.k());
            self.pack_rows::<S>(&ks, &mut a);
            let mut panel = self.panels.start;
            while panel < self.panels.end {
                let step = panels_step(self.panels.end - panel, pair);
                let columns = self.w.decode(s, panel, step, ks.clone(), &mut b);
                let mut row = 0;
                while row < self.rows.len() {
                    let mr = tile_rows(S::WIDE, self.rows.len() - row);
                    let tile = self.tile_at(self.rows.start + row, panel);
                    let a = &a[row * ks.len()..];
                    let tile = Tile {
                        kk: ks.len(),
                        a: a.as_ptr(),
                        a_stride: 0,
                        columns,
                        c: tile.c,
                        c_stride: tile.c_stride,
                        n_cols: tile.n_cols,
                        fresh: k0 == 0,
                    };
                    // SAFETY: A was packed for these rows, `columns` covers `step` panels of this k block, and rows ×
                    // panels of y belong to this task alone.
                    unsafe { run_tile::<S, _, true>(s, mr, step, tile) };
                    row += mr;
                }
                panel += step;
            }
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
