//! Ladders: for each operation the same computation from the plainest loop to the fastest kernel, each one runnable.
//!
//! A [`Rung`] adds one idea to the one below; slow rungs stay, so that a scenario can show what each idea was worth.
//! All rungs take one uniform [`Problem`]; weights are packed when a rung first needs them, so time the second run.

use crate::cpu::{Cpu, UnsupportedIsa};
use crate::isa::Isa;
use crate::linear::{
    PackedBf16, PackedCodebook, PackedF16, PackedF32, PackedGroup, PackedGroupInt8, PackedInt8, PackedLut, rungs,
};
use std::sync::OnceLock;

/// Operations that have a ladder.
pub const OPS: &[&str] = &[
    "gemv",
    "gemm",
    "f16",
    "bf16",
    "int8",
    "group4",
    "group4_int8",
    "group8_int8",
    "codebook4",
    "codebook4_nested",
    "lut1",
    "lut2",
    "lut3",
    "lut4",
    "softmax",
    "rms_norm",
];

/// The rungs of `op`, slowest first; empty for a name that is not in [`OPS`].
pub fn ladder(op: &str) -> &'static [Rung] {
    match op {
        "gemv" => rungs::GEMV,
        "gemm" => rungs::GEMM,
        "f16" => rungs::F16,
        "bf16" => rungs::BF16,
        "int8" => rungs::INT8,
        "group4" => rungs::GROUP4,
        "codebook4" => rungs::CODEBOOK4,
        "codebook4_nested" => rungs::CODEBOOK4_NESTED,
        "group4_int8" => rungs::GROUP4_INT8,
        "group8_int8" => rungs::GROUP8_INT8,
        "lut1" => rungs::LUT1,
        "lut2" => rungs::LUT2,
        "lut3" => rungs::LUT3,
        "lut4" => rungs::LUT4,
        "softmax" => crate::exp::LADDER,
        "rms_norm" => crate::norm::LADDER,
        _ => &[],
    }
}

/// Inputs that every rung understands: activations x\[rows, k\] and weights w\[n, k\], row-major.
///
/// Linears compute x·Wᵀ into \[rows, n\]; row operations work on x, with the first k weights as gain, into \[rows, k\].
pub struct Problem {
    /// Rows of x.
    pub rows: usize,
    /// Output features.
    pub n: usize,
    /// Input features.
    pub k: usize,
    /// Activations `[rows, k]`.
    pub x: Vec<f32>,
    /// Weights `[n, k]`.
    pub w: Vec<f32>,
    pub(crate) f32: OnceLock<PackedF32>,
    pub(crate) f16: OnceLock<PackedF16>,
    pub(crate) bf16: OnceLock<PackedBf16>,
    pub(crate) int8: OnceLock<PackedInt8>,
    pub(crate) group4: OnceLock<PackedGroup>,
    pub(crate) codebook4: OnceLock<PackedCodebook>,
    pub(crate) codebook4_nested: OnceLock<PackedCodebook>,
    pub(crate) group4_int8: OnceLock<PackedGroupInt8>,
    pub(crate) group8_int8: OnceLock<PackedGroupInt8>,
    /// By bits, from 1 on.
    pub(crate) lut: [OnceLock<PackedLut>; 4],
    /// Two halves of the input features.
    pub(crate) f32_halves: OnceLock<[PackedF32; 2]>,
}

impl Problem {
    /// A problem over given values.
    ///
    /// # Panics
    /// If the lengths disagree with `rows`, `n` and `k`, or `n` is 0.
    pub fn new(rows: usize, n: usize, k: usize, x: Vec<f32>, w: Vec<f32>) -> Self {
        assert!(n > 0 && x.len() == rows * k && w.len() == n * k, "x must be [rows, k] and w [n, k]");
        let (f32, f16, bf16) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        let (int8, group4, group4_int8, group8_int8, lut, f32_halves) = Default::default();
        let (codebook4, codebook4_nested) = Default::default();
        Self {
            rows,
            n,
            k,
            x,
            w,
            f32,
            f16,
            bf16,
            int8,
            group4,
            codebook4,
            codebook4_nested,
            group4_int8,
            group8_int8,
            lut,
            f32_halves,
        }
    }

    /// The same weights, packed as far as they are, with other activations `x` of `[rows, k]`.
    ///
    /// # Panics
    /// If `x` is not `rows` times `k` long.
    pub fn with_rows(self, rows: usize, x: Vec<f32>) -> Self {
        assert!(x.len() == rows * self.k, "x must be [rows, k]");
        Self { rows, x, ..self }
    }
}

/// What a rung computes: decides the output's shape, the operation count and the oracle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Linear,
    /// A linear whose multiply-adds are int8.
    Int8Linear,
    Softmax,
    RmsNorm,
}

/// One implementation of one operation.
pub struct Rung {
    /// Version and technique, such as `v2_avx2_panel`.
    pub name: &'static str,
    /// The instruction set it needs and pins.
    pub needs: Isa,
    /// Largest [`Rung::max_error`] it may show; lossy weight formats include their quantisation error.
    pub tolerance: f64,
    pub(crate) form: Form,
    /// Bytes of weights that one run streams.
    pub(crate) weight_bytes: fn(&Problem) -> usize,
    pub(crate) run: fn(&Cpu, &Problem, &mut [f32]),
}

impl Rung {
    /// Whether this machine can run it.
    pub fn is_available(&self) -> bool {
        self.needs.is_available()
    }

    /// Whether its operations are int8 ones: decides which peak applies.
    pub fn is_int8(&self) -> bool {
        self.form == Form::Int8Linear
    }

    /// Length of the output for `problem`.
    pub fn out_len(&self, problem: &Problem) -> usize {
        match self.form {
            Form::Linear | Form::Int8Linear => problem.rows * problem.n,
            Form::Softmax | Form::RmsNorm => problem.rows * problem.k,
        }
    }

    /// Runs on the threads of `cpu` at this rung's own level, into `out` of [`Rung::out_len`] values.
    ///
    /// # Panics
    /// If the level is not available: ask [`Rung::is_available`] first, or use [`Rung::try_run`].
    pub fn run(&self, cpu: &Cpu, problem: &Problem, out: &mut [f32]) {
        if let Err(error) = self.try_run(cpu, problem, out) {
            panic!("rung {}: {error}", self.name);
        }
    }

    /// As [`Rung::run`], with a missing instruction set as an error.
    pub fn try_run(&self, cpu: &Cpu, problem: &Problem, out: &mut [f32]) -> Result<(), UnsupportedIsa> {
        assert_eq!(out.len(), self.out_len(problem), "out must hold Rung::out_len values");
        (self.run)(&cpu.at(self.needs)?, problem, out);
        Ok(())
    }

    /// Bytes that a run must move at least: weights once, activations in, results out.
    pub fn bytes(&self, problem: &Problem) -> usize {
        let (x, out) = (problem.x.len(), self.out_len(problem));
        (self.weight_bytes)(problem) + (x + out) * size_of::<f32>()
    }

    /// Operations of one run; a multiply-add counts two, an exponential one.
    pub fn flops(&self, problem: &Problem) -> usize {
        match self.form {
            Form::Linear | Form::Int8Linear => 2 * problem.rows * problem.n * problem.k,
            Form::Softmax | Form::RmsNorm => 4 * problem.rows * problem.k,
        }
    }

    /// Largest error of `out` against f64: for linears |y − x·w| / (‖x‖·‖w‖), for row operations the difference
    /// relative to the row's largest result.
    pub fn max_error(&self, problem: &Problem, out: &[f32]) -> f64 {
        let Problem { rows, n, k, x, w, .. } = problem;
        let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
        let norm = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>().sqrt();
        let mut worst = 0.0f64;
        for row in 0..*rows {
            let x = wide(&x[row * k..][..*k]);
            if matches!(self.form, Form::Linear | Form::Int8Linear) {
                for (i, w) in w.chunks_exact(*k).enumerate() {
                    let w = wide(w);
                    let want: f64 = x.iter().zip(&w).map(|(x, w)| x * w).sum();
                    let size = (norm(&x) * norm(&w)).max(f64::MIN_POSITIVE);
                    worst = worst.max((f64::from(out[row * n + i]) - want).abs() / size);
                }
            } else {
                let want = self.row_oracle(&x, &wide(&w[..*k]));
                let size = want.iter().fold(f64::MIN_POSITIVE, |m, v| m.max(v.abs()));
                for (got, want) in out[row * k..][..*k].iter().zip(&want) {
                    worst = worst.max((f64::from(*got) - want).abs() / size);
                }
            }
        }
        worst
    }

    fn row_oracle(&self, x: &[f64], gain: &[f64]) -> Vec<f64> {
        if self.form == Form::Softmax {
            let top = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = x.iter().map(|v| (v - top).exp()).sum();
            return x.iter().map(|v| (v - top).exp() / total).collect();
        }
        let mean_square = x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64;
        let inverse = 1.0 / (mean_square + f64::from(crate::norm::LADDER_EPS)).sqrt();
        x.iter().zip(gain).map(|(v, g)| v * inverse * g).collect()
    }
}
