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
    /// Rotary angles.
    pub turn: Angles,
    /// Those of layers with a sliding window, where they differ.
    pub window_turn: Angles,
}

/// Rotary angles of a Step's rows; empty without rotation.
#[derive(Debug, Default)]
pub struct Angles {
    /// Cosines `[rows, dim/2]`.
    pub cos: PerStep<f32>,
    /// Sines of the same.
    pub sin: PerStep<f32>,
}

impl Angles {
    fn set(&mut self, device: &Device, rope: Option<&RopeTable>, step: &Step) {
        let Some(rope) = rope else { return };
        let mut sines = vec![];
        self.cos.set(device, |cosines| rope.angles(step, cosines, &mut sines));
        self.sin.set(device, |all| *all = sines);
    }
}

impl Inputs {
    /// Takes over those of `step`; `ropes` are those of all layers and of the layers with a window.
    pub fn set(&mut self, device: &Device, ropes: [Option<&RopeTable>; 2], step: &Step) {
        self.tokens.set(device, |all| all.extend(step.tokens.iter().map(|token| token.0)));
        self.positions.set(device, |all| all.extend_from_slice(&step.positions));
        self.logit_rows.set(device, |all| all.extend(step.logit_rows.iter().map(|&row| row as u32)));
        self.turn.set(device, ropes[0], step);
        self.window_turn.set(device, ropes[1], step);
    }

    /// The angles of a layer; `own` where it has a window and those layers their own rotation.
    pub fn angles(&self, own: bool) -> &Angles {
        if own { &self.window_turn } else { &self.turn }
    }
}

impl Workspace {
    /// Takes over what `step` brings; call once before its layers.
    pub fn begin(&mut self, trunk: &Trunk, step: &Step) {
        self.inputs.set(&trunk.device, [trunk.rope.as_ref(), trunk.window_rope.as_ref()], step);
    }
}
