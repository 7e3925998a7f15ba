//! Tests of the kernels and their launchers. They need the compiler and no GPU.

mod compile;

use cuda_kernels::Nvrtc;

/// The compiler, or nothing with a word on how to get it.
fn compiler() -> Option<Nvrtc> {
    match Nvrtc::open() {
        Ok(nvrtc) => Some(nvrtc),
        Err(e) => {
            eprintln!("skipped: {e}");
            None
        }
    }
}
