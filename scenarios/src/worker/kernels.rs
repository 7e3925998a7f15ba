//! Rungs of kernel ladders: each is checked against f64, then timed.

use anyhow::Result;
use cpu_kernels::{Problem, Rung, ladder};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use results::trace::{Event, Work};

use super::cell::{Held, Outcome};
use crate::scenario::Kernel;
use crate::stopwatch::Stopwatch;

/// Calls are repeated until one sample lasts this long.
const SAMPLE_NS: u64 = 2_000_000;
/// A problem this large is checked on a smaller one of the same kind: the f64 oracle is a plain loop.
const MOST_CHECKED: usize = 1 << 26;

/// Runs every rung of the named ladders that this processor has and the cell's instruction set allows.
pub fn ladders(held: &mut Held, kernels: &[Kernel], repetition: u32) -> Result<Outcome> {
    let mut events = vec![];
    // weights that an earlier kernel or repetition has drawn and packed are those of the next at the same size
    let mut kept = held.problem.take();
    for kernel in kernels {
        let cpu = held.device.cpu();
        let problem = match kept.take().filter(|p| (p.n, p.k) == (kernel.n, kernel.k)) {
            Some(problem) => problem.with_rows(kernel.rows, uniform(kernel.rows * kernel.k, held.scenario().seed)),
            None => random(kernel.rows, kernel.n, kernel.k, held.scenario().seed),
        };
        let wanted = |rung: &&Rung| kernel.rungs.is_empty() || kernel.rungs.iter().any(|name| name == rung.name);
        for rung in ladder(&kernel.op).iter().filter(wanted).filter(|r| r.needs <= cpu.isa() && r.is_available()) {
            if repetition == 0 {
                events.push(check(held, kernel, rung)?);
            }
            let mut out = vec![f32::NAN; rung.out_len(&problem)];
            let mut timed = |calls: u64| -> Result<u64> {
                let clock = Stopwatch::start();
                for _ in 0..calls {
                    rung.try_run(cpu, &problem, &mut out)?;
                }
                Ok(clock.ns())
            };
            // the first run packs the weights
            timed(1)?;
            let calls = (SAMPLE_NS / timed(1)?.max(1)).clamp(1, 10_000);
            let duration_ns = timed(calls)?;
            let (bytes, operations) = (calls * rung.bytes(&problem) as u64, calls * rung.flops(&problem) as u64);
            let (flops, int8_ops) = if rung.is_int8() { (0, operations) } else { (operations, 0) };
            events.push(Event::Kernel {
                op: kernel.op.clone(),
                rung: rung.name.into(),
                shape: format!("{}x{}x{}", kernel.rows, kernel.n, kernel.k),
                calls,
                duration_ns,
                work: Work { bytes, flops, int8_ops },
            });
        }
        kept = Some(problem);
    }
    held.problem = kept;
    Ok(events.into())
}

/// The rung's error against f64, on poisoned output.
fn check(held: &Held, kernel: &Kernel, rung: &Rung) -> Result<Event> {
    let mut n = kernel.n;
    while kernel.rows * n * kernel.k > MOST_CHECKED && n > 64 {
        n /= 2;
    }
    let problem = random(kernel.rows, n, kernel.k, held.scenario().seed + 1);
    let mut out = vec![f32::NAN; rung.out_len(&problem)];
    rung.try_run(held.device.cpu(), &problem, &mut out)?;
    let value = rung.max_error(&problem, &out);
    let name = format!("{} {} {}x{n}x{}", kernel.op, rung.name, kernel.rows, kernel.k);
    Ok(Event::Check { name, value, limit: rung.tolerance, passed: value <= rung.tolerance })
}

/// Activations from `seed`, weights from the next.
fn random(rows: usize, n: usize, k: usize, seed: u64) -> Problem {
    Problem::new(rows, n, k, uniform(rows * k, seed), uniform(n * k, seed ^ 1 << 32))
}

fn uniform(count: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| rng.random_range(-1.0f32..1.0)).collect()
}
