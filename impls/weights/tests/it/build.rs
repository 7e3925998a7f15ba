//! Sources, exactness of formats, and what is refused.

use half::{bf16, f16};
use model::Activations;
use weights::{
    CalibrationStats, GptqSpec, GroupSpec, QuantizeError, WeightSource, WeightsError, WeightsSpec, build_linear,
};

use crate::{device, wave};

#[test]
fn sources_keep_their_values_where_the_format_can_hold_them() {
    let (n, k) = (19, 45);
    let exact = wave(1, n, k);
    let halves: Vec<f16> = exact.iter().map(|&w| f16::from_f32(w)).collect();
    let brains: Vec<bf16> = exact.iter().map(|&w| bf16::from_f32(w)).collect();
    let build =
        |spec: WeightsSpec, source| build_linear(&spec, &device(), source, n, k, None).expect("builds").dequantised();
    let widened: Vec<f32> = halves.iter().map(|w| w.to_f32()).collect();
    assert_eq!(build(WeightsSpec::F32, WeightSource::F32(&exact)), exact);
    assert_eq!(build(WeightsSpec::F16, WeightSource::F16(&halves)), widened);
    assert_eq!(build(WeightsSpec::F16, WeightSource::F32(&exact)), widened);
    assert_eq!(build(WeightsSpec::F32, WeightSource::F16(&halves)), widened);
    let widened: Vec<f32> = brains.iter().map(|w| w.to_f32()).collect();
    assert_eq!(build(WeightsSpec::Bf16, WeightSource::Bf16(&brains)), widened);
    assert_eq!(build(WeightsSpec::Bf16, WeightSource::F32(&exact)), widened);
    assert_eq!(build(WeightsSpec::F16, WeightSource::Bf16(&brains)).len(), n * k);
}

#[test]
fn int8_is_within_half_a_step_and_never_minus_128() {
    let (n, k) = (9, 70);
    let mut weight = wave(2, n, k);
    weight[..k].fill(0.0);
    let linear =
        build_linear(&WeightsSpec::Int8(Default::default()), &device(), WeightSource::F32(&weight), n, k, None)
            .expect("builds");
    for (row, found) in weight.chunks(k).zip(linear.dequantised().chunks(k)) {
        let step = row.iter().fold(0.0f32, |max, w| max.max(w.abs())) / 127.0;
        for (w, f) in row.iter().zip(found) {
            assert!((w - f).abs() <= step * 0.5001, "{w} became {f}, step {step}");
            assert!(f.abs() <= 127.0 * step * 1.0001);
        }
    }
}

#[test]
fn wrong_input_is_refused_in_words() {
    let device = device();
    let build = |spec: WeightsSpec, values: &[f32], n, k| {
        build_linear(&spec, &device, WeightSource::F32(values), n, k, None).err().expect("refused")
    };
    assert_eq!(
        build(WeightsSpec::F32, &[1.0; 5], 2, 3),
        WeightsError::Shape { out_features: 2, in_features: 3, n_values: 5 }
    );
    assert!(matches!(build(WeightsSpec::F32, &[], 0, 3), WeightsError::Shape { .. }));
    assert!(matches!(build(WeightsSpec::F32, &[1.0], usize::MAX, 3), WeightsError::Shape { .. }));
    let nan = [0.0, 1.0, 2.0, f32::NAN];
    for spec in WeightsSpec::all() {
        assert_eq!(build(spec, &nan, 2, 2), WeightsError::NonFinite { row: 1, column: 1 });
    }
    let large = [0.0, 70000.0];
    assert_eq!(build(WeightsSpec::F16, &large, 1, 2), WeightsError::BeyondF16 { row: 0, column: 1, value: 70000.0 });
    let gptq = WeightsSpec::Gptq(GptqSpec::new(4, None));
    assert_eq!(build(gptq, &large, 1, 2), WeightsError::Quantize(QuantizeError::MissingStats { quantizer: "gptq" }));
    let rtn = WeightsSpec::Rtn(GroupSpec::new(5, None));
    let message = build(rtn, &large, 1, 2).to_string();
    assert!(message.contains("bits") && message.contains("2, 3, 4 or 8"), "{message}");
}

#[test]
fn statistics_of_other_inputs_are_refused() {
    let device = device();
    let gptq = WeightsSpec::Gptq(GptqSpec::new(4, None));
    let weight = wave(3, 4, 6);
    let build = |stats: &CalibrationStats| {
        build_linear(&gptq, &device, WeightSource::F32(&weight), 4, 6, Some(stats)).err().expect("refused")
    };
    let empty = build(&CalibrationStats::new(6));
    assert_eq!(empty, WeightsError::Quantize(QuantizeError::StatsMismatch { expected: 6, found: 6, rows: 0 }));
    let mut stats = CalibrationStats::new(5);
    stats.add(device.cpu(), &Activations::from_vec(2, 5, wave(4, 2, 5)));
    assert_eq!(build(&stats), WeightsError::Quantize(QuantizeError::StatsMismatch { expected: 6, found: 5, rows: 2 }));
    let mut stats = CalibrationStats::new(6);
    let mut x = wave(5, 3, 6);
    x[2] = f32::INFINITY;
    stats.add(device.cpu(), &Activations::from_vec(3, 6, x));
    assert!(matches!(build(&stats), WeightsError::Quantize(QuantizeError::NonFiniteStats { .. })));
}
