//! What: the group-quantised linear with int8 activations (2, 4 or 8-bit codes): integer dots per block of 32 columns.
//! Source: the Q4_0 · Q8_0 product of ggml (block dots of codes, scaled in f32); storage as `group_store`, by quads.
//! Shapes: x\[rows, k\] f32 → i8 `[rows, positions]`, scale and sum per row and block; y\[rows, n\] f32.
//! Method: 1. per row and block of 32 stored positions: sx = absmax/127, q = round-half-even(x·127/absmax);
//! 2. d = Σ code·q in int32 (`group_dot`); 3. y = Σ over blocks in ascending order of ((d − zero·Σq)·sw)·sx, where every
//! product and sum is rounded on its own.
//! Exactness: step 2 is exact and 1 and 3 are elementwise without fused operations: the same bits on every level, for every
//! row count and thread count. A block holding NaN or an infinity makes its row NaN; one below 1e−36 counts as zero.
//! Cost: the bytes of `group_store`; 2·rows·n·k integer operations and 4·rows·n·k/32 FLOPs.
//! Not handled: 3-bit codes (their words do not divide into bytes), asymmetric activations.

use super::group_dot::{Dot, largest_tile, panels_for, tile};
use super::group_store::{Fill, GroupCodes, GroupStore, Zeros};
use super::int8_dot::Dots;
use super::panels::n_panels;
use super::{codes::BLOCK, tile::panels_step};
use crate::cpu::{Cpu, SendPtr};
use crate::isa::Vnni;
use crate::scratch;
use crate::simd::{LANES, Simd, dispatch};
use std::ops::Range;

/// Activation codes that one task passes all its panels over, 384 KiB: they stay in a second-level cache.
const ROW_BLOCK_BYTES: usize = 384 * 1024;

/// Group-quantised weights `[n, k]` in panel order, for activations that are coded to int8 in blocks of 32.
#[derive(Debug, Clone)]
pub struct PackedGroupInt8 {
    store: GroupStore,
}

/// Step 1's result: `codes` are `[rows, positions]`, the others `[rows, blocks]`.
#[derive(Clone, Copy)]
struct Coded<'a> {
    codes: &'a [i8],
    scales: &'a [f32],
    /// −zero·Σq where all zeros are equal, else the bits of Σq in f32.
    sums: &'a [i32],
}

impl PackedGroupInt8 {
    /// Packs what a quantiser produced.
    ///
    /// # Panics
    /// On lengths that disagree with `n`, `k` and `group`, 3-bit codes, or codes of more than `bits` bits.
    pub fn from_codes(source: GroupCodes) -> Self {
        assert!(source.bits != 3, "codes of 3 bits have no int8 kernel; use 2, 4 or 8");
        Self { store: GroupStore::from_codes(source, Fill::Quads) }
    }

    /// Output features.
    pub fn n(&self) -> usize {
        self.store.n
    }

    /// Input features.
    pub fn k(&self) -> usize {
        self.store.k
    }

    /// Bits per code.
    pub fn bits(&self) -> usize {
        self.store.bits
    }

    /// Bytes that one full read streams: codes, scales and zeros, padding included.
    pub fn bytes(&self) -> usize {
        self.store.bytes()
    }

    /// The kernel that [`Self::forward`] runs on `cpu`.
    pub fn kernel_name(&self, cpu: &Cpu) -> &'static str {
        let level = match cpu.isa() {
            crate::Isa::Scalar => 0,
            crate::Isa::Avx512 if Vnni::detect().is_some() => 2,
            _ => 1,
        };
        match self.store.bits {
            2 => ["group2_int8_scalar", "group2_int8_avx2", "group2_int8_vnni"][level],
            4 => ["group4_int8_scalar", "group4_int8_avx2", "group4_int8_vnni"][level],
            _ => ["group8_int8_scalar", "group8_int8_avx2", "group8_int8_vnni"][level],
        }
    }

    /// The weights that [`Self::forward`] multiplies by, as row-major f32 `[n, k]` in input column order.
    pub fn unpack(&self) -> Vec<f32> {
        self.store.unpack()
    }

    /// x\[rows, k\] as the product sees it: each value replaced by its code times the scale of its block.
    pub fn coded_inputs(&self, cpu: &Cpu, x: &[f32], rows: usize) -> Vec<f32> {
        let mut out = vec![0.0; rows * self.store.k];
        self.with_coded(cpu, x, rows, |coded| {
            for row in 0..rows {
                for position in 0..self.store.positions() {
                    if let Some(column) = self.store.column(position) {
                        let at = row * self.store.positions() + position;
                        out[row * self.store.k + column] = f32::from(coded.codes[at]) * coded.scales[at / BLOCK];
                    }
                }
            }
        });
        out
    }

    /// y\[rows, n\] = code(x)\[rows, k\] · Wᵀ.
    pub fn forward(&self, cpu: &Cpu, x: &[f32], rows: usize, y: &mut [f32]) {
        assert_eq!(y.len(), rows * self.store.n, "y must hold rows × n values");
        if rows > 0 && self.store.n > 0 {
            self.with_coded(cpu, x, rows, |coded| self.multiply(cpu, coded, rows, y));
        }
    }

    /// Step 1, for as long as `then` runs.
    fn with_coded(&self, cpu: &Cpu, x: &[f32], rows: usize, then: impl FnOnce(Coded<'_>)) {
        assert_eq!(x.len(), rows * self.store.k, "x must hold rows × k values");
        let (width, blocks) = (self.store.positions(), self.store.blocks);
        let gathered = self.store.gathered(cpu, x, rows);
        let x = gathered.as_deref().unwrap_or(x);
        let mut codes = scratch::take(rows * width / 4);
        let (mut scales, mut sums) = (scratch::take(rows * blocks), scratch::take(rows * blocks));
        let codes: &mut [i8] = bytemuck::cast_slice_mut(&mut codes);
        let sums: &mut [i32] = bytemuck::cast_slice_mut(&mut sums);
        let out = (SendPtr(codes.as_mut_ptr()), SendPtr(scales.as_mut_ptr()), SendPtr(sums.as_mut_ptr()));
        let form = match self.store.zeros {
            Zeros::Equal(zero) => Sums::Times(-(zero as i32)),
            Zeros::PerGroup(_) => Sums::Float,
        };
        let tasks = if x.len() < crate::cpu::WORTH_CYCLES { 1 } else { rows.min(4 * cpu.threads()) };
        cpu.parallel_if_worth(x.len(), tasks, &|task| {
            let rows = rows * task / tasks..rows * (task + 1) / tasks;
            let (start, n) = (rows.start * blocks, rows.len() * blocks);
            // SAFETY: every row belongs to one task, and the buffers outlive the call.
            let (codes, scales, sums) = unsafe {
                (
                    std::slice::from_raw_parts_mut(out.0.get().add(start * BLOCK), n * BLOCK),
                    std::slice::from_raw_parts_mut(out.1.get().add(start), n),
                    std::slice::from_raw_parts_mut(out.2.get().add(start), n),
                )
            };
            code_blocks(cpu, &x[start * BLOCK..][..n * BLOCK], codes, scales, sums, form);
        });
        then(Coded { codes, scales: &scales, sums });
    }

    /// Steps 2 and 3.
    fn multiply(&self, cpu: &Cpu, x: Coded<'_>, rows: usize, y: &mut [f32]) {
        let (store, panels) = (&self.store, n_panels(self.store.n));
        let row_block = (ROW_BLOCK_BYTES / store.positions().max(1)).clamp(12, 192) / 12 * 12;
        let row_blocks = rows.div_ceil(row_block);
        let threads = cpu.threads();
        let ranges = if row_blocks >= 4 * threads { 1 } else { 4 * threads / row_blocks.min(2) };
        let per_range = panels.div_ceil(ranges).next_multiple_of(4);
        let ranges = panels.div_ceil(per_range);
        let cycles = (rows * panels * store.positions() / 4).max(store.bytes() / 16);
        let out = SendPtr(y.as_mut_ptr());
        let dots = Dots::best(cpu);
        cpu.parallel_if_worth(cycles, ranges * row_blocks, &|i| {
            let (range, block) = (i / row_blocks, i % row_blocks);
            let rows = block * row_block..((block + 1) * row_block).min(rows);
            let panels = range * per_range..((range + 1) * per_range).min(panels);
            self.task(dots, x, rows, panels, out);
        });
    }

    fn task(&self, dots: Dots, x: Coded<'_>, rows: Range<usize>, panels: Range<usize>, y: SendPtr<f32>) {
        let n = self.store.n;
        let mut panel = panels.start;
        while panel < panels.end {
            let step = panels_step(panels.end - panel, panels_for(dots, rows.len()));
            let mut row = rows.start;
            while row < rows.end {
                let mr = largest_tile(dots, rows.end - row);
                let n_cols = (n - panel * LANES).min(step * LANES);
                // SAFETY: these rows and columns of y are inside it and belong to this task alone; x holds all rows.
                unsafe { tile(dots, mr, step, self.dot(x, row, panel, y.get().add(row * n + panel * LANES), n_cols)) };
                row += mr;
            }
            panel += step;
        }
    }

    /// The operands of a tile whose first output is `y`.
    fn dot(&self, x: Coded<'_>, row: usize, panel: usize, y: *mut f32, n_cols: usize) -> Dot {
        let store = &self.store;
        let (panel_words, panel_groups) = (store.blocks * store.bits * LANES, store.groups() * LANES);
        Dot {
            bits: store.bits,
            blocks: store.blocks,
            blocks_per_group: store.blocks_per_group,
            words: store.words[panel * panel_words..].as_ptr(),
            panel_words,
            scales: store.scales[panel * panel_groups..].as_ptr(),
            zeros: match &store.zeros {
                Zeros::Equal(_) => None,
                Zeros::PerGroup(zeros) => Some(zeros[panel * panel_groups..].as_ptr()),
            },
            panel_groups,
            x: x.codes[row * store.positions()..].as_ptr(),
            sx: x.scales[row * store.blocks..].as_ptr(),
            sums: x.sums[row * store.blocks..].as_ptr(),
            y,
            y_stride: store.n,
            n_cols,
        }
    }
}

/// 1.5 · 2²³: adding it rounds to an integer (half to even), whose low byte is then the sum's low byte.
const ROUND: f32 = 12_582_912.0;

/// What step 1 says of the sum of a block's codes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sums {
    /// Σq times a whole number.
    Times(i32),
    /// The bits of Σq in f32.
    Float,
    /// Σq of each half of the block.
    Halves,
}

dispatch! {
    /// Step 1 over whole blocks; `sums` holds one value per block, or two.
    pub(super) fn code_blocks(x: &[f32], codes: &mut [i8], scales: &mut [f32], sums: &mut [i32], form: Sums) = code_generic
}

#[inline(always)]
fn code_generic<S: Simd>(s: S, x: &[f32], codes: &mut [i8], scales: &mut [f32], sums: &mut [i32], form: Sums) {
    let magnitude = s.splat_u32(0x7fff_ffff);
    let blocks = x.as_chunks::<BLOCK>().0.iter().zip(codes.as_chunks_mut::<BLOCK>().0);
    let per_block = if let Sums::Halves = form { 2 } else { 1 };
    for (((x, codes), scale), sums) in blocks.zip(scales).zip(sums.chunks_exact_mut(per_block)) {
        // SAFETY: a block holds 32 values.
        let (a, b) = unsafe { (s.load(x.as_ptr()), s.load(x.as_ptr().add(LANES))) };
        let (size_a, size_b) = (s.floats(s.and(s.bits(a), magnitude)), s.floats(s.and(s.bits(b), magnitude)));
        let absmax = s.maximum(s.max(size_a, size_b));
        // 0·∞ and NaN poison the sum; `maximum` may drop a NaN
        let poison = s.sum(s.fma(a, s.splat(0.0), s.mul(b, s.splat(0.0))));
        let (inverse, step) = match (poison.is_nan(), absmax < 1e-36) {
            (true, _) => (0.0, f32::NAN),
            (_, true) => (0.0, 0.0),
            _ => (127.0 / absmax, absmax / 127.0),
        };
        *scale = step;
        let mut rounded = [0.0f32; BLOCK];
        let code = |v| s.add(s.mul(v, s.splat(inverse)), s.splat(ROUND));
        let (a, b) = if step > 0.0 { (code(a), code(b)) } else { (s.splat(ROUND), s.splat(ROUND)) };
        // SAFETY: the array holds 32 values.
        unsafe {
            s.store(rounded.as_mut_ptr(), a);
            s.store(rounded.as_mut_ptr().add(LANES), b);
        }
        for i in 0..BLOCK {
            codes[i] = rounded[i].to_bits() as i8;
        }
        // whole numbers below 2²⁴: exact in any order
        let (a, b) = (s.sub(a, s.splat(ROUND)), s.sub(b, s.splat(ROUND)));
        match form {
            Sums::Times(factor) => sums[0] = factor * s.sum(s.add(a, b)) as i32,
            Sums::Float => sums[0] = s.sum(s.add(a, b)).to_bits() as i32,
            Sums::Halves => (sums[0], sums[1]) = (s.sum(a) as i32, s.sum(b) as i32),
        }
    }
}
