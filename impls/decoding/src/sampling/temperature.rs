//! **What** Temperature: sharpens (below 1) or flattens (above 1) the distribution.
//! **Source** Ackley, Hinton, Sejnowski 1985; Hugging Face `TemperatureLogitsWarper`.
//! **Shapes** scores `[vocab]`, in place.
//! **Method** 1. divide each score by the temperature.
//! **Exactness** one f64 division; the order of tokens is unchanged.
//! **Cost** `vocab` divisions.
//! **Not handled** temperature 0, which [`distribution`](super::distribution) turns into greedy.

/// Divides `scores` by `temperature`, which is larger than 0.
pub fn apply(scores: &mut [f64], temperature: f64) {
    if temperature != 1.0 {
        scores.iter_mut().for_each(|score| *score /= temperature);
    }
}
