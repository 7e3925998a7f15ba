//! Speculation keeps the target's output; a decoder that does not is caught.

use decoding::chi_square::ChiSquare;
use decoding::identities::{
    expected_tokens, first_tokens, lossless_sampling, measure_tokens_per_run, min_p_definition, min_p_frequencies,
    random_pair,
};
use decoding::sampling::{distribution, draw};
use decoding::table::TableModel;
use decoding::{
    DecodeError, Decoder, DecodingSpec, Emitted, Greedy, Ledger, SamplingSpec, Sequence, Speculative, SpeculativeSpec,
    accepts, residual,
};
use model::{SeqId, StepModel, TokenId};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use crate::{afresh, run, sequence};

const SIGNIFICANT: f64 = 0.01;

fn markov(rows: &[Vec<f64>]) -> Box<TableModel> {
    Box::new(TableModel::markov(rows).expect("rows of distributions"))
}

#[test]
fn greedy_speculation_equals_plain_greedy_on_a_thousand_prompts() {
    let vocab = 256;
    let (target, draft) = random_pair(vocab, 5);
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let mut below = |n: usize| rng.random_range(0..n as u32);
    let sequences: Vec<Sequence> = (0..1000)
        .map(|id| {
            let prompt: Vec<u32> = (0..=below(9)).map(|_| below(vocab)).collect();
            let stop: Vec<u32> = (0..below(4)).map(|_| below(vocab)).collect();
            sequence(id, &prompt, 1 + below(40) as usize, &stop)
        })
        .collect();
    let mut expected: Vec<Sequence> = sequences.iter().map(afresh).collect();
    run(&mut Greedy::new(markov(&target)), &mut expected);
    for (gamma, batch) in [(1, 1000), (2, 7), (3, 64), (4, 1), (5, 13), (8, 100), (16, 3)] {
        let spec = SpeculativeSpec { gamma, sampling: None };
        let mut decoder = Speculative::new(spec, markov(&target), markov(&draft)).expect("one vocabulary");
        let mut found: Vec<Sequence> = sequences.iter().map(afresh).collect();
        found.chunks_mut(batch).for_each(|batch| run(&mut decoder, batch));
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found.tokens(), expected.tokens(), "γ {gamma}, batch {batch}, {:?}", found.id());
            assert_eq!(found.finished(), expected.finished());
        }
        let ledger = decoder.ledger().expect("it drafts");
        let alpha = ledger.alpha().expect("it drafted");
        assert!((0.2..0.95).contains(&alpha), "both accepted and rejected drafts are wanted, α {alpha}");
    }
}

#[test]
fn speculation_keeps_the_sampled_distribution() {
    for gamma in [1, 2, 4, 8] {
        let fit = lossless_sampling(16, gamma, 100_000, 1).expect("tables fit");
        assert!(fit.p_value > SIGNIFICANT, "γ {gamma}: χ² {} on {} dof, p {}", fit.statistic, fit.dof, fit.p_value);
        assert!(fit.dof > 500, "most of the joint distribution is tested, not pooled: {}", fit.dof);
    }
}

#[test]
fn filters_apply_to_both_distributions() {
    let (target, draft) = random_pair(16, 2);
    let sampling = SamplingSpec { temperature: 1.4, top_k: Some(9), top_p: Some(0.9), min_p: Some(0.05), seed: 3 };
    let filter = |row: &Vec<f64>| {
        let logits: Vec<f32> = row.iter().map(|p| p.ln() as f32).collect();
        distribution(&logits, &sampling).expect("finite logits")
    };
    let filtered: Vec<Vec<f64>> = target.iter().map(filter).collect();
    for spec in [
        DecodingSpec::Sampled(sampling.clone()),
        DecodingSpec::Speculative(SpeculativeSpec { gamma: 3, sampling: Some(sampling.clone()) }),
    ] {
        let draft = spec.needs_draft().then(|| markov(&draft) as Box<dyn StepModel>);
        let mut decoder = spec.build(markov(&target), draft).expect("one vocabulary");
        let fit = first_tokens(decoder.as_mut(), &filtered, 3, 100_000, 4).expect("tables fit");
        assert!(fit.p_value > SIGNIFICANT, "{}: χ² {} on {} dof", spec.tag(), fit.statistic, fit.dof);
    }
}

/// Which step of the algorithm a [`Mutant`] gets wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mistake {
    None,
    ResamplesFromTarget,
    AcceptsWithoutRatio,
    ForgetsTheDraftDistribution,
}

/// One-draft speculation on Markov tables, written apart from the decoder under test, with one mistake.
struct Mutant {
    target: Vec<Vec<f64>>,
    draft: Vec<Vec<f64>>,
    mistake: Mistake,
    model: Box<TableModel>,
}

impl Decoder for Mutant {
    fn advance(&mut self, sequences: &mut [Sequence]) -> Result<Vec<Emitted>, DecodeError> {
        let mut emitted = vec![];
        for sequence in sequences.iter_mut().filter(|sequence| sequence.finished().is_none()) {
            let chosen = self.round(sequence);
            emitted.push(Emitted { seq: sequence.id(), tokens: sequence.commit(&chosen).to_vec() });
        }
        Ok(emitted)
    }
    fn ledger(&self) -> Option<&Ledger> {
        None
    }
    fn release(&mut self, _: SeqId) {}
    fn target(&self) -> &dyn StepModel {
        self.model.as_ref()
    }
}

impl Mutant {
    fn round(&self, sequence: &mut Sequence) -> Vec<TokenId> {
        let last = sequence.tokens()[sequence.tokens().len() - 1].0 as usize;
        let (p, q) = (&self.target[last], &self.draft[last]);
        let x = draw(q, sequence.uniform());
        let uniform_q = vec![1.0 / q.len() as f64; q.len()];
        let accepted = match self.mistake {
            Mistake::AcceptsWithoutRatio => sequence.uniform() < p[x.0 as usize],
            Mistake::ForgetsTheDraftDistribution => accepts(p, &uniform_q, x, sequence.uniform()),
            _ => accepts(p, q, x, sequence.uniform()),
        };
        let u = sequence.uniform();
        if accepted {
            return vec![x, draw(&self.target[x.0 as usize], u)];
        }
        match self.mistake {
            Mistake::ResamplesFromTarget => vec![draw(p, u)],
            _ => vec![draw(&residual(p, q), u)],
        }
    }
}

#[test]
fn wrong_acceptance_rules_are_rejected() {
    let (target, draft) = random_pair(16, 1);
    let fit = |mistake| -> ChiSquare {
        let mut mutant = Mutant { target: target.clone(), draft: draft.clone(), mistake, model: markov(&target) };
        first_tokens(&mut mutant, &target, 1, 100_000, 8).expect("tables fit")
    };
    assert!(fit(Mistake::None).p_value > SIGNIFICANT, "the rule itself passes");
    for mistake in [Mistake::ResamplesFromTarget, Mistake::AcceptsWithoutRatio, Mistake::ForgetsTheDraftDistribution] {
        let fit = fit(mistake);
        assert!(fit.p_value < 1e-9, "{mistake:?} passes: χ² {} on {} dof", fit.statistic, fit.dof);
    }
}

#[test]
fn tokens_per_target_run_follow_the_formula() {
    let p = [0.4, 0.3, 0.2, 0.1];
    for (q, alpha) in [([0.1, 0.2, 0.3, 0.4], 0.6), ([0.3, 0.3, 0.2, 0.2], 0.9), ([0.0, 0.0, 0.0, 1.0], 0.1)] {
        for gamma in [1, 2, 4, 8] {
            let measured = measure_tokens_per_run(&p, &q, gamma, 20_000, 9).expect("tables fit");
            assert!((measured.alpha - alpha).abs() < 1e-12);
            let sigmas = (measured.mean - measured.expected) / measured.standard_error;
            // twelve comparisons: 3.3 standard errors are a 99 % interval for all of them together
            assert!(sigmas.abs() < 3.3, "α {alpha}, γ {gamma}: {} vs {}", measured.mean, measured.expected);
            let ledger = measured.ledger;
            assert_eq!(ledger.target_runs, 20_000);
            assert_eq!(ledger.drafted, 20_000 * gamma as u64);
            assert_eq!(ledger.emitted, ledger.accepted + ledger.target_runs);
            assert_eq!(ledger.accepted, ledger.accepted_at.iter().sum::<u64>());
            assert_eq!(ledger.drafted, ledger.drafted_at.iter().sum::<u64>());
            let estimate = ledger.alpha().expect("it drafted");
            assert!((estimate - alpha).abs() < 0.02, "α {alpha}, γ {gamma}: estimate {estimate}");
        }
    }
}

#[test]
fn the_formula_has_the_published_values() {
    assert!((expected_tokens(0.9, 10) - 6.86).abs() < 0.005);
    assert!((expected_tokens(0.8, 5) - 3.69).abs() < 0.005);
    assert_eq!(expected_tokens(0.0, 4), 1.0);
    assert_eq!(expected_tokens(1.0, 4), 5.0);
}

#[test]
fn identical_models_always_agree_and_disjoint_ones_never() {
    let p = [0.5, 0.5, 0.0, 0.0];
    let same = measure_tokens_per_run(&p, &p, 4, 500, 1).expect("tables fit");
    assert_eq!((same.mean, same.standard_error, same.ledger.accepted), (5.0, 0.0, 2000));
    let never = measure_tokens_per_run(&p, &[0.0, 0.0, 0.5, 0.5], 4, 500, 1).expect("tables fit");
    assert_eq!((never.mean, never.ledger.accepted), (1.0, 0));
}

#[test]
fn min_p_is_its_definition() {
    let found = min_p_definition(97, 2000, 3).expect("a vocabulary");
    assert_eq!((found.trials, found.mismatches, found.shift_mismatches), (2000, 0, 0));
    let fit = min_p_frequencies(64, 0.1, 100_000, 3).expect("tables fit");
    assert!(fit.p_value > SIGNIFICANT, "χ² {} on {} dof", fit.statistic, fit.dof);
    assert!(fit.dof >= 3 && fit.expected.contains(&0.0), "some tokens stay, some go: {} dof", fit.dof);
}
