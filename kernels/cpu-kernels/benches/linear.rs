//! Criterion benches of the linears on decode and prefill shapes, at the best level of this machine.
//!
//! Throughput is bytes of weights for few rows and multiply-adds for many, so that both read against a roof.

use cpu_kernels::{Cpu, OPS, Problem, ladder};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Small repeatable values; content does not matter for speed.
fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 2_654_435_761) % 2048) as f32 / 1024.0 - 1.0).collect()
}

fn bench_rungs(c: &mut Criterion) {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let cpu = Cpu::new(None, threads).expect("the best level is available");
    // (name, rows, n, k): one layer of the default checkpoint, llama-1.1b's fused gate and up, and a square.
    let shapes = [("decode_small", 1, 1376, 256), ("decode_1b", 1, 11_264, 2048), ("prefill", 512, 512, 512)];
    for (shape, rows, n, k) in shapes {
        let problem = Problem::new(rows, n, k, values(rows * k), values(n * k));
        let linears = OPS.iter().filter(|op| !matches!(**op, "softmax" | "rms_norm"));
        for op in linears.filter(|op| (**op == "gemm") <= (rows > 1) && (**op == "gemv") <= (rows == 1)) {
            let mut group = c.benchmark_group(format!("{shape}/{op}"));
            for rung in ladder(op).iter().filter(|rung| rung.is_available()) {
                group.throughput(if rows == 1 {
                    Throughput::Bytes(rung.bytes(&problem) as u64)
                } else {
                    Throughput::Elements(rung.flops(&problem) as u64)
                });
                let mut out = vec![0.0; rung.out_len(&problem)];
                group.sample_size(10);
                group.bench_function(BenchmarkId::from_parameter(rung.name), |b| {
                    b.iter(|| rung.run(&cpu, &problem, &mut out));
                });
            }
            group.finish();
        }
    }
}

criterion_group!(benches, bench_rungs);
criterion_main!(benches);
