//! Rungs of kernel ladders: each is checked against the scalar rung of its ladder, then timed.

use anyhow::{Context, Result};
use cpu_kernels::{Problem, ladder};
use results::trace::{Event, Work};

use super::cell::{Held, Outcome};
use crate::scenario::Kernel;
use crate::stopwatch::Stopwatch;

/// Calls are repeated until one sample lasts this long.
const SAMPLE_NS: u64 = 2_000_000;

/// Runs every rung of the named ladders that this processor has and the cell's instruction set allows.
pub fn ladders(held: &Held, kernels: &[Kernel]) -> Result<Outcome> {
    let mut events = vec![];
    for kernel in kernels {
        let rungs = ladder(&kernel.op);
        let problem = Problem::random(&kernel.op, kernel.rows, kernel.n, kernel.k, held.scenario().seed).with_context(|| format!("no ladder is called `{}`", kernel.op))?;
        let mut expected = vec![0.0; kernel.rows * kernel.n];
        let mut out = expected.clone();
        let cpu = held.device.cpu();
        rungs.first().with_context(|| format!("the ladder `{}` is empty", kernel.op))?.run(cpu, &problem, &mut expected);
        for rung in rungs.iter().filter(|r| r.needs <= cpu.isa() && r.needs.is_available()) {
            out.fill(f32::NAN);
            rung.run(cpu, &problem, &mut out);
            let largest = expected.iter().fold(1e-30f64, |m, &v| m.max(f64::from(v.abs())));
            let error = expected.iter().zip(&out).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, |a, b| if b.is_nan() { f64::NAN } else { a.max(b) });
            let limit = f64::from(rung.tolerance) * largest;
            events.push(Event::Check { name: format!("{}/{}", kernel.op, rung.name), value: error, limit, passed: error <= limit });
            let mut timed = |calls: u64| {
                let clock = Stopwatch::start();
                (0..calls).for_each(|_| rung.run(cpu, &problem, &mut out));
                clock.ns()
            };
            let once = timed(1).max(1);
            let calls = (SAMPLE_NS / once).clamp(1, 10_000);
            let int8 = kernel.op.contains("int8");
            let operations = calls * rung.flops(&problem) as u64;
            events.push(Event::Kernel {
                op: kernel.op.clone(),
                rung: rung.name.into(),
                shape: format!("{}x{}x{}", kernel.rows, kernel.n, kernel.k),
                calls,
                duration_ns: timed(calls),
                work: Work { bytes: calls * rung.bytes(&problem) as u64, flops: if int8 { 0 } else { operations }, int8_ops: if int8 { operations } else { 0 } },
            });
        }
    }
    Ok(events.into())
}
