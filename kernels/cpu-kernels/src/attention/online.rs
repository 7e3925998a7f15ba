//! What: one step of the online softmax on a row of scores, in base 2.
//! Source: Milakov and Gimelshein 2018 (arXiv:1805.02867, alg. 3).
//! Shapes: one row of any length; m and l are its maximum and its sum so far.
//! Method: scores arrive multiplied by log₂e, so that e^(s−m) is 2^(s'−m'): 1. maximum on four accumulators;
//! 2. 2^(s'−m') by `exp2_lanes`; 3. sum on two accumulators and the fixed tree.
//! Exactness: 2^x is at most 2 ULP off on \[−125, 0\] (tested against f64); below −125 it is 0.

use crate::cpu::Cpu;
use crate::exp::{exp2_lanes, load_at, store_at};
use crate::simd::{LANES, Simd, dispatch};

/// One row's step of the online softmax: with m' = max(m, max(scores)), turns the scores into 2^(s − m'), sets
/// l ← l·f + Σ 2^(s − m') and m ← m', and returns f = 2^(m − m') by which earlier sums must be scaled.
/// While everything seen is −∞, the row becomes zeros, m and l stay, and f is 1.
pub fn online_softmax_update(cpu: &Cpu, scores: &mut [f32], m: &mut f32, l: &mut f32) -> f32 {
    update(cpu, scores, m, l)
}

dispatch! {
    fn update(scores: &mut [f32], m: &mut f32, l: &mut f32) -> f32 = update_generic
}

#[inline(always)]
fn update_generic<S: Simd>(s: S, scores: &mut [f32], m: &mut f32, l: &mut f32) -> f32 {
    const WAYS: usize = 4;
    let mut most = [s.splat(f32::NEG_INFINITY); WAYS];
    for start in (0..scores.len()).step_by(WAYS * LANES) {
        for way in 0..WAYS {
            let at = start + way * LANES;
            if at < scores.len() {
                most[way] = s.max(load_at(s, scores, at, f32::NEG_INFINITY), most[way]);
            }
        }
    }
    let tile_max = s.maximum(s.max(s.max(most[0], most[1]), s.max(most[2], most[3])));
    let m_new = if tile_max > *m { tile_max } else { *m };
    if m_new == f32::NEG_INFINITY {
        scores.fill(0.0);
        return 1.0;
    }
    let factor = if m_new == *m { 1.0 } else { (*m - m_new).exp2() };
    let shift = s.splat(m_new);
    let mut sums = [s.splat(0.0); 2];
    for start in (0..scores.len()).step_by(2 * LANES) {
        for way in 0..2 {
            let at = start + way * LANES;
            if at < scores.len() {
                let e = exp2_lanes(s, s.sub(load_at(s, scores, at, f32::NEG_INFINITY), shift));
                store_at(s, scores, at, e);
                sums[way] = s.add(sums[way], e);
            }
        }
    }
    *l = *l * factor + s.sum(s.add(sums[0], sums[1]));
    *m = m_new;
    factor
}
