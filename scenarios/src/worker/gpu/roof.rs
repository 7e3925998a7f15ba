//! The limits of a GPU, measured on it: reading memory and cache, and the fastest 16-bit product.

use cuda_kernels::{Bench, Gpu, GpuError, Number, gemm, roofline};
use results::trace::Roof;

use super::{FLUSH_BYTES, warm};

/// What the figures are, for the facts of a run.
const METHOD: &str =
    "read of 1 GiB; read of half the L2 cache; fastest 16-bit product of 8192³, cuBLASLt where present";

/// All limits. Products of f32 and 8-bit weights are compared with the 16-bit product too: no other limit is measured.
pub fn measure(gpu: &Gpu, seed: u64) -> Result<Roof, GpuError> {
    let stream_bytes_s = read_rate(gpu, 4 * FLUSH_BYTES, seed)?;
    let llc_bytes = gpu.l2_bytes() as u64;
    // whole lines, and room for what else lies there
    let cached = llc_bytes as usize / 2 / 4096 * 4096;
    let cache_bytes_s = if cached > 0 { read_rate(gpu, cached, seed)?.max(stream_bytes_s) } else { stream_bytes_s };
    let product = gemm::bench(gpu, 8192, 8192, 8192, Number::Bf16, seed)?;
    let fma_flop_s = rate(gpu, &*product, product.flops(), &["cublaslt", "g7_multicast", "g6_persistent", "g3_mma"])?;
    Ok(Roof { stream_bytes_s, cache_bytes_s, fma_flop_s, int8_op_s: 0.0, llc_bytes })
}

fn read_rate(gpu: &Gpu, bytes: usize, seed: u64) -> Result<f64, GpuError> {
    let memory = roofline::read_bench(gpu, bytes, seed)?;
    rate(gpu, &*memory, memory.bytes(), &["read"])
}

/// Work per second of the fastest of `names` that the device has; 0 if it has none.
fn rate(gpu: &Gpu, bench: &dyn Bench, work: u64, names: &[&str]) -> Result<f64, GpuError> {
    let mut fastest = 0.0_f64;
    for (rung, _) in bench.rungs().iter().filter(|(rung, fits)| names.contains(&rung.name) && fits.is_ok()) {
        let (calls, ms) = warm(gpu, bench, rung.name)?;
        fastest = fastest.max((calls * work) as f64 / (ms.max(1e-6) * 1e-3));
    }
    Ok(fastest)
}

/// The limits as facts of a cell.
pub fn facts(roof: &Roof) -> Vec<(String, String)> {
    let limits = [
        ("gpu_stream_bytes_s", roof.stream_bytes_s),
        ("gpu_cache_bytes_s", roof.cache_bytes_s),
        ("gpu_product_flop_s", roof.fma_flop_s),
        ("gpu_l2_bytes", roof.llc_bytes as f64),
    ];
    let method = ("gpu_roof_method".to_string(), METHOD.to_string());
    limits.map(|(key, value)| (key.to_string(), format!("{value:.0}"))).into_iter().chain([method]).collect()
}
