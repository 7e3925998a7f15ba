//! What every attention variant must satisfy: the formula, and the same bits for a row whatever it shares a Step with.

use std::ops::Range;

use super::plain_cache::PlainCache;
use super::value;
use crate::{Activations, Attention, HeadShape, KvCache, KvShape, SeqId, Span, Step, TokenId, Visibility};

/// max|Δout| allowed against the f64 oracle, relative to max|out| of the Step.
pub const TOLERANCE: f64 = 1e-5;

/// One attention problem.
#[derive(Debug, Clone)]
pub struct Case {
    /// What it is about.
    pub name: String,
    /// Heads and scoring.
    pub shape: HeadShape,
    /// (entries already cached, rows of the Step) of each sequence.
    pub spans: Vec<(usize, usize)>,
    /// The cache shows at most this many entries at a time, ending at its multiples.
    pub piece: usize,
    /// Past positions that the cache no longer holds, as after eviction.
    pub gap: Range<usize>,
}

/// The layer used, not 0, so that a variant that reads the wrong one fails.
const LAYER: usize = 1;

impl Case {
    fn new(name: &str, shape: HeadShape, spans: &[(usize, usize)]) -> Case {
        Case { name: name.into(), shape, spans: spans.to_vec(), piece: usize::MAX, gap: 0..0 }
    }

    fn kv_shape(&self) -> KvShape {
        KvShape::new(LAYER + 1, self.shape.n_kv_heads, self.shape.head_dim)
    }

    /// Rows of the Step.
    pub fn rows(&self) -> usize {
        self.spans.iter().map(|(_, rows)| rows).sum()
    }

    /// Query, key or value rows of positions `positions` of sequence `seq`; every element depends on its place alone.
    fn values(&self, kind: u64, seq: usize, positions: &[usize], n_heads: usize) -> Activations {
        let cols = n_heads * self.shape.head_dim;
        let place = |p: usize, c: usize| value(kind << 56 | (seq as u64) << 40 | (p as u64) << 16 | c as u64);
        let values = positions.iter().flat_map(|&p| (0..cols).map(move |c| (p, c))).map(|(p, c)| place(p, c)).collect();
        Activations::from_vec(positions.len(), cols, values)
    }

    /// Queries of a sequence.
    fn queries(&self, seq: usize, positions: Range<usize>) -> Activations {
        self.values(0, seq, &positions.collect::<Vec<_>>(), self.shape.n_heads)
    }

    /// Positions that the cache holds, the keys and the values there.
    fn keys(&self, seq: usize, positions: Range<usize>) -> (Vec<usize>, Activations, Activations) {
        let held: Vec<usize> = positions.filter(|p| !self.gap.contains(p)).collect();
        let of = |kind| self.values(kind, seq, &held, self.shape.n_kv_heads);
        let (k, v) = (of(1), of(2));
        (held, k, v)
    }

    fn append(&self, kv: &mut dyn KvCache, seq: usize, positions: Range<usize>) {
        let (held, k, v) = self.keys(seq, positions.clone());
        kv.append(LAYER, &step_at(seq, &held, positions.end - self.gap.len().min(positions.end)), &k, &v);
    }

    /// The Step of `seq` at `positions`, which lie behind the gap.
    fn step(&self, seq: usize, positions: Range<usize>) -> Step {
        step_at(seq, &positions.clone().collect::<Vec<_>>(), positions.end - self.gap.len())
    }

    /// A cache holding everything up to the Step's last rows, the Step and its queries.
    fn whole(&self) -> (PlainCache, Step, Activations) {
        let mut kv = PlainCache::new(self.kv_shape(), self.piece);
        let mut parts = vec![];
        let mut q = vec![];
        for (seq, &(past, rows)) in self.spans.iter().enumerate() {
            self.append(&mut kv, seq, 0..past + rows);
            parts.push(self.step(seq, past..past + rows));
            q.extend_from_slice(self.queries(seq, past..past + rows).as_slice());
        }
        let q = Activations::from_vec(self.rows(), self.shape.n_heads * self.shape.head_dim, q);
        (kv, Step::batch(&parts), q)
    }

    /// What `attention` gives for the Step.
    pub fn run(&self, attention: &dyn Attention) -> Activations {
        let (kv, step, q) = self.whole();
        // A wrong shape and wrong contents on entry: forward has to set both.
        let mut out = Activations::from_vec(1, 3, vec![f32::NAN; 3]);
        attention.forward(&step, LAYER, &self.shape, &q, &kv, &mut out);
        out
    }
}

fn step_at(seq: usize, positions: &[usize], kv_len: usize) -> Step {
    let rows = positions.len();
    Step {
        tokens: vec![TokenId(0); rows],
        positions: positions.iter().map(|&p| p as u32).collect(),
        spans: vec![Span { seq: SeqId(seq as u32), rows: 0..rows, kv_len }],
        logit_rows: vec![],
        visibility: Visibility::Causal,
    }
}

/// Problems around the sizes of tiles and vectors, with every scoring option.
pub fn cases() -> Vec<Case> {
    let heads = HeadShape::new;
    let mut cases = vec![
        Case::new("one key", heads(2, 2, 16), &[(0, 1)]),
        Case::new("one row, long past", heads(4, 1, 64), &[(2500, 1)]),
        Case::new("verification rows", heads(4, 2, 64), &[(1021, 5)]),
        Case::new("ragged batch", heads(4, 2, 32), &[(0, 7), (63, 1), (64, 1), (65, 3), (0, 70), (129, 1)]),
        Case::new("two tiles and one", heads(2, 1, 64), &[(0, 129)]),
        Case::new("window", HeadShape { window: Some(9), ..heads(4, 2, 32) }, &[(0, 100), (150, 1), (60, 6)]),
        Case::new("window of one tile", HeadShape { window: Some(64), ..heads(2, 1, 32) }, &[(100, 70), (1500, 2)]),
        Case::new("window of one key", HeadShape { window: Some(1), ..heads(2, 2, 16) }, &[(0, 40)]),
        Case::new("window over sections", HeadShape { window: Some(1100), ..heads(2, 1, 16) }, &[(2200, 3)]),
        Case::new("soft cap", HeadShape { softcap: Some(2.0), scale: 1.0, ..heads(4, 2, 32) }, &[(0, 50), (70, 1)]),
        Case::new("unscaled", HeadShape { scale: 1.0, ..heads(2, 2, 64) }, &[(0, 40)]),
    ];
    for head_dim in [16, 20, 32, 64, 128] {
        for n_kv_heads in [1, 2, 4] {
            let shape = heads(4, n_kv_heads, head_dim);
            cases.push(Case::new(
                &format!("4 heads on {n_kv_heads} of {head_dim}"),
                shape,
                &[(0, 33), (31, 2), (40, 1)],
            ));
        }
    }
    for rows in [2, 15, 16, 17, 31, 32, 63, 64, 65] {
        cases.push(Case::new(&format!("{rows} rows"), heads(2, 1, 20), &[(0, rows)]));
    }
    let pieces: Vec<Case> = [1, 7, 16, 48]
        .into_iter()
        .map(|piece| Case { piece, ..Case::new(&format!("pieces of {piece}"), heads(4, 2, 32), &[(0, 70), (130, 3)]) })
        .collect();
    cases.extend(pieces);
    for window in [None, Some(20), Some(120)] {
        let shape = HeadShape { window, ..heads(4, 2, 32) };
        cases.push(Case {
            gap: 4..90,
            ..Case::new(&format!("a gap, window {window:?}"), shape, &[(100, 1), (150, 40), (95, 3)])
        });
    }
    cases
}

/// Everything below, over [`cases`].
pub fn check(attention: &dyn Attention) -> Result<(), String> {
    for case in cases() {
        matches_oracle(attention, &case)?;
        ignores_company(attention, &case)?;
    }
    groups_agree(attention)
}

/// The output of the Step against softmax(q·kᵀ)·v in f64.
pub fn matches_oracle(attention: &dyn Attention, case: &Case) -> Result<(), String> {
    let (_, step, q) = case.whole();
    let out = case.run(attention);
    let about = format!("{}, {}", attention.kernel_name(), case.name);
    if (out.rows(), out.cols()) != (q.rows(), q.cols()) {
        return Err(format!("{about}: output is {}x{}, queries are {}x{}", out.rows(), out.cols(), q.rows(), q.cols()));
    }
    let mut expected = vec![];
    for span in &step.spans {
        let seq = span.seq.0 as usize;
        let last = step.positions[span.rows.end - 1] as usize;
        let keys = case.keys(seq, 0..last + 1);
        for row in span.rows.clone() {
            for head in 0..case.shape.n_heads {
                expected.extend(oracle(&case.shape, head, step.positions[row] as usize, q.row(row), &keys));
            }
        }
    }
    let largest = expected.iter().fold(0.0f64, |m, e| m.max(e.abs()));
    for (i, (&found, &expected)) in out.as_slice().iter().zip(&expected).enumerate() {
        let error = (f64::from(found) - expected).abs();
        if error.is_nan() || error > TOLERANCE * largest {
            let (row, col) = (i / out.cols(), i % out.cols());
            return Err(format!(
                "{about}: out[{row}, {col}] = {found}, the f64 oracle gives {expected} (largest {largest})"
            ));
        }
    }
    Ok(())
}

/// One row of one head in f64, key by key.
fn oracle(
    shape: &HeadShape,
    head: usize,
    position: usize,
    q: &[f32],
    keys: &(Vec<usize>, Activations, Activations),
) -> Vec<f64> {
    let (d, (positions, k, v)) = (shape.head_dim, keys);
    let (of_q, of_kv) = (head * d, head / shape.group() * d);
    let seen = |p: usize| p <= position && shape.window.is_none_or(|window| position - p < window);
    let seen: Vec<usize> = (0..positions.len()).filter(|&key| seen(positions[key])).collect();
    let score = |&key: &usize| {
        let dot: f64 = (0..d).map(|i| f64::from(q[of_q + i]) * f64::from(k.row(key)[of_kv + i])).sum();
        let score = dot * f64::from(shape.scale);
        shape.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
    };
    let scores: Vec<f64> = seen.iter().map(score).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
    let total: f64 = weights.iter().sum();
    let feature =
        |i: usize| weights.iter().zip(&seen).map(|(w, &key)| w * f64::from(v.row(key)[of_kv + i])).sum::<f64>();
    (0..d).map(|i| feature(i) / total).collect()
}

/// Each row alone, and each sequence in two Steps, gives the bits that the whole Step gave.
pub fn ignores_company(attention: &dyn Attention, case: &Case) -> Result<(), String> {
    let whole = case.run(attention);
    let mut base = 0;
    for (seq, &(past, rows)) in case.spans.iter().enumerate() {
        for split in [1, rows.div_ceil(2)] {
            let mut kv = PlainCache::new(case.kv_shape(), case.piece);
            case.append(&mut kv, seq, 0..past);
            let mut out = Activations::default();
            for start in (0..rows).step_by(split) {
                let positions = past + start..past + (start + split).min(rows);
                case.append(&mut kv, seq, positions.clone());
                let q = case.queries(seq, positions.clone());
                attention.forward(&case.step(seq, positions), LAYER, &case.shape, &q, &kv, &mut out);
                for row in 0..out.rows() {
                    let (alone, together) = (out.row(row), whole.row(base + start + row));
                    if !same_bits(alone, together) {
                        let (name, at) = (&case.name, past + start + row);
                        return Err(format!(
                            "{}, {name}: position {at} of sequence {seq} differs between a Step of {split} rows and the whole Step",
                            attention.kernel_name()
                        ));
                    }
                }
            }
        }
        base += rows;
    }
    Ok(())
}

/// Whether two outputs are the same bit for bit.
pub fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// Grouped queries are an arrangement, not another formula: replicating the KV heads gives the same output (the case of
/// one group per head is plain multi-head attention).
pub fn groups_agree(attention: &dyn Attention) -> Result<(), String> {
    let (n_heads, head_dim, rows) = (4, 32, 40);
    for n_kv_heads in [1, 2] {
        let grouped = Case::new("grouped", HeadShape::new(n_heads, n_kv_heads, head_dim), &[(0, rows)]);
        let (kv, step, q) = grouped.whole();
        let (mut expected, mut found) = (Activations::default(), Activations::default());
        attention.forward(&step, LAYER, &grouped.shape, &q, &kv, &mut expected);
        let full = HeadShape::new(n_heads, n_heads, head_dim);
        let mut replicated = PlainCache::new(KvShape::new(LAYER + 1, n_heads, head_dim), usize::MAX);
        let copy = |x: Activations| {
            let values = (0..rows).flat_map(|r| (0..n_heads).map(move |h| (r, h / (n_heads / n_kv_heads))));
            let values = values.flat_map(|(r, h)| x.row(r)[h * head_dim..(h + 1) * head_dim].to_vec()).collect();
            Activations::from_vec(rows, n_heads * head_dim, values)
        };
        let (_, k, v) = grouped.keys(0, 0..rows);
        replicated.append(LAYER, &step, &copy(k), &copy(v));
        attention.forward(&step, LAYER, &full, &q, &replicated, &mut found);
        let difference =
            expected.as_slice().iter().zip(found.as_slice()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        if difference.is_nan() || difference > 1e-5 {
            let name = attention.kernel_name();
            return Err(format!("{name}: {n_kv_heads} KV heads and their {n_heads} replicas differ by {difference}"));
        }
    }
    Ok(())
}
