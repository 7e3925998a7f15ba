//! Products with few rows: every rung on the emulated device, against f64.

use cuda_kernels::{Number, gemv};

use crate::devices;
use crate::problems::climb;

#[test]
fn every_rung_agrees_with_the_oracle() {
    for gpu in devices() {
        for (number, rows, n, k) in [
            (Number::F32, 1, 37, 136),
            (Number::F32, 3, 8, 64),
            (Number::F16, 1, 65, 264),
            (Number::F16, 5, 15, 520),
            (Number::Bf16, 4, 33, 128),
            (Number::Bf16, 16, 16, 8),
        ] {
            let problem = gemv::bench(&gpu, number, rows, n, k, 70).unwrap();
            let ran = climb(&*problem);
            assert_eq!(ran.len(), if number == Number::F32 { 3 } else { 4 }, "{ran:?}");
        }
        assert!(gemv::bench(&gpu, Number::F16, 1, 8, 12, 0).is_err());
    }
}

/// Tiles of 16-bit weights, streamed and through shared memory, lie in the order in which lanes take them.
#[test]
fn tiles_have_no_bank_conflicts() {
    for gpu in devices() {
        for rows in [1, 16, 17] {
            let problem = gemv::bench(&gpu, Number::F16, rows, 128, 256, 71).unwrap();
            let Some(before) = gpu.counts() else { continue };
            problem.run("v3_tensor_cores").unwrap();
            let after = gpu.counts().unwrap();
            assert!(after.shared_requests > before.shared_requests);
            assert_eq!(after.shared_conflicts, before.shared_conflicts, "{rows} rows");
        }
    }
}
