//! What every attention variant must satisfy: the formula, and the same bits for a row whatever it shares a Step with.

use std::ops::Range;

use super::plain_cache::{PlainCache, Stored};
use super::value;
use crate::{Activations, Alibi, Attention, HeadShape, KvCache, KvShape, SeqId, Span, Step, TokenId, Tree, Visibility};

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
    /// What rows see.
    pub sees: Sees,
    /// How the cache stores values; inputs are values that the encoding holds exactly.
    pub stored: Stored,
    /// The value of an entry is the start of its key.
    pub value_prefix: bool,
}

/// Visibility of a case's rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sees {
    /// Keys up to its own position.
    Causal,
    /// Every key of its sequence.
    Full,
    /// The past and its path in a tree.
    Tree(Branching),
}

/// Token trees of any number of rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Branching {
    /// Two continuations of every row.
    Binary,
    /// Three paths that share nothing, row by row in turns.
    ThreePaths,
    /// One path: causal visibility in other words.
    Chain,
}

impl Branching {
    fn parent(self, row: usize) -> Option<usize> {
        match self {
            Branching::Binary => row.checked_sub(1).map(|above| above / 2),
            Branching::ThreePaths => row.checked_sub(3),
            Branching::Chain => row.checked_sub(1),
        }
    }
}

/// The layer used, not 0, so that a variant that reads the wrong one fails.
const LAYER: usize = 1;

impl Case {
    fn new(name: &str, shape: HeadShape, spans: &[(usize, usize)]) -> Case {
        Case {
            name: name.into(),
            shape,
            spans: spans.to_vec(),
            piece: usize::MAX,
            gap: 0..0,
            sees: Sees::Causal,
            stored: Stored::F32,
            value_prefix: false,
        }
    }

    /// Whether it is a causal case over f32 keys.
    pub fn is_plain(&self) -> bool {
        self.sees == Sees::Causal && self.stored == Stored::F32
    }

    fn kv_shape(&self) -> KvShape {
        let HeadShape { n_key_heads, n_value_heads, key_dim, value_dim, .. } = self.shape;
        KvShape { n_layers: LAYER + 1, n_key_heads, n_value_heads, key_dim, value_dim, value_prefix: self.value_prefix }
    }

    fn cache(&self) -> PlainCache {
        PlainCache::new(self.kv_shape(), self.piece).storing(self.stored)
    }

    fn parents(&self, rows: usize) -> Vec<Option<usize>> {
        match self.sees {
            Sees::Tree(branching) => (0..rows).map(|row| branching.parent(row)).collect(),
            _ => (0..rows).map(|row| row.checked_sub(1)).collect(),
        }
    }

    /// Position of the entry in each place of a sequence whose rows begin at `past`: the place itself, but for trees.
    fn position(&self, past: usize, place: usize) -> usize {
        let Some(row) = place.checked_sub(past).filter(|_| matches!(self.sees, Sees::Tree(_))) else { return place };
        let parents = self.parents(row + 1);
        past + std::iter::successors(Some(row), |row| parents[*row]).count() - 1
    }

    /// Rows of the Step.
    pub fn rows(&self) -> usize {
        self.spans.iter().map(|(_, rows)| rows).sum()
    }

    /// Query, key or value rows of positions `positions` of sequence `seq`; every element depends on its place alone.
    fn values(&self, kind: u64, seq: usize, positions: &[usize], cols: usize) -> Activations {
        let stored = if kind == 0 { Stored::F32 } else { self.stored };
        let place =
            |p: usize, c: usize| stored.nearest(value(kind << 56 | (seq as u64) << 40 | (p as u64) << 16 | c as u64));
        let values = positions.iter().flat_map(|&p| (0..cols).map(move |c| (p, c))).map(|(p, c)| place(p, c)).collect();
        Activations::from_vec(positions.len(), cols, values)
    }

    /// Queries of a sequence.
    fn queries(&self, seq: usize, positions: Range<usize>) -> Activations {
        self.values(0, seq, &positions.collect::<Vec<_>>(), self.shape.n_heads * self.shape.key_dim)
    }

    /// Positions that the cache holds, the keys and the values there.
    fn keys(&self, seq: usize, positions: Range<usize>) -> (Vec<usize>, Activations, Activations) {
        let held: Vec<usize> = positions.filter(|p| !self.gap.contains(p)).collect();
        let k = self.values(1, seq, &held, self.kv_shape().key_width());
        let v = self.values(2, seq, &held, self.kv_shape().value_width());
        (held, k, v)
    }

    fn append(&self, kv: &mut dyn KvCache, seq: usize, positions: Range<usize>) {
        let (held, k, v) = self.keys(seq, positions.clone());
        let past = self.spans[seq].0;
        let held: Vec<usize> = held.into_iter().map(|place| self.position(past, place)).collect();
        kv.append(LAYER, &step_at(seq, &held, positions.end - self.gap.len().min(positions.end)), &k, &v);
    }

    /// The Step of `seq` at `positions`, which lie behind the gap.
    fn step(&self, seq: usize, positions: Range<usize>) -> Step {
        let past = self.spans[seq].0;
        let at: Vec<usize> = positions.clone().map(|place| self.position(past, place)).collect();
        let mut step = step_at(seq, &at, positions.end - self.gap.len());
        match self.sees {
            Sees::Causal => {}
            Sees::Full => {
                step.visibility = Visibility::Full;
                step.spans[0].kv_len = past + self.spans[seq].1 - self.gap.len();
            }
            Sees::Tree(_) => {
                let tree = Tree::new(&self.parents(positions.len())).expect("cases have earlier parents");
                step.visibility = Visibility::Tree(tree);
            }
        }
        step
    }

    /// A cache holding everything up to the Step's last rows, the Step and its queries.
    fn whole(&self) -> (PlainCache, Step, Activations) {
        let mut kv = self.cache();
        let mut parts = vec![];
        let mut q = vec![];
        for (seq, &(past, rows)) in self.spans.iter().enumerate() {
            self.append(&mut kv, seq, 0..past + rows);
            parts.push(self.step(seq, past..past + rows));
            q.extend_from_slice(self.queries(seq, past..past + rows).as_slice());
        }
        let q = Activations::from_vec(self.rows(), self.shape.n_heads * self.shape.key_dim, q);
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
        Case::new(
            "distances",
            HeadShape { alibi: Some(Alibi { max_bias: 8.0 }), ..heads(6, 2, 32) },
            &[(0, 100), (150, 3)],
        ),
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
    cases.extend(other_visibilities());
    cases.extend(other_shapes());
    cases
}

/// Full visibility and token trees, with windows, pieces and past of every kind.
fn other_visibilities() -> Vec<Case> {
    let shape = HeadShape::new(4, 2, 32);
    let mut cases = vec![];
    for (name, sees) in [
        ("full", Sees::Full),
        ("binary tree", Sees::Tree(Branching::Binary)),
        ("three paths", Sees::Tree(Branching::ThreePaths)),
        ("chain", Sees::Tree(Branching::Chain)),
    ] {
        let spans = [(0, 33), (255, 7), (60, 1), (1100, 20)];
        cases.push(Case { sees, ..Case::new(name, shape, &spans) });
        cases.push(Case { sees, piece: 16, ..Case::new(&format!("{name} in pieces"), shape, &[(40, 30)]) });
        cases.push(Case { sees, gap: 4..90, ..Case::new(&format!("{name} with a gap"), shape, &[(100, 15)]) });
        if sees != Sees::Full {
            let window = HeadShape { window: Some(5), softcap: Some(3.0), ..shape };
            cases.push(Case { sees, ..Case::new(&format!("{name}, window and cap"), window, &[(3, 40), (300, 12)]) });
        }
    }
    cases
}

/// Keys and values that differ in width or in number of heads, values inside keys, and encoded caches.
fn other_shapes() -> Vec<Case> {
    let spans = [(0, 40), (100, 3), (300, 1)];
    let heads = HeadShape::new(4, 2, 32);
    let latent = HeadShape { key_dim: 36, value_dim: 24, ..HeadShape::new(4, 1, 36) };
    let mut cases = vec![
        Case::new("wide keys", HeadShape { key_dim: 48, ..heads }, &spans),
        Case::new("wide values", HeadShape { value_dim: 50, ..heads }, &spans),
        Case::new("one key head", HeadShape { n_key_heads: 1, key_dim: 40, ..HeadShape::new(4, 4, 16) }, &spans),
        Case::new("one value head", HeadShape { n_value_heads: 1, ..HeadShape::new(4, 4, 16) }, &spans),
        Case { value_prefix: true, ..Case::new("values inside keys", latent, &spans) },
    ];
    for stored in [Stored::F16, Stored::Int8] {
        for head_dim in [20, 64] {
            let name = format!("{stored:?} of {head_dim}");
            cases.push(Case { stored, ..Case::new(&name, HeadShape::new(4, 2, head_dim), &spans) });
        }
        cases.push(Case { stored, value_prefix: true, ..Case::new(&format!("latent {stored:?}"), latent, &spans) });
    }
    cases
}

/// Everything below, over [`cases`].
pub fn check(attention: &dyn Attention) -> Result<(), String> {
    for case in cases() {
        matches_oracle(attention, &case)?;
        ignores_company(attention, &case)?;
        ignores_pieces(attention, &case)?;
    }
    groups_agree(attention)
}

/// The output of the Step against softmax(q·kᵀ)·v in f64.
pub fn matches_oracle(attention: &dyn Attention, case: &Case) -> Result<(), String> {
    let (_, step, q) = case.whole();
    let out = case.run(attention);
    let about = format!("{}, {}", attention.kernel_name(), case.name);
    let cols = case.shape.n_heads * case.shape.value_dim;
    if (out.rows(), out.cols()) != (q.rows(), cols) {
        return Err(format!("{about}: output is {}x{} instead of {}x{cols}", out.rows(), out.cols(), q.rows()));
    }
    let mut expected = vec![];
    for span in &step.spans {
        let seq = span.seq.0 as usize;
        let (past, rows) = case.spans[seq];
        let (places, k, v) = case.keys(seq, 0..past + rows);
        let v = if case.value_prefix { k.clone() } else { v };
        for row in span.rows.clone() {
            let place = past + row - span.rows.start;
            let seen: Vec<usize> = (0..places.len()).filter(|&key| case.is_seen(past, place, places[key])).collect();
            for head in 0..case.shape.n_heads {
                let distance = |key: usize| case.position(past, place) as f64 - case.position(past, places[key]) as f64;
                expected.extend(oracle(&case.shape, head, q.row(row), (&seen, &distance), &k, &v));
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

impl Case {
    /// Whether the row in place `row` of a sequence sees the entry in place `key`.
    fn is_seen(&self, past: usize, row: usize, key: usize) -> bool {
        let distance = || self.position(past, row) - self.position(past, key);
        let near = || self.shape.window.is_none_or(|window| distance() < window);
        match self.sees {
            Sees::Full => true,
            Sees::Causal => key <= row && near(),
            Sees::Tree(_) if key < past => near(),
            Sees::Tree(branching) => {
                std::iter::successors(Some(row - past), |row| branching.parent(*row))
                    .any(|on_path| on_path == key - past)
                    && near()
            }
        }
    }
}

/// One row of one head in f64, key by key.
fn oracle(
    shape: &HeadShape,
    head: usize,
    q: &[f32],
    (seen, distance): (&[usize], &dyn Fn(usize) -> f64),
    k: &Activations,
    v: &Activations,
) -> Vec<f64> {
    let (d, group) = (shape.key_dim, head / shape.group());
    let (of_q, of_k, of_v) = (head * d, shape.key_head(group) * d, shape.value_head(group) * shape.value_dim);
    let score = |&key: &usize| {
        let dot: f64 = (0..d).map(|i| f64::from(q[of_q + i]) * f64::from(k.row(key)[of_k + i])).sum();
        let score = dot * f64::from(shape.scale);
        let capped = shape.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh());
        capped - shape.alibi.map_or(0.0, |alibi| f64::from(alibi.slope(head, shape.n_heads)) * distance(key))
    };
    let scores: Vec<f64> = seen.iter().map(score).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
    let total: f64 = weights.iter().sum();
    let feature = |i: usize| weights.iter().zip(seen).map(|(w, &key)| w * f64::from(v.row(key)[of_v + i])).sum::<f64>();
    (0..shape.value_dim).map(|i| feature(i) / total).collect()
}

/// Each row alone, and each sequence in two Steps, gives the bits that the whole Step gave.
pub fn ignores_company(attention: &dyn Attention, case: &Case) -> Result<(), String> {
    let whole = case.run(attention);
    let mut base = 0;
    for (seq, &(past, rows)) in case.spans.iter().enumerate() {
        // the rows of a tree are one Step by definition
        let splits = if matches!(case.sees, Sees::Tree(_)) { [rows, rows] } else { [1, rows.div_ceil(2)] };
        for split in splits {
            let mut kv = case.cache();
            let before = if case.sees == Sees::Full { past + rows } else { past };
            case.append(&mut kv, seq, 0..before);
            let mut out = Activations::default();
            for start in (0..rows).step_by(split) {
                let positions = past + start..past + (start + split).min(rows);
                if case.sees != Sees::Full {
                    case.append(&mut kv, seq, positions.clone());
                }
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

/// However a cache cuts its entries into tiles, the output has the same bits: a paged cache is a contiguous one.
pub fn ignores_pieces(attention: &dyn Attention, case: &Case) -> Result<(), String> {
    if case.piece != usize::MAX {
        return Ok(());
    }
    let whole = case.run(attention);
    for piece in [1, 16, 100] {
        let pieces = Case { piece, ..case.clone() }.run(attention);
        if !same_bits(pieces.as_slice(), whole.as_slice()) {
            let (kernel, name) = (attention.kernel_name(), &case.name);
            return Err(format!("{kernel}, {name}: tiles of {piece} entries give other bits than one tile"));
        }
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
