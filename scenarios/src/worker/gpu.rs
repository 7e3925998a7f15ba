//! Rungs of a GPU's kernel ladders: each is checked against f64 on poisoned outputs, then timed by the device's own clock, with
//! its data in the L2 cache and out of it. An emulated device has no clock: there a run is counted.

use anyhow::{Context, Result};
use cuda_kernels::{Bench, Gpu, GpuError, Number, Rung, attention, gemm, gemv, quantized, roofline};
use results::trace::{Counted, Event, Roof, Work};

use super::cell::{Held, Outcome};
use super::progress;
use crate::scenario::{GpuNumber, GpuProblem};

/// Launches are repeated until one sample lasts this long.
const SAMPLE_MS: f64 = 3.0;
/// Launches of a cold sample: the cache is emptied before each.
const COLD_CALLS: u64 = 10;
/// An emulated device executes some ten million thread instructions a second: larger problems would take hours.
const MOST_EMULATED_FLOPS: u64 = 1 << 25;
/// What memory is read to empty the L2 cache, bytes; no device has a third of it.
const FLUSH_BYTES: usize = 256 << 20;

/// Problems in device memory, kept from one repetition to the next.
#[derive(Default)]
pub struct Benches {
    held: Vec<(GpuProblem, Box<dyn Bench>)>,
    /// What an emulated device has counted: it would count the same again.
    counted: Vec<(GpuProblem, &'static str, Vec<Event>)>,
    flush: Option<Box<dyn Bench>>,
    roof: Option<Roof>,
}

/// Runs the wanted rungs of every problem that this device can.
pub fn ladders(held: &mut Held, problems: &[GpuProblem], rungs: &[String], repetition: u32) -> Result<Outcome> {
    let Some(gpu) = held.device.cuda().map(|cuda| cuda.gpu().clone()) else {
        return Ok(Outcome::Refused("these kernels run on a GPU: give the matrix a device of kind `cuda`".into()));
    };
    let seed = held.scenario().seed;
    let mut benches = held.gpu.take().unwrap_or_default();
    let outcome = run_all(&gpu, &mut benches, problems, rungs, (repetition, seed));
    held.roof = benches.roof.or(held.roof);
    held.gpu = Some(benches);
    outcome
}

fn run_all(
    gpu: &Gpu,
    benches: &mut Benches,
    problems: &[GpuProblem],
    rungs: &[String],
    (repetition, seed): (u32, u64),
) -> Result<Outcome> {
    if !gpu.is_emulated() && benches.roof.is_none() {
        benches.roof = Some(roof(gpu, seed)?);
    }
    let (mut events, mut facts) = (vec![], vec![]);
    for problem in problems {
        if !benches.held.iter().any(|(known, _)| known == problem) {
            benches.held.push((problem.clone(), open(gpu, problem, seed)?));
        }
        let (_, bench) = benches.held.iter().find(|(known, _)| known == problem).context("put there above")?;
        if gpu.is_emulated() && bench.flops() > MOST_EMULATED_FLOPS {
            facts.push((format!("not emulated: {}", bench.label()), "too large for an emulated device".into()));
            continue;
        }
        for (rung, fits) in bench.rungs() {
            if !rungs.is_empty() && !rungs.iter().any(|name| name == rung.name) {
                continue;
            }
            if let Err(reason) = fits {
                facts.push((format!("skipped: {} {}", bench.label(), rung.name), reason));
                continue;
            }
            let known = benches.counted.iter().find(|(of, name, _)| of == problem && *name == rung.name);
            if let Some((_, _, known)) = known {
                events.extend(known.iter().cloned());
                continue;
            }
            progress(&format!("{} {}", bench.label(), rung.name), 0, 1);
            match one(gpu, &**bench, rung, problem, (repetition, benches.flush.as_deref())) {
                Ok(measured) => {
                    if gpu.is_emulated() {
                        benches.counted.push((problem.clone(), rung.name, measured.clone()));
                    }
                    events.extend(measured);
                }
                // a rung that asks for more memory than there is must not take the others with it
                Err(GpuError::OutOfMemory { bytes, free }) => {
                    let reason = format!("out of device memory: {bytes} bytes asked for, {free} free");
                    facts.push((format!("failed: {} {}", bench.label(), rung.name), reason));
                }
                Err(error) => return Err(error).with_context(|| format!("{} {}", bench.label(), rung.name)),
            }
        }
        if benches.flush.is_none() && !gpu.is_emulated() {
            benches.flush = Some(roofline::read_bench(gpu, FLUSH_BYTES, seed)?);
        }
    }
    match events.is_empty() {
        true => Ok(Outcome::Refused(format!("no problem of this workload suits {}", gpu.name()))),
        false => Ok(Outcome::Ran { events, facts }),
    }
}

/// The device's limits: the fastest read of memory, and the fastest 16-bit product of a size that fills it.
fn roof(gpu: &Gpu, seed: u64) -> Result<Roof, GpuError> {
    let fastest = |bench: &dyn Bench, of: fn(&dyn Bench) -> u64| -> Result<f64, GpuError> {
        let mut best = 0.0f64;
        for (rung, fits) in bench.rungs() {
            if fits.is_ok() {
                let (calls, ms) = warm(gpu, bench, rung.name)?;
                best = best.max((calls * of(bench)) as f64 / (ms.max(1e-6) * 1e-3));
            }
        }
        Ok(best)
    };
    let memory = roofline::bench(gpu, 4 * FLUSH_BYTES, seed)?;
    let product = gemm::bench(gpu, 8192, 8192, 8192, Number::Bf16, seed)?;
    let stream_bytes_s = fastest(&*memory, |bench| bench.bytes())?;
    Ok(Roof {
        stream_bytes_s,
        cache_bytes_s: stream_bytes_s,
        fma_flop_s: fastest(&*product, |bench| bench.flops())?,
        int8_op_s: 0.0,
        // bytes are only counted of samples whose cache was emptied
        llc_bytes: 1,
    })
}

/// `problem` in the memory of `gpu`.
fn open(gpu: &Gpu, problem: &GpuProblem, seed: u64) -> Result<Box<dyn Bench>> {
    Ok(match *problem {
        GpuProblem::Attention { batch, heads, kv_heads, queries, keys, head_dim, causal, number } => {
            let shape = attention::ForwardShape {
                batch,
                heads,
                kv_heads,
                q_len: queries,
                kv_len: keys.unwrap_or(queries),
                dim: head_dim,
                causal,
                window: None,
                number: stored(number),
            };
            attention::forward_bench(gpu, shape, seed)?
        }
        GpuProblem::Gemv { rows, n, k, number } => gemv::bench(gpu, stored(number), rows, n, k, seed)?,
        GpuProblem::Quantized { rows, n, k, bits, group } => quantized::bench(gpu, bits, group, rows, n, k, seed)?,
        GpuProblem::AttentionDecode { batch, heads, kv_heads, keys, head_dim, number } => {
            let heads = attention::Heads {
                heads,
                kv_heads,
                dim: head_dim,
                scale: 1.0 / (head_dim as f32).sqrt(),
                softcap: None,
                window: None,
            };
            let shape = attention::DecodeShape { sequences: batch, q_rows: 1, max_length: keys, heads };
            attention::decode_bench(gpu, shape, stored(number), seed)?
        }
        GpuProblem::Gemm { m, n, k, number } => gemm::bench(gpu, m, n, k, stored(number), seed)?,
        GpuProblem::Memory { megabytes } => roofline::bench(gpu, megabytes * 1_000_000, seed)?,
    })
}

fn stored(number: GpuNumber) -> Number {
    match number {
        GpuNumber::F32 => Number::F32,
        GpuNumber::F16 => Number::F16,
        GpuNumber::Bf16 => Number::Bf16,
    }
}

/// Checks once, then times or counts.
fn one(
    gpu: &Gpu,
    bench: &dyn Bench,
    rung: Rung,
    problem: &GpuProblem,
    (repetition, flush): (u32, Option<&dyn Bench>),
) -> Result<Vec<Event>, GpuError> {
    let mut events = vec![];
    if repetition == 0 || gpu.is_emulated() {
        bench.poison()?;
        let start = gpu.counts();
        bench.run(rung.name)?;
        if let (Some(start), Some(end)) = (start, gpu.counts()) {
            events.push(Event::Emulated {
                op: problem.op().into(),
                rung: rung.name.into(),
                shape: problem.shape(),
                counted: counted(&start, &end),
            });
        }
        let deviation = bench.deviation(rung.name)?;
        events.push(Event::Check {
            name: format!("{} {}", bench.label(), rung.name),
            value: deviation.largest,
            limit: deviation.allowed,
            passed: deviation.is_within(),
        });
        if !deviation.is_within() {
            return Ok(events);
        }
    }
    if gpu.is_emulated() {
        return Ok(events);
    }
    let (calls, ms) = warm(gpu, bench, rung.name)?;
    events.push(timed(problem, bench, rung, " warm", calls, ms));
    if let Some(flush) = flush {
        let ms = cold(gpu, bench, rung.name, flush)?;
        events.push(timed(problem, bench, rung, "", COLD_CALLS, ms));
    }
    Ok(events)
}

fn counted(start: &cuda_kernels::Counts, end: &cuda_kernels::Counts) -> Counted {
    let sectors = |counts: &cuda_kernels::Counts| 32 * (counts.global_read_sectors + counts.global_write_sectors);
    Counted {
        thread_instructions: end.thread_instructions - start.thread_instructions,
        mma_flops: end.mma_flops - start.mma_flops,
        memory_bytes: sectors(end) - sectors(start),
        shared_requests: end.shared_requests - start.shared_requests,
        bank_conflicts: end.shared_conflicts - start.shared_conflicts,
    }
}

/// Back to back: calls and milliseconds of the sample.
fn warm(gpu: &Gpu, bench: &dyn Bench, rung: &str) -> Result<(u64, f64), GpuError> {
    let sample = |calls: u64| -> Result<f64, GpuError> {
        let start = gpu.moment()?;
        (0..calls).try_for_each(|_| bench.run(rung))?;
        let end = gpu.moment()?;
        Ok(f64::from(start.milliseconds_until(&end)?.unwrap_or(0.0)))
    };
    // the first loads the module
    sample(1)?;
    let calls = (SAMPLE_MS / sample(1)?.max(1e-4)).clamp(1.0, 2000.0) as u64;
    Ok((calls, sample(calls)?))
}

/// Each launch behind one that has emptied the cache, which is not counted.
fn cold(gpu: &Gpu, bench: &dyn Bench, rung: &str, flush: &dyn Bench) -> Result<f64, GpuError> {
    let mut marks = vec![];
    for _ in 0..COLD_CALLS {
        flush.run("read")?;
        let start = gpu.moment()?;
        bench.run(rung)?;
        marks.push((start, gpu.moment()?));
    }
    let mut sum = 0.0;
    for (start, end) in &marks {
        sum += f64::from(start.milliseconds_until(end)?.unwrap_or(0.0));
    }
    Ok(sum)
}

/// Of a warm sample no bytes are counted: they came out of a cache that no roof was measured of.
fn timed(problem: &GpuProblem, bench: &dyn Bench, rung: Rung, cache: &str, calls: u64, ms: f64) -> Event {
    let bytes = if cache.is_empty() { calls * bench.bytes() } else { 0 };
    let operations = calls * bench.flops();
    let int8 = matches!(problem, GpuProblem::Quantized { bits: 8, .. });
    let (flops, int8_ops) = if int8 { (0, operations) } else { (operations, 0) };
    Event::Kernel {
        op: format!("{}{cache}", problem.op()),
        rung: rung.name.into(),
        shape: problem.shape(),
        calls,
        duration_ns: (ms * 1e6) as u64,
        work: Work { bytes, flops, int8_ops },
    }
}
