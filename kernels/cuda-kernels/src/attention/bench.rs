//! Problems for the ladders of attention, with inputs drawn by seed and rows checked against the f64 oracle.

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, StandardNormal};

use super::forward::{ForwardShape, ForwardTensors, forward, rungs, scratch_len};
use super::oracle::{Host, narrow, widen};
use crate::triton;
use crate::{Bench, Buffer, Deviation, Gpu, GpuError, Number, Rung};

/// Rows that are compared with the oracle; all where there are no more.
const CHECKED_ROWS: usize = 256;
/// Both f16 and bf16 read it as no number.
const NAN_BITS: u16 = 0x7fff;

struct ForwardBench {
    gpu: Gpu,
    shape: ForwardShape,
    seed: u64,
    host: [Vec<u16>; 3],
    q: Buffer<u16>,
    k: Buffer<u16>,
    v: Buffer<u16>,
    out: Buffer<u16>,
    lse: Buffer<f32>,
    scratch: Option<Buffer<f32>>,
    none: Buffer<f32>,
}

/// A forward problem of `shape` with normal inputs drawn by `seed`.
///
/// The unfused rung keeps all scores in device memory; where they do not fit, that rung alone cannot run.
pub fn forward_bench(gpu: &Gpu, shape: ForwardShape, seed: u64) -> Result<Box<dyn Bench>, GpuError> {
    shape.check()?;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let host = [shape.q_values(), shape.kv_values(), shape.kv_values()].map(|n| normal(&mut random, n, shape.number));
    let [q, k, v] = [&host[0], &host[1], &host[2]].map(|values| gpu.upload(values));
    let scores = rungs().map(|rung| scratch_len(&shape, rung.name)).max().unwrap_or(0);
    Ok(Box::new(ForwardBench {
        gpu: gpu.clone(),
        shape,
        seed,
        q: q?,
        k: k?,
        v: v?,
        host,
        out: gpu.alloc(shape.q_values())?,
        lse: gpu.alloc(shape.batch * shape.heads * shape.q_len)?,
        scratch: gpu.alloc(scores).ok(),
        none: gpu.alloc(0)?,
    }))
}

pub(super) fn normal(random: &mut ChaCha8Rng, count: usize, number: Number) -> Vec<u16> {
    (0..count).map(|_| narrow(StandardNormal.sample(&mut *random), number)).collect()
}

impl ForwardBench {
    fn tensors(&self) -> ForwardTensors<'_> {
        ForwardTensors {
            q: &self.q,
            k: &self.k,
            v: &self.v,
            out: &self.out,
            lse: Some(&self.lse),
            scratch: self.scratch.as_ref().unwrap_or(&self.none),
        }
    }

    /// (sequence, row, head) of the rows to check.
    fn checked(&self) -> Vec<(usize, usize, usize)> {
        let s = &self.shape;
        let all = s.batch * s.q_len * s.heads;
        let place = |i: usize| (i / (s.q_len * s.heads), i / s.heads % s.q_len, i % s.heads);
        if all <= CHECKED_ROWS {
            return (0..all).map(place).collect();
        }
        let mut random = ChaCha8Rng::seed_from_u64(self.seed ^ 0x5eed);
        (0..CHECKED_ROWS).map(|_| place(random.random_range(0..all))).collect()
    }
}

impl Bench for ForwardBench {
    fn label(&self) -> String {
        let s = &self.shape;
        let mask = if s.causal { "causal" } else { "full" };
        let window = s.window.map_or(String::new(), |window| format!(" window{window}"));
        let number = if s.number == Number::F16 { "f16" } else { "bf16" };
        let lens = if s.q_len == s.kv_len { format!("s{}", s.q_len) } else { format!("s{}/{}", s.q_len, s.kv_len) };
        format!("attention b{} h{}/{} {lens} d{} {mask}{window} {number}", s.batch, s.heads, s.kv_heads, s.dim)
    }

    fn rungs(&self) -> Vec<(Rung, Result<(), String>)> {
        let arch = self.gpu.arch();
        let can = |rung: &Rung| {
            if rung.needs > arch {
                Err(format!("needs {}, this device is {arch}", rung.needs))
            } else if scratch_len(&self.shape, rung.name) > 0 && self.scratch.is_none() {
                Err("its scores do not fit the device's memory".into())
            } else {
                Ok(())
            }
        };
        let triton = (triton::ATTENTION, triton::runs_attention(&self.gpu, &self.shape));
        rungs().map(|rung| (rung, can(&rung))).chain([triton]).collect()
    }

    /// Two products per visible pair of row and key; with a causal mask, half of all pairs.
    fn flops(&self) -> u64 {
        let s = &self.shape;
        let all = 4 * (s.batch * s.heads * s.q_len * s.kv_len * s.dim) as u64;
        if s.causal { all / 2 } else { all }
    }

    fn bytes(&self) -> u64 {
        2 * (2 * self.shape.q_values() + 2 * self.shape.kv_values()) as u64
    }

    fn poison(&self) -> Result<(), GpuError> {
        self.out.write(0, &vec![NAN_BITS; self.out.len()])?;
        self.lse.write(0, &vec![f32::NAN; self.lse.len()])?;
        self.scratch.as_ref().map_or(Ok(()), |scratch| scratch.write(0, &vec![f32::NAN; scratch.len()]))
    }

    fn run(&self, name: &str) -> Result<(), GpuError> {
        if name == triton::ATTENTION.name {
            return triton::attention(&self.shape, &self.tensors());
        }
        forward(name, &self.shape, &self.tensors())
    }

    /// Allowed: twice the error of an unfused computation in the same 16-bit numbers, and 1e-5. The log-sum-exp counts with
    /// its own allowance of 1e-3, scaled to the results'.
    fn deviation(&self, _name: &str) -> Result<Deviation, GpuError> {
        let (s, out, lse) = (&self.shape, self.out.read()?, self.lse.read()?);
        let host = Host { shape: *s, q: &self.host[0], k: &self.host[1], v: &self.host[2] };
        let (mut largest, mut plain, mut lse_error) = (0.0f64, 0.0f64, 0.0f64);
        for (batch, r, head) in self.checked() {
            let (exact, rounded) = host.row(batch, r, head);
            let at = ((batch * s.q_len + r) * s.heads + head) * s.dim;
            let found = out[at..at + s.dim].iter().map(|&bits| widen(bits, s.number));
            largest = worst(largest, found, &exact.out);
            plain = worst(plain, rounded.out.into_iter(), &exact.out);
            let found = f64::from(lse[(batch * s.heads + head) * s.q_len + r]);
            // both −∞ for a row that sees nothing: no difference, though the subtraction is no number
            if found != exact.lse {
                lse_error = worst(lse_error, std::iter::once(found), &[exact.lse]);
            }
        }
        let allowed = 2.0 * plain + 1e-5;
        Ok(Deviation { largest: larger(largest, lse_error / LSE_ALLOWANCE * allowed), allowed })
    }
}

/// What a log-sum-exp may be off: f32 sums of up to 10⁵ weights and the fast exponential.
const LSE_ALLOWANCE: f64 = 1e-3;

/// The larger of `before` and all |found − expected|; not a number once one is none.
pub(super) fn worst(before: f64, found: impl Iterator<Item = f64>, expected: &[f64]) -> f64 {
    found.zip(expected).fold(before, |worst, (f, e)| larger(worst, (f - e).abs()))
}

fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}
