//! A cell of another engine, held by a worker: workloads become asks, answers become the events ours would emit.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use model::block::LatentForm;
use model::{Activations, Device, HeadShape, SeqId, Session, Step, StepModel};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use results::trace::{Event, Roof, Trace, Work};
use weights::WeightsSpec;

use super::adapter::{Adapter, AdapterError, Ask, Patience};
use super::export::{ModelShape, raw_tensors};
use super::logits::{compare, limits};
use super::{ExternalEngine, ExternalPart, OWN_FILE, best_isa};
use crate::cell::{Cell, ResolvedScenario};
use crate::protocol::{Build, CellChecks, Reply};
use crate::scenario::{GpuProblem, Workload};
use crate::stopwatch::Stopwatch;
use crate::worker::sweep::{CHECKED_LENGTH, Mode, Problem};
use crate::worker::{Models, Outcome, build_engine, dequantised, open_models};

const SEQ: SeqId = SeqId(0);
/// Logits kept to compare with after timing.
const SAMPLE: usize = 256;
/// Prompt of the comparison of logits, tokens.
const CHECK_TOKENS: usize = 24;
/// What a worker holds instead of an engine of ours.
pub struct HeldExternal {
    resolved: ResolvedScenario,
    cell: Cell,
    part: ExternalPart,
    adapter: Adapter,
    models: Option<(Models, ModelShape)>,
    device: Device,
    scratch: PathBuf,
    /// The machine's roofs, as far as the run has measured them.
    pub roof: Option<Roof>,
    /// Least work of a pass over each file of q, k, v.
    least: HashMap<PathBuf, Work>,
    peak_rss: u64,
}

impl HeldExternal {
    /// The external part of the first cell that `build` asks for.
    pub fn wanted(build: &Build) -> Result<Option<ExternalPart>> {
        let resolved = ResolvedScenario::parse(&build.scenario, build.file.as_deref())?;
        let first = resolved.cells.iter().find(|c| build.cells.first() == Some(&c.id));
        Ok(first.and_then(|c| c.external.clone()))
    }

    /// Starts the engine of `part` and gives it the scenario's weights; a reply without a cell says why not.
    pub fn build(build: Build, part: ExternalPart) -> Result<(Option<HeldExternal>, Reply)> {
        match HeldExternal::start(build, part) {
            Ok((held, reply)) => Ok((Some(held), reply)),
            Err(error) => match error.downcast::<AdapterError>()? {
                AdapterError::Refused(reason) => Ok((None, Reply::Refused { reason })),
                failed => Err(failed.into()),
            },
        }
    }

    fn start(build: Build, part: ExternalPart) -> Result<(HeldExternal, Reply)> {
        let clock = Stopwatch::start();
        let resolved = ResolvedScenario::parse(&build.scenario, build.file.as_deref())?;
        let cell = resolved
            .cells
            .iter()
            .find(|c| build.cells.first() == Some(&c.id))
            .cloned()
            .context("the scenario has no such cell")?;
        let scratch = build.scratch.context("the runner gave no folder for the files of another engine")?;
        std::fs::create_dir_all(&scratch).with_context(|| format!("{}: cannot make it", scratch.display()))?;
        let python = build.python.unwrap_or_else(|| "python3".into());
        let mut adapter = Adapter::start(part.engine, &python, Patience::default())?;
        let models = match open_models(&resolved, cell.model.as_ref())? {
            Some(models) => {
                let a = &models.target.architecture;
                let shape = if part.weights == OWN_FILE { ModelShape::of_file(a) } else { ModelShape::of(a) };
                let shape = shape.map_err(AdapterError::Refused)?;
                Some((models, shape))
            }
            None => None,
        };
        let mut gguf = None;
        if let (ExternalEngine::LlamaCpp, Some((models, shape))) = (part.engine, &models) {
            gguf = Some(match part.weights.as_str() {
                OWN_FILE => own_file(models)?,
                _ => convert(&mut adapter, (&cell.axes.model, models), shape, &part, &scratch)?,
            });
        }
        let load = Ask::Load {
            threads: build.threads,
            attention: &part.attention,
            kv: &part.kv,
            gguf: gguf.as_deref(),
            context_tokens: resolved.context_tokens().max(CHECK_TOKENS + 1),
            sequences: resolved.scenario.workloads.iter().map(Workload::sequences).max().unwrap_or(1),
        };
        let (kernels, load_ns) = match adapter.ask(&load)? {
            super::adapter::Answer::Loaded { kernels, ns } => (kernels, ns),
            other => bail!("unexpected answer {other:?}"),
        };
        let kernel_path = format!("{} {}: {kernels}", part.engine.name(), adapter.version);
        let mut facts = vec![("engine".to_string(), part.engine.name().to_string())];
        facts.push(("engine_version".into(), adapter.version.clone()));
        facts.extend(adapter.facts.iter().map(|(key, value)| (format!("engine_{key}"), value.clone())));
        let device = cell.spec.device.open(1)?;
        let held = HeldExternal {
            resolved,
            cell,
            part,
            adapter,
            models,
            device,
            scratch,
            roof: build.roof,
            least: HashMap::new(),
            peak_rss: 0,
        };
        // the interpreter, the conversion and the trial are no part of loading a model
        let duration_ns = if load_ns > 0 { load_ns } else { clock.ns() };
        let trace = held.trace("load", 0, vec![Event::Load { duration_ns }]);
        Ok((held, Reply::Built { kernel_path, isa: best_isa(), trace, facts }))
    }

    fn trace(&self, workload: &str, repetition: u32, events: Vec<Event>) -> Trace {
        Trace { cell: self.cell.id.clone(), workload: workload.into(), repetition, events, roof: self.roof }
    }

    /// Removes the files made for the other engine, which outlive a runner that was killed.
    pub fn abandon(self) {
        let scratch = self.scratch.clone();
        drop(self);
        // nothing that could be done about a failure, and nobody to tell
        let _ = std::fs::remove_dir_all(scratch);
    }

    /// Logits against our engine with the same weights and naive attention. Attention alone is checked in its workload.
    pub fn verify(&mut self) -> Result<Reply> {
        let (mut events, mut sample) = (vec![], vec![]);
        if self.models.is_some() && self.part.engine == ExternalEngine::LlamaCpp {
            let theirs = self.logits()?;
            let tokens = self.check_tokens()?;
            let (models, shape) = self.models.as_ref().context("a model")?;
            let device = self.cell.spec.device.open(1)?;
            let engine = build_engine(&self.resolved, models, &self.cell.spec, &device)?;
            let ids: Vec<model::TokenId> = tokens.iter().map(|&t| model::TokenId(t)).collect();
            let ours = engine.session()?.forward(&Step::extend(SEQ, 0, &ids).with_all_logits())?.clone();
            let vocab = shape.head_values() / models.target.architecture.hidden;
            let plain = self.part.attention == "plain" && self.part.weights == "f32" && self.part.kv == "f32";
            let unrounded = if self.part.codes_inputs() {
                let plain =
                    dequantised(&engine, models, engine.device.clone(), &engine.spec.attention, LatentForm::default())?;
                let kv = engine.spec.kv.build(plain.kv_shape(), ids.len(), &engine.device)?;
                Session::new(plain, kv).forward(&Step::extend(SEQ, 0, &ids).with_all_logits())?.clone()
            } else {
                ours.clone()
            };
            let n = ours.as_slice().len();
            if theirs.len() != n + vocab {
                bail!("{} gave {} logits instead of {}", self.part.engine.name(), theirs.len(), n + vocab);
            }
            let reference = unrounded.as_slice();
            let own = compare(reference, ours.as_slice(), vocab);
            for (name, a, b) in [
                ("external_decode", &theirs[..n], reference),
                ("external_prefill", &theirs[n..], &reference[n - vocab..]),
            ] {
                if plain {
                    let largest = b.iter().map(|v| f64::from(v.abs())).fold(1e-30, f64::max);
                    let limit = self.resolved.scenario.expect.logit_tolerance * largest;
                    let value = difference(a, b);
                    events.push(Event::Check {
                        name: format!("{name}_logits_vs_ours"),
                        value,
                        limit,
                        passed: value <= limit,
                    });
                    continue;
                }
                for (what, value, limit) in limits(&compare(b, a, vocab), &own) {
                    let name = format!("{name}_{what}_vs_ours");
                    events.push(Event::Check { name, value, limit, passed: value <= limit });
                }
            }
            sample = sampled(&theirs[n..]);
        }
        let trace = self.trace("verify", 0, events);
        Ok(Reply::Verified { checks: vec![CellChecks { cell: self.cell.id.clone(), trace }], sample })
    }

    /// The same prompt again: the sample must not have moved.
    pub fn verify_again(&mut self, sample: &[f32]) -> Result<Reply> {
        let mut events = vec![];
        if !sample.is_empty() {
            let theirs = self.logits()?;
            let vocab = theirs.len() / (CHECK_TOKENS + 1);
            let again = sampled(&theirs[theirs.len() - vocab..]);
            let value = if again.len() == sample.len() { difference(&again, sample) } else { f64::INFINITY };
            let limit = 1e-6 * sample.iter().map(|v| f64::from(v.abs())).fold(1e-30, f64::max);
            events.push(Event::Check { name: "logits_after_timing".into(), value, limit, passed: value <= limit });
        }
        Ok(Reply::Trace { trace: self.trace("verify-again", 0, events), facts: vec![] })
    }

    /// One repetition of workload number `index`.
    pub fn run(&mut self, index: usize, repetition: u32) -> Result<Reply> {
        let workload = self.resolved.scenario.workloads.get(index).context("no such workload")?.clone();
        let outcome = match (&workload, self.part.engine) {
            (Workload::Prefill { tokens }, ExternalEngine::LlamaCpp) => self.prefill(tokens),
            (Workload::Decode { tokens, context, sequences }, ExternalEngine::LlamaCpp) => {
                self.decode(*tokens, *context, *sequences)
            }
            (
                Workload::AttentionSweep { lengths, heads, kv_heads, head_dim, full, decode, batch: 1, .. },
                ExternalEngine::PyTorch,
            ) => {
                let shape = HeadShape::new(*heads, *kv_heads, *head_dim);
                self.attention(lengths, &shape, Mode::asked(*decode, *full), repetition)
            }
            (Workload::GpuKernels { problems, .. }, ExternalEngine::PyTorch | ExternalEngine::Triton) => {
                self.gpu(problems)
            }
            (other, engine) => Ok(Outcome::Refused(super::refusal(engine, other).unwrap_or_default())),
        };
        Ok(match outcome {
            Ok(Outcome::Ran { events, facts }) => {
                Reply::Trace { trace: self.trace(&workload.name(), repetition, events), facts }
            }

            Ok(Outcome::Refused(reason)) => Reply::Refused { reason },
            Err(error) => match error.downcast::<AdapterError>()? {
                AdapterError::Refused(reason) => Reply::Refused { reason },
                failed => return Err(failed.into()),
            },
        })
    }

    fn shape(&self) -> Result<&ModelShape> {
        Ok(&self.models.as_ref().context("this workload needs a [model]")?.1)
    }

    fn prefill(&mut self, lengths: &[usize]) -> Result<Outcome> {
        let mut events = vec![];
        for &n in lengths {
            let tokens = self.tokens(n)?;
            let (duration_ns, _, rss) = self.adapter.timed(&Ask::Prefill { tokens: &tokens })?;
            self.peak_rss = rss;
            let work = self.work(n, 0, 1)?;
            events.push(Event::Prefill { n_tokens: n as u32, context: 0, duration_ns, work });
        }
        events.push(self.memory()?);
        Ok(events.into())
    }

    fn decode(&mut self, new_tokens: usize, context: usize, sequences: usize) -> Result<Outcome> {
        let tokens = self.tokens(context.max(1) * sequences)?;
        let (duration_ns, _, rss) = self.adapter.timed(&Ask::Decode { tokens: &tokens, new_tokens, sequences })?;
        self.peak_rss = rss;
        let mut work = Work::default();
        for i in 0..new_tokens {
            let one = self.work(1, context + i, 1)?;
            // sequences share one reading of the weights, as for ours
            let n = sequences as u64;
            let weights = self.weight_bytes(self.shape()?);
            work.bytes += n * one.bytes - (n - 1) * weights;
            work.flops += n * one.flops;
            work.int8_ops += n * one.int8_ops;
        }
        let (n_tokens, context) = ((new_tokens * sequences) as u32, context as u32);
        Ok(vec![Event::Decode { n_tokens, context, duration_ns, work }, self.memory()?].into())
    }

    /// Least work of a pass, counted as for ours.
    fn work(&self, rows: usize, context: usize, logit_rows: usize) -> Result<Work> {
        let shape = self.shape()?;
        let pairs = rows * context + rows * (rows + 1) / 2;
        let layers = 2 * shape.layer_values() * rows;
        let rest = 2 * shape.head_values() * logit_rows + pairs * shape.pair_flops();
        let coded = self.part.codes_inputs();
        let (flops, int8_ops) = if coded { (rest, layers as u64) } else { (rest + layers, 0) };
        let kv_bytes = if self.part.kv == "f16" { 2 } else { 4 };
        let bytes = self.weight_bytes(shape) + (kv_bytes * shape.kv_values() * (context + rows)) as u64;
        Ok(Work { bytes, flops: flops as u64, int8_ops })
    }

    /// Bytes of all matrices that a pass reads.
    fn weight_bytes(&self, shape: &ModelShape) -> u64 {
        let own = self.models.as_ref().filter(|_| self.part.weights == OWN_FILE).and_then(|m| m.0.target.own_gguf());
        if let Some(length) = own.and_then(|file| std::fs::metadata(file).ok()).map(|file| file.len()) {
            return length;
        }
        let weights = self.part.same_weights();
        let head = if weights == WeightsSpec::F32 { 32.0 } else { 16.0 };
        let bits = weights.bits_per_weight() * shape.layer_values() as f64 + head * shape.head_values() as f64;
        (bits / 8.0) as u64
    }

    fn memory(&self) -> Result<Event> {
        let shape = self.shape()?;
        Ok(Event::Memory {
            weights_bytes: self.weight_bytes(shape),
            kv_logical_bytes: 0,
            kv_resident_bytes: 0,
            peak_rss_bytes: self.peak_rss,
        })
    }

    /// Uniform random tokens, the ones our cells read.
    fn tokens(&self, n: usize) -> Result<Vec<u32>> {
        let (models, _) = self.models.as_ref().context("this workload needs a [model]")?;
        let vocab = models.target.architecture.vocab_size as u32;
        let mut rng = ChaCha8Rng::seed_from_u64(self.resolved.scenario.seed);
        Ok((0..n).map(|_| rng.random_range(0..vocab)).collect())
    }

    fn check_tokens(&self) -> Result<Vec<u32>> {
        self.tokens(CHECK_TOKENS)
    }

    /// Rows of the check prompt one by one, then its last row computed in one batch.
    fn logits(&mut self) -> Result<Vec<f32>> {
        let tokens = self.check_tokens()?;
        let output = self.file("logits.f32");
        self.adapter.done(&Ask::Logits { tokens: &tokens, output: &output })?;
        read_floats(&output)
    }

    fn attention(&mut self, lengths: &[usize], shape: &HeadShape, modes: &[Mode], repetition: u32) -> Result<Outcome> {
        let mut events = vec![];
        for &mode in modes.iter().filter(|_| repetition == 0) {
            let n = CHECKED_LENGTH;
            let problem = self.problem(shape, n, mode)?;
            let output = self.file("attention-out.f32");
            self.ask_attention(shape, n, mode, Some(&output))?;
            let (rows, cols) = (problem.q.rows(), problem.q.cols());
            let values = read_floats(&output)?;
            if values.len() != rows * cols {
                bail!("{} gave {} values instead of {}", self.part.engine.name(), values.len(), rows * cols);
            }
            events.extend(problem.check(shape, mode, &Activations::from_vec(rows, cols, values), 1e-5));
        }
        for &n in lengths {
            for &mode in modes {
                if !self.least.contains_key(&self.problem_file(shape, n, mode)) {
                    self.problem(shape, n, mode)?;
                }
                let (ns, calls) = self.ask_attention(shape, n, mode, None)?;
                let least = self.least[&self.problem_file(shape, n, mode)];
                let value = ns as f64 / calls.max(1) as f64 / 1e6;
                events.push(Event::Value { name: format!("{}_ms", mode.name()), x: n as f64, value });
                events.push(Event::Kernel {
                    op: mode.name().into(),
                    rung: format!("{} {}", self.part.engine.name(), self.part.attention),
                    shape: format!("n{n} h{}/{} d{}", shape.n_heads, shape.groups(), shape.key_dim),
                    calls,
                    duration_ns: ns,
                    work: Work { bytes: calls * least.bytes, flops: calls * least.flops, int8_ops: 0 },
                });
            }
        }
        Ok(events.into())
    }

    /// The problems that this engine has a counterpart of.
    fn gpu(&mut self, problems: &[GpuProblem]) -> Result<Outcome> {
        // the run's roofs are the processor's, and this worker measures none of the device's
        self.roof = None;
        let (mut events, mut facts) = (vec![], vec![]);
        let seed = self.resolved.scenario.seed;
        for problem in problems {
            for (cold, cache) in [(false, " warm"), (true, "")] {
                let ask = Ask::GpuKernel { problem, backend: &self.part.attention, seed, cold };
                let (duration_ns, calls, rss) = match self.adapter.timed(&ask) {
                    Ok(timed) => timed,
                    Err(AdapterError::Refused(reason)) => {
                        facts.push((format!("skipped: {} {}", problem.op(), problem.shape()), reason));
                        break;
                    }
                    Err(error) => return Err(error.into()),
                };
                self.peak_rss = rss;
                events.push(Event::Kernel {
                    op: format!("{}{cache}", problem.op()),
                    rung: format!("{} {}", self.part.engine.name(), self.part.attention),
                    shape: problem.shape(),
                    calls,
                    duration_ns,
                    work: Work {
                        bytes: if cold { calls * problem.bytes() } else { 0 },
                        flops: calls * problem.flops(),
                        int8_ops: 0,
                    },
                });
            }
        }
        match events.is_empty() {
            true => Ok(Outcome::Refused("the engine has a counterpart of no problem of this workload".into())),
            false => Ok(Outcome::Ran { events, facts }),
        }
    }

    fn problem_file(&self, shape: &HeadShape, n: usize, mode: Mode) -> PathBuf {
        let name = format!("{}-{n}-{}-{}-{}.f32", mode.name(), shape.n_heads, shape.n_key_heads, shape.key_dim);
        self.file(&name)
    }

    /// The q, k, v that our cells compute with, in a file.
    fn problem(&mut self, shape: &HeadShape, n: usize, mode: Mode) -> Result<Problem> {
        let source = (self.resolved.scenario.seed, &self.cell.spec.kv);
        let problem = Problem::random(&self.device, source, shape, n, mode, 1)?;
        let parts = [problem.q.as_slice(), problem.k.as_slice(), problem.v.as_slice()];
        let bytes: Vec<u8> = parts.iter().flat_map(|p| p.iter().flat_map(|v| v.to_le_bytes())).collect();
        let file = self.problem_file(shape, n, mode);
        std::fs::write(&file, bytes).with_context(|| format!("{}: cannot write q, k and v", file.display()))?;
        self.least.insert(file, problem.least_work(shape));
        Ok(problem)
    }

    fn ask_attention(&mut self, shape: &HeadShape, n: usize, mode: Mode, output: Option<&Path>) -> Result<(u64, u64)> {
        let file = self.problem_file(shape, n, mode);
        let (ns, calls, rss) = self.adapter.timed(&Ask::Attention {
            file: &file,
            rows: if mode == Mode::Decode { 1 } else { n },
            keys: n,
            heads: shape.n_heads,
            kv_heads: shape.n_key_heads,
            head_dim: shape.key_dim,
            causal: mode != Mode::Full,
            output,
        })?;
        self.peak_rss = rss;
        Ok((ns, calls))
    }

    /// A file of this worker alone.
    fn file(&self, name: &str) -> PathBuf {
        self.scratch.join(format!("{}-{name}", std::process::id()))
    }
}

/// The file that the model is.
fn own_file(models: &Models) -> Result<PathBuf, AdapterError> {
    models.target.own_gguf().map(Path::to_path_buf).ok_or_else(|| {
        let source = &models.target.source;
        AdapterError::Refused(format!(
            "weights `{OWN_FILE}` are those of a GGUF file, as it is, and {source} is none; name one with --set model.source=FILE.gguf (`infermark convert` writes one)"
        ))
    })
}

/// The weights as a GGUF file, made once per run.
fn convert(
    adapter: &mut Adapter,
    (model, models): (&str, &Models),
    shape: &ModelShape,
    part: &ExternalPart,
    scratch: &Path,
) -> Result<PathBuf> {
    let digest = blake3::hash(model.as_bytes()).to_hex();
    let gguf = scratch.join(format!("{}-{}.gguf", &digest[..12], part.weights));
    if gguf.is_file() {
        return Ok(gguf);
    }
    let raw = scratch.join("weights.raw");
    let unfinished = gguf.with_extension("part");
    let tensors = raw_tensors(&models.target, &raw)?;
    adapter.done(&Ask::Convert {
        raw: &raw,
        gguf: &unfinished,
        weights: &part.weights,
        model: shape,
        tensors: &tensors,
    })?;
    std::fs::rename(&unfinished, &gguf).with_context(|| format!("{}: cannot be named", gguf.display()))?;
    // gigabytes that nobody reads again
    let _ = std::fs::remove_file(&raw);
    Ok(gguf)
}

fn read_floats(file: &Path) -> Result<Vec<f32>> {
    let bytes = std::fs::read(file).with_context(|| format!("{}: the other engine wrote nothing", file.display()))?;
    let words = bytes.chunks_exact(4);
    if !words.remainder().is_empty() {
        bail!("{}: its size is not a multiple of 4", file.display());
    }
    Ok(words.map(|w| f32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect())
}

fn sampled(row: &[f32]) -> Vec<f32> {
    row.iter().step_by(row.len().div_ceil(SAMPLE).max(1)).copied().collect()
}

/// Largest |Δ|; NaN stays NaN.
fn difference(a: &[f32], b: &[f32]) -> f64 {
    let of = |(a, b): (&f32, &f32)| f64::from((a - b).abs());
    a.iter().zip(b).map(of).fold(0.0, |worst, d| if worst.is_nan() || d.is_nan() { f64::NAN } else { worst.max(d) })
}
