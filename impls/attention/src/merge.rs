//! What: attention over part of a sequence's keys as a value that can be joined with that of other parts, exactly.
//!
//! Source: Dao, Haziza, Massa and Sizov 2023, "Flash-Decoding"; Ye et al. 2025, arXiv:2501.01005, §2.2 (the ⊕ of states).
//! Shapes: out `[value_dim]`, one row of one head.
//! Method: lse = ln Σ e^score; joined: lse = ln(e^a + e^b) about the larger, out = e^(a−lse)·out_a + e^(b−lse)·out_b.
//! Exactness: ⊕ is associative and commutative up to rounding; nothing is (0, −∞), its neutral element.
//! Logarithms are f64: an f32 step at ln 10³ is 5e-7 already.
//! Cost: two exponentials and 2·value_dim multiplications per join.
//! Not handled: speed; the kernels join un-normalised sums in place (`flash/online.rs`).

/// Attention of one query row of one head over some keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// ln Σ e^score over the keys; −∞ where there are none.
    pub lse: f64,
    /// Σ softmax·v over the keys, `[value_dim]`; zeros where there are none.
    pub out: Vec<f32>,
}

impl Part {
    /// Attention over no key.
    pub fn empty(value_dim: usize) -> Part {
        Part { lse: f64::NEG_INFINITY, out: vec![0.0; value_dim] }
    }

    /// Attention of a row with scaled `scores` over `values`, one value of `value_dim` features per score.
    pub fn of(scores: &[f32], values: &[f32], value_dim: usize) -> Part {
        let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut part = Part::empty(value_dim);
        if most == f32::NEG_INFINITY {
            return part;
        }
        let weights: Vec<f64> = scores.iter().map(|score| f64::from(score - most).exp()).collect();
        let total: f64 = weights.iter().sum();
        for (weight, value) in weights.iter().zip(values.chunks_exact(value_dim)) {
            let weight = (weight / total) as f32;
            part.out.iter_mut().zip(value).for_each(|(out, v)| *out += weight * v);
        }
        part.lse = f64::from(most) + total.ln();
        part
    }

    /// Attention over the keys of both.
    pub fn join(&self, other: &Part) -> Part {
        let most = self.lse.max(other.lse);
        if most == f64::NEG_INFINITY {
            return self.clone();
        }
        let lse = most + ((self.lse - most).exp() + (other.lse - most).exp()).ln();
        let (a, b) = ((self.lse - lse).exp() as f32, (other.lse - lse).exp() as f32);
        Part { lse, out: self.out.iter().zip(&other.out).map(|(x, y)| a * x + b * y).collect() }
    }
}
