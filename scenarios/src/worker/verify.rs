//! Correctness before anything is timed, and again after.
//!
//! The oracle of a cell is the same decoder with the cell's own weights, dequantised, and keys and values in its own encoding,
//! on scalar kernels with naive attention and one thread; where neither is rounded, for small models, also the f64 reference,
//! which shares no code.

use anyhow::{Context, Result};
use attention::AttentionSpec;
use cpu_kernels::{Cpu, Isa};
use decoding::{DecodingSpec, Sequence};
use engine::Engine;
use engine::adapter::Overlay;
use kv_cache::KvSpec;
use model::block::{Block, LatentForm, Trunk};
use model::checkpoint::Tensors;
use model::{Activations, Device, Linear, SeqId, Session, Step, StepModel, TokenId, Transformer, read_ends};
use results::trace::Event;
use weights::{WeightSource, WeightsSpec, build_linear};

use super::cell::{Held, Models};
use super::progress;
use crate::protocol::{CellChecks, Reply};

/// Logits kept to compare with after timing.
const SAMPLE: usize = 256;
/// Largest model that the f64 reference is run on.
const REFERENCE_PARAMETERS: u64 = 40_000_000;
/// Tokens it is run on.
const REFERENCE_TOKENS: usize = 24;
/// Products of inputs rounded to f32 values, relative to the largest: as close as f32 sums are.
const PRODUCT_TOLERANCE: f64 = 1e-4;

const SEQ: SeqId = SeqId(0);

/// Checks every cell of the group.
pub fn verify(held: &mut Held) -> Result<Reply> {
    let (Some(engine), Some(models)) = (&held.engine, &held.models) else {
        let checks = held
            .cells
            .iter()
            .map(|c| CellChecks { cell: c.id.clone(), trace: held.trace("verify", 0, vec![]) })
            .collect();
        return Ok(Reply::Verified { checks, sample: vec![] });
    };
    let prompt = check_prompt(held, models)?;
    progress("verifying", 0, 2);
    let (mut shared, sample) = check_forward(held, engine, models, &prompt)?;
    // where rows share a scale, a token among others is not that token alone
    if engine.target.linears().all(Linear::rows_are_independent) {
        shared.push(check_cache(engine, &prompt)?);
    }
    progress("verifying", 1, 2);
    let mut plain: Option<Vec<TokenId>> = None;
    let mut checks = vec![];
    for cell in &held.cells {
        let mut events = shared.clone();
        if cell.spec.decoding.keeps_greedy_tokens() && cell.spec.decoding != DecodingSpec::Greedy {
            let n = held.scenario().expect.lossless_tokens;
            if plain.is_none() {
                plain = Some(continuation(engine, &DecodingSpec::Greedy, &prompt, n)?);
            }
            let speculative = continuation(engine, &cell.spec.decoding, &prompt, n)?;
            let differing = plain.iter().flatten().zip(&speculative).filter(|(a, b)| a != b).count();
            let missing = n.abs_diff(speculative.len());
            events.push(check("lossless_tokens_differing", (differing + missing) as f64, 0.0));
        }
        let mut trace = held.trace("verify", 0, events);
        trace.cell = cell.id.clone();
        checks.push(CellChecks { cell: cell.id.clone(), trace });
    }
    Ok(Reply::Verified { checks, sample })
}

/// The same prompt again: the sample must not have moved.
pub fn verify_again(held: &Held, sample: &[f32]) -> Result<Reply> {
    let mut events = vec![];
    if let (Some(engine), Some(models)) = (&held.engine, &held.models) {
        let prompt = check_prompt(held, models)?;
        let again = sample_of(engine.session()?.forward(&Step::extend(SEQ, 0, &prompt))?.row(0));
        let worst = sample.iter().zip(&again).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
        let worst = if sample.len() == again.len() { worst } else { f64::INFINITY };
        events.push(check("logits_after_timing", worst, 1e-6 * magnitude(&again)));
    }
    Ok(Reply::Trace { trace: held.trace("verify-again", 0, events), facts: vec![] })
}

fn check(name: &str, value: f64, limit: f64) -> Event {
    // a NaN must fail
    Event::Check { name: name.into(), value, limit, passed: value <= limit }
}

/// Text where there is a tokenizer, a fixed pattern otherwise.
fn check_prompt(held: &Held, models: &Models) -> Result<Vec<TokenId>> {
    let n = held.scenario().expect.prompt_tokens.clamp(2, held.resolved.context_tokens());
    if models.target.tokenizer.is_some() {
        let tokens = held.tokens_of("embedded:calibration")?;
        if tokens.len() >= n {
            return Ok(tokens[..n].to_vec());
        }
    }
    let vocab = models.target.architecture.vocab_size;
    Ok((0..n).map(|i| TokenId((i * 7919 % vocab) as u32)).collect())
}

fn sample_of(row: &[f32]) -> Vec<f32> {
    row.iter().step_by(row.len().div_ceil(SAMPLE).max(1)).copied().collect()
}

fn magnitude(values: &[f32]) -> f64 {
    values.iter().map(|v| f64::from(v.abs())).fold(1e-30, f64::max)
}

/// All logits of the prompt against the oracle's.
///
/// Where inputs are rounded, a last bit before rounding can move a code by a whole step, and the next layers' codes with it:
/// logits then say nothing about kernels. There every product alone must be that of the scalar kernel on the same codes and
/// inputs, and everything around the products is compared with the weights dequantised and no input rounded.
fn check_forward(held: &Held, engine: &Engine, models: &Models, prompt: &[TokenId]) -> Result<(Vec<Event>, Vec<f32>)> {
    let step = Step::extend(SEQ, 0, prompt).with_all_logits();
    let logits = engine.session()?.forward(&step)?.clone();
    let scalar = Device::Cpu(std::sync::Arc::new(Cpu::new(Some(Isa::Scalar), 1)?));
    let mut events = vec![];
    let mut transformer = engine.target.clone();
    if transformer.linears().any(|linear| linear.on(&scalar).is_some()) {
        events.extend(check_products(engine, &scalar));
        let form = transformer.trunk.latent_form;
        transformer = dequantised(engine, models, engine.device.clone(), &engine.spec.attention, form)?;
    }
    let reference = dequantised(engine, models, scalar.clone(), &AttentionSpec::Naive, LatentForm::default())?;
    for (name, kv, allowed) in caches(engine) {
        let own = kv.build(transformer.kv_shape(), prompt.len(), &engine.device)?;
        let compared = Session::new(transformer.clone(), own).forward(&step)?.clone();
        let expected = oracle(reference.clone(), &kv, &scalar, prompt.len())?.forward(&step)?.clone();
        let worst = max_difference(compared.as_slice(), expected.as_slice());
        let tolerance = held.scenario().expect.logit_tolerance + allowed;
        events.push(check(name, worst, tolerance * magnitude(expected.as_slice())));
    }
    let architecture = engine.target.architecture();
    let exact = engine.spec.weights == WeightsSpec::F32 && engine.spec.kv.relative_error() == 0.0;
    if exact && architecture.parameters() <= REFERENCE_PARAMETERS {
        let n = prompt.len().min(REFERENCE_TOKENS);
        let tensors = &*models.target.tensors;
        let merged = models.target.beside().map(|adapter| Overlay::new(adapter, architecture, tensors)).transpose()?;
        let tensors = merged.as_ref().map_or(tensors, |merged| merged as &dyn Tensors);
        let exact = model::reference::logits(architecture, tensors, &prompt[..n])?;
        let pairs = exact.iter().enumerate().flat_map(|(row, r)| r.iter().zip(logits.row(row)));
        let worst = pairs.map(|(e, &l)| (e - f64::from(l)).abs()).fold(0.0, max_or_nan);
        events.push(check("logits_vs_f64_reference", worst, 1e-4_f64.max(1e-5 * magnitude(logits.as_slice()))));
    }
    Ok((events, sample_of(logits.row(prompt.len() - 1))))
}

/// Products that round their inputs against the scalar kernels on equal ones: int8 sums are exact, others of f32.
fn check_products(engine: &Engine, scalar: &Device) -> Vec<Event> {
    let (mut int8, mut other) = (None, None);
    for fast in engine.target.linears() {
        let Some(same) = fast.on(scalar) else { continue };
        // below what is multiplied in 16 bits, whose f32 sums depend on the instruction set
        let largest = fast.int8_inputs().map_or(f32::INFINITY, |inputs| inputs.exact_above).min(8.0) / 8.0;
        let (rows, cols) = (3, fast.in_features());
        let value = |i: usize| ((i * 7919 % 1009) as f32 / 504.5 - 1.0) * (1.0 + (i % 7) as f32) * largest;
        let x = Activations::from_vec(rows, cols, (0..rows * cols).map(value).collect());
        let (mut a, mut b) = (Activations::default(), Activations::default());
        fast.forward(&x, &mut a);
        same.forward(&x, &mut b);
        let difference = max_difference(a.as_slice(), b.as_slice());
        if fast.is_int8() {
            int8 = Some(max_or_nan(int8.unwrap_or(0.0), difference));
        } else {
            other = Some(max_or_nan(other.unwrap_or(0.0), difference / magnitude(b.as_slice())));
        }
    }
    let int8 = int8.map(|worst| check("int8_products_vs_scalar", worst, 0.0));
    int8.into_iter().chain(other.map(|worst| check("rounded_products_vs_scalar", worst, PRODUCT_TOLERANCE))).collect()
}

/// The prompt token by token against the prompt at once.
fn check_cache(engine: &Engine, prompt: &[TokenId]) -> Result<Event> {
    let whole = engine.session()?.forward(&Step::extend(SEQ, 0, prompt).with_all_logits())?.clone();
    let mut session = engine.session()?;
    let mut worst = 0.0;
    for (i, token) in prompt.iter().enumerate() {
        let logits = session.forward(&Step::extend(SEQ, i, &[*token]))?;
        worst = max_or_nan(worst, max_difference(logits.row(0), whole.row(i)));
    }
    Ok(check("cached_decode_vs_full_pass", worst, 1e-4))
}

fn max_difference(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, max_or_nan)
}

/// `f64::max` drops NaN; a check must not.
fn max_or_nan(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// `n` tokens after `prompt` by `decoding`.
fn continuation(engine: &Engine, decoding: &DecodingSpec, prompt: &[TokenId], n: usize) -> Result<Vec<TokenId>> {
    let draft = if decoding.needs_draft() { engine.draft_session()? } else { None };
    let boxed = |s: Session| Box::new(s) as Box<dyn StepModel>;
    let mut decoder = decoding.build(boxed(engine.session()?), draft.map(boxed))?;
    let mut sequence = Sequence::new(SEQ, prompt.to_vec(), n, vec![], 0)?;
    while sequence.finished().is_none() {
        decoder.advance(std::slice::from_mut(&mut sequence))?;
    }
    Ok(sequence.generated().to_vec())
}

/// The caches that the forward pass is compared through, each with what it may add to the tolerance.
///
/// Where entries are rounded, a last bit before rounding can move an entry by a whole step, as with inputs of products: everything is
/// compared through the same placement in f32 first, where nothing is rounded. Through the rounded entries a difference is then due to
/// steps alone: of the keys and of the values of each layer, independent of each other, so their number counts by its root.
fn caches(engine: &Engine) -> Vec<(&'static str, KvSpec, f64)> {
    const NAME: &str = "logits_vs_scalar_oracle";
    let kv = &engine.spec.kv;
    let step = f64::from(kv.relative_error());
    if step == 0.0 {
        return vec![(NAME, kv.clone(), 0.0)];
    }
    let steps = (2.0 * engine.target.architecture().n_layers as f64).sqrt();
    vec![(NAME, kv.exact(), 0.0), ("logits_with_rounded_cache", kv.clone(), steps * step)]
}

/// A session of `reference` whose cache rounds as `kv` does; where that keeps compressed vectors, it keeps the keys and values they
/// stand for.
fn oracle(reference: std::sync::Arc<Transformer>, kv: &KvSpec, scalar: &Device, context: usize) -> Result<Session> {
    let kv = if kv.is_latent() { KvSpec::default() } else { kv.plain() };
    let kv = kv.build(reference.kv_shape(), context, scalar).context("oracle cache")?;
    Ok(Session::new(reference, kv))
}

/// The engine's model with its weights dequantised, on `device`.
pub fn dequantised(
    engine: &Engine,
    models: &Models,
    device: Device,
    attention: &AttentionSpec,
    form: LatentForm,
) -> Result<std::sync::Arc<Transformer>> {
    let (a, tensors) = (engine.target.architecture(), &*models.target.tensors);
    let trunk = Trunk::new(a.clone(), device.clone(), attention.build(&device)?).with_latent_form(form);
    let plain = |linear: &dyn Linear| -> Result<Box<dyn Linear>> {
        let (rows, cols) = (linear.out_features(), linear.in_features());
        let values = linear.dequantised();
        Ok(build_linear(&WeightsSpec::F32, &device, WeightSource::F32(&values), rows, cols, None)?)
    };
    let mut blocks = vec![];
    for (layer, block) in engine.target.blocks.iter().enumerate() {
        let vectors = block.vectors().clone();
        let linears = block.linears.as_ref().try_map(layer, &mut |_, linear| plain(&**linear))?;
        blocks.push(Block::new(&trunk, vectors, linears));
    }
    let (entry, exit) = read_ends(a, tensors)?;
    let head = plain(&*engine.target.exit.head)?;
    Ok(std::sync::Arc::new(Transformer { trunk, entry, blocks, exit: exit.with_head(head) }))
}
