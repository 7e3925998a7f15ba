//! Limits, stop tokens, failures, batches.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use decoding::identities::random_pair;
use decoding::table::TableModel;
use decoding::{
    DecodeError, Decoder, DecodingSpec, Finish, Greedy, SamplingSpec, Sequence, Speculative, SpeculativeSpec,
};
use model::{Activations, CacheFull, SeqId, Step, StepError, StepModel, TokenId};

use crate::{afresh, run, sequence, tokens};

const VOCAB: usize = 12;

/// After token t comes t + 1, round and round.
fn counter() -> TableModel {
    let row = |t: usize| (0..VOCAB).map(|x| f64::from(u8::from(x == (t + 1) % VOCAB))).collect();
    TableModel::markov(&(0..VOCAB).map(row).collect::<Vec<_>>()).expect("rows of distributions")
}

fn build(spec: &DecodingSpec, target: TableModel, draft: TableModel) -> Box<dyn Decoder> {
    let draft = spec.needs_draft().then(|| Box::new(draft) as Box<dyn StepModel>);
    spec.build(Box::new(target), draft).expect("one vocabulary")
}

#[test]
fn length_limits_are_met_exactly() {
    for spec in DecodingSpec::all() {
        for max_new_tokens in 0..=12 {
            let mut decoder = build(&spec, counter(), counter());
            let mut sequences = [sequence(0, &[3, 4, 5], max_new_tokens, &[])];
            run(decoder.as_mut(), &mut sequences);
            let expected: Vec<u32> = (6..6 + max_new_tokens as u32).map(|t| t % VOCAB as u32).collect();
            assert_eq!(sequences[0].generated(), tokens(&expected), "{}", spec.tag());
            assert_eq!(sequences[0].finished(), Some(Finish::Length));
            assert_eq!(sequences[0].remaining(), 0);
        }
    }
}

#[test]
fn a_stop_token_inside_an_accepted_run_cuts_it() {
    for gamma in 1..=8 {
        for stop in 1..VOCAB as u32 {
            let spec = SpeculativeSpec { gamma, sampling: None };
            let mut decoder = Speculative::new(spec, Box::new(counter()), Box::new(counter())).expect("one vocabulary");
            let mut sequences = [sequence(0, &[0], 40, &[stop])];
            run(&mut decoder, &mut sequences);
            assert_eq!(sequences[0].generated(), tokens(&(1..=stop).collect::<Vec<_>>()));
            assert_eq!(sequences[0].finished(), Some(Finish::Stop));
            let ledger = decoder.ledger().expect("it drafts");
            assert_eq!(ledger.emitted, u64::from(stop) - 1, "γ {gamma}: all but the prompt's own token");
        }
    }
}

#[test]
fn the_last_token_may_be_both_stop_and_limit() {
    let mut sequences = [sequence(0, &[0], 3, &[3])];
    run(&mut Greedy::new(Box::new(counter())), &mut sequences);
    assert_eq!(sequences[0].finished(), Some(Finish::Stop));
}

#[test]
fn an_empty_prompt_is_refused() {
    let error = Sequence::new(SeqId(4), vec![], 3, vec![], 0).expect_err("no prompt");
    assert_eq!(error.seq, SeqId(4));
}

#[test]
fn no_decoder_needs_more_room_than_plain_decoding() {
    for spec in DecodingSpec::all() {
        let (n_prompt, max_new_tokens) = (3, 9);
        // the last token is never run
        let room = n_prompt + max_new_tokens - 1;
        let mut decoder = build(&spec, counter().with_capacity(room), counter().with_capacity(room));
        run(decoder.as_mut(), &mut [sequence(0, &[3, 4, 5], max_new_tokens, &[])]);
    }
}

#[test]
fn a_full_cache_changes_no_sequence_and_can_be_retried() {
    for spec in DecodingSpec::all() {
        for (target_room, draft_room) in [(8, 100), (100, 8)] {
            if draft_room < target_room && !spec.needs_draft() {
                continue;
            }
            let target = counter().with_capacity(target_room);
            let mut decoder = build(&spec, target, counter().with_capacity(draft_room));
            let mut sequences = [sequence(0, &[3, 4, 5], 4, &[]), sequence(1, &[3, 4, 5], 40, &[])];
            let full = loop {
                let before = sequences.each_ref().map(|s| s.tokens().to_vec());
                if let Err(error) = decoder.advance(&mut sequences) {
                    assert_eq!(sequences.each_ref().map(|s| s.tokens().to_vec()), before);
                    break error;
                }
            };
            assert!(matches!(full, DecodeError::CacheFull(CacheFull { seq: SeqId(1), capacity: 8, .. })));
            // the table would panic here if a failed round had left entries behind
            assert!(decoder.advance(&mut sequences).is_err());
            assert!(decoder.advance(&mut sequences).is_err());
        }
    }
}

/// A model that answers with the same logits always.
struct Constant(Activations, f32);

impl StepModel for Constant {
    fn vocab(&self) -> usize {
        4
    }
    fn forward(&mut self, step: &Step) -> Result<&Activations, StepError> {
        let row = [0.0, self.1, 0.5, self.1];
        self.0 = Activations::from_vec(step.logit_rows.len(), 4, row.repeat(step.logit_rows.len()));
        Ok(&self.0)
    }
    fn truncate(&mut self, _: SeqId, _: usize) {}
}

fn constant(value: f32) -> Box<Constant> {
    Box::new(Constant(Activations::default(), value))
}

#[test]
fn logits_that_are_no_numbers_are_errors() {
    for spec in DecodingSpec::all() {
        for value in [f32::NAN, f32::INFINITY] {
            let draft = || spec.needs_draft().then(|| constant(0.0) as Box<dyn StepModel>);
            let mut decoder = spec.build(constant(value), draft()).expect("one vocabulary");
            let mut sequences = [sequence(7, &[0, 1], 5, &[])];
            let error = decoder.advance(&mut sequences).expect_err("no numbers");
            assert!(
                matches!(error, DecodeError::Logits { model: "target", seq: SeqId(7), position: 2, .. }),
                "{error}"
            );
            assert!(sequences[0].generated().is_empty());
            let message = error.to_string();
            assert!(message.contains("token 1"), "{message}");
        }
    }
    let spec = DecodingSpec::Speculative(SpeculativeSpec::default());
    let mut decoder = spec.build(constant(0.0), Some(constant(f32::NAN))).expect("one vocabulary");
    let mut sequences = [sequence(7, &[0, 1], 5, &[])];
    decoder.advance(&mut sequences).expect("the prompt needs no draft");
    let error = decoder.advance(&mut sequences).expect_err("no numbers");
    assert!(matches!(error, DecodeError::Logits { model: "draft", position: 3, .. }), "{error}");
}

#[test]
fn masked_logits_are_never_chosen() {
    for spec in DecodingSpec::all() {
        let draft = spec.needs_draft().then(|| constant(3.0) as Box<dyn StepModel>);
        let mut decoder = spec.build(constant(f32::NEG_INFINITY), draft).expect("one vocabulary");
        let mut sequences = [sequence(0, &[0], 200, &[])];
        run(decoder.as_mut(), &mut sequences);
        assert!(sequences[0].generated().iter().all(|token| token.0 % 2 == 0), "{}", spec.tag());
    }
}

/// A table that shows what happens to it.
struct Watched(TableModel, Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    n_steps: usize,
    n_rows: usize,
    /// Tokens in the cache.
    cached: HashMap<SeqId, Vec<TokenId>>,
}

impl StepModel for Watched {
    fn vocab(&self) -> usize {
        self.0.vocab()
    }
    fn forward(&mut self, step: &Step) -> Result<&Activations, StepError> {
        let mut seen = self.1.lock().expect("unpoisoned");
        seen.n_steps += 1;
        seen.n_rows += step.rows();
        for span in &step.spans {
            seen.cached.entry(span.seq).or_default().extend(&step.tokens[span.rows.clone()]);
        }
        drop(seen);
        self.0.forward(step)
    }
    fn truncate(&mut self, seq: SeqId, len: usize) {
        self.1.lock().expect("unpoisoned").cached.entry(seq).or_default().truncate(len);
        self.0.truncate(seq, len);
    }
}

#[test]
fn caches_hold_the_committed_tokens_and_the_draft_runs_none_twice() {
    let (target, draft) = random_pair(VOCAB, 8);
    let table = |rows: &[Vec<f64>]| TableModel::markov(rows).expect("rows of distributions");
    for sampling in [None, Some(SamplingSpec::default())] {
        for gamma in [1, 2, 5] {
            let (of_target, of_draft) = (Arc::<Mutex<Seen>>::default(), Arc::<Mutex<Seen>>::default());
            let spec = DecodingSpec::Speculative(SpeculativeSpec { gamma, sampling: sampling.clone() });
            let watched_draft = Box::new(Watched(table(&draft), of_draft.clone()));
            let watched_target = Box::new(Watched(table(&target), of_target.clone()));
            let mut decoder = spec.build(watched_target, Some(watched_draft)).expect("one vocabulary");
            let mut sequences: Vec<Sequence> = (0..9).map(|id| sequence(id, &[id, 1, 2], 60, &[])).collect();
            let mut draft_rows = 0;
            while !decoder.advance(&mut sequences).expect("tables fit").is_empty() {
                let (target, draft) = (of_target.lock().expect("unpoisoned"), of_draft.lock().expect("unpoisoned"));
                for sequence in &sequences {
                    let tokens = sequence.tokens();
                    assert_eq!(target.cached[&sequence.id()], tokens[..tokens.len() - 1]);
                    let cached = &draft.cached[&sequence.id()];
                    assert!(tokens.starts_with(cached), "γ {gamma}: the draft remembers a rejected token");
                    let behind = tokens.len() - cached.len();
                    assert!(behind <= 2 || sequence.finished().is_some(), "γ {gamma}: {behind} tokens to catch up");
                }
                draft_rows = draft.n_rows;
            }
            // rows that were taken back: of the drafts not accepted, each round's last was never run
            let ledger = decoder.ledger().expect("it drafts");
            let kept: usize = of_draft.lock().expect("unpoisoned").cached.values().map(Vec::len).sum();
            let n_rejections = ledger.decided_at.iter().sum::<u64>() - ledger.accepted;
            let taken_back = ledger.drafted - ledger.accepted - n_rejections;
            assert_eq!(draft_rows, kept + taken_back as usize, "γ {gamma}");
        }
    }
}

#[test]
fn sequences_share_their_steps() {
    for spec in DecodingSpec::all() {
        let (of_target, of_draft) = (Arc::<Mutex<Seen>>::default(), Arc::<Mutex<Seen>>::default());
        let draft = Box::new(Watched(counter(), of_draft.clone()));
        let draft = spec.needs_draft().then_some(draft as Box<dyn StepModel>);
        let mut decoder = spec.build(Box::new(Watched(counter(), of_target.clone())), draft).expect("one vocabulary");
        let prompts: [&[u32]; 3] = [&[1], &[2, 3, 4, 5], &[7, 8]];
        let mut sequences: Vec<Sequence> = (0..).zip(prompts).map(|(id, p)| sequence(id, p, 11, &[])).collect();
        run(decoder.as_mut(), &mut sequences);
        // greedy: a prompt pass and ten more; speculation accepts all, so 1 + 5 + 5 tokens in three passes
        let expected = if spec.needs_draft() { [3, 1 + 4 + 4] } else { [11, 0] };
        let counted = [of_target, of_draft].map(|seen| seen.lock().expect("unpoisoned").n_steps);
        assert_eq!(counted, expected, "{}", spec.tag());
    }
}

#[test]
fn tokens_do_not_depend_on_the_batch() {
    let (target, draft) = random_pair(VOCAB, 8);
    let table = |rows: &[Vec<f64>]| TableModel::markov(rows).expect("rows of distributions");
    let sampled = SamplingSpec { temperature: 0.9, top_k: Some(6), ..SamplingSpec::default() };
    let extra = DecodingSpec::Speculative(SpeculativeSpec { gamma: 7, sampling: Some(sampled) });
    for spec in DecodingSpec::all().into_iter().chain([extra]) {
        let prompts: Vec<Sequence> =
            (0..20).map(|id| sequence(id, &[id % 12, 1 + id % 3], 5 + 3 * id as usize, &[11])).collect();
        let mut alone: Vec<Sequence> = prompts.iter().map(afresh).collect();
        for one in alone.chunks_mut(1) {
            run(build(&spec, table(&target), table(&draft)).as_mut(), one);
        }
        let mut together: Vec<Sequence> = prompts.iter().map(afresh).collect();
        run(build(&spec, table(&target), table(&draft)).as_mut(), &mut together);
        // and with one more joining after each pass, in another order
        let mut decoder = build(&spec, table(&target), table(&draft));
        let mut joining: Vec<Sequence> = vec![];
        for sequence in prompts.iter().rev() {
            joining.push(afresh(sequence));
            decoder.advance(&mut joining).expect("tables fit");
        }
        run(decoder.as_mut(), &mut joining);
        joining.reverse();
        let texts = |sequences: &[Sequence]| -> Vec<Vec<TokenId>> {
            sequences.iter().map(|sequence| sequence.tokens().to_vec()).collect()
        };
        assert_eq!(texts(&alone), texts(&together), "{}", spec.tag());
        assert_eq!(texts(&alone), texts(&joining), "{}", spec.tag());
    }
}

#[test]
fn another_seed_or_sequence_draws_other_tokens() {
    let (target, draft) = random_pair(VOCAB, 8);
    let spec = DecodingSpec::Sampled(SamplingSpec::default());
    let mut decoder =
        build(&spec, TableModel::markov(&target).expect("a table"), TableModel::markov(&draft).expect("a table"));
    let new = |id, seed| Sequence::new(SeqId(id), tokens(&[1]), 30, vec![], seed).expect("the prompt has tokens");
    let mut first = [new(0, 1), new(1, 1)];
    run(decoder.as_mut(), &mut first);
    let mut again = [new(1, 1), new(0, 2)];
    run(decoder.as_mut(), &mut again);
    assert_ne!(first[0].generated(), first[1].generated());
    assert_eq!(first[1].generated(), again[0].generated());
    assert_ne!(first[0].generated(), again[1].generated());
}

#[test]
fn temperature_zero_is_greedy() {
    let (target, draft) = random_pair(VOCAB, 8);
    let table = |rows: &[Vec<f64>]| TableModel::markov(rows).expect("rows of distributions");
    let zero = SamplingSpec { temperature: 0.0, ..SamplingSpec::default() };
    let prompts = || -> Vec<Sequence> { (0..12).map(|id| sequence(id, &[id], 30, &[])).collect() };
    let mut expected = prompts();
    run(&mut Greedy::new(Box::new(table(&target))), &mut expected);
    for spec in [
        DecodingSpec::Sampled(zero.clone()),
        DecodingSpec::Speculative(SpeculativeSpec { gamma: 4, sampling: Some(zero) }),
    ] {
        let mut found = prompts();
        run(build(&spec, table(&target), table(&draft)).as_mut(), &mut found);
        let equal = found.iter().zip(&expected).all(|(a, b)| a.tokens() == b.tokens());
        assert!(equal, "{}", spec.tag());
    }
}
