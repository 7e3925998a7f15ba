//! The nearest of a few values, by binary search among their midpoints.

/// Values in ascending order, each with its code.
#[derive(Debug)]
pub(super) struct Levels {
    codes: Vec<u8>,
    /// Between each value and the next.
    midpoints: Vec<f64>,
}

impl Levels {
    /// Code i stands for `values[i]`; of codes with one value (0 and −0) the first is used, NaN never.
    pub(super) fn new(values: &[f32]) -> Levels {
        let mut sorted: Vec<(f32, u8)> = values.iter().copied().zip(0..=u8::MAX).filter(|(v, _)| !v.is_nan()).collect();
        // −0 beside 0, so that one of them goes
        sorted.sort_by(|a, b| (a.0 + 0.0).total_cmp(&(b.0 + 0.0)).then(a.1.cmp(&b.1)));
        sorted.dedup_by(|later, kept| later.0 == kept.0);
        let midpoints = sorted.windows(2).map(|pair| (pair[0].0 as f64 + pair[1].0 as f64) / 2.0).collect();
        Levels { codes: sorted.into_iter().map(|(_, code)| code).collect(), midpoints }
    }

    /// Code of the value nearest to `x`; midway between two, of the lower one.
    pub(super) fn nearest(&self, x: f32) -> u8 {
        self.codes[self.midpoints.partition_point(|&midpoint| midpoint < x as f64)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_of_all() {
        let values = [0.0, 0.25, 1.0, -0.5, -0.0, 2.0];
        let levels = Levels::new(&values);
        for i in -300..300 {
            let x = i as f32 / 100.0;
            let best = values.iter().map(|v| (v - x).abs()).fold(f32::INFINITY, f32::min);
            assert_eq!((values[levels.nearest(x) as usize] - x).abs(), best, "{x}");
        }
        assert_eq!((levels.nearest(0.0), levels.nearest(-0.0), levels.nearest(1.5)), (0, 0, 2));
    }
}
