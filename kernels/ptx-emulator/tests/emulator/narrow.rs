//! Floats of 8 and 16 bits: every value decoded and encoded again, and rounding against a search for the nearest.

use crate::device::{Device, pointer};

/// Value of a format's bits from its definition.
fn value(bits: u32, exponent_bits: u32, mantissa_bits: u32, finite: bool) -> f64 {
    let (mantissa, top) = (bits & ((1 << mantissa_bits) - 1), (1u32 << exponent_bits) - 1);
    let exponent = bits >> mantissa_bits & top;
    let sign = if bits >> (exponent_bits + mantissa_bits) & 1 == 1 { -1.0 } else { 1.0 };
    let bias = (top >> 1) as i32;
    let unit = 2f64.powi(-(mantissa_bits as i32));
    if exponent == top && !finite {
        return if mantissa == 0 { sign * f64::INFINITY } else { f64::NAN };
    }
    if finite && exponent == top && mantissa == (1 << mantissa_bits) - 1 {
        return f64::NAN;
    }
    if exponent == 0 {
        return sign * mantissa as f64 * unit * 2f64.powi(1 - bias);
    }
    sign * (1.0 + mantissa as f64 * unit) * 2f64.powi(exponent as i32 - bias)
}

/// A kernel with one instruction between `%r1` (f32 or bits in) and `%r2` (out) for each of `inputs`.
fn convert(body: &str, inputs: &[u32]) -> Vec<u32> {
    let ptx = format!(
        ".version 9.0\n.target sm_90a\n.address_size 64\n.visible .entry one(.param .u64 x, .param .u64 y)\n{{\n\
         .reg .b16 %h<8>;\n.reg .b32 %r<9>;\n.reg .b64 %rd<9>;\nld.param.u64 %rd1, [x];\nld.param.u64 %rd2, [y];\n\
         mov.u32 %r3, %ctaid.x;\nmov.u32 %r4, %tid.x;\nmad.lo.s32 %r4, %r3, 256, %r4;\nmul.wide.u32 %rd3, %r4, 4;\n\
         add.s64 %rd4, %rd1, %rd3;\nadd.s64 %rd5, %rd2, %rd3;\nld.global.b32 %r1, [%rd4];\n{body}\n\
         st.global.b32 [%rd5], %r2;\nret;\n}}\n"
    );
    let mut device = Device::new(&ptx);
    let mut padded = inputs.to_vec();
    padded.resize(inputs.len().next_multiple_of(256), 0);
    let bytes: Vec<u8> = padded.iter().flat_map(|word| word.to_le_bytes()).collect();
    let (input, output) = (device.bytes(&bytes), device.memory.alloc(bytes.len()));
    let grid = [padded.len() as u32 / 256, 1, 1];
    device
        .run("one", grid, [256, 1, 1], 0, &[pointer(input), pointer(output)])
        .unwrap_or_else(|e| panic!("{body}: {e}"));
    let mut all = device.read_words(output, padded.len());
    all.truncate(inputs.len());
    all
}

#[test]
fn every_half_and_bfloat16_widens_exactly_and_comes_back() {
    for (kind, exponent, mantissa) in [("f16", 5, 10), ("bf16", 8, 7)] {
        let inputs: Vec<u32> = (0..1 << 16).collect();
        let widened = convert(&format!("cvt.u16.u32 %h1, %r1;\ncvt.f32.{kind} %r2, %h1;"), &inputs);
        let back = convert(&format!("cvt.rn.{kind}.f32 %h1, %r1;\ncvt.u32.u16 %r2, %h1;"), &widened);
        for (&bits, (&wide, &again)) in inputs.iter().zip(widened.iter().zip(&back)) {
            let exact = value(bits, exponent, mantissa, false);
            let found = f32::from_bits(wide);
            if exact.is_nan() {
                assert!(found.is_nan() && value(again, exponent, mantissa, false).is_nan(), "{kind} {bits:#x}");
            } else {
                assert_eq!((found as f64).to_bits(), exact.to_bits(), "{kind} {bits:#x}");
                assert_eq!(again, bits, "{kind}");
            }
        }
    }
}

/// f32 values around every midpoint of neighbours of a format: below, on and above it.
fn around_midpoints(exponent: u32, mantissa: u32, finite: bool) -> Vec<(f32, u32)> {
    let mut all = Vec::new();
    for bits in 0..(1u32 << (exponent + mantissa)) - 1 {
        let (low, high) = (value(bits, exponent, mantissa, finite), value(bits + 1, exponent, mantissa, finite));
        if !high.is_finite() {
            continue;
        }
        let middle = ((low + high) / 2.0) as f32;
        let even = if bits & 1 == 0 { bits } else { bits + 1 };
        all.extend([(middle.next_down(), bits), (middle, even), (middle.next_up(), bits + 1)]);
    }
    all
}

#[test]
fn narrowing_rounds_to_the_nearest_and_ties_to_even() {
    let cases = around_midpoints(5, 10, false);
    let inputs: Vec<u32> = cases.iter().map(|(value, _)| value.to_bits()).collect();
    let found = convert("cvt.rn.f16.f32 %h1, %r1;\ncvt.u32.u16 %r2, %h1;", &inputs);
    for ((value, bits), found) in cases.iter().zip(found) {
        assert_eq!(found, *bits, "f16 of {value:e}");
    }
    for (kind, exponent, mantissa, finite) in [("e4m3x2", 4, 3, true), ("e5m2x2", 5, 2, false)] {
        let cases = around_midpoints(exponent, mantissa, finite);
        let inputs: Vec<u32> = cases.iter().map(|(value, _)| value.to_bits()).collect();
        let body =
            format!("mov.b32 %r5, 0f3F800000;\ncvt.rn.satfinite.{kind}.f32 %h1, %r5, %r1;\ncvt.u32.u16 %r2, %h1;");
        for ((value, bits), found) in cases.iter().zip(convert(&body, &inputs)) {
            assert_eq!(found & 0xff, *bits, "{kind} of {value:e}");
        }
        let beyond = convert(&body, &[1e9f32.to_bits(), (-1e9f32).to_bits()]);
        let largest = if finite { 0x7e } else { 0x7b };
        assert_eq!([beyond[0] & 0xff, beyond[1] & 0xff], [largest, largest | 0x80], "{kind} stays finite");
    }
}

#[test]
fn pairs_of_halves_round_once() {
    // fused: (1 + 2^-10)^2 - 1 keeps what a rounded product loses
    let one = 0x3c01u32;
    let pair = one | one << 16;
    let found = convert("mov.b32 %r5, 0xBC00BC00;\nfma.rn.f16x2 %r2, %r1, %r1, %r5;", &[pair]);
    let exact = (1.0 + 2f64.powi(-10)).powi(2) - 1.0;
    let expected = (0..1 << 15).min_by(|&a, &b| {
        let distance = |bits| (value(bits, 5, 10, false) - exact).abs();
        distance(a).total_cmp(&distance(b))
    });
    assert_eq!(found[0] & 0xffff, expected.unwrap());
    assert_eq!(found[0] >> 16, expected.unwrap());
    let high_first = convert("mov.b32 %r5, 0f40000000;\ncvt.rn.bf16x2.f32 %r2, %r5, %r1;", &[1f32.to_bits()]);
    assert_eq!(high_first[0], 0x4000_3f80);
}
