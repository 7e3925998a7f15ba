//! GPTQ against what it must equal, and what it must beat.

use model::Activations;
use ndarray::ArrayView2;
use weights::identities::{
    brute_force_difference, identity_hessian_mismatches, layer_error_ratio, lazy_batch_difference,
};
use weights::quantizer::gptq::Gptq;
use weights::{CalibrationStats, GptqSpec, GroupSpec, QuantizeError, Quantized, Quantizer, output_error};

use crate::{device, wave};

#[test]
fn identity_hessian_gives_the_codes_of_rtn() {
    assert_eq!(identity_hessian_mismatches(&device(), 1).expect("solves"), 0);
}

#[test]
fn blocks_do_not_change_the_result() {
    let difference = lazy_batch_difference(&device(), 2).expect("solves");
    println!("block 1 against 128: {difference:e}");
    assert!(difference <= 1e-4, "{difference}");
}

#[test]
fn brute_force_obs_gives_the_same_weights() {
    let difference = brute_force_difference(&device(), 3).expect("solves");
    println!("brute force: {difference:e}");
    assert!(difference <= 1e-6, "{difference}");
}

#[test]
fn layer_error_is_below_rtn() {
    for bits in [2, 3, 4, 8] {
        for group in [None, Some(32), Some(100)] {
            let grid = GroupSpec::new(bits, group);
            let ratio = layer_error_ratio(&device(), grid, 64, 192, 4).expect("solves");
            println!("{bits} bits, group {group:?}: GPTQ/RTN layer error {ratio:.3}");
            assert!(ratio <= 0.8, "{bits} bits, group {group:?}: {ratio}");
        }
    }
}

/// Inputs with very unequal features, so that act-order has something to sort.
fn skewed(rows: usize, k: usize) -> CalibrationStats {
    let mut x = wave(7, rows, k);
    for row in x.chunks_mut(k) {
        let shared = row[0];
        row.iter_mut().enumerate().for_each(|(j, x)| *x = (*x + shared) * (1.0 + (j * 37 % k) as f32 / 10.0));
    }
    let mut stats = CalibrationStats::new(k);
    stats.add(device().cpu(), &Activations::from_vec(rows, k, x));
    stats
}

#[test]
fn act_order_is_recorded_where_groups_follow_it() {
    let (n, k) = (20, 90);
    let weight = wave(8, n, k);
    let weight = ArrayView2::from_shape((n, k), &weight).expect("n * k values");
    let stats = skewed(300, k);
    let base = GptqSpec { act_order: true, ..GptqSpec::new(3, Some(32)) };
    let plain_error = {
        let codes = Gptq::new(GptqSpec { act_order: false, ..base }, &device()).quantize(weight, Some(&stats));
        output_error(device().cpu(), weight, &codes.expect("solves"), &stats)
    };
    for spec in [base, GptqSpec { static_groups: true, ..base }, GptqSpec { group: None, ..base }] {
        let codes = Gptq::new(spec, &device()).solve(weight, &stats).expect("solves").codes;
        let follows = !spec.static_groups && spec.group.is_some();
        assert_eq!(codes.order.is_some(), follows);
        if let Some(order) = &codes.order {
            let h = stats.hessian();
            let diagonal: Vec<f64> = order.iter().map(|&j| h[j as usize * k + j as usize]).collect();
            let groups: Vec<&[f64]> = diagonal.chunks(32).collect();
            let least = |group: &[f64]| group.iter().copied().fold(f64::MAX, f64::min);
            assert!(groups.windows(2).all(|pair| pair[1].iter().all(|&later| later <= least(pair[0]))));
            assert!(order.chunks(32).all(<[u32]>::is_sorted), "input order inside a group");
        }
        let error = output_error(device().cpu(), weight, &Quantized::Group(codes), &stats);
        assert!(error < 2.0 * plain_error, "{spec:?}: {error} against {plain_error} in input order");
    }
}

#[test]
fn dead_columns_become_zero_and_are_counted() {
    let (n, k, rows) = (6, 40, 200);
    let weight = wave(9, n, k);
    let weight = ArrayView2::from_shape((n, k), &weight).expect("n * k values");
    let mut x = wave(10, rows, k);
    x.chunks_mut(k).for_each(|row| (row[3], row[17]) = (0.0, 0.0));
    let mut stats = CalibrationStats::new(k);
    stats.add(device().cpu(), &Activations::from_vec(rows, k, x));
    for act_order in [false, true] {
        let spec = GptqSpec { act_order, ..GptqSpec::new(4, Some(16)) };
        let outcome = Gptq::new(spec, &device()).solve(weight, &stats).expect("solves");
        assert_eq!((outcome.n_dead, outcome.damping), (2, 0.01));
        for row in Quantized::Group(outcome.codes).dequantise().chunks(k) {
            assert_eq!((row[3], row[17]), (0.0, 0.0));
        }
    }
}

#[test]
fn damping_rises_until_h_factors() {
    let (n, k) = (3, 8);
    let weight = wave(11, n, k);
    let weight = ArrayView2::from_shape((n, k), &weight).expect("n * k values");
    // eigenvalues 1 and -depth: positive definite only once damping exceeds depth / mean
    let with_negative = |depth: f64| {
        let mut h = vec![0.0; k * k];
        (0..k).for_each(|j| h[j * k + j] = 1.0);
        (h[1], h[k]) = (1.0 + depth, 1.0 + depth);
        CalibrationStats::from_hessian(k, 100, &h)
    };
    let solve = |depth| Gptq::new(GptqSpec::new(4, None), &device()).solve(weight, &with_negative(depth));
    assert_eq!(solve(0.05).expect("ten times").damping, 0.1);
    assert_eq!(solve(5.0).expect("a thousand times").damping, 10.0);
    let error = solve(50.0).expect_err("no damping tried is enough");
    assert!(matches!(error, QuantizeError::NotPositiveDefinite { damping: 10.0, features: 8, .. }), "{error:?}");
}

#[test]
fn output_error_is_the_squared_difference_of_outputs() {
    let (n, k, rows) = (5, 70, 90);
    let (weight, x) = (wave(12, n, k), wave(13, rows, k));
    let view = ArrayView2::from_shape((n, k), &weight).expect("n * k values");
    let mut stats = CalibrationStats::new(k);
    stats.add(device().cpu(), &Activations::from_vec(rows, k, x.clone()));
    let quantized = Gptq::new(GptqSpec::new(3, None), &device()).quantize(view, Some(&stats)).expect("solves");
    let approximate = quantized.dequantise();
    let (mut missed, mut all) = (0.0, 0.0);
    for x in x.chunks(k) {
        for (w, a) in weight.chunks(k).zip(approximate.chunks(k)) {
            let y = |w: &[f32]| w.iter().zip(x).map(|(&w, &x)| w as f64 * x as f64).sum::<f64>();
            missed += (y(w) - y(a)).powi(2);
            all += y(w).powi(2);
        }
    }
    let found = output_error(device().cpu(), view, &quantized, &stats);
    assert!((found / (missed / all) - 1.0).abs() < 1e-4, "{found} against {}", missed / all);
}
