//! Checks that every [`Linear`] must pass: the product itself, row-count invariance, the size it claims.

use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use crate::{Activations, Linear};

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
        let x = inputs(rows, k);
        // a wrong shape on entry: forward has to set it
        let mut y = Activations::zeros(rows + 1, n + 3);
        linear.forward(&x, &mut y);
        assert_eq!((y.rows(), y.cols()), (rows, n), "{about}: shape of the result");
        check_product(linear, &about, &weights, &x, &y);
        check_rows_alone(linear, &about, &x, &y);
    }
}

/// y against an f64 product, within the worst case of a chain of k f32 roundings.
fn check_product(linear: &dyn Linear, about: &str, weights: &[f32], x: &Activations, y: &Activations) {
    let k = x.cols();
    let mut seen = x.clone();
    if let Some(rounding) = linear.input_rounding() {
        rounding.apply(&mut seen);
    }
    for row in 0..x.rows() {
        let x_row =
            if linear.is_int8() { int8_rounded(x.row(row)) } else { seen.row(row).iter().map(|&x| x as f64).collect() };
        for (col, w) in weights.chunks(k).enumerate() {
            let products = w.iter().zip(&x_row).map(|(&w, &x)| w as f64 * x);
            let (sum, size) = products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()));
            let found = y.row(row)[col] as f64;
            let bound = (k as f64 + 8.0) * size * f64::from(f32::EPSILON) / 2.0 + f64::from(f32::MIN_POSITIVE);
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

/// `x` after int8 coding per row: absmax/127 times the nearest of −127 … 127.
fn int8_rounded(x: &[f32]) -> Vec<f64> {
    let step = x.iter().fold(0.0f32, |max, x| max.max(x.abs())) as f64 / 127.0;
    x.iter().map(|&x| (x as f64 / step).round() * step).collect()
}

/// Rows of different sizes. In units of its absmax/127 every value is within 0.4 of a whole number, so that int8
/// coding has no ties and its oracle one answer.
fn inputs(rows: usize, k: usize) -> Activations {
    let mut rng = ChaCha8Rng::seed_from_u64((rows * 1000 + k) as u64);
    let mut x = Activations::zeros(rows, k);
    for row in 0..rows {
        let step = 2.0f32.powi(row as i32 % 7 - 9);
        for value in x.row_mut(row) {
            *value = step * (rng.random_range(-126..=126) as f32 + rng.random_range(-0.4..0.4));
        }
        x.row_mut(row)[rng.random_range(0..k)] = 127.0 * step;
    }
    x
}
