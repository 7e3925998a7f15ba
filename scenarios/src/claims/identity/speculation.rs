//! Speculative decoding: the same tokens, the same distribution, and as many tokens per run as the formula says.

use anyhow::{Context, Result};
use decoding::identities as measured;
use decoding::table::TableModel;
use decoding::{Decoder, DecodingSpec, Ledger, Sampled, SamplingSpec, Sequence, SpeculativeSpec};
use engine::Engine;
use model::{SeqId, Session, StepModel, TokenId};
use rand::{SeedableRng, rngs::ChaCha8Rng};

use super::{at, prompts, value};
use crate::worker::{Held, Outcome, progress};

/// Drafted tokens per run that everything here is measured at.
const GAMMAS: [usize; 4] = [1, 2, 4, 8];
/// Sequences that advance together.
const BATCH: usize = 25;
const PROMPT_TOKENS: usize = 24;

/// The engine, when it has a draft.
fn pair(held: &Held) -> std::result::Result<&Engine, Outcome> {
    let refused = || {
        Outcome::Refused(
            "this identity is one of a model pair: name a `draft` in [model] and a speculative decoding part".into(),
        )
    };
    held.engine.as_ref().filter(|e| e.draft.is_some()).ok_or_else(refused)
}

fn boxed(
    engine: &Engine,
    transformer: &std::sync::Arc<model::Transformer>,
    context: usize,
) -> Result<Box<dyn StepModel>> {
    let kv = engine.spec.kv.build(transformer.kv_shape(), context, &engine.device)?;
    Ok(Box::new(Session::new(transformer.clone(), kv)))
}

/// A decoder over fresh sessions of the pair; without γ a plain one.
fn decoder(engine: &Engine, gamma: Option<usize>, context: usize) -> Result<Box<dyn Decoder>> {
    let target = boxed(engine, &engine.target, context)?;
    let Some(gamma) = gamma else { return Ok(DecodingSpec::Greedy.build(target, None)?) };
    let draft = boxed(engine, engine.draft.as_ref().context("no draft is built")?, context)?;
    let spec = SpeculativeSpec { gamma, ..SpeculativeSpec::default() };
    Ok(DecodingSpec::Speculative(spec).build(target, Some(draft))?)
}

/// Tokens generated after each prompt, `batch` sequences at a time.
fn generate(
    decoder: &mut dyn Decoder,
    prompts: &[Vec<TokenId>],
    new_tokens: usize,
    batch: usize,
) -> Result<Vec<Vec<TokenId>>> {
    let mut all = vec![];
    for group in prompts.chunks(batch) {
        let sequence =
            |(i, prompt): (usize, &Vec<TokenId>)| Sequence::new(SeqId(i as u32), prompt.clone(), new_tokens, vec![], 0);
        let mut sequences = group.iter().enumerate().map(sequence).collect::<Result<Vec<_>, _>>()?;
        while !decoder.advance(&mut sequences)?.is_empty() {}
        for sequence in &sequences {
            decoder.release(sequence.id());
            all.push(sequence.generated().to_vec());
        }
    }
    Ok(all)
}

/// `differing_prompts` of `prompts` at each γ. Plain decoding runs one sequence at a time, speculation several, so that
/// the number of rows in a Step differs as much as it can.
pub fn lossless_greedy(held: &Held) -> Result<Outcome> {
    const PROMPTS: usize = 200;
    const NEW_TOKENS: usize = 16;
    let engine = match pair(held) {
        Ok(engine) => engine,
        Err(refused) => return Ok(refused),
    };
    let prompts = prompts(held, PROMPTS, PROMPT_TOKENS)?;
    progress("plain greedy", 0, 1 + GAMMAS.len());
    // room for one draft run beyond the end
    let context = PROMPT_TOKENS + NEW_TOKENS + 16;
    let plain = generate(&mut *decoder(engine, None, context)?, &prompts, NEW_TOKENS, 1)?;
    let mut events = vec![value("prompts", 0.0, at(PROMPTS))];
    for (i, gamma) in GAMMAS.into_iter().enumerate() {
        progress("speculative", 1 + i, 1 + GAMMAS.len());
        let mut decoder = decoder(engine, Some(gamma), context)?;
        let speculative = generate(&mut *decoder, &prompts, NEW_TOKENS, BATCH)?;
        let differing = plain.iter().zip(&speculative).filter(|(a, b)| a != b).count();
        events.push(value("differing_prompts", at(gamma), at(differing)));
        let alpha = decoder.ledger().and_then(Ledger::alpha).unwrap_or(0.0);
        events.push(value("alpha", at(gamma), alpha));
    }
    Ok(events.into())
}

/// `p_value` of a χ² test of the first three tokens against the exact joint distribution, by γ; `p_value_of_draft`, the
/// same for tokens sampled from the draft alone, shows that the test can tell.
pub fn lossless_sampling(held: &Held) -> Result<Outcome> {
    const VOCAB: usize = 16;
    const SEQUENCES: usize = 100_000;
    let seed = held.scenario().seed;
    let mut events = vec![];
    for (i, gamma) in GAMMAS.into_iter().enumerate() {
        progress("sampling", i, GAMMAS.len());
        let test = measured::lossless_sampling(VOCAB, gamma, SEQUENCES, seed)?;
        events.push(value("p_value", at(gamma), test.p_value));
        events.push(value("degrees_of_freedom", at(gamma), at(test.dof)));
    }
    let (target, draft) = measured::random_pair(VOCAB, seed);
    let spec = SamplingSpec { seed, ..SamplingSpec::default() };
    let mut alone = Sampled::new(spec, Box::new(TableModel::markov(&draft)?));
    let test = measured::first_tokens(&mut alone, &target, 1, SEQUENCES / 10, seed)?;
    events.push(value("p_value_of_draft", 0.0, test.p_value));
    Ok(events.into())
}

/// `z_score`: (tokens per run − formula) / standard error on i.i.d. tables of known α. `tokens_over_formula` of the model
/// pair: tokens per run over the formula at the α that was measured; its sign against 1 is what independence hides.
pub fn expected_tokens(held: &Held) -> Result<Outcome> {
    const VOCAB: usize = 32;
    const RUNS: usize = 40_000;
    const PROMPTS: usize = 50;
    const NEW_TOKENS: usize = 96;
    let engine = match pair(held) {
        Ok(engine) => engine,
        Err(refused) => return Ok(refused),
    };
    let seed = held.scenario().seed;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (p, other) = (random_distribution(&mut rng, VOCAB), random_distribution(&mut rng, VOCAB));
    let q: Vec<f64> = p.iter().zip(&other).map(|(p, o)| 0.6 * p + 0.4 * o).collect();
    let mut events = vec![];
    for gamma in GAMMAS {
        let found = measured::measure_tokens_per_run(&p, &q, gamma, RUNS, seed)?;
        let z = (found.mean - found.expected) / found.standard_error;
        events.push(value("z_score", at(gamma), z));
        events.push(value("distance_in_standard_errors", at(gamma), z.abs()));
        events.push(value("table_alpha", at(gamma), found.alpha));
    }
    let prompts = prompts(held, PROMPTS, PROMPT_TOKENS)?;
    for (i, gamma) in GAMMAS.into_iter().enumerate() {
        progress("model pair", i, GAMMAS.len());
        let mut decoder = decoder(engine, Some(gamma), PROMPT_TOKENS + NEW_TOKENS + 16)?;
        generate(&mut *decoder, &prompts, NEW_TOKENS, BATCH)?;
        let ledger = decoder.ledger().context("a speculative decoder keeps a ledger")?;
        let alpha = ledger.alpha().context("nothing was drafted")?;
        // the last runs of a sequence may draft fewer than γ
        let drafted = ledger.drafted as f64 / ledger.target_runs as f64;
        let expected = measured::expected_tokens(alpha, gamma);
        let found = ledger.emitted as f64 / ledger.target_runs as f64;
        events.push(value("alpha", at(gamma), alpha));
        events.push(value("drafted_per_run", at(gamma), drafted));
        events.push(value("tokens_per_run", at(gamma), found));
        events.push(value("tokens_over_formula", at(gamma), found / expected));
    }
    Ok(events.into())
}

/// Softmax of standard-normal logits of spread 1.5.
fn random_distribution(rng: &mut ChaCha8Rng, vocab: usize) -> Vec<f64> {
    use rand_distr::{Distribution, StandardNormal};
    let weights: Vec<f64> =
        (0..vocab).map(|_| (1.5 * Distribution::<f64>::sample(&StandardNormal, rng)).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|w| w / sum).collect()
}
