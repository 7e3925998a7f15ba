//! What: the W8A8 linear on grids that the caller chooses: static or shared activation scales, zero points on either side.
//! Source: LLM.int8() (Dettmers et al. 2022, arXiv:2208.07339, §2.1) zeropoint quantisation; Jacob et al. 2018
//! (arXiv:1712.05877, eq. 7) for the corrections.
//! Shapes: W as [`PackedInt8`]; a grid per row of x, a zero per output.
//! Method: 1. q = clamp(round-half-even(x·inverse) + zero, −127, 127) and Σq per row; 2. integer dots (`int8_dot`);
//! 3. Σ(qx − zx)(qw − zw) = acc − zx·Σqw − zw·Σqx + k·zx·zw in int32; 4. y = that as f32 · sx · sw.
//! Exactness: integers are exact (intermediate terms may wrap, the sum fits for k ≤ 33 000), steps 1 and 4 are elementwise:
//! the same bits on every level, row count and thread count. A row holding NaN or an infinity gives NaN. On a symmetric
//! grid of the row's own absmax and without zeros the bits are those of [`PackedInt8::forward`].
//! Cost: that of [`PackedInt8`], plus three integer operations per output.
//! Not handled: k beyond 33 000 with zero points on both sides.

use super::int8::{PackedInt8, ROUND, load_at};
use super::int8_dot::Dots;
use crate::cpu::{Cpu, SendPtr};
use crate::scratch;
use crate::simd::{LANES, Simd, dispatch};

/// Largest code.
const LARGEST: f32 = 127.0;
/// Ranges below this are taken for zero: their inverse would overflow.
const SMALLEST: f32 = 1e-36;

/// A grid of codes −127 … 127: x ≈ scale·(code − zero).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Int8Grid {
    /// Width of a step; NaN makes a row of NaN.
    pub scale: f32,
    /// What x is multiplied by; 0 where the range is empty.
    pub inverse: f32,
    /// Code of 0.
    pub zero: i32,
}

impl Int8Grid {
    /// Over ±`absmax`, 0 in the middle.
    pub fn symmetric(absmax: f32) -> Int8Grid {
        match absmax {
            a if a.is_nan() || a == f32::INFINITY => Int8Grid { scale: f32::NAN, ..Int8Grid::default() },
            a if a < SMALLEST => Int8Grid::default(),
            a => Int8Grid { scale: a / LARGEST, inverse: LARGEST / a, zero: 0 },
        }
    }

    /// Over `low` … `high`, stretched to hold 0, which gets a code of its own.
    pub fn affine(low: f32, high: f32) -> Int8Grid {
        // `min` and `max` drop NaN
        let is_nan = low.is_nan() || high.is_nan();
        let (low, high) = (low.min(0.0), high.max(0.0));
        let range = high - low;
        if is_nan || range == f32::INFINITY {
            return Int8Grid { scale: f32::NAN, ..Int8Grid::default() };
        }
        if range < SMALLEST {
            return Int8Grid::default();
        }
        let inverse = 2.0 * LARGEST / range;
        Int8Grid { scale: range / (2.0 * LARGEST), inverse, zero: (-LARGEST - low * inverse).round_ties_even() as i32 }
    }

    /// The code of `x`.
    pub fn code(self, x: f32) -> i8 {
        ((x * self.inverse).round_ties_even() + self.zero as f32).clamp(-LARGEST, LARGEST) as i8
    }

    /// The value of `code`.
    pub fn value(self, code: i8) -> f32 {
        self.scale * (i32::from(code) - self.zero) as f32
    }
}

dispatch! {
    /// Smallest and largest value, NaN where one of them is not finite; (∞, −∞) of nothing.
    pub fn finite_range(x: &[f32]) -> (f32, f32) = range_generic
}

#[inline(always)]
fn range_generic<S: Simd>(s: S, x: &[f32]) -> (f32, f32) {
    // the largest of x and of −x: a vector has no smallest lane
    let (mut high, mut low) = (s.splat(f32::NEG_INFINITY), s.splat(f32::NEG_INFINITY));
    let mut poison = s.splat(0.0);
    let blocks = x.chunks_exact(LANES);
    let rest = blocks.remainder();
    for block in blocks {
        // SAFETY: a block holds 16 values.
        let v = unsafe { s.load(block.as_ptr()) };
        high = s.max(v, high);
        low = s.max(s.sub(s.splat(0.0), v), low);
        poison = s.fma(v, s.splat(0.0), poison);
    }
    let mut range = (-s.maximum(low), s.maximum(high));
    let mut bad = s.sum(poison).is_nan();
    for &v in rest {
        range = (range.0.min(v), range.1.max(v));
        bad |= !v.is_finite();
    }
    if bad { (f32::NAN, f32::NAN) } else { range }
}

impl PackedInt8 {
    /// y\[rows, n\] = dequantise(x on `grids`) · dequantise(codes)ᵀ; `grids` has one grid, or one per row; `zeros [n]` are
    /// the codes of weight 0, none where all are 0.
    ///
    /// # Panics
    /// On lengths that disagree.
    pub fn forward_on(&self, cpu: &Cpu, x: &[f32], rows: usize, grids: &[Int8Grid], zeros: &[i32], y: &mut [f32]) {
        let (n, k) = (self.n(), self.k());
        assert_eq!(x.len(), rows * k, "x must hold rows × k values");
        assert_eq!(y.len(), rows * n, "y must hold rows × n values");
        assert!(grids.len() == 1 || grids.len() == rows, "one grid, or one per row");
        assert!(zeros.is_empty() || zeros.len() == n, "zeros must be [n]");
        if rows == 0 || n == 0 {
            return;
        }
        let width = k.div_ceil(4) * 4;
        let mut codes = scratch::take(rows * width / 4);
        let codes: &mut [u8] = bytemuck::cast_slice_mut(&mut codes);
        let mut sums = scratch::take(rows);
        let sums: &mut [i32] = bytemuck::cast_slice_mut(&mut sums);
        let mut scales = scratch::take(rows);
        let dots = Dots::best(cpu);
        let grid = |row: usize| grids[row % grids.len()];
        // 1.
        {
            let (codes, sums) = (SendPtr(codes.as_mut_ptr()), SendPtr(sums.as_mut_ptr()));
            let scales = SendPtr(scales.as_mut_ptr());
            let tasks = if rows * k < crate::cpu::WORTH_CYCLES { 1 } else { rows.min(4 * cpu.threads()) };
            cpu.parallel_if_worth(rows * k, tasks, &|task| {
                for row in rows * task / tasks..rows * (task + 1) / tasks {
                    let grid = grid(row);
                    // SAFETY: every row belongs to one task.
                    let out = unsafe { std::slice::from_raw_parts_mut(codes.get().add(row * width), width) };
                    let sum = code_row(cpu, &x[row * k..][..k], grid, dots.offset(), out);
                    // SAFETY: as above.
                    unsafe {
                        *sums.get().add(row) = sum.unwrap_or(0);
                        *scales.get().add(row) = if sum.is_some() { grid.scale } else { f32::NAN };
                    }
                }
            });
        }
        // 2.
        self.multiply_with(cpu, dots, codes, rows, y, &|row, first, acc, out| {
            let (sx, zx, sum) = (scales[row], grid(row).zero, sums[row]);
            let sw = &self.scales()[first..];
            // 3. and 4.
            if zx == 0 && zeros.is_empty() {
                for ((out, &acc), &sw) in out.iter_mut().zip(acc).zip(sw) {
                    *out = acc as f32 * sx * sw;
                }
                return;
            }
            let shift = (k as i32).wrapping_mul(zx).wrapping_sub(sum);
            for (i, (out, &acc)) in out.iter_mut().zip(acc).enumerate() {
                let zw = zeros.get(first + i).copied().unwrap_or(0);
                let exact =
                    acc.wrapping_sub(zx.wrapping_mul(self.code_sum(first + i))).wrapping_add(zw.wrapping_mul(shift));
                *out = exact as f32 * sx * sw[i];
            }
        });
    }

    /// The weights that [`Self::forward_on`] multiplies by with `zeros`, as row-major f32 `[n, k]`.
    pub fn unpack_on(&self, zeros: &[i32]) -> Vec<f32> {
        let row = |row: usize| {
            let (scale, zero) = (self.scales()[row], zeros.get(row).copied().unwrap_or(0));
            (0..self.k()).map(move |j| scale * (i32::from(self.code(row, j)) - zero) as f32)
        };
        (0..self.n()).flat_map(row).collect()
    }
}

dispatch! {
    /// Step 1 for a row: its codes plus `offset`, and their sum without it; nothing where a value is not finite.
    fn code_row(x: &[f32], grid: Int8Grid, offset: u8, codes: &mut [u8]) -> Option<i32> = code_row_generic
}

#[inline(always)]
fn code_row_generic<S: Simd>(s: S, x: &[f32], grid: Int8Grid, offset: u8, codes: &mut [u8]) -> Option<i32> {
    codes.fill(offset);
    if grid.scale.is_nan() {
        return None;
    }
    let zero = grid.zero as f32;
    let (low, high) = (s.splat(-LARGEST - zero), s.splat(LARGEST - zero));
    let (inverse, shift) = (s.splat(grid.inverse), s.splat(ROUND));
    let mut poison = s.splat(0.0);
    let mut sum = 0i32;
    for start in (0..x.len()).step_by(LANES) {
        // SAFETY: at most 16 values from `start` lie in x.
        let v = unsafe { load_at(s, x, start) };
        poison = s.fma(v, s.splat(0.0), poison);
        // clipped before rounding: the bounds are whole numbers, and the rounding trick needs small ones
        let clipped = s.min(s.max(s.mul(v, inverse), low), high);
        let mut rounded = [0.0f32; LANES];
        // SAFETY: the array holds 16 values.
        unsafe { s.store(rounded.as_mut_ptr(), s.add(clipped, shift)) };
        let here = LANES.min(x.len() - start);
        for (code, rounded) in codes[start..start + here].iter_mut().zip(rounded) {
            let q = (rounded.to_bits() as u8 as i8).wrapping_add(grid.zero as i8);
            sum += i32::from(q);
            *code = (q as u8).wrapping_add(offset);
        }
    }
    (!s.sum(poison).is_nan()).then_some(sum)
}
