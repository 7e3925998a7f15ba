//! Kernels that measure the machine: how many bytes it can stream and how many operations it can issue.
//!
//! What: sum, copy and triad over buffers larger than the caches; register-only FMA and int8 dot loops.
//! Source: McCalpin's STREAM (1995) for copy and triad; Williams et al., "Roofline" (2009) for the use.
//! Shapes: slices of equal length, best ≥ 4 × the last-level cache; loops take a count of iterations.
//! Method: slices are cut evenly over the threads of `Cpu`; results go through `black_box`.
//! Exactness: no numeric claim; each returns the bytes or operations it did, for the caller's stopwatch.
//! Cost: read 4 bytes a value, copy 8, triad 12 (write-allocate traffic, if any, is not counted).
//! Not handled: NUMA placement, non-temporal stores.

use crate::cpu::{Cpu, SendPtr};
use crate::exp::{load_at, store_at};
use crate::simd::{Kernel, LANES, Simd, dispatch, run};
use std::hint::black_box;

mod int8_peak;
pub use int8_peak::int8_peak;

/// Reads `data` once with all threads; returns the bytes read.
pub fn stream_read(cpu: &Cpu, data: &[f32]) -> usize {
    let per_thread = data.len().div_ceil(cpu.threads()).max(1);
    let chunks: Vec<&[f32]> = data.chunks(per_thread).collect();
    cpu.parallel(chunks.len(), &|i| {
        black_box(sum(cpu, chunks[i]));
    });
    size_of_val(data)
}

/// target ← source with all threads; returns the bytes read and written.
pub fn stream_copy(cpu: &Cpu, source: &[f32], target: &mut [f32]) -> usize {
    assert_eq!(source.len(), target.len(), "copy needs slices of one length");
    let per_thread = target.len().div_ceil(cpu.threads()).max(1);
    cpu.parallel_chunks_mut(target, per_thread, &|i, target| {
        triad(cpu, &source[i * per_thread..][..target.len()], &[], 0.0, target);
    });
    2 * size_of_val(source)
}

/// target ← a + factor·b with all threads; returns the bytes read and written.
pub fn stream_triad(cpu: &Cpu, a: &[f32], b: &[f32], factor: f32, target: &mut [f32]) -> usize {
    assert!(a.len() == target.len() && b.len() == target.len(), "triad needs slices of one length");
    let per_thread = target.len().div_ceil(cpu.threads()).max(1);
    cpu.parallel_chunks_mut(target, per_thread, &|i, target| {
        let at = i * per_thread..i * per_thread + target.len();
        triad(cpu, &a[at.clone()], &b[at], factor, target);
    });
    3 * size_of_val(a)
}

/// `iterations` rounds of independent FMAs in registers on every thread; returns the floating-point operations done.
pub fn fma_peak(cpu: &Cpu, iterations: usize) -> usize {
    let mut flops = vec![0usize; cpu.threads()];
    let out = SendPtr(flops.as_mut_ptr());
    cpu.parallel(cpu.threads(), &|i| {
        let done = run(cpu, FmaLoop { iterations });
        // SAFETY: every i writes its own slot.
        unsafe { *out.get().add(i) = done };
    });
    flops.iter().sum()
}

dispatch! {
    fn sum(data: &[f32]) -> f32 = sum_generic
}

dispatch! {
    /// target = a, or a + factor·b where b is not empty.
    fn triad(a: &[f32], b: &[f32], factor: f32, target: &mut [f32]) = triad_generic
}

#[inline(always)]
fn sum_generic<S: Simd>(s: S, data: &[f32]) -> f32 {
    // Four streams at once: one alone does not keep the hardware prefetcher busy enough to reach the limit.
    const STREAMS: usize = 4;
    let length = data.len() / (STREAMS * LANES) * LANES;
    let mut sums = [s.splat(0.0); STREAMS];
    for start in (0..length).step_by(LANES) {
        for i in 0..STREAMS {
            sums[i] = s.add(sums[i], load_at(s, data, i * length + start, 0.0));
        }
    }
    for start in (STREAMS * length..data.len()).step_by(LANES) {
        sums[0] = s.add(sums[0], load_at(s, data, start, 0.0));
    }
    s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
}

#[inline(always)]
fn triad_generic<S: Simd>(s: S, a: &[f32], b: &[f32], factor: f32, target: &mut [f32]) {
    let factor = s.splat(factor);
    for start in (0..target.len()).step_by(LANES) {
        let mut v = load_at(s, a, start, 0.0);
        if !b.is_empty() {
            v = s.fma(factor, load_at(s, b, start, 0.0), v);
        }
        store_at(s, target, start, v);
    }
}

struct FmaLoop {
    iterations: usize,
}

impl Kernel for FmaLoop {
    type Out = usize;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> usize {
        // As many chains as registers allow: 16 × 512 bit, or 6 pairs of 256 bit; both cover latency × issue width.
        if S::WIDE { fma_chains::<S, 16>(s, self.iterations) } else { fma_chains::<S, 6>(s, self.iterations) }
    }
}

#[inline(always)]
fn fma_chains<S: Simd, const CHAINS: usize>(s: S, iterations: usize) -> usize {
    let factor = s.splat(black_box(0.999_9));
    let addend = s.splat(black_box(1e-4));
    let mut chains = [addend; CHAINS];
    for _ in 0..iterations {
        for i in 0..CHAINS {
            chains[i] = s.fma(chains[i], factor, addend);
        }
    }
    for chain in chains {
        black_box(s.sum(chain));
    }
    2 * LANES * CHAINS * iterations
}
