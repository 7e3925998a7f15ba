//! Attention alone on random q, k, v: exactness, grouping, and what the two FlashAttention loops count.

use anyhow::Result;
use attention::{AttentionSpec, BlockedSpec, FlashOrder, FlashSpec};
use model::{Activations, Attention, HeadShape, KvCache, KvShape, SeqId, Span, Step, TokenId, Visibility};
use rand::{SeedableRng, rngs::ChaCha8Rng};
use rand_distr::{Distribution, StandardNormal};
use results::trace::Event;

use super::{at, largest_difference, value};
use crate::machine::{self, Misses};
use crate::worker::{Held, Outcome};

/// A sequence: entries already cached and rows of the Step.
type Lengths = (usize, usize);

/// Random sequences in the cell's cache, and the Step that queries them.
struct Problem {
    shape: HeadShape,
    kv: Box<dyn KvCache>,
    step: Step,
    q: Activations,
    /// Keys and values of each sequence, `[past + rows, n_kv_heads·head_dim]`.
    keys: Vec<[Activations; 2]>,
}

impl Problem {
    /// `full`: every row sees all keys of its sequence.
    fn random(held: &Held, shape: HeadShape, sequences: &[Lengths], full: bool) -> Result<Problem> {
        let mut rng = ChaCha8Rng::seed_from_u64(held.scenario().seed);
        let mut random = |rows: usize, heads: usize| {
            let cols = heads * shape.key_dim;
            Activations::from_vec(rows, cols, (0..rows * cols).map(|_| StandardNormal.sample(&mut rng)).collect())
        };
        let rows = sequences.iter().map(|(_, rows)| rows).sum();
        let q = random(rows, shape.n_heads);
        let keys =
            sequences.iter().map(|(past, rows)| [0; 2].map(|_| random(past + rows, shape.n_key_heads))).collect();
        Problem::of(held, shape, sequences, full, q, keys)
    }

    fn of(
        held: &Held,
        shape: HeadShape,
        sequences: &[Lengths],
        full: bool,
        q: Activations,
        keys: Vec<[Activations; 2]>,
    ) -> Result<Problem> {
        let longest = sequences.iter().map(|(past, rows)| past + rows).sum();
        let kv_shape = KvShape::new(1, shape.n_key_heads, shape.key_dim);
        let mut kv = held.cells[0].spec.kv.build(kv_shape, longest, &held.device)?;
        let mut steps = vec![];
        for (i, (&(past, rows), [k, v])) in sequences.iter().zip(&keys).enumerate() {
            let (seq, len) = (SeqId(i as u32), past + rows);
            kv.reserve(seq, len)?;
            kv.append(0, &part(seq, 0, len), k, v);
            let mut step = part(seq, past, rows);
            if full {
                step.visibility = Visibility::Full;
            }
            steps.push(step);
        }
        Ok(Problem { shape, kv, step: Step::batch(&steps), q, keys })
    }

    fn run(&self, attention: &dyn Attention) -> Activations {
        let mut out = Activations::default();
        attention.forward(&self.step, 0, &self.shape, &self.q, &*self.kv, &mut out);
        out
    }

    /// softmax(q·kᵀ·scale)·v in f64, `[rows][n_heads·head_dim]`.
    fn exact(&self) -> Vec<Vec<f64>> {
        let (shape, d) = (&self.shape, self.shape.key_dim);
        let mut all = vec![];
        for span in &self.step.spans {
            let [k, v] = &self.keys[span.seq.0 as usize];
            for row in span.rows.clone() {
                let mut out = vec![];
                for head in 0..shape.n_heads {
                    let (q, kv) = (&self.q.row(row)[head * d..][..d], head / shape.group() * d);
                    let full = self.step.visibility == Visibility::Full;
                    let visible = 0..if full { k.rows() } else { self.step.positions[row] as usize + 1 };
                    let score = |t: usize| {
                        q.iter().zip(&k.row(t)[kv..]).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>()
                    };
                    let scores: Vec<f64> = visible.map(|t| score(t) * f64::from(shape.scale)).collect();
                    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
                    let total: f64 = weights.iter().sum();
                    out.extend((0..d).map(|i| {
                        weights.iter().enumerate().map(|(t, w)| w * f64::from(v.row(t)[kv + i])).sum::<f64>() / total
                    }));
                }
                all.push(out);
            }
        }
        all
    }
}

/// Rows `start..start + rows` of a sequence.
fn part(seq: SeqId, start: usize, rows: usize) -> Step {
    let spans = vec![Span { seq, rows: 0..rows, kv_len: start + rows }];
    let positions = (start..start + rows).map(|p| p as u32).collect();
    Step { tokens: vec![TokenId(0); rows], positions, spans, logit_rows: vec![], visibility: Visibility::Causal }
}

/// `relative_error_…`: max|Δ| against f64 over max|out|, for four shapes of Step.
pub fn exact(held: &Held) -> Result<Outcome> {
    let attention = held.cells[0].spec.attention.build(&held.device)?;
    let cases: [(&str, &[Lengths], bool); 4] = [
        ("relative_error_causal", &[(0, 300)], false),
        ("relative_error_full", &[(0, 257)], true),
        ("relative_error_ragged", &[(0, 7), (63, 1), (64, 1), (65, 3), (0, 130), (511, 2)], false),
        ("relative_error_one_row", &[(2047, 1)], false),
    ];
    let mut events = vec![];
    for (name, sequences, full) in cases {
        for head_dim in [64, 128] {
            let problem = Problem::random(held, HeadShape::new(4, 2, head_dim), sequences, full)?;
            let (out, exact) = (problem.run(&*attention), problem.exact());
            let largest = exact.iter().flatten().fold(0.0f64, |m, v| m.max(v.abs()));
            let pairs = exact.iter().flatten().zip(out.as_slice()).map(|(a, b)| (*a, f64::from(*b)));
            events.push(value(name, at(head_dim), largest_difference(pairs) / largest));
        }
    }
    Ok(events.into())
}

/// Columns of head `head` for every row.
fn head_of(x: &Activations, head: usize, d: usize) -> Activations {
    let values = (0..x.rows()).flat_map(|row| x.row(row)[head * d..][..d].to_vec()).collect();
    Activations::from_vec(x.rows(), d, values)
}

/// `per_head_difference`: G groups against one single-head attention per query head, head h reading KV head ⌊h·G/H⌋;
/// `repeated_kv_difference`: G groups against plain multi-head attention over repeated keys and values. x = G.
pub fn grouped_queries(held: &Held) -> Result<Outcome> {
    const HEADS: usize = 8;
    const DIM: usize = 64;
    let attention = held.cells[0].spec.attention.build(&held.device)?;
    let sequences: &[Lengths] = &[(0, 150), (100, 1)];
    let mut events = vec![];
    for groups in [1, 2, 4, HEADS] {
        let grouped = Problem::random(held, HeadShape::new(HEADS, groups, DIM), sequences, false)?;
        let out = grouped.run(&*attention);
        let kv_head = |head: usize| head * groups / HEADS;
        let one_head = HeadShape::new(1, 1, DIM);
        let mut gaps = vec![];
        for head in 0..HEADS {
            let keys = grouped.keys.iter().map(|kv| [0, 1].map(|i| head_of(&kv[i], kv_head(head), DIM))).collect();
            let alone =
                Problem::of(held, one_head, sequences, false, head_of(&grouped.q, head, DIM), keys)?.run(&*attention);
            let ours = head_of(&out, head, DIM);
            gaps.push(difference(&ours, &alone));
        }
        let repeat = |x: &Activations| {
            let values = (0..x.rows())
                .flat_map(|row| (0..HEADS).flat_map(move |h| x.row(row)[kv_head(h) * DIM..][..DIM].to_vec()));
            Activations::from_vec(x.rows(), HEADS * DIM, values.collect())
        };
        let keys = grouped.keys.iter().map(|kv| [0, 1].map(|i| repeat(&kv[i]))).collect();
        let repeated = Problem::of(held, HeadShape::new(HEADS, HEADS, DIM), sequences, false, grouped.q.clone(), keys)?
            .run(&*attention);
        events.push(value(
            "per_head_difference",
            at(groups),
            largest_difference(gaps.into_iter().map(|gap| (gap, 0.0))),
        ));
        events.push(value("repeated_kv_difference", at(groups), difference(&out, &repeated)));
    }
    Ok(events.into())
}

fn difference(a: &Activations, b: &Activations) -> f64 {
    largest_difference(a.as_slice().iter().zip(b.as_slice()).map(|(a, b)| (f64::from(*a), f64::from(*b))))
}

/// Per length N: output writes and divisions of both loop orders over full attention, in units of N·d (times T_c, the
/// key tiles, for order `fa1`), and the difference of their outputs.
pub fn unnormalised(held: &Held) -> Result<Outcome> {
    let shape = HeadShape::new(4, 4, 64);
    let order = |order| FlashSpec { order, ..FlashSpec::default() };
    let (first, second) = (order(FlashOrder::Fa1), order(FlashOrder::Fa2));
    let key_tile = first.key_tile;
    let (first, second) = (AttentionSpec::Flash(first), AttentionSpec::Flash(second));
    let mut events = vec![];
    for n in [512, 1000, 2048] {
        let mut step = part(SeqId(0), 0, n);
        step.positions = vec![n as u32 - 1; n];
        let unit = (n * shape.n_heads * shape.value_dim) as f64;
        let tiles = n.div_ceil(key_tile) as f64;
        let (one, two) = (first.counts(&shape, &step), second.counts(&shape, &step));
        for (name, count, unit) in [
            ("fa2_writes_per_nd", two.o_writes, unit),
            ("fa2_divisions_per_nd", two.divisions, unit),
            ("fa2_reads_per_nd", two.o_reads, unit),
            ("fa1_writes_per_nd_tiles", one.o_writes, unit * tiles),
            ("fa1_divisions_per_nd_tiles", one.divisions, unit * tiles),
        ] {
            events.push(value(name, at(n), count as f64 / unit));
        }
    }
    let problem = Problem::random(held, shape, &[(0, 300)], true)?;
    let (one, two) = (problem.run(&*first.build(&held.device)?), problem.run(&*second.build(&held.device)?));
    events.push(value("fa1_fa2_difference", at(300), difference(&one, &two)));
    Ok(events.into())
}

/// Full attention of N = 8192 rows of d = 64 with a fast memory of M words, in tiles of M/4d: `words` moved by the
/// FlashAttention-1 loop, `fa2_words` by the FlashAttention-2 loop and `blocked_words` by rows of a materialised score
/// matrix, each `_over_closed_form`. x = M.
pub fn io_model(held: &Held) -> Result<Outcome> {
    const N: usize = 8192;
    const DIM: usize = 64;
    let shape = HeadShape::new(1, 1, DIM);
    let mut step = part(SeqId(0), 0, N);
    step.positions = vec![N as u32 - 1; N];
    let words = |spec: AttentionSpec| spec.counts(&shape, &step).words() as f64;
    let flash = |query_tile, key_tile, order| {
        words(AttentionSpec::Flash(FlashSpec { query_tile, key_tile, order, ..FlashSpec::default() }))
    };
    let (naive, nd, nn) = (words(AttentionSpec::Naive), (N * DIM) as f64, (N * N) as f64);
    let mut events = vec![];
    for tile in [16, 32, 64, 128, 256] {
        let (memory, times) = (at(4 * DIM * tile), (N / tile) as f64);
        // The other side of a tile is at most d, so that its scores take no more than M/4.
        let other = tile.min(DIM);
        let first = flash(other, tile, FlashOrder::Fa1);
        for (name, found, closed_form) in [
            // keys and values once; per key tile queries in, outputs in and out again
            ("words", first, 2.0 * nd + 3.0 * nd * times),
            // queries in and outputs out once; per query tile keys and values
            ("fa2_words", flash(tile, other, FlashOrder::Fa2), 2.0 * nd + 2.0 * nd * times),
            // the same, and each score written and read, before and after the softmax
            ("blocked_words", words(blocked(tile)), 2.0 * nd + 2.0 * nd * times + 4.0 * nn),
        ] {
            events.push(value(name, memory, found));
            events.push(value(&format!("{name}_over_closed_form"), memory, found / closed_form));
        }
        events.push(value("naive_words_over_flash", memory, naive / first));
    }
    events.extend(measured_misses(held)?);
    Ok(events.into())
}

/// Where the processor shows its counters: `NAME_miss_bytes`, the lines that one causal pass over x rows of 64 features took
/// from memory on one thread with cold caches, in bytes, for the materialised scores and both orders of tiles; nothing
/// elsewhere.
fn measured_misses(held: &Held) -> Result<Vec<Event>> {
    const LINE: f64 = 64.0;
    let Ok(mut misses) = Misses::open() else { return Ok(vec![]) };
    let device = held.cells[0].spec.device.open(1)?;
    let order = |order| AttentionSpec::Flash(FlashSpec { order, ..FlashSpec::default() });
    let specs = [("naive", AttentionSpec::Naive), ("fa1", order(FlashOrder::Fa1)), ("fa2", order(FlashOrder::Fa2))];
    let mut events = vec![];
    for n in [1024, 2048, 4096, 8192] {
        let problem = Problem::random(held, HeadShape::new(1, 1, 64), &[(0, n)], false)?;
        for (name, spec) in &specs {
            let attention = spec.build(&device)?;
            problem.run(&*attention);
            machine::evict();
            let count = misses.during(|| _ = problem.run(&*attention)).map_err(anyhow::Error::msg)?;
            events.push(value(&format!("{name}_miss_bytes"), at(n), LINE * count as f64));
        }
    }
    Ok(events)
}

fn blocked(query_block: usize) -> AttentionSpec {
    AttentionSpec::Blocked(BlockedSpec { query_block })
}
