//! AWQ's two searches against plain f64 statements of their objectives, and the probe that keeps columns.

use half::f16;
use model::Activations;
use ndarray::ArrayView2;
use weights::equalise::{Place, SharedInput};
use weights::identities::four_bit;
use weights::quantizer::Grid;
use weights::quantizer::awq::Awq;
use weights::quantizer::round_to_nearest::RoundToNearest;
use weights::quantizer::salient::Salient;
use weights::{AwqSpec, CalibrationStats, Quantized, Quantizer, SalientBy, SalientSpec, WeightSource, build_linear};

use crate::{device, wave};

const N: usize = 12;
const K: usize = 96;
const ROWS: usize = 300;

/// Inputs with a few large features.
fn inputs() -> Vec<f32> {
    let mut x = wave(41, ROWS, K);
    for row in x.chunks_mut(K) {
        row.iter_mut().enumerate().for_each(|(j, x)| *x *= if j % 30 == 7 { 20.0 } else { 1.0 + (j % 5) as f32 });
    }
    x
}

fn stats() -> CalibrationStats {
    let mut stats = CalibrationStats::new(K);
    stats.add(device().cpu(), &Activations::from_vec(ROWS, K, inputs()));
    stats
}

/// Σ over rows of x of ‖(Ŵ − W)·x‖², times 2/rows, for Ŵ = Q(W·s)/s in f64.
fn plain_error(weight: &[f32], s: &[f32], bits: u8, group: usize) -> f64 {
    let x = inputs();
    let mut total = 0.0;
    for row in weight.chunks(K) {
        let scaled: Vec<f64> = row.iter().zip(s).map(|(w, s)| (w * s) as f64).collect();
        let mut miss = vec![];
        for (values, s) in scaled.chunks(group).zip(s.chunks(group)) {
            let grid = Grid::fit(values.iter().copied(), bits, false);
            miss.extend(values.iter().zip(s).map(|(&w, &s)| (grid.value(grid.code(w)) - w) / s as f64));
        }
        for x in x.chunks(K) {
            total += x.iter().zip(&miss).map(|(&x, miss)| x as f64 * miss).sum::<f64>().powi(2) * 2.0 / ROWS as f64;
        }
    }
    total
}

#[test]
fn the_search_finds_the_least_error_of_its_grid() {
    let (weight, stats, device) = (wave(42, N, K), stats(), device());
    let more = wave(43, 5, K);
    let spec = AwqSpec::new(3, Some(32));
    let view = |w| ArrayView2::from_shape((N, K), w).expect("N * K values");
    let matrices = vec![view(&weight[..]), ArrayView2::from_shape((5, K), &more).expect("5 * K values")];
    let found =
        spec.search(&SharedInput { place: Place::NormFed, matrices, device: &device, stats: &stats }).expect("finite");
    let mut means = vec![0.0f64; K];
    inputs().chunks(K).for_each(|row| means.iter_mut().zip(row).for_each(|(m, x)| *m += x.abs() as f64 / ROWS as f64));
    let mut errors = vec![];
    for step in 0..20 {
        let s: Vec<f64> = means.iter().map(|m| m.powf(step as f64 / 20.0).max(1e-4)).collect();
        let (low, high) = s.iter().fold((f64::MAX, 0.0f64), |(low, high), &s| (low.min(s), high.max(s)));
        let s: Vec<f32> = s.iter().map(|s| (s / (low * high).sqrt()) as f32).collect();
        errors.push(plain_error(&weight, &s, 3, 32) + plain_error(&more, &s, 3, 32));
    }
    let best = errors.iter().copied().fold(f64::INFINITY, f64::min);
    println!("error {} at exponent {}, RTN {}", found.error, found.exponent, found.plain_error);
    assert!((found.error / best - 1.0).abs() < 1e-3, "{} against {best}", found.error);
    assert!((found.plain_error / errors[0] - 1.0).abs() < 1e-3, "{} against {}", found.plain_error, errors[0]);
    assert!(found.exponent > 0.0 && found.error < 0.8 * found.plain_error, "salient columns are protected");
    assert!(found.scales[7] > 2.0 * found.scales[10], "the large feature's column is scaled up");
}

#[test]
fn without_scales_and_clipping_it_is_rtn() {
    let (weight, stats) = (wave(44, N, K), stats());
    let weight = ArrayView2::from_shape((N, K), &weight).expect("N * K values");
    let spec = AwqSpec { scale: false, clip: false, ..AwqSpec::new(4, Some(32)) };
    let awq = Awq::new(spec, &device()).quantize(weight, Some(&stats)).expect("finite");
    let rtn = RoundToNearest::new(spec.grid()).quantize(weight, None).expect("finite");
    let (Quantized::Group(awq), Quantized::Group(rtn)) = (awq, rtn) else { panic!("groups") };
    assert_eq!((awq.codes, awq.scales, awq.zeros), (rtn.codes, rtn.scales, rtn.zeros));
}

#[test]
fn clipping_lowers_the_error_of_each_group() {
    let stats = stats();
    let mut weight = wave(45, N, K);
    weight.iter_mut().step_by(31).for_each(|w| *w *= 4.0);
    let view = ArrayView2::from_shape((N, K), &weight).expect("N * K values");
    let h = stats.hessian();
    let decoded = |clip| {
        let spec = AwqSpec { clip, ..AwqSpec::new(2, Some(32)) };
        Awq::new(spec, &device()).quantize(view, Some(&stats)).expect("finite").dequantise()
    };
    let (clipped, plain) = (decoded(true), decoded(false));
    let error = |decoded: &[f32], row: usize, group: usize| {
        let columns = group * 32..(group + 1) * 32;
        let miss = |j: usize| decoded[row * K + j] as f64 - weight[row * K + j] as f64;
        columns
            .clone()
            .flat_map(|i| columns.clone().map(move |j| (i, j)))
            .map(|(i, j)| miss(i) * h[i * K + j] * miss(j))
            .sum::<f64>()
    };
    let mut lower = 0;
    for row in 0..N {
        for group in 0..K / 32 {
            let (with, without) = (error(&clipped, row, group), error(&plain, row, group));
            assert!(with <= without * (1.0 + 1e-5), "row {row}, group {group}: {with} against {without}");
            lower += usize::from(with < 0.99 * without);
        }
    }
    assert!(lower > N * K / 32 / 4, "clipping helped {lower} groups");
}

#[test]
fn kept_columns_are_the_weights_in_sixteen_bits() {
    let (weight, stats, device) = (wave(46, N, K), stats(), device());
    let view = ArrayView2::from_shape((N, K), &weight).expect("N * K values");
    let rtn = |spec: SalientSpec| RoundToNearest::new(spec.grid()).quantize(view, None).expect("finite").dequantise();
    for by in [SalientBy::Activation, SalientBy::Weight, SalientBy::Random] {
        let spec = SalientSpec { bits: 3, group: Some(32), share: 0.03, by };
        let quantized = Salient::new(spec).quantize(view, Some(&stats)).expect("finite");
        let Quantized::Salient(codes) = &quantized else { panic!("kept columns") };
        assert_eq!(codes.columns.len(), 3);
        if by == SalientBy::Activation {
            assert!(codes.columns.iter().all(|c| c % 30 == 7), "{:?}", codes.columns);
        }
        let (decoded, plain) = (quantized.dequantise(), rtn(spec));
        for (at, (&w, &d)) in weight.iter().zip(&decoded).enumerate() {
            let kept = codes.columns.contains(&((at % K) as u32));
            assert_eq!(d, if kept { f16::from_f32(w).to_f32() } else { plain[at] });
        }
        let spec = weights::WeightsSpec::Salient(spec);
        let linear = build_linear(&spec, &device, WeightSource::F32(&weight), N, K, Some(&stats)).expect("builds");
        assert_eq!(linear.dequantised(), decoded);
    }
}

#[test]
fn the_four_bit_identities_hold() {
    let (different, worst) = four_bit::nf4_table();
    println!("NF4 is within {worst:e} of its quantiles");
    assert!(different == 0 && worst < 1e-4, "{different} {worst}");
    assert_eq!(four_bit::nf4_coding(1), (0, 0));
    assert_eq!(four_bit::microscaling_mismatches(), 0);
}
