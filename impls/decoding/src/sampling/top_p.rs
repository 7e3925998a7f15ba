//! **What** Top-p (nucleus): keeps the smallest set of most likely tokens whose mass reaches p.
//! **Source** Holtzman et al. 2020 (arXiv 1904.09751), §3.1; Hugging Face `TopPLogitsWarper`.
//! **Shapes** scores `[vocab]`, in place.
//! **Method** 1. mass of each token still possible; 2. the largest ones in order, a growing block at a time, until the
//!   mass before a token is p or more; 3. remove that token and all smaller ones.
//! **Exactness** the set by definition, in f64; among equal scores at the border the lower token ids stay. p = 1 keeps
//!   everything, whatever the sum rounds to.
//! **Cost** `vocab` exponentials, a linear-time selection per block, a sort of the last block.
//! **Not handled** a minimum number of tokens other than 1.

use super::largest;

/// Removes all but the nucleus of mass `p`, which is larger than 0.
pub fn apply(scores: &mut [f64], p: f64) {
    if p >= 1.0 {
        return;
    }
    let max = largest(scores);
    // 1. mass, relative to the largest token
    let mut tokens: Vec<(f64, usize)> = scores.iter().map(|score| (score - max).exp()).zip(0..).collect();
    let enough = p * tokens.iter().map(|(mass, _)| mass).sum::<f64>();
    // 2. most tokens are far outside the nucleus, so sort no more than a block that holds it
    let n_kept = nucleus_len(&mut tokens, enough);
    // 3.
    tokens[n_kept..].iter().for_each(|&(_, token)| scores[token] = f64::NEG_INFINITY);
}

/// Moves the largest masses to the front and returns how many of them reach `enough`.
fn nucleus_len(tokens: &mut [(f64, usize)], enough: f64) -> usize {
    let descending = |a: &(f64, usize), b: &(f64, usize)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    let mut block = 64;
    loop {
        block = block.min(tokens.len());
        if block < tokens.len() {
            tokens.select_nth_unstable_by(block, descending);
        }
        tokens[..block].sort_unstable_by(descending);
        let mut before = 0.0;
        for (n_kept, &(mass, _)) in tokens[..block].iter().enumerate() {
            if before >= enough {
                return n_kept;
            }
            before += mass;
        }
        if block == tokens.len() {
            return block;
        }
        block *= 8;
    }
}
