//! The lattice codebook: its distortion, its decoding, its feedback.

use model::Activations;
use ndarray::ArrayView2;
use weights::identities::{incoherence, spiky_weight, two_bit_errors};
use weights::quantizer::e8p::E8p;
use weights::{CalibrationStats, E8pSpec, Quantizer, WeightSource, WeightsSpec, build_linear, output_error};

use crate::{device, wave};

#[test]
fn vectors_beat_scalars_at_two_bits() {
    let errors = two_bit_errors(&device(), 64, 512, 3).expect("quantises");
    // Max 1960, tables I and II: 0.1175 and 0.1188; E8P near 0.09
    assert!((errors.lloyd_max - 0.1175).abs() < 0.003, "{errors:?}");
    assert!((errors.uniform - 0.1188).abs() < 0.003, "{errors:?}");
    assert!((0.085..0.095).contains(&errors.e8p), "{errors:?}");
}

#[test]
fn what_is_multiplied_is_what_is_decoded() {
    let device = device();
    for (n, k) in [(3, 8), (17, 40), (20, 96), (5, 13)] {
        let weight = wave(5, n, k);
        let view = ArrayView2::from_shape((n, k), &weight).expect("shape");
        for hadamard in [false, true] {
            let spec = E8pSpec { feedback: false, hadamard, ..E8pSpec::default() };
            let decoded = E8p::new(spec, &device).quantize(view, None).expect("quantises").dequantise();
            let linear = build_linear(&WeightsSpec::E8p(spec), &device, WeightSource::F32(&weight), n, k, None);
            let stored = linear.expect("builds").dequantised();
            assert!(stored.iter().zip(&decoded).all(|(a, b)| a.to_bits() == b.to_bits()), "{n} x {k}");
            let error: f32 = weight.iter().zip(&decoded).map(|(a, b)| (a - b).powi(2)).sum();
            let size: f32 = weight.iter().map(|a| a * a).sum();
            assert!(error < 0.3 * size, "{n} x {k}: {error} of {size}");
        }
    }
}

#[test]
fn feedback_lowers_the_output_error() {
    let device = device();
    let (n, k, rows) = (32, 128, 600);
    // inputs that share a few factors
    let factors = wave(8, rows, 16);
    let loadings = wave(9, 16, k);
    let mut x = wave(10, rows, k);
    for (r, row) in x.chunks_mut(k).enumerate() {
        for (j, v) in row.iter_mut().enumerate() {
            *v = 0.2 * *v + (0..16).map(|f| factors[r * 16 + f] * loadings[f * k + j]).sum::<f32>();
        }
    }
    let mut stats = CalibrationStats::new(k);
    stats.add(device.cpu(), &Activations::from_vec(rows, k, x));
    let weight = wave(11, n, k);
    let view = ArrayView2::from_shape((n, k), &weight).expect("shape");
    let error = |feedback| {
        let spec = E8pSpec { feedback, ..E8pSpec::default() };
        let codes = E8p::new(spec, &device).quantize(view, Some(&stats)).expect("quantises");
        output_error(device.cpu(), view, &codes, &stats)
    };
    assert!(error(true) < 0.7 * error(false), "{} of {}", error(true), error(false));
}

#[test]
fn transforms_spread_spikes() {
    let weight = spiky_weight(96, 128, 500, 2);
    let [before, after] = incoherence(weight.view(), 1);
    assert!(after < 0.5 * before, "{before} {after}");
}
