//! The decoder from scratch: embedding, layers, final norm, head.
//!
//! Source: Vaswani et al. 2017 in the pre-norm form of Llama (Touvron et al. 2023): RMSNorm, RoPE, GQA, SwiGLU.

use std::sync::Arc;

use crate::architecture::Architecture;
use crate::block::{Block, Matrix, Trunk, Workspace, vector};
use crate::checkpoint::{CheckpointError, Tensors};
use crate::probe::{Probe, Site};
use crate::{Activations, CacheFull, KvBytes, KvCache, KvShape, Linear, SeqId, Step, StepModel, names, ops};

/// A decoder ready to run; immutable, so that several sessions share it.
pub struct Transformer {
    /// What the layers share.
    pub trunk: Trunk,
    /// Token embedding `[vocab, hidden]`, in the checkpoint's type.
    pub embedding: Matrix,
    /// The layers.
    pub blocks: Vec<Block>,
    /// Gain of the final norm.
    pub final_norm: Vec<f32>,
    /// The head `[vocab, hidden]`.
    pub head: Box<dyn Linear>,
}

/// Embedding, final norm and head matrix of a checkpoint: everything outside the layers.
pub struct Ends {
    /// Token embedding `[vocab, hidden]`.
    pub embedding: Matrix,
    /// Gain of the final norm.
    pub final_norm: Vec<f32>,
    /// Head `[vocab, hidden]`; the embedding when tied.
    pub head: Matrix,
}

/// Reads what lies outside the layers.
pub fn read_ends(a: &Architecture, tensors: &dyn Tensors) -> Result<Ends, CheckpointError> {
    let embedding = Matrix::stack(a, tensors, &[names::EMBEDDING.into()])?;
    let head = if a.tied_head { embedding.clone() } else { Matrix::stack(a, tensors, &[names::HEAD.into()])? };
    Ok(Ends { embedding, final_norm: vector(a, tensors, names::FINAL_NORM)?, head })
}

impl Transformer {
    /// Sizes.
    pub fn architecture(&self) -> &Architecture {
        &self.trunk.architecture
    }

    /// Shape of a KV cache for this model.
    pub fn kv_shape(&self) -> KvShape {
        let a = self.architecture();
        KvShape::new(a.n_layers, a.n_kv_heads, a.head_dim)
    }

    /// Bytes that one pass must read of the stored weights (embedding rows excluded: they are gathered).
    pub fn weight_bytes(&self) -> usize {
        self.linears().map(|l| l.weight_bytes()).sum()
    }

    /// Every matrix product, layer by layer, the head last.
    pub fn linears(&self) -> impl Iterator<Item = &dyn Linear> {
        self.blocks.iter().flat_map(Block::linears).chain([&*self.head])
    }

    /// Runs `step`; keys and values are appended to `kv`, where room must have been reserved. Logits
    /// `[step.logit_rows, vocab]` are left in the workspace.
    pub fn forward<'w>(
        &self,
        step: &Step,
        kv: &mut dyn KvCache,
        ws: &'w mut Workspace,
        mut probe: Option<&mut dyn Probe>,
    ) -> &'w Activations {
        let mut x = std::mem::take(&mut ws.residual);
        ops::embed(&self.embedding, &step.tokens, &mut x);
        if let Some(probe) = probe.as_deref_mut() {
            probe.tap(Site::Residual(0), &x);
        }
        ws.begin(&self.trunk, step);
        for (layer, block) in self.blocks.iter().enumerate() {
            block.forward(&self.trunk, layer, step, &mut x, kv, ws, reborrow(&mut probe));
        }
        ops::gather_rows(&x, &step.logit_rows, &mut ws.gathered);
        ops::rms_norm(&self.trunk.device, &ws.gathered, &self.final_norm, self.architecture().norm_eps, &mut ws.normed);
        if let Some(probe) = probe {
            probe.tap(Site::HeadIn, &ws.normed);
        }
        self.head.forward(&ws.normed, &mut ws.logits);
        ws.residual = x;
        &ws.logits
    }
}

/// A shorter borrow of an optional probe (`as_deref_mut` cannot shorten the trait object's lifetime inside a loop).
fn reborrow<'a>(probe: &'a mut Option<&mut dyn Probe>) -> Option<&'a mut dyn Probe> {
    match probe {
        Some(probe) => Some(&mut **probe),
        None => None,
    }
}

/// A transformer with a KV cache and buffers: one independent set of sequences.
pub struct Session {
    /// The model.
    pub transformer: Arc<Transformer>,
    /// Its cache.
    pub kv: Box<dyn KvCache>,
    workspace: Workspace,
}

impl Session {
    /// A session with an empty cache.
    pub fn new(transformer: Arc<Transformer>, kv: Box<dyn KvCache>) -> Session {
        Session { transformer, kv, workspace: Workspace::default() }
    }

    /// [`StepModel::forward`] with a probe.
    pub fn forward_probed(&mut self, step: &Step, probe: Option<&mut dyn Probe>) -> Result<&Activations, CacheFull> {
        for span in &step.spans {
            self.kv.reserve(span.seq, span.kv_len)?;
        }
        Ok(self.transformer.forward(step, &mut *self.kv, &mut self.workspace, probe))
    }
}

impl StepModel for Session {
    fn vocab(&self) -> usize {
        self.transformer.architecture().vocab_size
    }

    fn forward(&mut self, step: &Step) -> Result<&Activations, CacheFull> {
        self.forward_probed(step, None)
    }

    fn truncate(&mut self, seq: SeqId, len: usize) {
        self.kv.truncate(seq, len);
    }

    fn fork(&mut self, from: SeqId, to: SeqId) -> bool {
        self.kv.fork(from, to)
    }

    fn kv_bytes(&self) -> KvBytes {
        self.kv.bytes()
    }
}
