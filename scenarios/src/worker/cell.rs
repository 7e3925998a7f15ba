//! A cell held by a worker: its engine, and the workloads it can run.

use anyhow::{Context, Result, bail};
use cpu_kernels::Problem;
use engine::{BuildOptions, Checkpoint, Engine, ModelSource};
use model::{Device, TokenId};
use rand::{SeedableRng, rngs::ChaCha8Rng, seq::SliceRandom};
use results::trace::{Event, Roof, Trace};

use super::{counted, gpu, kernels, progress, score, sensitivity, sweep, task, timed};
use crate::cell::{Cell, ResolvedScenario};
use crate::forecast;
use crate::library;
use crate::machine;
use crate::protocol::{Build, Reply};
use crate::scenario::{ModelPart, Scenario, Workload};
use crate::stopwatch::Stopwatch;
use crate::text;

/// Checkpoints of a scenario, opened.
pub struct Models {
    /// The target.
    pub target: Checkpoint,
    /// The draft.
    pub draft: Option<Checkpoint>,
}

/// What a worker holds after `build`.
pub struct Held {
    /// The scenario.
    pub resolved: ResolvedScenario,
    /// Cells of the group; the first is built.
    pub cells: Vec<Cell>,
    /// Where it computes.
    pub device: Device,
    /// Opened checkpoints; none in a scenario without a model.
    pub models: Option<Models>,
    /// The engine; none in a scenario without a model.
    pub engine: Option<Engine>,
    /// The reference cell's engine, when this worker scores against it.
    pub reference: Option<Engine>,
    /// What the last kernel workload ran on.
    pub problem: Option<Problem>,
    /// What GPU kernels have run on.
    pub gpu: Option<gpu::Benches>,
    /// Worker threads.
    pub threads: usize,
    /// The machine's roofs, as far as the run has measured them.
    pub roof: Option<Roof>,
    /// The GPU's own, once they were asked for; none where they could not be measured.
    pub gpu_roof: Option<Option<Roof>>,
}

impl Held {
    /// Builds what `build` asks for.
    pub fn build(build: Build) -> Result<(Held, Reply)> {
        let clock = Stopwatch::start();
        let resolved = ResolvedScenario::parse(&build.scenario, build.file.as_deref())?;
        let find = |id: &String| {
            resolved
                .cells
                .iter()
                .find(|c| c.id == *id)
                .cloned()
                .with_context(|| format!("the scenario has no cell `{id}`"))
        };
        let cells = build.cells.iter().map(find).collect::<Result<Vec<_>>>()?;
        let first = cells.first().context("no cell to build")?.clone();
        let device = first.spec.device.open(build.threads)?;
        let models = ready_models(&resolved, first.model.as_ref())?;
        let (mut engine, mut reference) = (None, None);
        if let Some(models) = &models {
            // any cell of the group may need the draft, so the engine is built for the one that does
            let spec = cells.iter().map(|c| &c.spec).find(|s| s.decoding.needs_draft()).unwrap_or(&first.spec);
            let mut built = build_engine(&resolved, models, spec, &device)?;
            built.spec = first.spec.clone();
            engine = Some(built);
            let reference_cell = resolved.reference();
            if build.with_reference && !same_forward(reference_cell, &first) {
                let device = reference_cell.spec.device.open(build.threads)?;
                reference = Some(build_reference(&resolved, models, &first, &device)?);
            }
        }
        let kernel_path = engine.as_ref().map_or_else(|| device.name(), Engine::kernel_path);
        let isa = device.cpu().isa().name().to_string();
        let held = Held {
            resolved,
            cells,
            device,
            models,
            engine,
            reference,
            problem: None,
            gpu: None,
            threads: build.threads,
            roof: build.roof,
            gpu_roof: None,
        };
        let trace = held.trace("load", 0, vec![Event::Load { duration_ns: clock.ns() }, held.memory(0, 0)]);
        let facts = held.facts();
        Ok((held, Reply::Built { kernel_path, isa, trace, facts }))
    }

    /// The scenario as written.
    pub fn scenario(&self) -> &Scenario {
        &self.resolved.scenario
    }

    /// A trace of the held cell.
    pub fn trace(&self, workload: &str, repetition: u32, events: Vec<Event>) -> Trace {
        Trace { cell: self.cells[0].id.clone(), workload: workload.into(), repetition, events, roof: self.roof }
    }

    /// Memory now, with what the caller saw of the KV cache.
    pub fn memory(&self, kv_logical: usize, kv_resident: usize) -> Event {
        Event::Memory {
            weights_bytes: self.engine.as_ref().map_or(0, Engine::weight_bytes),
            kv_logical_bytes: kv_logical as u64,
            kv_resident_bytes: kv_resident as u64,
            peak_rss_bytes: machine::peak_rss(),
        }
    }

    /// One repetition of workload number `index`.
    pub fn run(&mut self, index: usize, repetition: u32) -> Result<Reply> {
        let workload = self
            .scenario()
            .workloads
            .get(index)
            .with_context(|| format!("the scenario has no workload number {index}"))?
            .clone();
        let name = workload.name();
        if let Some(reason) = forecast::on_device(&self.cells[0].spec.device, &workload) {
            return Ok(Reply::Refused { reason: reason.into() });
        }
        let limits = self.roof_of_gpu(&workload);
        let events = match &workload {
            Workload::Perplexity { text, protocols, max_tokens } => {
                score::perplexity(self, text, protocols, *max_tokens)?
            }
            Workload::Task(part) => task::run(self, part)?,
            Workload::Passkey(part) => task::passkey(self, part)?,
            Workload::Prefill { tokens } => timed::prefill(self, tokens)?,
            Workload::Decode { tokens, context, sequences: 1 } => timed::decode(self, *tokens, *context, repetition)?,
            Workload::Decode { tokens, context, sequences } => {
                timed::decode_together(self, *tokens, *context, *sequences)?
            }
            Workload::Generate { text, prompts, prompt_tokens, new_tokens } => {
                timed::generate(self, text, *prompts, *prompt_tokens, *new_tokens)?
            }
            Workload::Kernels { kernels } => kernels::ladders(self, kernels, repetition)?,
            Workload::GpuKernels { problems, rungs } => gpu::ladders(self, problems, rungs, repetition)?,
            Workload::AttentionSweep {
                lengths,
                heads,
                kv_heads,
                head_dim,
                full,
                decode,
                batch,
                threads,
                projections,
            } => {
                let shape = model::HeadShape::new(*heads, *kv_heads, *head_dim);
                let modes = sweep::Mode::asked(*decode, *full);
                let sweep =
                    sweep::Sweep { lengths, shape: &shape, modes, batch: *batch, threads, projections: *projections };
                sweep::attention(self, &sweep, repetition)?
            }
            Workload::Sensitivity { text, measured_on, windows, window_tokens, candidates, budgets } => {
                let texts = [text.as_str(), measured_on.as_str()];
                let asked =
                    sensitivity::Asked { texts, windows: *windows, window_tokens: *window_tokens, candidates, budgets };
                sensitivity::run(self, &asked)?
            }
            Workload::KnownAnswer { units, .. } => counted::run(self, *units),
            Workload::Identity { check } => crate::claims::identity(check, self)?,
        };
        Ok(match events {
            Outcome::Ran { events, mut facts } => {
                facts.extend(limits);
                Reply::Trace { trace: self.trace(&name, repetition, events), facts }
            }
            Outcome::Refused(reason) => Reply::Refused { reason },
        })
    }

    /// On a GPU the run's roofs, which are the processor's, give way to its own. They are measured before the first workload that is timed
    /// and come back as facts; kernels measure them for themselves.
    fn roof_of_gpu(&mut self, workload: &Workload) -> Vec<(String, String)> {
        let Some(cuda) = self.device.cuda() else { return vec![] };
        self.roof = self.gpu_roof.flatten();
        let timed = matches!(workload, Workload::Prefill { .. } | Workload::Decode { .. } | Workload::Generate { .. });
        if self.gpu_roof.is_some() || !timed {
            return vec![];
        }
        let measured = gpu::roof::measure(cuda.gpu(), self.resolved.scenario.seed);
        self.roof = measured.as_ref().ok().copied();
        self.gpu_roof = Some(self.roof);
        match measured {
            Ok(roof) => gpu::roof::facts(&roof),
            // a model that fills the device leaves no room: speeds then stand without their limits
            Err(reason) => vec![("gpu_roof_missing".into(), reason.to_string())],
        }
    }

    /// Tokens of a text the scenario names.
    pub fn tokens_of(&self, name: &str) -> Result<Vec<TokenId>> {
        let models = self.models.as_ref().context("this workload reads text, so the scenario needs a [model]")?;
        let text = text::resolve(name, self.resolved.file.as_deref())?;
        Ok(models.target.encode(&text)?)
    }

    /// `n` tokens of `tokens` from `start` on as a prompt of their own, which begins as the tokenizer begins a text.
    pub fn prompt_of(&self, tokens: &[TokenId], start: usize, n: usize) -> Result<Vec<TokenId>> {
        let models = self.models.as_ref().context("a prompt is cut from text, so the scenario needs a [model]")?;
        let mut prompt = tokens[start..start + n].to_vec();
        if let (Some(begins), Some(first)) = (models.target.begins_with()?, prompt.first_mut()) {
            *first = begins;
        }
        Ok(prompt)
    }

    fn facts(&self) -> Vec<(String, String)> {
        let mut facts = vec![];
        if let Some(models) = &self.models {
            facts.push(("model".into(), models.target.source.to_string()));
            if !models.target.transforms.is_empty() {
                facts.push(("model_transforms".into(), library::json_of(&models.target.transforms)));
            }
            if let Some(attached) = &models.target.adapter {
                let how = if attached.merged { "merged" } else { "beside the weights" };
                let (name, sha256) = (attached.adapter.name(), attached.adapter.sha256());
                facts.push(("adapter".into(), format!("{name}, {how}, sha256 {sha256}")));
            }
            if let Some(draft) = &models.draft {
                facts.push(("draft".into(), draft.source.to_string()));
            }
            facts.extend(models.target.stored_codes().map(|codes| ("stored_codes".to_string(), codes)));
            // a model without a tokenizer reads no text
            if let Ok(beginning) = models.target.beginning() {
                facts.push(("beginning_of_text".into(), beginning));
            }
            facts.extend(models.target.facts.unasked().map(|wishes| ("generation_config".into(), wishes)));
        }
        facts
    }
}

/// What a workload came to.
pub enum Outcome {
    /// It ran.
    Ran {
        /// What happened.
        events: Vec<Event>,
        /// What it found out about the cell, as key and text.
        facts: Vec<(String, String)>,
    },
    /// It makes no sense for this cell, for this reason.
    Refused(String),
}

impl From<Vec<Event>> for Outcome {
    fn from(events: Vec<Event>) -> Outcome {
        Outcome::Ran { events, facts: vec![] }
    }
}

/// Whether two cells compute the same logits: they differ in decoding at most.
pub fn same_forward(a: &Cell, b: &Cell) -> bool {
    let same_model = a.model == b.model && a.external == b.external;
    let (a, b) = (&a.spec, &b.spec);
    same_model && (&a.attention, &a.weights, &a.kv, &a.device) == (&b.attention, &b.weights, &b.kv, &b.device)
}

/// Opens the checkpoints of a cell whose model is `part`, as they are before its transforms; none for an encoder-decoder
/// that only identities read, which open it themselves. Every other workload refuses it here.
pub fn open_models(resolved: &ResolvedScenario, part: Option<&ModelPart>) -> Result<Option<Models>> {
    let Some(part) = part else { return Ok(None) };
    let is_run = resolved.scenario.workloads.iter().any(Workload::needs_model);
    if !is_run && library::encoder_decoder(part, resolved.file.as_deref())?.is_some() {
        return Ok(None);
    }
    let open = |source: &str| -> Result<Checkpoint> {
        let source: ModelSource = library::model_source(source, resolved.file.as_deref())?;
        Ok(Checkpoint::open(&source, &library::models())?)
    };
    Ok(Some(Models {
        target: open(&part.source)?.with_bos(part.bos),
        draft: resolved.scenario.draft().map(open).transpose()?,
    }))
}

/// The same with the target changed as `part` says: what an engine is built from.
fn ready_models(resolved: &ResolvedScenario, part: Option<&ModelPart>) -> Result<Option<Models>> {
    let (Some(part), Some(models)) = (part, open_models(resolved, part)?) else { return Ok(None) };
    let target = library::adapted(models.target, part, resolved.file.as_deref())?;
    Ok(Some(Models { target: target.transformed(&part.transforms)?, draft: models.draft }))
}

/// The reference cell's engine, whose likelihoods those of `first` are compared with token by token.
fn build_reference(resolved: &ResolvedScenario, models: &Models, first: &Cell, device: &Device) -> Result<Engine> {
    let cell = resolved.reference();
    if cell.model == first.model {
        return build_engine(resolved, models, &cell.spec, device);
    }
    let own = ready_models(resolved, cell.model.as_ref())?.context("the reference cell has no model")?;
    if !own.target.reads_like(&models.target)? {
        bail!(
            "{} and the reference cell's {} cut text into different tokens, so their likelihoods cannot be compared token by token; give them scenarios of their own",
            models.target.source,
            own.target.source
        );
    }
    build_engine(resolved, &own, &cell.spec, device)
}

/// Builds the engine of `spec`, with progress.
pub fn build_engine(
    resolved: &ResolvedScenario,
    models: &Models,
    spec: &engine::EngineSpec,
    device: &Device,
) -> Result<Engine> {
    let calibration = if spec.weights.needs_calibration() { calibration_windows(resolved, models)? } else { vec![] };
    let tag = spec.weights.tag();
    let mut show = |done: usize, of: usize| progress(&format!("building {tag}"), done, of);
    let options =
        BuildOptions { context_tokens: resolved.context_tokens(), calibration: &calibration, progress: &mut show };
    Ok(Engine::build(spec, &models.target, models.draft.as_ref(), device, options)?)
}

/// Windows of the calibration text, drawn with its seed or evenly spaced; all disjoint ones when there are fewer than asked for.
pub fn calibration_windows(resolved: &ResolvedScenario, models: &Models) -> Result<Vec<Vec<TokenId>>> {
    let Some(calibration) = &resolved.scenario.calibration else { return Ok(vec![]) };
    let tokens = models.target.encode(&text::resolve(&calibration.text, resolved.file.as_deref())?)?;
    let mut windows = match calibration.seed {
        None => spread(&tokens, calibration.windows, calibration.window_tokens),
        Some(seed) => {
            let mut all = spread(&tokens, usize::MAX, calibration.window_tokens);
            all.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
            all.truncate(calibration.windows);
            all
        }
    };
    models.target.begin(&mut windows)?;
    Ok(windows)
}

/// Evenly spaced windows of `tokens`; all disjoint ones when there are fewer than `windows`.
pub fn spread(tokens: &[TokenId], windows: usize, window_tokens: usize) -> Vec<Vec<TokenId>> {
    let all: Vec<&[TokenId]> = tokens.chunks_exact(window_tokens).collect();
    let n = windows.min(all.len());
    (0..n).map(|i| all[i * all.len() / n].to_vec()).collect()
}
