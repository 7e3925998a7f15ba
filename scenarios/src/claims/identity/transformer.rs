//! The forward pass: what the formulas say, and the same through a cache.

use anyhow::Result;
use model::{Activations, SeqId, Session, Step, StepModel, TokenId};
use results::trace::Event;

use super::{SEQ, at, engine, largest_difference, prompts, session, translation, value};
use crate::worker::{Held, Outcome, progress};

/// Prompt lengths of [`forward_exact`]: one token, and lengths around the tiles of the kernels.
const LENGTHS: [usize; 4] = [1, 7, 33, 128];
/// Tokens of [`cache_exact`].
const TOKENS: usize = 96;
/// Rows per pass; the last makes one long pass and one short one.
const CHUNKS: [usize; 4] = [1, 5, 32, 95];

/// `max_logit_difference` at each prompt length, and the largest logit for scale.
///
/// Of an encoder-decoder, x is the number of held-out pairs.
pub fn forward_exact(held: &Held) -> Result<Outcome> {
    if let Some(translator) = translation::Translator::of(held)? {
        return translator.forward_exact();
    }
    let engine = match engine(held) {
        Ok(engine) => engine,
        Err(refused) => return Ok(refused),
    };
    let Some(models) = &held.models else { return Ok(Outcome::Refused("no model is open".into())) };
    let mut events = vec![];
    for (i, &n) in LENGTHS.iter().enumerate() {
        progress("f64 reference", i, LENGTHS.len());
        let prompt = prompts(held, 3, n)?.pop().unwrap_or_default();
        let exact = model::reference::logits(engine.target.architecture(), &*models.target.tensors, &prompt)?;
        let mut session = session(engine, n)?;
        let logits = session.forward(&Step::extend(SEQ, 0, &prompt).with_all_logits())?;
        let pairs = exact.iter().enumerate().flat_map(|(row, exact)| exact.iter().zip(logits.row(row)));
        let largest = exact.iter().flatten().fold(0.0f64, |m, v| m.max(v.abs()));
        events.push(value("max_logit_difference", at(n), largest_difference(pairs.map(|(a, b)| (*a, f64::from(*b))))));
        events.push(value("max_logit", at(n), largest));
    }
    Ok(events.into())
}

/// `chunked_logit_difference` at each chunk length, and `batched_logit_difference` beside another sequence.
pub fn cache_exact(held: &Held) -> Result<Outcome> {
    if let Some(translator) = translation::Translator::of(held)? {
        return translator.cache_exact();
    }
    let engine = match engine(held) {
        Ok(engine) => engine,
        Err(refused) => return Ok(refused),
    };
    let texts = prompts(held, 2, TOKENS)?;
    let mut whole = vec![];
    for text in &texts {
        whole.push(session(engine, TOKENS)?.forward(&Step::extend(SEQ, 0, text).with_all_logits())?.clone());
    }
    let mut events: Vec<Event> = vec![];
    for chunk in CHUNKS {
        let difference = chunked(&mut session(engine, TOKENS)?, &texts[..1], &whole[..1], [chunk, 0])?;
        events.push(value("chunked_logit_difference", at(chunk), difference));
    }
    // two sequences of unequal pace, so that their rows meet in every combination
    for pace in [[16, 11], [1, 40], [7, 1]] {
        let difference = chunked(&mut session(engine, 2 * TOKENS)?, &texts, &whole, pace)?;
        events.push(value("batched_logit_difference", at(pace[0]), difference));
    }
    Ok(events.into())
}

/// Feeds each text in pieces of its own length, all sequences in shared Steps; largest difference from `whole`.
fn chunked(session: &mut Session, texts: &[Vec<TokenId>], whole: &[Activations], pace: [usize; 2]) -> Result<f64> {
    let mut done = vec![0; texts.len()];
    let mut worst = 0.0;
    loop {
        let mut parts = vec![];
        for (seq, text) in texts.iter().enumerate().filter(|(seq, text)| done[*seq] < text.len()) {
            let end = (done[seq] + pace[seq]).min(text.len());
            parts.push((
                seq,
                done[seq]..end,
                Step::extend(SeqId(seq as u32), done[seq], &text[done[seq]..end]).with_all_logits(),
            ));
        }
        if parts.is_empty() {
            return Ok(worst);
        }
        let steps: Vec<Step> = parts.iter().map(|(.., step)| step.clone()).collect();
        let logits = session.forward(&Step::batch(&steps))?;
        let rows = parts.iter().flat_map(|(seq, rows, _)| rows.clone().map(move |row| (*seq, row)));
        for (at, (seq, row)) in rows.enumerate() {
            let pairs = logits.row(at).iter().zip(whole[seq].row(row)).map(|(a, b)| (f64::from(*a), f64::from(*b)));
            let gap = largest_difference(pairs);
            worst = if gap.is_nan() || gap > worst { gap } else { worst };
        }
        parts.iter().for_each(|(seq, rows, _)| done[*seq] = rows.end);
    }
}
