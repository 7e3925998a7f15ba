//! Encoder–decoders on pairs that they were never trained on: what they translate, and that cache and formulas agree.

use anyhow::{Context, Result};
use decoding::{BeamSpec, DecodingSpec, Sequence};
use engine::{EncoderDecoderCheckpoint, EncoderDecoderEngine, EncoderDecoderParts, EngineSpec, ModelSource};
use model::encoder_decoder::reference;
use model::{EncoderDecoderSession, SeqId, Step, StepModel, TokenId};
use results::trace::Event;
use serde::Deserialize;

use super::{SEQ, at, largest_difference, value};
use crate::library;
use crate::worker::{Held, Outcome, progress};

/// The text of `held-out.json`.
#[derive(Deserialize)]
struct HeldOut {
    pairs: Vec<Ids>,
}

/// A source and its translation, both with their end token.
#[derive(Deserialize)]
struct Ids {
    source: Vec<u32>,
    target: Vec<u32>,
}

struct Pair {
    source: Vec<TokenId>,
    target: Vec<TokenId>,
}

impl Pair {
    /// What the decoder reads to predict the target.
    fn shifted(&self, start: TokenId) -> Vec<TokenId> {
        [&[start], &self.target[..self.target.len().saturating_sub(1)]].concat()
    }
}

/// What decoding one source gave.
struct Translation {
    tokens: Vec<TokenId>,
    /// Passes of the decoder.
    steps: usize,
}

/// The cell's encoder–decoder with its held-out pairs.
pub struct Translator<'a> {
    held: &'a Held,
    /// As it was read: the reference's weights.
    checkpoint: EncoderDecoderCheckpoint,
    engine: EncoderDecoderEngine,
    pairs: Vec<Pair>,
}

impl<'a> Translator<'a> {
    /// Nothing where the cell's model is no embedded encoder–decoder.
    pub fn of(held: &'a Held) -> Result<Option<Translator<'a>>> {
        let cell = &held.cells[0];
        let open = || match &cell.model {
            Some(part) => library::encoder_decoder(part, held.resolved.file.as_deref()),
            None => Ok(None),
        };
        // one to build from, one to keep for the reference
        let (Some(checkpoint), Some(built)) = (open()?, open()?) else { return Ok(None) };
        let ModelSource::Embedded(name) = &checkpoint.source else { return Ok(None) };
        let Some(text) = library::held_out_pairs(name) else { return Ok(None) };
        let ids = |ids: Vec<u32>| ids.into_iter().map(TokenId).collect();
        let held_out: HeldOut = serde_json::from_str(text).with_context(|| format!("held-out.json of {name}"))?;
        let pairs = held_out.pairs.into_iter().map(|p| Pair { source: ids(p.source), target: ids(p.target) }).collect();
        let engine = build(held, built, &cell.spec)?;
        Ok(Some(Translator { held, checkpoint, engine, pairs }))
    }

    /// A session whose sequence has read `source`.
    fn session(&self, engine: &EncoderDecoderEngine, source: &[TokenId]) -> Result<EncoderDecoderSession> {
        let mut session = engine.session()?;
        session.encode(SEQ, source, None)?;
        Ok(session)
    }

    /// Logits `[target, vocab]` of every pair in one pass, with the session and what it read.
    fn whole(&self, pair: &Pair) -> Result<(EncoderDecoderSession, Vec<TokenId>, Vec<f32>)> {
        let mut session = self.session(&self.engine, &pair.source)?;
        let target = pair.shifted(self.checkpoint.shape.decoder_start);
        let logits = session.forward(&Step::extend(SEQ, 0, &target).with_all_logits())?.as_slice().to_vec();
        Ok((session, target, logits))
    }

    /// `max_logit_difference` to the f64 reference over all pairs, and the largest logit for scale.
    pub fn forward_exact(&self) -> Result<Outcome> {
        let (mut worst, mut largest) = (vec![], 0.0f64);
        for (i, pair) in self.pairs.iter().enumerate() {
            progress("f64 reference", i, self.pairs.len());
            let (_, target, logits) = self.whole(pair)?;
            let EncoderDecoderCheckpoint { shape, tensors, .. } = &self.checkpoint;
            let exact = reference::logits(shape, &**tensors, &pair.source, &target)?.concat();
            largest = exact.iter().fold(largest, |m, v| m.max(v.abs()));
            worst.push(largest_difference(logits.iter().map(|&l| f64::from(l)).zip(exact)));
        }
        let (n, worst) = (at(self.pairs.len()), largest_difference(worst.into_iter().map(|gap| (gap, 0.0))));
        Ok(vec![value("max_logit_difference", n, worst), value("max_logit", n, largest)].into())
    }

    /// `chunked_logit_difference` of targets fed in pieces through the cache from one pass without, x = rows per piece;
    /// `batched_logit_difference` of all pairs token by token side by side, x = pairs.
    pub fn cache_exact(&self) -> Result<Outcome> {
        let mut events = vec![];
        for chunk in [1, 5] {
            let mut worst = vec![];
            for pair in &self.pairs {
                let (mut session, target, whole) = self.whole(pair)?;
                session.truncate(SEQ, 0);
                let mut all = vec![];
                for (i, part) in target.chunks(chunk).enumerate() {
                    let step = Step::extend(SEQ, i * chunk, part).with_all_logits();
                    all.extend_from_slice(session.forward(&step)?.as_slice());
                }
                worst.push((largest_gap(&all, &whole), 0.0));
            }
            events.push(value("chunked_logit_difference", at(chunk), largest_difference(worst.into_iter())));
        }
        events.push(value("batched_logit_difference", at(self.pairs.len()), self.batched()?));
        Ok(events.into())
    }

    fn batched(&self) -> Result<f64> {
        let (mut session, mut wholes) = (self.engine.session()?, vec![]);
        for (seq, pair) in (0..).map(SeqId).zip(&self.pairs) {
            session.encode(seq, &pair.source, None)?;
            let (_, target, logits) = self.whole(pair)?;
            wholes.push((seq, target, logits));
        }
        let vocab = self.checkpoint.shape.vocab_size;
        let longest = wholes.iter().map(|(_, target, _)| target.len()).max().unwrap_or(0);
        let mut gaps = vec![];
        for row in 0..longest {
            let live: Vec<_> = wholes.iter().filter(|(_, target, _)| row < target.len()).collect();
            let steps: Vec<Step> =
                live.iter().map(|(seq, target, _)| Step::extend(*seq, row, &target[row..=row])).collect();
            let logits = session.forward(&Step::batch(&steps))?;
            for (at, (_, _, whole)) in live.iter().enumerate() {
                gaps.push((largest_gap(logits.row(at), &whole[row * vocab..(row + 1) * vocab]), 0.0));
            }
        }
        Ok(largest_difference(gaps.into_iter()))
    }

    fn translate(&self, engine: &EncoderDecoderEngine, pair: &Pair) -> Result<Translation> {
        let shape = &self.checkpoint.shape;
        let mut decoder = engine.decoder(self.session(engine, &pair.source)?)?;
        let most = shape.max_positions - 1;
        let mut sequence = Sequence::new(SEQ, vec![shape.decoder_start], most, vec![shape.end], 0)?;
        let mut steps = 0;
        while sequence.finished().is_none() {
            decoder.advance(std::slice::from_mut(&mut sequence))?;
            steps += 1;
        }
        Ok(Translation { tokens: sequence.generated().to_vec(), steps })
    }

    /// Natural log of the probability of `tokens` as the translation of `source`.
    fn log_probability(&self, source: &[TokenId], tokens: &[TokenId]) -> Result<f64> {
        let pair = Pair { source: source.to_vec(), target: tokens.to_vec() };
        let (_, _, logits) = self.whole(&pair)?;
        let of = |(row, token): (&[f32], &TokenId)| {
            let top = row.iter().fold(f64::NEG_INFINITY, |m, &l| m.max(f64::from(l)));
            let sum: f64 = row.iter().map(|&l| (f64::from(l) - top).exp()).sum();
            f64::from(row[token.0 as usize]) - top - sum.ln()
        };
        Ok(logits.chunks_exact(self.checkpoint.shape.vocab_size).zip(tokens).map(of).sum())
    }

    /// Under the name of one decoding: wrong tokens of each translation (x = pair), mean steps and log-probabilities.
    fn decoded(&self, name: &str, decoding: DecodingSpec) -> Result<Vec<Event>> {
        let spec = EngineSpec { decoding, ..self.held.cells[0].spec.clone() };
        let again = EncoderDecoderCheckpoint::open(&self.checkpoint.source, &library::models())?;
        let checkpoint = again.context("an embedded checkpoint opens once and not twice")?;
        let engine = build(self.held, checkpoint, &spec)?;
        let (mut events, mut steps, mut sum, mut per_token) = (vec![], 0, 0.0, 0.0);
        for (i, pair) in self.pairs.iter().enumerate() {
            progress(name, i, self.pairs.len());
            let found = self.translate(&engine, pair)?;
            let wrong = found.tokens.iter().zip(&pair.target).filter(|(a, b)| a != b).count();
            let wrong = wrong + found.tokens.len().abs_diff(pair.target.len());
            events.push(value(&format!("{name}_wrong_tokens"), at(i), at(wrong)));
            let log_p = self.log_probability(&pair.source, &found.tokens)?;
            steps += found.steps;
            sum += log_p;
            per_token += log_p / at(found.tokens.len());
        }
        let n = at(self.pairs.len());
        events.push(value(&format!("{name}_steps"), n, at(steps) / n));
        events.push(value(&format!("{name}_log_probability"), n, sum / n));
        events.push(value(&format!("{name}_score"), n, per_token / n));
        Ok(events)
    }
}

/// Greedy and beam-4 translations of the held-out pairs.
pub fn held_out(held: &Held) -> Result<Outcome> {
    let Some(translator) = Translator::of(held)? else {
        let why = "this identity is one of an encoder-decoder with held-out pairs; name an embedded one in [matrix]";
        return Ok(Outcome::Refused(why.into()));
    };
    let mut events = translator.decoded("greedy", DecodingSpec::Greedy)?;
    events.extend(translator.decoded("beam", DecodingSpec::Beam(BeamSpec::default()))?);
    Ok(events.into())
}

fn build(held: &Held, checkpoint: EncoderDecoderCheckpoint, spec: &EngineSpec) -> Result<EncoderDecoderEngine> {
    let room = checkpoint.shape.max_positions;
    let parts = EncoderDecoderParts { spec, device: &held.device, source_tokens: room, target_tokens: room };
    Ok(EncoderDecoderEngine::build(checkpoint, parts)?)
}

/// Largest |a − b|; NaN where the lengths differ.
fn largest_gap(a: &[f32], b: &[f32]) -> f64 {
    match a.len() == b.len() {
        true => largest_difference(a.iter().zip(b).map(|(a, b)| (f64::from(*a), f64::from(*b)))),
        false => f64::NAN,
    }
}
