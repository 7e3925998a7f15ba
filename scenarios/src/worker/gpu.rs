//! Rungs of a GPU's kernel ladders: each is checked against f64 on poisoned outputs, then timed by the device's own clock, with
//! its data in the L2 cache and out of it. An emulated device has no clock: there a run is counted.

pub mod roof;

use std::collections::BTreeSet;

use anyhow::{Result, anyhow};
use cuda_kernels::{Bench, Gpu, GpuError, Number, Rung, attention, gemm, gemv, quantized, roofline};
use results::trace::{Counted, Event, Roof, Work};

use super::cell::{Held, Outcome};
use super::progress;
use crate::scenario::{GpuNumber, GpuProblem};

/// Launches are repeated until one sample lasts this long.
const SAMPLE_MS: f64 = 3.0;
/// Launches of a cold sample: the cache is emptied before each.
const COLD_CALLS: u64 = 10;
/// An emulated device executes thread by thread: much larger problems would take hours.
const MOST_EMULATED_FLOPS: u64 = 1 << 25;
/// What memory is read to empty the L2 cache, bytes; no device has a third of it.
const FLUSH_BYTES: usize = 256 << 20;

/// Why a rung has no time.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("differs from f64 by {largest:e}, {allowed:e} is allowed: it was not timed")]
    Wrong { largest: f64, allowed: f64 },
    #[error(transparent)]
    Gpu(#[from] GpuError),
}

/// Problems in device memory, kept from one repetition to the next.
#[derive(Default)]
pub struct Benches {
    held: Vec<(GpuProblem, Box<dyn Bench>)>,
    /// What an emulated device has counted: it would count the same again.
    counted: Vec<(GpuProblem, &'static str, Vec<Event>)>,
    flush: Option<Box<dyn Bench>>,
    /// Names of rungs that failed or were wrong on a real device.
    lost: BTreeSet<String>,
    roof: Option<Roof>,
}

/// Runs the wanted rungs of every problem that this device can.
pub fn ladders(held: &mut Held, problems: &[GpuProblem], rungs: &[String], repetition: u32) -> Result<Outcome> {
    let Some(gpu) = held.device.cuda().map(|cuda| cuda.gpu().clone()) else {
        return Ok(Outcome::Refused("these kernels run on a GPU: give the matrix a device of kind `cuda`".into()));
    };
    let (seed, benches) = (held.scenario().seed, held.gpu.take().unwrap_or_default());
    let mut pass = Pass { gpu, benches, rungs, repetition, seed, events: vec![], facts: vec![], goes_on: true };
    let outcome = problems.iter().try_for_each(|problem| pass.ladder(problem));
    let Pass { gpu, benches, mut events, facts, .. } = pass;
    if !benches.lost.is_empty() {
        events.push(Event::Value { name: "rungs_lost".into(), x: 0.0, value: benches.lost.len() as f64 });
    }
    held.roof = benches.roof.or(held.roof);
    held.gpu = Some(benches);
    outcome?;
    match events.is_empty() {
        true if gpu.is_emulated() => Ok(Outcome::Refused("its problems are too large to be emulated".into())),
        true => Ok(Outcome::Refused(format!("no problem of this workload suits {}", gpu.name()))),
        false => Ok(Outcome::Ran { events, facts }),
    }
}

/// One repetition of a workload.
struct Pass<'a> {
    gpu: Gpu,
    benches: Benches,
    rungs: &'a [String],
    repetition: u32,
    seed: u64,
    events: Vec<Event>,
    facts: Vec<(String, String)>,
    /// Whether the device takes more work.
    goes_on: bool,
}

impl Pass<'_> {
    /// Every wanted rung on one problem.
    fn ladder(&mut self, problem: &GpuProblem) -> Result<()> {
        if !self.goes_on {
            return Ok(());
        }
        let emulated = self.gpu.is_emulated();
        if !emulated && self.benches.roof.is_none() {
            let roof = roof::measure(&self.gpu, self.seed)?;
            self.facts.extend(roof::facts(&roof));
            // bytes are only counted of samples whose cache was emptied
            self.benches.roof = Some(Roof { cache_bytes_s: roof.stream_bytes_s, llc_bytes: 1, ..roof });
            self.benches.flush = Some(roofline::read_bench(&self.gpu, FLUSH_BYTES, self.seed)?);
        }
        let place = match self.benches.held.iter().position(|(known, _)| known == problem) {
            Some(place) => place,
            None => {
                self.benches.held.push((problem.clone(), open(&self.gpu, problem, self.seed)?));
                self.benches.held.len() - 1
            }
        };
        let bench = &self.benches.held[place].1;
        if emulated && problem.flops() > MOST_EMULATED_FLOPS {
            self.facts.push((format!("not emulated: {}", bench.label()), "too large for an emulated device".into()));
            return Ok(());
        }
        let wanted = |rung: &Rung| self.rungs.is_empty() || self.rungs.iter().any(|name| name == rung.name);
        let (label, all) = (bench.label(), bench.rungs());
        for (rung, fits) in all.into_iter().filter(|(rung, _)| wanted(rung)) {
            match fits {
                Ok(()) => self.rung(place, rung, &format!("{label} {}", rung.name))?,
                Err(reason) => self.facts.push((format!("skipped: {label} {}", rung.name), reason)),
            }
        }
        Ok(())
    }

    /// One rung on the problem at `place`. On a real device one that fails or is wrong must not take the others with it: it
    /// has no time, now and later, and the facts say why. An emulated device is there to find what is wrong.
    fn rung(&mut self, place: usize, rung: Rung, name: &str) -> Result<()> {
        let (problem, bench) = &self.benches.held[place];
        let known = self.benches.counted.iter().find(|(of, counted, _)| of == problem && *counted == rung.name);
        if let Some((_, _, known)) = known {
            self.events.extend(known.iter().cloned());
            return Ok(());
        }
        if !self.goes_on || self.benches.lost.contains(name) {
            return Ok(());
        }
        progress(name, 0, 1);
        match one(&self.gpu, &**bench, rung, problem, (self.repetition, self.benches.flush.as_deref())) {
            Ok(measured) => {
                if self.gpu.is_emulated() {
                    self.benches.counted.push((problem.clone(), rung.name, measured.clone()));
                }
                self.events.extend(measured);
            }
            Err(trouble) if self.gpu.is_emulated() => return Err(anyhow!(trouble).context(name.to_string())),
            Err(trouble) => {
                self.facts.push((format!("failed: {name}"), trouble.to_string()));
                self.benches.lost.insert(name.into());
                if let Err(stopped) = self.gpu.synchronize() {
                    self.facts.push(("the device takes no more work".into(), stopped.to_string()));
                    self.goes_on = false;
                }
            }
        }
        Ok(())
    }
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
) -> Result<Vec<Event>, Trouble> {
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
        if !deviation.is_within() && !gpu.is_emulated() {
            let (largest, allowed) = (deviation.largest, deviation.allowed);
            return Err(Trouble::Wrong { largest, allowed });
        }
        events.push(Event::Check {
            name: format!("{} {}", bench.label(), rung.name),
            value: deviation.largest,
            limit: deviation.allowed,
            passed: deviation.is_within(),
        });
    }
    if gpu.is_emulated() {
        return Ok(events);
    }
    let (calls, ms) = warm(gpu, bench, rung.name)?;
    events.push(timed(problem, rung, " warm", calls, ms));
    if let Some(flush) = flush {
        let ms = cold(gpu, bench, rung.name, flush)?;
        events.push(timed(problem, rung, "", COLD_CALLS, ms));
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

/// Work is counted as it is for the other engines of the run. Of a warm sample no bytes are counted: they came out of a cache that no roof was measured of.
fn timed(problem: &GpuProblem, rung: Rung, cache: &str, calls: u64, ms: f64) -> Event {
    let bytes = if cache.is_empty() { calls * problem.bytes() } else { 0 };
    let operations = calls * problem.flops();
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
