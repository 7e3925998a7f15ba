//! Inputs whose results are known without an oracle, and a run repeated.

use cuda_kernels::Gpu;
use cuda_kernels::attention::{ForwardShape, ForwardTensors, forward, rungs, scratch_len};
use half::bf16;

use super::shape;
use crate::devices;

/// Runs a rung on tensors given as functions of (row, head, dim), one sequence; the bits of out.
fn solve(
    gpu: &Gpu,
    name: &str,
    shape: &ForwardShape,
    q: impl Fn(usize, usize, usize) -> f32,
    k: impl Fn(usize, usize, usize) -> f32,
    v: impl Fn(usize, usize, usize) -> f32,
) -> Vec<u16> {
    fn fill(len: usize, heads: usize, dim: usize, of: impl Fn(usize, usize, usize) -> f32) -> Vec<u16> {
        let at = |i: usize| of(i / (heads * dim), i / dim % heads, i % dim);
        (0..len * heads * dim).map(|i| bf16::from_f32(at(i)).to_bits()).collect()
    }
    let q = gpu.upload(&fill(shape.q_len, shape.heads, shape.dim, q)).unwrap();
    let [k, v] = [fill(shape.kv_len, shape.kv_heads, shape.dim, k), fill(shape.kv_len, shape.kv_heads, shape.dim, v)]
        .map(|values| gpu.upload(&values).unwrap());
    let out = gpu.upload(&vec![0x7fffu16; shape.q_values()]).unwrap();
    let scratch = gpu.alloc(scratch_len(shape, name)).unwrap();
    let tensors = ForwardTensors { q: &q, k: &k, v: &v, out: &out, lse: None, scratch: &scratch };
    forward(name, shape, &tensors).unwrap_or_else(|e| panic!("{name}: {e}"));
    out.read().unwrap()
}

/// Numbers in [-1, 1) without pattern.
fn noise(seed: usize) -> impl Fn(usize, usize, usize) -> f32 {
    move |row, head, d| ((row * 7919 + head * 15_485_863 + d * 104_729 + seed * 611_953) % 1009) as f32 / 504.5 - 1.0
}

/// With values of one, every row is one, whatever its weights: rows and sums belong together.
#[test]
fn values_of_one_give_one() {
    for gpu in devices() {
        let shape = ForwardShape { heads: 2, ..shape(67, 130, 64) };
        for rung in rungs().filter(|rung| rung.needs <= gpu.arch()) {
            let out = solve(&gpu, rung.name, &shape, noise(1), noise(2), |_, _, _| 1.0);
            let worst = out.iter().map(|&bits| (bf16::from_bits(bits).to_f32() - 1.0).abs()).fold(0.0, f32::max);
            assert!(worst <= 1.0 / 128.0, "{}: {worst}", rung.name);
        }
    }
}

/// Keys of zero weigh all visible values alike: column d of row r counts which of the keys that it sees are d modulo the head
/// dim. A permuted column, row or key shows as a wrong count.
#[test]
fn one_hot_values_find_permuted_columns_and_rows() {
    for gpu in devices() {
        let shape = shape(70, 70, 64);
        for rung in rungs().filter(|rung| rung.needs <= gpu.arch()) {
            let out =
                solve(&gpu, rung.name, &shape, noise(3), |_, _, _| 0.0, |token, _, d| (token % 64 == d) as u8 as f32);
            for (row, d) in (0..70).flat_map(|row| (0..64).map(move |d| (row, d))) {
                let count = (0..=row).filter(|token| token % 64 == d).count();
                let expected = count as f32 / (row + 1) as f32;
                let found = bf16::from_bits(out[row * 64 + d]).to_f32();
                assert!((found - expected).abs() <= expected / 100.0, "{} row {row} column {d}: {found}", rung.name);
            }
        }
    }
}

/// Sums have one order: a second run gives the same bits.
#[test]
fn a_second_run_gives_the_same_bits() {
    for gpu in devices() {
        let shape = ForwardShape { dim: 128, ..shape(40, 140, 128) };
        for rung in rungs().filter(|rung| rung.needs <= gpu.arch()) {
            let run = || solve(&gpu, rung.name, &shape, noise(4), noise(5), noise(6));
            assert!(run() == run(), "{}", rung.name);
        }
    }
}

#[test]
fn wrong_sizes_are_refused_before_anything_runs() {
    for gpu in devices() {
        let good = shape(4, 4, 64);
        let (values, scratch) = (gpu.alloc::<u16>(4 * 64).unwrap(), gpu.alloc::<f32>(0).unwrap());
        let tensors = ForwardTensors { q: &values, k: &values, v: &values, out: &values, lse: None, scratch: &scratch };
        let refused = |name: &str, shape: ForwardShape| forward(name, &shape, &tensors).unwrap_err().to_string();
        assert!(refused("a3_mma", ForwardShape { dim: 96, ..good }).contains("expected 64 or 128"));
        assert!(refused("a3_mma", ForwardShape { heads: 3, kv_heads: 2, ..good }).contains("expected a multiple"));
        assert!(refused("a3_mma", ForwardShape { q_len: 5, ..good }).contains("q holds 256 values, expected 320"));
        assert!(refused("a1_unfused", good).contains("scratch holds 0"));
        assert!(refused("a99", good).contains("a5_pipelined"));
    }
}
