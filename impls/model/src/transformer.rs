//! The decoder from scratch: embedding, positions, layers, final norm, head.
//!
//! Source: Vaswani et al. 2017 and its descendants; what a family does differently is its [`Architecture`], not other code.

use std::sync::Arc;

use cuda_kernels::GpuError;

use crate::architecture::{Architecture, Positions};
use crate::block::{Block, Inputs, Matrix, NormWeights, Pass, Reader, Trunk, Workspace};
use crate::checkpoint::{CheckpointError, Tensors};
use crate::graphs::Graphs;
use crate::names::Source;
use crate::probe::{Probe, Site, reborrow};
use crate::rope::History;
use crate::{
    Activations, Embedding, KvBytes, KvCache, KvShape, Linear, Parameters, SeqId, Step, StepError, StepModel, ops,
};

/// A decoder ready to run; immutable, so that several sessions share it.
pub struct Transformer {
    /// What the layers share.
    pub trunk: Trunk,
    /// What tokens enter through.
    pub entry: Entry,
    /// The layers.
    pub blocks: Vec<Block>,
    /// What logits leave through.
    pub exit: Exit<Box<dyn Linear>>,
}

/// From tokens to the residual stream.
pub struct Entry {
    /// Token embedding `[vocab, embedding_dim]`, in the checkpoint's type.
    pub embedding: Embedding,
    /// Learned positions `[max_positions + offset, hidden]`.
    positions: Option<Parameters>,
    /// A norm on embeddings.
    norm: Option<NormWeights>,
    /// From the embedding's width to the residual stream's, `[hidden, embedding_dim]`.
    projection: Option<cpu_kernels::PackedF32>,
}

/// From the residual stream to logits.
pub struct Exit<M> {
    /// The final norm.
    norm: Option<NormWeights>,
    /// From the residual stream's width to the embedding's, `[embedding_dim, hidden]`.
    projection: Option<std::sync::Arc<cpu_kernels::PackedF32>>,
    /// The head `[vocab, embedding_dim]`; the embedding when tied.
    pub head: M,
    /// Added to logits.
    bias: Option<Parameters>,
}

impl<M> Exit<M> {
    /// The same with another head.
    pub fn with_head<N>(self, head: N) -> Exit<N> {
        Exit { norm: self.norm, projection: self.projection, head, bias: self.bias }
    }
}

/// Reads what lies outside the layers.
pub fn read_ends(a: &Architecture, tensors: &dyn Tensors) -> Result<(Entry, Exit<Matrix>), CheckpointError> {
    let reader = Reader::new(a, tensors);
    let table = |name: &str| {
        let shape = [a.vocab_size, a.embedding_dim];
        reader.matrix(&[Source::whole(name.into(), shape, false)])
    };
    let projection = |name: &str, shape: [usize; 2]| -> Result<Option<cpu_kernels::PackedF32>, CheckpointError> {
        if a.embedding_dim == a.hidden {
            return Ok(None);
        }
        Ok(Some(cpu_kernels::PackedF32::pack(&reader.table(&format!("{name}.weight"), shape)?, shape[0], shape[1])))
    };
    let embedding = table(a.names.embedding)?;
    if !a.tied_head && !embedding.is_finite() {
        return Err(CheckpointError::NotFinite { name: format!("{}.weight", a.names.embedding) });
    }
    let positions = match a.positions {
        Positions::Learned { offset } => {
            let shape = [a.max_positions + offset, a.hidden];
            Some(reader.table(&format!("{}.weight", a.names.positions), shape)?.into())
        }
        Positions::Rope(_) | Positions::Alibi(_) => None,
    };
    let [inward, outward] = a.names.project;
    let exit = Exit {
        norm: if a.final_norm { Some(reader.norm(a.names.final_norm, a.norm, a.hidden)?) } else { None },
        projection: projection(outward, [a.embedding_dim, a.hidden])?.map(Arc::new),
        head: if a.tied_head { embedding.clone() } else { table(a.names.head)? },
        bias: if a.biases.head {
            Some(reader.vector(&format!("{}.bias", a.names.head), a.vocab_size)?.into())
        } else {
            None
        },
    };
    let entry = Entry {
        embedding: embedding.into(),
        positions,
        norm: a.embedding_norm.then(|| reader.norm(a.names.embedding_norm, a.norm, a.hidden)).transpose()?,
        projection: projection(inward, [a.hidden, a.embedding_dim])?,
    };
    Ok((entry, exit))
}

impl Entry {
    /// The residual stream `[tokens, hidden]` of `step` before the first layer.
    pub fn embed(&self, trunk: &Trunk, step: &Step, x: &mut Activations) {
        let mut inputs = Inputs::default();
        inputs.set(&trunk.device, [None; 2], step);
        self.enter(trunk, &inputs, x);
    }

    fn enter(&self, trunk: &Trunk, inputs: &Inputs, x: &mut Activations) {
        let a = &trunk.architecture;
        ops::embed(&trunk.device, &self.embedding, &inputs.tokens, a.embedding_scale, x);
        if let Some(projection) = &self.projection {
            ops::project(&trunk.device, projection, x);
        }
        if let (Some(table), Positions::Learned { offset }) = (&self.positions, &a.positions) {
            ops::add_positions(&trunk.device, table, *offset, &inputs.positions, x);
        }
        if let Some(norm) = &self.norm {
            let mut normed = Activations::default();
            ops::norm(&trunk.device, a.norm, norm, a.norm_eps, x, &mut normed);
            *x = normed;
        }
    }
}

impl Transformer {
    /// Sizes.
    pub fn architecture(&self) -> &Architecture {
        &self.trunk.architecture
    }

    /// Shape of a KV cache for this model.
    pub fn kv_shape(&self) -> KvShape {
        self.trunk.kv_shape()
    }

    /// Bytes that one pass must read of the stored weights (embedding rows excluded: they are gathered).
    pub fn weight_bytes(&self) -> usize {
        self.linears().map(|l| l.weight_bytes()).sum()
    }

    /// Every matrix product, layer by layer, the head last.
    pub fn linears(&self) -> impl Iterator<Item = &dyn Linear> {
        self.blocks.iter().flat_map(Block::linears).chain([&*self.exit.head])
    }

    /// Puts everything that `step` brings where the pass reads it: after this the device alone works.
    pub(crate) fn begin(&self, step: &Step, kv: &mut dyn KvCache, ws: &mut Workspace) {
        kv.begin(step);
        ws.begin(&self.trunk, step);
    }

    /// Runs `step`, which [`Transformer::begin`] has seen; keys and values are appended to `kv`, where room must have been
    /// reserved. Logits `[step.logit_rows, vocab]` are left in the workspace.
    pub(crate) fn forward<'w>(
        &self,
        step: &Step,
        kv: &mut dyn KvCache,
        ws: &'w mut Workspace,
        mut probe: Option<&mut dyn Probe>,
    ) -> &'w Activations {
        let mut x = std::mem::take(&mut ws.residual);
        self.entry.enter(&self.trunk, &ws.inputs, &mut x);
        if let Some(probe) = probe.as_deref_mut() {
            probe.tap(Site::Residual(0), &x);
        }
        for (layer, block) in self.blocks.iter().enumerate() {
            let probe = reborrow(&mut probe);
            block.forward(&mut Pass { trunk: &self.trunk, layer, step, kv: &mut *kv, ws: &mut *ws, probe }, &mut x);
        }
        ops::gather_rows(&self.trunk.device, &x, &ws.inputs.logit_rows, &mut ws.gathered);
        ws.residual = x;
        self.leave(ws, probe);
        &ws.logits
    }

    /// Logits `[rows, vocab]` of a residual stream behind the last layer.
    pub fn logits_of<'w>(&self, residual: &Activations, ws: &'w mut Workspace) -> &'w Activations {
        ws.gathered.copy_from(residual);
        self.leave(ws, None);
        &ws.logits
    }

    /// `ws.gathered` → `ws.logits`: final norm, head, scale and cap.
    fn leave(&self, ws: &mut Workspace, probe: Option<&mut dyn Probe>) {
        let (a, device, exit) = (self.architecture(), &self.trunk.device, &self.exit);
        match &exit.norm {
            Some(norm) => ops::norm(device, a.norm, norm, a.norm_eps, &ws.gathered, &mut ws.normed),
            None => ops::copy(device, &ws.gathered, &mut ws.normed),
        }
        if let Some(projection) = &exit.projection {
            ops::project(device, projection, &mut ws.normed);
        }
        if let Some(probe) = probe {
            probe.tap(Site::HeadIn, &ws.normed);
        }
        ops::linear(device, &*exit.head, &ws.normed, exit.bias.as_ref(), &mut ws.logits);
        ops::scale(device, a.logit_scale, &mut ws.logits);
        if let Some(cap) = a.logit_softcap {
            ops::soft_cap(device, cap, &mut ws.logits);
        }
    }
}

/// A transformer with a KV cache and buffers: one independent set of sequences.
pub struct Session {
    /// The model.
    pub transformer: Arc<Transformer>,
    /// Its cache.
    pub kv: Box<dyn KvCache>,
    workspace: Workspace,
    history: History,
    graphs: Graphs,
    /// Logits that a GPU made.
    read: Activations,
}

impl Session {
    /// A session with an empty cache.
    pub fn new(transformer: Arc<Transformer>, kv: Box<dyn KvCache>) -> Session {
        Session {
            transformer,
            kv,
            workspace: Workspace::default(),
            history: History::default(),
            graphs: Graphs::default(),
            read: Activations::default(),
        }
    }

    /// [`StepModel::forward`] with a probe.
    pub fn forward_probed(&mut self, step: &Step, probe: Option<&mut dyn Probe>) -> Result<&Activations, StepError> {
        for span in &step.spans {
            self.kv.reserve(span.seq, span.kv_len)?;
        }
        let rerun = self.transformer.trunk.rope.as_ref().and_then(|rope| self.history.advance(rope, step));
        let step = rerun.as_ref().map_or(step, |rerun| &rerun.step);
        for &seq in rerun.iter().flat_map(|rerun| &rerun.restarted) {
            self.kv.truncate(seq, 0);
        }
        for span in step.spans.iter().filter(|_| rerun.is_some()) {
            self.kv.reserve(span.seq, span.kv_len)?;
        }
        self.transformer.begin(step, &mut *self.kv, &mut self.workspace);
        let (transformer, kv, workspace) = (&self.transformer, &mut *self.kv, &mut self.workspace);
        let Some(cuda) = transformer.trunk.device.cuda() else {
            return Ok(transformer.forward(step, kv, workspace, probe));
        };
        if probe.is_some() {
            return Err(GpuError::shape("probe", "activations are tapped on a cpu device only").into());
        }
        self.graphs.run(cuda, step, || {
            transformer.forward(step, &mut *kv, &mut *workspace, None);
        });
        cuda.check()?;
        workspace.logits.read_into(&mut self.read)?;
        Ok(&self.read)
    }

    /// Passes that a GPU made by replaying a recorded graph.
    pub fn graph_replays(&self) -> u64 {
        self.graphs.replays()
    }
}

impl StepModel for Session {
    fn vocab(&self) -> usize {
        self.transformer.architecture().vocab_size
    }

    fn forward(&mut self, step: &Step) -> Result<&Activations, StepError> {
        self.forward_probed(step, None)
    }

    fn truncate(&mut self, seq: SeqId, len: usize) {
        self.kv.truncate(seq, len);
        self.history.truncate(seq, len);
    }

    fn fork(&mut self, from: SeqId, to: SeqId) -> bool {
        self.history.fork(from, to);
        self.kv.fork(from, to)
    }

    fn kv_bytes(&self) -> KvBytes {
        self.kv.bytes()
    }
}
