//! Packed weight formats: what their kernels compute against what the format says.

use anyhow::Result;
use cpu_kernels::linear::{LutTables, PackedLut};
use cpu_kernels::{GroupCodes, PackedF32, PackedGroup};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use super::{at, largest_difference, value};
use crate::worker::{Held, Outcome};

/// Output and input features.
const N: usize = 320;
const K: usize = 1024;
/// Columns of a table's scale.
const BLOCK: usize = 64;

/// Random codes with one scale and zero per 128 columns.
fn codes(rng: &mut ChaCha8Rng, bits: u8) -> GroupCodes {
    let top = (1u16 << bits) - 1;
    let groups = N * K / 128;
    let scales = (0..groups).map(|_| rng.random_range(1..64) as f32 / 1024.0);
    GroupCodes {
        n: N,
        k: K,
        bits,
        group: 128,
        scales: scales.collect(),
        codes: (0..N * K).map(|_| rng.random_range(0..=top) as u8).collect(),
        zeros: vec![f32::from(top) * 0.5; groups],
        order: None,
    }
}

fn uniform(rng: &mut ChaCha8Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| rng.random_range(-1.0f32..1.0)).collect()
}

/// x = bits. `differing_sums`: outputs of the lookup kernel on one block of 64 columns, scales 1, that are not exactly the
/// integer sum of table entries, by the definition from the codes, times the step; `relative_error`: outputs over all columns
/// against the product with the decoded weights in f64, over Σ|w·x|: what rounding the tables to bytes costs.
pub fn lookup_exact(held: &Held) -> Result<Outcome> {
    let cpu = held.device.cpu();
    let mut rng = ChaCha8Rng::seed_from_u64(held.scenario().seed);
    let mut events = vec![];
    for bits in 1..=4u8 {
        let (mut source, x) = (codes(&mut rng, bits), uniform(&mut rng, K));
        let packed = PackedLut::from_codes(&source);
        let (weights, mut y) = (packed.unpack(), vec![0.0; N]);
        packed.forward(cpu, &x, 1, &mut y);
        let errors = weights.chunks_exact(K).zip(&y).map(|(w, y)| {
            let terms = w.iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(*x));
            let (exact, size) = terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()));
            ((f64::from(*y) - exact) / size, 0.0)
        });
        events.push(value("relative_error", at(bits.into()), largest_difference(errors)));
        source.scales.fill(1.0);
        let packed = PackedLut::from_codes(&source);
        let mut differing = 0;
        for block in 0..K / BLOCK {
            let mut alone = vec![0.0; K];
            alone[block * BLOCK..][..BLOCK].copy_from_slice(&x[block * BLOCK..][..BLOCK]);
            let tables = LutTables::of(cpu, &alone);
            packed.forward(cpu, &alone, 1, &mut y);
            let defined = |row: usize| block_sum(&source, &tables, row, block) as f32 * (tables.step(block) * 0.5);
            differing += (0..N).filter(|&row| y[row] != defined(row)).count();
        }
        events.push(value("differing_sums", at(bits.into()), at(differing)));
    }
    Ok(events.into())
}

/// Σ over planes and tables of one block of one output, from the codes.
fn block_sum(source: &GroupCodes, tables: &LutTables, row: usize, block: usize) -> i32 {
    let codes = &source.codes[row * K + block * BLOCK..][..BLOCK];
    let plane = |t: u8| -> i32 {
        let entry = |(table, codes): (usize, &[u8])| {
            let signs = (0..4).map(|i| usize::from(codes[i] >> t & 1) << i).sum();
            tables.entry(block, table, signs)
        };
        codes.chunks_exact(4).enumerate().map(entry).sum()
    };
    (0..source.bits).map(|t| plane(t) << t).sum()
}

/// x = rows. `relative_error`: the fused 4-bit product against the f32 product with its decoded weights, over the largest
/// result.
pub fn dequantise_then_multiply(held: &Held) -> Result<Outcome> {
    let cpu = held.device.cpu();
    let mut rng = ChaCha8Rng::seed_from_u64(held.scenario().seed);
    let packed = PackedGroup::from_codes(codes(&mut rng, 4));
    let decoded = PackedF32::pack(&packed.unpack(), N, K);
    let mut events = vec![];
    for rows in [1, 2, 4, 8, 16, 32] {
        let x = uniform(&mut rng, rows * K);
        let (mut fused, mut plain) = (vec![0.0; rows * N], vec![0.0; rows * N]);
        packed.forward(cpu, &x, rows, &mut fused);
        decoded.forward(cpu, &x, rows, &mut plain);
        let largest = plain.iter().fold(0.0f64, |m, v| m.max(f64::from(v.abs())));
        let pairs = fused.iter().zip(&plain).map(|(a, b)| (f64::from(*a), f64::from(*b)));
        events.push(value("relative_error", at(rows), largest_difference(pairs) / largest));
    }
    Ok(events.into())
}
