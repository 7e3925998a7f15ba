//! The point of the E8P codebook nearest to a vector, exactly.
//!
//! For each shift ±¼ the nearest point of the unbounded lattice takes a rounding and at most one correction; where its magnitudes are in
//! the codebook it is the answer. Elsewhere every magnitude is tried: with the vector's own signs, or, where those have the wrong
//! parity, with the cheapest one turned.

use cpu_kernels::e8p_magnitudes;

/// No such entry.
const ABSENT: u16 = u16::MAX;

/// The codebook, searchable.
pub(super) struct Nearest {
    /// Entry of magnitudes m, at Σ m_j·3^j; [`ABSENT`] where the codebook lacks them.
    entry: Vec<u16>,
    /// Magnitudes `[8][256]`, m + ½: all entries of one coordinate side by side.
    magnitudes: [[f32; 256]; 8],
    /// Whether an entry's points have an odd number of negative signs.
    odd: [bool; 256],
}

impl Nearest {
    pub(super) fn new() -> Nearest {
        let mut nearest =
            Nearest { entry: vec![ABSENT; 3usize.pow(8)], magnitudes: [[0.0; 256]; 8], odd: [false; 256] };
        for (i, entry) in e8p_magnitudes().iter().enumerate() {
            nearest.entry[place(entry)] = i as u16;
            nearest.odd[i] = entry.iter().map(|&m| u32::from(m)).sum::<u32>() % 2 == 1;
            entry.iter().enumerate().for_each(|(j, &m)| nearest.magnitudes[j][i] = f32::from(m) + 0.5);
        }
        nearest
    }

    /// The code whose point is nearest to `x`.
    pub(super) fn code(&self, x: &[f32; 8]) -> u16 {
        let [down, up] = [-0.25, 0.25].map(|shift| self.with_shift(&x.map(|v| v - shift)));
        if up.0 < down.0 { up.1 | 0x8000 } else { down.1 }
    }

    /// Squared distance and code, without its shift, of the unshifted point nearest to `u`.
    fn with_shift(&self, u: &[f32; 8]) -> (f32, u16) {
        let a = u.map(f32::abs);
        let mut negative = u.map(|v| v < 0.0);
        // rounded to m + ½, and how far that is
        let mut m = a.map(|a| a.floor());
        let rest: [f32; 8] = std::array::from_fn(|j| a[j] - m[j] - 0.5);
        let sum: i32 = m.iter().map(|m| *m as i32).sum();
        let negatives = negative.iter().filter(|n| **n).count() as i32;
        let mut distance: f32 = rest.iter().map(|r| r * r).sum();
        if (sum + negatives) % 2 != 0 {
            // the coordinate that loses least by going to its other neighbour
            let j = (1..8).fold(0, |best, j| if rest[j].abs() > rest[best].abs() { j } else { best });
            distance += 1.0 - 2.0 * rest[j].abs();
            match (rest[j] < 0.0, m[j] > 0.0) {
                (false, _) => m[j] += 1.0,
                (true, true) => m[j] -= 1.0,
                (true, false) => negative[j] = !negative[j],
            }
        }
        if m.iter().all(|m| *m < 3.0) {
            let entry = self.entry[place(&m.map(|m| m as u8))];
            if entry != ABSENT {
                return (distance, entry | signs(&negative));
            }
        }
        self.among_all(&a, &u.map(|v| v < 0.0))
    }

    /// The same by trying every entry.
    fn among_all(&self, a: &[f32; 8], negative: &[bool; 8]) -> (f32, u16) {
        let odd = negative.iter().filter(|n| **n).count() % 2 == 1;
        let (mut distances, mut cheapest) = ([0.0f32; 256], [f32::INFINITY; 256]);
        for (a, magnitudes) in a.iter().zip(&self.magnitudes) {
            for ((distance, turned), s) in distances.iter_mut().zip(&mut cheapest).zip(magnitudes) {
                *distance += (a - s) * (a - s);
                *turned = turned.min(a * s);
            }
        }
        let mut best = (f32::INFINITY, 0);
        for (i, (distance, turned)) in distances.iter().zip(&cheapest).enumerate() {
            let total = if self.odd[i] == odd { *distance } else { distance + 4.0 * turned };
            if total < best.0 {
                best = (total, i);
            }
        }
        let (distance, entry) = best;
        let mut negative = *negative;
        if self.odd[entry] != odd {
            let cost = |j: usize| a[j] * self.magnitudes[j][entry];
            let j = (1..8).fold(0, |best, j| if cost(j) < cost(best) { j } else { best });
            negative[j] = !negative[j];
        }
        (distance, entry as u16 | signs(&negative))
    }
}

fn place(m: &[u8; 8]) -> usize {
    m.iter().rev().fold(0, |at, &m| at * 3 + usize::from(m))
}

/// The first seven signs in bits 8 to 14; the eighth follows.
fn signs(negative: &[bool; 8]) -> u16 {
    negative[..7].iter().enumerate().fold(0, |bits, (j, &n)| bits | u16::from(n) << (8 + j))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cpu_kernels::e8p_point;
    use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

    #[test]
    fn the_nearest_of_all_is_found() {
        let nearest = Nearest::new();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for round in 0..60 {
            let size = [0.5, 1.5, 3.0, 6.0][round % 4];
            let x: [f32; 8] = std::array::from_fn(|_| rng.random_range(-size..size));
            let distance = |code: u16| e8p_point(code).iter().zip(&x).map(|(p, x)| (p - x).powi(2)).sum::<f32>();
            let best = (0..=u16::MAX).map(distance).fold(f32::INFINITY, f32::min);
            let found = distance(nearest.code(&x));
            assert!(found <= best * (1.0 + 1e-5) + 1e-6, "{x:?}: {found} for {best}");
        }
    }
}
