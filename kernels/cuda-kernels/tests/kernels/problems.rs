//! Seeded inputs, and ladders judged by their own oracles.

use cuda_kernels::Bench;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use rand_distr::StandardNormal;

/// `count` normal numbers.
pub fn normals(count: usize, seed: u64) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| random.sample(StandardNormal)).collect()
}

/// `count` whole numbers below `end`.
pub fn random(count: usize, end: u32, seed: u64) -> Vec<u32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| random.random_range(0..end)).collect()
}

/// Runs every rung that can run on poisoned memory and holds it to its oracle; the names of those that ran.
pub fn climb(problem: &dyn Bench) -> Vec<&'static str> {
    let mut ran = vec![];
    for (rung, runs) in problem.rungs() {
        if runs.is_err() {
            continue;
        }
        problem.poison().unwrap();
        problem.run(rung.name).unwrap_or_else(|e| panic!("{} of {}: {e}", rung.name, problem.label()));
        let deviation = problem.deviation(rung.name).unwrap();
        assert!(deviation.is_within(), "{} of {}: {deviation:?}", rung.name, problem.label());
        ran.push(rung.name);
    }
    ran
}
