//! Location and spread.

/// Arithmetic mean; `None` without values.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Median; `None` without values.
pub fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// Quantile `q` in 0..=1 by linear interpolation between order statistics (numpy's default, type 7 of Hyndman and Fan).
pub fn quantile(values: &[f64], q: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    quantile_of_sorted(&sorted, q)
}

/// [`quantile`] of values that are already sorted ascending.
pub(super) fn quantile_of_sorted(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let position = q.clamp(0.0, 1.0) * last as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(last);
    let weight = position - below as f64;
    Some(sorted[below] + (sorted[above] - sorted[below]) * weight)
}

/// Sample standard deviation (n - 1); `None` below two values.
pub fn sd(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let center = mean(values)?;
    let squares: f64 = values.iter().map(|value| (value - center).powi(2)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

/// Coefficient of variation, sd / |mean|; `None` below two values or around a zero mean.
pub fn cv(values: &[f64]) -> Option<f64> {
    let center = mean(values)?.abs();
    if center > 0.0 { Some(sd(values)? / center) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Oracle: numpy 1.26, `np.quantile([15, 20, 35, 40, 50], [0.05, 0.3, 0.4, 0.5, 1.0])`, worked by hand from the definition
    /// (position = q (n - 1)).
    #[test]
    fn quantiles_interpolate_like_numpy() {
        let values = [50.0, 15.0, 40.0, 20.0, 35.0];
        for (q, expected) in [(0.0, 15.0), (0.05, 16.0), (0.3, 23.0), (0.4, 29.0), (0.5, 35.0), (1.0, 50.0)] {
            let got = quantile(&values, q).expect("values");
            assert!((got - expected).abs() < 1e-12, "q {q}: {got} != {expected}");
        }
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[]), None);
        assert_eq!(quantile(&[7.0], 0.99), Some(7.0));
    }

    /// Oracle: NIST StRD univariate set "NumAcc1" (10000001, 10000003, 10000002: mean 10000002, sd 1).
    #[test]
    fn spread_matches_nist() {
        let values = [10_000_001.0, 10_000_003.0, 10_000_002.0];
        assert_eq!(mean(&values), Some(10_000_002.0));
        assert_eq!(sd(&values), Some(1.0));
        assert!((cv(&values).expect("cv") - 1.0 / 10_000_002.0).abs() < 1e-20);
        assert_eq!(sd(&[1.0]), None);
        assert_eq!(cv(&[-1.0, 1.0]), None);
    }
}
