//! Sources encoded once, targets decoded beside each other: an encoder–decoder as a [`StepModel`].

use std::collections::HashMap;
use std::sync::Arc;

use super::EncoderDecoder;
use super::layers::Buffers;
use crate::{Activations, CacheFull, KvBytes, KvCache, SeqId, Span, Step, StepError, StepModel, TokenId, Visibility};

/// The caches of a session.
pub struct Caches {
    /// Of the encoder, shape [`encoder_kv`](super::EncoderDecoderShape::encoder_kv); empty between sources.
    pub encoder: Box<dyn KvCache>,
    /// What the decoder reads of each source, shape [`decoder_kv`](super::EncoderDecoderShape::decoder_kv).
    pub sources: Box<dyn KvCache>,
    /// The decoder's own past, same shape.
    pub decoder: Box<dyn KvCache>,
}

/// A source that cannot be encoded.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SourceError {
    /// Nothing to attend to.
    #[error("the source of sequence {seq:?} has no unmasked tokens: give at least one")]
    Empty {
        /// The sequence.
        seq: SeqId,
    },
    /// One mask entry per token is needed.
    #[error("the source of sequence {seq:?} has {tokens} tokens and a mask of {mask}: expected one entry per token")]
    Mask {
        /// The sequence.
        seq: SeqId,
        /// Tokens.
        tokens: usize,
        /// Mask entries.
        mask: usize,
    },
    /// No room.
    #[error(transparent)]
    CacheFull(#[from] CacheFull),
}

/// An encoder–decoder with its caches: one independent set of sequences, each with its source.
///
/// A source stays until its sequence gets another one; truncating a sequence forgets its target only, and a fork shares the
/// source of its origin.
pub struct EncoderDecoderSession {
    model: Arc<EncoderDecoder>,
    caches: Caches,
    /// Under which sequence the source of a sequence is cached.
    source_of: HashMap<SeqId, SeqId>,
    buffers: Buffers,
}

impl EncoderDecoderSession {
    /// A session without sources.
    pub fn new(model: Arc<EncoderDecoder>, caches: Caches) -> EncoderDecoderSession {
        EncoderDecoderSession { model, caches, source_of: HashMap::new(), buffers: Buffers::default() }
    }

    /// The model.
    pub fn model(&self) -> &EncoderDecoder {
        &self.model
    }

    /// Encodes `tokens` as the source of `seq`, replacing its old one and forgetting its target. Where `mask` is false a
    /// token is padding: its row is left out, the others keep their positions.
    pub fn encode(&mut self, seq: SeqId, tokens: &[TokenId], mask: Option<&[bool]>) -> Result<(), SourceError> {
        if let Some(mask) = mask.filter(|mask| mask.len() != tokens.len()) {
            return Err(SourceError::Mask { seq, tokens: tokens.len(), mask: mask.len() });
        }
        let kept: Vec<usize> = (0..tokens.len()).filter(|&i| mask.is_none_or(|mask| mask[i])).collect();
        if kept.is_empty() {
            return Err(SourceError::Empty { seq });
        }
        let n = kept.len();
        let step = Step {
            tokens: kept.iter().map(|&i| tokens[i]).collect(),
            positions: kept.iter().map(|&i| i as u32).collect(),
            spans: vec![Span { seq, rows: 0..n, kv_len: n }],
            logit_rows: vec![],
            visibility: Visibility::Full,
        };
        let Caches { encoder, sources, decoder } = &mut self.caches;
        sources.truncate(seq, 0);
        decoder.truncate(seq, 0);
        sources.reserve(seq, n)?;
        encoder.reserve(seq, n)?;
        self.model.encode(&step, &mut **encoder, &mut **sources, &mut self.buffers);
        encoder.truncate(seq, 0);
        self.source_of.insert(seq, seq);
        Ok(())
    }

    /// `step` as cross attention sees it: the same rows, each looking at all of its source.
    fn look(&self, step: &Step) -> Step {
        let span = |span: &Span| {
            let seq = *self.source_of.get(&span.seq).expect("a source is encoded before its target is decoded");
            Span { seq, rows: span.rows.clone(), kv_len: self.caches.sources.len(0, seq) }
        };
        Step { spans: step.spans.iter().map(span).collect(), visibility: Visibility::Full, ..step.clone() }
    }
}

impl StepModel for EncoderDecoderSession {
    fn vocab(&self) -> usize {
        self.model.shape().vocab_size
    }

    /// # Panics
    /// If a sequence of `step` has no source.
    fn forward(&mut self, step: &Step) -> Result<&Activations, StepError> {
        let look = self.look(step);
        let Caches { sources, decoder, .. } = &mut self.caches;
        for span in &step.spans {
            decoder.reserve(span.seq, span.kv_len)?;
        }
        Ok(self.model.decode(step, &look, &mut **decoder, &**sources, &mut self.buffers))
    }

    fn truncate(&mut self, seq: SeqId, len: usize) {
        self.caches.decoder.truncate(seq, len);
    }

    fn fork(&mut self, from: SeqId, to: SeqId) -> bool {
        if let Some(&source) = self.source_of.get(&from) {
            self.source_of.insert(to, source);
        }
        self.caches.decoder.fork(from, to)
    }

    fn kv_bytes(&self) -> KvBytes {
        let (target, source) = (self.caches.decoder.bytes(), self.caches.sources.bytes());
        KvBytes { logical: target.logical + source.logical, resident: target.resident + source.resident }
    }
}
