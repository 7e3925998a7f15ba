//! NF4, FP4 and Int4: tables and codes against bitsandbytes' (fixtures/nf4: one 32 x 96 matrix, its codes, scales and
//! weights, single and double-quantised) and against what their papers say.

use cpu_kernels::{BlockScales, CodebookCodes};
use ndarray::ArrayView2;
use safetensors::SafeTensors;
use weights::quantizer::codebook::{BlockAbsmax, FP4_E2M1, INT4, NF4};
use weights::{BlockSpec, DoubleQuant, Fp4Spec, Quantized, Quantizer, WeightSource, WeightsSpec, build_linear};

use crate::{device, wave};

/// As printed by the paper's code.
const PUBLISHED_NF4: [f64; 16] = [
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
];
const BITSANDBYTES_FP4: [f64; 16] = [
    0.0,
    0.0052083334885537624,
    0.6666666865348816,
    1.0,
    0.3333333432674408,
    0.5,
    0.1666666716337204,
    0.25,
    0.0,
    -0.0052083334885537624,
    -0.6666666865348816,
    -1.0,
    -0.3333333432674408,
    -0.5,
    -0.1666666716337204,
    -0.25,
];

const FIXTURE: &[u8] = include_bytes!("../fixtures/nf4/expected.safetensors");
/// Its shape.
const SHAPE: (usize, usize) = (32, 96);

fn floats(name: &str) -> Vec<f32> {
    let file = SafeTensors::deserialize(FIXTURE).expect("a fixture");
    let bytes = file.tensor(name).expect(name).data();
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn bytes(name: &str) -> Vec<u8> {
    SafeTensors::deserialize(FIXTURE).expect("a fixture").tensor(name).expect(name).data().to_vec()
}

/// The fixture's blocks run over the flattened matrix; as one row they do so here too.
fn flat_fixture(double_quant: Option<DoubleQuant>) -> CodebookCodes {
    let weight = floats("t0.weight");
    let view = ArrayView2::from_shape((1, SHAPE.0 * SHAPE.1), &weight).expect("its shape");
    codes(BlockAbsmax::nf4(BlockSpec { block: 64, double_quant }).quantize(view, None).expect("finite"))
}

fn codes(quantized: Quantized) -> CodebookCodes {
    match quantized {
        Quantized::Codebook(codes) => codes,
        other => panic!("a codebook, not {other:?}"),
    }
}

#[test]
fn tables_are_those_of_bitsandbytes_bit_for_bit() {
    for (ours, theirs) in [(NF4, PUBLISHED_NF4), (FP4_E2M1, BITSANDBYTES_FP4)] {
        for (ours, theirs) in ours.iter().zip(theirs) {
            assert_eq!(*ours, theirs as f32);
        }
    }
    assert_eq!(
        INT4[1..],
        [-7.0, -6.0, -5.0, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0].map(|v: f32| v / 7.0)
    );
    let theirs = floats("dq.quant_map_256");
    assert_eq!(
        DoubleQuant::Dynamic.map().map(f32::to_bits)[..],
        theirs.iter().map(|v| v.to_bits()).collect::<Vec<_>>()[..]
    );
}

#[test]
fn codes_scales_and_weights_are_those_of_bitsandbytes() {
    let ours = flat_fixture(None);
    assert_eq!(ours.codes, bytes("t0.codes"));
    assert_eq!(ours.scales, BlockScales::F32(floats("t0.absmax")));
    assert_eq!(Quantized::Codebook(ours).dequantise(), floats("t0.dequant"));
}

#[test]
fn double_quantisation_is_that_of_bitsandbytes() {
    let ours = flat_fixture(Some(DoubleQuant::Dynamic));
    let BlockScales::Nested(nested) = &ours.scales else { panic!("nested scales") };
    assert_eq!(nested.codes, bytes("t0.dq.absmax_u8"));
    // the mean is summed in another order
    let close = |ours: &[f32], theirs: &[f32]| {
        assert_eq!(ours.len(), theirs.len());
        ours.iter().zip(theirs).for_each(|(a, b)| assert!((a - b).abs() <= 1e-6, "{a} against {b}"));
    };
    close(&nested.constants, &floats("t0.dq.nested_absmax"));
    let scales: Vec<f32> = (0..ours.scales.len()).map(|i| ours.scales.get(i)).collect();
    close(&scales, &floats("t0.dq.absmax"));
    close(&Quantized::Codebook(ours).dequantise(), &floats("t0.dq.dequant"));
}

#[test]
fn the_kernel_multiplies_by_the_dequantised_weights() {
    let device = device();
    for spec in WeightsSpec::all() {
        for (n, k) in [(1, 1), (35, 72), (40, 330)] {
            let weight = wave(21, n, k);
            let view = ArrayView2::from_shape((n, k), &weight).expect("n * k values");
            let source = WeightSource::F32(&weight);
            let codes = match &spec {
                WeightsSpec::Nf4(spec) => BlockAbsmax::nf4(*spec).quantize(view, None),
                WeightsSpec::Fp4(spec) => BlockAbsmax::fp4(*spec).quantize(view, None),
                WeightsSpec::Int4(spec) => BlockAbsmax::int4(*spec).quantize(view, None),
                WeightsSpec::Mxfp4 | WeightsSpec::Nvfp4 => weights::quantize(&spec, &device, source, n, k, None)
                    .map(|codes| codes.expect("codes"))
                    .map_err(|error| panic!("{error}")),
                _ => continue,
            };
            let wanted = codes.expect("finite").dequantise();
            let linear = build_linear(&spec, &device, source, n, k, None).expect("builds");
            assert_eq!(linear.dequantised(), wanted, "{} [{n}, {k}]", spec.tag());
        }
    }
}

#[test]
fn a_second_pass_changes_nothing_and_zero_stays_zero() {
    let (n, k) = (5, 200);
    let mut weight = wave(22, n, k);
    weight.iter_mut().step_by(7).for_each(|w| *w = 0.0);
    weight[..64].fill(0.0);
    let blocks = BlockSpec::default();
    let fp4 = |values| BlockAbsmax::fp4(Fp4Spec { values, block: 64, double_quant: None });
    for quantizer in [
        BlockAbsmax::nf4(blocks),
        BlockAbsmax::int4(blocks),
        fp4(weights::Fp4Values::E2m1),
        fp4(weights::Fp4Values::E3m0),
    ] {
        let of = |weight: &[f32]| {
            let view = ArrayView2::from_shape((n, k), weight).expect("n * k values");
            codes(quantizer.quantize(view, None).expect("finite"))
        };
        let once = of(&weight);
        let decoded = Quantized::Codebook(once.clone()).dequantise();
        assert_eq!(of(&decoded), once);
        for (w, d) in weight.iter().zip(&decoded) {
            assert!(*w != 0.0 || *d == 0.0);
        }
    }
}

#[test]
fn every_code_is_the_nearest_of_all() {
    let (n, k) = (3, 130);
    let weight = wave(23, n, k);
    let view = ArrayView2::from_shape((n, k), &weight).expect("n * k values");
    for quantizer in [BlockAbsmax::nf4(BlockSpec::default()), BlockAbsmax::int4(BlockSpec::default())] {
        let codes = codes(quantizer.quantize(view, None).expect("finite"));
        for (at, &w) in weight.iter().enumerate() {
            let block = at / k * k.div_ceil(64) + at % k / 64;
            let absmax = weight[at / k * k..][..k].chunks(64).nth(at % k / 64).expect("a block");
            let absmax = absmax.iter().fold(0.0f32, |m, w| m.max(w.abs()));
            assert_eq!(codes.scales.get(block), absmax);
            let miss = |v: &f32| (*v as f64 * absmax as f64 - w as f64).abs();
            let best = codes.table.iter().map(miss).fold(f64::INFINITY, f64::min);
            assert!(miss(&codes.table[codes.codes[at] as usize]) <= best + 1e-7);
        }
    }
}

#[test]
fn double_quantised_scales_stay_close() {
    let (n, k) = (64, 4096);
    let weight = wave(24, n, k);
    let view = ArrayView2::from_shape((n, k), &weight).expect("n * k values");
    for how in [DoubleQuant::Dynamic, DoubleQuant::Fp8] {
        let of = |double_quant| {
            codes(BlockAbsmax::nf4(BlockSpec { block: 64, double_quant }).quantize(view, None).expect("finite")).scales
        };
        let (exact, nested) = (of(None), of(Some(how)));
        let worst = (0..exact.len()).map(|i| (nested.get(i) / exact.get(i) - 1.0).abs()).fold(0.0, f32::max);
        println!("{how:?}: a scale is off by at most {worst}");
        assert!(worst < 0.05, "{how:?}: {worst}");
    }
}
