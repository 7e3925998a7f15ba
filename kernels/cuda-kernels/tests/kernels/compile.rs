//! Every kernel compiles for every architecture it claims to run on. Needs the compiler and no GPU.

use std::collections::BTreeMap;
use std::sync::Mutex;

use cuda_kernels::{Arch, Compiled, KernelSpec, Source, all_kernels};

use crate::compiler;

static HEADERS_ALONE: Source = Source {
    name: "headers_alone.cu",
    text: r#"
#include "warp.cuh"
#include "mma.cuh"
extern "C" __global__ void headers_alone(float *x, int n) {
    __shared__ float scratch[32];
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    float value = i < n ? exp2_fast(x[i]) : 0.0f;
    value = block_sum(value, scratch) * SCALE;
    if (i < n) x[i] = Bf16::to_float(Bf16::from_float(value));
}
"#,
};

#[test]
fn headers_compile_to_ptx_and_machine_code() {
    let Some(nvrtc) = compiler() else { return };
    let kernel = KernelSpec::new(&HEADERS_ALONE, "headers_alone").define("SCALE", "2.0f");
    for arch in Arch::ALL {
        let compiled = nvrtc.compile(&kernel, arch).unwrap();
        assert!(compiled.ptx.contains(".entry headers_alone"), "{}", compiled.ptx);
        assert!(compiled.cubin.starts_with(b"\x7fELF"));
        assert!(compiled.resources.registers > 0, "{}", compiled.log);
        assert_eq!(compiled.resources.static_shared_bytes, 128, "{}", compiled.log);
    }
}

static HOPPER_ALONE: Source = Source {
    name: "hopper_alone.cu",
    text: r#"
#include "hopper.cuh"
extern "C" __global__ void __launch_bounds__(128) hopper_alone(const __grid_constant__ TensorMap map, float *out) {
    extern __shared__ char raw[];
    const u32 tile = (shared_address(raw) + 1023) & ~1023u, barrier = tile + 64 * 128;
    if (threadIdx.x == 0) {
        mbarrier_init(barrier, 1);
        mbarrier_init_fence();
        tensor_prefetch(&map);
        mbarrier_expect(barrier, 64 * 128);
        tensor_load_2d(tile, &map, barrier, 0, 0);
    }
    __syncthreads();
    mbarrier_wait(barrier, 0);
    float d[32];
    wgmma_fence();
    for (int k = 0; k < 4; k++)
        wgmma_64x64x16_shared<0>(Bf16(), d, wgmma_descriptor(tile + 32 * k, 16), wgmma_descriptor(tile + 32 * k, 16), k);
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_pin(d);
    for (int i = 0; i < 32; i++) out[threadIdx.x * 32 + i] = d[i];
}
"#,
};

#[test]
fn hoppers_header_compiles() {
    let Some(nvrtc) = compiler() else { return };
    let compiled = nvrtc.compile(&KernelSpec::new(&HOPPER_ALONE, "hopper_alone"), Arch::Sm90a).unwrap();
    assert_eq!(compiled.ptx.matches("wgmma.mma_async").count(), 4);
    assert!(!compiled.log.contains("C75"), "{}", compiled.log);
}

#[test]
fn a_mistake_is_reported_with_the_compilers_words() {
    let Some(nvrtc) = compiler() else { return };
    let kernel = KernelSpec::new(&HEADERS_ALONE, "headers_alone");
    let error = nvrtc.compile(&kernel, Arch::Sm80).unwrap_err().to_string();
    assert!(error.contains("SCALE") && error.contains("sm_80"), "{error}");
    let hopper = KernelSpec::new(&HEADERS_ALONE, "headers_alone").needs(Arch::Sm90a);
    let error = nvrtc.compile(&hopper, Arch::Sm80).unwrap_err().to_string();
    assert!(error.contains("needs sm_90a"), "{error}");
}

/// Kernels that may spill registers, with the reason.
const MAY_SPILL: &[(&str, &str)] = &[];
/// The two architectures whose code differs: Ada runs what Ampere does.
const COMPILED_FOR: [Arch; 2] = [Arch::Sm80, Arch::Sm90a];

/// Every kernel with every constant it is launched with: it compiles, nothing spills, no tensor-core instruction was put in
/// line behind the others (notes C7510 to C7519), and registers and shared memory are those of the table.
#[test]
fn all_kernels_compile_and_their_resources_are_as_recorded() {
    let Some(nvrtc) = compiler() else { return };
    let mut work: Vec<(KernelSpec, Arch)> = vec![];
    for kernel in all_kernels() {
        work.extend(COMPILED_FOR.iter().filter(|&&arch| arch >= kernel.needs).map(|&arch| (kernel.clone(), arch)));
    }
    let (work, rows) = (Mutex::new(work.into_iter()), Mutex::new(BTreeMap::new()));
    let next = || work.lock().unwrap().next();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, |n| n.get()) {
            scope.spawn(|| {
                while let Some((kernel, arch)) = next() {
                    let compiled = nvrtc.compile(&kernel, arch).unwrap_or_else(|e| panic!("{e}"));
                    check(&kernel, arch, &compiled);
                    let r = compiled.resources;
                    let row = [r.registers, r.spill_store_bytes, r.stack_bytes, r.static_shared_bytes];
                    rows.lock().unwrap().insert((kernel.source.name, kernel.label(), arch), row);
                }
            });
        }
    });
    let rows = rows.into_inner().unwrap();
    let mut table =
        format!("{:<78} {:>7} {:>9} {:>6} {:>6} {:>7}\n", "kernel", "arch", "registers", "spill", "stack", "shared");
    for ((_, label, arch), [registers, spill, stack, shared]) in &rows {
        table += &format!("{label:<78} {arch:>7} {registers:>9} {spill:>6} {stack:>6} {shared:>7}\n");
    }
    // another compiler allots other registers; the table is of the one that ci/nvrtc.sh fetches
    if nvrtc.version() == "13.0" {
        insta::assert_snapshot!("resources", table);
    }
}

fn check(kernel: &KernelSpec, arch: Arch, compiled: &Compiled) {
    let (label, r) = (kernel.label(), compiled.resources);
    let may_spill = MAY_SPILL.iter().any(|(name, _)| *name == kernel.entry);
    assert!(
        r.spill_store_bytes == 0 || may_spill,
        "{label} for {arch} spills {} bytes\n{}",
        r.spill_store_bytes,
        compiled.log
    );
    assert!(r.registers <= 255 && r.static_shared_bytes <= 48 << 10, "{label} for {arch}: {r:?}");
    let note = compiled.log.lines().find(|line| line.contains("C751"));
    assert!(note.is_none(), "{label} for {arch}: {}", note.unwrap_or_default());
}
