//! Attention alone over growing lengths: random q, k, v of one layer through the cell's attention variant.

use anyhow::Result;
use kv_cache::KvSpec;
use model::{Activations, Attention, Device, HeadShape, KvCache, KvShape, SeqId, Step, TokenId};
use rand::{SeedableRng, rngs::ChaCha8Rng};
use rand_distr::{Distribution, StandardNormal};
use results::trace::{Event, Work};

use super::cell::{Held, Outcome};
use crate::stopwatch::Stopwatch;

const SEQ: SeqId = SeqId(0);
/// Length at which the variant is compared with a naive f64 computation.
pub const CHECKED_LENGTH: usize = 160;
/// Calls per timed sample are raised until one sample lasts this long, so that the clock's grain does not matter.
const SAMPLE_NS: u64 = 2_000_000;

/// One sweep: which lengths, which heads, how many query rows.
pub struct Sweep<'a> {
    /// Numbers of keys.
    pub lengths: &'a [usize],
    /// Heads.
    pub shape: &'a HeadShape,
    /// Query rows, which stand at the last positions; every position when absent.
    pub rows: Option<usize>,
}

/// Random q, k, v of one layer.
pub struct Problem {
    /// Queries `[rows, heads · head_dim]`.
    pub q: Activations,
    kv: Box<dyn KvCache>,
    step: Step,
    /// Keys `[n, kv_heads · head_dim]`.
    pub k: Activations,
    /// Values, like the keys.
    pub v: Activations,
}

/// Time, scratch bytes and operation counts of the cell's attention at each length.
pub fn attention(held: &Held, sweep: &Sweep<'_>, full: bool, repetition: u32) -> Result<Outcome> {
    let (spec, shape, seed) = (&held.cells[0].spec.attention, sweep.shape, held.scenario().seed);
    let attention = spec.build(&held.device)?;
    let mut events = vec![];
    if repetition == 0 {
        for full in [false, true] {
            let problem = sweep.problem(&held.device, seed, CHECKED_LENGTH, full)?;
            let mut out = Activations::default();
            attention.forward(&problem.step, 0, shape, &problem.q, &*problem.kv, &mut out);
            let (error, largest) = problem.error_against_f64(shape, full, &out);
            events.extend(check_events(error, largest, full));
        }
    }
    for &n in sweep.lengths {
        for full in if full { vec![false, true] } else { vec![false] } {
            let problem = sweep.problem(&held.device, seed, n, full)?;
            let (ns, calls) = timed(&*attention, shape, &problem);
            events.extend(sweep.timed_events(&spec.tag(), n, full, ns, calls));
            if repetition == 0 && !full {
                events.push(Event::Value {
                    name: "attention_scratch_bytes".into(),
                    x: n as f64,
                    value: attention.scratch_bytes(shape, sweep.rows.unwrap_or(n), n) as f64,
                });
            }
        }
    }
    Ok(events.into())
}

/// The outcome of the comparison with f64.
pub fn check_events(error: f64, largest: f64, full: bool) -> [Event; 2] {
    let name = if full { "attention_full_vs_f64" } else { "attention_causal_vs_f64" };
    let limit = 1e-5 * largest;
    [
        Event::Value { name: "attention_relative_error".into(), x: CHECKED_LENGTH as f64, value: error / largest },
        Event::Check { name: name.into(), value: error, limit, passed: error <= limit },
    ]
}

impl Sweep<'_> {
    /// Events of `calls` passes over `n` keys by the variant called `tag`, which took `ns` together.
    pub fn timed_events(&self, tag: &str, n: usize, full: bool, ns: u64, calls: u64) -> [Event; 2] {
        let name = if full { "attention_full" } else { "attention" };
        let s = self.shape;
        let rows = self.rows.map_or(String::new(), |rows| format!(" r{rows}"));
        [
            Event::Value { name: format!("{name}_ms"), x: n as f64, value: ns as f64 / calls.max(1) as f64 / 1e6 },
            Event::Kernel {
                op: name.into(),
                rung: tag.into(),
                shape: format!("n{n}{rows} h{}/{} d{}", s.n_heads, s.n_kv_heads, s.head_dim),
                calls,
                duration_ns: ns,
                work: self.floor(n, full, calls),
            },
        ]
    }

    /// Least work of `calls` passes: every q, k, v read and every output written once, two products per visible pair.
    fn floor(&self, n: usize, full: bool, calls: u64) -> Work {
        let (shape, rows) = (self.shape, self.rows.unwrap_or(n));
        let pairs = if full { rows * n } else { rows * (n - rows) + rows * (rows + 1) / 2 };
        let values = 2 * rows * shape.n_heads + 2 * n * shape.n_kv_heads;
        let (flops, bytes) = (4 * pairs * shape.n_heads * shape.head_dim, 4 * values * shape.head_dim);
        Work { bytes: calls * bytes as u64, flops: calls * flops as u64, int8_ops: 0 }
    }

    /// Causal: a row sees keys up to its own position. Full: every row stands at the last position, so it sees all keys.
    pub fn problem(&self, device: &Device, seed: u64, n: usize, full: bool) -> Result<Problem> {
        let (shape, rows) = (self.shape, self.rows.unwrap_or(n).min(n));
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ n as u64);
        let mut random = |rows: usize, cols: usize| {
            Activations::from_vec(rows, cols, (0..rows * cols).map(|_| StandardNormal.sample(&mut rng)).collect())
        };
        let q = random(rows, shape.n_heads * shape.head_dim);
        let (k, v) = (random(n, shape.n_kv_heads * shape.head_dim), random(n, shape.n_kv_heads * shape.head_dim));
        let kv_shape = KvShape::new(1, shape.n_kv_heads, shape.head_dim);
        let mut kv = KvSpec::default().build(kv_shape, n, device)?;
        kv.reserve(SEQ, n)?;
        kv.append(0, &Step::extend(SEQ, 0, &vec![TokenId(0); n]), &k, &v);
        let mut step = Step::extend(SEQ, n - rows, &vec![TokenId(0); rows]);
        if full {
            step.positions = vec![n as u32 - 1; rows];
        }
        Ok(Problem { q, kv, step, k, v })
    }
}

fn timed(attention: &dyn Attention, shape: &HeadShape, problem: &Problem) -> (u64, u64) {
    let mut out = Activations::default();
    let mut run = |calls: u64| {
        let clock = Stopwatch::start();
        for _ in 0..calls {
            attention.forward(&problem.step, 0, shape, &problem.q, &*problem.kv, &mut out);
        }
        clock.ns()
    };
    let once = run(1).max(1);
    let calls = (SAMPLE_NS / once).clamp(1, 1000);
    (run(calls), calls)
}

impl Problem {
    /// Largest |Δ| of `out` against the definition in f64, and the largest |output|; NaN stays NaN.
    pub fn error_against_f64(&self, shape: &HeadShape, full: bool, out: &Activations) -> (f64, f64) {
        let (n, rows) = (self.k.rows(), self.q.rows());
        let (mut worst, mut largest) = (0.0f64, 0.0f64);
        for row in 0..rows {
            let visible = if full { n } else { n - rows + row + 1 };
            for head in 0..shape.n_heads {
                let (h, kv) = (head * shape.head_dim, head / shape.group() * shape.head_dim);
                let q = &self.q.row(row)[h..h + shape.head_dim];
                let score = |t: usize| {
                    q.iter().zip(&self.k.row(t)[kv..]).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>()
                        * f64::from(shape.scale)
                };
                let scores: Vec<f64> = (0..visible).map(score).collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = scores.iter().map(|s| (s - max).exp()).sum();
                for d in 0..shape.head_dim {
                    let weighed = |(t, s): (usize, &f64)| (s - max).exp() / total * f64::from(self.v.row(t)[kv + d]);
                    let exact: f64 = scores.iter().enumerate().map(weighed).sum();
                    let difference = (exact - f64::from(out.row(row)[h + d])).abs();
                    worst = if worst.is_nan() || difference.is_nan() { f64::NAN } else { worst.max(difference) };
                    largest = largest.max(exact.abs());
                }
            }
        }
        (worst, largest)
    }
}
