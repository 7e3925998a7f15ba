//! What a decoder sees of a model: forward this Step, forget that suffix.

use cuda_kernels::GpuError;

use crate::{Activations, CacheFull, KvBytes, SeqId, Step};

/// A Step that gave no logits.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StepError {
    /// The cache has no room.
    #[error(transparent)]
    CacheFull(#[from] CacheFull),
    /// The device failed: some of its memory holds what no Step may read, and its sequences must start again.
    #[error(transparent)]
    Device(#[from] GpuError),
}

/// Anything that turns Steps into logits and can roll back. A transformer with its cache is one; so is a table of
/// probabilities in a test.
pub trait StepModel: Send {
    /// Entries of the vocabulary.
    fn vocab(&self) -> usize;
    /// Runs `step`; the result is `[logit_rows, vocab]`, valid until the next call.
    fn forward(&mut self, step: &Step) -> Result<&Activations, StepError>;
    /// Forgets every cached entry of `seq` from `len` on; 0 frees the sequence.
    fn truncate(&mut self, seq: SeqId, len: usize);
    /// Makes `to` remember what `from` does, replacing what `to` had. Gives back false where that cannot be done; `to` then
    /// has no entries and the caller runs its tokens again.
    fn fork(&mut self, from: SeqId, to: SeqId) -> bool {
        let _ = from;
        self.truncate(to, 0);
        false
    }
    /// Memory of its KV cache; nothing for a model without one.
    fn kv_bytes(&self) -> KvBytes {
        KvBytes::default()
    }
}
