//! The forward ladder.

use cuda_kernels::attention::{ForwardShape, forward_bench, rungs};
use cuda_kernels::{Arch, Gpu, Number, triton};

use super::shape;
use crate::problems::climb;
use crate::{compiler, devices};

/// Every rung on `shape`, outputs NaN before; none may be left out.
fn check(gpu: &Gpu, shape: ForwardShape) {
    let bench = forward_bench(gpu, shape, 7).unwrap();
    let triton = triton::runs_attention(gpu, &shape).is_ok() as usize;
    assert_eq!(climb(&*bench).len(), rungs().filter(|rung| rung.needs <= gpu.arch()).count() + triton);
}

#[test]
fn every_rung_is_right_around_its_tile_sizes() {
    for gpu in devices() {
        for len in [1, 15, 64, 65, 127, 129] {
            check(&gpu, shape(len, len, 64));
        }
        check(&gpu, ForwardShape { number: Number::F16, ..shape(129, 65, 128) });
        check(&gpu, ForwardShape { causal: false, ..shape(64, 127, 128) });
    }
}

#[test]
fn other_numbers_heads_and_masks() {
    let base = shape(33, 33, 64);
    let shapes = [
        ForwardShape { dim: 128, heads: 2, ..base },
        ForwardShape { dim: 128, number: Number::F16, causal: false, ..base },
        ForwardShape { batch: 2, heads: 4, kv_heads: 2, q_len: 17, number: Number::F16, ..base },
        // more keys than rows, fewer keys than rows (the first rows see nothing), no keys
        ForwardShape { q_len: 3, kv_len: 140, ..base },
        ForwardShape { q_len: 70, kv_len: 40, ..base },
        ForwardShape { q_len: 5, kv_len: 0, ..base },
        // tiles before the window are not visited, and some rows of a tile see none of its keys
        ForwardShape { q_len: 140, kv_len: 300, window: Some(9), ..base },
    ];
    for gpu in devices() {
        for shape in shapes {
            check(&gpu, shape);
        }
    }
}

/// More pieces of work than multiprocessors, of different lengths: barriers and rings go on where the piece before left them, and
/// results leave through memory that the piece before has just left.
#[test]
fn a_persistent_block_takes_a_second_piece() {
    for gpu in devices().iter().filter(|gpu| gpu.arch() >= Arch::Sm90a) {
        let heads = gpu.multiprocessors() / 2 + 4;
        let bench = forward_bench(gpu, ForwardShape { heads, kv_heads: heads, ..shape(129, 129, 64) }, 9).unwrap();
        for name in ["a10_persistent", "a11_hidden_ends"] {
            bench.poison().unwrap();
            bench.run(name).unwrap();
            let deviation = bench.deviation(name).unwrap();
            assert!(deviation.is_within(), "{name}: {deviation:?}");
        }
    }
}

/// One block goes through several tiles of rows: copies of the next must wait for who still reads the last.
#[test]
fn one_block_takes_all_rows_of_a_head() {
    let base = shape(290, 290, 64);
    let shapes = [
        base,
        ForwardShape { q_len: 260, kv_len: 131, dim: 128, heads: 2, number: Number::F16, ..base },
        ForwardShape { batch: 2, q_len: 257, kv_len: 300, heads: 2, causal: false, ..base },
    ];
    for gpu in devices() {
        for shape in shapes {
            let bench = forward_bench(&gpu, shape, 12).unwrap();
            let run = |name: &str| {
                bench.poison().unwrap();
                bench.run(name).unwrap();
                bench.deviation(name).unwrap()
            };
            let (serial, parallel) = (run("a5_serial_rows"), run("a5_pipelined"));
            assert!(serial.is_within(), "{}: {serial:?}", bench.label());
            assert_eq!(serial, parallel, "{}: one kernel, two grids", bench.label());
        }
    }
}

/// What is compiled for Ampere is other code than what is compiled for Hopper.
#[test]
fn rungs_before_hopper_run_on_ampere() {
    let Some(nvrtc) = compiler() else { return };
    let gpu = Gpu::emulated(Arch::Sm80, nvrtc);
    let bench = forward_bench(&gpu, ForwardShape { heads: 2, ..shape(40, 70, 128) }, 10).unwrap();
    let ran = climb(&*bench);
    assert!(ran.contains(&"a5_pipelined") && !ran.contains(&"a6_wgmma_tma"), "{ran:?}");
}
