//! **What** Min-p: keeps tokens at least a fraction of the most likely one's probability.
//! **Source** Nguyen et al. 2025 (arXiv 2407.01082), §3; Hugging Face `MinPLogitsWarper`.
//! **Shapes** scores `[vocab]`, in place.
//! **Method** 1. probability of each token relative to the largest, exp(score - max); 2. remove it where that is
//!   below p: the normaliser cancels, so p(x) >= p_base * max p needs no softmax.
//! **Exactness** the set by definition, in f64; unchanged when one number is added to every score.
//! **Cost** `vocab` exponentials.
//! **Not handled** a minimum number of tokens other than 1.

use super::largest;

/// Removes every token whose probability is below `p` times the largest; `p` is in [0, 1].
pub fn apply(scores: &mut [f64], p: f64) {
    let max = largest(scores);
    scores.iter_mut().filter(|score| (**score - max).exp() < p).for_each(|score| *score = f64::NEG_INFINITY);
}
