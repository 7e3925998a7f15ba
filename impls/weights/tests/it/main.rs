//! Integration tests of the weights axis.

mod awq;
mod build;
mod calibration;
mod codebook;
mod conformance;
mod gptq;
mod int8;
mod lattice;
mod microscaling;
mod spec;

use cpu_kernels::Cpu;
use model::Device;
use std::sync::Arc;

/// Two threads at the best level.
fn device() -> Device {
    Device::Cpu(Arc::new(Cpu::new(None, 2).expect("the best level is there")))
}

/// Smooth, different for every (seed, n, k), about unit variance.
fn wave(seed: u64, n: usize, k: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add((n * 31 + k) as u64);
    (0..n * k)
        .map(|_| {
            let sum: f64 = (0..4)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    (state >> 11) as f64 / (1u64 << 53) as f64
                })
                .sum();
            ((sum - 2.0) * 3.0f64.sqrt()) as f32
        })
        .collect()
}
