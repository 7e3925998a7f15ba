//! The limits of the machine, measured so that what else runs here does not lower them.
//!
//! A limit is what the machine can do, so of many passes the best counts. Passes are short, a fraction of a scheduler's time
//! slice: on a busy machine some of them still find every core free. Passes of the four limits alternate, so that a
//! disturbance falls on all of them.

use cpu_kernels::{Cpu, UnsupportedIsa, roofline};
use results::trace::Roof;

use super::{available_memory, llc_bytes};
use crate::stopwatch::Stopwatch;

/// What a reader of the report is told.
pub const METHOD: &str = "best of short passes (0.3 to 4 ms) of the four limits in turn, at least 24 rounds, until 24 in a row raise none by 1 % \
     (3 s at most); 6 rounds more before every round of repetitions, whose fractions use the best so far";

/// Iterations of a pass of arithmetic: about 0.4 ms with AVX-512 at 4 GHz.
const ITERATIONS: usize = 200_000;
/// A larger rate than this times the old one is news.
const NEWS: f64 = 1.01;

/// How long to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Until more looking brings nothing.
    Long,
    /// A few passes more.
    Short,
}

impl Patience {
    /// Rounds at least, rounds without news after which to stop, seconds at most.
    fn limits(self) -> (usize, usize, f64) {
        match self {
            Patience::Long => (24, 24, 3.0),
            Patience::Short => (6, 1, 0.5),
        }
    }
}

/// Measures the roofs with the best instruction set and `threads` threads.
pub fn measure(threads: usize, patience: Patience) -> Result<Roof, UnsupportedIsa> {
    let cpu = Cpu::new(None, threads)?;
    let llc = llc_bytes();
    // four times the last-level cache, so that nothing survives from one pass to the next; within a sane share of memory
    let large = (4 * llc).clamp(64 << 20, 1 << 30).min(available_memory() / 4) as usize / 4;
    let large = vec![1.0f32; large];
    let small = vec![1.0f32; (llc / 4).clamp(1 << 20, 16 << 20) as usize / 4];
    let limits: [&dyn Fn() -> usize; 4] = [
        &|| roofline::stream_read(&cpu, &large),
        &|| (0..8).map(|_| roofline::stream_read(&cpu, &small)).sum(),
        &|| roofline::fma_peak(&cpu, ITERATIONS),
        &|| roofline::int8_peak(&cpu, ITERATIONS),
    ];
    let [stream, cache, fma, int8] = best_rates(limits, patience);
    Ok(Roof {
        stream_bytes_s: stream,
        cache_bytes_s: cache.max(stream),
        fma_flop_s: fma,
        int8_op_s: int8,
        llc_bytes: llc,
    })
}

/// Reads more than the last-level cache holds, so that nothing of interest is left in it.
pub fn evict() {
    let bytes = (2 * llc_bytes()).clamp(8 << 20, 1 << 30).min(available_memory() / 4) as usize;
    let buffer = vec![1u64; bytes / 8];
    std::hint::black_box(buffer.iter().fold(0u64, |sum, x| sum.wrapping_add(*x)));
}

/// The best rate of each of several kinds of work, per second.
fn best_rates<const N: usize>(work: [&dyn Fn() -> usize; N], patience: Patience) -> [f64; N] {
    let (least, idle, seconds) = patience.limits();
    // pages are mapped and caches filled by a pass that does not count
    work.iter().for_each(|work| _ = work());
    let (clock, mut best) = (Stopwatch::start(), [0.0f64; N]);
    let (mut round, mut last_news) = (0, 0);
    while round < least || (round < last_news + idle && clock.seconds() < seconds) {
        round += 1;
        for (best, work) in best.iter_mut().zip(&work) {
            let pass = Stopwatch::start();
            let done = work();
            let rate = done as f64 / pass.seconds().max(1e-9);
            if rate > *best * NEWS {
                last_news = round;
            }
            *best = best.max(rate);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn one_undisturbed_pass_is_enough() {
        let passes = Cell::new(0);
        let slow_but_once = || {
            passes.set(passes.get() + 1);
            if passes.get() != 20 {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            1000
        };
        let [rate] = best_rates([&slow_but_once], Patience::Long);
        assert!(rate > 1e6, "the pass without a disturbance has the rate, not {rate}");
        assert!(passes.get() >= 20 + 24, "after news come as many passes again, not {}", passes.get());
    }
}
