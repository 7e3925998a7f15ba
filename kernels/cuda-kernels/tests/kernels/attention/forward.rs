//! The forward ladder.

use cuda_kernels::attention::{Element, ForwardShape, forward_bench, rungs};
use cuda_kernels::{Gpu, triton};

use super::shape;
use crate::devices;
use crate::problems::climb;

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
        check(&gpu, ForwardShape { number: Element::F16, ..shape(129, 65, 128) });
        check(&gpu, ForwardShape { causal: false, ..shape(64, 127, 128) });
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
            check(&gpu, shape);
        }
    }
}
