//! The group linear with int8 activations, against its definition in whole numbers, bit for bit on every level.

use crate::linear::group_codes;
use crate::oracle::{assert_same_bits, cpus, values};
use cpu_kernels::{GroupCodes, PackedGroup, PackedGroupInt8};

/// ((Σ code·q − zero·Σq)·sw)·sx per block of 32 positions of a group, summed in order; scales pass through f16.
fn definition(source: &GroupCodes, x: &[f32]) -> Vec<f32> {
    let GroupCodes { n, k, group, codes, scales, zeros, order, .. } = source;
    let half = |v: f32| half::f16::from_f32(v).to_f32();
    let column = |j: usize| order.as_ref().map_or(j, |order| order[j] as usize);
    let groups = k.div_ceil(*group);
    let mut y = Vec::new();
    for x in x.chunks_exact(*k) {
        for i in 0..*n {
            let mut sum = 0.0f32;
            for start in (0..*k).step_by(*group) {
                let end = (start + group).min(*k);
                let (scale, zero) = (half(scales[i * groups + start / group]), half(zeros[i * groups + start / group]));
                for block in (start..end).step_by(32) {
                    let positions = block..(block + 32).min(end);
                    let absmax = positions.clone().fold(0.0f32, |m, j| m.max(x[column(j)].abs()));
                    let q = |j: usize| {
                        if absmax < 1e-36 { 0.0 } else { (x[column(j)] * (127.0 / absmax)).round_ties_even() }
                    };
                    let dot: f64 = positions.clone().map(|j| f64::from(codes[i * k + j]) * f64::from(q(j))).sum();
                    let total: f64 = positions.map(|j| f64::from(q(j))).sum();
                    // whole numbers far below 2⁵³, and for whole zeros the difference is exact in f32 too
                    let difference = if zero.fract() == 0.0 {
                        (dot - f64::from(zero) * total) as f32
                    } else {
                        dot as f32 - zero * total as f32
                    };
                    let step = if absmax < 1e-36 { 0.0 } else { absmax / 127.0 };
                    sum += difference * scale * step;
                }
            }
            y.push(sum);
        }
    }
    y
}

fn run(packed: &PackedGroupInt8, x: &[f32], want: &[f32], what: &str) {
    for cpu in cpus(&[1, 2]) {
        let mut y = vec![f32::NAN; want.len()];
        packed.forward(&cpu, x, x.len() / packed.k(), &mut y);
        assert_same_bits(&y, want, &format!("{what} {} {} threads", cpu.isa(), cpu.threads()));
    }
}

#[test]
fn it_equals_its_definition_in_whole_numbers() {
    for bits in [2u8, 4, 8] {
        for (n, k, group, shuffled) in [
            (1, 1, 1, false),
            (16, 32, 32, false),
            (37, 131, 32, false),
            (33, 160, 64, true),
            (19, 77, 20, true),
            (50, 300, 300, false),
            (100, 256, 128, false),
        ] {
            for seed in [0, 1] {
                let mut source = group_codes(seed + u64::from(bits) * 2, n, k, bits, group, shuffled);
                if seed == 1 && k == 160 {
                    source.zeros.iter_mut().for_each(|zero| *zero += 0.25);
                }
                let x = values(seed + 9, 13 * k);
                let want = definition(&source, &x);
                run(&PackedGroupInt8::from_codes(source), &x, &want, &format!("{bits} bits {n}×{k}/{group}"));
            }
        }
    }
}

#[test]
fn extremes_do_not_saturate() {
    let (n, k) = (17, 4096);
    for bits in [2u8, 4, 8] {
        let top = ((1u32 << bits) - 1) as u8;
        for (code, zero) in [(top, 0.0), (top, f32::from(top)), (0, f32::from(top)), (0, 0.0)] {
            let (codes, scales) = (vec![code; n * k], vec![1.0; n * k / 32]);
            for zeros in [vec![zero; n * k / 32], (0..n * k / 32).map(|i| if i == 0 { 1.0 } else { zero }).collect()] {
                let source = GroupCodes {
                    n,
                    k,
                    bits,
                    group: 32,
                    codes: codes.clone(),
                    scales: scales.clone(),
                    zeros,
                    order: None,
                };
                for sign in [1.0f32, -1.0] {
                    let x = vec![sign; 7 * k];
                    run(&PackedGroupInt8::from_codes(source.clone()), &x, &definition(&source, &x), "extremes");
                }
            }
        }
    }
}

#[test]
fn blocks_with_nan_poison_their_row_and_zero_rows_are_zero() {
    let (n, k) = (20, 70);
    for seed in [0, 1] {
        let packed = PackedGroupInt8::from_codes(group_codes(seed, n, k, 4, 32, false));
        let mut x = vec![0.0; 4 * k];
        x[k + 7] = f32::NAN;
        x[2 * k + 1] = f32::NEG_INFINITY;
        x[3 * k..].fill(1e-38);
        for cpu in cpus(&[1]) {
            let mut y = vec![5.0; 4 * n];
            packed.forward(&cpu, &x, 4, &mut y);
            let zero = |y: &[f32]| y.iter().all(|&v| v == 0.0);
            assert!(zero(&y[..n]) && zero(&y[3 * n..]) && y[n..3 * n].iter().all(|v| v.is_nan()), "{}", cpu.isa());
        }
    }
}

#[test]
fn weights_and_bytes_are_those_of_the_f32_kernel_and_inputs_are_shown_as_coded() {
    for bits in [2u8, 4, 8] {
        for (group, shuffled) in [(128, false), (32, true), (20, true)] {
            let source = group_codes(u64::from(bits), 19, 77, bits, group.min(77), shuffled);
            let (int8, float) = (PackedGroupInt8::from_codes(source.clone()), PackedGroup::from_codes(source));
            assert_eq!((int8.unpack(), int8.bytes()), (float.unpack(), float.bytes()));
            let x = values(3, 2 * 77);
            for cpu in cpus(&[1]) {
                let seen = int8.coded_inputs(&cpu, &x, 2);
                // half a step of the largest possible block
                assert!(seen.iter().zip(&x).all(|(a, b)| (a - b).abs() <= 0.5 / 127.0 * 1.001), "{}", cpu.isa());
                let mut products = [vec![0.0; 2 * 19], vec![0.0; 2 * 19]];
                int8.forward(&cpu, &x, 2, &mut products[0]);
                float.forward(&cpu, &seen, 2, &mut products[1]);
                let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-4 * (1.0 + b.abs());
                assert!(products[0].iter().zip(&products[1]).all(close), "{} bits {bits} group {group}", cpu.isa());
            }
        }
    }
}
