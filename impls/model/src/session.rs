//! What a decoder sees of a model: forward this Step, forget that suffix.

use crate::{Activations, CacheFull, KvBytes, SeqId, Step};

/// Anything that turns Steps into logits and can roll back. A transformer with its cache is one; so is a table of
/// probabilities in a test.
pub trait StepModel: Send {
    /// Entries of the vocabulary.
    fn vocab(&self) -> usize;
    /// Runs `step`; the result is `[logit_rows, vocab]`, valid until the next call.
    fn forward(&mut self, step: &Step) -> Result<&Activations, CacheFull>;
    /// Forgets every cached entry of `seq` from `len` on; 0 frees the sequence.
    fn truncate(&mut self, seq: SeqId, len: usize);
    /// Memory of its KV cache; nothing for a model without one.
    fn kv_bytes(&self) -> KvBytes {
        KvBytes::default()
    }
}
