//! A histogram of |x| over all values of a tensor: what static activation ranges are chosen from.
//!
//! The range is a power of two and doubles when a value does not fit, joining bins in pairs, so that the counts depend
//! neither on the order of the values nor on how they were divided among histograms that are merged. Zeros are counted
//! apart: every symmetric grid holds 0 exactly, and what an activation function cut off would drown the rest.

/// Bins of a histogram; at least half of them are below the largest value.
pub const BINS: usize = 4096;
/// Smallest exponent of the range: below it everything is in the first bin.
const SMALLEST_EXPONENT: i32 = -100;

/// Counts of |x|.
#[derive(Debug, Clone, PartialEq)]
pub struct Magnitudes {
    /// Values lie in [0, 2^exponent).
    exponent: i32,
    counts: Vec<u64>,
    zeros: u64,
    largest: f32,
}

impl Default for Magnitudes {
    fn default() -> Magnitudes {
        Magnitudes { exponent: SMALLEST_EXPONENT, counts: vec![0; BINS], zeros: 0, largest: 0.0 }
    }
}

impl Magnitudes {
    /// Takes in |x| of every value; those that are not finite are left out.
    pub fn add(&mut self, values: &[f32]) {
        let finite = |x: &f32| if x.is_finite() { x.abs() } else { 0.0 };
        let largest = values.iter().map(finite).fold(0.0, f32::max);
        self.largest = self.largest.max(largest);
        while exp2(self.exponent) <= f64::from(largest) {
            self.double();
        }
        // powers of two: the product is exact
        let scale = BINS as f64 / exp2(self.exponent);
        for &x in values {
            match x.abs() {
                0.0 => self.zeros += 1,
                size if size.is_finite() => self.counts[((f64::from(size) * scale) as usize).min(BINS - 1)] += 1,
                _ => {}
            }
        }
    }

    /// Takes in everything that `other` has seen.
    pub fn merge(&mut self, other: &Magnitudes) {
        let mut other = other.clone();
        while self.exponent < other.exponent {
            self.double();
        }
        while other.exponent < self.exponent {
            other.double();
        }
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, more)| *sum += more);
        self.zeros += other.zeros;
        self.largest = self.largest.max(other.largest);
    }

    /// Values seen, zeros included.
    pub fn n(&self) -> u64 {
        self.zeros + self.counts.iter().sum::<u64>()
    }

    /// Values that were exactly 0; they are in no bin.
    pub fn zeros(&self) -> u64 {
        self.zeros
    }

    /// Largest |x| seen; 0 when nothing was.
    pub fn largest(&self) -> f32 {
        self.largest
    }

    /// Width of a bin.
    pub fn width(&self) -> f32 {
        (exp2(self.exponent) / BINS as f64) as f32
    }

    /// Values in [i·width, (i + 1)·width), up to the last bin that has any.
    pub fn counts(&self) -> &[u64] {
        let used = self.counts.iter().rposition(|&n| n > 0).map_or(0, |last| last + 1);
        &self.counts[..used]
    }

    fn double(&mut self) {
        for i in 0..BINS / 2 {
            self.counts[i] = self.counts[2 * i] + self.counts[2 * i + 1];
        }
        self.counts[BINS / 2..].fill(0);
        self.exponent += 1;
    }
}

/// 2^exponent; in f64, because the range above the largest f32 is no f32.
fn exp2(exponent: i32) -> f64 {
    2.0f64.powi(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_hand() {
        let mut seen = Magnitudes::default();
        seen.add(&[0.0, 0.25, -0.5, 0.75]);
        assert_eq!((seen.n(), seen.zeros(), seen.largest(), seen.width()), (4, 1, 0.75, 1.0 / 4096.0));
        let counts = seen.counts();
        assert_eq!((counts.len(), counts[1024], counts[2048], counts[3072]), (3073, 1, 1, 1));
        // 4.0 needs a range of 8: bins are eight times as wide
        seen.add(&[-4.0]);
        let counts = seen.counts();
        assert_eq!((counts.len(), counts[128], counts[256], counts[384], counts[2048]), (2049, 1, 1, 1, 1));
    }

    #[test]
    fn order_and_division_do_not_matter() {
        let values: Vec<f32> =
            (0..1000).map(|i| ((i * 7919 % 1009) as f32 - 500.0) * 1.7f32.powi(i % 23 - 12)).collect();
        let mut whole = Magnitudes::default();
        whole.add(&values);
        let (mut front, mut back) = (Magnitudes::default(), Magnitudes::default());
        values.iter().for_each(|&x| if x.abs() < 3.0 { front.add(&[x]) } else { back.add(&[x]) });
        let mut other = back.clone();
        front.merge(&back);
        assert_eq!(front, whole);
        other.merge(&front);
        assert_eq!(other.n(), whole.n() + back.n());
    }

    #[test]
    fn extremes_are_held() {
        let mut seen = Magnitudes::default();
        seen.add(&[f32::MIN_POSITIVE, f32::NAN, f32::INFINITY]);
        assert_eq!((seen.n(), seen.largest()), (1, f32::MIN_POSITIVE));
        seen.add(&[f32::MAX]);
        assert_eq!((seen.n(), seen.largest(), seen.counts().len()), (2, f32::MAX, BINS));
    }
}
