//! SageAttention's smoothing of keys: what it keeps, and what it saves int8 scores.

use anyhow::Result;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use super::{at, value};
use crate::worker::{Held, Outcome};

/// Queries and keys of a head.
const ROWS: usize = 256;
/// Features of a head.
const DIM: usize = 64;
/// Size of the bias that some channels of the keys share, over their deviation of 1.
const BIASES: [f64; 4] = [0.0, 2.0, 8.0, 32.0];
/// Every how many channels have it.
const EVERY: usize = 8;

/// For each size of a channel bias in the keys (x): `softmax_difference`, the largest change of a softmax weight when the mean of the keys
/// over tokens is subtracted (f64); `int8_error_ratio`, the squared error of int8 softmax inputs (scores less their row's mean) with
/// the subtraction over that without; `int8_weight_error_ratio`, the same of the softmax weights, absolute errors.
pub fn keys(held: &Held) -> Result<Outcome> {
    let mut events = vec![];
    for bias in BIASES {
        let mut rng = ChaCha8Rng::seed_from_u64(held.scenario().seed);
        let q: Vec<f64> = (0..ROWS * DIM).map(|_| normal(&mut rng)).collect();
        let mut k: Vec<f64> = (0..ROWS * DIM).map(|_| normal(&mut rng)).collect();
        for row in k.chunks_exact_mut(DIM) {
            row.iter_mut().step_by(EVERY).for_each(|v| *v += bias);
        }
        let smooth = less_mean(&k);
        let (exact, smoothed) = (scores(&q, &k), scores(&q, &smooth));
        let pairs = weights(&exact).into_iter().zip(weights(&smoothed));
        events.push(value("softmax_difference", bias, super::largest_difference(pairs)));
        let [plain_error, smooth_error] = [&k, &smooth].map(|k| int8_scores(&q, k)).map(|s| centred_error(&s, &exact));
        events.push(value("int8_error_ratio", bias, smooth_error / plain_error));
        let absolute = |k: &[f64]| -> f64 {
            weights(&int8_scores(&q, k)).iter().zip(weights(&exact)).map(|(a, b)| (a - b).abs()).sum()
        };
        events.push(value("int8_weight_error_ratio", bias, absolute(&smooth) / absolute(&k)));
    }
    events.push(value("keys", 0.0, at(ROWS)));
    Ok(events.into())
}

/// Keys less their mean over tokens.
fn less_mean(k: &[f64]) -> Vec<f64> {
    let mut out = k.to_vec();
    for channel in 0..DIM {
        let mean = k.iter().skip(channel).step_by(DIM).sum::<f64>() / ROWS as f64;
        out.iter_mut().skip(channel).step_by(DIM).for_each(|v| *v -= mean);
    }
    out
}

/// q·kᵀ/√d `[ROWS, ROWS]`.
fn scores(q: &[f64], k: &[f64]) -> Vec<f64> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() / (DIM as f64).sqrt();
    q.chunks_exact(DIM).flat_map(|q| k.chunks_exact(DIM).map(move |k| dot(q, k))).collect()
}

/// The same of q and k rounded to int8, one scale per token: codes are whole numbers, so their products are exact.
fn int8_scores(q: &[f64], k: &[f64]) -> Vec<f64> {
    let round = |x: &[f64]| -> Vec<f64> {
        let of_row = |row: &[f64]| {
            let step = row.iter().fold(f64::MIN_POSITIVE, |m, v| m.max(v.abs())) / 127.0;
            row.iter().map(|v| (v / step).round() * step).collect::<Vec<_>>()
        };
        x.chunks_exact(DIM).flat_map(of_row).collect()
    };
    scores(&round(q), &round(k))
}

/// Squared error of scores, each row less its mean, because softmax does not see constants.
fn centred_error(found: &[f64], exact: &[f64]) -> f64 {
    let rows = found.chunks_exact(ROWS).zip(exact.chunks_exact(ROWS));
    let of_row = |(found, exact): (&[f64], &[f64])| {
        let errors: Vec<f64> = found.iter().zip(exact).map(|(a, b)| a - b).collect();
        let mean = errors.iter().sum::<f64>() / ROWS as f64;
        errors.iter().map(|e| (e - mean).powi(2)).sum::<f64>()
    };
    rows.map(of_row).sum()
}

/// Softmax of each row.
fn weights(scores: &[f64]) -> Vec<f64> {
    let of_row = |row: &[f64]| {
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = row.iter().map(|s| (s - largest).exp()).sum();
        row.iter().map(|s| (s - largest).exp() / total).collect::<Vec<_>>()
    };
    scores.chunks_exact(ROWS).flat_map(of_row).collect()
}

/// A draw from N(0, 1), by Box and Muller.
pub(super) fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (u, angle) = (1.0 - rng.random::<f64>(), std::f64::consts::TAU * rng.random::<f64>());
    (-2.0 * u.ln()).sqrt() * angle.cos()
}
