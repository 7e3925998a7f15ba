//! Seeded inputs and plain f64 statements of what kernels compute.

use cpu_kernels::{Cpu, Isa};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

/// `len` values, uniform in ±1.
pub fn values(seed: u64, len: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| rng.random_range(-1.0f32..1.0)).collect()
}

/// One handle per available level and thread count.
pub fn cpus(threads: &[usize]) -> Vec<Cpu> {
    let all = Isa::available().into_iter();
    all.flat_map(|isa| threads.iter().map(move |&t| Cpu::new(Some(isa), t).expect("available"))).collect()
}

/// x\[rows, k\] · W\[n, k\]ᵀ in f64, and Σ|x·w| per output for error bounds.
pub fn linear(x: &[f32], w: &[f32], rows: usize, n: usize, k: usize) -> Vec<(f64, f64)> {
    let mut out = Vec::with_capacity(rows * n);
    for r in 0..rows {
        for i in 0..n {
            let terms = (0..k).map(|j| f64::from(x[r * k + j]) * f64::from(w[i * k + j]));
            out.push(terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs())));
        }
    }
    out
}

/// Asserts |got − want| ≤ tolerance·size per element.
pub fn assert_close(got: &[f32], want: &[(f64, f64)], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}: length");
    for (i, (&got, &(want, size))) in got.iter().zip(want).enumerate() {
        let error = (f64::from(got) - want).abs();
        assert!(error <= tolerance * size + 1e-30, "{what}: element {i}: got {got}, want {want}, size {size}");
    }
}

/// Asserts equal bits.
pub fn assert_same_bits(a: &[f32], b: &[f32], what: &str) {
    assert_eq!(a.len(), b.len(), "{what}: length");
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert_eq!(a.to_bits(), b.to_bits(), "{what}: element {i}: {a} against {b}");
    }
}
