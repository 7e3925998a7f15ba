//! Matrix products: every rung on the emulated device, against f64.

use cuda_kernels::{Arch, Gpu, Number, all_kernels, gemm, roofline};

use crate::problems::climb;
use crate::{compiler, devices};

#[test]
fn every_rung_agrees_with_the_oracle() {
    for gpu in devices() {
        for (m, n, k, number) in [
            (1, 1, 8, Number::F32),
            (65, 130, 40, Number::F32),
            (128, 129, 64, Number::F16),
            (70, 33, 200, Number::Bf16),
            (15, 304, 8, Number::F16),
        ] {
            let problem = gemm::bench(&gpu, m, n, k, number, 100).unwrap();
            let ran = climb(&*problem);
            let least = if number == Number::F32 { 3 } else { 6 + 2 * usize::from(n % 8 == 0) };
            assert!(ran.len() >= least || !gpu.is_emulated(), "{ran:?}");
        }
        assert!(gemm::bench(&gpu, 8, 8, 12, Number::F16, 0).is_err());
    }
}

/// More stages than the ring holds and more tiles than blocks: every wait and hand-over happens more than once.
#[test]
fn rings_turn_and_blocks_stay() {
    for gpu in devices() {
        let problem = gemm::bench(&gpu, 130, 264, 648, Number::Bf16, 101).unwrap();
        climb(&*problem);
    }
}

/// Swizzled tiles: what a warp reads or writes at once lies on different banks.
#[test]
fn swizzled_tiles_have_no_bank_conflicts() {
    for gpu in devices() {
        let problem = gemm::bench(&gpu, 128, 128, 64, Number::F16, 102).unwrap();
        for rung in ["g1_coalesced", "g2_register_tile", "g3_mma", "g6_persistent", "g7_multicast"] {
            let Some(before) = gpu.counts() else { continue };
            problem.run(rung).unwrap();
            let after = gpu.counts().unwrap();
            assert!(after.shared_requests > before.shared_requests, "{rung} did nothing");
            assert_eq!(after.shared_conflicts, before.shared_conflicts, "{rung}");
        }
    }
}

#[test]
fn memory_is_copied_and_read() {
    for gpu in devices() {
        assert_eq!(climb(&*roofline::bench(&gpu, 16 * 100_003, 103).unwrap()), ["copy", "read"]);
        assert_eq!(climb(&*roofline::read_bench(&gpu, 160, 103).unwrap()), ["read"]);
    }
}

/// More tiles than multiprocessors: blocks take a second tile while the stores of the first are under way.
#[test]
fn blocks_take_several_tiles() {
    for gpu in devices() {
        let problem = gemm::bench(&gpu, 11 * 128 - 3, 13 * 256 - 8, 200, Number::F16, 104).unwrap();
        for (rung, runs) in problem.rungs() {
            if runs.is_err() || !["g6_persistent", "g7_multicast"].contains(&rung.name) {
                continue;
            }
            problem.poison().unwrap();
            problem.run(rung.name).unwrap();
            let deviation = problem.deviation(rung.name).unwrap();
            assert!(deviation.is_within(), "{}: {deviation:?}", rung.name);
        }
    }
}

/// 256 x 256 results over 64 of k: two blocks read their own rows of A and each all of B, or in a cluster half of it.
#[test]
fn what_a_cluster_shares_is_read_once() {
    for gpu in devices().into_iter().filter(Gpu::is_emulated) {
        let problem = gemm::bench(&gpu, 256, 256, 64, Number::Bf16, 105).unwrap();
        let matrix = 256 * 64 * 2 / 32;
        for (rung, expected) in [("g6_persistent", 3 * matrix), ("g7_multicast", 2 * matrix)] {
            let before = gpu.counts().unwrap().global_read_sectors;
            problem.run(rung).unwrap();
            assert_eq!(gpu.counts().unwrap().global_read_sectors - before, expected, "{rung}");
        }
    }
}

/// Tensor copies read shared memory by another path than stores write it: between the two stands a
/// fence. The emulator asks for it where a kernel is run;
/// this asks for it in every text.
#[test]
fn a_fence_stands_between_stores_and_the_copies_that_read_them() {
    let Some(nvrtc) = compiler() else { return };
    let mut copies = 0;
    for kernel in all_kernels().iter().filter(|kernel| kernel.needs == Arch::Sm90a) {
        let ptx = nvrtc.compile(kernel, Arch::Sm90a).unwrap().ptx;
        let mut fenced = true;
        for line in ptx.lines() {
            if line.contains("stmatrix") || line.contains("st.shared") {
                fenced = false;
            } else if line.contains("fence.proxy.async") {
                fenced = true;
            } else if line.contains("cp.async.bulk.tensor") && line.contains("global.shared") {
                assert!(fenced, "{}: {line}", kernel.label());
                copies += 1;
            }
        }
    }
    assert!(copies > 0);
}
