//! Rotary position embedding: frequencies once per model, angles once per Step.
//!
//! Source: Su et al. 2021 (RoFormer, eq. 34); half-split pairs and the Llama 3 ramp as Hugging Face computes them, in
//! f32, so that logits agree with its checkpoints.

use std::f32::consts::PI;

use crate::architecture::{Rope, RopeScaling};

/// Inverse frequencies of the rotary pairs.
#[derive(Debug, Clone)]
pub struct RopeTable {
    inv_freq: Vec<f32>,
}

impl RopeTable {
    /// Frequencies `theta^(-2i/head_dim)` with the scaling applied.
    pub fn new(rope: &Rope, head_dim: usize) -> RopeTable {
        let inv_freq = (0..head_dim / 2)
            .map(|i| {
                let base = 1.0 / rope.theta.powf((2 * i) as f32 / head_dim as f32);
                match rope.scaling {
                    RopeScaling::None => base,
                    RopeScaling::Linear { factor } => base / factor,
                    RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => {
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
                }
            })
            .collect();
        RopeTable { inv_freq }
    }

    /// Fills `cos`, `sin` `[positions, head_dim/2]`.
    pub fn angles(&self, positions: &[u32], cos: &mut Vec<f32>, sin: &mut Vec<f32>) {
        cos.clear();
        sin.clear();
        for &position in positions {
            for &freq in &self.inv_freq {
                let (s, c) = (position as f32 * freq).sin_cos();
                cos.push(c);
                sin.push(s);
            }
        }
    }
}
