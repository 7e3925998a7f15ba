//! LoRA adapters: beside the weights and merged into them.

use std::sync::Arc;

use anyhow::Result;
use engine::{BuildOptions, Engine, EngineSpec};
use model::block::Block;
use model::{Linear, Session, Step, StepModel, Transformer};
use results::trace::Event;
use weights::{BlockSpec, WeightSource, WeightsSpec, build_linear};

use super::{SEQ, largest_difference, prompts, value};
use crate::library;
use crate::worker::{Held, Outcome, open_models, progress};

/// Tokens whose logits are compared.
const TOKENS: usize = 128;

/// `merged_difference`: largest |Δlogit| between the adapter beside f32 weights and merged into them. `nf4_merged_difference`: between the
/// adapter beside NF4 weights and added to those weights' values. `adapter_effect`: between the model with and without it, for scale.
pub fn merge(held: &Held) -> Result<Outcome> {
    let Some(part) = held.cells[0].model.as_ref().filter(|part| part.adapter.is_some()) else {
        return Ok(Outcome::Refused("this identity is one of an adapter: give the model one".into()));
    };
    let file = held.resolved.file.as_deref();
    let prompt = prompts(held, 1, TOKENS)?.pop().unwrap_or_default();
    let step = Step::extend(SEQ, 0, &prompt).with_all_logits();
    let build = |adapted: Option<bool>, weights: WeightsSpec| -> Result<Option<Engine>> {
        let Some(models) = open_models(&held.resolved, Some(part))? else { return Ok(None) };
        let target = match adapted {
            None => models.target,
            Some(merge) => {
                library::adapted(models.target, &crate::scenario::ModelPart { merge, ..part.clone() }, file)?
            }
        };
        let spec = EngineSpec { weights, ..held.cells[0].spec.clone() };
        let options = BuildOptions { context_tokens: TOKENS, calibration: &[], progress: &mut |_, _| {} };
        Ok(Some(Engine::build(&spec, &target, None, &held.device, options)?))
    };
    let nf4 = || WeightsSpec::Nf4(BlockSpec::default());
    let target = |built: Option<Engine>| built.map(|engine| engine.target);
    let transformers = [
        target(build(None, WeightsSpec::F32)?),
        target(build(Some(false), WeightsSpec::F32)?),
        target(build(Some(true), WeightsSpec::F32)?),
        target(build(Some(false), nf4())?),
        build(Some(false), nf4())?.map(|engine| added(held, &engine)).transpose()?,
    ];
    let mut logits = vec![];
    for (i, transformer) in transformers.iter().flatten().enumerate() {
        progress("adapter", i, transformers.len());
        let kv = held.cells[0].spec.kv.build(transformer.kv_shape(), TOKENS, &held.device)?;
        logits.push(Session::new(transformer.clone(), kv).forward(&step)?.clone());
    }
    let [without, apart, merged, nf4_apart, nf4_merged] = &logits[..] else {
        return Ok(Outcome::Refused("no model is open".into()));
    };
    let difference = |name: &str, a: &model::Activations, b: &model::Activations| -> Event {
        let pairs = a.as_slice().iter().zip(b.as_slice()).map(|(a, b)| (f64::from(*a), f64::from(*b)));
        value(name, 0.0, largest_difference(pairs))
    };
    Ok(vec![
        difference("merged_difference", apart, merged),
        difference("nf4_merged_difference", nf4_apart, nf4_merged),
        difference("adapter_effect", apart, without),
    ]
    .into())
}

/// The engine's model with every product replaced by an f32 one of the values it stands for: its own, and the adapter's added.
fn added(held: &Held, engine: &Engine) -> Result<Arc<Transformer>> {
    let Some(models) = &held.models else { anyhow::bail!("no model is open") };
    let a = engine.target.architecture();
    let trunk = model::block::Trunk::new(a.clone(), held.device.clone(), engine.spec.attention.build(&held.device)?);
    let dense = |linear: &dyn Linear| -> Result<Box<dyn Linear>> {
        let (rows, cols) = (linear.out_features(), linear.in_features());
        let values = linear.dequantised();
        Ok(build_linear(&WeightsSpec::F32, &held.device, WeightSource::F32(&values), rows, cols, None)?)
    };
    let mut blocks = vec![];
    for (layer, block) in engine.target.blocks.iter().enumerate() {
        let (vectors, _) = model::block::read_layer(a, &*models.target.tensors, layer)?;
        let linears = block.linears.as_ref().try_map(layer, &mut |_, linear| dense(&**linear))?;
        blocks.push(Block::new(&trunk, vectors, linears));
    }
    let (entry, exit) = model::read_ends(a, &*models.target.tensors)?;
    let head = dense(&*engine.target.exit.head)?;
    Ok(Arc::new(Transformer { trunk, entry, blocks, exit: exit.with_head(head) }))
}
