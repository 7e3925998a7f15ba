//! LLM.int8() and SmoothQuant: what their ends and their folding must leave as it was.

use std::collections::HashMap;

use anyhow::{Result, bail};
use attention::AttentionSpec;
use engine::{Engine, prepare_layer};
use kv_cache::KvSpec;
use model::block::{Block, Trunk, read_layer};
use model::probe::{Probe, Site};
use model::{Activations, Session, Step, StepModel, TokenId, Transformer, read_ends};
use weights::quantizer::smooth::Smooth;
use weights::{CalibrationStats, Int8Spec, WeightSource, WeightsSpec, build_linear, identities as measured};

use super::{SEQ, at, engine, largest_difference, prompts, session, value};
use crate::worker::{Held, Models, Outcome, progress};

/// The paper's migration strength.
const ALPHA: f64 = 0.5;
/// Tokens of a prompt whose logits are compared.
const TOKENS: usize = 64;
/// Prompts, spread over the evaluation text.
const PROMPTS: usize = 4;

/// `threshold_zero_difference` and `threshold_infinity_difference`, relative to the largest result; `decomposition_error_ratio`:
/// error at threshold 6 over that of plain int8, on inputs with outliers; `integer_mismatches`.
pub fn threshold_limits(held: &Held) -> Result<Outcome> {
    let seed = held.scenario().seed;
    let found = measured::threshold_limits(&held.device, seed)?;
    let mismatches = measured::integer_product_mismatches(&held.device, seed);
    Ok(vec![
        value("threshold_zero_difference", 0.0, found.at_zero),
        value("threshold_infinity_difference", 0.0, found.at_infinity),
        value("decomposition_error_ratio", 0.0, found.error_ratio),
        value("integer_mismatches", 0.0, at(mismatches)),
    ]
    .into())
}

/// Residual streams before each layer.
#[derive(Default)]
struct Streams(HashMap<usize, Vec<Activations>>);

impl Probe for Streams {
    fn tap(&mut self, site: Site, x: &Activations) {
        if let Site::Residual(layer) = site {
            self.0.entry(layer).or_default().push(x.clone());
        }
    }
}

/// `logit_difference` between the model smoothed with α = 0.5, in f32, and the model as it is; of each norm before a sublayer (x),
/// `peak_fall`: largest over median channel magnitude of its output, before smoothing over after.
pub fn smoothing(held: &Held) -> Result<Outcome> {
    let engine = match engine(held) {
        Ok(engine) => engine,
        Err(refused) => return Ok(refused),
    };
    let (Some(models), Some(calibration)) = (&held.models, &held.scenario().calibration) else {
        return Ok(Outcome::Refused("smoothing needs a [model] and a [calibration] text".into()));
    };
    let text = held.tokens_of(&calibration.text)?;
    let mut streams = Streams::default();
    for window in text.chunks_exact(calibration.window_tokens).take(calibration.windows) {
        session(engine, window.len())?.forward_probed(&Step::extend(SEQ, 0, window), Some(&mut streams))?;
    }
    if streams.0.is_empty() {
        bail!("{} holds no window of {} tokens", calibration.text, calibration.window_tokens);
    }
    let (smoothed, peaks) = smooth(held, models, &streams)?;
    let mut events: Vec<_> = peaks.into_iter().enumerate().map(|(i, fall)| value("peak_fall", at(i), fall)).collect();
    let mut worst = 0.0f64;
    for prompt in prompts(held, PROMPTS, TOKENS)? {
        worst = worst.max(difference(engine, &smoothed, &prompt)?);
    }
    events.push(value("logit_difference", 0.0, worst));
    Ok(events.into())
}

/// The model in f32 with every norm's output smoothed, and how much its peaks fell.
fn smooth(held: &Held, models: &Models, streams: &Streams) -> Result<(Session, Vec<f64>)> {
    let (a, tensors) = (&models.target.architecture, &*models.target.tensors);
    let trunk = Trunk::new(a.clone(), held.device.clone(), AttentionSpec::Naive.build(&held.device)?);
    let (entry, exit) = read_ends(a, tensors)?;
    let smooth = WeightsSpec::Int8(Int8Spec { smooth: Some(Smooth::Alpha(ALPHA)), ..Int8Spec::default() });
    let (mut blocks, mut falls) = (vec![], vec![]);
    for layer in 0..a.n_layers {
        progress("smoothing", layer, a.n_layers);
        let (vectors, matrices) = read_layer(a, tensors, layer)?;
        let Some(samples) = streams.0.get(&layer) else { bail!("layer {layer} was not seen") };
        let prepared = |spec| prepare_layer(&trunk, spec, layer, vectors.clone(), matrices.clone(), samples);
        let (before, after) = (prepared(&WeightsSpec::F32)?, prepared(&smooth)?);
        for site in [Site::QkvIn(layer), Site::GateUpIn(layer)] {
            let peaks = [&before, &after].map(|p| p.stats.as_ref().and_then(|stats| stats.get(&site)).map(peak));
            if let [Some(before), Some(after)] = peaks {
                falls.push(before / after);
            }
        }
        blocks.push(Block::new(&trunk, after.vectors.clone(), after.build(&WeightsSpec::F32, &held.device)?));
    }
    let values = exit.head.to_f32();
    let (rows, cols) = (exit.head.rows, exit.head.cols);
    let head = build_linear(&WeightsSpec::F32, &held.device, WeightSource::F32(&values), rows, cols, None)?;
    let smoothed = Transformer { trunk, entry, blocks, exit: exit.with_head(head) };
    let kv = KvSpec::default().build(smoothed.kv_shape(), TOKENS, &held.device)?;
    Ok((Session::new(std::sync::Arc::new(smoothed), kv), falls))
}

fn difference(engine: &Engine, smoothed: &Session, prompt: &[TokenId]) -> Result<f64> {
    let step = Step::extend(SEQ, 0, prompt).with_all_logits();
    let mut plain = session(engine, prompt.len())?;
    let kv = KvSpec::default().build(smoothed.transformer.kv_shape(), prompt.len(), &engine.device)?;
    let mut other = Session::new(smoothed.transformer.clone(), kv);
    let pairs = plain.forward(&step)?.as_slice().iter().zip(other.forward(&step)?.as_slice());
    Ok(largest_difference(pairs.map(|(a, b)| (f64::from(*a), f64::from(*b)))))
}

/// Largest over median of the channels' largest magnitudes.
fn peak(stats: &CalibrationStats) -> f64 {
    let mut sizes: Vec<f32> = (0..stats.features()).map(|j| stats.channels().max_abs(j)).collect();
    sizes.sort_by(f32::total_cmp);
    let median = f64::from(sizes[sizes.len() / 2]);
    f64::from(sizes[sizes.len() - 1]) / median.max(f64::MIN_POSITIVE)
}
