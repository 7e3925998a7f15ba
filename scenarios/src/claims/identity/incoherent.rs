//! FlashAttention-3's attention in 8-bit floats, emulated: what scales per block and incoherent queries and keys save.

use anyhow::Result;
use cpu_kernels::Hadamard;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use super::{at, value};
use crate::worker::{Held, Outcome};

/// Heads of a tensor: a single head's error hangs on where its few outliers fall.
const HEADS: usize = 24;
/// Queries of a head whose results are compared.
const QUERIES: usize = 64;
/// Rows that share a scale where scales are per block.
const BLOCK: usize = 128;
/// Keys where head dims are compared, and head dim where key counts are.
const KEYS: usize = 4096;
const DIM: usize = 128;
/// One value in a thousand has a deviation of ten beside its own.
const OUTLIERS: (f64, f64) = (0.001, 10.0);

/// What is done before queries and keys are rounded.
#[derive(Clone, Copy)]
struct Way {
    /// One scale per [`BLOCK`] rows instead of one per tensor; values too.
    per_block: bool,
    /// Queries and keys times random signs and a Hadamard matrix.
    rotated: bool,
}

const PLAIN: Way = Way { per_block: false, rotated: false };
const WAYS: [(&str, Way); 4] = [
    ("per_tensor", PLAIN),
    ("per_block", Way { per_block: true, ..PLAIN }),
    ("hadamard", Way { rotated: true, ..PLAIN }),
    ("per_block_hadamard", Way { per_block: true, rotated: true }),
];

/// `[heads][rows][dim]` of each.
struct Tensors {
    heads: usize,
    dim: usize,
    q: Vec<f64>,
    k: Vec<f64>,
    v: Vec<f64>,
}

/// Root mean squared error of e4m3 attention against f64, of random tensors with outliers: `rms_…` of each way and `rms_ratio`, per
/// tensor over per block with Hadamard, by head dim (x) at 4096 keys; `rms_ratio_by_keys` by keys (x) at head dim 128; and
/// `score_difference`, the largest change of a score (f64) by the rotation.
pub fn eight_bit_floats(held: &Held) -> Result<Outcome> {
    let mut events = vec![];
    let mut rng = ChaCha8Rng::seed_from_u64(held.scenario().seed);
    for dim in [64, DIM, 256] {
        // more draws where the claim is judged
        let tensors = Tensors::draw(&mut rng, if dim == DIM { HEADS } else { HEADS / 4 }, dim, KEYS);
        let (signs, exact) = (tensors.signs(&mut rng), tensors.exact());
        let errors = WAYS.map(|(_, way)| tensors.error(way, &signs, &exact));
        events.extend(WAYS.iter().zip(errors).map(|((name, _), rms)| value(&format!("rms_{name}"), at(dim), rms)));
        events.push(value("rms_ratio", at(dim), errors[0] / errors[3]));
        events.push(value("score_difference", at(dim), tensors.score_difference(&signs)));
    }
    for keys in [512, 1024, 2048] {
        let tensors = Tensors::draw(&mut rng, HEADS / 2, DIM, keys);
        let (signs, exact) = (tensors.signs(&mut rng), tensors.exact());
        let ratio = tensors.error(WAYS[0].1, &signs, &exact) / tensors.error(WAYS[3].1, &signs, &exact);
        events.push(value("rms_ratio_by_keys", at(keys), ratio));
    }
    Ok(events.into())
}

impl Tensors {
    fn draw(rng: &mut ChaCha8Rng, heads: usize, dim: usize, keys: usize) -> Tensors {
        let mut of = |rows: usize| (0..heads * rows * dim).map(|_| with_outliers(rng)).collect();
        Tensors { heads, dim, q: of(QUERIES), k: of(keys), v: of(keys) }
    }

    fn signs(&self, rng: &mut ChaCha8Rng) -> Vec<f64> {
        (0..self.dim).map(|_| if rng.random::<bool>() { 1.0 } else { -1.0 }).collect()
    }

    /// Rows times diag(signs)·H, which keeps their products.
    fn rotate(&self, rows: &[f64], signs: &[f64]) -> Vec<f64> {
        let matrix = Hadamard::new(self.dim);
        let mut rows = rows.to_vec();
        for row in rows.chunks_exact_mut(self.dim) {
            row.iter_mut().zip(signs).for_each(|(x, sign)| *x *= sign);
            matrix.apply(row);
        }
        rows
    }

    /// The results in f64.
    fn exact(&self) -> Vec<f64> {
        self.attend(&self.q, &self.k, &self.v, |weight| weight)
    }

    /// Root mean squared error of the results in one way.
    fn error(&self, way: Way, signs: &[f64], exact: &[f64]) -> f64 {
        let (q, k) = match way.rotated {
            true => (self.rotate(&self.q, signs), self.rotate(&self.k, signs)),
            false => (self.q.clone(), self.k.clone()),
        };
        let [q, k, v] =
            [&q, &k, &self.v].map(|rows| quantise(rows, if way.per_block { BLOCK * self.dim } else { rows.len() }));
        // weights are at most 1 and go to 8 bits as well, times 2⁸
        let found = self.attend(&q, &k, &v, |weight| e4m3(weight * 256.0) / 256.0);
        let squares: f64 = found.iter().zip(exact).map(|(f, e)| (f - e).powi(2)).sum();
        (squares / at(exact.len())).sqrt()
    }

    /// softmax(q·kᵀ/√dim)·v, each weight (largest 1) through `round` where it meets the values, and not where weights are summed.
    fn attend(&self, q: &[f64], k: &[f64], v: &[f64], round: impl Fn(f64) -> f64) -> Vec<f64> {
        let keys = k.len() / self.heads;
        let heads = q.chunks_exact(QUERIES * self.dim).zip(k.chunks_exact(keys)).zip(v.chunks_exact(keys));
        let mut out = Vec::with_capacity(q.len());
        for ((q, k), v) in heads {
            for query in q.chunks_exact(self.dim) {
                let scores: Vec<f64> =
                    k.chunks_exact(self.dim).map(|key| dot(query, key) / at(self.dim).sqrt()).collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let (mut row, mut sum) = (vec![0.0; self.dim], 0.0);
                for (score, value) in scores.iter().zip(v.chunks_exact(self.dim)) {
                    let weight = (score - largest).exp();
                    sum += weight;
                    let weight = round(weight);
                    row.iter_mut().zip(value).for_each(|(o, v)| *o += weight * v);
                }
                out.extend(row.into_iter().map(|o| o / sum));
            }
        }
        out
    }

    /// The largest change of a score of the first head.
    fn score_difference(&self, signs: &[f64]) -> f64 {
        let (q, k) = (self.rotate(&self.q, signs), self.rotate(&self.k, signs));
        let mut pairs = vec![];
        for i in 0..QUERIES {
            for j in 0..QUERIES {
                let of = |q: &[f64], k: &[f64]| dot(&q[i * self.dim..][..self.dim], &k[j * self.dim..][..self.dim]);
                pairs.push((of(&self.q, &self.k), of(&q, &k)));
            }
        }
        super::largest_difference(pairs.into_iter())
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Rounds runs of `run` values to e4m3, each under one scale that takes its largest to the format's.
fn quantise(values: &[f64], run: usize) -> Vec<f64> {
    let of_run = |values: &[f64]| {
        let scale = values.iter().fold(f64::MIN_POSITIVE, |m, v| m.max(v.abs())) / 448.0;
        values.iter().map(|v| e4m3(v / scale) * scale).collect::<Vec<_>>()
    };
    values.chunks(run).flat_map(of_run).collect()
}

/// The nearest number of 4 exponent and 3 mantissa bits, ties to even, at most 448.
fn e4m3(x: f64) -> f64 {
    if x == 0.0 {
        return 0.0;
    }
    // below 2⁻⁶ numbers are evenly spaced
    let exponent = (((x.to_bits() >> 52) & 0x7ff) as i32 - 1023).max(-6);
    let step = f64::from_bits(((exponent - 3 + 1023) as u64) << 52);
    ((x / step).round_ties_even() * step).clamp(-448.0, 448.0)
}

/// A draw from N(0, 1) + N(0, 100)·Bernoulli(0.001), as in the paper's section 4.3.
fn with_outliers(rng: &mut ChaCha8Rng) -> f64 {
    let (chance, deviation) = OUTLIERS;
    let base = super::smoothing::normal(rng);
    if rng.random::<f64>() < chance { base + deviation * super::smoothing::normal(rng) } else { base }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_to_the_numbers_of_the_format() {
        // every number of the format stays: (8 + m)·2^(e − 3) and the evenly spaced ones below 2⁻⁶
        for m in 0..8 {
            assert_eq!(e4m3(f64::from(m) / 512.0), f64::from(m) / 512.0);
            for e in -6..=8 {
                let x = f64::from(8 + m) * 2f64.powi(e - 3);
                assert_eq!(e4m3(x), x.min(448.0));
                assert_eq!(e4m3(-x), -x.min(448.0));
            }
        }
        // ties go to the even mantissa
        assert_eq!([1.0625, 1.1875, 500.0, 0.0].map(e4m3), [1.0, 1.25, 448.0, 0.0]);
    }
}
