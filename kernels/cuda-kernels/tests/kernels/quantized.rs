//! 4-bit and int8 products: every rung on the emulated device, against f64 or exactly.

use cuda_kernels::quantized;

use crate::devices;
use crate::problems::climb;

#[test]
fn every_rung_agrees_with_the_oracle() {
    for gpu in devices() {
        for (bits, group, rows, n, k) in [
            (4, 32, 1, 40, 192),
            (4, 64, 9, 17, 640),
            (4, 128, 2, 33, 1408),
            (4, 128, 66, 130, 256),
            (8, 0, 1, 40, 192),
            (8, 0, 9, 17, 100),
            (8, 0, 65, 129, 64),
            (8, 0, 130, 258, 656),
        ] {
            let problem = quantized::bench(&gpu, bits, group, rows, n, k, 80).unwrap();
            let ran = climb(&*problem);
            let wanted = if bits == 4 { 5 } else { 3 + usize::from(k % 16 == 0 && gpu.is_emulated()) };
            assert!(ran.len() >= wanted, "{ran:?}");
        }
        assert!(quantized::bench(&gpu, 4, 48, 1, 16, 96, 0).is_err());
        assert!(quantized::bench(&gpu, 3, 32, 1, 16, 96, 0).is_err());
    }
}

/// Tiles lie in the order in which lanes take them: no shared-memory access waits for another of its warp's.
#[test]
fn tiles_have_no_bank_conflicts() {
    for gpu in devices() {
        for (bits, rung) in [(4, "q2_tile_gemv"), (4, "q3_tile_gemm"), (8, "i1_tile_gemv"), (8, "i2_tile_gemm")] {
            let problem = quantized::bench(&gpu, bits, 64, 16, 128, 256, 90).unwrap();
            // inputs are coded by a kernel of reductions, which may conflict: the product's own count is the second run's less the inputs'
            let Some(before) = gpu.counts() else { continue };
            problem.run(rung).unwrap();
            let after = gpu.counts().unwrap();
            assert!(after.shared_requests > before.shared_requests, "{rung} did nothing");
            assert_eq!(after.shared_conflicts, before.shared_conflicts, "{rung}");
        }
    }
}
