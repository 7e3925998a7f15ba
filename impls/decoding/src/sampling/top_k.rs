//! **What** Top-k: keeps the k most likely tokens.
//! **Source** Fan, Lewis, Dauphin 2018, §5.1; Hugging Face `TopKLogitsWarper`.
//! **Shapes** scores `[vocab]`, in place.
//! **Method** 1. find the k-th largest score; 2. remove what is smaller.
//! **Exactness** the set by definition; tokens tied with the k-th are all kept, as the reference does.
//! **Cost** a linear-time selection over a copy of `vocab` scores.
//! **Not handled** nothing known; k above the vocabulary keeps everything.

/// Removes every score below the `k`-th largest; `k` is at least 1.
pub fn apply(scores: &mut [f64], k: usize) {
    if k >= scores.len() {
        return;
    }
    let mut copy = scores.to_vec();
    let (_, &mut kth, _) = copy.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    scores.iter_mut().filter(|score| **score < kth).for_each(|score| *score = f64::NEG_INFINITY);
}
