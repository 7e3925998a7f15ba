//! Every kernel compiles for every architecture it claims to run on. Needs the compiler and no GPU.

use cuda_kernels::{Arch, KernelSpec, Source};

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
