//! Which matrices mind being quantized, and what to do with a byte budget.
//!
//! Method: 1. each projection of each layer gets each candidate alone, everything else stays as the cell has it; the KL
//! divergence of the output, on one text, is its sensitivity. 2. under each budget the choice of candidates with the least
//! sum of sensitivities is found exactly ([`budget`]). 3. that mixture is built, and measured on another text beside every
//! candidate used throughout: sensitivities need not add up, so nothing is recommended unmeasured.

mod budget;

use std::sync::Arc;

use anyhow::{Context, Result};
use engine::{Engine, EngineError, EngineSpec, prepare_layer, projection, run_layer};
use model::block::read_layer;
use model::{Activations, Linear, SeqId, Step, StepModel, TokenId};
use results::trace::Event;
use weights::{MixedRule, MixedSpec, Projection, WeightsSpec};

use self::budget::{Choice, spend};
use super::cell::{Held, Outcome, build_engine, calibration_windows, spread};
use super::{progress, score};
use crate::forecast;

/// What the workload asks for.
pub struct Asked<'a> {
    /// Where choices are made, where mixtures are measured.
    pub texts: [&'a str; 2],
    /// Windows of each text.
    pub windows: usize,
    /// Tokens per window.
    pub window_tokens: usize,
    /// What a matrix may get.
    pub candidates: &'a [WeightsSpec],
    /// Bits per weight.
    pub budgets: &'a [f64],
}

/// Windows of a text with the full-precision logits of each.
struct Reference {
    windows: Vec<Vec<TokenId>>,
    logits: Vec<Activations>,
}

/// Perplexity and mean KL divergence.
#[derive(Clone, Copy)]
struct Quality {
    ppl: f64,
    kl: f64,
}

/// A projection of a layer: weights in it, and what each candidate does to it.
struct Part {
    layer: usize,
    projection: Projection,
    n_weights: u64,
    choices: Vec<Choice>,
}

/// Runs the workload.
pub fn run(held: &mut Held, asked: &Asked<'_>) -> Result<Outcome> {
    let mut references = vec![];
    for text in asked.texts {
        let tokens = held.tokens_of(text)?;
        let windows = spread(&tokens, asked.windows, asked.window_tokens);
        if windows.is_empty() {
            return Ok(Outcome::Refused(forecast::fewer(text, tokens.len(), "one window", asked.window_tokens)));
        }
        let engine = held.engine.as_ref().context("no engine is built")?;
        references.push(Reference::of(engine, windows)?);
    }
    let parts = sensitivities(held, asked, &references[0])?;
    let mut events: Vec<Event> = parts.iter().flat_map(|part| part.events(asked.candidates)).collect();
    let facts = mixtures(held, asked, &parts, &references[1], &mut events)?;
    Ok(Outcome::Ran { events, facts })
}

impl Reference {
    fn of(engine: &Engine, windows: Vec<Vec<TokenId>>) -> Result<Reference> {
        let mut session = engine.session()?;
        let logits = windows.iter().map(|tokens| forward(&mut session, tokens)).collect::<Result<_>>()?;
        Ok(Reference { windows, logits })
    }

    /// Of the engine as it is now.
    fn quality(&self, engine: &Engine, threads: usize) -> Result<Quality> {
        let mut session = engine.session()?;
        let (mut nll, mut kl, mut n) = (0.0, 0.0, 0usize);
        for (tokens, reference) in self.windows.iter().zip(&self.logits) {
            let logits = forward(&mut session, tokens)?;
            for point in score::score_rows(&logits, Some(reference), tokens, threads) {
                nll += point.nll;
                kl += point.kl;
                n += 1;
            }
        }
        Ok(Quality { ppl: (nll / n as f64).exp(), kl: kl / n as f64 })
    }
}

fn forward(session: &mut model::Session, tokens: &[TokenId]) -> Result<Activations> {
    session.truncate(SeqId(0), 0);
    Ok(session.forward(&Step::extend(SeqId(0), 0, tokens).with_all_logits())?.clone())
}

impl Part {
    fn events(&self, candidates: &[WeightsSpec]) -> Vec<Event> {
        let event = |(candidate, choice): (&WeightsSpec, &Choice)| Event::Sensitivity {
            weights: candidate.tag(),
            projection: self.projection.name().into(),
            layer: self.layer as u32,
            kl: choice.damage,
            bytes: choice.bytes,
        };
        candidates.iter().zip(&self.choices).map(event).collect()
    }
}

/// Step 1.
fn sensitivities(held: &mut Held, asked: &Asked<'_>, reference: &Reference) -> Result<Vec<Part>> {
    let (models, threads) = (held.models.as_ref().context("sensitivity needs a [model]")?, held.threads);
    let calibrated = asked.candidates.iter().any(WeightsSpec::needs_calibration);
    let windows = if calibrated { calibration_windows(&held.resolved, models)? } else { vec![] };
    let engine = held.engine.as_mut().context("no engine is built")?;
    let mut samples: Vec<Activations> = vec![];
    for window in &windows {
        let mut x = Activations::default();
        engine.target.entry.embed(&engine.target.trunk, &Step::extend(SeqId(0), 0, window), &mut x);
        samples.push(x);
    }
    let (a, tensors) = (&models.target.architecture, &*models.target.tensors);
    let mut parts = vec![];
    for layer in 0..a.n_layers {
        let (vectors, matrices) = read_layer(a, tensors, layer)?;
        let prepared = prepare_layer(&engine.target.trunk, &WeightsSpec::F32, layer, vectors, matrices, &samples)?;
        for of in Projection::ALL {
            progress("sensitivity", layer * Projection::ALL.len() + of as usize, a.n_layers * Projection::ALL.len());
            let slots = prepared.matrices.slots(layer);
            let mine: Vec<_> =
                slots.into_iter().filter(|(slot, _)| !slot.exact && projection(slot.site) == of).collect();
            let n_weights = mine.iter().map(|(_, m)| (m.rows * m.cols) as u64).sum();
            let mut choices = vec![];
            for candidate in asked.candidates {
                let device = &engine.target.trunk.device;
                let built = mine.iter().map(|(slot, m)| prepared.build_one(candidate, device, *slot, m));
                let mut built = built.collect::<Result<Vec<_>, EngineError>>()?;
                let bytes = built.iter().map(|linear| linear.weight_bytes() as u64).sum();
                exchange(engine, layer, of, &mut built)?;
                let quality = reference.quality(engine, threads)?;
                exchange(engine, layer, of, &mut built)?;
                choices.push(Choice { bytes, damage: quality.kl });
            }
            parts.push(Part { layer, projection: of, n_weights, choices });
        }
        for x in &mut samples {
            run_layer(&engine.target.trunk, layer, &engine.target.blocks[layer], x, None)?;
        }
    }
    Ok(parts)
}

/// Swaps the products of a projection with `others`, in the order of its slots.
fn exchange(engine: &mut Engine, layer: usize, of: Projection, others: &mut [Box<dyn Linear>]) -> Result<()> {
    let transformer = Arc::get_mut(&mut engine.target).context("a session still holds the model")?;
    let mut others = others.iter_mut();
    let swapped =
        transformer.blocks[layer].linears.as_mut().try_map(layer, &mut |slot, linear: &mut Box<dyn Linear>| {
            if !slot.exact && projection(slot.site) == of {
                std::mem::swap(linear, others.next().context("as many products as slots")?);
            }
            Ok::<(), anyhow::Error>(())
        });
    swapped.map(|_| ())
}

/// Steps 2 and 3: adds an event for every mixture; gives the recommended ones as a scenario would write them.
fn mixtures(
    held: &Held,
    asked: &Asked<'_>,
    parts: &[Part],
    reference: &Reference,
    events: &mut Vec<Event>,
) -> Result<Vec<(String, String)>> {
    let models = held.models.as_ref().context("sensitivity needs a [model]")?;
    let spec = held.cells[0].spec.clone();
    let n_weights: u64 = parts.iter().map(|part| part.n_weights).sum();
    let measured = |series: &str, weights: WeightsSpec, picks: &[usize]| -> Result<Event> {
        let name = weights.tag();
        let spec = EngineSpec { weights, ..spec.clone() };
        let engine = build_engine(&held.resolved, models, &spec, &held.device)?;
        let quality = reference.quality(&engine, held.threads)?;
        let chosen = || parts.iter().zip(picks).map(|(part, &pick)| part.choices[pick]);
        Ok(Event::Mixture {
            series: series.into(),
            name,
            bits: 8.0 * chosen().map(|c| c.bytes).sum::<u64>() as f64 / n_weights as f64,
            ppl: quality.ppl,
            kl: quality.kl,
            predicted_kl: chosen().map(|c| c.damage).sum(),
        })
    };
    let mut facts = vec![];
    for (index, candidate) in asked.candidates.iter().enumerate() {
        events.push(measured("uniform", candidate.clone(), &vec![index; parts.len()])?);
    }
    let choices: Vec<Vec<Choice>> = parts.iter().map(|part| part.choices.clone()).collect();
    for &budget in asked.budgets {
        let key = format!("recommended_weights_{budget}_bits");
        let Some(picks) = spend(&choices, (budget * n_weights as f64 / 8.0) as u64) else {
            facts.push((key, "none: even the smallest candidates take more".into()));
            continue;
        };
        let mixture = mixture(&format!("{budget}-bits"), asked.candidates, parts, &picks);
        facts.push((key, inline_toml(&serde_json::to_value(&mixture)?)));
        events.push(measured("recommended", mixture, &picks)?);
    }
    Ok(facts)
}

/// The choice as a scenario's weights: the candidate of most parts is the default, one rule per other candidate and projection.
fn mixture(name: &str, candidates: &[WeightsSpec], parts: &[Part], picks: &[usize]) -> WeightsSpec {
    let count = |c: usize| picks.iter().filter(|&&pick| pick == c).count();
    let default = (0..candidates.len()).max_by_key(|&c| count(c)).unwrap_or(0);
    let mut rules = vec![];
    for (c, candidate) in candidates.iter().enumerate().filter(|(c, _)| *c != default) {
        for of in Projection::ALL {
            let here = parts.iter().zip(picks).filter(|(part, pick)| **pick == c && part.projection == of);
            let layers: Vec<usize> = here.map(|(part, _)| part.layer).collect();
            if !layers.is_empty() {
                let (layers, projections) = (Some(layers), Some(vec![of]));
                rules.push(MixedRule { layers, projections, weights: candidate.clone() });
            }
        }
    }
    WeightsSpec::Mixed(MixedSpec { name: name.into(), default: Box::new(candidates[default].clone()), rules })
}

/// A value as an inline TOML table, which a scenario can copy into a list.
fn inline_toml(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            let fields: Vec<String> =
                map.iter().map(|(key, value)| format!("{key} = {}", inline_toml(value))).collect();
            format!("{{ {} }}", fields.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(inline_toml).collect::<Vec<_>>().join(", ")),
        // names and numbers: JSON spells them as TOML does
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(layer: usize, projection: Projection) -> Part {
        Part { layer, projection, n_weights: 1, choices: vec![] }
    }

    #[test]
    fn a_mixture_says_what_was_picked_and_can_be_copied() {
        let candidates: Vec<WeightsSpec> = ["kind = \"rtn\"\nbits = 3", "kind = \"gptq\"\nbits = 4\ngroup = \"row\""]
            .iter()
            .map(|text| toml::from_str(text).unwrap())
            .collect();
        let parts: Vec<Part> = (0..2).flat_map(|layer| Projection::ALL.map(|of| part(layer, of))).collect();
        let picks = [0, 0, 1, 0, 0, 0, 0, 1];
        let spec = mixture("3.5-bits", &candidates, &parts, &picks);
        for (part, pick) in parts.iter().zip(picks) {
            assert_eq!(spec.at(part.layer, part.projection), &candidates[pick]);
        }
        let text = format!("weights = {}", inline_toml(&serde_json::to_value(&spec).unwrap()));
        #[derive(serde::Deserialize)]
        struct Copied {
            weights: WeightsSpec,
        }
        assert_eq!(toml::from_str::<Copied>(&text).unwrap().weights, spec, "{text}");
    }
}
