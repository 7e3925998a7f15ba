//! Rotated models: the function they keep, and how the shape of their activations changes.

use anyhow::{Context, Result};
use engine::{BuildOptions, Checkpoint, Engine, EngineSpec};
use model::probe::{Probe, Site};
use model::transform::{Rotate, RotationKind, Transforms};
use model::{Activations, Step, StepModel, TokenId};
use results::trace::Event;
use weights::WeightsSpec;

use super::{SEQ, at, engine, largest_difference, prompts, session, value};
use crate::library;
use crate::worker::{Held, Outcome, open_models, progress};

/// Tokens whose logits are compared and whose activations are looked at.
const TOKENS: usize = 128;
/// Rotations of each kind that are compared.
const SEEDS: u64 = 3;
/// Random rotations of each kind that are scored.
const RANDOM: u64 = 20;
/// Windows of text that each is scored on, and tokens of one.
const WINDOWS: usize = 8;
const WINDOW: usize = 256;

/// `logit_difference` from the model as it is, one rotation per x: Hadamard, the same without its online part, random orthogonal,
/// three seeds of each; `max_logit` for scale.
pub fn equivalent(held: &Held) -> Result<Outcome> {
    let plain = match engine(held) {
        Ok(engine) => engine,
        Err(refused) => return Ok(refused),
    };
    let prompt = prompt(held)?;
    let whole = Step::extend(SEQ, 0, &prompt).with_all_logits();
    let expected = session(plain, prompt.len())?.forward(&whole)?.clone();
    let largest = expected.as_slice().iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let mut events: Vec<Event> = vec![value("max_logit", 0.0, f64::from(largest))];
    let forms = [(RotationKind::Hadamard, true), (RotationKind::Hadamard, false), (RotationKind::Orthogonal, true)];
    let all: Vec<Rotate> =
        (0..SEEDS).flat_map(|seed| forms.map(|(kind, online)| Rotate { kind, seed, online })).collect();
    for (i, rotate) in all.iter().enumerate() {
        progress("rotating", i, all.len());
        let rotated = match rotated(held, rotate, &WeightsSpec::F32, prompt.len())? {
            Ok(engine) => engine,
            Err(refused) => return Ok(refused),
        };
        let mut session = session(&rotated, prompt.len())?;
        let logits = session.forward(&whole)?;
        let pairs = logits.as_slice().iter().zip(expected.as_slice());
        let worst = largest_difference(pairs.map(|(a, b)| (f64::from(*a), f64::from(*b))));
        events.push(value("logit_difference", at(i), worst));
    }
    Ok(events.into())
}

/// `kurtosis_plain` and `kurtosis_rotated` of the inputs of matrix products, one place per x (four a layer: q k v, output, gate up,
/// down), each the mean over tokens of Σx⁴·n/(Σx²)² over a token's features: 3 for a Gaussian. `peak_plain` and `peak_rotated`: the mean over
/// tokens of max|x| over the median |x|.
pub fn kurtosis(held: &Held) -> Result<Outcome> {
    let plain = match engine(held) {
        Ok(engine) => engine,
        Err(refused) => return Ok(refused),
    };
    let cell = &held.cells[0];
    if cell.spec.weights != WeightsSpec::F32 || cell.model.as_ref().is_some_and(|m| m.transforms.rotate.is_some()) {
        return Ok(Outcome::Refused(
            "activations are looked at in the f32 cells of models that are not rotated".into(),
        ));
    }
    let prompt = prompt(held)?;
    let rotate = Rotate { kind: RotationKind::Hadamard, seed: 0, online: true };
    let rotated = match rotated(held, &rotate, &WeightsSpec::F32, prompt.len())? {
        Ok(engine) => engine,
        Err(refused) => return Ok(refused),
    };
    let mut events = vec![];
    for (engine, names) in [(plain, ["kurtosis_plain", "peak_plain"]), (&rotated, ["kurtosis_rotated", "peak_rotated"])]
    {
        let mut shapes = Shapes::default();
        session(engine, prompt.len())?.forward_probed(&Step::extend(SEQ, 0, &prompt), Some(&mut shapes))?;
        for (place, [kurtosis, peak]) in shapes.0.into_iter().enumerate() {
            events.push(value(names[0], at(place), kurtosis));
            events.push(value(names[1], at(place), peak));
        }
    }
    Ok(events.into())
}

/// `nll_hadamard` and `nll_orthogonal` of the held cell's weights on rotated models, one random rotation (seed) per x; `nll_unrotated`;
/// of each kind the mean, and largest less smallest (`nll_hadamard_mean`, `nll_hadamard_spread`, …). Natural logarithms per token.
pub fn spread(held: &Held) -> Result<Outcome> {
    let plain = match engine(held) {
        Ok(engine) => engine,
        Err(refused) => return Ok(refused),
    };
    let text = held.tokens_of("embedded:evaluation")?;
    let windows: Vec<&[TokenId]> = text.chunks_exact(WINDOW).take(WINDOWS).collect();
    let mut events = vec![value("nll_unrotated", 0.0, nll(plain, &windows)?)];
    let weights = held.cells[0].spec.weights.clone();
    for (kind, name) in [(RotationKind::Hadamard, "nll_hadamard"), (RotationKind::Orthogonal, "nll_orthogonal")] {
        let mut all = vec![];
        for seed in 0..RANDOM {
            progress(name, seed as usize, RANDOM as usize);
            let rotated = match rotated(held, &Rotate { kind, seed, online: true }, &weights, WINDOW)? {
                Ok(engine) => engine,
                Err(refused) => return Ok(refused),
            };
            all.push(nll(&rotated, &windows)?);
            events.push(value(name, at(seed as usize), all[all.len() - 1]));
        }
        let extreme = |pick: fn(f64, f64) -> f64| all.iter().copied().reduce(pick).unwrap_or(f64::NAN);
        events.push(value(&format!("{name}_mean"), 0.0, all.iter().sum::<f64>() / all.len() as f64));
        events.push(value(&format!("{name}_spread"), 0.0, extreme(f64::max) - extreme(f64::min)));
    }
    Ok(events.into())
}

/// Mean surprise of the tokens of `windows` but the first of each.
fn nll(engine: &Engine, windows: &[&[TokenId]]) -> Result<f64> {
    let (mut sum, mut n) = (0.0, 0u32);
    for window in windows {
        let mut session = session(engine, window.len())?;
        let logits = session.forward(&Step::extend(SEQ, 0, window).with_all_logits())?;
        for (row, token) in window[1..].iter().enumerate() {
            let row = logits.row(row);
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let total: f64 = row.iter().map(|v| f64::from(v - largest).exp()).sum();
            sum += total.ln() - f64::from(row[token.0 as usize] - largest);
            n += 1;
        }
    }
    Ok(sum / f64::from(n.max(1)))
}

/// Text where the model reads text, a fixed pattern otherwise.
fn prompt(held: &Held) -> Result<Vec<TokenId>> {
    let models = held.models.as_ref().context("no model is open")?;
    let a = &models.target.architecture;
    let n = TOKENS.min(a.max_positions);
    Ok(match &models.target.tokenizer {
        Some(_) => prompts(held, 1, n)?.pop().unwrap_or_default(),
        None => (0..n).map(|i| TokenId((i * 7919 % a.vocab_size) as u32)).collect(),
    })
}

/// An engine of the held cell's model, its own transforms first and `rotate` last, with these weights; or why it cannot be.
fn rotated(
    held: &Held,
    rotate: &Rotate,
    weights: &WeightsSpec,
    context_tokens: usize,
) -> Result<Result<Engine, Outcome>> {
    let part = held.cells[0].model.as_ref();
    let (Some(part), Some(models)) = (part, open_models(&held.resolved, part)?) else {
        return Ok(Err(Outcome::Refused("no model is open".into())));
    };
    let transforms = Transforms { rotate: Some(rotate.clone()), ..part.transforms.clone() };
    if let Err(refused) = transforms.architecture(&models.target.architecture) {
        return Ok(Err(Outcome::Refused(refused.to_string())));
    }
    let target: Checkpoint =
        library::adapted(models.target, part, held.resolved.file.as_deref())?.transformed(&transforms)?;
    let spec = EngineSpec { weights: weights.clone(), ..held.cells[0].spec.clone() };
    let options = BuildOptions { context_tokens, calibration: &[], progress: &mut |_, _| {} };
    Ok(Ok(Engine::build(&spec, &target, None, &held.device, options)?))
}

/// Kurtosis and peak of each place that feeds a matrix product, in the order of the forward pass.
#[derive(Default)]
struct Shapes(Vec<[f64; 2]>);

impl Probe for Shapes {
    fn tap(&mut self, site: Site, x: &Activations) {
        if !matches!(site, Site::QkvIn(_) | Site::OutIn(_) | Site::GateUpIn(_) | Site::DownIn(_)) {
            return;
        }
        let shapes: Vec<[f64; 2]> = (0..x.rows()).map(|row| shape(x.row(row))).collect();
        // mixing heads that agree, as all heads do on a first token, leaves most features zero and no peak to speak of
        let mean = |which: usize| {
            let finite: Vec<f64> = shapes.iter().map(|s| s[which]).filter(|v| v.is_finite()).collect();
            finite.iter().sum::<f64>() / finite.len().max(1) as f64
        };
        self.0.push([mean(0), mean(1)]);
    }
}

/// Kurtosis about zero, and largest over median magnitude; infinite where the median is zero.
fn shape(x: &[f32]) -> [f64; 2] {
    let moment = |power: i32| x.iter().map(|v| f64::from(*v).powi(power)).sum::<f64>() / x.len() as f64;
    let mut sizes: Vec<f32> = x.iter().map(|v| v.abs()).collect();
    sizes.sort_by(f32::total_cmp);
    let (median, largest) = (f64::from(sizes[sizes.len() / 2]), f64::from(sizes[sizes.len() - 1]));
    let peak = if median > 0.0 { largest / median } else { f64::INFINITY };
    [moment(4) / moment(2).powi(2).max(f64::MIN_POSITIVE), peak]
}

#[cfg(test)]
mod tests {
    use super::shape;

    #[test]
    fn kurtosis_and_peak_of_known_rows() {
        // all of one size: kurtosis 1; one of n alone: kurtosis n
        assert_eq!(shape(&[2.0, -2.0, 2.0, 2.0]), [1.0, 1.0]);
        assert_eq!(shape(&[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0, 0.0])[0], 8.0);
        assert_eq!(shape(&[1.0, -1.0, 1.0, 10.0])[1], 10.0);
    }
}
