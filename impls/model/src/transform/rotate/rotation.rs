//! Orthogonal matrices in f64, applied to vectors.

use cpu_kernels::Hadamard;
use rand::{RngExt, rngs::ChaCha8Rng};

use super::RotationKind;

/// An orthogonal matrix R of one order.
pub(super) enum Rotation {
    /// H·diag(signs).
    Hadamard { matrix: Hadamard, signs: Vec<f64> },
    /// Any matrix `[n, n]`, row-major.
    Dense { n: usize, rows: Vec<f64> },
}

impl Rotation {
    /// H alone: what the forward pass applies to the inputs of down projections.
    pub(super) fn hadamard(n: usize) -> Rotation {
        Rotation::Hadamard { matrix: Hadamard::new(n), signs: vec![1.0; n] }
    }

    /// A random member of `kind`.
    pub(super) fn draw(kind: RotationKind, n: usize, rng: &mut ChaCha8Rng) -> Rotation {
        match kind {
            RotationKind::Hadamard => {
                let signs = (0..n).map(|_| if rng.random::<bool>() { 1.0 } else { -1.0 }).collect();
                Rotation::Hadamard { matrix: Hadamard::new(n), signs }
            }
            RotationKind::Orthogonal => Rotation::Dense { n, rows: orthonormal(n, rng) },
        }
    }

    /// Its order.
    pub(super) fn n(&self) -> usize {
        match self {
            Rotation::Hadamard { matrix, .. } => matrix.n(),
            Rotation::Dense { n, .. } => *n,
        }
    }

    /// x = R·x.
    pub(super) fn apply(&self, x: &mut [f64]) {
        match self {
            Rotation::Hadamard { matrix, signs } => {
                x.iter_mut().zip(signs).for_each(|(x, sign)| *x *= sign);
                matrix.apply(x);
            }
            Rotation::Dense { n, rows } => {
                let old = x.to_vec();
                let rows = rows.chunks_exact((*n).max(1));
                x.iter_mut().zip(rows).for_each(|(x, row)| *x = row.iter().zip(&old).map(|(r, o)| r * o).sum());
            }
        }
    }
}

/// The rows of a Haar-distributed rotation: Gaussians, orthonormalised by Gram and Schmidt, twice for the last digits.
fn orthonormal(n: usize, rng: &mut ChaCha8Rng) -> Vec<f64> {
    let mut rows = Vec::with_capacity(n * n);
    for _ in 0..n {
        let mut row: Vec<f64> = (0..n).map(|_| normal(rng)).collect();
        for _ in 0..2 {
            for other in rows.chunks_exact(n) {
                let along: f64 = row.iter().zip(other).map(|(a, b): (&f64, &f64)| a * b).sum();
                row.iter_mut().zip(other).for_each(|(a, b)| *a -= along * b);
            }
            let length = row.iter().map(|v| v * v).sum::<f64>().sqrt();
            row.iter_mut().for_each(|v| *v /= length);
        }
        rows.extend(row);
    }
    rows
}

/// A draw from N(0, 1), by Box and Muller.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (u, angle) = (1.0 - rng.random::<f64>(), std::f64::consts::TAU * rng.random::<f64>());
    (-2.0 * u.ln()).sqrt() * angle.cos()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn rotations_are_orthogonal_and_mix() {
        for kind in [RotationKind::Hadamard, RotationKind::Orthogonal] {
            for n in [1, 4, 12, 24, 32, 64] {
                let rotation = Rotation::draw(kind, n, &mut ChaCha8Rng::seed_from_u64(7));
                let columns: Vec<Vec<f64>> = (0..n)
                    .map(|i| {
                        let mut e = vec![0.0; n];
                        e[i] = 1.0;
                        rotation.apply(&mut e);
                        e
                    })
                    .collect();
                for (i, a) in columns.iter().enumerate() {
                    for (j, b) in columns.iter().enumerate() {
                        let dot: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                        assert!((dot - f64::from(u8::from(i == j))).abs() < 1e-12, "{kind:?} of order {n}: {dot}");
                    }
                    if kind == RotationKind::Hadamard {
                        assert!(a.iter().all(|v| (v.abs() - (n as f64).powf(-0.5)).abs() < 1e-12));
                    }
                }
            }
        }
    }

    #[test]
    fn hadamard_is_the_one_that_runs_online() {
        let cpu = cpu_kernels::Cpu::new(None, 1).expect("the best level is there");
        for n in [7, 24, 52, 96, 768] {
            let x: Vec<f64> = (0..n).map(|i| (i * 37 % 101) as f64 / 50.0 - 1.0).collect();
            let (mut folded, mut online) = (x.clone(), x.iter().map(|&v| v as f32).collect::<Vec<_>>());
            Rotation::hadamard(n).apply(&mut folded);
            Hadamard::new(n).forward(&cpu, &mut online, 1);
            folded.iter().zip(&online).for_each(|(a, b)| assert!((a - f64::from(*b)).abs() < 1e-5, "{n}: {a} {b}"));
        }
    }
}
