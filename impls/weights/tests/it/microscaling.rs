//! MXFP4 and NVFP4 against vectors worked out by hand from their standards.

use cpu_kernels::BlockScales;
use ndarray::ArrayView2;
use weights::quantizer::microscaling::{E2M1, Mxfp4, Nvfp4, e2m1_code, e4m3_code, mx_scale_code};
use weights::{Quantized, Quantizer};

use crate::wave;

#[test]
fn e2m1_has_its_sixteen_values_and_rounds_ties_to_even() {
    for (code, value) in E2M1.iter().enumerate() {
        assert_eq!(e2m1_code(*value as f64), code as u8, "{value}");
    }
    for (x, want) in [
        (0.25, 0.0),
        (0.75, 1.0),
        (1.25, 1.0),
        (1.75, 2.0),
        (2.5, 2.0),
        (3.5, 4.0),
        (5.0, 4.0),
        (5.1, 6.0),
        (7.9, 6.0),
        (1e30, 6.0),
    ] {
        assert_eq!(E2M1[e2m1_code(x) as usize], want, "{x}");
        assert_eq!(E2M1[e2m1_code(-x) as usize], -want, "-{x}");
    }
}

#[test]
fn e4m3_rounds_to_the_nearest_of_all_with_ties_to_even() {
    // every value, and every midpoint
    let values: Vec<f64> = (0..=0x7eu8).map(|code| cpu_kernels::e4m3_to_f32(code) as f64).collect();
    for (code, &value) in values.iter().enumerate() {
        assert_eq!(e4m3_code(value), code as u8, "{value}");
    }
    for (low, pair) in values.windows(2).enumerate() {
        let midpoint = (pair[0] + pair[1]) / 2.0;
        let even = (low + low % 2) as u8;
        assert_eq!(e4m3_code(midpoint), even, "between {} and {}", pair[0], pair[1]);
        assert_eq!(e4m3_code(midpoint * (1.0 + 1e-12)), low as u8 + 1);
        assert_eq!(e4m3_code(midpoint * (1.0 - 1e-12)), low as u8);
    }
    assert_eq!((e4m3_code(460.0), e4m3_code(1e9)), (0x7e, 0x7e));
}

#[test]
fn mx_scales_are_powers_of_two_from_the_largest_exponent() {
    for (amax, exponent) in
        [(6.0, 0), (4.0, 0), (3.99, -1), (7.9, 0), (8.0, 1), (1.0, -2), (0.75, -3), (1e-45, -127), (0.0, -127)]
    {
        assert_eq!(mx_scale_code(amax) as i32 - 127, exponent, "{amax}");
    }
    assert_eq!(mx_scale_code(f32::MAX) as i32 - 127, 125);
}

#[test]
fn a_block_of_mxfp4_worked_out_by_hand() {
    // largest 7: scale 2^0; 7 saturates at 6
    let mut weight = vec![0.0f32; 64];
    weight[..6].copy_from_slice(&[7.0, -5.0, 2.5, 0.3, -0.1, 1.25]);
    // second block: largest 0.2 = 1.6 · 2^-3, scale 2^-5: 0.2 is 6.4 steps, 0.05 is 1.6
    weight[32..34].copy_from_slice(&[0.2, -0.05]);
    let view = ArrayView2::from_shape((1, 64), &weight).expect("64 values");
    let Ok(Quantized::Codebook(codes)) = Mxfp4.quantize(view, None) else { panic!("codes") };
    assert_eq!(codes.scales, BlockScales::E8m0(vec![127, 122]));
    assert_eq!(codes.codes[..6], [7, 14, 4, 1, 8, 2]);
    assert_eq!(codes.codes[32..34], [7, 11]);
    let decoded = Quantized::Codebook(codes).dequantise();
    assert_eq!(decoded[..6], [6.0, -4.0, 2.0, 0.5, -0.0, 1.0]);
    assert_eq!(decoded[32..34], [6.0 / 32.0, -1.5 / 32.0]);
}

#[test]
fn a_matrix_of_nvfp4_worked_out_by_hand() {
    // largest 2688 = 6 · 448: the matrix's constant is 1, the first block's scale 448
    let mut weight = vec![0.0f32; 32];
    weight[..3].copy_from_slice(&[2688.0, 1344.0, -448.0]);
    // second block: largest 6.3, scale E4M3(1.05): between 1 and 1.125, nearer to 1
    weight[16..19].copy_from_slice(&[6.3, 2.4, -0.7]);
    let view = ArrayView2::from_shape((1, 32), &weight).expect("32 values");
    let Ok(Quantized::Codebook(codes)) = Nvfp4.quantize(view, None) else { panic!("codes") };
    assert_eq!(codes.scales, BlockScales::E4m3 { codes: vec![0x7e, 0x38], tensor: 1.0 });
    assert_eq!(codes.codes[..3], [7, 5, 10]);
    assert_eq!(codes.codes[16..19], [7, 4, 9]);
    assert_eq!(Quantized::Codebook(codes).dequantise()[16..19], [6.0, 2.0, -0.5]);
}

#[test]
fn extremes_stay_finite() {
    for value in [0.0, 1e-45, 1e-38, 1e-20, 1.0, 1e30, f32::MAX] {
        let mut weight = wave(31, 3, 40).iter().map(|w| w.clamp(-1.0, 1.0) * value).collect::<Vec<_>>();
        weight[50] = value;
        let view = ArrayView2::from_shape((3, 40), &weight).expect("120 values");
        for quantizer in [&Mxfp4 as &dyn Quantizer, &Nvfp4] {
            let decoded = quantizer.quantize(view, None).expect("finite").dequantise();
            assert!(decoded.iter().all(|d| d.is_finite()), "{value}");
            assert!(value < 1e-30 || (decoded[50] / value - 1.0).abs() < 0.34, "{value} became {}", decoded[50]);
        }
    }
}
