//! Taps on named activations; a forward pass without a probe pays nothing.

use crate::Activations;

/// A named place in the forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Site {
    /// Input of the fused q, k, v projection of a layer (after its norm).
    QkvIn(usize),
    /// Input of the output projection of a layer (attention result).
    OutIn(usize),
    /// Input of the fused gate and up projection of a layer (after its norm).
    GateUpIn(usize),
    /// Input of the down projection of a layer.
    DownIn(usize),
    /// Input of a layer's router.
    RouterIn(usize),
    /// Rows that an expert of a layer receives.
    ExpertIn(usize, usize),
    /// Input of the down projection of an expert of a layer.
    ExpertDownIn(usize, usize),
    /// The compressed query of latent attention, normed.
    QueryUpIn(usize),
    /// The compressed keys and values of latent attention, normed.
    LatentUpIn(usize),
    /// Residual stream after a layer (0: after the embedding).
    Residual(usize),
    /// Input of the head (after the final norm).
    HeadIn,
}

/// Receives activations as they pass.
pub trait Probe {
    /// `x [rows, features]` at `site`.
    fn tap(&mut self, site: Site, x: &Activations);
}

/// A shorter borrow of an optional probe (`as_deref_mut` cannot shorten the trait object's lifetime inside a loop).
pub fn reborrow<'a>(probe: &'a mut Option<&mut dyn Probe>) -> Option<&'a mut dyn Probe> {
    match probe {
        Some(probe) => Some(&mut **probe),
        None => None,
    }
}
