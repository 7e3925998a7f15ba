//! Mixtures of experts: grouped execution against one token at a time, and what a fixed capacity drops or pads.

use anyhow::{Context, Result};
use model::block::{MlpOf, Visit, route};
use model::probe::{Probe, Site};
use model::{Activations, Step, StepModel, TokenId};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use weights::{WeightSource, WeightsSpec, build_linear};

use super::{SEQ, at, engine, largest_difference, session, value};
use crate::stopwatch::Stopwatch;
use crate::worker::{Held, Outcome};

/// Tokens of one Step of [`dropless_exact`].
const TOKENS: usize = 64;

/// Rows that reach routers and experts.
#[derive(Default)]
struct Traffic {
    routed: Vec<(usize, Activations)>,
    expert_rows: usize,
}

impl Probe for Traffic {
    fn tap(&mut self, site: Site, x: &Activations) {
        match site {
            Site::RouterIn(layer) => self.routed.push((layer, x.clone())),
            Site::ExpertIn(..) => self.expert_rows += x.rows(),
            _ => {}
        }
    }
}

/// `loop_difference`: largest |Δlogit| between one Step of many tokens (rows grouped by expert) and one Step per token;
/// `reference_difference` against the f64 reference, which knows no groups. `dropless_drops`: visits the router asked for less
/// rows the experts got. At capacity factors 1, 1.25 and 2 (x): `capacity_drops` as a capacity version counts them while it
/// fills its buffers, and `capacity_mismatch` from Σ max(0, n_e − C).
pub fn dropless_exact(held: &Held) -> Result<Outcome> {
    let engine = match engine(held) {
        Ok(engine) => engine,
        Err(refused) => return Ok(refused),
    };
    let Some(models) = &held.models else { return Ok(Outcome::Refused("no model is open".into())) };
    let a = engine.target.architecture();
    let Some(sizes) = &a.experts else { return Ok(Outcome::Refused("the model has no experts".into())) };
    let mut rng = ChaCha8Rng::seed_from_u64(held.scenario().seed);
    let tokens: Vec<TokenId> = (0..TOKENS).map(|_| TokenId(rng.random_range(0..a.vocab_size as u32))).collect();
    let mut traffic = Traffic::default();
    let step = Step::extend(SEQ, 0, &tokens).with_all_logits();
    let grouped = session(engine, TOKENS)?.forward_probed(&step, Some(&mut traffic))?.clone();
    let mut one_by_one = session(engine, TOKENS)?;
    let (mut by_loop, mut by_reference) = (0.0f64, 0.0f64);
    let exact = model::reference::logits(a, &*models.target.tensors, &tokens)?;
    for (row, token) in tokens.iter().enumerate() {
        let alone = one_by_one.forward(&Step::extend(SEQ, row, &[*token]))?.row(0).to_vec();
        let grouped = grouped.row(row);
        let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        by_loop = by_loop.max(largest_difference(wide(grouped).into_iter().zip(wide(&alone))));
        by_reference = by_reference.max(largest_difference(wide(grouped).into_iter().zip(exact[row].iter().copied())));
    }
    let mut events = vec![value("loop_difference", 0.0, by_loop), value("reference_difference", 0.0, by_reference)];
    let (mut visits, mut asked) = (vec![], 0);
    for (layer, x) in &traffic.routed {
        let MlpOf::Experts { router, .. } = &engine.target.blocks[*layer].linears.mlp else { continue };
        let mut logits = Activations::default();
        router.forward(x, &mut logits);
        let found = route(sizes, None, &logits);
        asked += found.len();
        visits.push(found);
    }
    events.push(value("dropless_drops", 0.0, at(asked) - at(traffic.expert_rows)));
    for factor in [1.0, 1.25, 2.0] {
        let capacity = (factor * (sizes.top_k * TOKENS) as f64 / sizes.n as f64).ceil() as usize;
        let dropped: usize = visits.iter().map(|v| with_capacity(v, sizes.n, capacity)).sum();
        let formula: usize = visits.iter().map(|v| overflow(v, sizes.n, capacity)).sum();
        events.push(value("capacity_drops", factor, at(dropped)));
        events.push(value("capacity_mismatch", factor, (at(dropped) - at(formula)).abs()));
    }
    Ok(events.into())
}

/// Visits that find their expert's buffer full, first come first served in the order of tokens.
fn with_capacity(visits: &[Visit], experts: usize, capacity: usize) -> usize {
    let mut order: Vec<&Visit> = visits.iter().collect();
    order.sort_by_key(|visit| visit.row);
    let mut buffers: Vec<Vec<usize>> = vec![vec![]; experts];
    let mut dropped = 0;
    for visit in order {
        let buffer = &mut buffers[visit.expert];
        if buffer.len() < capacity { buffer.push(visit.row) } else { dropped += 1 }
    }
    dropped
}

/// Σ max(0, n_e − C).
fn overflow(visits: &[Visit], experts: usize, capacity: usize) -> usize {
    (0..experts).map(|e| visits.iter().filter(|v| v.expert == e).count().saturating_sub(capacity)).sum()
}

/// Experts, tokens, experts per token and sizes of [`padding_waste`].
const EXPERTS: usize = 8;
const BATCH: usize = 1024;
const TOP_K: usize = 2;
const HIDDEN: usize = 256;
const FFN: usize = 512;
/// Interleaved pairs of timed passes.
const PAIRS: usize = 9;

/// Expert sizes under Zipf routing (probability of expert e ∝ 1/(e + 1), no expert twice per token): `padded_over_dropless_flops` when
/// every expert is padded to the largest, so that none is dropped, and `padded_over_dropless_time` of the products themselves,
/// median of interleaved pairs; `uniform_padded_over_dropless_flops` is the same with a balanced router.
pub fn padding_waste(held: &Held) -> Result<Outcome> {
    let mut rng = ChaCha8Rng::seed_from_u64(held.scenario().seed);
    let zipf: Vec<f64> = (0..EXPERTS).map(|e| 1.0 / (e + 1) as f64).collect();
    let loads = draw(&zipf, &mut rng);
    let balanced = draw(&[1.0; EXPERTS], &mut rng);
    let waste = |loads: &[usize]| at(EXPERTS * loads.iter().max().copied().unwrap_or(0)) / at(BATCH * TOP_K);
    let mut linear = |rows: usize, cols: usize| {
        let bound = (3.0 / cols as f32).sqrt();
        let values: Vec<f32> = (0..rows * cols).map(|_| rng.random_range(-bound..bound)).collect();
        build_linear(&WeightsSpec::F32, &held.device, WeightSource::F32(&values), rows, cols, None)
    };
    let experts = (0..EXPERTS).map(|_| Ok((linear(FFN, HIDDEN)?, linear(HIDDEN, FFN)?))).collect::<Result<Vec<_>>>()?;
    let run = |rows: &[usize]| {
        let (mut inner, mut out) = (Activations::default(), Activations::default());
        let inputs: Vec<Activations> =
            rows.iter().map(|&n| Activations::from_vec(n, HIDDEN, vec![0.5; n * HIDDEN])).collect();
        let clock = Stopwatch::start();
        for ((up, down), x) in experts.iter().zip(&inputs).filter(|(_, x)| x.rows() > 0) {
            up.forward(x, &mut inner);
            down.forward(&inner, &mut out);
        }
        clock.ns() as f64
    };
    let padded = vec![loads.iter().max().copied().unwrap_or(0); EXPERTS];
    run(&padded);
    run(&loads);
    let mut ratios: Vec<f64> = (0..PAIRS).map(|_| run(&padded) / run(&loads)).collect();
    ratios.sort_by(f64::total_cmp);
    let median = *ratios.get(PAIRS / 2).context("no pair was timed")?;
    Ok(vec![
        value("padded_over_dropless_flops", at(EXPERTS), waste(&loads)),
        value("padded_over_dropless_time", at(EXPERTS), median),
        value("uniform_padded_over_dropless_flops", at(EXPERTS), waste(&balanced)),
    ]
    .into())
}

/// Rows per expert when each token visits [`TOP_K`] different ones by `weights`.
fn draw(weights: &[f64], rng: &mut ChaCha8Rng) -> Vec<usize> {
    let mut loads = vec![0; weights.len()];
    for _ in 0..BATCH {
        let mut left = weights.to_vec();
        for _ in 0..TOP_K {
            let mut at = rng.random::<f64>() * left.iter().sum::<f64>();
            let last = left.iter().rposition(|w| *w > 0.0).unwrap_or(0);
            let chosen = left.iter().position(|w| {
                at -= w;
                at < 0.0
            });
            let chosen = chosen.unwrap_or(last);
            loads[chosen] += 1;
            left[chosen] = 0.0;
        }
    }
    loads
}
