//! Products of a decoder on the emulated device, against f64.

use cuda_kernels::linear::{
    Bf16Weights, DeviceLinear, F16Weights, F32Weights, Group4Weights, GroupCodes, Int8Weights, Workspace, pack_int4,
    place_16, place_int4, place_int8,
};
use cuda_kernels::{Gpu, GpuError};
use half::{bf16, f16};

use crate::devices;
use crate::problems::{normals, random};

/// y of the first `rows` rows of `x` on poisoned memory.
fn product(gpu: &Gpu, weights: &dyn DeviceLinear, x: &[f32], rows: usize) -> Vec<f32> {
    let x = gpu.upload(&x[..rows * weights.k()]).unwrap();
    let y = gpu.upload(&vec![f32::NAN; rows * weights.n() + 3]).unwrap();
    let mut workspace = Workspace::new(gpu).unwrap();
    weights.reserve(rows, &mut workspace).unwrap();
    workspace.poison().unwrap();
    let held = workspace.bytes();
    weights.forward(&x, rows, &y, &mut workspace).unwrap();
    assert_eq!(workspace.bytes(), held, "reserved, and yet it grew");
    let mut y = y.read().unwrap();
    assert!(y[rows * weights.n()..].iter().all(|v| v.is_nan()), "stored beyond the end");
    y.truncate(rows * weights.n());
    y
}

/// Every row count gives the same bits, and they are near the f64 product of `x` with `w` `[n, k]`.
fn check(gpu: &Gpu, weights: &dyn DeviceLinear, x: &[f32], w: &[f64], rows: &[usize]) {
    let (n, k) = (weights.n(), weights.k());
    let most = *rows.iter().max().unwrap();
    let all = product(gpu, weights, x, most);
    for &rows in rows {
        let some = if rows == most { all.clone() } else { product(gpu, weights, x, rows) };
        assert!(some.iter().zip(&all).all(|(a, b)| a.to_bits() == b.to_bits()), "{rows} rows differ from {most}");
    }
    for (row, y) in all.chunks(n).enumerate() {
        for (output, &y) in y.iter().enumerate() {
            let pairs = x[row * k..][..k].iter().zip(&w[output * k..]).map(|(&a, &b)| f64::from(a) * b);
            let (sum, magnitude) = pairs.fold((0.0, 0.0), |(s, m): (f64, f64), p| (s + p, m + p.abs()));
            let error = (f64::from(y) - sum).abs();
            assert!(error <= 4e-6 * magnitude, "row {row} output {output}: {y} for {sum}, {weights:?}");
        }
    }
}

fn rounded(values: &[f32], round: fn(f32) -> f32) -> Vec<f32> {
    values.iter().map(|&v| round(v)).collect()
}

#[test]
fn f32_weights() {
    for gpu in devices() {
        for (n, k) in [(37, 72), (5, 131)] {
            let (w, x) = (normals(n * k, 1), normals(20 * k, 2));
            let weights = F32Weights::upload(&gpu, &w, n, k).unwrap();
            check(&gpu, &weights, &x, &w.iter().map(|&v| f64::from(v)).collect::<Vec<_>>(), &[1, 2, 9, 20]);
        }
    }
}

#[test]
fn f16_weights_by_every_route() {
    for gpu in devices() {
        let round: fn(f32) -> f32 = |v| f16::from_f32(v).to_f32();
        for (n, k, rows) in [(150, 200, &[1, 7, 9, 16, 17, 65][..]), (16, 8, &[1, 3]), (33, 1024, &[1, 17])] {
            let most = *rows.iter().max().unwrap();
            let (w, x) = (rounded(&normals(n * k, 3), round), rounded(&normals(most * k, 4), round));
            let bits: Vec<u16> = w.iter().map(|&v| f16::from_f32(v).to_bits()).collect();
            let weights = F16Weights::upload(&gpu, &bits, n, k).unwrap();
            check(&gpu, &weights, &x, &w.iter().map(|&v| f64::from(v)).collect::<Vec<_>>(), rows);
        }
    }
}

#[test]
fn bf16_weights() {
    for gpu in devices() {
        let round: fn(f32) -> f32 = |v| bf16::from_f32(v).to_f32();
        let (n, k) = (40, 264);
        let (w, x) = (rounded(&normals(n * k, 5), round), rounded(&normals(17 * k, 6), round));
        let bits: Vec<u16> = w.iter().map(|&v| bf16::from_f32(v).to_bits()).collect();
        let weights = Bf16Weights::upload(&gpu, &bits, n, k).unwrap();
        check(&gpu, &weights, &x, &w.iter().map(|&v| f64::from(v)).collect::<Vec<_>>(), &[1, 16, 17]);
    }
}

/// Inputs that are not of 16 bits are rounded to nearest even, and too many for one kernel's grid of 64 rows without a split.
#[test]
fn inputs_are_rounded_and_whole_sums_need_no_slices() {
    for gpu in devices() {
        let (n, k) = (128 * 67, 16);
        let x: Vec<f32> = normals(17 * k, 7);
        let near: Vec<f32> = rounded(&x, |v| f16::from_f32(v).to_f32());
        let w: Vec<f32> = (0..n * k).map(|i| if i % k == i / k % k { 1.0 } else { 0.0 }).collect();
        let bits: Vec<u16> = w.iter().map(|&v| f16::from_f32(v).to_bits()).collect();
        let weights = F16Weights::upload(&gpu, &bits, n, k).unwrap();
        let y = product(&gpu, &weights, &x, 17);
        for (row, y) in y.chunks(n).enumerate() {
            assert!(y.iter().enumerate().all(|(output, &y)| y == near[row * k + output % k]), "row {row}");
        }
    }
}

#[test]
fn int8_weights_are_exact() {
    for gpu in devices() {
        let (n, k, rows) = (35, 150, 18);
        let codes: Vec<i8> = random(n * k, 255, 8).into_iter().map(|v| (v as i32 - 127) as i8).collect();
        let scales: Vec<f32> = normals(n, 9).into_iter().map(|v| 0.01 * v.abs()).collect();
        let mut x = normals(rows * k, 10);
        x[2 * k..3 * k].fill(0.0);
        x[3 * k + 5] = f32::NAN;
        x[4 * k + 6] = f32::INFINITY;
        x[5 * k..6 * k].iter_mut().for_each(|v| *v = (*v * 4.0).round() + 0.5);
        let weights = Int8Weights::upload(&gpu, &codes, &scales, n, k).unwrap();
        for rows in [1, 6, 16, rows] {
            let y = product(&gpu, &weights, &x, rows);
            for (row, y) in y.chunks(n).enumerate() {
                let x = &x[row * k..][..k];
                let largest = x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                let sound = x.iter().all(|v| v.is_finite());
                for (output, &y) in y.iter().enumerate() {
                    if !sound || largest == 0.0 {
                        assert!(if sound { y == 0.0 } else { y.is_nan() }, "row {row}: {y}");
                        continue;
                    }
                    let code = |v: f32| (v * (127.0 / largest)).round_ties_even() as i64;
                    let pairs = x.iter().zip(&codes[output * k..]);
                    let sum: i64 = pairs.map(|(&a, &b)| code(a) * i64::from(b)).sum();
                    let expected = sum as f32 * (largest / 127.0) * scales[output];
                    assert_eq!(y.to_bits(), expected.to_bits(), "{rows} rows: row {row} output {output}");
                }
            }
        }
    }
}

/// The zero of the group of an index.
type Zero = fn(usize) -> f32;
/// Columns per group, n, k, zeros, act-order and row counts of a case.
type Case = (usize, usize, usize, Zero, bool, &'static [usize]);
/// Output and column of number `i` of a word of a lane.
type Place = fn(usize, usize, usize) -> (usize, usize);

/// Codes, their decoded values in f64, and what made them.
struct Group {
    codes: Vec<u8>,
    scales: Vec<f32>,
    zeros: Vec<f32>,
    order: Vec<u32>,
    w: Vec<f64>,
}

fn group(n: usize, k: usize, group: usize, zero: fn(usize) -> f32, ordered: bool, seed: u64) -> Group {
    let groups = k.div_ceil(group);
    let codes: Vec<u8> = random(n * k, 16, seed).into_iter().map(|v| v as u8).collect();
    let half = |v: f32| f16::from_f32(v).to_f32();
    let scales: Vec<f32> = normals(n * groups, seed + 1).into_iter().map(|v| half(0.1 + 0.02 * v)).collect();
    let zeros: Vec<f32> = (0..n * groups).map(zero).collect();
    let mut order: Vec<u32> = (0..k as u32).collect();
    if ordered {
        order.sort_by_key(|&j| (u64::from(j) * 2_654_435_761) % 1009);
    }
    let mut w = vec![0.0; n * k];
    for (output, j) in (0..n).flat_map(|output| (0..k).map(move |j| (output, j))) {
        let at = output * groups + j / group;
        let code = f64::from(codes[output * k + j]);
        w[output * k + order[j] as usize] = f64::from(scales[at]) * (code - f64::from(half(zeros[at])));
    }
    Group { codes, scales, zeros, order, w }
}

#[test]
fn group4_weights() {
    for gpu in devices() {
        let eight: fn(usize) -> f32 = |_| 8.0;
        let many: fn(usize) -> f32 = |i| (i % 7) as f32 + 4.3;
        let round: fn(f32) -> f32 = |v| f16::from_f32(v).to_f32();
        // (n, k, columns per group, zeros, act-order, row counts)
        let cases: [Case; 7] = [
            (40, 320, 32, eight, false, &[1, 9, 17]),
            (24, 192, 64, many, false, &[1, 10, 17]),
            (24, 1280, 128, eight, false, &[2, 17]),
            (130, 384, 128, many, true, &[1, 16, 18]),
            (17, 200, 128, many, false, &[1, 17]),
            (16, 110, 40, many, false, &[3, 17]),
            (20, 600, 600, many, true, &[1, 17]),
        ];
        for (case, (n, k, columns, zero, ordered, rows)) in cases.into_iter().enumerate() {
            let of = group(n, k, columns, zero, ordered, 20 + case as u64);
            let x = rounded(&normals(rows.iter().max().unwrap() * k, 30 + case as u64), round);
            let order = ordered.then_some(&of.order[..]);
            let source =
                GroupCodes { n, k, group: columns, codes: &of.codes, scales: &of.scales, zeros: &of.zeros, order };
            let weights = Group4Weights::upload(&gpu, &source).unwrap();
            check(&gpu, &weights, &x, &of.w, rows);
        }
    }
}

/// A product recorded is a product replayed: nothing is allocated or asked of the host in between.
#[test]
fn a_recorded_product_is_replayed_on_new_inputs() {
    for gpu in devices() {
        let (n, k) = (32, 128);
        let of = group(n, k, 64, |_| 7.0, false, 50);
        let source =
            GroupCodes { n, k, group: 64, codes: &of.codes, scales: &of.scales, zeros: &of.zeros, order: None };
        let weights = Group4Weights::upload(&gpu, &source).unwrap();
        let mut workspace = Workspace::new(&gpu).unwrap();
        weights.reserve(1, &mut workspace).unwrap();
        let (x, y) = (gpu.zeros(k).unwrap(), gpu.zeros(n).unwrap());
        let recording = gpu.record(|| weights.forward(&x, 1, &y, &mut workspace)).unwrap();
        for seed in [51, 52] {
            let values = normals(k, seed);
            x.write(0, &values).unwrap();
            recording.replay().unwrap();
            assert_eq!(y.read().unwrap(), product(&gpu, &weights, &values, 1));
        }
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    for gpu in devices() {
        let short = F16Weights::upload(&gpu, &[0; 10], 2, 6);
        assert!(matches!(short, Err(GpuError::Shape { .. })), "{short:?}");
        let source =
            GroupCodes { n: 1, k: 4, group: 4, codes: &[1, 2, 16, 3], scales: &[1.0], zeros: &[8.0], order: None };
        assert!(Group4Weights::upload(&gpu, &source).unwrap_err().to_string().contains("16 does not fit"));
        let source = GroupCodes { codes: &[1, 2, 3, 4], order: Some(&[0, 1, 2, 4]), ..source };
        assert!(Group4Weights::upload(&gpu, &source).unwrap_err().to_string().contains("below 4"));
        let weights = F32Weights::upload(&gpu, &[1.0; 6], 2, 3).unwrap();
        let (x, y) = (gpu.zeros(6).unwrap(), gpu.zeros(3).unwrap());
        let mut workspace = Workspace::new(&gpu).unwrap();
        assert!(
            weights.forward(&x, 2, &y, &mut workspace).unwrap_err().to_string().contains("the buffers hold 6 and 3")
        );
    }
}

/// Each place of a tile is taken once.
#[test]
fn tile_maps_are_bijective() {
    let maps: [(Place, usize); 3] = [(place_16, 2), (place_int8, 4), (place_int4, 8)];
    for (place, per_word) in maps {
        let columns = 8 * per_word;
        let mut taken = vec![false; 16 * columns];
        for (lane, word, i) in (0..32).flat_map(|l| (0..4).flat_map(move |w| (0..per_word).map(move |i| (l, w, i)))) {
            let (output, column) = place(lane, word, i);
            assert!(output < 16 && column < columns);
            assert!(!std::mem::replace(&mut taken[output * columns + column], true), "{lane} {word} {i}");
        }
    }
}

/// The kernel's way from a word to f16 pairs, step by step in the host's f16: every code becomes code − 8 in the place that mma expects.
#[test]
fn four_bit_words_unpack_to_exact_values() {
    let (n, k) = (16, 64);
    let codes: Vec<u8> = random(n * k, 16, 60).into_iter().map(|v| v as u8).collect();
    let slots: Vec<Option<u32>> = (0..k as u32).map(Some).collect();
    let words = pack_int4(&codes, n, k, &slots);
    let pair = |bits: u32| [bits as u16, (bits >> 16) as u16].map(|b| f16::from_bits(b).to_f32());
    for (lane, step) in (0..32).flat_map(|lane| (0..4).map(move |step| (lane, step))) {
        let q = words[lane * 4 + step];
        for register in 0..4 {
            let shifted = if register < 2 { q } else { q >> 8 };
            let values = if register % 2 == 0 {
                pair(shifted & 0x000F_000F | 0x6400_6400).map(|v| v - 1032.0)
            } else {
                pair(shifted & 0x00F0_00F0 | 0x6400_6400).map(|v| v.mul_add(1.0 / 16.0, -72.0))
            };
            for (i, value) in values.into_iter().enumerate() {
                let (row, column) =
                    (lane / 4 + 8 * (register & 1), 16 * step + 2 * (lane % 4) + i + 8 * (register >> 1));
                assert_eq!(value, f32::from(codes[row * k + column]) - 8.0);
            }
        }
    }
}
