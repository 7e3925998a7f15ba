//! AWQ: its scales change no function, and its searches cannot lose to rounding.

use anyhow::{Result, bail};
use engine::{prepare_layer, run_layer};
use model::block::{Block, Matrix, Place, Trunk, divisible, read_layer};
use model::{Activations, SeqId, Session, Step, StepModel, Transformer, read_ends};
use ndarray::ArrayView2;
use results::trace::Event;
use std::sync::Arc;
use weights::equalise::SharedInput;
use weights::quantizer::awq::Awq;
use weights::{AwqSpec, Quantizer, WeightSource, WeightsSpec, build_linear, output_error};

use super::quantization::statistics;
use super::{at, engine, largest_difference, prompts, session, value};
use crate::worker::{Held, Outcome, calibration_windows, progress};

/// Bits and group of the claims.
const SPEC: (u8, Option<usize>) = (3, Some(128));

/// `max_logit_difference` between the held f32 model and the same with AWQ's scales folded in and nothing quantized, by prompt;
/// `changed_matrices`, so that a reader sees that something was scaled.
pub fn scaling_equivalent(held: &Held) -> Result<Outcome> {
    let engine = match engine(held) {
        Ok(engine) => engine,
        Err(refused) => return Ok(refused),
    };
    let Some(models) = &held.models else {
        return Ok(Outcome::Refused("scales are those of a model: add a [model]".into()));
    };
    let (a, tensors) = (&models.target.architecture, &*models.target.tensors);
    let windows = calibration_windows(&held.resolved, models)?;
    if windows.is_empty() {
        bail!("the scenario has no [calibration] text");
    }
    let spec = WeightsSpec::Awq(AwqSpec::new(SPEC.0, SPEC.1));
    let trunk = Trunk::new(a.clone(), held.device.clone(), engine.spec.attention.build(&held.device)?);
    let (entry, exit) = read_ends(a, tensors)?;
    let mut samples: Vec<Activations> = vec![];
    for window in &windows {
        let mut x = Activations::default();
        entry.embed(&trunk, &Step::extend(SeqId(0), 0, window), &mut x);
        samples.push(x);
    }
    let (mut blocks, mut changed) = (vec![], 0);
    for layer in 0..a.n_layers {
        progress("scaling", layer, a.n_layers);
        let (vectors, matrices) = read_layer(a, tensors, layer)?;
        let before: Vec<Vec<f32>> = matrices.slots(layer).into_iter().map(|(_, m)| m.to_f32()).collect();
        let prepared = prepare_layer(&trunk, &spec, layer, vectors, matrices, &samples)?;
        let after = prepared.matrices.slots(layer);
        changed += after.into_iter().zip(&before).filter(|((_, m), before)| m.to_f32() != **before).count();
        let block = Block::new(&trunk, prepared.vectors.clone(), prepared.build(&WeightsSpec::F32, &held.device)?);
        for x in &mut samples {
            run_layer(&trunk, layer, &block, x, None)?;
        }
        blocks.push(block);
    }
    let head = exit.head.to_f32();
    let (n, k) = (exit.head.rows, exit.head.cols);
    let head = build_linear(&WeightsSpec::F32, &held.device, WeightSource::F32(&head), n, k, None)?;
    let scaled = Arc::new(Transformer { trunk, entry, blocks, exit: exit.with_head(head) });
    let mut events = vec![value("changed_matrices", 0.0, at(changed))];
    for (i, prompt) in prompts(held, 4, 128)?.iter().enumerate() {
        let step = Step::extend(SeqId(0), 0, prompt).with_all_logits();
        let kv = engine.spec.kv.build(scaled.kv_shape(), prompt.len(), &held.device)?;
        let mut other = Session::new(scaled.clone(), kv);
        let theirs = other.forward(&step)?.as_slice().to_vec();
        let mut plain = session(engine, prompt.len())?;
        let ours = plain.forward(&step)?;
        let pairs = ours.as_slice().iter().zip(&theirs).map(|(&a, &b)| (a as f64, b as f64));
        events.push(value("max_logit_difference", at(i), largest_difference(pairs)));
    }
    Ok(events.into())
}

/// `scale_ratio`: per input of a layer, error of the products that read it under the scales found over that of RTN;
/// `clip_ratio`: per matrix, the sum over groups of their own errors, clipped over not.
pub fn never_worse(held: &Held) -> Result<Outcome> {
    if let Err(refused) = engine(held) {
        return Ok(refused);
    }
    let Some(models) = &held.models else {
        return Ok(Outcome::Refused("errors are those of a model's layers: add a [model]".into()));
    };
    let windows = calibration_windows(&held.resolved, models)?;
    if windows.is_empty() {
        bail!("the scenario has no [calibration] text");
    }
    let windows: Vec<&[_]> = windows.iter().map(Vec::as_slice).collect();
    let stats = statistics(held, &windows)?;
    let spec = AwqSpec::new(SPEC.0, SPEC.1);
    let a = &models.target.architecture;
    let (mut events, mut inputs) = (vec![], 0);
    for layer in 0..a.n_layers {
        progress("searching", layer, a.n_layers);
        let (vectors, matrices) = read_layer(a, &*models.target.tensors, layer)?;
        for input in divisible(a, layer, &vectors, &matrices) {
            let Some(seen) = stats.get(&input.sites[0]) else { continue };
            let readers: Vec<(&Matrix, Vec<f32>)> = matrices
                .slots(layer)
                .into_iter()
                .filter(|(slot, _)| input.sites.contains(&slot.site) && !slot.exact)
                .map(|(_, matrix)| (matrix, matrix.to_f32()))
                .collect();
            let views = readers.iter().map(|(m, values)| ArrayView2::from_shape((m.rows, m.cols), values));
            let views: Vec<_> = views.collect::<Result<_, _>>()?;
            let found = spec.search(&SharedInput {
                place: input.place,
                matrices: views.clone(),
                device: &held.device,
                stats: seen,
            })?;
            let name = match input.place {
                Place::NormFed => "norm_fed_ratio",
                Place::AttentionOut => "attention_out_ratio",
                Place::Down => "down_ratio",
            };
            let ratio = found.error / found.plain_error;
            events.push(value("scale_ratio", at(inputs), ratio));
            events.push(value(name, at(inputs), ratio));
            inputs += 1;
            for view in views {
                events.push(clip(held, view, seen, at(events.len()))?);
            }
        }
    }
    Ok(events.into())
}

/// Output error of a matrix whose groups are clipped over that of plain rounding, each group's own error summed.
fn clip(held: &Held, weight: ArrayView2<f32>, seen: &weights::CalibrationStats, x: f64) -> Result<Event> {
    let k = weight.ncols();
    let (bits, group) = SPEC;
    let group = group.unwrap_or(k).min(k);
    // with H cut to the blocks of its groups, the output error is the sum of the groups' own
    let mut h = seen.hessian();
    for i in 0..k {
        for j in 0..k {
            if i / group != j / group {
                h[i * k + j] = 0.0;
            }
        }
    }
    let blocks = weights::CalibrationStats::from_hessian(k, seen.n_rows(), &h);
    let error = |clip| -> Result<f64> {
        let spec = AwqSpec { scale: false, clip, ..AwqSpec::new(bits, Some(group)) };
        let codes = Awq::new(spec, &held.device).quantize(weight, Some(seen))?;
        Ok(output_error(held.device.cpu(), weight, &codes, &blocks))
    };
    let (clipped, plain) = (error(true)?, error(false)?);
    Ok(value("clip_ratio", x, clipped / plain))
}
