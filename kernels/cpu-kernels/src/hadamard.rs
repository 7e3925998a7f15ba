//! What: x·Hᵀ for an orthonormal Hadamard matrix of (almost) any order, row by row and in place.
//! Source: Sylvester's doubling; Paley 1933 (conference matrices over a prime field) for the factor that is no power of two;
//!   as the online rotation of QuaRot, arXiv 2404.00456, §4.
//! Shapes: x\[rows, n\]; H = I_blocks ⊗ P_m ⊗ S_p, n = blocks·m·p, p a power of two.
//! Method: 1. m is 1 or the smallest order 4·j that Paley's constructions give and that leaves a power of two; where none up to
//!   1024 does, m = 1 and blocks = n/p (block-diagonal). 2. log₂ p butterfly stages, strides of a vector and more on vectors, shorter ones
//!   inside it. 3. the m×m signs across runs of p values. 4. everything times 1/√(m·p).
//! Exactness: sums of f32 in an order fixed by n: one row has the same bits among any others; relative error about
//!   (log₂ p + m)·2⁻²⁴. The order of additions is the same on every level.
//! Cost: n·(log₂ p + m) additions a row, in L1.
//! Not handled: Hadamard orders that need prime powers or searches (Williamson): those become block-diagonal.

use crate::cpu::Cpu;
use crate::exp::{load_at, store_at};
use crate::rows::for_rows;
use crate::scratch;
use crate::simd::{LANES, Simd, dispatch};
use crate::vector::axpy;

/// Largest order of the dense factor.
const LARGEST_FACTOR: usize = 1024;

/// An orthonormal matrix of entries 0 and ±1/√order.
#[derive(Debug, Clone, PartialEq)]
pub struct Hadamard {
    blocks: usize,
    factor: usize,
    power: usize,
    /// `[factor, factor]`, ±1; empty when the factor is 1.
    signs: Vec<f32>,
}

impl Hadamard {
    /// The matrix for rows of `n` values.
    pub fn new(n: usize) -> Hadamard {
        let power = if n == 0 { 1 } else { 1 << n.trailing_zeros() };
        let odd = n / power;
        let factors = (2..=n.max(1).trailing_zeros()).map(|e| odd << e).take_while(|m| *m <= LARGEST_FACTOR);
        let found = if odd <= 1 { None } else { factors.into_iter().find_map(|m| paley(m).map(|signs| (m, signs))) };
        match found {
            Some((factor, signs)) => Hadamard { blocks: 1, factor, power: n / factor, signs },
            None => Hadamard { blocks: odd, factor: 1, power, signs: vec![] },
        }
    }

    /// Values of a row.
    pub fn n(&self) -> usize {
        self.blocks * self.factor * self.power
    }

    /// Values that each output mixes: [`Self::n`], or less where the matrix is block-diagonal.
    pub fn order(&self) -> usize {
        self.factor * self.power
    }

    /// √order·H\[i, j\]: −1, 0 or 1, straight from the definition.
    pub fn sign(&self, i: usize, j: usize) -> i8 {
        let (order, p) = (self.order(), self.power);
        if i / order != j / order {
            return 0;
        }
        let (i, j) = (i % order, j % order);
        let sylvester = if ((i % p) & (j % p)).count_ones().is_multiple_of(2) { 1 } else { -1 };
        match self.signs.get(i / p * self.factor + j / p) {
            Some(sign) if *sign < 0.0 => -sylvester,
            _ => sylvester,
        }
    }

    /// x = H·x in f64, one value after the other: for folding H into weights.
    pub fn apply(&self, x: &mut [f64]) {
        self.apply_with(x, |i, j| self.signs[i * self.factor + j]);
    }

    /// x = Hᵀ·x in f64.
    pub fn apply_transposed(&self, x: &mut [f64]) {
        self.apply_with(x, |i, j| self.signs[j * self.factor + i]);
    }

    /// Doubling stages, which are their own transpose, then the dense factor through `sign`.
    fn apply_with(&self, x: &mut [f64], sign: impl Fn(usize, usize) -> f32) {
        let (order, p, m) = (self.order(), self.power, self.factor);
        let scale = 1.0 / (order as f64).sqrt();
        for block in x.chunks_exact_mut(order.max(1)) {
            for run in block.chunks_exact_mut(p) {
                let mut stride = 1;
                while stride < p {
                    for pair in run.chunks_exact_mut(2 * stride) {
                        let (low, high) = pair.split_at_mut(stride);
                        low.iter_mut().zip(high).for_each(|(a, b)| (*a, *b) = (*a + *b, *a - *b));
                    }
                    stride *= 2;
                }
            }
            if m > 1 {
                let old = block.to_vec();
                for (i, run) in block.chunks_exact_mut(p).enumerate() {
                    run.fill(0.0);
                    for (j, old) in old.chunks_exact(p).enumerate() {
                        let sign = f64::from(sign(i, j));
                        run.iter_mut().zip(old).for_each(|(x, old)| *x += sign * old);
                    }
                }
            }
            block.iter_mut().for_each(|x| *x *= scale);
        }
    }

    /// Every row of x\[rows, n·run\], seen as n runs of `run` values, becomes (H ⊗ 1)·row: runs are mixed, places in them are not.
    pub fn forward_runs(&self, cpu: &Cpu, x: &mut [f32], rows: usize, run: usize) {
        let (n, scale) = (self.n(), 1.0 / (self.order() as f32).sqrt());
        for_rows(cpu, rows, x, n * run, n, &|_, row| {
            let mut mixed = scratch::take(n * run);
            mixed.fill(0.0);
            for (i, out) in mixed.chunks_exact_mut(run.max(1)).enumerate() {
                for (j, from) in row.chunks_exact(run.max(1)).enumerate() {
                    axpy(cpu, scale * f32::from(self.sign(i, j)), from, out);
                }
            }
            row.copy_from_slice(&mixed);
        });
    }

    /// Every row of x\[rows, n\] becomes H·row.
    pub fn forward(&self, cpu: &Cpu, x: &mut [f32], rows: usize) {
        let (n, order) = (self.n(), self.order());
        let weight = self.power.trailing_zeros() as usize + self.factor;
        for_rows(cpu, rows, x, n, weight.div_ceil(4), &|_, row| {
            for block in row.chunks_exact_mut(order) {
                let mut mixed = scratch::take(if self.factor > 1 { order } else { 0 });
                transform(cpu, &self.signs, self.factor, self.power, block, &mut mixed);
            }
        });
    }
}

dispatch! {
    /// One block of `m·p` values; `mixed` is as long where m > 1.
    fn transform(signs: &[f32], m: usize, p: usize, x: &mut [f32], mixed: &mut [f32]) = transform_generic
}

#[inline(always)]
fn transform_generic<S: Simd>(s: S, signs: &[f32], m: usize, p: usize, x: &mut [f32], mixed: &mut [f32]) {
    // 2.
    for run in x.chunks_exact_mut(p) {
        short_strides(run, p.min(LANES));
        let mut stride = LANES;
        while stride < p {
            for pair in run.chunks_exact_mut(2 * stride) {
                let (low, high) = pair.split_at_mut(stride);
                for at in (0..stride).step_by(LANES) {
                    let (a, b) = (load_at(s, low, at, 0.0), load_at(s, high, at, 0.0));
                    store_at(s, low, at, s.add(a, b));
                    store_at(s, high, at, s.sub(a, b));
                }
            }
            stride *= 2;
        }
    }
    // 3. and 4.
    let scale = s.splat(1.0 / ((m * p) as f32).sqrt());
    if m == 1 {
        for at in (0..p).step_by(LANES) {
            let v = s.mul(load_at(s, x, at, 0.0), scale);
            store_at(s, x, at, v);
        }
        return;
    }
    for (signs, out) in signs.chunks_exact(m).zip(mixed.chunks_exact_mut(p)) {
        for at in (0..p).step_by(LANES) {
            let mut sum = s.splat(0.0);
            for (sign, run) in signs.iter().zip(x.chunks_exact(p)) {
                sum = s.add(sum, s.mul(s.splat(*sign), load_at(s, run, at, 0.0)));
            }
            store_at(s, out, at, s.mul(sum, scale));
        }
    }
    x.copy_from_slice(mixed);
}

/// The stages with strides below `width`, which divides the run and is at most a vector.
#[inline(always)]
fn short_strides(run: &mut [f32], width: usize) {
    if width == LANES {
        // whole vectors: constant strides, which the compiler turns into shuffles
        let (vectors, _) = run.as_chunks_mut::<LANES>();
        for v in vectors {
            butterflies::<1>(v);
            butterflies::<2>(v);
            butterflies::<4>(v);
            butterflies::<8>(v);
        }
        return;
    }
    let mut stride = 1;
    while stride < width {
        for pair in run.chunks_exact_mut(2 * stride) {
            let (low, high) = pair.split_at_mut(stride);
            low.iter_mut().zip(high).for_each(|(a, b)| (*a, *b) = (*a + *b, *a - *b));
        }
        stride *= 2;
    }
}

#[inline(always)]
fn butterflies<const STRIDE: usize>(v: &mut [f32; LANES]) {
    let old = *v;
    for i in 0..LANES {
        v[i] = if i & STRIDE == 0 { old[i] + old[i ^ STRIDE] } else { old[i ^ STRIDE] - old[i] };
    }
}

/// The signs `[m, m]` of Paley's Hadamard matrix of order `m`, where one of his two constructions has it over a prime field.
fn paley(m: usize) -> Option<Vec<f32>> {
    let sign = |x: bool| if x { 1.0 } else { -1.0 };
    if is_prime(m - 1) && (m - 1) % 4 == 3 {
        // I: H = 1 + S with the skew conference matrix S
        let conference = conference(m - 1, -1.0);
        let at = |i: usize, j: usize| if i == j { 1.0 } else { conference[i * m + j] };
        return Some((0..m * m).map(|e| at(e / m, e % m)).collect());
    }
    let (half, q) = (m / 2, (m / 2).wrapping_sub(1));
    if m.is_multiple_of(2) && is_prime(q) && q % 4 == 1 {
        // II: C ⊗ [[1, 1], [1, −1]] + 1 ⊗ [[1, −1], [−1, −1]] with the symmetric conference matrix C
        let conference = conference(q, 1.0);
        let at = |i: usize, j: usize| match (i / 2, j / 2, i % 2, j % 2) {
            (a, b, r, c) if a == b => sign(r == 0 && c == 0),
            (a, b, r, c) => conference[a * half + b] * sign(r == 0 || c == 0),
        };
        return Some((0..m * m).map(|e| at(e / m, e % m)).collect());
    }
    None
}

/// `[q + 1, q + 1]`: a border of ones (`corner` down the first column) around the quadratic characters of i − j mod q.
fn conference(q: usize, corner: f32) -> Vec<f32> {
    let mut character = vec![-1.0f32; q];
    character[0] = 0.0;
    (1..q).for_each(|x| character[x * x % q] = 1.0);
    let m = q + 1;
    let at = |i: usize, j: usize| match (i, j) {
        (0, 0) => 0.0,
        (0, _) => 1.0,
        (_, 0) => corner,
        _ => character[(q + i - j) % q],
    };
    (0..m * m).map(|e| at(e / m, e % m)).collect()
}

fn is_prime(n: usize) -> bool {
    n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    /// Every width our checkpoints and the usual models have, and orders of both constructions.
    const WIDTHS: [usize; 18] = [1, 2, 8, 16, 12, 20, 24, 28, 36, 64, 104, 192, 256, 296, 320, 384, 768, 5632];

    #[test]
    fn rows_are_orthogonal() {
        for n in WIDTHS.into_iter().chain([7, 30, 52, 172]).filter(|n| *n < 1000) {
            let h = Hadamard::new(n);
            assert_eq!(h.n(), n);
            for a in 0..n {
                for b in 0..=a {
                    let dot: i64 = (0..n).map(|j| i64::from(h.sign(a, j)) * i64::from(h.sign(b, j))).sum();
                    assert_eq!(dot, if a == b { h.order() as i64 } else { 0 }, "order {n}, rows {a} and {b}");
                }
            }
        }
    }

    #[test]
    fn usual_widths_are_mixed_whole() {
        for n in WIDTHS {
            assert_eq!(Hadamard::new(n).order(), n, "{n}");
        }
        // 51 and 25 are not prime, and an odd width has no Hadamard matrix
        assert_eq!(Hadamard::new(52).order(), 4);
        assert_eq!(Hadamard::new(7).order(), 1);
        assert_eq!(Hadamard::new(0).n(), 0);
    }

    #[test]
    fn folding_is_the_definition_and_the_transpose_its_inverse() {
        for n in WIDTHS.into_iter().chain([7, 30, 52]).filter(|n| *n < 1000) {
            let h = Hadamard::new(n);
            let x: Vec<f64> = (0..n).map(|i| (i * 7919 % 1009) as f64 / 504.5 - 1.0).collect();
            let mut y = x.clone();
            h.apply(&mut y);
            for (i, y) in y.iter().enumerate() {
                let want: f64 = (0..n).map(|j| f64::from(h.sign(i, j)) * x[j]).sum::<f64>() / (h.order() as f64).sqrt();
                assert!((y - want).abs() < 1e-12, "{n}");
            }
            h.apply_transposed(&mut y);
            y.iter().zip(&x).for_each(|(a, b)| assert!((a - b).abs() < 1e-12, "{n}: {a} {b}"));
        }
    }

    #[test]
    fn runs_are_mixed_place_by_place() {
        let (h, run, rows) = (Hadamard::new(12), 5, 2);
        let x: Vec<f32> = (0..rows * 60).map(|i| ((i * 7919 % 1009) as f32 / 504.5 - 1.0) * 3.0).collect();
        for isa in Isa::available() {
            let cpu = Cpu::new(Some(isa), 1).expect("an available level");
            let mut y = x.clone();
            h.forward_runs(&cpu, &mut y, rows, run);
            for (x, y) in x.chunks(60).zip(y.chunks(60)) {
                for (at, y) in y.iter().enumerate() {
                    let want: f64 =
                        (0..12).map(|j| f64::from(h.sign(at / run, j)) * f64::from(x[j * run + at % run])).sum();
                    assert!((f64::from(*y) - want / 12f64.sqrt()).abs() < 1e-5, "{isa}, {at}");
                }
            }
        }
    }

    #[test]
    fn forward_is_the_definition_on_every_level() {
        for n in WIDTHS.into_iter().chain([7, 30, 52]) {
            let h = Hadamard::new(n);
            let rows = 3;
            let x: Vec<f32> = (0..rows * n).map(|i| ((i * 7919 % 1009) as f32 / 504.5 - 1.0) * 3.0).collect();
            for isa in Isa::available() {
                for threads in [1, 2] {
                    let cpu = Cpu::new(Some(isa), threads).expect("an available level");
                    let mut y = x.clone();
                    h.forward(&cpu, &mut y, rows);
                    for (x, y) in x.chunks(n).zip(y.chunks(n)) {
                        for (i, y) in y.iter().enumerate().step_by(n.div_ceil(50)) {
                            let sum: f64 = (0..n).map(|j| f64::from(h.sign(i, j)) * f64::from(x[j])).sum();
                            let want = sum / (h.order() as f64).sqrt();
                            assert!((f64::from(*y) - want).abs() < 2e-5, "n {n}, {isa}: {y} for {want}");
                        }
                        let mut alone = x.to_vec();
                        h.forward(&cpu, &mut alone, 1);
                        assert_eq!(alone, y, "a row alone has its bits");
                    }
                }
            }
        }
    }
}
