//! Kernels written in CUDA C++ and compiled by NVRTC 13.0; source and PTX lie side by side in `fixtures/`.

use crate::device::{Device, bf16, int, pointer, random};

#[test]
fn a_vector_sum_with_a_tail() {
    for n in [1usize, 31, 128, 129, 1000] {
        let mut device = Device::new(include_str!("../fixtures/vector_add.ptx"));
        let (a, b) = (random(n, 1), random(n, 2));
        let (x, y, out) = (device.floats(&a), device.floats(&b), device.memory.alloc(4 * n));
        let args = [pointer(x), pointer(y), pointer(out), int(n as i32)];
        let counts = device.run("vector_add", [n.div_ceil(128) as u32, 1, 1], [128, 1, 1], 0, &args).unwrap();
        let expected: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
        assert_eq!(device.read_floats(out, n), expected, "n = {n}");
        assert_eq!(counts.global_read_sectors, 2 * (4 * n).div_ceil(32) as u64, "n = {n}");
        assert_eq!(counts.global_write_sectors, (4 * n).div_ceil(32) as u64, "n = {n}");
    }
}

#[test]
fn a_sum_over_blocks_of_threads() {
    for (threads, n) in [(32, 7), (64, 64), (128, 1000), (1024, 1500)] {
        let rows = 3;
        let mut device = Device::new(include_str!("../fixtures/block_sum.ptx"));
        let x = random(rows * n, 3);
        let (at, out) = (device.floats(&x), device.memory.alloc(4 * rows));
        let args = [pointer(at), pointer(out), int(n as i32)];
        let counts = device.run("block_sum", [rows as u32, 1, 1], [threads, 1, 1], 0, &args).unwrap();
        assert_eq!(counts.barriers, rows as u64);
        for (row, sum) in device.read_floats(out, rows).into_iter().enumerate() {
            let exact: f64 = x[row * n..][..n].iter().map(|&v| v as f64).sum();
            assert!((sum as f64 - exact).abs() < 1e-4, "{sum} is not {exact}");
        }
    }
}

#[test]
fn a_tiled_matrix_product_with_ragged_edges() {
    let (m, n, k) = (33, 20, 37);
    let mut device = Device::new(include_str!("../fixtures/tiled_matmul.ptx"));
    let (a, b) = (random(m * k, 4), random(k * n, 5));
    let (x, y, out) = (device.floats(&a), device.floats(&b), device.memory.alloc(4 * m * n));
    let args = [pointer(x), pointer(y), pointer(out), int(m as i32), int(n as i32), int(k as i32)];
    let grid = [n.div_ceil(16) as u32, m.div_ceil(16) as u32, 1];
    device.run("tiled_matmul", grid, [16, 16, 1], 4 * 2 * 16 * 17, &args).unwrap();
    let c = device.read_floats(out, m * n);
    for row in 0..m {
        for column in 0..n {
            // The same chain of fused multiplications and additions, padded with zeros.
            let sum = (0..k).fold(0f32, |sum, i| a[row * k + i].mul_add(b[i * n + column], sum));
            assert_eq!(c[row * n + column].to_bits(), sum.to_bits(), "({row}, {column})");
        }
    }
}

fn tile(wait: i32) -> (Device, Vec<f32>, Vec<f32>, usize, Result<ptx_emulator::Counts, ptx_emulator::Fault>, u64) {
    let k = 256;
    let mut device = Device::new(include_str!("../fixtures/mma_tile.ptx"));
    let (a, b): (Vec<_>, Vec<_>) = (random(64 * k, 6), random(64 * k, 7));
    let (a_bits, a): (Vec<u16>, Vec<f32>) = a.into_iter().map(bf16).unzip();
    let (b_bits, b): (Vec<u16>, Vec<f32>) = b.into_iter().map(bf16).unzip();
    let (x, y, out) = (device.halves(&a_bits), device.halves(&b_bits), device.memory.alloc(4 * 64 * 64));
    let args = [pointer(x), pointer(y), pointer(out), int(k as i32), int(wait)];
    let result = device.run("mma_tile", [1, 1, 1], [128, 1, 1], 32768, &args);
    (device, a, b, k, result, out)
}

#[test]
fn a_tensor_core_tile_with_copies_under_way() {
    let (device, a, b, k, result, out) = tile(1);
    let counts = result.unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!(counts.mma_flops, 2 * 64 * 64 * k as u64);
    assert_eq!(counts.shared_conflicts, 0, "the swizzle avoids them");
    let c = device.read_floats(out, 64 * 64);
    for row in 0..64 {
        for column in 0..64 {
            let exact: f64 = (0..k).map(|i| a[row * k + i] as f64 * b[column * k + i] as f64).sum();
            let got = c[row * 64 + column] as f64;
            assert!((got - exact).abs() < 1e-4, "({row}, {column}): {got} is not {exact}");
        }
    }
}

#[test]
fn a_copy_that_was_not_waited_for_has_not_landed() {
    let (.., result, _) = tile(0);
    let fault = result.expect_err("the wait leaves the copies of this step under way").to_string();
    assert!(fault.contains("ldmatrix") && fault.contains("before anything was written"), "{fault}");
}
