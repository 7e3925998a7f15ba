//! Checks that every [`Linear`] must pass: the product itself, row-count invariance, the size it claims.

use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use crate::{Activations, Int8Inputs, Int8Range, Linear};

/// Numbers of rows tried: around the row tiles of the kernels, and enough to leave the few-rows path.
pub const ROWS: [usize; 9] = [1, 2, 3, 4, 5, 7, 8, 17, 33];

/// Panics, naming the kernel, unless `linear` multiplies its dequantised weights, gives each row the same bits
/// whatever the number of rows, and reads at least `min_weight_bits` per weight.
///
/// # Panics
/// As said.
pub fn check(linear: &dyn Linear, min_weight_bits: f64) {
    let (n, k) = (linear.out_features(), linear.in_features());
    let about = format!("{} [{n}, {k}]", linear.kernel_name());
    let weights = linear.dequantised();
    assert_eq!(weights.len(), n * k, "{about}: dequantised weights");
    assert!(weights.iter().all(|w| w.is_finite()), "{about}: a dequantised weight is not finite");
    let bits = linear.weight_bytes() as f64 * 8.0 / (n * k) as f64;
    assert!(bits >= min_weight_bits, "{about}: claims {bits} bits per weight, {min_weight_bits} are stored");
    for rows in ROWS {
        let x = inputs(rows, k, linear.int8_inputs());
        // a wrong shape on entry: forward has to set it
        let mut y = Activations::zeros(rows + 1, n + 3);
        linear.forward(&x, &mut y);
        assert_eq!((y.rows(), y.cols()), (rows, n), "{about}: shape of the result");
        check_product(linear, &about, &weights, &x, &y);
        if linear.rows_are_independent() {
            check_rows_alone(linear, &about, &x, &y);
        }
    }
}

/// y against an f64 product, within the worst case of a chain of k f32 roundings.
fn check_product(linear: &dyn Linear, about: &str, weights: &[f32], x: &Activations, y: &Activations) {
    let k = x.cols();
    let exact = |x: &f32| (f64::from(*x), 0.0);
    let seen = linear.rounded_inputs(x);
    let rounded: Vec<(f64, f64)> = match linear.int8_inputs() {
        None => seen.as_ref().unwrap_or(x).as_slice().iter().map(exact).collect(),
        Some(Int8Inputs { range: Int8Range::Row, zero_point, .. }) => {
            (0..x.rows()).flat_map(|row| int8_rounded(x.row(row), range_of(x.row(row)), zero_point)).collect()
        }
        Some(Int8Inputs { range: Int8Range::Call, zero_point, .. }) => {
            int8_rounded(x.as_slice(), range_of(x.as_slice()), zero_point)
        }
        Some(Int8Inputs { range: Int8Range::Fixed { low, high }, zero_point, .. }) => {
            int8_rounded(x.as_slice(), (f64::from(low), f64::from(high)), zero_point)
        }
    };
    for (row, x_row) in rounded.chunks(k).enumerate() {
        let combined = linear.rounding_bound(x.row(row));
        for (col, w) in weights.chunks(k).enumerate() {
            let terms = w.iter().zip(x_row).map(|(&w, &(x, slack))| (f64::from(w) * x, f64::from(w).abs() * slack));
            let (sum, size, slack) =
                terms.fold((0.0, 0.0, 0.0), |(sum, size, slack), (p, s)| (sum + p, size + p.abs(), slack + s));
            let slack = slack + combined.get(col).map_or(0.0, |&bound| f64::from(bound) * (1.0 + 1e-5));
            let found = y.row(row)[col] as f64;
            let bound = (k as f64 + 8.0) * size * f64::from(f32::EPSILON) / 2.0 + f64::from(f32::MIN_POSITIVE) + slack;
            assert!(
                (found - sum).abs() <= bound,
                "{about}, {} rows: y[{row}, {col}] = {found}, an f64 product gives {sum} ± {bound}",
                x.rows()
            );
        }
    }
}

/// Each row on its own gives the bits it has among the others.
fn check_rows_alone(linear: &dyn Linear, about: &str, x: &Activations, y: &Activations) {
    let mut alone = Activations::default();
    for row in 0..x.rows() {
        linear.forward(&Activations::from_vec(1, x.cols(), x.row(row).to_vec()), &mut alone);
        let same = alone.row(0).iter().zip(y.row(row)).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "{about}: row {row} of {} differs from the same row alone", x.rows());
    }
}

/// Smallest and largest value.
fn range_of(x: &[f32]) -> (f64, f64) {
    x.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &x| (low.min(x.into()), high.max(x.into())))
}

/// Each of `x` after int8 coding between the given ends, and by how much it may differ because it lies so near the middle of
/// two codes that f32 decides otherwise than f64.
fn int8_rounded(x: &[f32], (low, high): (f64, f64), zero_point: bool) -> Vec<(f64, f64)> {
    const NEAR: f64 = 1e-3;
    let near = |v: f64| (v - v.floor() - 0.5).abs() < NEAR;
    let (low, high) = (low.min(0.0), high.max(0.0));
    let (step, zero, unsure) = if zero_point {
        let step = (high - low) / 254.0;
        let at = if step > 0.0 { -127.0 - low / step } else { 0.0 };
        (step, at.round(), near(at))
    } else {
        (high.max(-low) / 127.0, 0.0, false)
    };
    let one = |&x: &f32| {
        if step == 0.0 {
            return (0.0, 0.0);
        }
        let at = f64::from(x) / step;
        let code = (at.round() + zero).clamp(-127.0, 127.0);
        let slack = if near(at) || unsure && code.abs() == 127.0 { step } else { 0.0 };
        ((code - zero) * step, slack)
    };
    x.iter().map(one).collect()
}

/// Rows of different sizes. In units of its absmax/127 every value is within 0.4 of a whole number, so that int8
/// coding has no ties and its oracle one answer. Where large values are multiplied apart, all stay below them: other weights
/// than the dequantised ones would multiply them.
fn inputs(rows: usize, k: usize, int8: Option<Int8Inputs>) -> Activations {
    let mut rng = ChaCha8Rng::seed_from_u64((rows * 1000 + k) as u64);
    let mut x = Activations::zeros(rows, k);
    let limit = int8.map_or(f32::INFINITY, |inputs| inputs.exact_above);
    for row in 0..rows {
        let mut step = 2.0f32.powi(row as i32 % 7 - 9);
        while 128.0 * step > limit {
            step /= 2.0;
        }
        for value in x.row_mut(row) {
            *value = step * (rng.random_range(-126..=126) as f32 + rng.random_range(-0.4..0.4));
        }
        x.row_mut(row)[rng.random_range(0..k)] = 127.0 * step;
    }
    x
}
