//! Beam search against every continuation there is, against greedy, and against itself without forks.

use decoding::identities::random_pair;
use decoding::table::TableModel;
use decoding::{Beam, BeamSpec, Decoder, Greedy, Hypothesis, Sequence};
use model::{SeqId, TokenId};

use crate::{afresh, run, sequence};

fn markov(rows: &[Vec<f64>]) -> TableModel {
    TableModel::markov(rows).expect("rows of distributions")
}

fn search(spec: &BeamSpec, model: TableModel, sequence: &mut Sequence) -> Vec<Hypothesis> {
    let mut decoder = Beam::new(spec.clone(), Box::new(model)).expect("in range");
    while sequence.finished().is_none() {
        decoder.advance(std::slice::from_mut(sequence)).expect("tables fit");
    }
    decoder.hypotheses(sequence.id()).to_vec()
}

/// Every continuation of `last` that stops at `stop` or has `limit` tokens, with its summed log-probability.
fn all_continuations(rows: &[Vec<f64>], last: usize, limit: usize, stop: usize) -> Vec<(Vec<u32>, f64)> {
    let mut ended = vec![];
    let mut open = vec![(vec![], last, 0.0)];
    while let Some((tokens, last, sum)) = open.pop() {
        for (token, p) in rows[last].iter().enumerate() {
            let (mut tokens, sum): (Vec<u32>, f64) = (tokens.clone(), sum + p.ln());
            tokens.push(token as u32);
            if token == stop || tokens.len() == limit {
                ended.push((tokens, sum));
            } else {
                open.push((tokens, token, sum));
            }
        }
    }
    ended
}

#[test]
fn a_wide_enough_search_is_exhaustive() {
    let (vocab, limit, stop) = (4, 4, 2);
    for seed in 0..8 {
        let (rows, _) = random_pair(vocab, seed);
        for length_penalty in [-0.5, 0.0, 0.6, 1.0, 2.0] {
            let spec = BeamSpec { n_beams: vocab.pow(limit as u32), length_penalty, early_stopping: false };
            let mut expected = all_continuations(&rows, 1, limit, stop);
            let score = |(tokens, sum): &(Vec<u32>, f64)| sum / (tokens.len() as f64).powf(length_penalty);
            expected.sort_by(|a, b| score(b).total_cmp(&score(a)));
            let mut found = sequence(0, &[1], limit, &[stop as u32]);
            let hypotheses = search(&spec, markov(&rows), &mut found);
            assert_eq!(hypotheses.len(), expected.len());
            for (hypothesis, expected) in hypotheses.iter().zip(&expected) {
                assert!((hypothesis.score - score(expected)).abs() < 1e-5, "seed {seed}, {}", spec.tag());
                assert_eq!(hypothesis.stopped, hypothesis.tokens.ends_with(&[TokenId(stop as u32)]));
            }
            let best: Vec<u32> = found.generated().iter().map(|t| t.0).collect();
            assert_eq!(best, expected[0].0, "seed {seed}, {}", spec.tag());
        }
    }
}

#[test]
fn one_beam_is_greedy() {
    let (rows, _) = random_pair(24, 3);
    let prompts: Vec<Sequence> =
        (0..24).map(|id| sequence(id, &[id, id / 2], 1 + id as usize * 2, &[5, 6][..id as usize % 3])).collect();
    let mut expected: Vec<Sequence> = prompts.iter().map(afresh).collect();
    run(&mut Greedy::new(Box::new(markov(&rows))), &mut expected);
    for length_penalty in [-1.0, 0.0, 0.6, 1.0, 3.0] {
        for early_stopping in [false, true] {
            let spec = BeamSpec { n_beams: 1, length_penalty, early_stopping };
            let mut found: Vec<Sequence> = prompts.iter().map(afresh).collect();
            run(&mut Beam::new(spec.clone(), Box::new(markov(&rows))).expect("in range"), &mut found);
            for (found, expected) in found.iter().zip(&expected) {
                assert_eq!(found.tokens(), expected.tokens(), "{}", spec.tag());
                assert_eq!(found.finished(), expected.finished());
            }
        }
    }
}

#[test]
fn a_model_without_forks_finds_the_same() {
    let (rows, _) = random_pair(16, 9);
    for n_beams in [2, 3, 5, 8] {
        let spec = BeamSpec { n_beams, length_penalty: 0.6, early_stopping: n_beams == 3 };
        let prompts: Vec<Sequence> = (0..5).map(|id| sequence(id, &[id, 3], 20 + id as usize, &[7])).collect();
        let forked = prompts.iter().map(|p| search(&spec, markov(&rows), &mut afresh(p)));
        let replayed = prompts.iter().map(|p| search(&spec, markov(&rows).without_forks(), &mut afresh(p)));
        assert!(forked.eq(replayed), "{}", spec.tag());
    }
}

#[test]
fn a_released_search_leaves_nothing_behind() {
    let (rows, _) = random_pair(8, 1);
    let spec = BeamSpec::default();
    let mut decoder = Beam::new(spec, Box::new(markov(&rows))).expect("in range");
    let mut first = None;
    for _ in 0..3 {
        // the table panics at a Step that does not continue what it has cached
        let mut sequences = [sequence(0, &[1, 2], 12, &[]), sequence(1, &[3], 9, &[4])];
        while sequences.iter().any(|s| s.finished().is_none()) {
            decoder.advance(&mut sequences).expect("tables fit");
        }
        assert_eq!(decoder.hypotheses(SeqId(0)).len(), 4);
        assert_eq!(decoder.hypotheses(SeqId(0))[0].tokens, sequences[0].generated());
        sequences.iter().for_each(|s| decoder.release(s.id()));
        assert!(decoder.hypotheses(SeqId(0)).is_empty());
        let texts = sequences.each_ref().map(|s| s.tokens().to_vec());
        assert_eq!(first.get_or_insert_with(|| texts.clone()), &texts);
    }
}
