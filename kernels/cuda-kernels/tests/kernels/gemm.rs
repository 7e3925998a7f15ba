//! Matrix products: every rung on the emulated device, against f64.

use cuda_kernels::{
    Arch, Arg, Buffer, Gpu, GpuError, KernelSpec, LaunchShape, Number, Nvrtc, Source, TensorMap, TensorMapShape,
    all_kernels, gemm, roofline,
};

use crate::problems::{climb, normals};
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

/// C = A·Bᵀ of 256 x 256 results by the text of `g7_multicast` after `change`, on the emulator.
fn multicast_after(nvrtc: &Nvrtc, change: impl Fn(&str) -> String) -> Result<(), GpuError> {
    let kernels = all_kernels();
    let kernel = kernels.iter().find(|k| k.label() == "gemm_specialised[NUMBER=Half,PERSISTENT=1,CLUSTER=2]").unwrap();
    let ptx = nvrtc.compile(kernel, Arch::Sm90a).unwrap().ptx;
    let text: Vec<String> = ptx.lines().map(change).collect();
    // a kernel's text lives as long as the program
    let source: &'static Source = Box::leak(Box::new(Source { name: "changed.ptx", text: text.join("\n").leak() }));
    let changed = KernelSpec::new(source, "gemm_specialised").needs(Arch::Sm90a);
    let (side, k) = (256, 6 * 64);
    // one of its own: a device keeps kernels by name
    let gpu = Gpu::emulated(Arch::Sm90a, nvrtc.clone());
    let [a, b] = [1, 2].map(|seed| {
        let values: Vec<u16> = normals(side * k, seed).into_iter().map(|v| half::f16::from_f32(v).to_bits()).collect();
        gpu.upload(&values).unwrap()
    });
    let c = gpu.zeros::<u16>(side * side)?;
    let map = |buffer: &Buffer<u16>, columns: usize, box_rows| {
        let (dims, strides) = (vec![columns as u64, side as u64], vec![2 * columns as u64]);
        let shape =
            TensorMapShape { base: buffer.address(), dims, strides, box_dims: vec![64, box_rows], swizzle_bytes: 128 };
        TensorMap::encode(&gpu, &shape)
    };
    let (a, b, c) = (map(&a, k, 128)?, map(&b, k, 128)?, map(&c, side, 64)?);
    let sizes = [side, side, k].map(|size| Arg::I32(size as i32));
    let args = [Arg::TensorMap(&a), Arg::TensorMap(&b), Arg::TensorMap(&c), sizes[0], sizes[1], sizes[2]];
    let shape = LaunchShape::line(2, 384).with_shared((4 * 48 + 32 + 1) << 10);
    // SAFETY: the emulator refuses what is not as it should be.
    unsafe { gpu.launch(&changed, shape, &args) }
}

/// A stage is overwritten by the other block only after this block's consumers handed it back there: if they tell their own producer
/// twice instead, results are right as long as both blocks happen to go at one pace.
#[test]
fn a_cluster_without_order_is_noticed() {
    let Some(nvrtc) = compiler() else { return };
    multicast_after(&nvrtc, str::to_owned).unwrap();
    let to_itself = |line: &str| match line.strip_prefix("mapa.shared::cluster.u32 there, ") {
        Some(rest) => {
            format!("mapa.shared::cluster.u32 there, {}, %cluster_ctarank;", rest.split(',').next().unwrap())
        }
        None => line.to_owned(),
    };
    let fault = multicast_after(&nvrtc, to_itself).unwrap_err().to_string();
    assert!(fault.contains("multicast") && fault.contains("race"), "{fault}");
    let unmet = |line: &str| {
        line.replace("barrier.cluster.arrive.release;", "").replace("barrier.cluster.wait.acquire;", "bar.sync 0;")
    };
    let fault = multicast_after(&nvrtc, unmet).unwrap_err().to_string();
    assert!(fault.contains("nothing orders that after its initialisation"), "{fault}");
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
