//! Buffers of a session, so that a step allocates nothing once they have grown.

use super::Trunk;
use super::experts::ExpertBuffers;
use crate::{Activations, Device, PerStep, RopeTable, Step};

/// Buffers of a forward pass.
#[derive(Default)]
pub struct Workspace {
    pub(crate) residual: Activations,
    pub(crate) logits: Activations,
    pub(crate) gathered: Activations,
    pub(crate) normed: Activations,
    pub(crate) inputs: Inputs,
    pub(super) qkv: Activations,
    pub(super) q: Activations,
    pub(super) k: Activations,
    pub(super) v: Activations,
    pub(super) rotary: Activations,
    pub(super) attended: Activations,
    pub(super) projected: Activations,
    pub(super) gate_up: Activations,
    pub(super) gated: Activations,
    pub(super) mlp_out: Activations,
    pub(crate) spare: Activations,
    pub(super) experts: ExpertBuffers,
}

/// What a Step brings beside its rows, where the device reads it.
#[derive(Debug, Default)]
pub struct Inputs {
    /// One token per row.
    pub tokens: PerStep<u32>,
    /// Position of each row.
    pub positions: PerStep<u32>,
    /// Rows whose logits are wanted.
    pub logit_rows: PerStep<u32>,
    /// Cosines of the rotary angles `[rows, dim/2]`; empty without rotation.
    pub cos: PerStep<f32>,
    /// Their sines.
    pub sin: PerStep<f32>,
}

impl Inputs {
    /// Takes over those of `step`.
    pub fn set(&mut self, device: &Device, rope: Option<&RopeTable>, step: &Step) {
        self.tokens.set(device, |all| all.extend(step.tokens.iter().map(|token| token.0)));
        self.positions.set(device, |all| all.extend_from_slice(&step.positions));
        self.logit_rows.set(device, |all| all.extend(step.logit_rows.iter().map(|&row| row as u32)));
        if let Some(rope) = rope {
            let mut sines = vec![];
            self.cos.set(device, |cosines| rope.angles(step, cosines, &mut sines));
            self.sin.set(device, |all| *all = sines);
        }
    }
}

impl Workspace {
    /// Takes over what `step` brings; call once before its layers.
    pub fn begin(&mut self, trunk: &Trunk, step: &Step) {
        self.inputs.set(&trunk.device, trunk.rope.as_ref(), step);
    }
}
