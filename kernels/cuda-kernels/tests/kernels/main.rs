//! Tests of the kernels and their launchers. They need the compiler and no GPU.

mod compile;

use std::path::Path;

use cuda_kernels::Nvrtc;

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
