//! GPTQ: what it reduces to, what its blocks may not change, and the layer error that it lowers.

use anyhow::{Context, Result, bail};
use engine::LayerStats;
use model::block::{Matrix, read_layer};
use model::probe::{Probe, Site};
use model::{Activations, SeqId, Step, TokenId};
use ndarray::ArrayView2;
use results::trace::Event;
use weights::identities as measured;
use weights::quantizer::gptq::Gptq;
use weights::quantizer::round_to_nearest::RoundToNearest;
use weights::{CalibrationStats, GptqSpec, Quantizer, output_error};

use super::{at, engine, session, value};
use crate::worker::{Held, Outcome, progress};

/// `mismatches`: codes, scales and zeros of GPTQ with H = I that are not RTN's, over 32 grids with and without act-order.
pub fn identity_hessian(held: &Held) -> Result<Outcome> {
    let mismatches = measured::identity_hessian_mismatches(&held.device, held.scenario().seed)?;
    Ok(vec![value("mismatches", 0.0, mismatches as f64)].into())
}

/// `lazy_batch_difference` and `brute_force_difference`, both relative to the weights.
pub fn lazy_batch(held: &Held) -> Result<Outcome> {
    let seed = held.scenario().seed;
    let lazy = measured::lazy_batch_difference(&held.device, seed)?;
    let brute_force = measured::brute_force_difference(&held.device, seed)?;
    Ok(vec![value("lazy_batch_difference", 0.0, lazy), value("brute_force_difference", 0.0, brute_force)].into())
}

/// Input statistics of every matrix product of a model, gathered while text runs through it.
struct Collect<'a> {
    held: &'a Held,
    stats: LayerStats,
}

impl Probe for Collect<'_> {
    fn tap(&mut self, site: Site, x: &Activations) {
        if !matches!(site, Site::Residual(_) | Site::HeadIn) {
            let stats = self.stats.entry(site).or_insert_with(|| CalibrationStats::new(x.cols()));
            stats.add(self.held.device.cpu(), x);
        }
    }
}

/// Statistics of the held model's layers on `windows`.
pub(super) fn statistics(held: &Held, windows: &[&[TokenId]]) -> Result<LayerStats> {
    let engine = held.engine.as_ref().context("no engine is built")?;
    let mut collect = Collect { held, stats: LayerStats::new() };
    let longest = windows.iter().map(|w| w.len()).max().unwrap_or(1);
    for (i, window) in windows.iter().enumerate() {
        progress("calibrating", i, windows.len());
        // a fresh cache per window: windows do not see each other
        session(engine, longest)?.forward_probed(&Step::extend(SeqId(0), 0, window), Some(&mut collect))?;
    }
    Ok(collect.stats)
}

/// `layer_error_ratio`: ‖(W − Ŵ)X‖² of GPTQ over that of RTN on the same 4-bit grids (one per row, as in the paper), per
/// linear layer, X being the calibration text; `held_out_error_ratio`: the same on text that GPTQ has not seen.
pub fn layer_error(held: &Held) -> Result<Outcome> {
    if let Err(refused) = engine(held) {
        return Ok(refused);
    }
    let (Some(models), Some(calibration)) = (&held.models, &held.scenario().calibration) else {
        return Ok(Outcome::Refused("layer errors need a [model] and a [calibration] text".into()));
    };
    let length = calibration.window_tokens;
    let text = held.tokens_of(&calibration.text)?;
    let windows: Vec<&[TokenId]> = text.chunks_exact(length).take(calibration.windows).collect();
    let unseen = held.tokens_of("embedded:evaluation")?;
    let unseen: Vec<&[TokenId]> = unseen.chunks_exact(length).take(windows.len()).collect();
    if windows.is_empty() || unseen.is_empty() {
        bail!("no text holds one window of {length} tokens");
    }
    let (seen, unseen) = (statistics(held, &windows)?, statistics(held, &unseen)?);
    let mut events = vec![];
    for layer in 0..models.target.architecture.n_layers {
        progress("quantizing", layer, models.target.architecture.n_layers);
        let (_, matrices) = read_layer(&models.target.architecture, &*models.target.tensors, layer)?;
        for (slot, matrix) in matrices.slots(layer).into_iter().filter(|(slot, _)| !slot.exact) {
            // an expert that no token reached on either text has no error to compare
            if let (Some(seen), Some(unseen)) = (seen.get(&slot.site), unseen.get(&slot.site)) {
                events.extend(ratios(held, matrix, (seen, unseen), at(events.len() / 2))?);
            }
        }
    }
    Ok(events.into())
}

fn ratios(
    held: &Held,
    matrix: &Matrix,
    (seen, unseen): (&CalibrationStats, &CalibrationStats),
    x: f64,
) -> Result<[Event; 2]> {
    let values = matrix.to_f32();
    let weight = ArrayView2::from_shape((matrix.rows, matrix.cols), &values)?;
    let spec = GptqSpec::new(4, None);
    let gptq = Gptq::new(spec, &held.device).quantize(weight, Some(seen))?;
    let rtn = RoundToNearest::new(spec.grid()).quantize(weight, None)?;
    let ratio = |stats| {
        let error = |codes| output_error(held.device.cpu(), weight, codes, stats);
        error(&gptq) / error(&rtn)
    };
    Ok([value("layer_error_ratio", x, ratio(seen)), value("held_out_error_ratio", x, ratio(unseen))])
}
