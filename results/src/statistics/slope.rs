//! Order of growth: the exponent of a power law.

use serde::{Deserialize, Serialize};

use super::bootstrap::{ends, resample};

/// Exponent b of y = a x^b with a 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Slope {
    /// Least-squares slope of ln y over ln x.
    pub slope: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Points behind it.
    pub n: usize,
}

/// Slope of ln y over ln x by least squares, interval by resampling points; `None` below two distinct x or with a value that is not positive.
pub fn log_log_slope(points: &[(f64, f64)], seed: u64) -> Option<Slope> {
    if points.iter().any(|(x, y)| *x <= 0.0 || *y <= 0.0) {
        return None;
    }
    let logarithms: Vec<(f64, f64)> = points.iter().map(|(x, y)| (x.ln(), y.ln())).collect();
    let slope = least_squares(logarithms.iter().copied())?;
    let n = points.len();
    let slopes = resample(n, seed, |indices| least_squares(indices.iter().map(|&index| logarithms[index])));
    let (low, high) = ends(&slopes, n).unwrap_or((slope, slope));
    Some(Slope { slope, low: low.min(slope), high: high.max(slope), n })
}

fn least_squares(points: impl Iterator<Item = (f64, f64)> + Clone) -> Option<f64> {
    let n = points.clone().count() as f64;
    let (sum_x, sum_y) = points.clone().fold((0.0, 0.0), |(sx, sy), (x, y)| (sx + x, sy + y));
    let (mean_x, mean_y) = (sum_x / n, sum_y / n);
    let (xx, xy) =
        points.fold((0.0, 0.0), |(xx, xy), (x, y)| (xx + (x - mean_x).powi(2), xy + (x - mean_x) * (y - mean_y)));
    (xx > 1e-12).then(|| xy / xx)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn power_laws_are_recovered() {
        for exponent in [0.0, 1.0, 2.0] {
            let points: Vec<(f64, f64)> =
                [128.0, 256.0, 512.0, 1024.0].map(|x: f64| (x, 3.0 * x.powf(exponent))).to_vec();
            let slope = log_log_slope(&points, 1).expect("points");
            assert!((slope.slope - exponent).abs() < 1e-12 && (slope.high - slope.low).abs() < 1e-9, "{slope:?}");
        }
    }

    /// Oracle: least squares by hand on (1, 1), (e, e), (e², e): centered xy = 1, xx = 2, slope 1/2.
    #[test]
    fn least_squares_by_hand() {
        let e = std::f64::consts::E;
        let slope = log_log_slope(&[(1.0, 1.0), (e, e), (e * e, e)], 1).expect("points");
        assert!((slope.slope - 0.5).abs() < 1e-12);
        assert!(slope.low <= 0.5 && 0.5 <= slope.high);
    }

    #[test]
    fn needs_two_positive_abscissae() {
        assert_eq!(log_log_slope(&[(4.0, 1.0), (4.0, 2.0)], 0), None);
        assert_eq!(log_log_slope(&[(0.0, 1.0), (4.0, 2.0)], 0), None);
    }
}
