//! Assembly: a checkpoint and a spec become a transformer; a transformer and a cache become sessions and decoders.

use std::sync::Arc;

use decoding::Decoder;
use model::architecture::{Activation, Positions};
use model::block::{Block, LatentForm, Trunk, read_layer};
use model::{
    Activations, Architecture, Device, Linear, PlacementError, SeqId, Session, Step, StepModel, TokenId, Transformer,
    Unsupported, read_ends,
};
use weights::WeightsSpec;

use crate::calibrate::run_layer;
use crate::layer::{linear, prepare_layer};
use crate::{Checkpoint, EngineError, EngineSpec, WorkCount};

/// What building an engine needs beside its parts.
pub struct BuildOptions<'a> {
    /// Tokens one sequence may hold.
    pub context_tokens: usize,
    /// Token windows for calibration; may be empty when no part needs it.
    pub calibration: &'a [Vec<TokenId>],
    /// Called with (layers done, layers in all) as the target is made ready.
    pub progress: &'a mut dyn FnMut(usize, usize),
}

/// A cell, ready to run.
pub struct Engine {
    /// Its parts.
    pub spec: EngineSpec,
    /// Where it computes.
    pub device: Device,
    /// The target model.
    pub target: Arc<Transformer>,
    /// The draft model, when decoding needs one.
    pub draft: Option<Arc<Transformer>>,
    context_tokens: usize,
}

impl Engine {
    /// Builds the cell `spec` from `target` (and `draft`) on `device`.
    pub fn build(
        spec: &EngineSpec,
        target: &Checkpoint,
        draft: Option<&Checkpoint>,
        device: &Device,
        options: BuildOptions<'_>,
    ) -> Result<Engine, EngineError> {
        check_context(target, options.context_tokens)?;
        let draft = match (spec.decoding.needs_draft(), draft) {
            (false, _) => None,
            (true, None) => {
                return Err(EngineError::Mismatch(format!(
                    "decoding `{}` needs a draft checkpoint: set `draft` in [model]",
                    spec.decoding.tag()
                )));
            }
            (true, Some(draft)) => {
                check_pair(target, draft)?;
                check_context(draft, options.context_tokens)?;
                let spec = EngineSpec { weights: plain_format(&spec.weights), ..spec.clone() };
                let quiet = &mut |_, _| {};
                let options = BuildOptions { progress: quiet, calibration: &[], ..options };
                Some(Arc::new(build_transformer(&spec, draft, device, options)?))
            }
        };
        let reborrowed = BuildOptions { progress: &mut *options.progress, ..options };
        let target = Arc::new(build_transformer(spec, target, device, reborrowed)?);
        Ok(Engine { spec: spec.clone(), device: device.clone(), target, draft, context_tokens: options.context_tokens })
    }

    /// A fresh session of the target.
    pub fn session(&self) -> Result<Session, EngineError> {
        self.session_of(&self.target)
    }

    /// A fresh session of the target whose sequences hold `tokens`, where that is more than the engine was built for.
    pub fn session_with_room(&self, tokens: usize) -> Result<Session, EngineError> {
        let (limit, room) = (self.target.architecture().context_limit(), tokens.max(self.context_tokens));
        if tokens > limit {
            return Err(EngineError::Mismatch(format!(
                "a sequence of {tokens} tokens is longer than the {limit} positions of the model; shorten it"
            )));
        }
        let kv = self.spec.kv.build(self.target.kv_shape(), room, &self.device)?;
        Ok(Session::new(self.target.clone(), kv))
    }

    /// A fresh session of the draft, when there is one.
    pub fn draft_session(&self) -> Result<Option<Session>, EngineError> {
        self.draft.as_ref().map(|draft| self.session_of(draft)).transpose()
    }

    fn session_of(&self, transformer: &Arc<Transformer>) -> Result<Session, EngineError> {
        let kv = self.spec.kv.build(transformer.kv_shape(), self.context_tokens, &self.device)?;
        Ok(Session::new(transformer.clone(), kv))
    }

    /// A decoder over fresh sessions.
    pub fn decoder(&self) -> Result<Box<dyn Decoder>, EngineError> {
        let draft = self.draft_session()?.map(|s| Box::new(s) as Box<dyn StepModel>);
        Ok(self.spec.decoding.build(Box::new(self.session()?), draft)?)
    }

    /// Bytes that the weights occupy, target and draft together.
    pub fn weight_bytes(&self) -> u64 {
        let both = [Some(&self.target), self.draft.as_ref()];
        both.into_iter().flatten().flat_map(|t| t.linears()).map(|l| l.resident_bytes() as u64).sum()
    }

    /// Least work of a target Step of `rows` tokens after `context`, with logits for `logit_rows`.
    pub fn work(&self, session: &Session, rows: u64, context: u64, logit_rows: u64) -> WorkCount {
        WorkCount::of_step(&self.target, &*session.kv, rows, context, logit_rows)
    }

    /// Kernels that run, e.g. `avx2: f16_panel16 + flash_q64_k256`.
    pub fn kernel_path(&self) -> String {
        let mut names: Vec<String> = vec![];
        for name in self.target.linears().map(|l| l.kernel_name()).chain([self.target.trunk.attention.kernel_name()]) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let device = match self.device.cuda() {
            Some(_) => self.device.name(),
            None => self.device.cpu().isa().name().into(),
        };
        format!("{device}: {}", names.join(" + "))
    }
}

fn check_context(checkpoint: &Checkpoint, tokens: usize) -> Result<(), EngineError> {
    let limit = checkpoint.architecture.context_limit();
    if tokens <= limit {
        return Ok(());
    }
    Err(EngineError::Mismatch(format!(
        "{}: the workloads need a context of {tokens} tokens, config.json allows max_position_embeddings {limit}; shorten the workload's window, prompt or generation",
        checkpoint.source
    )))
}

fn check_pair(target: &Checkpoint, draft: &Checkpoint) -> Result<(), EngineError> {
    let (t, d) = (target.architecture.vocab_size, draft.architecture.vocab_size);
    if t != d {
        return Err(EngineError::Mismatch(format!(
            "draft {} has vocabulary {d}, target {} has {t}; speculation needs one shared tokenizer",
            draft.source, target.source
        )));
    }
    if target.tokenizer.is_some() && draft.tokenizer.is_some() {
        let probe = "The tokenizers must agree, naïve café 1234.";
        if target.reader()?.encode(probe)? != draft.reader()?.encode(probe)? {
            return Err(EngineError::Mismatch(format!(
                "draft {} and target {} have different tokenizers; speculation needs one shared tokenizer",
                draft.source, target.source
            )));
        }
    }
    Ok(())
}

/// The format of matrices that a quantizer leaves alone (head, draft): 16 bit, as the papers do.
pub(crate) fn plain_format(spec: &WeightsSpec) -> WeightsSpec {
    match spec {
        WeightsSpec::F32 => WeightsSpec::F32,
        WeightsSpec::Bf16 => WeightsSpec::Bf16,
        WeightsSpec::Stored => WeightsSpec::Stored,
        WeightsSpec::StoredInt8 => WeightsSpec::StoredInt8,
        _ => WeightsSpec::F16,
    }
}

/// The calibration windows that `spec` makes do with, spread over `all`.
pub(crate) fn windows_used<'w>(
    spec: &WeightsSpec,
    all: &'w [Vec<TokenId>],
) -> impl Iterator<Item = &'w Vec<TokenId>> + use<'w> {
    let used = spec.calibration_windows().unwrap_or(all.len()).min(all.len());
    (0..used).map(move |i| &all[i * all.len() / used])
}

/// Builds the transformer of one checkpoint, calibrating and quantizing layer by layer where the weights ask for it.
pub fn build_transformer(
    spec: &EngineSpec,
    checkpoint: &Checkpoint,
    device: &Device,
    options: BuildOptions<'_>,
) -> Result<Transformer, EngineError> {
    let (a, tensors) = (&checkpoint.architecture, &*checkpoint.tensors);
    let form = match (spec.kv.is_latent(), a.latent) {
        (true, None) => {
            let reason = format!("family `{}` has no latent attention; use a contiguous cache", a.family);
            return Err(Unsupported { axis: "kv", variant: spec.kv.tag(), reason }.into());
        }
        (true, Some(_)) => LatentForm::Absorbed,
        (false, _) => LatentForm::Expanded,
    };
    refuse_without_kernels(a, device)?;
    // a layer's codes are chosen, and its inputs seen, in host memory; then it moves to where it computes
    let host = device.host();
    let trunk_on = |device: &Device| {
        let attention = spec.attention.build(device)?;
        Ok::<_, EngineError>(Trunk::new(a.clone(), device.clone(), attention).with_latent_form(form))
    };
    let trunk = trunk_on(&host)?;
    if checkpoint.beside().is_some() && spec.weights.equaliser().is_some() {
        return Err(EngineError::Mismatch(format!(
            "weights `{}` divide what the adapter reads; use merge = true",
            spec.weights.tag()
        )));
    }
    let (entry, exit) = read_ends(a, tensors)?;
    let mut samples = vec![];
    if spec.weights.needs_calibration() {
        if options.calibration.is_empty() {
            return Err(EngineError::Mismatch(format!(
                "weights `{}` need a calibration text: set [calibration] in the scenario",
                spec.weights.tag()
            )));
        }
        for window in windows_used(&spec.weights, options.calibration) {
            let mut x = Activations::default();
            entry.embed(&trunk, &Step::extend(SeqId(0), 0, window), &mut x);
            samples.push(x);
        }
    }
    let mut blocks = vec![];
    for layer in 0..a.n_layers {
        (options.progress)(layer, a.n_layers);
        let (vectors, matrices) = read_layer(a, tensors, layer)?;
        let prepared = prepare_layer(&trunk, &spec.weights, layer, vectors, matrices, &samples)?;
        let mut linears = prepared.build(&spec.weights, &host)?;
        if let Some(adapter) = checkpoint.beside() {
            linears = adapter.attach((a, tensors), layer, &host, linears)?;
        }
        let block = Block::new(&trunk, prepared.vectors, linears);
        for x in &mut samples {
            run_layer(&trunk, layer, &block, x, None)?;
        }
        blocks.push(match device.cuda() {
            None => block,
            Some(_) => block.try_map(layer, &mut |slot, linear| place(spec, device, slot.name, linear))?,
        });
    }
    let head = linear(&plain_format(&spec.weights), &host, "head", &exit.head, None)?;
    let head = place(spec, device, "head", head)?;
    (options.progress)(a.n_layers, a.n_layers);
    let trunk = if device.cuda().is_some() { trunk_on(device)? } else { trunk };
    Ok(Transformer { trunk, entry, blocks, exit: exit.with_head(head) })
}

/// `linear` where `device` computes.
fn place(
    spec: &EngineSpec,
    device: &Device,
    slot: &str,
    linear: Box<dyn Linear>,
) -> Result<Box<dyn Linear>, EngineError> {
    let Some(cuda) = device.cuda() else { return Ok(linear) };
    linear.on_cuda(cuda).map_err(|e| match e {
        PlacementError::NoKernel(_) => {
            Unsupported { axis: "weights", variant: spec.weights.tag(), reason: format!("{slot}: {e}") }.into()
        }
        PlacementError::Gpu(e) => EngineError::Gpu(e),
    })
}

/// Refuses models that need what no kernel of `device` computes.
fn refuse_without_kernels(a: &Architecture, device: &Device) -> Result<(), Unsupported> {
    if device.cuda().is_none() {
        return Ok(());
    }
    let missing = [
        (a.latent.is_some(), "latent attention"),
        (a.experts.is_some(), "a mixture of experts"),
        (a.shared_keys.is_some(), "collaborative attention"),
        (a.online_hadamard, "online Hadamard transforms"),
        (matches!(a.positions, Positions::Alibi(_)), "scores that fall with distance (ALiBi)"),
        (a.clip_qkv.is_some(), "clipped queries, keys and values"),
        (matches!(a.activation, Activation::ReluSquared | Activation::QuickGelu), "the activation relu2 or quick_gelu"),
        (a.embedding_dim != a.hidden, "an embedding of another width than the residual stream"),
    ];
    match missing.iter().find(|(has, _)| *has) {
        None => Ok(()),
        Some((_, what)) => Err(Unsupported {
            axis: "device",
            variant: device.name(),
            reason: format!("family `{}` has {what}, which has no kernel on a GPU; use a cpu device", a.family),
        }),
    }
}
