//! Heads, and how a score is formed: what every attention over a cache needs to know.

use crate::GpuError;

/// Heads of a layer and the form of its scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heads {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; query head h reads kv head h / (heads / kv_heads).
    pub kv_heads: usize,
    /// Elements of a head, a multiple of 8 up to 256.
    pub dim: usize,
    /// What q·k is multiplied by; above 0.
    pub scale: f32,
    /// A row sees only this many latest tokens, its own included.
    pub window: Option<usize>,
    /// Scores are held between plus and minus this: `softcap·tanh(score / softcap)`.
    pub softcap: Option<f32>,
}

impl Heads {
    /// `heads` over `kv_heads` of `dim`, scaled by 1/√dim, without window and softcap.
    pub fn new(heads: usize, kv_heads: usize, dim: usize) -> Heads {
        Heads { heads, kv_heads, dim, scale: 1.0 / (dim as f32).sqrt(), window: None, softcap: None }
    }

    /// Query heads that read one kv head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads.max(1)
    }

    pub(crate) fn check(&self, kernel: &'static str) -> Result<(), GpuError> {
        let fails = |reason: String| Err(GpuError::shape(kernel, reason));
        if self.kv_heads == 0 || self.heads == 0 || !self.heads.is_multiple_of(self.kv_heads) {
            return fails(format!("{} heads over {} kv heads, expected a multiple", self.heads, self.kv_heads));
        }
        if self.dim == 0 || !self.dim.is_multiple_of(8) || self.dim > 256 {
            return fails(format!("head dim {}, expected a multiple of 8 up to 256", self.dim));
        }
        if !(self.scale > 0.0 && self.scale.is_finite()) {
            return fails(format!("a scale of {}, expected a number above 0", self.scale));
        }
        if self.window == Some(0) || self.softcap.is_some_and(|cap| !(cap > 0.0 && cap.is_finite())) {
            return fails("a window of no tokens, or a softcap that is no number above 0".into());
        }
        Ok(())
    }
}
