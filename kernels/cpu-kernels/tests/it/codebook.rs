//! The codebook linear: what it stores is what its codes say. Products, row counts, threads and levels are `linear`'s.

use crate::oracle::{cpus, values};
use cpu_kernels::{BlockScales, CodebookCodes, NestedScales, PackedCodebook, e4m3_to_f32, e8m0_to_f32};

/// Bytes below `top`, all of them where there are enough.
fn bytes(seed: u64, len: usize, top: u32) -> Vec<u8> {
    let drawn = values(seed, len);
    drawn.iter().enumerate().map(|(i, v)| ((i as u32 + ((v + 1.0) * 500.0) as u32) % top) as u8).collect()
}

/// Random codes with each form of scales.
pub fn codebook_formats(seed: u64, n: usize, k: usize) -> Vec<(String, CodebookCodes)> {
    let table: [f32; 16] = values(seed + 5, 16).try_into().expect("16 values");
    let codes = bytes(seed + 6, n * k, 16);
    let of = |name: &str, block: usize, scales: &dyn Fn(usize) -> BlockScales| {
        let scales = scales(n * k.div_ceil(block));
        (format!("codebook {name}/{block}"), CodebookCodes { n, k, block, table, codes: codes.clone(), scales })
    };
    let floats = |m: usize| BlockScales::F32(values(seed + 7, m).iter().map(|v| 0.02 + 0.01 * v).collect());
    let powers = |m: usize| BlockScales::E8m0(bytes(seed + 8, m, 12).iter().map(|b| b + 118).collect());
    let small = |m: usize| BlockScales::E4m3 { codes: bytes(seed + 9, m, 127), tensor: 0.01 };
    let nested = |m: usize| {
        let map: Vec<f32> = values(seed + 10, 256);
        BlockScales::Nested(NestedScales {
            codes: bytes(seed + 11, m, 256),
            map: Box::new(map.try_into().expect("256 values")),
            constants: values(seed + 12, m.div_ceil(256)),
            offset: 0.5,
        })
    };
    vec![
        of("f32", 64, &floats),
        of("e8m0", 32, &powers),
        of("e4m3", 16, &small),
        of("nested", 64, &nested),
        of("nested", 8, &nested),
    ]
}

#[test]
fn weights_are_the_table_times_the_scale() {
    for (n, k) in [(1, 1), (19, 77), (16, 256), (40, 330)] {
        for (name, source) in codebook_formats(3, n, k) {
            let unpacked = PackedCodebook::from_codes(&source).unpack();
            let blocks = k.div_ceil(source.block);
            for (at, (&code, &found)) in source.codes.iter().zip(&unpacked).enumerate() {
                let scale = source.scales.get(at / k * blocks + at % k / source.block);
                assert_eq!(found, source.table[code as usize] * scale, "{name} [{n}, {k}] at {at}");
            }
        }
    }
}

#[test]
fn kernels_multiply_by_exactly_the_unpacked_weights() {
    // the identity matrix picks out each weight: one FMA from zero
    let (n, k) = (35, 72);
    let mut identity = vec![0.0; k * k];
    (0..k).for_each(|j| identity[j * k + j] = 1.0);
    for (name, source) in codebook_formats(4, n, k) {
        let packed = PackedCodebook::from_codes(&source);
        let unpacked = packed.unpack();
        for cpu in cpus(&[1]) {
            for rows in [1, 2, 5, k] {
                let mut y = vec![f32::NAN; rows * n];
                packed.forward(&cpu, &identity[..rows * k], rows, &mut y);
                for (at, &found) in y.iter().enumerate() {
                    let want = unpacked[at % n * k + at / n];
                    assert_eq!(found, want, "{name} {} {rows} rows, output {at}", cpu.isa());
                }
            }
        }
    }
}

#[test]
fn stored_bytes_are_what_the_format_promises() {
    let (n, k) = (256, 4096);
    let tables = (16 * 4) as f64;
    for ((name, source), bits) in codebook_formats(5, n, k).into_iter().zip([4.5, 4.25, 4.5, 4.0 + 8.0 / 64.0]) {
        let bytes = PackedCodebook::from_codes(&source).bytes() as f64 - tables;
        let second = if name.contains("nested") { (256 + n * k / 64 / 256) as f64 * 4.0 } else { 0.0 };
        assert_eq!((bytes - second) * 8.0 / (n * k) as f64, bits, "{name}");
    }
}

#[test]
fn eight_bit_scales_decode_to_the_values_of_their_standard() {
    for (code, want) in [(0u8, 2f32.powi(-127)), (1, 2f32.powi(-126)), (127, 1.0), (128, 2.0), (254, 2f32.powi(127))] {
        assert_eq!(e8m0_to_f32(code), want);
    }
    assert!(e8m0_to_f32(255).is_nan());
    for (code, want) in [
        (0x00u8, 0.0),
        (0x01, 2f32.powi(-9)),
        (0x07, 7.0 * 2f32.powi(-9)),
        (0x08, 2f32.powi(-6)),
        (0x38, 1.0),
        (0x39, 1.125),
        (0x40, 2.0),
        (0x77, 240.0),
        (0x7e, 448.0),
        (0xfe, -448.0),
        (0xb8, -1.0),
    ] {
        assert_eq!(e4m3_to_f32(code), want, "{code:#x}");
    }
    assert!(e4m3_to_f32(0x7f).is_nan() && e4m3_to_f32(0xff).is_nan());
}

#[test]
fn every_eight_bit_scale_is_decoded_alike_by_all_kernels() {
    let (n, k) = (256, 8);
    let codes: Vec<u8> = (0..=255).collect();
    let all = [
        BlockScales::E8m0(codes.iter().map(|&c| c.min(254)).collect()),
        BlockScales::E4m3 { codes: codes.iter().map(|&c| if c & 127 == 127 { 126 } else { c }).collect(), tensor: 1.0 },
    ];
    for scales in all {
        let table = std::array::from_fn(|i| i as f32 / 8.0);
        let source = CodebookCodes { n, k, block: 8, table, codes: vec![8; n * k], scales: scales.clone() };
        let packed = PackedCodebook::from_codes(&source);
        for cpu in cpus(&[1]) {
            let mut y = vec![f32::NAN; n];
            let mut x = vec![0.0; k];
            x[0] = 1.0;
            packed.forward(&cpu, &x, 1, &mut y);
            let want: Vec<f32> = (0..n).map(|i| scales.get(i)).collect();
            assert_eq!(y, want, "{}", cpu.isa());
        }
    }
}
