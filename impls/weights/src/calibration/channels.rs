//! Per-feature statistics of a layer's inputs: what scales per channel are computed from.

/// Running range and mean magnitude of every feature.
#[derive(Debug, Clone, PartialEq)]
pub struct ChannelStats {
    /// Smallest value of each feature, `[features]`; +∞ before the first row.
    pub min: Vec<f32>,
    /// Largest value of each feature, `[features]`; −∞ before the first row.
    pub max: Vec<f32>,
    /// Mean of |x| of each feature, `[features]`; 0 before the first row, not finite where a value was not.
    pub mean_abs: Vec<f32>,
    /// Σ |x|, `[features]`.
    sums: Vec<f64>,
    n_rows: usize,
}

impl ChannelStats {
    /// No rows yet.
    pub fn new(features: usize) -> ChannelStats {
        ChannelStats {
            min: vec![f32::INFINITY; features],
            max: vec![f32::NEG_INFINITY; features],
            mean_abs: vec![0.0; features],
            sums: vec![0.0; features],
            n_rows: 0,
        }
    }

    /// Takes in `rows`, flat `[·, features]`.
    pub fn add(&mut self, rows: &[f32]) {
        let d = self.sums.len();
        for row in rows.chunks_exact(d.max(1)) {
            for (j, &x) in row.iter().enumerate() {
                self.min[j] = self.min[j].min(x);
                self.max[j] = self.max[j].max(x);
                self.sums[j] += f64::from(x.abs());
            }
            self.n_rows += 1;
        }
        self.refresh();
    }

    /// Takes in everything that `other` has seen.
    pub fn merge(&mut self, other: &ChannelStats) {
        for j in 0..self.sums.len() {
            self.min[j] = self.min[j].min(other.min[j]);
            self.max[j] = self.max[j].max(other.max[j]);
            self.sums[j] += other.sums[j];
        }
        self.n_rows += other.n_rows;
        self.refresh();
    }

    /// The statistics of x/scale, feature by feature; scales are positive.
    pub fn scaled(&self, scale: &[f32]) -> ChannelStats {
        let divided = |values: &[f32]| values.iter().zip(scale).map(|(x, s)| x / s).collect();
        let mut scaled = ChannelStats { min: divided(&self.min), max: divided(&self.max), ..self.clone() };
        scaled.sums.iter_mut().zip(scale).for_each(|(sum, &s)| *sum /= f64::from(s));
        scaled.refresh();
        scaled
    }

    /// Largest |x| of feature `j`; 0 before the first row.
    pub fn max_abs(&self, j: usize) -> f32 {
        self.max[j].max(-self.min[j]).max(0.0)
    }

    /// Smallest and largest value of all features, 0 included; (0, 0) before the first row.
    pub fn range(&self) -> (f32, f32) {
        (self.min.iter().fold(0.0, |a, &b| a.min(b)), self.max.iter().fold(0.0, |a, &b| a.max(b)))
    }

    fn refresh(&mut self) {
        let n = self.n_rows.max(1) as f64;
        self.mean_abs.iter_mut().zip(&self.sums).for_each(|(mean, sum)| *mean = (sum / n) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let mut stats = ChannelStats::new(2);
        assert_eq!((stats.range(), stats.max_abs(0)), ((0.0, 0.0), 0.0));
        stats.add(&[1.0, -4.0, 3.0, 2.0]);
        let mut more = ChannelStats::new(2);
        more.add(&[-5.0, 0.5]);
        stats.merge(&more);
        assert_eq!((&stats.min[..], &stats.max[..]), (&[-5.0, -4.0][..], &[3.0, 2.0][..]));
        assert_eq!(stats.mean_abs, [3.0, 6.5 / 3.0]);
        assert_eq!((stats.range(), stats.max_abs(0)), ((-5.0, 3.0), 5.0));
        let scaled = stats.scaled(&[2.0, 4.0]);
        assert_eq!((&scaled.min[..], &scaled.max[..]), (&[-2.5, -1.0][..], &[1.5, 0.5][..]));
        assert_eq!(scaled.mean_abs[0], 1.5);
    }

    #[test]
    fn a_value_that_is_not_finite_shows() {
        let mut stats = ChannelStats::new(2);
        stats.add(&[f32::NAN, 1.0, 1.0, 1.0]);
        assert!(stats.mean_abs[0].is_nan() && stats.mean_abs[1] == 1.0);
    }
}
