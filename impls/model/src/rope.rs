//! Rotary position embedding: frequencies once per model, angles once per Step.
//!
//! Source: Su et al. 2021 (RoFormer, eq. 34); Chen et al. 2023 (position interpolation); bloc97 and emozilla 2023 (dynamic
//! NTK); Peng et al. 2023 (YaRN, arXiv:2309.00071, §3.2–3.4); Ding et al. 2024 (LongRoPE); the Llama 3 ramp. All as Hugging
//! Face computes them, in f32, so that logits agree with its checkpoints.

mod history;

use std::f32::consts::PI;

pub(crate) use history::History;

use crate::Step;
use crate::architecture::{Rope, RopeScaling};

/// Inverse frequencies of the rotary pairs.
#[derive(Debug, Clone)]
pub struct RopeTable {
    rope: Rope,
    /// Frequencies of sequences no longer than the original context.
    inv_freq: Vec<f32>,
}

impl RopeTable {
    /// Frequencies `theta^(-2i/dim)` with the scaling applied.
    pub fn new(rope: &Rope) -> RopeTable {
        RopeTable { rope: rope.clone(), inv_freq: frequencies(rope, 0) }
    }

    /// The length from which on frequencies depend on the length of the whole sequence, if there is one.
    pub fn length_matters_beyond(&self) -> Option<usize> {
        match &self.rope.scaling {
            // the same divisors at every length
            RopeScaling::LongRope { short, long, .. } if short == long => None,
            RopeScaling::Dynamic { original_max_positions, .. }
            | RopeScaling::LongRope { original_max_positions, .. } => Some(*original_max_positions as usize),
            _ => None,
        }
    }

    /// By what the scaling divides each frequency, in sequences no longer than the original context.
    pub fn divisors(&self) -> Vec<f32> {
        let plain = frequencies(&Rope { scaling: RopeScaling::None, ..self.rope.clone() }, 0);
        plain.iter().zip(&self.inv_freq).map(|(plain, scaled)| plain / scaled).collect()
    }

    /// Whether keys rotated for a sequence of `before` tokens are wrong in one of `after`.
    pub fn changes(&self, before: usize, after: usize) -> bool {
        let Some(limit) = self.length_matters_beyond() else { return false };
        match self.rope.scaling {
            RopeScaling::Dynamic { .. } => before.max(limit) != after.max(limit),
            _ => (before > limit) != (after > limit),
        }
    }

    /// Fills `cos`, `sin` `[rows, dim/2]` for the rows of `step`.
    pub fn angles(&self, step: &Step, cos: &mut Vec<f32>, sin: &mut Vec<f32>) {
        cos.clear();
        sin.clear();
        for span in &step.spans {
            let grown = match self.length_matters_beyond() {
                Some(limit) if span.kv_len > limit => Some(frequencies(&self.rope, span.kv_len)),
                _ => None,
            };
            let inv_freq = grown.as_ref().unwrap_or(&self.inv_freq);
            for &position in &step.positions[span.rows.clone()] {
                for &freq in inv_freq {
                    let (s, c) = (position as f32 * freq).sin_cos();
                    cos.push(c * self.rope.attention_factor);
                    sin.push(s * self.rope.attention_factor);
                }
            }
        }
    }
}

/// Inverse frequencies for a sequence of `length` tokens.
fn frequencies(rope: &Rope, length: usize) -> Vec<f32> {
    let dim = rope.dim as f32;
    let mut theta = rope.theta;
    if let RopeScaling::Dynamic { factor, original_max_positions } = rope.scaling {
        let length = (length as f32).max(original_max_positions);
        theta *= (factor * length / original_max_positions - (factor - 1.0)).powf(dim / (dim - 2.0));
    }
    (0..rope.dim / 2)
        .map(|pair| {
            let base = 1.0 / theta.powf((2 * pair) as f32 / dim);
            match &rope.scaling {
                RopeScaling::None | RopeScaling::Dynamic { .. } => base,
                RopeScaling::Linear { factor } => base / factor,
                &RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => {
                    let wavelength = 2.0 * PI / base;
                    if wavelength < original_max_positions / high_freq_factor {
                        base
                    } else if wavelength > original_max_positions / low_freq_factor {
                        base / factor
                    } else {
                        let smooth = (original_max_positions / wavelength - low_freq_factor)
                            / (high_freq_factor - low_freq_factor);
                        (1.0 - smooth) * base / factor + smooth * base
                    }
                }
                &RopeScaling::Yarn { factor, beta_fast, beta_slow, truncate, original_max_positions } => {
                    let place =
                        |turns: f32| dim * (original_max_positions / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln());
                    let (mut low, mut high) = (place(beta_fast), place(beta_slow));
                    if truncate {
                        (low, high) = (low.floor(), high.ceil());
                    }
                    (low, high) = (low.max(0.0), high.min(dim - 1.0));
                    if low == high {
                        high += 0.001;
                    }
                    let interpolated = ((pair as f32 - low) / (high - low)).clamp(0.0, 1.0);
                    base / factor * interpolated + base * (1.0 - interpolated)
                }
                RopeScaling::LongRope { short, long, original_max_positions } => {
                    let divisors = if length as f32 > *original_max_positions { long } else { short };
                    base / divisors[pair]
                }
            }
        })
        .collect()
}
