//! Kernels written in Triton and compiled ahead of time: PTX beside its source in `triton/`, launched like any other kernel.
//!
//! Triton's kernels take two addresses of scratch memory after their own arguments; these use none, so both are 0.

use crate::attention::{ForwardShape, ForwardTensors};
use crate::{Arch, Arg, Buffer, Gpu, GpuError, KernelSpec, LaunchShape, Number, Rung, Source};

/// The rung of the attention ladder that is written in Triton.
pub const ATTENTION: Rung = Rung {
    name: "t0_triton",
    idea: "the same attention as a Triton program, compiled ahead of time",
    needs: Arch::Sm80,
};

/// The programs themselves, by name: a machine with Triton can compile them for its device.
pub const TEXTS: [(&str, &str); 2] = [
    ("attention", include_str!("../triton/attention.py")),
    ("dequant_matmul", include_str!("../triton/dequant_matmul.py")),
];

/// Values that share one scale of [`TritonWeights`].
pub const GROUP: usize = 128;

/// One compiled kernel.
struct Artefact {
    text: Source,
    entry: &'static str,
    arch: Arch,
    number: Number,
    /// Head dim of attention, rows of a block of the product.
    size: usize,
    threads: usize,
    shared_bytes: usize,
}

macro_rules! artefacts {
    ($($file:literal: $entry:literal, $arch:ident, $number:ident, $size:literal, $shared:literal;)*) => {
        static ARTEFACTS: &[Artefact] = &[$(Artefact {
            text: Source {
                name: concat!("triton/artefacts/", $file),
                text: include_str!(concat!("../triton/artefacts/", $file)),
            },
            entry: $entry,
            arch: Arch::$arch,
            number: Number::$number,
            size: $size,
            threads: 128,
            shared_bytes: $shared,
        }),*];
    };
}
artefacts! {
    "attention_bf16_d64.sm_80.ptx": "attention", Sm80, Bf16, 64, 16384;
    "attention_bf16_d64.sm_90.ptx": "attention", Sm90a, Bf16, 64, 40960;
    "attention_bf16_d128.sm_80.ptx": "attention", Sm80, Bf16, 128, 36864;
    "attention_bf16_d128.sm_90.ptx": "attention", Sm90a, Bf16, 128, 81920;
    "attention_f16_d64.sm_80.ptx": "attention", Sm80, F16, 64, 16384;
    "attention_f16_d64.sm_90.ptx": "attention", Sm90a, F16, 64, 40960;
    "attention_f16_d128.sm_80.ptx": "attention", Sm80, F16, 128, 36864;
    "attention_f16_d128.sm_90.ptx": "attention", Sm90a, F16, 128, 81920;
    "dequant_matmul_bf16_m16.sm_80.ptx": "dequant_matmul", Sm80, Bf16, 16, 26624;
    "dequant_matmul_bf16_m64.sm_90.ptx": "dequant_matmul", Sm90a, Bf16, 64, 40960;
}

/// The artefact for these numbers that suits the device best: its own architecture's, or an older one's.
fn find(gpu: &Gpu, entry: &str, number: Number, size: impl Fn(usize) -> bool) -> Option<&'static Artefact> {
    let fits = |a: &&Artefact| a.entry == entry && a.number == number && a.arch <= gpu.arch() && size(a.size);
    ARTEFACTS.iter().filter(fits).max_by_key(|a| a.arch)
}

fn kernel(artefact: &'static Artefact) -> KernelSpec {
    KernelSpec::new(&artefact.text, artefact.entry).needs(artefact.arch)
}

fn int(value: usize) -> Arg<'static> {
    Arg::I32(value as i32)
}

/// Whether there is a kernel for `shape` on this device; why not otherwise.
pub fn runs_attention(gpu: &Gpu, shape: &ForwardShape) -> Result<(), String> {
    if shape.window.is_some() {
        return Err("the Triton kernel has no window".into());
    }
    match find(gpu, "attention", shape.number, |dim| dim == shape.dim) {
        Some(_) => Ok(()),
        None => Err(format!("no Triton artefact for {:?} and head dim {}", shape.number, shape.dim)),
    }
}

/// Attention forward, see [`crate::attention::forward`]; `tensors.lse` must be there.
pub fn attention(shape: &ForwardShape, tensors: &ForwardTensors<'_>) -> Result<(), GpuError> {
    const NAME: &str = "triton attention";
    let gpu = tensors.q.gpu();
    shape.check()?;
    runs_attention(gpu, shape).map_err(|reason| GpuError::shape(NAME, reason))?;
    let lse = tensors.lse.ok_or_else(|| GpuError::shape(NAME, "it writes lse, and was given no buffer for it"))?;
    let rows = shape.batch * shape.heads * shape.q_len;
    let lens = [
        (tensors.q.len(), shape.q_values()),
        (tensors.out.len(), shape.q_values()),
        (tensors.k.len(), shape.kv_values()),
        (tensors.v.len(), shape.kv_values()),
        (lse.len(), rows),
    ];
    if let Some((len, needed)) = lens.into_iter().find(|(len, needed)| len < needed) {
        return Err(GpuError::shape(NAME, format!("a tensor holds {len} values, expected {needed}")));
    }
    let Some(artefact) = find(gpu, "attention", shape.number, |dim| dim == shape.dim) else { return Ok(()) };
    let scale = std::f32::consts::LOG2_E / (shape.dim as f32).sqrt();
    let addresses = [tensors.q.arg(), tensors.k.arg(), tensors.v.arg(), tensors.out.arg(), lse.arg()];
    let sizes = [shape.q_len, shape.kv_len, shape.heads, shape.kv_heads, shape.causal as usize].map(int);
    let last = [Arg::F32(scale), Arg::Pointer(0), Arg::Pointer(0)];
    let args = [&addresses[..], &sizes, &last].concat();
    let grid = LaunchShape::grid(shape.q_len.div_ceil(64), shape.heads, shape.batch, artefact.threads);
    // SAFETY: every buffer was compared with the shape above, and the kernel touches rows, keys and heads of the shape alone.
    unsafe { gpu.launch(&kernel(artefact), grid.with_shared(artefact.shared_bytes), &args) }
}

/// Weights of 4 bits in the order that the Triton product reads: (code − 8) · scale, a scale per [`GROUP`] inputs.
pub struct TritonWeights {
    /// `[outer][inner / 8]`: nibble i of word w is input 8w + i.
    codes: Buffer<u32>,
    /// `[outer][inner / 128]`, bits of f16.
    scales: Buffer<u16>,
    outer: usize,
    inner: usize,
}

impl TritonWeights {
    /// From codes 0..=15 `[outer][inner]` and scales `[outer][inner / 128]` as bits of f16. `inner` is a multiple of 128.
    pub fn upload(gpu: &Gpu, codes: &[u8], scales: &[u16], outer: usize, inner: usize) -> Result<Self, GpuError> {
        let fits = codes.len() == outer * inner && scales.len() * GROUP == outer * inner;
        if outer == 0 || inner == 0 || !inner.is_multiple_of(GROUP) || !fits {
            let (n, s) = (codes.len(), scales.len());
            let reason = format!("{n} codes and {s} scales for {outer} x {inner} in groups of {GROUP}");
            return Err(GpuError::shape("triton weights", reason));
        }
        let word = |eight: &[u8]| eight.iter().rev().fold(0u32, |word, &code| word << 4 | u32::from(code & 15));
        let words: Vec<u32> = codes.chunks_exact(8).map(word).collect();
        Ok(TritonWeights { codes: gpu.upload(&words)?, scales: gpu.upload(scales)?, outer, inner })
    }

    /// `out[rows][outer] = x[rows][inner] Wᵀ`, both bits of bf16, sums in f32.
    pub fn product(&self, x: &Buffer<u16>, out: &Buffer<u16>, rows: usize) -> Result<(), GpuError> {
        const NAME: &str = "triton dequant_matmul";
        let gpu = x.gpu();
        if x.len() < rows * self.inner || out.len() < rows * self.outer {
            let reason = format!("{} inputs and {} outputs for {rows} rows", x.len(), out.len());
            return Err(GpuError::shape(NAME, reason));
        }
        // few rows are a waste of the tall tile
        let low = |tile: usize| tile == 16 || rows > 16;
        let artefact = find(gpu, "dequant_matmul", Number::Bf16, low)
            .ok_or_else(|| GpuError::shape(NAME, format!("no artefact for {}", gpu.arch())))?;
        let addresses = [x.arg(), self.codes.arg(), self.scales.arg(), out.arg()];
        let sizes = [rows, self.outer, self.inner].map(int);
        let args = [&addresses[..], &sizes, &[Arg::Pointer(0), Arg::Pointer(0)]].concat();
        let grid = LaunchShape::grid(rows.div_ceil(artefact.size), self.outer.div_ceil(64), 1, artefact.threads);
        // SAFETY: the buffers hold `rows` rows, the weights were checked when they were uploaded, and the kernel masks what lies
        // beyond rows and outer.
        unsafe { gpu.launch(&kernel(artefact), grid.with_shared(artefact.shared_bytes), &args) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    /// The record that `compile.py` wrote.
    fn record() -> serde_json::Value {
        serde_json::from_str(include_str!("../triton/artefacts/kernels.json")).expect("compile.py writes JSON")
    }

    fn hash(text: &str) -> String {
        Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn artefacts_are_those_of_their_sources() {
        let sources = [
            ("attention.py", include_str!("../triton/attention.py")),
            ("dequant_matmul.py", include_str!("../triton/dequant_matmul.py")),
        ];
        for kernel in record()["kernels"].as_array().expect("a list of kernels") {
            let source = sources.iter().find(|(name, _)| kernel["source"] == *name).expect("a known source");
            assert_eq!(kernel["source_sha256"], hash(source.1), "{}: run triton/compile.py", source.0);
        }
    }

    #[test]
    fn the_table_is_the_record() {
        let record = record();
        let kernels = record["kernels"].as_array().expect("a list of kernels");
        assert_eq!(kernels.len(), ARTEFACTS.len());
        for (kernel, artefact) in kernels.iter().zip(ARTEFACTS) {
            assert_eq!(kernel["file"], artefact.text.name["triton/artefacts/".len()..]);
            assert_eq!(kernel["ptx_sha256"], hash(artefact.text.text), "{}", artefact.text.name);
            assert_eq!(kernel["entry"], artefact.entry);
            assert_eq!(kernel["threads"], artefact.threads);
            assert_eq!(kernel["shared_bytes"], artefact.shared_bytes);
            let size = ["HEAD_DIM", "BM"].iter().find_map(|name| kernel["constants"][name].as_u64());
            assert_eq!(size, Some(artefact.size as u64));
            // sm_90 is compiled as sm_90a: wgmma needs it
            let arch = if artefact.arch == Arch::Sm80 { "sm_80" } else { "sm_90" };
            assert_eq!(kernel["arch"], arch);
            let number = if artefact.number == Number::Bf16 { "*bf16" } else { "*fp16" };
            assert!(kernel["args"]["out"] == number, "{}", artefact.text.name);
        }
    }
}
