//! Multi-head latent attention: two forms of one function, and what each keeps in the cache.

use std::sync::Arc;

use anyhow::{Context, Result};
use kv_cache::KvSpec;
use model::block::{Block, LatentForm, Trunk, read_layer};
use model::{Activations, KvShape, Linear, Session, Step, StepModel, TokenId, Transformer, read_ends};
use weights::{WeightSource, WeightsSpec, build_linear};

use super::{SEQ, at, engine, largest_difference, value};
use crate::worker::{Held, Models, Outcome};

/// Tokens read at once, and further ones read one by one.
const PROMPT: usize = 40;
const SINGLE: usize = 8;

/// Largest |Δlogit| between the absorbed and the expanded form: `prefill_difference` and `decode_difference`; values that a cached
/// token holds per layer in each form, and how far the absorbed form's are from d_c + d_R.
pub fn absorbed(held: &Held) -> Result<Outcome> {
    let engine = match engine(held) {
        Ok(engine) => engine,
        Err(refused) => return Ok(refused),
    };
    let Some(models) = &held.models else { return Ok(Outcome::Refused("no model is open".into())) };
    let Some(latent) = engine.target.architecture().latent else {
        return Ok(Outcome::Refused("the model has no latent attention".into()));
    };
    let vocab = engine.target.architecture().vocab_size;
    let tokens: Vec<TokenId> = (0..PROMPT + SINGLE).map(|i| TokenId((i * 7919 % vocab) as u32)).collect();
    let mut expanded = session(held, models, LatentForm::Expanded)?;
    let mut absorbed = session(held, models, LatentForm::Absorbed)?;
    let prompt = Step::extend(SEQ, 0, &tokens[..PROMPT]).with_all_logits();
    let prefill = difference(expanded.forward(&prompt)?, absorbed.forward(&prompt)?);
    let mut decode = 0.0f64;
    for (row, token) in tokens.iter().enumerate().skip(PROMPT) {
        let step = Step::extend(SEQ, row, &[*token]);
        decode = decode.max(difference(expanded.forward(&step)?, absorbed.forward(&step)?));
    }
    let values = |session: &Session| at(session.kv.entry_bytes()) / at(size_of::<f32>());
    let promised = at(latent.kv_rank + latent.rope_dim);
    Ok(vec![
        value("prefill_difference", at(PROMPT), prefill),
        value("decode_difference", at(SINGLE), decode),
        value("absorbed_values_per_token", 0.0, values(&absorbed)),
        value("expanded_values_per_token", 0.0, values(&expanded)),
        value("values_mismatch", 0.0, (values(&absorbed) - promised).abs()),
    ]
    .into())
}

/// Bytes that decoding reads per cached token and layer at the sizes of DeepSeek-V2 (128 heads of 128, d_c = 512, d_R = 64): latent
/// cache over multi-head cache, both as built, and its distance from 576/32768.
pub fn cache(held: &Held) -> Result<Outcome> {
    const HEADS: usize = 128;
    const HEAD_DIM: usize = 128;
    const RANK: usize = 512;
    const ROTARY: usize = 64;
    let bytes = |shape: KvShape| -> Result<f64> {
        Ok(at(KvSpec::default().build(shape, 16, &held.device).context("cache")?.entry_bytes()))
    };
    let latent = bytes(KvShape::latent(1, RANK + ROTARY, RANK))?;
    let heads = bytes(KvShape::new(1, HEADS, HEAD_DIM))?;
    let promised = at(RANK + ROTARY) / at(2 * HEADS * HEAD_DIM);
    Ok(vec![
        value("latent_over_heads", 0.0, latent / heads),
        value("latent_over_heads_mismatch", 0.0, (latent / heads - promised).abs()),
    ]
    .into())
}

fn difference(a: &Activations, b: &Activations) -> f64 {
    largest_difference(a.as_slice().iter().zip(b.as_slice()).map(|(a, b)| (f64::from(*a), f64::from(*b))))
}

/// The cell's model in f32 with latent attention in `form`.
fn session(held: &Held, models: &Models, form: LatentForm) -> Result<Session> {
    let (a, tensors, device) = (&models.target.architecture, &*models.target.tensors, &held.device);
    let attention = held.cells[0].spec.attention.build(device)?;
    let trunk = Trunk::new(a.clone(), device.clone(), attention).with_latent_form(form);
    let linear = |m: &model::block::Matrix| -> Result<Box<dyn Linear>> {
        Ok(build_linear(&WeightsSpec::F32, device, WeightSource::F32(&m.to_f32()), m.rows, m.cols, None)?)
    };
    let mut blocks = vec![];
    for layer in 0..a.n_layers {
        let (vectors, matrices) = read_layer(a, tensors, layer)?;
        blocks.push(Block::new(&trunk, vectors, matrices.try_map(layer, &mut |_, m| linear(&m))?));
    }
    let (entry, exit) = read_ends(a, tensors)?;
    let head = linear(&exit.head)?;
    let transformer = Transformer { trunk, entry, blocks, exit: exit.with_head(head) };
    let kv = KvSpec::default().build(transformer.kv_shape(), PROMPT + SINGLE, device)?;
    Ok(Session::new(Arc::new(transformer), kv))
}
