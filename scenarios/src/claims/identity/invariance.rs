//! Batch invariance: the bits of one sequence's logits, whatever else the engine does at the same time.

use std::collections::BTreeSet;

use anyhow::Result;
use model::{SeqId, Session, Step, StepModel, TokenId};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use super::{SEQ, at, engine, prompts, session, value};
use crate::worker::{Held, Outcome, progress};

/// Tokens of each text, and how many of them are fed one by one at the end.
const TOKENS: usize = 40;
const SINGLE_TOKENS: usize = 4;
/// Sequences in the largest batch.
const MOST_SEQUENCES: usize = 16;
/// Runs among random neighbours, and tokens that each generates.
const LOADED_RUNS: u64 = 200;
const NEW_TOKENS: usize = 16;

/// Values of one sequence's last logits whose bits change: `differing_logits` when 1, 3, 7 or 15 other sequences share its
/// Steps (x = sequences in all), `chunked_differing_logits` when its prompt comes in pieces (x = tokens per piece),
/// `thread_differing_logits` on one thread. `distinct_outputs` and `distinct_logits` count what [`LOADED_RUNS`] greedy
/// completions of one prompt come to among random neighbours that come and go, its prompt cut at random.
pub fn batch_invariance(held: &Held) -> Result<Outcome> {
    let engine = match engine(held) {
        Ok(engine) => engine,
        Err(refused) => return Ok(refused),
    };
    let Some(models) = &held.models else { return Ok(Outcome::Refused("no model is open".into())) };
    let texts = prompts(held, MOST_SEQUENCES, TOKENS)?;
    let differing = |a: &[f32], b: &[f32]| at(a.iter().zip(b).filter(|(a, b)| a.to_bits() != b.to_bits()).count());
    let alone = last_logits(&mut session(engine, 64)?, &texts[..1])?;
    let mut events = vec![];
    for n in [2, 4, 8, MOST_SEQUENCES] {
        let among = last_logits(&mut session(engine, 64)?, &texts[..n])?;
        events.push(value("differing_logits", at(n), differing(&alone, &among)));
    }
    for chunk in [1, 3, 8, 17, 32] {
        let mut session = session(engine, 64)?;
        let mut last = vec![];
        for start in (0..TOKENS).step_by(chunk) {
            let piece = &texts[0][start..TOKENS.min(start + chunk)];
            last = session.forward(&Step::extend(SEQ, start, piece))?.row(0).to_vec();
        }
        events.push(value("chunked_differing_logits", at(chunk), differing(&alone, &last)));
    }
    if !engine.spec.weights.needs_calibration() {
        let quiet = &mut |_, _| {};
        let options = engine::BuildOptions { context_tokens: 64, calibration: &[], progress: quiet };
        let device = engine.spec.device.open(1)?;
        let spec = engine::EngineSpec { decoding: decoding::DecodingSpec::Greedy, ..engine.spec.clone() };
        let single = engine::Engine::build(&spec, &models.target, None, &device, options)?;
        let threads = last_logits(&mut session(&single, 64)?, &texts[..1])?;
        events.push(value("thread_differing_logits", 1.0, differing(&alone, &threads)));
    }
    let (mut outputs, mut logits) = (BTreeSet::new(), BTreeSet::new());
    let mut loaded = session(engine, 64)?;
    for run in 0..LOADED_RUNS {
        progress("completions under load", run as usize, LOADED_RUNS as usize);
        let (tokens, last) = under_load(&mut loaded, &texts, held.scenario().seed ^ run)?;
        outputs.insert(tokens);
        logits.insert(last.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
    }
    events.push(value("distinct_outputs", LOADED_RUNS as f64, at(outputs.len())));
    events.push(value("distinct_logits", LOADED_RUNS as f64, at(logits.len())));
    Ok(events.into())
}

fn seq(i: usize) -> SeqId {
    SeqId(i as u32)
}

/// Logits of the first of `texts` after its prompt and [`SINGLE_TOKENS`] further Steps of one token per sequence.
fn last_logits(session: &mut Session, texts: &[Vec<TokenId>]) -> Result<Vec<f32>> {
    let n_prompt = TOKENS - SINGLE_TOKENS;
    let prompts: Vec<Step> =
        texts.iter().enumerate().map(|(i, text)| Step::extend(seq(i), 0, &text[..n_prompt])).collect();
    session.forward(&Step::batch(&prompts))?;
    let mut last = vec![];
    for row in n_prompt..TOKENS {
        let steps: Vec<Step> =
            texts.iter().enumerate().map(|(i, text)| Step::extend(seq(i), row, &text[row..=row])).collect();
        last = session.forward(&Step::batch(&steps))?.row(0).to_vec();
    }
    Ok(last)
}

/// Greedy completion of the first of `texts` (its first half) while others are read beside it: how many, from when on and in
/// what pieces is drawn from `seed`, as is the cut of the prompt. Tokens, and the logits of the last.
fn under_load(session: &mut Session, texts: &[Vec<TokenId>], seed: u64) -> Result<(Vec<u32>, Vec<f32>)> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let n = rng.random_range(1..=texts.len());
    let starts: Vec<usize> = (0..n).map(|i| if i == 0 { 0 } else { rng.random_range(0..NEW_TOKENS) }).collect();
    let mut done = vec![0; n];
    let mut own = texts[0][..TOKENS / 2].to_vec();
    let mut last = vec![];
    (0..texts.len()).for_each(|i| session.truncate(seq(i), 0));
    for round in 0.. {
        let mut steps = vec![];
        for i in 0..n {
            let text = if i == 0 { &own } else { &texts[i] };
            let end = text.len().min(done[i] + rng.random_range(1..=12));
            if round >= starts[i] && done[i] < end {
                steps.push(Step::extend(seq(i), done[i], &text[done[i]..end]));
                done[i] = end;
            }
        }
        last = session.forward(&Step::batch(&steps))?.row(0).to_vec();
        if done[0] == own.len() {
            if own.len() == TOKENS / 2 + NEW_TOKENS {
                break;
            }
            let best = last.iter().enumerate().fold(0, |best, (i, &v)| if v > last[best] { i } else { best });
            own.push(TokenId(best as u32));
        }
    }
    Ok((own[TOKENS / 2..].iter().map(|t| t.0).collect(), last))
}
