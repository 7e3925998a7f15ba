//! Every packed linear: against f64, and bit-equal over row counts, threads, and levels.

use crate::codebook::codebook_formats;
use crate::oracle::{assert_close, assert_same_bits, cpus, linear, values};
use cpu_kernels::{
    Cpu, GroupCodes, Isa, LatticeCodes, PackedBf16, PackedCodebook, PackedF16, PackedF32, PackedGroup, PackedGroupInt8,
    PackedInt8, PackedLattice,
};
use proptest::prelude::*;

/// A packed weight of any format behind one face.
pub enum Packed {
    F32(PackedF32),
    F16(PackedF16),
    Bf16(PackedBf16),
    Int8(PackedInt8),
    Group(PackedGroup),
    GroupInt8(PackedGroupInt8),
    Codebook(PackedCodebook),
    Lattice(PackedLattice),
}

impl Packed {
    pub fn forward(&self, cpu: &Cpu, x: &[f32], rows: usize, n: usize) -> Vec<f32> {
        let mut y = vec![f32::NAN; rows * n];
        match self {
            Packed::F32(w) => w.forward(cpu, x, rows, &mut y),
            Packed::F16(w) => w.forward(cpu, x, rows, &mut y),
            Packed::Bf16(w) => w.forward(cpu, x, rows, &mut y),
            Packed::Int8(w) => w.forward(cpu, x, rows, &mut y),
            Packed::Group(w) => w.forward(cpu, x, rows, &mut y),
            Packed::GroupInt8(w) => w.forward(cpu, x, rows, &mut y),
            Packed::Codebook(w) => w.forward(cpu, x, rows, &mut y),
            Packed::Lattice(w) => w.forward(cpu, x, rows, &mut y),
        }
        y
    }

    fn unpack(&self) -> Vec<f32> {
        match self {
            Packed::F32(w) => w.unpack(),
            Packed::F16(w) => w.unpack(),
            Packed::Bf16(w) => w.unpack(),
            Packed::Int8(w) => w.unpack(),
            Packed::Group(w) => w.unpack(),
            Packed::GroupInt8(w) => w.unpack(),
            Packed::Codebook(w) => w.unpack(),
            Packed::Lattice(w) => w.unpack(),
        }
    }
}

/// Random codes of a group format; every other seed has equal zeros.
pub fn group_codes(seed: u64, n: usize, k: usize, bits: u8, group: usize, shuffled: bool) -> GroupCodes {
    let groups = k.div_ceil(group);
    let top = (1u32 << bits) as f32;
    let codes = values(seed, n * k).iter().map(|v| ((v + 1.0) * 0.5 * top).min(top - 1.0) as u8).collect();
    let scales = values(seed + 1, n * groups).iter().map(|v| 0.01 + 0.005 * v).collect();
    let zeros = match seed % 2 {
        0 => vec![top / 2.0; n * groups],
        _ => values(seed + 2, n * groups).iter().map(|v| ((v + 1.0) * 0.5 * (top - 1.0)).round()).collect(),
    };
    let order = shuffled.then(|| {
        let mut order: Vec<u32> = (0..k as u32).collect();
        let keys = values(seed + 3, k);
        order.sort_by(|&a, &b| keys[a as usize].total_cmp(&keys[b as usize]));
        order
    });
    GroupCodes { n, k, bits, group, codes, scales, zeros, order }
}

fn int8(seed: u64, n: usize, k: usize) -> PackedInt8 {
    let codes: Vec<i8> = values(seed, n * k).iter().map(|v| (v * 128.0).floor() as i8).collect();
    let scales: Vec<f32> = values(seed + 1, n).iter().map(|v| 0.01 + 0.005 * v).collect();
    PackedInt8::from_codes(&codes, &scales, n, k)
}

/// Every kind of byte in either half of a code.
fn lattice(seed: u64, n: usize, k: usize) -> PackedLattice {
    let codes = values(seed, n * k.div_ceil(8)).iter().map(|v| ((v + 1.0) * 32767.9) as u16).collect();
    let scales = values(seed + 1, n).iter().map(|v| 0.05 + 0.02 * v).collect();
    PackedLattice::from_codes(&LatticeCodes { n, k, codes, scales })
}

fn all_formats(seed: u64, n: usize, k: usize) -> Vec<(String, Packed)> {
    let w = values(seed, n * k);
    let mut all = vec![
        ("f32".to_string(), Packed::F32(PackedF32::pack(&w, n, k))),
        ("f16".to_string(), Packed::F16(PackedF16::pack(&w, n, k))),
        ("bf16".to_string(), Packed::Bf16(PackedBf16::pack(&w, n, k))),
        ("int8".to_string(), Packed::Int8(int8(seed, n, k))),
    ];
    all.push(("e8p".to_string(), Packed::Lattice(lattice(seed, n, k))));
    for (name, codes) in codebook_formats(seed, n, k) {
        all.push((name, Packed::Codebook(PackedCodebook::from_codes(&codes))));
    }
    for bits in [2, 3, 4, 8] {
        for (group, shuffled) in [(32, false), (20, true), (k, false)] {
            let codes = group_codes(seed + u64::from(bits) + group as u64, n, k, bits, group, shuffled);
            if bits != 3 {
                let packed = PackedGroupInt8::from_codes(codes.clone());
                all.push((format!("int8-group{bits}/{group}"), Packed::GroupInt8(packed)));
            }
            all.push((format!("group{bits}/{group}"), Packed::Group(PackedGroup::from_codes(codes))));
        }
    }
    all
}

#[test]
fn a_result_does_not_depend_on_row_count_or_threads() {
    for (n, k) in [(100, 300), (48, 64), (33, 515)] {
        let x = values(7, 400 * k);
        for (name, packed) in all_formats(n as u64, n, k) {
            for isa in Isa::available() {
                let one = Cpu::new(Some(isa), 1).expect("available");
                let two = Cpu::new(Some(isa), 2).expect("available");
                let whole = packed.forward(&one, &x[..33 * k], 33, n);
                for rows in [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 17, 33, 200, 400] {
                    for cpu in [&one, &two] {
                        let y = packed.forward(cpu, &x[..rows * k], rows, n);
                        let common = rows.min(33) * n;
                        let what = format!("{name} {isa} {n}×{k}, {rows} rows, {} threads", cpu.threads());
                        assert_same_bits(&y[..common], &whole[..common], &what);
                    }
                }
            }
        }
    }
}

#[test]
fn large_enough_work_for_two_threads_gives_the_same_bits() {
    let (n, k) = (700, 520);
    let x = values(7, 300 * k);
    for (name, packed) in all_formats(3, n, k) {
        for isa in Isa::available().into_iter().filter(|&isa| isa != Isa::Scalar) {
            let one = Cpu::new(Some(isa), 1).expect("available");
            let three = Cpu::new(Some(isa), 3).expect("available");
            for rows in [1, 5, 20, 300] {
                let a = packed.forward(&one, &x[..rows * k], rows, n);
                let b = packed.forward(&three, &x[..rows * k], rows, n);
                assert_same_bits(&a, &b, &format!("{name} {isa} {rows} rows"));
            }
        }
    }
}

#[test]
fn avx2_and_avx512_agree_bit_for_bit_and_int8_everywhere() {
    let (n, k) = (70, 205);
    for (name, packed) in all_formats(11, n, k) {
        let x = values(5, 14 * k);
        let results: Vec<(Isa, Vec<f32>)> =
            cpus(&[1]).iter().map(|cpu| (cpu.isa(), packed.forward(cpu, &x, 14, n))).collect();
        for pair in results.windows(2) {
            if name.starts_with("int8") || pair[0].0 != Isa::Scalar {
                assert_same_bits(&pair[0].1, &pair[1].1, &format!("{name}: {} against {}", pair[0].0, pair[1].0));
            }
        }
    }
}

#[test]
fn int8_equals_the_plain_integer_statement() {
    let (n, k, rows) = (37, 131, 5);
    let codes: Vec<i8> = values(1, n * k).iter().map(|v| (v * 128.0).floor() as i8).collect();
    let scales = values(2, n);
    let mut x = values(3, rows * k);
    x[..k].fill(1.0); // every product at its extreme: 127 · code
    let packed = PackedInt8::from_codes(&codes, &scales, n, k);
    let mut want = Vec::new();
    for row in x.chunks(k) {
        let absmax = row.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let q: Vec<i32> = row.iter().map(|v| (v * (127.0 / absmax)).round_ties_even() as i32).collect();
        for i in 0..n {
            let acc: i32 = (0..k).map(|j| q[j] * i32::from(codes[i * k + j])).sum();
            want.push(acc as f32 * (absmax / 127.0) * scales[i]);
        }
    }
    for cpu in cpus(&[1, 2]) {
        let y = Packed::Int8(packed.clone()).forward(&cpu, &x, rows, n);
        assert_same_bits(&y, &want, &format!("int8 {}", cpu.isa()));
    }
}

#[test]
fn int8_extremes_do_not_saturate() {
    let (n, k) = (17, 4096);
    for code in [-128i8, 127] {
        let packed = PackedInt8::from_codes(&vec![code; n * k], &vec![1.0; n], n, k);
        for sign in [1.0f32, -1.0] {
            for cpu in cpus(&[1]) {
                let y = Packed::Int8(packed.clone()).forward(&cpu, &vec![sign; k], 1, n);
                let want = (127 * i32::from(code) * k as i32) as f32 * sign * (1.0 / 127.0);
                assert!(y.iter().all(|&v| v == want), "{} code {code}: {} instead of {want}", cpu.isa(), y[0]);
            }
        }
    }
}

#[test]
fn int8_rows_with_nan_are_nan_and_zero_rows_are_zero() {
    let (n, k) = (20, 40);
    let packed = int8(3, n, k);
    let mut x = vec![0.0; 3 * k];
    x[k + 7] = f32::NAN;
    x[2 * k + 1] = f32::INFINITY;
    for cpu in cpus(&[1]) {
        let mut y = vec![5.0; 3 * n];
        packed.forward(&cpu, &x, 3, &mut y);
        assert!(y[..n].iter().all(|&v| v == 0.0) && y[n..].iter().all(|v| v.is_nan()), "{}", cpu.isa());
    }
}

#[test]
fn group_weights_are_scale_times_code_minus_zero() {
    for bits in [2u8, 3, 4, 8] {
        for (group, shuffled) in [(128, false), (32, true), (20, true), (77, false)] {
            let source = group_codes(u64::from(bits) * 2 + 1, 19, 77, bits, group.min(77), shuffled);
            let unpacked = PackedGroup::from_codes(source.clone()).unpack();
            let groups = 77usize.div_ceil(group.min(77));
            for i in 0..19 {
                for j in 0..77 {
                    let column = source.order.as_ref().map_or(j, |order| order[j] as usize);
                    let at = i * groups + j / group.min(77);
                    let scale = half::f16::from_f32(source.scales[at]).to_f32();
                    let want = scale * (f32::from(source.codes[i * 77 + j]) - source.zeros[at]);
                    assert_eq!(unpacked[i * 77 + column], want, "bits {bits} group {group} row {i} position {j}");
                }
            }
        }
    }
}

#[test]
fn stored_bytes_are_what_the_format_promises() {
    let (n, k) = (64, 1024);
    for (bits, seed, per_weight) in [(2u8, 0, 2.125), (3, 0, 3.125), (4, 0, 4.125), (4, 1, 4.25), (8, 0, 8.125)] {
        let packed = PackedGroup::from_codes(group_codes(seed, n, k, bits, 128, false));
        assert_eq!(packed.bytes() as f64 * 8.0 / (n * k) as f64, per_weight, "bits {bits}");
    }
    assert_eq!(PackedF16::pack(&values(0, n * k), n, k).bytes(), n * k * 2);
}

#[test]
fn sixteen_bit_packing_rounds_to_nearest_even() {
    let w = [1.0, 1.0 + f32::EPSILON, 65504.0, 6e-8, -0.3];
    let unpacked = PackedF16::pack(&w, 1, 5).unpack();
    let want: Vec<f32> = w.iter().map(|&v| half::f16::from_f32(v).to_f32()).collect();
    assert_eq!(unpacked, want);
    let direct: Vec<half::bf16> = w.iter().map(|&v| half::bf16::from_f32(v)).collect();
    assert_eq!(PackedBf16::pack_exact(&direct, 1, 5).unpack(), PackedBf16::pack(&w, 1, 5).unpack());
}

#[test]
fn every_half_pattern_is_widened_exactly_on_every_level() {
    // The identity matrix picks out each stored weight: y = 1 · w.
    for start in (0..=u16::MAX as u32).step_by(4096) {
        let patterns: Vec<half::f16> = (start..start + 4096).map(|b| half::f16::from_bits(b as u16)).collect();
        let packed = PackedF16::pack_exact(&patterns, 4096, 1);
        for cpu in cpus(&[1]) {
            let mut y = vec![0.0; 4096];
            packed.forward(&cpu, &[1.0], 1, &mut y);
            for (got, want) in y.iter().zip(&patterns) {
                let want = want.to_f32();
                assert!(*got == want || got.is_nan() && want.is_nan(), "{}: {got} instead of {want}", cpu.isa());
            }
        }
    }
}

#[test]
fn empty_problems_are_fine() {
    for cpu in cpus(&[2]) {
        PackedF32::pack(&[], 0, 8).forward(&cpu, &[1.0; 8], 1, &mut []);
        PackedF32::pack(&[1.0; 8], 1, 8).forward(&cpu, &[], 0, &mut []);
        let mut y = [3.0; 4];
        PackedF32::pack(&[], 2, 0).forward(&cpu, &[], 2, &mut y);
        assert_eq!(y, [0.0; 4]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn every_format_matches_f64(seed in 0u64..1000, rows in 1usize..20, n in 1usize..70, k in 1usize..330) {
        let x = values(seed, rows * k);
        for (name, packed) in all_formats(seed, n, k) {
            if name.starts_with("int8") {
                continue; // activations are quantised: covered by exact integer tests
            }
            let want = linear(&x, &packed.unpack(), rows, n, k);
            for cpu in cpus(&[1]) {
                let y = packed.forward(&cpu, &x, rows, n);
                // A chain of k FMAs: k·2⁻²⁴ of Σ|x·w|; scalar rounds twice a step.
                assert_close(&y, &want, (2 * k + 2) as f64 * 2f64.powi(-24), &format!("{name} {}", cpu.isa()));
            }
        }
    }
}
