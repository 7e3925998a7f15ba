//! The Triton artefacts on the emulated device, against f64.

use cuda_kernels::attention::{ForwardShape, forward_bench};
use cuda_kernels::triton::{ATTENTION, GROUP, TritonWeights};
use cuda_kernels::{Arch, Gpu, Number};

use crate::compiler;
use crate::problems::{normals, random};

/// One emulated device per architecture that has artefacts of its own.
fn emulated() -> Vec<Gpu> {
    let Some(nvrtc) = compiler() else { return vec![] };
    [Arch::Sm80, Arch::Sm90a].map(|arch| Gpu::emulated(arch, nvrtc.clone())).to_vec()
}

#[test]
fn attention_is_right_for_both_architectures() {
    let base = ForwardShape {
        batch: 1,
        q_len: 65,
        kv_len: 65,
        heads: 1,
        kv_heads: 1,
        dim: 64,
        causal: true,
        window: None,
        number: Number::Bf16,
    };
    let shapes = [
        base,
        ForwardShape { q_len: 128, kv_len: 128, ..base },
        ForwardShape { q_len: 3, kv_len: 129, ..base },
        // the first rows see nothing
        ForwardShape { q_len: 70, kv_len: 40, ..base },
        ForwardShape { q_len: 5, kv_len: 0, ..base },
        ForwardShape { batch: 2, q_len: 15, kv_len: 64, heads: 4, kv_heads: 2, causal: false, ..base },
        ForwardShape { number: Number::F16, causal: false, kv_len: 127, ..base },
        ForwardShape { dim: 128, ..base },
        ForwardShape { dim: 128, number: Number::F16, q_len: 40, ..base },
    ];
    for gpu in emulated() {
        for shape in shapes {
            let bench = forward_bench(&gpu, shape, 11).unwrap();
            bench.poison().unwrap();
            bench.run(ATTENTION.name).unwrap_or_else(|e| panic!("{} on {}: {e}", bench.label(), gpu.name()));
            let deviation = bench.deviation(ATTENTION.name).unwrap();
            assert!(deviation.is_within(), "{} on {}: {deviation:?}", bench.label(), gpu.name());
        }
    }
}

fn bf16(bits: u16) -> f64 {
    f32::from_bits(u32::from(bits) << 16) as f64
}

#[test]
fn products_with_packed_weights_are_right_for_both_architectures() {
    let (outer, inner) = (70, 2 * GROUP);
    let codes: Vec<u8> = random(outer * inner, 16, 1).into_iter().map(|code| code as u8).collect();
    // f16 bits of 1/64 to almost 1/32
    let scales: Vec<u16> = random(outer * inner / GROUP, 1024, 2).into_iter().map(|s| 0x2400 | s as u16).collect();
    let scale = |bits: u16| (1.0 + f64::from(bits & 1023) / 1024.0) / 64.0;
    for gpu in emulated() {
        let weights = TritonWeights::upload(&gpu, &codes, &scales, outer, inner).unwrap();
        for rows in [1, 16, 17, 65] {
            let x: Vec<u16> = normals(rows * inner, 3).into_iter().map(|x| (x.to_bits() >> 16) as u16).collect();
            let (input, out) = (gpu.upload(&x).unwrap(), gpu.upload(&vec![0x7fc0u16; rows * outer]).unwrap());
            weights.product(&input, &out, rows).unwrap_or_else(|e| panic!("{rows} rows on {}: {e}", gpu.name()));
            for (i, bits) in out.read().unwrap().into_iter().enumerate() {
                let (row, column) = (i / outer, i % outer);
                let exact: f64 = (0..inner)
                    .map(|k| {
                        let weight = f64::from(codes[column * inner + k]) - 8.0;
                        bf16(x[row * inner + k]) * weight * scale(scales[(column * inner + k) / GROUP])
                    })
                    .sum();
                // the result is rounded to 8 bits
                let allowed = exact.abs() / 256.0 + 1e-3;
                assert!(
                    (bf16(bits) - exact).abs() <= allowed,
                    "{rows} rows, ({row}, {column}): {} {exact}",
                    bf16(bits)
                );
            }
        }
        let refused = TritonWeights::upload(&gpu, &codes[1..], &scales, outer, inner).err().unwrap().to_string();
        assert!(refused.contains("17919 codes and 140 scales"), "{refused}");
    }
}
