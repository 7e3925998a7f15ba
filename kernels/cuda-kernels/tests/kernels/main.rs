//! Tests of the kernels and their launchers. They need the compiler and no GPU; where there is one, they run on it as well.

mod attention;
mod compile;
mod devices;
mod driver;
mod gemm;
mod gemv;
mod linear;
mod problems;
mod quantized;
mod rows;
mod sass;
mod triton;

use std::path::Path;

use cuda_kernels::{Arch, Gpu, Nvrtc};

/// The compiler, or nothing with a word on how to get it. What one test has compiled another need not.
fn compiler() -> Option<Nvrtc> {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled");
    match Nvrtc::open() {
        Ok(nvrtc) => Some(nvrtc.with_cache(&cache)),
        Err(e) => {
            eprintln!("skipped: {e}");
            None
        }
    }
}

/// The emulated device, and the real one where there is one; in a child process of `driver`, the one that it is about.
fn devices() -> Vec<Gpu> {
    let Some(nvrtc) = compiler() else { return vec![] };
    if driver::is_child() {
        return vec![Gpu::open(0, nvrtc).unwrap()];
    }
    let mut devices = vec![Gpu::emulated(Arch::Sm90a, nvrtc.clone())];
    match Gpu::open(0, nvrtc) {
        Ok(gpu) => devices.push(gpu),
        Err(e) => eprintln!("emulated only: {e}"),
    }
    devices
}
