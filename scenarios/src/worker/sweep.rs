//! Attention alone over growing lengths: random q, k, v of one layer through the cell's attention variant.

use anyhow::Result;
use kv_cache::KvSpec;
use model::{Activations, Attention, HeadShape, KvCache, KvShape, SeqId, Step, TokenId};
use rand::{SeedableRng, rngs::ChaCha8Rng};
use rand_distr::{Distribution, StandardNormal};
use results::trace::{Event, Work};

use super::cell::{Held, Outcome};
use crate::stopwatch::Stopwatch;

const SEQ: SeqId = SeqId(0);
/// Length at which the variant is compared with a naive f64 computation.
const CHECKED_LENGTH: usize = 160;
/// Calls per timed sample are raised until one sample lasts this long, so that the clock's grain does not matter.
const SAMPLE_NS: u64 = 2_000_000;

struct Problem {
    q: Activations,
    kv: Box<dyn KvCache>,
    step: Step,
    k: Activations,
    v: Activations,
}

/// Time, scratch bytes and operation counts of the cell's attention at each length.
pub fn attention(held: &Held, lengths: &[usize], shape: &HeadShape, full: bool, repetition: u32) -> Result<Outcome> {
    let spec = &held.cells[0].spec.attention;
    let attention = spec.build(&held.device)?;
    let mut events = vec![];
    if repetition == 0 {
        for full in [false, true] {
            let name = if full { "attention_full_vs_f64" } else { "attention_causal_vs_f64" };
            let (error, largest) = error_against_f64(held, &*attention, shape, full)?;
            events.push(Event::Value {
                name: "attention_relative_error".into(),
                x: CHECKED_LENGTH as f64,
                value: error / largest,
            });
            events.push(Event::Check {
                name: name.into(),
                value: error,
                limit: 1e-5 * largest,
                passed: error <= 1e-5 * largest,
            });
        }
    }
    for &n in lengths {
        for full in if full { vec![false, true] } else { vec![false] } {
            let problem = Problem::random(held, shape, n, full)?;
            let (ns, calls) = timed(&*attention, shape, &problem);
            let name = if full { "attention_full" } else { "attention" };
            let x = n as f64;
            events.push(Event::Value { name: format!("{name}_ms"), x, value: ns as f64 / calls as f64 / 1e6 });
            events.push(Event::Kernel {
                op: name.into(),
                rung: spec.tag(),
                shape: format!("n{n} h{}/{} d{}", shape.n_heads, shape.n_kv_heads, shape.head_dim),
                calls,
                duration_ns: ns,
                work: floor(shape, n, full, calls),
            });
            if repetition == 0 && !full {
                events.push(Event::Value {
                    name: "attention_scratch_bytes".into(),
                    x,
                    value: attention.scratch_bytes(shape, n, n) as f64,
                });
            }
        }
    }
    Ok(events.into())
}

/// Least work of `calls` passes: every q, k, v read and every output written once, two products per visible pair.
fn floor(shape: &HeadShape, n: usize, full: bool, calls: u64) -> Work {
    let pairs = if full { n * n } else { n * (n + 1) / 2 };
    let width = 2 * shape.n_heads + 2 * shape.n_kv_heads;
    let (flops, bytes) = (4 * pairs * shape.n_heads * shape.head_dim, 4 * n * width * shape.head_dim);
    Work { bytes: calls * bytes as u64, flops: calls * flops as u64, int8_ops: 0 }
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
    /// Causal: row i sees keys up to i. Full: every row stands at the last position, so it sees all keys.
    fn random(held: &Held, shape: &HeadShape, n: usize, full: bool) -> Result<Problem> {
        let mut rng = ChaCha8Rng::seed_from_u64(held.scenario().seed ^ n as u64);
        let mut random = |cols: usize| {
            Activations::from_vec(n, cols, (0..n * cols).map(|_| StandardNormal.sample(&mut rng)).collect())
        };
        let (q, k, v) = (
            random(shape.n_heads * shape.head_dim),
            random(shape.n_kv_heads * shape.head_dim),
            random(shape.n_kv_heads * shape.head_dim),
        );
        let kv_shape = KvShape::new(1, shape.n_kv_heads, shape.head_dim);
        let mut kv = KvSpec::default().build(kv_shape, n, &held.device)?;
        kv.reserve(SEQ, n)?;
        let mut step = Step::extend(SEQ, 0, &vec![TokenId(0); n]);
        kv.append(0, &step, &k, &v);
        if full {
            step.positions = vec![n as u32 - 1; n];
        }
        Ok(Problem { q, kv, step, k, v })
    }
}

/// Largest |Δ| against the definition in f64, and the largest |output|.
fn error_against_f64(held: &Held, attention: &dyn Attention, shape: &HeadShape, full: bool) -> Result<(f64, f64)> {
    let n = CHECKED_LENGTH;
    let problem = Problem::random(held, shape, n, full)?;
    let mut out = Activations::default();
    attention.forward(&problem.step, 0, shape, &problem.q, &*problem.kv, &mut out);
    let (mut worst, mut largest) = (0.0f64, 0.0f64);
    for row in 0..n {
        let visible = if full { n } else { row + 1 };
        for head in 0..shape.n_heads {
            let (h, kv) = (head * shape.head_dim, head / shape.group() * shape.head_dim);
            let q = &problem.q.row(row)[h..h + shape.head_dim];
            let score = |t: usize| {
                q.iter().zip(&problem.k.row(t)[kv..]).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>()
                    * f64::from(shape.scale)
            };
            let scores: Vec<f64> = (0..visible).map(score).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = scores.iter().map(|s| (s - max).exp()).sum();
            for d in 0..shape.head_dim {
                let exact: f64 = scores
                    .iter()
                    .enumerate()
                    .map(|(t, s)| (s - max).exp() / total * f64::from(problem.v.row(t)[kv + d]))
                    .sum();
                worst = worst.max((exact - f64::from(out.row(row)[h + d])).abs());
                largest = largest.max(exact.abs());
            }
        }
    }
    Ok((worst, largest))
}
