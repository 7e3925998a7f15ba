//! What: rounding of a product's inputs, token by token, to few symmetric levels.
//! Source: per-token absmax quantization, Yao et al. 2022 (ZeroQuant), arXiv 2206.01861, §4.1; the clipping ratio as in QuaRot, arXiv
//!   2404.00456, §5.
//! Shapes: a row of f32 → the same row on a grid of 2^bits − 1 points.
//! Method: 1. step = clip · max|x| / (2^(bits−1) − 1) of the row. 2. x becomes step · round(x / step), at most that many steps from 0.
//! Exactness: |x − x'| ≤ step/2 where nothing is clipped; ties go to the even code; the value is fl(step · code).
//! Cost: two passes over a row.
//! Not handled: zero points, ranges fixed in advance.

use crate::Activations;

/// A symmetric grid per token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InputRounding {
    /// Bits of a code.
    pub bits: u8,
    /// The grid ends at this share of the row's largest magnitude.
    pub clip: f32,
}

impl InputRounding {
    /// Codes on each side of 0.
    pub fn levels(&self) -> f32 {
        (1u32 << (self.bits - 1)) as f32 - 1.0
    }

    /// Rounds every row of `x` in place.
    pub fn apply(&self, x: &mut Activations) {
        for row in 0..x.rows() {
            let row = x.row_mut(row);
            let largest = row.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            let step = self.clip * largest / self.levels();
            // a row of zeros, or of values that no step can divide, stays as it is
            if step >= f32::MIN_POSITIVE {
                let levels = self.levels();
                row.iter_mut().for_each(|v| *v = step * (*v / step).round_ties_even().clamp(-levels, levels));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_rounded_by_their_own_largest_value() {
        let mut x = Activations::from_vec(3, 4, vec![7.0, -3.4, 0.6, 0.5, 0.0, 0.0, 0.0, 0.0, -70.0, 14.0, 16.0, 5.1]);
        InputRounding { bits: 4, clip: 1.0 }.apply(&mut x);
        assert_eq!(x.as_slice(), [7.0, -3.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, -70.0, 10.0, 20.0, 10.0]);
        let mut clipped = Activations::from_vec(1, 3, vec![10.0, 4.0, -10.0]);
        InputRounding { bits: 3, clip: 0.6 }.apply(&mut clipped);
        assert_eq!(clipped.as_slice(), [6.0, 4.0, -6.0]);
    }
}
