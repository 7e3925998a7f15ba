//! The forward ladder.

use cuda_kernels::attention::{Element, ForwardShape, forward_bench};
use cuda_kernels::{Bench, Gpu};

use super::shape;
use crate::devices;

/// Runs every rung on `shape` and compares; outputs start as NaN.
fn check(gpu: &Gpu, shape: ForwardShape, rungs: &[&str]) {
    let bench = forward_bench(gpu, shape, 7).unwrap();
    for (rung, can) in bench.rungs().into_iter().filter(|(rung, _)| rungs.is_empty() || rungs.contains(&rung.name)) {
        can.unwrap_or_else(|reason| panic!("{}: {reason}", rung.name));
        run(&*bench, rung.name);
    }
}

fn run(bench: &dyn Bench, rung: &str) {
    let label = bench.label();
    bench.poison().unwrap();
    bench.run(rung).unwrap_or_else(|e| panic!("{rung} of {label}: {e}"));
    let deviation = bench.deviation(rung).unwrap_or_else(|e| panic!("{rung} of {label}: {e}"));
    assert!(deviation.is_within(), "{rung} of {label}: {deviation:?}");
}

#[test]
fn every_rung_is_right_around_its_tile_sizes() {
    for gpu in devices() {
        for (q_len, kv_len) in [(1, 1), (15, 15), (65, 65), (129, 129)] {
            check(&gpu, shape(q_len, kv_len, 64), &[]);
        }
    }
}

#[test]
fn other_numbers_heads_and_masks() {
    let base = shape(33, 33, 64);
    let shapes = [
        ForwardShape { dim: 128, heads: 2, ..base },
        ForwardShape { dim: 128, number: Element::F16, causal: false, ..base },
        ForwardShape { batch: 2, heads: 4, kv_heads: 2, q_len: 17, number: Element::F16, ..base },
        // more keys than rows, fewer keys than rows (the first rows see nothing), no keys
        ForwardShape { q_len: 3, kv_len: 140, ..base },
        ForwardShape { q_len: 70, kv_len: 40, ..base },
        ForwardShape { q_len: 5, kv_len: 0, ..base },
        // tiles before the window are not visited, and some rows of a tile see none of its keys
        ForwardShape { q_len: 140, kv_len: 300, window: Some(9), ..base },
    ];
    for gpu in devices() {
        for shape in shapes {
            check(&gpu, shape, &[]);
        }
    }
}
