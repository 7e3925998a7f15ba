//! What: the W8A8 linear: int8 weights with one scale per output, activations quantised per row, int32 sums.
//! Source: LLM.int8() (Dettmers et al. 2022, arXiv:2208.07339, §2.1) vector-wise quantisation, without outliers.
//! Shapes: W\[n, k\] → `[⌈n/16⌉][⌈k/4⌉][16][4]` i8; x\[rows, k\] → i8 rows of ⌈k/4⌉·4.
//! Method: 1. per row: sx = absmax/127, q = round-half-even(x·127/absmax), so −128 never occurs; 2. integer dots
//! (`int8_dot`); 3. y = (acc as f32)·sx·sw, in this order.
//! Exactness: sums are exact in int32 and steps 1 and 3 are elementwise, so every level, row count and thread count
//! gives the same bits. A row holding NaN or an infinity gives NaN; one below 1e−36 in magnitude gives zero.
//! Cost: 1 byte per weight + 8 per output; 2·rows·n·k integer operations.
//! Not handled: outlier columns, k beyond 131 000 (int32 could overflow); other grids are `int8_grid`'s.

use super::int8_dot::{Dots, dot_tiles, largest_tile, panels_for};
use super::panels::n_panels;
use super::tile::panels_step;
use crate::cpu::{Cpu, SendPtr};
use crate::isa::Vnni;
use crate::scratch;
use crate::simd::{LANES, Simd, dispatch};

/// Rows of one task when there are many.
const ROW_BLOCK: usize = 96;
/// The largest k whose sums fit int32 whatever the codes: 131072 · 127 · 128 < 2³¹.
const MAX_K: usize = 131_072;

/// int8 weights `[n, k]` with per-output scales, in panel order.
#[derive(Debug, Clone)]
pub struct PackedInt8 {
    n: usize,
    k: usize,
    panels: Vec<i8>,
    scales: Vec<f32>,
    /// 128·Σ of each output's codes: what offset activations (VNNI) add to a sum.
    offsets: Vec<i32>,
}

/// Turns the integer sums of some outputs of a row into their values: (row, first output, sums, values).
pub(super) type Finish<'a> = dyn Fn(usize, usize, &[i32], &mut [f32]) + Sync + 'a;

impl PackedInt8 {
    /// Packs row-major `codes` of `[n, k]` with `scales` of `[n]`; W = code·scale.
    ///
    /// # Panics
    /// On lengths that disagree, or k beyond 131 072.
    pub fn from_codes(codes: &[i8], scales: &[f32], n: usize, k: usize) -> Self {
        assert_eq!(codes.len(), n * k, "codes must be [n, k]");
        assert_eq!(scales.len(), n, "scales must be [n]");
        assert!(k <= MAX_K, "k = {k} could overflow int32 sums; at most {MAX_K} columns");
        let quads = k.div_ceil(4);
        let mut panels = vec![0i8; n_panels(n) * quads * LANES * 4];
        let mut offsets = vec![0; n_panels(n) * LANES];
        let mut padded = vec![0.0; n_panels(n) * LANES];
        padded[..n].copy_from_slice(scales);
        for (row, codes) in codes.chunks_exact(k.max(1)).enumerate() {
            let base = (row / LANES) * quads * LANES * 4 + (row % LANES) * 4;
            for (quad, codes) in codes.chunks(4).enumerate() {
                panels[base + quad * LANES * 4..][..codes.len()].copy_from_slice(codes);
            }
            offsets[row] = 128 * codes.iter().map(|&c| i32::from(c)).sum::<i32>();
        }
        Self { n, k, panels, scales: padded, offsets }
    }

    /// Output features.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Input features.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Bytes that one full read streams: codes, scales and offsets.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.panels[..]) + size_of_val(&self.scales[..]) + size_of_val(&self.offsets[..])
    }

    /// The kernel that [`Self::forward`] runs on `cpu`.
    pub fn kernel_name(&self, cpu: &Cpu) -> &'static str {
        match cpu.isa() {
            crate::Isa::Scalar => "int8_dot_scalar",
            crate::Isa::Avx512 if Vnni::detect().is_some() => "int8_dot_vnni",
            _ => "int8_dot_avx2_sign",
        }
    }

    /// y\[rows, n\] = dequantise(quantise(x)\[rows, k\] · codesᵀ).
    pub fn forward(&self, cpu: &Cpu, x: &[f32], rows: usize, y: &mut [f32]) {
        assert_eq!(x.len(), rows * self.k, "x must hold rows × k values");
        assert_eq!(y.len(), rows * self.n, "y must hold rows × n values");
        if rows == 0 || self.n == 0 {
            return;
        }
        let width = self.k.div_ceil(4) * 4;
        let mut codes = scratch::take(rows * width / 4);
        let mut scales = scratch::take(rows);
        let codes: &mut [u8] = bytemuck::cast_slice_mut(&mut codes);
        let dots = Dots::best(cpu);
        quantize_all(cpu, x, self.k, dots.offset(), &mut scales, codes);
        self.multiply(cpu, dots, codes, &scales, y);
    }

    /// Steps 2 and 3 over quantised rows.
    fn multiply(&self, cpu: &Cpu, dots: Dots, x: &[u8], sx: &[f32], y: &mut [f32]) {
        self.multiply_with(cpu, dots, x, sx.len(), y, &|row, first, acc, out| {
            let sx = sx[row];
            for ((out, &acc), &sw) in out.iter_mut().zip(acc).zip(&self.scales[first..]) {
                *out = acc as f32 * sx * sw;
            }
        });
    }

    /// The scale of every output, padded to whole panels.
    pub(super) fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// Σ of the codes of output `row`.
    pub(super) fn code_sum(&self, row: usize) -> i32 {
        self.offsets[row] / 128
    }

    /// Step 2 over `rows` quantised rows; `finish` makes values of sums.
    pub(super) fn multiply_with(
        &self,
        cpu: &Cpu,
        dots: Dots,
        x: &[u8],
        rows: usize,
        y: &mut [f32],
        finish: &Finish<'_>,
    ) {
        let (panels, quads) = (n_panels(self.n), self.k.div_ceil(4));
        let row_blocks = rows.div_ceil(ROW_BLOCK);
        let threads = cpu.threads();
        let ranges = if row_blocks >= 4 * threads { 1 } else { 4 * threads / row_blocks.min(2) };
        let per_range = panels.div_ceil(ranges).next_multiple_of(4);
        let ranges = panels.div_ceil(per_range);
        let cycles = (rows * panels * quads).max(self.panels.len() / 16);
        let out = SendPtr(y.as_mut_ptr());
        cpu.parallel_if_worth(cycles, ranges * row_blocks, &|i| {
            let (range, block) = (i / row_blocks, i % row_blocks);
            let rows = block * ROW_BLOCK..((block + 1) * ROW_BLOCK).min(rows);
            let panels = range * per_range..((range + 1) * per_range).min(panels);
            self.task(dots, x, rows, panels, out, finish);
        });
    }

    fn task(
        &self,
        dots: Dots,
        x: &[u8],
        rows: std::ops::Range<usize>,
        panels: std::ops::Range<usize>,
        y: SendPtr<f32>,
        finish: &Finish<'_>,
    ) {
        let quads = self.k.div_ceil(4);
        let mut acc = [0i32; 12 * 4 * LANES];
        let mut panel = panels.start;
        while panel < panels.end {
            let widest = panels_for(dots, largest_tile(dots, rows.len()));
            let step = panels_step(panels.end - panel, widest);
            let mut row = rows.start;
            while row < rows.end {
                let mr = largest_tile(dots, rows.end - row);
                // The last rows of a block may leave registers for more panels, never for fewer.
                let w = &self.panels[panel * quads * LANES * 4..(panel + step) * quads * LANES * 4];
                let x = &x[row * quads * 4..(row + mr) * quads * 4];
                dot_tiles(dots, w, x, mr, step, &self.offsets[panel * LANES..(panel + step) * LANES], &mut acc);
                for r in 0..mr {
                    let n_cols = (self.n - panel * LANES).min(step * LANES);
                    // SAFETY: this row and these columns of y belong to this task alone.
                    let out = unsafe {
                        std::slice::from_raw_parts_mut(y.get().add((row + r) * self.n + panel * LANES), n_cols)
                    };
                    finish(row + r, panel * LANES, &acc[r * step * LANES..][..n_cols], out);
                }
                row += mr;
            }
            panel += step;
        }
    }

    /// The weights as row-major f32 `[n, k]`: code·scale.
    pub fn unpack(&self) -> Vec<f32> {
        self.unpack_on(&[])
    }

    /// The codes `[n, k]` and scales `[n]` that were packed.
    pub fn codes(&self) -> (Vec<i8>, Vec<f32>) {
        let codes = (0..self.n).flat_map(|row| (0..self.k).map(move |j| self.code(row, j))).collect();
        (codes, self.scales[..self.n].to_vec())
    }

    /// The code of output `row` and column `j`.
    pub(super) fn code(&self, row: usize, j: usize) -> i8 {
        let base = (row / LANES) * self.k.div_ceil(4) * LANES * 4 + (row % LANES) * 4;
        self.panels[base + (j / 4) * LANES * 4 + j % 4]
    }
}

/// Step 1 for every row; `offset` is added to the codes (0, or 128 for unsigned operands).
fn quantize_all(cpu: &Cpu, x: &[f32], k: usize, offset: u8, scales: &mut [f32], codes: &mut [u8]) {
    let width = k.div_ceil(4) * 4;
    let codes = SendPtr(codes.as_mut_ptr());
    let scales_out = SendPtr(scales.as_mut_ptr());
    let rows = scales.len();
    let tasks = if rows * k < crate::cpu::WORTH_CYCLES { 1 } else { rows.min(4 * cpu.threads()) };
    cpu.parallel_if_worth(rows * k, tasks, &|task| {
        for row in rows * task / tasks..rows * (task + 1) / tasks {
            // SAFETY: every row belongs to one task.
            let (codes, scale) = unsafe {
                (std::slice::from_raw_parts_mut(codes.get().add(row * width), width), &mut *scales_out.get().add(row))
            };
            *scale = quantize_row(cpu, &x[row * k..(row + 1) * k], offset, codes);
        }
    });
}

/// 1.5 · 2²³: adding it rounds to an integer (half to even), whose low byte is then the sum's low byte.
pub(super) const ROUND: f32 = 12_582_912.0;

dispatch! {
    fn quantize_row(x: &[f32], offset: u8, codes: &mut [u8]) -> f32 = quantize_row_generic
}

#[inline(always)]
fn quantize_row_generic<S: Simd>(s: S, x: &[f32], offset: u8, codes: &mut [u8]) -> f32 {
    let magnitude = s.splat_u32(0x7fff_ffff);
    let mut largest = s.splat(0.0);
    let mut poison = s.splat(0.0);
    for start in (0..x.len()).step_by(LANES) {
        // SAFETY: at most 16 values from `start` lie in x.
        let v = unsafe { load_at(s, x, start) };
        largest = s.max(s.floats(s.and(s.bits(v), magnitude)), largest);
        poison = s.fma(v, s.splat(0.0), poison);
    }
    let absmax = s.maximum(largest);
    let is_nan = s.sum(poison).is_nan();
    if is_nan || absmax < 1e-36 {
        codes.fill(offset);
        return if is_nan { f32::NAN } else { 0.0 };
    }
    codes[x.len()..].fill(offset);
    let inverse = s.splat(127.0 / absmax);
    for start in (0..x.len()).step_by(LANES) {
        // SAFETY: as above.
        let v = unsafe { load_at(s, x, start) };
        let mut rounded = [0.0f32; LANES];
        // SAFETY: the array holds 16 values.
        unsafe { s.store(rounded.as_mut_ptr(), s.add(s.mul(v, inverse), s.splat(ROUND))) };
        let mut bytes = [0u8; LANES];
        for i in 0..LANES {
            bytes[i] = (rounded[i].to_bits() as u8).wrapping_add(offset);
        }
        match codes[start..].first_chunk_mut::<LANES>() {
            Some(all) if start + LANES <= x.len() => *all = bytes,
            _ => codes[start..x.len()].copy_from_slice(&bytes[..x.len() - start]),
        }
    }
    absmax / 127.0
}

/// The 16 values from `start`, zero beyond the end.
#[inline(always)]
pub(super) unsafe fn load_at<S: Simd>(s: S, x: &[f32], start: usize) -> S::V {
    let p = x.as_ptr().wrapping_add(start);
    // SAFETY: the caller vouches that `start` is inside x.
    unsafe { if start + LANES <= x.len() { s.load(p) } else { s.load_first(p, x.len() - start, 0.0) } }
}
