//! Attention alone over growing lengths: random q, k, v of one layer through the cell's attention variant and KV cache.

use anyhow::Result;
use attention::{AttentionSpec, Counts};
use cpu_kernels::PackedF32;
use kv_cache::KvSpec;
use model::{Activations, Attention, Device, HeadShape, KvCache, KvShape, SeqId, Step, TokenId, Visibility};
use rand::{SeedableRng, rngs::ChaCha8Rng};
use rand_distr::{Distribution, StandardNormal};
use results::trace::{Event, Work};

use super::cell::{Held, Outcome};
use crate::machine::{self, Misses};
use crate::stopwatch::Stopwatch;

/// Length at which the variant is compared with a naive f64 computation.
pub const CHECKED_LENGTH: usize = 160;
/// Calls per timed sample are raised until one sample lasts this long, so that the clock's grain does not matter.
const SAMPLE_NS: u64 = 2_000_000;

/// Which rows look at which keys.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A whole prompt; row i sees keys up to i.
    Causal,
    /// A whole prompt without a mask.
    Full,
    /// One row per sequence, which sees all of its entries.
    Decode,
}

impl Mode {
    /// Modes of a workload that asks for decoding passes, or for full attention beside causal.
    pub fn asked(decode: bool, full: bool) -> &'static [Mode] {
        match (decode, full) {
            (true, _) => &[Mode::Decode],
            (false, true) => &[Mode::Causal, Mode::Full],
            (false, false) => &[Mode::Causal],
        }
    }

    /// What its rows are called.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Causal => "attention",
            Mode::Full => "attention_full",
            Mode::Decode => "attention_decode",
        }
    }
}

/// Random q, k, v of one layer.
pub struct Problem {
    /// Queries `[rows, heads · key_dim]`.
    pub q: Activations,
    kv: Box<dyn KvCache>,
    step: Step,
    /// Keys of each sequence `[n, key width]`.
    pub k: Activations,
    /// Values `[n, value width]`.
    pub v: Activations,
}

/// What a sweep goes through.
pub struct Sweep<'a> {
    /// Sequence lengths.
    pub lengths: &'a [usize],
    /// Heads.
    pub shape: &'a HeadShape,
    /// Kinds of pass.
    pub modes: &'a [Mode],
    /// Sequences of a decode pass.
    pub batch: usize,
    /// Numbers of threads; none means the scenario's.
    pub threads: &'a [usize],
    /// Time the layer's four projections too.
    pub projections: bool,
}

/// Time, scratch bytes and operation counts of the cell's attention at each length.
pub fn attention(held: &Held, sweep: &Sweep<'_>, repetition: u32) -> Result<Outcome> {
    let (spec, shape) = (&held.cells[0].spec.attention, sweep.shape);
    let attention = spec.build(&held.device)?;
    let source = (held.scenario().seed, &held.cells[0].spec.kv);
    let mut events = if repetition == 0 { checks(held, &*attention, shape, sweep.modes)? } else { vec![] };
    let mut others = vec![];
    for &threads in sweep.threads {
        others.push((threads, spec.build(&held.cells[0].spec.device.open(threads)?)?));
    }
    // the counter sees the calling thread alone
    let mut counter = match Misses::open() {
        Ok(misses) => Some((misses, spec.build(&held.cells[0].spec.device.open(1)?)?)),
        Err(_) => None,
    };
    for &n in sweep.lengths {
        if sweep.projections {
            let ms = projections(held, shape, n);
            events.push(Event::Value { name: "projections_ms".into(), x: n as f64, value: ms });
        }
        for &mode in sweep.modes {
            let problem = Problem::random(&held.device, source, shape, n, mode, sweep.batch)?;
            let (name, x) = (mode.name(), n as f64);
            let mut value = |what: String, value: f64| {
                events.push(Event::Value { name: format!("{name}_{what}"), x, value });
            };
            for (threads, attention) in &others {
                let (ns, calls) = timed(&**attention, shape, &problem);
                value(format!("t{threads}_ms"), ns as f64 / calls as f64 / 1e6);
            }
            let (ns, calls) = timed(&*attention, shape, &problem);
            value("ms".into(), ns as f64 / calls as f64 / 1e6);
            let counts = spec.counts(shape, &problem.step);
            if repetition == 0 {
                for (what, count) in counted(&counts, &problem, shape) {
                    value(what.into(), count);
                }
                let rows = problem.step.rows() / sweep.batch;
                value("scratch_bytes".into(), attention.scratch_bytes(shape, rows, n) as f64);
            }
            if let Some((misses, attention)) = &mut counter {
                value("llc_misses".into(), counted_misses(misses, &**attention, shape, &problem)? as f64);
            }
            let least = least_work(&problem, shape, counts.needed_flops);
            events.push(Event::Kernel {
                op: name.into(),
                rung: spec.tag(),
                shape: format!("n{n} h{}/{} d{}", shape.n_heads, shape.groups(), shape.key_dim),
                calls,
                duration_ns: ns,
                work: Work { bytes: calls * least.bytes, flops: calls * least.flops, int8_ops: 0 },
            });
        }
    }
    Ok(events.into())
}

/// Milliseconds of the four products with weights that stand around attention over `n` rows: q, k and v from the residual
/// stream, stacked, and the output; the stream is as wide as all query heads together.
fn projections(held: &Held, shape: &HeadShape, n: usize) -> f64 {
    let width = shape.n_heads * shape.key_dim;
    let stacked = width + shape.n_key_heads * shape.key_dim + shape.n_value_heads * shape.value_dim;
    let mut rng = ChaCha8Rng::seed_from_u64(held.scenario().seed ^ n as u64);
    let mut random = |len: usize| -> Vec<f32> { (0..len).map(|_| StandardNormal.sample(&mut rng)).collect() };
    let (x, cpu) = (random(n * width), held.device.cpu());
    let weights = [stacked, width].map(|out| PackedF32::pack(&random(out * width), out, width));
    let mut out = weights.each_ref().map(|w| vec![0.0; n * w.n()]);
    let (ns, calls) = sampled(|| {
        for (weight, out) in weights.iter().zip(&mut out) {
            weight.forward(cpu, &x, n, out);
        }
    });
    ns as f64 / calls as f64 / 1e6
}

/// Misses of one pass on one thread that starts with cold caches.
fn counted_misses(misses: &mut Misses, attention: &dyn Attention, shape: &HeadShape, problem: &Problem) -> Result<u64> {
    let mut out = Activations::default();
    let mut pass = || attention.forward(&problem.step, 0, shape, &problem.q, &*problem.kv, &mut out);
    // scratch and output exist afterwards, so that the counted pass maps no page
    pass();
    machine::evict();
    misses.during(pass).map_err(anyhow::Error::msg)
}

/// What a pass moves and computes, by its loops; keys and values in the bytes of their encoding.
fn counted(counts: &Counts, problem: &Problem, shape: &HeadShape) -> [(&'static str, f64); 4] {
    let entry_words = shape.n_key_heads * shape.key_dim + shape.n_value_heads * shape.value_dim;
    let kv_bytes = counts.kv_words as f64 * problem.kv.entry_bytes() as f64 / entry_words as f64;
    let other_bytes = (counts.words() - counts.kv_words) as f64 * size_of::<f32>() as f64;
    [
        ("kv_read_bytes", kv_bytes),
        ("moved_bytes", kv_bytes + other_bytes),
        ("flops", counts.flops as f64),
        ("needed_flops", counts.needed_flops as f64),
    ]
}

fn checks(held: &Held, attention: &dyn Attention, shape: &HeadShape, modes: &[Mode]) -> Result<Vec<Event>> {
    let mut events = vec![];
    let encoding_error = f64::from(held.cells[0].spec.kv.relative_error());
    for &mode in modes {
        let source = (held.scenario().seed, &held.cells[0].spec.kv);
        let problem = Problem::random(&held.device, source, shape, CHECKED_LENGTH, mode, 1)?;
        let mut out = Activations::default();
        attention.forward(&problem.step, 0, shape, &problem.q, &*problem.kv, &mut out);
        // an encoding changes scores by its error times |q|·|k|, a few units for normal q and k
        events.extend(problem.check(shape, mode, &out, 1e-5 + 8.0 * encoding_error));
    }
    Ok(events)
}

/// Least work of a pass: every q and every cached entry read and every output written once, two products per visible
/// pair.
fn least_work(problem: &Problem, shape: &HeadShape, needed_flops: u64) -> Work {
    let entries: usize = problem.step.spans.iter().map(|span| problem.kv.len(0, span.seq)).sum();
    let rows = problem.step.rows() * shape.n_heads * (shape.key_dim + shape.value_dim) * size_of::<f32>();
    Work { bytes: (entries * problem.kv.entry_bytes() + rows) as u64, flops: needed_flops, int8_ops: 0 }
}

fn timed(attention: &dyn Attention, shape: &HeadShape, problem: &Problem) -> (u64, u64) {
    let mut out = Activations::default();
    sampled(|| attention.forward(&problem.step, 0, shape, &problem.q, &*problem.kv, &mut out))
}

/// Nanoseconds of as many calls as a sample needs, and their number; one call goes first.
fn sampled(mut call: impl FnMut()) -> (u64, u64) {
    let mut run = |calls: u64| {
        let clock = Stopwatch::start();
        for _ in 0..calls {
            call();
        }
        clock.ns()
    };
    let once = run(1).max(1);
    let calls = (SAMPLE_NS / once).clamp(1, 1000);
    (run(calls), calls)
}

impl Problem {
    /// `batch` sequences of `n` entries with values of their own. Of a prompt every row is queried, of a decode pass the
    /// last of each sequence.
    pub fn random(
        device: &Device,
        (seed, kv_spec): (u64, &KvSpec),
        shape: &HeadShape,
        n: usize,
        mode: Mode,
        batch: usize,
    ) -> Result<Problem> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ n as u64);
        let mut random = |rows: usize, cols: usize| {
            Activations::from_vec(rows, cols, (0..rows * cols).map(|_| StandardNormal.sample(&mut rng)).collect())
        };
        let rows = if mode == Mode::Decode { batch } else { n };
        let q = random(rows, shape.n_heads * shape.key_dim);
        let kv_shape = KvShape::new(1, shape.n_key_heads, shape.key_dim);
        let (k, v) = (random(n, kv_shape.key_width()), random(n, kv_shape.value_width()));
        let mut kv = kv_spec.build(kv_shape, n, device)?;
        let whole = |seq: u32| Step::extend(SeqId(seq), 0, &vec![TokenId(0); n]);
        for seq in 0..batch as u32 {
            kv.reserve(SeqId(seq), n)?;
            kv.append(0, &whole(seq), &k, &v);
        }
        let mut step = match mode {
            Mode::Decode => {
                let last = |seq: usize| Step::extend(SeqId(seq as u32), n - 1, &[TokenId(0)]);
                Step::batch(&(0..batch).map(last).collect::<Vec<_>>())
            }
            _ => whole(0),
        };
        if mode == Mode::Full {
            step.visibility = Visibility::Full;
        }
        Ok(Problem { q, kv, step, k, v })
    }

    /// `out` against the definition in f64: passes within `tolerance` of the largest output.
    pub fn check(&self, shape: &HeadShape, mode: Mode, out: &Activations, tolerance: f64) -> [Event; 2] {
        let (error, largest) = error_against_f64(self, shape, mode, out);
        let limit = tolerance * largest;
        let (x, passed) = (self.k.rows() as f64, error <= limit);
        [
            Event::Value { name: "attention_relative_error".into(), x, value: error / largest },
            Event::Check { name: format!("{}_vs_f64", mode.name()), value: error, limit, passed },
        ]
    }

    /// Work of the pass that any implementation must do.
    pub fn least_work(&self, shape: &HeadShape) -> Work {
        least_work(self, shape, AttentionSpec::Naive.counts(shape, &self.step).needed_flops)
    }
}

/// Largest |Δ| against the definition in f64, and the largest |output|.
fn error_against_f64(problem: &Problem, shape: &HeadShape, mode: Mode, out: &Activations) -> (f64, f64) {
    let n = problem.k.rows();
    let (mut worst, mut largest, d) = (0.0f64, 0.0f64, shape.key_dim);
    for row in 0..out.rows() {
        let visible = if mode == Mode::Causal { row + 1 } else { n };
        for head in 0..shape.n_heads {
            let (h, kv) = (head * d, head / shape.group() * d);
            let q = &problem.q.row(row)[h..h + d];
            let score = |t: usize| {
                q.iter().zip(&problem.k.row(t)[kv..]).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>()
                    * f64::from(shape.scale)
            };
            let scores: Vec<f64> = (0..visible).map(score).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = scores.iter().map(|s| (s - max).exp()).sum();
            for i in 0..d {
                let exact: f64 = scores
                    .iter()
                    .enumerate()
                    .map(|(t, s)| (s - max).exp() / total * f64::from(problem.v.row(t)[kv + i]))
                    .sum();
                let difference = (exact - f64::from(out.row(row)[h + i])).abs();
                // a NaN must stay
                worst = if worst.is_nan() || difference.is_nan() { f64::NAN } else { worst.max(difference) };
                largest = largest.max(exact.abs());
            }
        }
    }
    (worst, largest)
}
