//! Every kernel in every form that is launched: what the compile gate compiles.

use crate::KernelSpec;

/// All kernels with all constants they are launched with.
pub fn all_kernels() -> Vec<KernelSpec> {
    let folders = [
        crate::attention::kernels(),
        crate::gemm::kernels(),
        crate::gemv::kernels(),
        crate::linear::kernels(),
        crate::quantized::kernels(),
        crate::roofline::kernels(),
        crate::rows::kernels(),
    ];
    folders.concat()
}
