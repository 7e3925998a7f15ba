//! Buffers of a session, so that a step allocates nothing once they have grown.

use super::Trunk;
use super::experts::ExpertBuffers;
use crate::{Activations, Step};

/// Buffers of a forward pass.
#[derive(Default)]
pub struct Workspace {
    pub(crate) residual: Activations,
    pub(crate) logits: Activations,
    pub(crate) gathered: Activations,
    pub(crate) normed: Activations,
    pub(super) cos: Vec<f32>,
    pub(super) sin: Vec<f32>,
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

impl Workspace {
    /// Prepares the rotary angles of `step`; call once before its layers.
    pub fn begin(&mut self, trunk: &Trunk, step: &Step) {
        if let Some(rope) = &trunk.rope {
            rope.angles(step, &mut self.cos, &mut self.sin);
        }
    }
}
