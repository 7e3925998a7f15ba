//! Timed workloads of an engine: prompt processing, generation, and requests as a user sees them.

use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use decoding::{Decoder, DecodingSpec, Ledger, Sequence};
use engine::{Engine, WorkCount};
use model::{Activations, KvBytes, SeqId, Session, Step, StepError, StepModel, TokenId};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use results::trace::{Chunk, Event, Work};

use super::cell::{Held, Outcome};
use crate::forecast;
use crate::stopwatch::Stopwatch;

const SEQ: SeqId = SeqId(0);

/// What a model did since the last reset.
#[derive(Default)]
struct Tally {
    ns: u64,
    work: WorkCount,
}

/// A session that notes the time and the least work of every Step.
struct Noted {
    session: Session,
    tally: Arc<Mutex<Tally>>,
}

impl StepModel for Noted {
    fn vocab(&self) -> usize {
        self.session.vocab()
    }

    fn forward(&mut self, step: &Step) -> Result<&Activations, StepError> {
        let mut work = WorkCount::default();
        for span in &step.spans {
            let logit_rows = step.logit_rows.iter().filter(|r| span.rows.contains(r)).count();
            let context = span.kv_len - span.rows.len();
            work = work.plus(WorkCount::of_step(
                &self.session.transformer,
                &*self.session.kv,
                span.rows.len() as u64,
                context as u64,
                logit_rows as u64,
            ));
        }
        let transformer = &self.session.transformer;
        // sequences of one Step share one reading of the weights; of experts each visits its own
        if transformer.architecture().experts.is_none() {
            let again = step.spans.len().saturating_sub(1) * transformer.weight_bytes();
            work.bytes = work.bytes.saturating_sub(again as u64);
        }
        let clock = Stopwatch::start();
        let logits = self.session.forward(step)?;
        let ns = clock.ns();
        let mut tally = self.tally.lock().unwrap_or_else(|e| e.into_inner());
        tally.ns += ns;
        tally.work = tally.work.plus(work);
        Ok(logits)
    }

    fn truncate(&mut self, seq: SeqId, len: usize) {
        self.session.truncate(seq, len);
    }

    fn fork(&mut self, from: SeqId, to: SeqId) -> bool {
        self.session.fork(from, to)
    }

    fn kv_bytes(&self) -> KvBytes {
        self.session.kv_bytes()
    }
}

/// A decoder whose models are noted.
struct NotedDecoder {
    decoder: Box<dyn Decoder>,
    target: Arc<Mutex<Tally>>,
    draft: Arc<Mutex<Tally>>,
}

impl NotedDecoder {
    fn new(engine: &Engine) -> Result<NotedDecoder> {
        let (target, draft) = (Arc::<Mutex<Tally>>::default(), Arc::<Mutex<Tally>>::default());
        let noted = |session: Session, tally: &Arc<Mutex<Tally>>| {
            Box::new(Noted { session, tally: tally.clone() }) as Box<dyn StepModel>
        };
        // the engine may hold a draft for another cell of its group
        let draft_session = if engine.spec.decoding.needs_draft() { engine.draft_session()? } else { None };
        let decoder =
            engine.spec.decoding.build(noted(engine.session()?, &target), draft_session.map(|s| noted(s, &draft)))?;
        Ok(NotedDecoder { decoder, target, draft })
    }

    fn take(tally: &Mutex<Tally>) -> Tally {
        std::mem::take(&mut *tally.lock().unwrap_or_else(|e| e.into_inner()))
    }

    /// Tokens that one call added.
    fn advance(&mut self, sequence: &mut Sequence) -> Result<usize> {
        let emitted = self.decoder.advance(std::slice::from_mut(sequence))?;
        Ok(emitted.iter().map(|e| e.tokens.len()).sum())
    }
}

fn work(count: WorkCount) -> Work {
    Work { bytes: count.bytes, flops: count.flops, int8_ops: count.int8_ops }
}

/// Uniform random tokens: what they say does not change how long a pass takes.
fn synthetic(held: &Held, engine: &Engine, n: usize) -> Vec<TokenId> {
    let vocab = engine.target.architecture().vocab_size as u32;
    let mut rng = ChaCha8Rng::seed_from_u64(held.scenario().seed);
    (0..n).map(|_| TokenId(rng.random_range(0..vocab))).collect()
}

fn engine(held: &Held) -> Result<&Engine> {
    held.engine.as_ref().context("this workload needs a [model]")
}

/// Forward passes over prompts of the given lengths; logits for the last row only.
pub fn prefill(held: &Held, lengths: &[usize]) -> Result<Outcome> {
    let engine = engine(held)?;
    let mut session = engine.session()?;
    let mut events = vec![];
    let mut kv = KvBytes::default();
    for &n in lengths {
        let step = Step::extend(SEQ, 0, &synthetic(held, engine, n));
        // room is made before the clock starts: a server reserves when it admits a request
        session.kv.reserve(SEQ, n)?;
        let floor = engine.work(&session, n as u64, 0, 1);
        let clock = Stopwatch::start();
        session.forward(&step)?;
        events.push(Event::Prefill { n_tokens: n as u32, context: 0, duration_ns: clock.ns(), work: work(floor) });
        kv = session.kv_bytes();
        session.truncate(SEQ, 0);
    }
    events.push(held.memory(kv.logical, kv.resident));
    Ok(events.into())
}

/// Generation of `tokens` after a `context`-token prompt whose own pass is not timed.
pub fn decode(held: &Held, tokens: usize, context: usize, repetition: u32) -> Result<Outcome> {
    let engine = engine(held)?;
    let mut decoder = NotedDecoder::new(engine)?;
    let prompt = prompt(held, engine, context.max(1), repetition)?;
    let mut sequence = Sequence::new(SEQ, prompt, tokens + 1, vec![], held.scenario().seed)?;
    // the prompt's pass gives the first token
    let mut made = decoder.advance(&mut sequence)?;
    NotedDecoder::take(&decoder.target);
    NotedDecoder::take(&decoder.draft);
    // beam search has made it too and emits it later
    let first = made.max(1);
    let clock = Stopwatch::start();
    while sequence.finished().is_none() {
        made += decoder.advance(&mut sequence)?;
    }
    let duration_ns = clock.ns();
    let (target, draft) = (NotedDecoder::take(&decoder.target), NotedDecoder::take(&decoder.draft));
    let floor = work(target.work.plus(draft.work));
    let mut events =
        vec![Event::Decode { n_tokens: (made - first) as u32, context: context as u32, duration_ns, work: floor }];
    events.extend(decoder.decoder.ledger().map(|ledger| speculation(ledger, draft.ns, target.ns)));
    let kv = decoder.decoder.target().kv_bytes();
    events.push(held.memory(kv.logical, kv.resident));
    Ok(events.into())
}

/// Generation of `tokens` for each of `sequences` at once, behind `context` tokens each of their own; prompts are not timed.
pub fn decode_together(held: &Held, tokens: usize, context: usize, sequences: usize) -> Result<Outcome> {
    let engine = engine(held)?;
    if engine.spec.decoding != DecodingSpec::Greedy {
        let tag = engine.spec.decoding.tag();
        return Ok(Outcome::Refused(format!(
            "several sequences advance together by greedy decoding only, not by {tag}"
        )));
    }
    let mut decoder = NotedDecoder::new(engine)?;
    let context = context.max(1);
    let prompts = synthetic(held, engine, sequences * context);
    let mut all = vec![];
    for (i, prompt) in prompts.chunks_exact(context).enumerate() {
        all.push(Sequence::new(SeqId(i as u32), prompt.to_vec(), tokens + 1, vec![], held.scenario().seed)?);
    }
    decoder.decoder.advance(&mut all)?;
    NotedDecoder::take(&decoder.target);
    let clock = Stopwatch::start();
    let mut made = 0;
    while all.iter().any(|sequence| sequence.finished().is_none()) {
        let emitted = decoder.decoder.advance(&mut all)?;
        made += emitted.iter().map(|e| e.tokens.len()).sum::<usize>();
    }
    let duration_ns = clock.ns();
    let floor = work(NotedDecoder::take(&decoder.target).work);
    let mut events = vec![Event::Decode { n_tokens: made as u32, context: context as u32, duration_ns, work: floor }];
    let kv = decoder.decoder.target().kv_bytes();
    events.push(held.memory(kv.logical, kv.resident));
    Ok(events.into())
}

/// Real text where there is a tokenizer, so that drafts have something to predict; the same for every cell.
fn prompt(held: &Held, engine: &Engine, n: usize, repetition: u32) -> Result<Vec<TokenId>> {
    if held.models.as_ref().is_some_and(|m| m.target.tokenizer.is_some()) {
        let tokens = held.tokens_of("embedded:evaluation")?;
        let starts = tokens.len().saturating_sub(n) / 8;
        let start = starts * (repetition as usize % 8);
        if tokens.len() >= start + n {
            return held.prompt_of(&tokens, start, n);
        }
    }
    Ok(synthetic(held, engine, n))
}

fn speculation(ledger: &Ledger, draft_ns: u64, verify_ns: u64) -> Event {
    Event::Speculation {
        drafted: ledger.drafted,
        decided: ledger.decided_at.iter().sum(),
        accepted: ledger.accepted,
        target_runs: ledger.target_runs,
        emitted: ledger.emitted,
        drafted_at: ledger.drafted_at.clone(),
        accepted_at: ledger.accepted_at.clone(),
        draft_ns,
        verify_ns,
    }
}

/// Requests one after the other, each timed from its prompt to its last token.
pub fn generate(held: &Held, text: &str, prompts: usize, prompt_tokens: usize, new_tokens: usize) -> Result<Outcome> {
    let engine = engine(held)?;
    if held.models.as_ref().is_some_and(|m| m.target.tokenizer.is_none()) {
        return Ok(Outcome::Refused("prompts are cut from text, and this model has no tokenizer".into()));
    }
    let tokens = held.tokens_of(text)?;
    if tokens.len() < prompt_tokens {
        return Ok(Outcome::Refused(forecast::fewer(text, tokens.len(), "one prompt", prompt_tokens)));
    }
    let mut decoder = NotedDecoder::new(engine)?;
    let mut events = vec![];
    let mut kv = KvBytes::default();
    for request in 0..prompts {
        let start = (tokens.len() - prompt_tokens) * request / prompts.max(1);
        let seq = SeqId(request as u32);
        let mut sequence = Sequence::new(
            seq,
            held.prompt_of(&tokens, start, prompt_tokens)?,
            new_tokens,
            vec![],
            held.scenario().seed,
        )?;
        let mut chunks = vec![];
        let clock = Stopwatch::start();
        while sequence.finished().is_none() {
            let n = decoder.advance(&mut sequence)?;
            if n > 0 {
                chunks.push(Chunk { at_ns: clock.ns(), n_tokens: n as u32 });
            }
        }
        kv = decoder.decoder.target().kv_bytes();
        decoder.decoder.release(seq);
        events.push(Event::Request { request: request as u32, prompt_tokens: prompt_tokens as u32, chunks });
    }
    let (target, draft) = (NotedDecoder::take(&decoder.target), NotedDecoder::take(&decoder.draft));
    events.extend(decoder.decoder.ledger().map(|ledger| speculation(ledger, draft.ns, target.ns)));
    events.push(held.memory(kv.logical, kv.resident));
    Ok(events.into())
}
