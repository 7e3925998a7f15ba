//! What attention is, in f64 on the CPU: the judge of every rung. And what 16-bit numbers cost a computation that does nothing
//! clever: the measure of how far from the judge a rung may be.

use super::forward::ForwardShape;
use crate::Number;

/// The value of 16 bits.
pub(super) fn widen(bits: u16, number: Number) -> f64 {
    match number {
        Number::F16 => half::f16::from_bits(bits).to_f64(),
        _ => half::bf16::from_bits(bits).to_f64(),
    }
}

/// The nearest number of 16 bits.
pub(super) fn narrow(value: f64, number: Number) -> u16 {
    match number {
        Number::F16 => half::f16::from_f64(value).to_bits(),
        _ => half::bf16::from_f64(value).to_bits(),
    }
}

/// How scores are formed and which keys are seen.
#[derive(Clone, Copy)]
pub(super) struct Scores {
    pub(super) scale: f64,
    pub(super) softcap: Option<f64>,
}

/// One row's result and the logarithm of its sum, over the keys that `seen` names.
pub(super) struct RowResult {
    pub(super) out: Vec<f64>,
    pub(super) lse: f64,
}

/// One query row over keys and values given as functions of (key, dim).
pub(super) fn row(
    query: &[f64],
    seen: std::ops::Range<usize>,
    scores: Scores,
    k: impl Fn(usize, usize) -> f64,
    v: impl Fn(usize, usize) -> f64,
) -> RowResult {
    row_rounding(query, seen, scores, k, v, |x| x)
}

/// The same with every weight and every result rounded by `round`: what an unfused computation in 16 bits does.
pub(super) fn row_rounding(
    query: &[f64],
    seen: std::ops::Range<usize>,
    scores: Scores,
    k: impl Fn(usize, usize) -> f64,
    v: impl Fn(usize, usize) -> f64,
    round: impl Fn(f64) -> f64,
) -> RowResult {
    let mut out = vec![0.0; query.len()];
    if seen.is_empty() {
        return RowResult { out, lse: f64::NEG_INFINITY };
    }
    let score = |key: usize| {
        let dot: f64 = query.iter().enumerate().map(|(d, q)| q * k(key, d)).sum();
        let scaled = dot * scores.scale;
        scores.softcap.map_or(scaled, |cap| cap * (scaled / cap).tanh())
    };
    let all: Vec<f64> = seen.clone().map(score).collect();
    let largest = all.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = all.iter().map(|s| (s - largest).exp()).sum();
    for (key, s) in seen.zip(&all) {
        let weight = round((s - largest).exp() / sum);
        out.iter_mut().enumerate().for_each(|(d, o)| *o += weight * v(key, d));
    }
    out.iter_mut().for_each(|o| *o = round(*o));
    RowResult { out, lse: largest + sum.ln() }
}

/// A forward problem's tensors on the CPU.
pub(super) struct Host<'a> {
    pub(super) shape: ForwardShape,
    pub(super) q: &'a [u16],
    pub(super) k: &'a [u16],
    pub(super) v: &'a [u16],
}

impl Host<'_> {
    /// Keys that row `r` sees.
    fn seen(&self, r: usize) -> std::ops::Range<usize> {
        let s = &self.shape;
        let place = (r + 1 + s.kv_len).saturating_sub(s.q_len);
        let end = if s.causal { place.min(s.kv_len) } else { s.kv_len };
        let begin = s.window.map_or(0, |window| place.saturating_sub(window));
        begin.min(end)..end
    }

    /// Row `r` of one head of one sequence: exact, and as 16-bit numbers would have it.
    pub(super) fn row(&self, batch: usize, r: usize, head: usize) -> (RowResult, RowResult) {
        let (s, number) = (&self.shape, self.shape.number);
        let kv_head = head / (s.heads / s.kv_heads);
        let q_at = ((batch * s.q_len + r) * s.heads + head) * s.dim;
        let kv_at = |key: usize, d: usize| ((batch * s.kv_len + key) * s.kv_heads + kv_head) * s.dim + d;
        let query: Vec<f64> = self.q[q_at..q_at + s.dim].iter().map(|&bits| widen(bits, number)).collect();
        let k = |key: usize, d: usize| widen(self.k[kv_at(key, d)], number);
        let v = |key: usize, d: usize| widen(self.v[kv_at(key, d)], number);
        let scores = Scores { scale: 1.0 / (s.dim as f64).sqrt(), softcap: None };
        let round = |x: f64| widen(narrow(x, number), number);
        (row(&query, self.seen(r), scores, k, v), row_rounding(&query, self.seen(r), scores, k, v, round))
    }
}
