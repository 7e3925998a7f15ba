//! What: target −= Σ_k c_k·row_k over rows of a matrix of f64, the one loop of factorisations and of GPTQ's updates.
//! Source: none; plain arithmetic.
//! Shapes: target `[len]`, coefficients `[n]`, matrix n rows of `len`, `stride` apart.
//! Method: rows in fours, k ascending; the vectors are the compiler's, one set per level.
//! Exactness: products and sums are rounded one by one in an order fixed by n, so every level gives the same bits.
//! Cost: n·len multiplications and as many additions; at rows of 2 kB the matrix stays in the second-level cache.
//! Not handled: threads; callers share out rows.

use crate::simd::{Simd, dispatch};

dispatch! {
    /// `target −= Σ_k coefficients[k] · matrix[k·stride ..][.. target.len()]`, k ascending in fours.
    ///
    /// # Panics
    /// If the matrix is shorter than that.
    pub fn subtract_combination(target: &mut [f64], coefficients: &[f64], matrix: &[f64], stride: usize) =
        subtract_combination_generic
}

#[inline(always)]
fn subtract_combination_generic<S: Simd>(
    _level: S,
    target: &mut [f64],
    coefficients: &[f64],
    matrix: &[f64],
    stride: usize,
) {
    let len = target.len();
    if len == 0 {
        return;
    }
    let fours = coefficients.len() / 4 * 4;
    for k in (0..fours).step_by(4) {
        let c = &coefficients[k..k + 4];
        let r0 = &matrix[k * stride..][..len];
        let r1 = &matrix[(k + 1) * stride..][..len];
        let r2 = &matrix[(k + 2) * stride..][..len];
        let r3 = &matrix[(k + 3) * stride..][..len];
        for i in 0..len {
            target[i] -= (c[0] * r0[i] + c[1] * r1[i]) + (c[2] * r2[i] + c[3] * r3[i]);
        }
    }
    for k in fours..coefficients.len() {
        let (c, r) = (coefficients[k], &matrix[k * stride..][..len]);
        for i in 0..len {
            target[i] -= c * r[i];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cpu, Isa};

    #[test]
    fn every_level_gives_the_sums_by_hand() {
        for (n, len) in [(0, 3), (1, 1), (3, 7), (4, 8), (6, 33), (9, 130)] {
            let stride = len + 5;
            let value = |i: usize| ((i * 7919 % 1009) as f64 / 504.5 - 1.0) * (1.0 + (i % 7) as f64);
            let matrix: Vec<f64> = (0..n * stride).map(value).collect();
            let coefficients: Vec<f64> = (0..n).map(|k| value(k + 11)).collect();
            let start: Vec<f64> = (0..len).map(|i| value(i + 3)).collect();
            let mut first: Option<Vec<f64>> = None;
            for isa in Isa::available() {
                let cpu = Cpu::new(Some(isa), 1).expect("available");
                let mut target = start.clone();
                subtract_combination(&cpu, &mut target, &coefficients, &matrix, stride);
                for (i, (found, start)) in target.iter().zip(&start).enumerate() {
                    let sum: f64 = (0..n).map(|k| coefficients[k] * matrix[k * stride + i]).sum();
                    assert!((found - (start - sum)).abs() <= 1e-12 * 64.0, "{isa} {n} {len} {i}");
                }
                match &first {
                    None => first = Some(target),
                    Some(first) => assert!(first.iter().zip(&target).all(|(a, b)| a.to_bits() == b.to_bits()), "{isa}"),
                }
            }
        }
    }
}
