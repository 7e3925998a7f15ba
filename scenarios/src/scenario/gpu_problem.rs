//! Problems for the kernel ladders of a GPU.

use serde::{Deserialize, Serialize};

/// One operation at one size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub enum GpuProblem {
    /// softmax(q·kᵀ)·v of whole prompts.
    Attention {
        /// Sequences.
        #[serde(default = "one")]
        batch: usize,
        /// Query heads.
        heads: usize,
        /// KV heads; divides `heads`.
        kv_heads: usize,
        /// Query rows of each sequence.
        queries: usize,
        /// Keys of each sequence; as many as queries when absent.
        keys: Option<usize>,
        /// Features per head.
        head_dim: usize,
        /// Rows see the keys up to their own place, counted from the end.
        #[serde(default = "yes")]
        causal: bool,
        /// How q, k, v are stored.
        #[serde(default)]
        number: GpuNumber,
    },
    /// Attention of one new row per sequence over its cache.
    AttentionDecode {
        /// Sequences.
        #[serde(default = "one")]
        batch: usize,
        /// Query heads.
        heads: usize,
        /// KV heads; divides `heads`.
        kv_heads: usize,
        /// Cached entries of each sequence.
        keys: usize,
        /// Features per head.
        head_dim: usize,
        /// How keys and values are stored.
        #[serde(default)]
        number: GpuNumber,
    },
    /// C = A·Bᵀ, both rows contiguous along k.
    Gemm {
        /// Rows of A.
        m: usize,
        /// Rows of B.
        n: usize,
        /// Columns of both.
        k: usize,
        /// How both are stored.
        #[serde(default)]
        number: GpuNumber,
    },
    /// A few rows times a matrix of 16- or 32-bit weights.
    Gemv {
        /// Rows.
        #[serde(default = "one")]
        rows: usize,
        /// Outputs.
        n: usize,
        /// Inputs.
        k: usize,
        /// How the weights are stored.
        #[serde(default)]
        number: GpuNumber,
    },
    /// Rows times a matrix of 4- or 8-bit weights.
    Quantized {
        /// Rows.
        #[serde(default = "one")]
        rows: usize,
        /// Outputs.
        n: usize,
        /// Inputs.
        k: usize,
        /// Bits per weight: 4 in groups with a scale each, or 8 with int8 inputs.
        bits: usize,
        /// Weights per scale, for 4 bits.
        #[serde(default = "group")]
        group: usize,
    },
    /// Reading, and copying, device memory: the measured roof.
    Memory {
        /// Megabytes (10⁶) read.
        megabytes: usize,
    },
}

/// How numbers are stored in device memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GpuNumber {
    /// 32 bit.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    #[default]
    Bf16,
}

impl GpuNumber {
    /// As in TOML.
    pub fn name(self) -> &'static str {
        match self {
            GpuNumber::F32 => "f32",
            GpuNumber::F16 => "f16",
            GpuNumber::Bf16 => "bf16",
        }
    }

    /// Bytes of one.
    pub fn bytes(self) -> u64 {
        match self {
            GpuNumber::F32 => 4,
            GpuNumber::F16 | GpuNumber::Bf16 => 2,
        }
    }
}

impl GpuProblem {
    /// The operation, as in TOML.
    pub fn op(&self) -> &'static str {
        match self {
            GpuProblem::Attention { .. } => "attention",
            GpuProblem::AttentionDecode { .. } => "attention-decode",
            GpuProblem::Gemm { .. } => "gemm",
            GpuProblem::Gemv { .. } => "gemv",
            GpuProblem::Quantized { .. } => "quantized",
            GpuProblem::Memory { .. } => "memory",
        }
    }

    /// Its sizes in one word, e.g. `b1-h32-kv8-q8192-k8192-d128-causal-bf16`.
    pub fn shape(&self) -> String {
        match *self {
            GpuProblem::Attention { batch, heads, kv_heads, queries, keys, head_dim, causal, number } => {
                let (keys, mask) = (keys.unwrap_or(queries), if causal { "causal" } else { "full" });
                format!("b{batch}-h{heads}-kv{kv_heads}-q{queries}-k{keys}-d{head_dim}-{mask}-{}", number.name())
            }
            GpuProblem::AttentionDecode { batch, heads, kv_heads, keys, head_dim, number } => {
                format!("b{batch}-h{heads}-kv{kv_heads}-k{keys}-d{head_dim}-{}", number.name())
            }
            GpuProblem::Gemm { m, n, k, number } => format!("{m}x{n}x{k}-{}", number.name()),
            GpuProblem::Gemv { rows, n, k, number } => format!("{rows}x{n}x{k}-{}", number.name()),
            GpuProblem::Quantized { rows, n, k, bits: 4, group } => format!("{rows}x{n}x{k}-4bit-g{group}"),
            GpuProblem::Quantized { rows, n, k, bits, .. } => format!("{rows}x{n}x{k}-{bits}bit"),
            GpuProblem::Memory { megabytes } => format!("{megabytes}MB"),
        }
    }

    /// Operations by the convention of the operation's papers: a multiply-add is two, a causal mask halves.
    pub fn flops(&self) -> u64 {
        let product = |sizes: &[usize]| sizes.iter().map(|&n| n as u64).product::<u64>();
        match *self {
            GpuProblem::Attention { batch, heads, queries, keys, head_dim, causal, .. } => {
                let all = 4 * product(&[batch, heads, queries, keys.unwrap_or(queries), head_dim]);
                if causal { all / 2 } else { all }
            }
            GpuProblem::AttentionDecode { batch, heads, keys, head_dim, .. } => {
                4 * product(&[batch, heads, keys, head_dim])
            }
            GpuProblem::Gemm { m, n, k, .. } => 2 * product(&[m, n, k]),
            GpuProblem::Gemv { rows, n, k, .. } | GpuProblem::Quantized { rows, n, k, .. } => {
                2 * product(&[rows, n, k])
            }
            GpuProblem::Memory { .. } => 0,
        }
    }

    /// The least bytes of device memory that any kernel must move for it.
    pub fn bytes(&self) -> u64 {
        let product = |sizes: &[usize]| sizes.iter().map(|&n| n as u64).product::<u64>();
        match *self {
            GpuProblem::Attention { batch, heads, kv_heads, queries, keys, head_dim, number, .. } => {
                let rows = 2 * heads * queries + 2 * kv_heads * keys.unwrap_or(queries);
                number.bytes() * product(&[batch, rows, head_dim])
            }
            GpuProblem::AttentionDecode { batch, kv_heads, keys, head_dim, number, .. } => {
                number.bytes() * 2 * product(&[batch, kv_heads, keys, head_dim])
            }
            GpuProblem::Gemm { m, n, k, number } => {
                number.bytes() * (product(&[m, k]) + product(&[n, k]) + product(&[m, n]))
            }
            GpuProblem::Gemv { n, k, number, .. } => number.bytes() * product(&[n, k]),
            GpuProblem::Quantized { n, k, bits, group, .. } => {
                let scales = if bits == 4 { 2 * product(&[n, k]) / group.max(1) as u64 } else { 4 * n as u64 };
                product(&[n, k]) * bits as u64 / 8 + scales
            }
            GpuProblem::Memory { megabytes } => megabytes as u64 * 1_000_000,
        }
    }

    /// Its sizes by name.
    pub fn sizes(&self) -> Vec<(&'static str, usize)> {
        match *self {
            GpuProblem::Attention { batch, heads, kv_heads, queries, keys, head_dim, .. } => vec![
                ("batch", batch),
                ("heads", heads),
                ("kv_heads", kv_heads),
                ("queries", queries),
                ("keys", keys.unwrap_or(queries)),
                ("head_dim", head_dim),
            ],
            GpuProblem::AttentionDecode { batch, heads, kv_heads, keys, head_dim, .. } => {
                vec![("batch", batch), ("heads", heads), ("kv_heads", kv_heads), ("keys", keys), ("head_dim", head_dim)]
            }
            GpuProblem::Gemm { m, n, k, .. } => vec![("m", m), ("n", n), ("k", k)],
            GpuProblem::Gemv { rows, n, k, .. } => vec![("rows", rows), ("n", n), ("k", k)],
            GpuProblem::Quantized { rows, n, k, group, .. } => {
                vec![("rows", rows), ("n", n), ("k", k), ("group", group)]
            }
            GpuProblem::Memory { megabytes } => vec![("megabytes", megabytes)],
        }
    }

    /// Values of its largest array.
    pub fn largest(&self) -> u128 {
        let product = |sizes: &[usize]| sizes.iter().map(|&n| n as u128).product::<u128>();
        match *self {
            GpuProblem::Attention { batch, heads, queries, keys, head_dim, .. } => {
                product(&[batch, heads, queries.max(keys.unwrap_or(queries)), head_dim])
            }
            GpuProblem::AttentionDecode { batch, heads, keys, head_dim, .. } => {
                product(&[batch, heads, keys, head_dim])
            }
            GpuProblem::Gemm { m, n, k, .. } => product(&[m, n]).max(product(&[m, k])).max(product(&[n, k])),
            GpuProblem::Gemv { rows, n, k, .. } | GpuProblem::Quantized { rows, n, k, .. } => {
                product(&[n, k]).max(product(&[rows, k]))
            }
            GpuProblem::Memory { megabytes } => megabytes as u128 * 250_000,
        }
    }
}

fn one() -> usize {
    1
}

fn yes() -> bool {
    true
}

fn group() -> usize {
    128
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_of_the_papers_shapes() {
        let reference: GpuProblem =
            toml::from_str("op = \"attention\"\nheads = 32\nkv_heads = 8\nqueries = 8192\nhead_dim = 128").unwrap();
        // 0.550 TFLOP and 168 MB, counted by hand
        assert_eq!((reference.flops(), reference.bytes()), (549_755_813_888, 167_772_160));
        let q4: GpuProblem = toml::from_str("op = \"quantized\"\nn = 4096\nk = 4096\nbits = 4").unwrap();
        assert_eq!((q4.flops(), q4.bytes()), (33_554_432, 8_650_752));
        let unknown = toml::from_str::<GpuProblem>("op = \"gemm\"\nm = 1\nn = 1\nk = 1\nx = 1");
        assert!(unknown.unwrap_err().to_string().contains("unknown field `x`"));
    }
}
