//! int8 products on given grids against integer arithmetic written out.

use cpu_kernels::{Cpu, Int8Grid, Isa, PackedInt8, finite_range};

/// Different for every place, in ±`size`.
fn values(seed: u64, len: usize, size: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| size * next()).collect()
}

fn codes(seed: u64, len: usize) -> Vec<i8> {
    values(seed, len, 127.4).into_iter().map(|v| v as i8).collect()
}

/// y by the definition, in integers wide enough for anything.
fn expected(x: &[f32], k: usize, grids: &[Int8Grid], w: &[i8], scales: &[f32], zeros: &[i32]) -> Vec<f32> {
    let mut y = vec![];
    for (row, x) in x.chunks(k).enumerate() {
        let grid = grids[row % grids.len()];
        let code = |x: f32| {
            let q = i64::from((x * grid.inverse).clamp(-1e6, 1e6).round_ties_even() as i32 + grid.zero);
            q.clamp(-127, 127) - i64::from(grid.zero)
        };
        for (output, w) in w.chunks(k).enumerate() {
            let zero = i64::from(zeros.get(output).copied().unwrap_or(0));
            let sum: i64 = x.iter().zip(w).map(|(&x, &w)| code(x) * (i64::from(w) - zero)).sum();
            y.push(sum as f32 * grid.scale * scales[output]);
        }
    }
    y
}

#[test]
fn sums_are_exact_on_every_level_and_thread_count() {
    for (n, k) in [(1, 1), (5, 31), (16, 32), (17, 33), (70, 301), (40, 2048)] {
        let (w, scales) = (codes(1, n * k), values(2, n, 1.0).iter().map(|v| v.abs() + 0.01).collect::<Vec<_>>());
        let packed = PackedInt8::from_codes(&w, &scales, n, k);
        let zeros: Vec<i32> = codes(3, n).iter().map(|&z| i32::from(z)).collect();
        for rows in [1, 3, 7, 100] {
            let x = values(4, rows * k, 3.0);
            let affine: Vec<Int8Grid> = (0..rows).map(|r| Int8Grid::affine(-0.5 - r as f32 / 50.0, 2.0)).collect();
            for (grids, zeros) in
                [(&affine[..], &zeros[..]), (&affine[..1], &[]), (&[Int8Grid::symmetric(1.5)], &zeros)]
            {
                let expected = expected(&x, k, grids, &w, &scales, zeros);
                for isa in Isa::available() {
                    for threads in [1, 2] {
                        let cpu = Cpu::new(Some(isa), threads).expect("listed as available");
                        let mut y = vec![0.0; rows * n];
                        packed.forward_on(&cpu, &x, rows, grids, zeros, &mut y);
                        assert_eq!(y, expected, "{isa:?}, [{n}, {k}], {rows} rows");
                    }
                }
            }
        }
    }
}

#[test]
fn the_rows_own_grid_gives_the_bits_of_the_plain_product() {
    let (n, k, rows) = (33, 130, 9);
    let packed = PackedInt8::from_codes(&codes(5, n * k), &values(6, n, 2.0), n, k);
    let mut x = values(7, rows * k, 4.0);
    x[2 * k..3 * k].fill(0.0);
    x[4 * k + 1] = f32::NAN;
    x[5 * k + 129] = f32::NEG_INFINITY;
    for isa in Isa::available() {
        let cpu = Cpu::new(Some(isa), 2).expect("listed as available");
        let ranges: Vec<(f32, f32)> = x.chunks(k).map(|row| finite_range(&cpu, row)).collect();
        let grids: Vec<Int8Grid> = ranges.iter().map(|&(low, high)| Int8Grid::symmetric(high.max(-low))).collect();
        let (mut plain, mut on) = (vec![0.0; rows * n], vec![0.0; rows * n]);
        packed.forward(&cpu, &x, rows, &mut plain);
        packed.forward_on(&cpu, &x, rows, &grids, &[], &mut on);
        let bits = |y: &[f32]| y.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&plain[..4 * n]), bits(&on[..4 * n]), "{isa:?}");
        assert_eq!(bits(&plain[6 * n..]), bits(&on[6 * n..]), "{isa:?}");
        assert!(on[4 * n..6 * n].iter().all(|v| v.is_nan()));
        // a fixed grid does not hide a value that is not finite
        packed.forward_on(&cpu, &x, rows, &[Int8Grid::symmetric(4.0)], &[], &mut on);
        assert!(on[4 * n..6 * n].iter().all(|v| v.is_nan()) && on[6 * n..].iter().all(|v| v.is_finite()));
    }
}

#[test]
fn grids_by_hand() {
    let grid = Int8Grid::affine(-1.0, 3.0);
    // 254 steps over 4: 0 lies a quarter up, between −64 and −63 (ties to even)
    assert_eq!((grid.scale, grid.zero), (4.0 / 254.0, -64));
    assert_eq!((grid.code(0.0), grid.value(-64), grid.code(100.0), grid.code(-100.0)), (-64, 0.0, 127, -127));
    // one-sided ranges are stretched to hold 0
    assert_eq!(Int8Grid::affine(1.0, 2.0), Int8Grid::affine(0.0, 2.0));
    assert_eq!((Int8Grid::affine(0.0, 2.0).zero, Int8Grid::affine(-2.0, 0.0).zero), (-127, 127));
    assert_eq!(Int8Grid::symmetric(0.0), Int8Grid { scale: 0.0, inverse: 0.0, zero: 0 });
    assert!(Int8Grid::symmetric(f32::INFINITY).scale.is_nan() && Int8Grid::affine(f32::NAN, 1.0).scale.is_nan());
}

#[test]
fn ranges_see_every_value() {
    for isa in Isa::available() {
        let cpu = Cpu::new(Some(isa), 1).expect("listed as available");
        for len in [1, 15, 16, 17, 40] {
            for at in 0..len {
                let mut x = vec![0.5; len];
                x[at] = -2.0;
                assert_eq!(finite_range(&cpu, &x).0, -2.0);
                x[at] = 7.0;
                assert_eq!(finite_range(&cpu, &x).1, 7.0);
                x[at] = f32::INFINITY;
                assert!(finite_range(&cpu, &x).0.is_nan());
            }
        }
    }
}
