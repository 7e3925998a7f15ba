//! Identities of decoding that hold exactly, measured through the real decoders on tables of known probabilities.
//!
//! The functions return numbers; whoever calls them decides what passes. All are deterministic in their seed.

use model::{SeqId, TokenId};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use crate::chi_square::{ChiSquare, goodness_of_fit};
use crate::sampling::{self, min_p};
use crate::table::TableModel;
use crate::{Decoder, Ledger, Sampled, SamplingSpec, Sequence, Speculative, SpeculativeSpec};

/// Why an identity could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A table holds no distributions.
    #[error(transparent)]
    Table(#[from] crate::table::TableError),
    /// The decoder cannot be built.
    #[error(transparent)]
    Spec(#[from] crate::SpecError),
    /// A pass failed.
    #[error(transparent)]
    Decode(#[from] crate::DecodeError),
    /// A count is too small to measure anything.
    #[error("{what} is {value}: expected at least {least}")]
    TooFew {
        /// What is counted.
        what: &'static str,
        /// What was given.
        value: usize,
        /// What is needed.
        least: usize,
    },
}

/// Tokens per target run of speculation on i.i.d. tables.
#[derive(Debug, Clone, PartialEq)]
pub struct TokensPerRun {
    /// Mean tokens emitted per target run.
    pub mean: f64,
    /// Standard error of the mean.
    pub standard_error: f64,
    /// Exact acceptance rate, Σ_x min(p(x), q(x)).
    pub alpha: f64,
    /// [`expected_tokens`] at that α.
    pub expected: f64,
    /// What was counted.
    pub ledger: Ledger,
}

/// Expected tokens per target run, (1 - α^{γ+1}) / (1 - α), for i.i.d. acceptance α; γ + 1 at α = 1.
/// Leviathan et al. 2023, equation 1.
pub fn expected_tokens(alpha: f64, gamma: usize) -> f64 {
    // the geometric sum itself: no cancellation near α = 1
    (0..=gamma as i32).map(|i| alpha.powi(i)).sum()
}

/// Acceptance rate of drafts from `q` for the target `p`, `[vocab]` both: Σ_x min(p(x), q(x)), theorem 3.5 there.
pub fn acceptance_rate(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| p.min(*q)).sum()
}

/// Runs `runs` verifications with target `p` and draft `q`, `[vocab]` both, i.i.d.
pub fn measure_tokens_per_run(
    p: &[f64],
    q: &[f64],
    gamma: usize,
    runs: usize,
    seed: u64,
) -> Result<TokensPerRun, IdentityError> {
    at_least("runs", runs, 2)?;
    let spec = SpeculativeSpec { gamma, sampling: Some(SamplingSpec { seed, ..SamplingSpec::default() }) };
    let mut decoder = Speculative::new(spec, Box::new(TableModel::iid(p)?), Box::new(TableModel::iid(q)?))?;
    // never short of room for γ drafts, so that every run is a full one
    let mut sequences = [new_sequence(0, TokenId(0), runs * (gamma + 1) + gamma + 2, seed)];
    decoder.advance(&mut sequences)?;
    let (mut sum, mut sum_of_squares) = (0.0, 0.0);
    for _ in 0..runs {
        let n_tokens =
            decoder.advance(&mut sequences)?.iter().map(|emitted| emitted.tokens.len()).sum::<usize>() as f64;
        sum += n_tokens;
        sum_of_squares += n_tokens * n_tokens;
    }
    let n = runs as f64;
    let mean = sum / n;
    let variance = (sum_of_squares - n * mean * mean).max(0.0) / (n - 1.0);
    let alpha = acceptance_rate(p, q);
    let ledger = decoder.ledger().cloned().unwrap_or_default();
    Ok(TokensPerRun {
        mean,
        standard_error: (variance / n).sqrt(),
        alpha,
        expected: expected_tokens(alpha, gamma),
        ledger,
    })
}

/// Tokens whose joint distribution [`lossless_sampling`] tests: the prompt's own, and two that speculation emits.
pub const FIRST_TOKENS: usize = 3;

/// χ² of the first [`FIRST_TOKENS`] tokens of `n` sequences, decoded by speculation from random first-order Markov
/// tables, against the target's exact joint distribution.
pub fn lossless_sampling(vocab: usize, gamma: usize, n: usize, seed: u64) -> Result<ChiSquare, IdentityError> {
    at_least("vocab", vocab, 2)?;
    let (target, draft) = random_pair(vocab, seed);
    let spec = SpeculativeSpec { gamma, sampling: Some(SamplingSpec { seed, ..SamplingSpec::default() }) };
    let models = (Box::new(TableModel::markov(&target)?), Box::new(TableModel::markov(&draft)?));
    let mut decoder = Speculative::new(spec, models.0, models.1)?;
    first_tokens(&mut decoder, &target, gamma, n, seed)
}

/// χ² of the first [`FIRST_TOKENS`] tokens that `decoder` gives `n` sequences after token 0, against the exact joint
/// distribution of the Markov chain `target`, `[vocab][vocab]`. γ drafts fit into each sequence.
pub fn first_tokens(
    decoder: &mut dyn Decoder,
    target: &[Vec<f64>],
    gamma: usize,
    n: usize,
    seed: u64,
) -> Result<ChiSquare, IdentityError> {
    let vocab = target.len();
    let mut counts = vec![0u64; vocab.pow(FIRST_TOKENS as u32)];
    let max_new_tokens = FIRST_TOKENS.max(gamma + 2);
    for_sequences(decoder, n, max_new_tokens, seed, |sequence| {
        let first = &sequence.generated()[..FIRST_TOKENS];
        counts[first.iter().fold(0, |cell, token| cell * vocab + token.0 as usize)] += 1;
    })?;
    let joint = |cell: usize| {
        let tokens = [cell / (vocab * vocab), cell / vocab % vocab, cell % vocab];
        target[0][tokens[0]] * target[tokens[0]][tokens[1]] * target[tokens[1]][tokens[2]]
    };
    let exact: Vec<f64> = (0..counts.len()).map(joint).collect();
    Ok(goodness_of_fit(counts, &exact))
}

/// Random target and draft transition tables, `[vocab][vocab]`. The draft is half the target's row and half a random
/// one, so that it is right often enough to be of use, and wrong often enough to be corrected.
pub fn random_pair(vocab: usize, seed: u64) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let mut rng = table_rng(seed);
    let mut rows = || -> Vec<Vec<f64>> { (0..vocab).map(|_| random_distribution(&mut rng, vocab)).collect() };
    let (target, other) = (rows(), rows());
    let mix = |(p, r): (&Vec<f64>, &Vec<f64>)| p.iter().zip(r).map(|(p, r)| 0.5 * p + 0.5 * r).collect();
    let draft = target.iter().zip(&other).map(mix).collect();
    (target, draft)
}

/// What min-p kept over random logits, compared with its definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinPDefinition {
    /// Random logit vectors and thresholds tried.
    pub trials: usize,
    /// Tokens kept though p(x) < p_base · max p, or removed though not.
    pub mismatches: usize,
    /// Tokens kept or removed only after one number was added to every logit.
    pub shift_mismatches: usize,
}

/// Compares min-p with {x : p(x) ≥ p_base · max p}, p from a plain softmax, and with itself under shifts.
pub fn min_p_definition(vocab: usize, trials: usize, seed: u64) -> Result<MinPDefinition, IdentityError> {
    at_least("vocab", vocab, 1)?;
    let mut rng = table_rng(seed);
    let mut found = MinPDefinition { trials, mismatches: 0, shift_mismatches: 0 };
    for _ in 0..trials {
        // multiples of 1/1024, so that adding a multiple of it is exact
        let mut grid = |range: i32| f64::from(rng.random_range(-range..=range)) / 1024.0;
        let logits: Vec<f64> = (0..vocab).map(|_| grid(8 * 1024)).collect();
        let shift = grid(100 * 1024);
        let base: f64 = rng.random();
        let kept = |shift: f64| -> Vec<bool> {
            let mut scores: Vec<f64> = logits.iter().map(|logit| logit + shift).collect();
            min_p::apply(&mut scores, base);
            scores.iter().map(|score| *score > f64::NEG_INFINITY).collect()
        };
        let sum: f64 = logits.iter().map(|logit| logit.exp()).sum();
        let p: Vec<f64> = logits.iter().map(|logit| logit.exp() / sum).collect();
        let max_p = p.iter().copied().fold(0.0, f64::max);
        let (plain, shifted) = (kept(0.0), kept(shift));
        found.mismatches += (0..vocab).filter(|&x| plain[x] != (p[x] >= base * max_p)).count();
        found.shift_mismatches += (0..vocab).filter(|&x| plain[x] != shifted[x]).count();
    }
    Ok(found)
}

/// χ² of `n` tokens sampled with `min_p` from a random distribution against that distribution, cut by the definition
/// and renormalised.
pub fn min_p_frequencies(vocab: usize, base: f32, n: usize, seed: u64) -> Result<ChiSquare, IdentityError> {
    at_least("vocab", vocab, 2)?;
    let p = random_distribution(&mut table_rng(seed), vocab);
    let max_p = p.iter().copied().fold(0.0, f64::max);
    let cut: Vec<f64> = p.iter().map(|&p| if p >= f64::from(base) * max_p { p } else { 0.0 }).collect();
    let sum: f64 = cut.iter().sum();
    let exact: Vec<f64> = cut.iter().map(|p| p / sum).collect();
    let spec = SamplingSpec { min_p: Some(base), seed, ..SamplingSpec::default() };
    spec.validate()?;
    let mut decoder = Sampled::new(spec, Box::new(TableModel::iid(&p)?));
    let mut counts = vec![0u64; vocab];
    for_sequences(&mut decoder, n, 1, seed, |sequence| counts[sequence.generated()[0].0 as usize] += 1)?;
    Ok(goodness_of_fit(counts, &exact))
}

/// Softmax of standard-normal-like logits of spread 1.5: a few likely tokens, none impossible.
fn random_distribution(rng: &mut ChaCha8Rng, vocab: usize) -> Vec<f64> {
    // the sum of twelve uniforms less six has mean 0 and variance 1
    let mut normal = || (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
    let logits: Vec<f32> = (0..vocab).map(|_| (1.5 * normal()) as f32).collect();
    sampling::distribution(&logits, &SamplingSpec::default()).unwrap_or_default()
}

/// Random numbers for tables, on a stream that no sequence draws from.
fn table_rng(seed: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(u64::MAX);
    rng
}

/// Sequences decoded together: enough to exercise batching, few enough to stay in cache.
const BATCH: usize = 64;

/// Decodes `n` sequences of prompt [0] to their end, a batch at a time, and shows each to `observe`.
fn for_sequences(
    decoder: &mut dyn Decoder,
    n: usize,
    max_new_tokens: usize,
    seed: u64,
    mut observe: impl FnMut(&Sequence),
) -> Result<(), IdentityError> {
    at_least("n", n, 1)?;
    for start in (0..n).step_by(BATCH) {
        let ids = start..(start + BATCH).min(n);
        let mut sequences: Vec<Sequence> =
            ids.map(|id| new_sequence(id as u32, TokenId(0), max_new_tokens, seed)).collect();
        while !decoder.advance(&mut sequences)?.is_empty() {}
        for sequence in &sequences {
            observe(sequence);
            decoder.release(sequence.id());
        }
    }
    Ok(())
}

fn new_sequence(id: u32, prompt: TokenId, max_new_tokens: usize, seed: u64) -> Sequence {
    Sequence::new(SeqId(id), vec![prompt], max_new_tokens, vec![], seed).expect("a prompt of one token")
}

fn at_least(what: &'static str, value: usize, least: usize) -> Result<(), IdentityError> {
    if value < least { Err(IdentityError::TooFew { what, value, least }) } else { Ok(()) }
}
