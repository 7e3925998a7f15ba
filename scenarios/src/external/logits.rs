//! Whether another engine's logits are those of the same model: by sizes that outliers of a real model do not break, and that another
//! model, other positions or shifted tokens do.
//!
//! llama.cpp rounds activations where ours need not: to f16 in products with f16, to int8 with codes (per 32 columns, in K formats per
//! 256), and its cache and attention have roundings of their own. On a model with outliers single logits then move by whole units, so the
//! largest difference says little. Rows as a whole say more: how far they lie apart against their own spread, what that means for the
//! distribution, and whether another token comes first. What rounding to int8 does to *this* model is measured on our side, coded against
//! not coded; theirs may be a stated multiple of it, up to a limit that a wrong engine exceeds.
//!
//! Seen with 24 random tokens (spread, mean KL, rows with another token first). SmolLM2-135M, Q4_1: llama.cpp 0.059, 0.010, 0; our
//! coded activations 0.059, 0.010, 0; Q8_0: 0.065, 0.014, 0 and 0.072, 0.015, 0; F16: 0.0014, 0.00001, 0. Gemma-3-270M, Q4_K_M: 0.12,
//! 0.11, 8 % and 0.083, 0.041, 4 %. Rows of the token before instead: 0.87 to 0.95, 2.8 to 6.0, 65 to 87 %.

/// How far rows of logits lie from others.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Apart {
    /// Root mean square of the difference, each row's mean taken off, over that of the reference: 1 and more for unrelated rows.
    pub(super) spread: f64,
    /// Mean KL divergence from the reference, nats.
    pub(super) kl: f64,
    /// Share of rows whose most likely token has under half the probability of the reference's own most likely one there.
    pub(super) other_first: f64,
    /// Rows compared.
    pub(super) rows: usize,
}

/// What theirs may be, as a multiple of what our own coding of activations does.
const MULTIPLE: f64 = 4.0;
/// What 16-bit activations may do to rows.
const HALF_SPREAD: f64 = 0.02;
/// Unrelated rows are 1 apart or more; nothing may come near.
const MOST_SPREAD: f64 = 0.4;
/// Floor and ceiling of the mean divergence, nats.
const KL: [f64; 2] = [0.01, 0.25];
/// Fewer rows have no share to speak of.
const FEW_ROWS: usize = 4;
/// Share of rows that may put a clearly other token first.
const OTHER_FIRST: f64 = 0.25;

/// `found` against `reference`, both `[rows, vocab]`. A number that is not finite makes all infinite.
pub(super) fn compare(reference: &[f32], found: &[f32], vocab: usize) -> Apart {
    let rows = reference.len() / vocab.max(1);
    if rows == 0 || reference.len() != found.len() || found.iter().chain(reference).any(|v| !v.is_finite()) {
        return Apart { spread: f64::INFINITY, kl: f64::INFINITY, other_first: f64::INFINITY, rows };
    }
    let (mut apart, mut size, mut kl, mut other) = (0.0, 0.0, 0.0, 0);
    for (r, f) in reference.chunks_exact(vocab).zip(found.chunks_exact(vocab)) {
        let wide = |row: &[f32]| row.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
        let (r, f) = (wide(r), wide(f));
        let mean = |row: &[f64]| row.iter().sum::<f64>() / vocab as f64;
        let (mean_r, mean_f) = (mean(&r), mean(&f));
        apart += r.iter().zip(&f).map(|(r, f)| ((f - mean_f) - (r - mean_r)).powi(2)).sum::<f64>();
        size += r.iter().map(|r| (r - mean_r).powi(2)).sum::<f64>();
        let total = |row: &[f64]| {
            let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            top + row.iter().map(|v| (v - top).exp()).sum::<f64>().ln()
        };
        let (total_r, total_f) = (total(&r), total(&f));
        kl += r.iter().zip(&f).map(|(r, f)| (r - total_r).exp() * ((r - total_r) - (f - total_f))).sum::<f64>();
        let first = |row: &[f64]| (0..vocab).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap_or(0);
        other += usize::from(r[first(&f)] < r[first(&r)] - std::f64::consts::LN_2);
    }
    let n = rows as f64;
    Apart { spread: (apart / size.max(f64::MIN_POSITIVE)).sqrt(), kl: kl / n, other_first: other as f64 / n, rows }
}

/// What is checked: name, value, limit; `own` is what coding activations does on our side, nothing where neither side codes them.
pub(super) fn limits(found: &Apart, own: &Apart) -> [(&'static str, f64, f64); 3] {
    let spread = (MULTIPLE * own.spread).clamp(HALF_SPREAD, MOST_SPREAD);
    // divergence grows with the square of the difference
    // a single row is no mean and no share: it may be the worst of many (seen: 0.6 nats where the mean was 0.1)
    let few = found.rows < FEW_ROWS;
    let [floor, ceiling] = if few { KL.map(|limit| 4.0 * limit) } else { KL };
    let kl = (MULTIPLE * MULTIPLE * own.kl).clamp(floor, ceiling);
    let other_first = if few { 1.0 } else { OTHER_FIRST };
    [("spread", found.spread, spread), ("kl", found.kl, kl), ("other_first_token", found.other_first, other_first)]
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOCAB: usize = 500;

    /// Rows of pseudo-random logits around 0, of standard deviation 2.
    fn rows(n: usize, seed: u64) -> Vec<f32> {
        let mut state = seed * 2 + 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        (0..n * VOCAB).map(|_| 2.0 * (0..12).map(|_| next()).sum::<f32>()).collect()
    }

    fn passes(found: &Apart, own: &Apart) -> bool {
        limits(found, own).iter().all(|(_, value, limit)| value <= limit)
    }

    #[test]
    fn sizes_worked_out_by_hand() {
        // differences (1, −1, 0) after means of 0 and 7, spread of the reference (1, −1, 0)
        let apart = compare(&[1.0, -1.0, 0.0], &[9.0, 5.0, 7.0], 3);
        assert!((apart.spread - 1.0).abs() < 1e-12 && apart.other_first == 0.0, "{apart:?}");
        // two tokens: p = (0.75, 0.25) against (0.5, 0.5)
        let apart = compare(&[3f32.ln(), 0.0], &[0.0, 0.0], 2);
        let want = 0.75 * 1.5f64.ln() + 0.25 * 0.5f64.ln();
        assert!((apart.kl - want).abs() < 1e-6, "{apart:?}");
        // the other token first, which has a third of the probability
        assert_eq!(compare(&[3f32.ln(), 0.0], &[0.0, 1.0], 2).other_first, 1.0);
        assert_eq!(compare(&[1.5f32.ln(), 0.0], &[0.0, 1.0], 2).other_first, 0.0, "nearly a tie");
    }

    #[test]
    fn rounding_passes_and_outliers_do_not_break_it() {
        let reference = rows(24, 1);
        let noise = rows(24, 2);
        let noisy = |by: f32| -> Vec<f32> { reference.iter().zip(&noise).map(|(r, n)| r + by * n).collect() };
        let own = compare(&reference, &noisy(0.03), VOCAB);
        let mut theirs = noisy(0.06);
        // one logit of a row moves by two units
        theirs[7 * VOCAB + 3] += 2.0;
        assert!(passes(&compare(&reference, &theirs, VOCAB), &own));
        assert!(passes(&compare(&reference, &noisy(0.01), VOCAB), &Apart::default()), "16-bit activations");
    }

    #[test]
    fn wrong_engines_fail_however_much_rounding_costs() {
        let reference = rows(24, 1);
        let coarse = Apart { spread: 10.0, kl: 10.0, other_first: 1.0, rows: 24 };
        let shifted = [&reference[VOCAB..], &reference[..VOCAB]].concat();
        let wrong = [("shifted tokens", shifted), ("other weights", rows(24, 9)), ("zeros", vec![0.0; 24 * VOCAB])];
        for (what, found) in wrong {
            assert!(!passes(&compare(&reference, &found, VOCAB), &coarse), "{what}");
        }
        // as wrong positions do it: half of each row's variance is another's
        let half: Vec<f32> = reference.iter().zip(&rows(24, 5)).map(|(r, o)| (r + o) / 2f32.sqrt()).collect();
        assert!(!passes(&compare(&reference, &half, VOCAB), &coarse));
        let mut broken = reference.clone();
        broken[5] = f32::NAN;
        assert!(!passes(&compare(&reference, &broken, VOCAB), &coarse));
    }
}
