//! A few rows of a layer's inputs, kept as they are: what a search over scales runs its quantizer on.

/// Rows kept at most.
pub const SAMPLE_ROWS: usize = 128;

/// Every `stride`-th row seen, the stride doubling whenever more than `SAMPLE_ROWS` are held.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleRows {
    features: usize,
    stride: usize,
    seen: usize,
    rows: Vec<f32>,
}

impl SampleRows {
    /// No rows yet.
    pub fn new(features: usize) -> SampleRows {
        SampleRows { features, stride: 1, seen: 0, rows: vec![] }
    }

    /// Takes in `rows`, flat `[·, features]`.
    pub fn add(&mut self, rows: &[f32]) {
        for row in rows.chunks_exact(self.features.max(1)) {
            if self.seen.is_multiple_of(self.stride) {
                self.rows.extend_from_slice(row);
                self.thin();
            }
            self.seen += 1;
        }
    }

    /// Takes in the rows that `other` kept.
    pub fn merge(&mut self, other: &SampleRows) {
        self.rows.extend_from_slice(&other.rows);
        self.seen += other.seen;
        self.stride = self.stride.max(other.stride);
        self.thin();
    }

    /// The rows, flat `[·, features]`.
    pub fn rows(&self) -> &[f32] {
        &self.rows
    }

    /// The rows of x/scale, feature by feature.
    pub fn scaled(&self, scale: &[f32]) -> SampleRows {
        let mut scaled = self.clone();
        for row in scaled.rows.chunks_exact_mut(self.features.max(1)) {
            row.iter_mut().zip(scale).for_each(|(x, s)| *x /= s);
        }
        scaled
    }

    /// Drops every second row while there are too many.
    fn thin(&mut self) {
        let d = self.features.max(1);
        while self.rows.len() > SAMPLE_ROWS * d {
            self.rows = self.rows.chunks_exact(d).step_by(2).flatten().copied().collect();
            self.stride *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_spread_evenly() {
        let mut sample = SampleRows::new(2);
        (0..1000).for_each(|i| sample.add(&[i as f32, 0.5]));
        let rows: Vec<f32> = sample.rows().chunks(2).map(|row| row[0]).collect();
        assert!(rows.len() > SAMPLE_ROWS / 2 && rows.len() <= SAMPLE_ROWS);
        assert!(rows.iter().enumerate().all(|(i, &x)| x == 8.0 * i as f32), "{rows:?}");
        assert_eq!(sample.scaled(&[2.0, 0.25]).rows()[2..4], [4.0, 2.0]);
    }
}
