//! Correctness before anything is timed, and again after.
//!
//! The oracle of a cell is the same decoder with the cell's own weights, dequantised, on scalar kernels with naive
//! attention and one thread; for f32 weights of small models also the f64 reference, which shares no code.

use anyhow::{Context, Result};
use attention::AttentionSpec;
use cpu_kernels::{Cpu, Isa};
use decoding::{DecodingSpec, Sequence};
use engine::Engine;
use engine::adapter::Overlay;
use kv_cache::KvSpec;
use model::block::{Block, Trunk};
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
/// Activations that are rounded: a last-bit difference before rounding can move one code. Such steps are independent from layer
/// to layer and add in quadrature, so the whole model may differ by this times √layers for codes of 8 bits, and by more as the
/// steps are larger; each product alone must be exact (int8) or as close as f32 sums are (f32 sums of rounded inputs).
const INT8_LOOSENESS: f64 = 25.0;
/// Codes of 8 bits on each side of 0.
const INT8_LEVELS: f64 = 127.0;
/// Products of rounded inputs, relative to the largest.
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
fn check_forward(held: &Held, engine: &Engine, models: &Models, prompt: &[TokenId]) -> Result<(Vec<Event>, Vec<f32>)> {
    let step = Step::extend(SEQ, 0, prompt).with_all_logits();
    let mut session = engine.session()?;
    let logits = session.forward(&step)?.clone();
    let mut oracle = oracle(engine, models, prompt.len())?;
    let expected = oracle.forward(&step)?;
    let worst = max_difference(logits.as_slice(), expected.as_slice());
    let is_int8 = engine.target.linears().any(|l| l.is_int8());
    let coarsest =
        engine.target.linears().filter_map(|l| l.input_levels()).fold(f64::INFINITY, |m, l| m.min(f64::from(l)));
    let loose = INT8_LOOSENESS * INT8_LEVELS / coarsest * (engine.target.blocks.len() as f64).sqrt();
    let loose = if coarsest.is_finite() { loose } else { 1.0 };
    let limit = held.scenario().expect.logit_tolerance * loose * magnitude(expected.as_slice());
    let mut events = vec![check("logits_vs_scalar_oracle", worst, limit)];
    if is_int8 {
        let worst = product_difference(engine, &oracle.transformer, |l| l.is_int8());
        events.push(check("int8_products_vs_scalar", worst, 0.0));
    }
    let rounds = |l: &dyn Linear| l.input_levels().is_some() && !l.is_int8();
    if engine.target.linears().any(rounds) {
        let worst = product_difference(engine, &oracle.transformer, rounds);
        events.push(check("rounded_products_vs_scalar", worst, PRODUCT_TOLERANCE));
    }
    let architecture = engine.target.architecture();
    if engine.spec.weights == WeightsSpec::F32 && architecture.parameters() <= REFERENCE_PARAMETERS {
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

/// Largest difference between some products of the engine and of the oracle on equal inputs, relative to the largest product.
fn product_difference(engine: &Engine, oracle: &Transformer, which: impl Fn(&dyn Linear) -> bool) -> f64 {
    let mut worst = 0.0;
    for (fast, scalar) in engine.target.linears().zip(oracle.linears()).filter(|(fast, _)| which(*fast)) {
        let (rows, cols) = (3, fast.in_features());
        let values =
            (0..rows * cols).map(|i| ((i * 7919 % 1009) as f32 / 504.5 - 1.0) * (1.0 + (i % 7) as f32)).collect();
        let x = Activations::from_vec(rows, cols, values);
        let (mut a, mut b) = (Activations::default(), Activations::default());
        fast.forward(&x, &mut a);
        scalar.forward(&x, &mut b);
        worst = max_or_nan(worst, max_difference(a.as_slice(), b.as_slice()) / magnitude(b.as_slice()));
    }
    worst
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

/// A session with the engine's weights, dequantised, on scalar kernels.
fn oracle(engine: &Engine, models: &Models, context: usize) -> Result<Session> {
    let device = Device::Cpu(std::sync::Arc::new(Cpu::new(Some(Isa::Scalar), 1)?));
    let (a, tensors) = (engine.target.architecture(), &*models.target.tensors);
    let trunk = Trunk::new(a.clone(), device.clone(), AttentionSpec::Naive.build(&device)?);
    let plain = |linear: &dyn Linear| -> Result<Box<dyn Linear>> {
        let (rows, cols) = (linear.out_features(), linear.in_features());
        // what rounds its activations too has the scalar kernel on the same codes for an oracle
        match linear.on(&device) {
            Some(same) => Ok(same),
            None => {
                let values = linear.dequantised();
                Ok(build_linear(&WeightsSpec::F32, &device, WeightSource::F32(&values), rows, cols, None)?)
            }
        }
    };
    let mut blocks = vec![];
    for (layer, block) in engine.target.blocks.iter().enumerate() {
        let vectors = block.vectors().clone();
        let linears = block.linears.as_ref().try_map(layer, &mut |_, linear| plain(&**linear))?;
        blocks.push(Block::new(&trunk, vectors, linears));
    }
    let (entry, exit) = read_ends(a, tensors)?;
    let head = plain(&*engine.target.exit.head)?;
    let transformer = Transformer { trunk, entry, blocks, exit: exit.with_head(head) };
    let kv = KvSpec::default().build(transformer.kv_shape(), context, &device).context("oracle cache")?;
    Ok(Session::new(std::sync::Arc::new(transformer), kv))
}
