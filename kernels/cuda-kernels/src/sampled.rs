//! The f64 oracle of matrix products: elements of some rows and columns, drawn by seed, or all where there are few.

use rand::rngs::ChaCha8Rng;
use rand::seq::index::sample;
use rand::{RngExt, SeedableRng};
use rand_distr::StandardNormal;

use crate::{Buffer, Deviation, GpuError};

/// Elements up to which all are checked.
const ALL: usize = 1 << 14;
/// Rows and columns that are checked of more.
const DRAWN: usize = 48;

/// `count` normal numbers.
pub(crate) fn normals(count: usize, seed: u64) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| random.sample(StandardNormal)).collect()
}

/// What some elements of a product must be.
pub(crate) struct Sampled {
    rows: Vec<usize>,
    columns: Vec<usize>,
    width: usize,
    /// Σ a·b of each element, and Σ |a·b|, by which errors of sums are measured.
    expected: Vec<(f64, f64)>,
}

impl Sampled {
    /// Elements of `[rows, width]`; `element(row, column)` gives Σ a·b and Σ |a·b|.
    pub(crate) fn new(rows: usize, width: usize, seed: u64, element: impl Fn(usize, usize) -> (f64, f64)) -> Sampled {
        let mut random = ChaCha8Rng::seed_from_u64(seed ^ 0x5eed);
        let mut draw = |count: usize| -> Vec<usize> {
            if rows * width <= ALL {
                (0..count).collect()
            } else {
                sample(&mut random, count, count.min(DRAWN)).into_vec()
            }
        };
        let (rows, columns) = (draw(rows), draw(width));
        let expected = rows.iter().flat_map(|&r| columns.iter().map(move |&c| (r, c))).map(|(r, c)| element(r, c));
        Sampled { expected: expected.collect(), rows, columns, width }
    }

    /// How far `y`, read as f32 by `read`, is from the oracle: sums may err by `of_sums`·Σ|a·b|, results by `of_result`·|result|.
    /// Of the element that uses most of its allowance; a row that holds no number anywhere is infinitely far.
    pub(crate) fn deviation<T: bytemuck::NoUninit + bytemuck::AnyBitPattern>(
        &self,
        y: &Buffer<T>,
        read: impl Fn(T) -> f32,
        of_sums: f64,
        of_result: f64,
    ) -> Result<Deviation, GpuError> {
        let mut stored = vec![T::zeroed(); self.width];
        self.compare(of_sums, of_result, |row| {
            y.read_into(row * self.width, &mut stored)?;
            Ok(stored.iter().map(|&value| read(value)).collect())
        })
    }

    /// The same of f32 that lie in `y` as two halves each, the lower first.
    pub(crate) fn deviation_of_pairs(&self, y: &Buffer<u16>, of_sums: f64) -> Result<Deviation, GpuError> {
        let mut stored = vec![0u16; 2 * self.width];
        self.compare(of_sums, 0.0, |row| {
            y.read_into(2 * row * self.width, &mut stored)?;
            Ok(stored.chunks(2).map(|p| f32::from_bits(u32::from(p[0]) | u32::from(p[1]) << 16)).collect())
        })
    }

    fn compare(
        &self,
        of_sums: f64,
        of_result: f64,
        mut read_row: impl FnMut(usize) -> Result<Vec<f32>, GpuError>,
    ) -> Result<Deviation, GpuError> {
        let mut deviation = Deviation { largest: 0.0, allowed: 0.0 };
        for (&row, expected) in self.rows.iter().zip(self.expected.chunks(self.columns.len().max(1))) {
            let values = read_row(row)?;
            if values.iter().any(|value| value.is_nan()) {
                return Ok(Deviation { largest: f64::NAN, ..deviation });
            }
            for (&column, &(sum, magnitude)) in self.columns.iter().zip(expected) {
                let error = (f64::from(values[column]) - sum).abs();
                let allowed = of_sums * magnitude + of_result * sum.abs();
                // the element that uses most of what it may
                if error * deviation.allowed > deviation.largest * allowed
                    || (deviation.is_within() && error > allowed)
                    || (deviation.allowed == 0.0 && deviation.largest == 0.0)
                {
                    deviation = Deviation { largest: error, allowed };
                }
            }
        }
        Ok(deviation)
    }
}

/// Σ a·b and Σ |a·b| in f64.
pub(crate) fn dot(pairs: impl Iterator<Item = (f64, f64)>) -> (f64, f64) {
    pairs.fold((0.0, 0.0), |(sum, magnitude), (a, b)| (sum + a * b, magnitude + (a * b).abs()))
}
