//! The int8 kinds: specs as written, weight codes by hand, static ranges, decomposition, smoothing.

use model::{Activations, Int8Range, Linear};
use ndarray::{Array2, ArrayView2};
use weights::calibration::RangeRule;
use weights::equalise::{Equalise, Place, SharedInput};
use weights::quantizer::int8::{ActivationScale, Int8Weights, RangeSource, WeightScale};
use weights::quantizer::smooth::{Smooth, SmoothRule, smoothing_scales};
use weights::{CalibrationStats, Int8Spec, Quantized, Quantizer, WeightSource, WeightsSpec, build_linear};

use crate::{device, wave};

fn parse(text: &str) -> Result<WeightsSpec, String> {
    toml::from_str(&format!("kind = \"int8\"\n{text}")).map_err(|error| error.to_string())
}

fn build(spec: Int8Spec, weight: &[f32], n: usize, k: usize, stats: Option<&CalibrationStats>) -> Box<dyn Linear> {
    build_linear(&WeightsSpec::Int8(spec), &device(), WeightSource::F32(weight), n, k, stats).expect("builds")
}

fn product(linear: &dyn Linear, x: &[f32]) -> Vec<f32> {
    let mut y = Activations::default();
    linear.forward(&Activations::from_vec(x.len() / linear.in_features(), linear.in_features(), x.to_vec()), &mut y);
    y.as_slice().to_vec()
}

fn stats_of(x: &[f32], k: usize) -> CalibrationStats {
    let mut stats = CalibrationStats::new(k);
    stats.add(device().cpu(), &Activations::from_vec(x.len() / k, k, x.to_vec()));
    stats
}

#[test]
fn tags_say_what_differs_from_vector_wise_absmax() {
    let tag = |text| parse(text).expect("parses").tag();
    for (text, expected) in [
        ("", "int8"),
        ("weights = \"tensor\"", "int8-row"),
        ("weights = \"tensor\"\nactivations = \"tensor\"", "int8-tensor"),
        ("activations = \"tensor\"\nrange = \"static\"\nclip = \"percentile\"", "int8-column-static-p99.9"),
        (
            "activations = \"tensor\"\nrange = \"static\"\nclip = \"entropy\"\nzero_point = true",
            "int8-column-zp-static-entropy",
        ),
        ("zero_point = true\ndecompose = 6", "int8-zp-d6"),
        ("decompose = inf", "int8-dinf"),
        ("smooth = 1\nweights = \"tensor\"", "int8-row-s1"),
        ("smooth = \"search\"", "int8-ssearch"),
    ] {
        assert_eq!(tag(text), expected, "{text}");
    }
    assert_eq!(parse("").expect("parses"), WeightsSpec::Int8(Int8Spec::default()));
    assert!(!parse("").expect("parses").needs_calibration());
    assert!(parse("smooth = 0.5").expect("parses").needs_calibration());
    assert!(!parse("activations = \"tensor\"").expect("parses").rows_are_independent());
    assert!(parse("activations = \"tensor\"\nrange = \"static\"").expect("parses").rows_are_independent());
}

#[test]
fn what_cannot_work_names_its_field() {
    for (text, field) in [
        ("range = \"static\"", "range"),
        ("clip = \"mse\"", "clip"),
        ("percentile = 0.0", "percentile"),
        ("decompose = -1.0", "decompose"),
        ("decompose = nan", "decompose"),
        ("activations = \"tensor\"\nrange = \"static\"\ndecompose = 6.0", "decompose"),
        ("smooth = 1.5", "smooth"),
        ("smooth = \"serach\"", "smooth"),
        ("bits = 8", "bits"),
    ] {
        let error = parse(text).expect_err(text);
        assert!(error.contains(field), "{text}: {error}");
    }
}

#[test]
fn codes_by_hand() {
    let weight = [1.0, -0.5, 0.25, 4.0, 2.0, -2.0];
    let view = ArrayView2::from_shape((2, 3), &weight).expect("2 x 3");
    let codes = |weights, zero_point| {
        let spec = Int8Spec { weights, zero_point, ..Int8Spec::default() };
        let quantized = Int8Weights::new(&spec).quantize(view, None).expect("finite");
        let Quantized::Int8 { codes, scales, zeros, .. } = quantized else { panic!("int8 codes") };
        (codes, scales, zeros)
    };
    let (row, scales, zeros) = codes(WeightScale::Row, false);
    assert_eq!(
        (&row[..], &scales[..], zeros.len()),
        (&[127, -64, 32, 127, 64, -64][..], &[1.0 / 127.0, 4.0 / 127.0][..], 0)
    );
    let (tensor, scales, _) = codes(WeightScale::Tensor, false);
    assert_eq!((&tensor[..], &scales[..]), (&[32, -16, 8, 127, 64, -64][..], &[4.0 / 127.0; 2][..]));
    // −0.5 … 1 in 254 steps: 0 is code −127 + 0.5/1.5·254 = −42
    let (affine, scales, zeros) = codes(WeightScale::Row, true);
    assert_eq!((&affine[..3], scales[0], zeros[0]), (&[127, -127, 0][..], 1.5 / 254.0, -42));
}

#[test]
fn zero_points_use_the_codes_that_a_one_sided_range_leaves_idle() {
    let (n, k, rows) = (24, 200, 40);
    let (weight, x): (Vec<f32>, Vec<f32>) = (wave(1, n, k), wave(2, rows, k).iter().map(|x| x.max(0.0)).collect());
    let exact = Array2::from_shape_vec((rows, k), x.clone()).expect("rows x k");
    let w = Array2::from_shape_vec((n, k), weight.clone()).expect("n x k");
    let exact = exact.mapv(f64::from).dot(&w.mapv(f64::from).t());
    let error = |zero_point, activations, range| {
        let spec = Int8Spec { zero_point, activations, range, ..Int8Spec::default() };
        let y = product(&*build(spec, &weight, n, k, Some(&stats_of(&x, k))), &x);
        y.iter().zip(&exact).map(|(&y, e)| (f64::from(y) - e).powi(2)).sum::<f64>()
    };
    for (activations, range) in [
        (ActivationScale::Token, RangeSource::Dynamic),
        (ActivationScale::Tensor, RangeSource::Dynamic),
        (ActivationScale::Tensor, RangeSource::Static),
    ] {
        let (with, without) = (error(true, activations, range), error(false, activations, range));
        assert!(with < 0.7 * without, "{activations:?}, {range:?}: {with} against {without}");
    }
}

#[test]
fn static_ranges_are_those_of_calibration() {
    let (n, k) = (4, 8);
    let weight = wave(1, n, k);
    let seen: Vec<f32> = (0..800).map(|i| if i == 5 { -40.0 } else { (i % 21) as f32 / 10.0 - 1.0 }).collect();
    let stats = stats_of(&seen, k);
    let range = |clip, zero_point| {
        let spec = Int8Spec {
            activations: ActivationScale::Tensor,
            range: RangeSource::Static,
            clip,
            percentile: 99.0,
            zero_point,
            ..Int8Spec::default()
        };
        match build(spec, &weight, n, k, Some(&stats)).int8_inputs().expect("int8").range {
            Int8Range::Fixed { low, high } => (low, high),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(range(RangeRule::MinMax, false), (-40.0, 40.0));
    assert_eq!(range(RangeRule::MinMax, true), (-40.0, 1.0));
    let (low, high) = range(RangeRule::Percentile, false);
    assert!((1.0..1.1).contains(&high) && low == -high, "{low} {high}");
    assert_eq!(range(RangeRule::Percentile, true), (low, 1.0));
    // what lies beyond is clipped, and nothing else changes
    let spec = |clip| Int8Spec { clip, percentile: 99.0, ..static_spec() };
    let clipped = build(spec(RangeRule::Percentile), &weight, n, k, Some(&stats));
    let (mut inside, mut beyond) = (vec![0.25f32; k], vec![0.25f32; k]);
    (inside[2], beyond[2]) = (high, 1000.0);
    assert_eq!(product(&*clipped, &inside), product(&*clipped, &beyond));
    assert!(
        build_linear(&WeightsSpec::Int8(static_spec()), &device(), WeightSource::F32(&weight), n, k, None).is_err()
    );
}

fn static_spec() -> Int8Spec {
    Int8Spec { activations: ActivationScale::Tensor, range: RangeSource::Static, ..Int8Spec::default() }
}

#[test]
fn outliers_are_each_rows_own_and_leave_the_range() {
    let (n, k) = (5, 64);
    let weight = wave(3, n, k);
    let spec = Int8Spec { decompose: Some(6.0), ..Int8Spec::default() };
    let (mixed, plain) = (build(spec, &weight, n, k, None), build(Int8Spec::default(), &weight, n, k, None));
    assert_eq!(mixed.resident_bytes() - mixed.weight_bytes(), 2 * n * k);
    let quiet = wave(4, 1, k);
    let mut loud = quiet.clone();
    loud[7] = 100.0;
    let mut silenced = quiet.clone();
    silenced[7] = 0.0;
    // a row without outliers does not notice its neighbour's
    let both = product(&*mixed, &[quiet.clone(), loud.clone()].concat());
    assert_eq!(both[..n], product(&*plain, &quiet)[..]);
    // the outlier's own row: the rest in int8 on the range of the rest, the outlier times a 16-bit weight
    let rest = product(&*plain, &silenced);
    for (row, (found, rest)) in both[n..].iter().zip(rest).enumerate() {
        let expected = rest + 100.0 * half_rounded(weight[row * k + 7]);
        assert!((found - expected).abs() <= 1e-4 * expected.abs().max(1.0), "{found} {expected}");
    }
}

/// To 11 bits of mantissa, for values of normal halves.
fn half_rounded(x: f32) -> f32 {
    let unit = 2.0f32.powi(x.abs().log2().floor() as i32 - 10);
    (x / unit).round_ties_even() * unit
}

#[test]
fn smoothing_scales_follow_the_equation() {
    let x = [2.0, -0.5, 0.0, 8.0, 0.25, 0.0];
    let (stats, device) = (stats_of(&x, 3), device());
    let a = Array2::from_shape_vec((2, 3), vec![0.5, 1.0, 1.0, -0.25, 0.5, 2.0]).expect("2 x 3");
    let b = Array2::from_shape_vec((1, 3), vec![-2.0, 0.125, 0.5]).expect("1 x 3");
    let shared =
        SharedInput { place: Place::NormFed, matrices: vec![a.view(), b.view()], stats: &stats, device: &device };
    // max|X| = 8, 0.5, 0 and max|W| over both = 2, 1, 2; a feature never seen keeps its scale
    assert_eq!(smoothing_scales(&shared, 0.5), [2.0, 0.5f32.sqrt(), 1.0]);
    assert_eq!(smoothing_scales(&shared, 1.0), [8.0, 0.5, 1.0]);
    assert_eq!(smoothing_scales(&shared, 0.0), [0.5, 1.0, 1.0]);
    assert_eq!(Int8Spec::default().scales(&shared).expect("scales"), [1.0; 3]);
}

#[test]
fn the_search_is_at_least_as_good_as_any_of_its_candidates() {
    let (n, k, rows) = (32, 64, 256);
    let mut x = wave(5, rows, k);
    // a few loud features, so that α matters
    x.iter_mut().enumerate().for_each(|(i, x)| *x *= if i % k % 17 == 3 { 30.0 } else { 1.0 });
    let (stats, device) = (stats_of(&x, k), device());
    let weight = Array2::from_shape_vec((n, k), wave(6, n, k)).expect("n x k");
    let exact = {
        let x = Array2::from_shape_vec((rows, k), x.clone()).expect("rows x k");
        x.mapv(f64::from).dot(&weight.mapv(f64::from).t())
    };
    let shared = SharedInput { place: Place::NormFed, matrices: vec![weight.view()], stats: &stats, device: &device };
    let spec = Int8Spec { weights: WeightScale::Tensor, ..static_spec() };
    let error = |scales: &[f32]| {
        let scaled: Vec<f32> = weight.iter().enumerate().map(|(i, w)| w * scales[i % k]).collect();
        let divided: Vec<f32> = x.iter().enumerate().map(|(i, x)| x / scales[i % k]).collect();
        let linear = build(spec.clone(), &scaled, n, k, Some(&stats_of(&divided, k)));
        let y = product(&*linear, &divided);
        y.iter().zip(&exact).map(|(&y, e)| (f64::from(y) - e).powi(2)).sum::<f64>()
    };
    let search = Int8Spec { smooth: Some(Smooth::Rule(SmoothRule::Search)), ..spec.clone() };
    let found = error(&search.scales(&shared).expect("searches"));
    for alpha in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let fixed = error(&smoothing_scales(&shared, alpha));
        // the search sees half of the rows
        assert!(found <= 1.15 * fixed, "α = {alpha}: {fixed}, searched {found}");
    }
    assert!(found < 0.2 * error(&vec![1.0; k]));
}
