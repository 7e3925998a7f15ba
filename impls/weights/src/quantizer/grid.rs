//! The uniform grid that RTN and GPTQ round to: w = scale · (code − zero), code in 0 … 2^bits − 1.

use half::f16;

/// A grid for one group of one row. The scale is an f16 value, because that is what the format stores: codes are
/// chosen for the grid that will be used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grid {
    scale: f64,
    inverse: f64,
    zero: f64,
    max_code: f64,
}

impl Grid {
    /// The min-max grid over `values`. It contains 0 exactly; symmetric grids put 0 at code 2^(bits−1).
    pub fn fit(values: impl Iterator<Item = f64>, bits: u8, symmetric: bool) -> Grid {
        let (low, high) = values.fold((0.0f64, 0.0f64), |(low, high), w| (low.min(w), high.max(w)));
        let max_code = ((1u32 << bits) - 1) as f64;
        if low == 0.0 && high == 0.0 {
            let zero = if symmetric { (max_code + 1.0) / 2.0 } else { 0.0 };
            return Grid { scale: 1.0, inverse: 1.0, zero, max_code };
        }
        let span = if symmetric { 2.0 * high.max(-low) } else { high - low };
        let scale = storable(span / max_code);
        let zero = if symmetric { (max_code + 1.0) / 2.0 } else { (-low / scale).round().clamp(0.0, max_code) };
        Grid { scale, inverse: 1.0 / scale, zero, max_code }
    }

    /// Code of the grid point nearest to `w`; a tie goes to the larger code, outside the grid to its end.
    pub fn code(&self, w: f64) -> u8 {
        // the operand is not negative, so truncation is floor
        ((w * self.inverse + self.zero).clamp(0.0, self.max_code) + 0.5) as u8
    }

    /// The weight that `code` stands for.
    pub fn value(&self, code: u8) -> f64 {
        self.scale * (code as f64 - self.zero)
    }

    /// Distance between neighbouring grid points; an f16 value.
    pub fn scale(&self) -> f32 {
        self.scale as f32
    }

    /// Code of zero; a whole number.
    pub fn zero(&self) -> f32 {
        self.zero as f32
    }
}

/// The nearest positive f16.
fn storable(scale: f64) -> f64 {
    let rounded = f16::from_f64(scale);
    if rounded.is_infinite() {
        f16::MAX.to_f64()
    } else if rounded.to_f64() == 0.0 {
        f16::from_bits(1).to_f64()
    } else {
        rounded.to_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_exact_and_ends_are_within_half_a_step() {
        for bits in [2, 3, 4, 8] {
            for symmetric in [false, true] {
                for values in [[-0.3, 0.7], [0.2, 0.9], [-5.0, -1.0], [-0.1, 0.2], [0.0, 0.0]] {
                    let grid = Grid::fit(values.into_iter(), bits, symmetric);
                    assert_eq!(grid.value(grid.code(0.0)), 0.0, "{bits} {values:?}");
                    for w in values {
                        let miss = (grid.value(grid.code(w)) - w).abs();
                        // the upper half of a symmetric grid is one step shorter; f16 rounding moves the far end by 2^-11
                        let bound = if symmetric { 1.0 } else { 0.5 } + grid.max_code / 1024.0;
                        assert!(miss <= bound * grid.scale, "{bits} bits, {values:?}: {w} misses by {miss}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_code_is_the_nearest_of_all() {
        let grid = Grid::fit([-0.31, 0.64].into_iter(), 4, false);
        for i in 0..1000 {
            let w = -0.5 + i as f64 * 0.0013;
            let best = (0..16u8).map(|c| (grid.value(c) - w).abs()).fold(f64::INFINITY, f64::min);
            assert!(((grid.value(grid.code(w)) - w).abs() - best).abs() < 1e-12);
        }
    }

    #[test]
    fn scales_survive_f16() {
        for span in [1e-9, 3e-4, 0.7, 1e9] {
            let grid = Grid::fit([-span, span].into_iter(), 4, false);
            assert_eq!(f16::from_f32(grid.scale()).to_f32(), grid.scale());
            assert!(grid.scale() > 0.0);
        }
    }
}
