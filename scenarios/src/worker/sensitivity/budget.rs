//! Spending a byte budget: one choice per matrix, least total damage.

/// What one matrix may get.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// Bytes it takes.
    pub bytes: u64,
    /// Damage it does.
    pub damage: f64,
}

/// Buckets that a budget is divided into; a choice's bytes are rounded up to them, so that the budget is kept.
const BUCKETS: usize = 1 << 15;

/// For each matrix the index of its choice, such that the bytes stay within `budget` and the sum of damages is least
/// (multiple-choice knapsack by dynamic programming over [`BUCKETS`] of bytes; a mixture that needs the last thousandth of the
/// budget may be missed). `None` when even the smallest choices exceed it.
pub fn spend(matrices: &[Vec<Choice>], budget: u64) -> Option<Vec<usize>> {
    let bucket = budget.div_ceil(BUCKETS as u64).max(1);
    let n_buckets = (budget / bucket) as usize;
    // best[b]: least damage of the matrices so far in at most b buckets
    let mut best = vec![0.0f64; n_buckets + 1];
    let mut chosen: Vec<Vec<usize>> = vec![];
    for choices in matrices {
        let mut next = vec![f64::INFINITY; n_buckets + 1];
        let mut pick = vec![0; n_buckets + 1];
        for (index, choice) in choices.iter().enumerate() {
            let size = choice.bytes.div_ceil(bucket) as usize;
            for b in size..=n_buckets {
                let damage = best[b - size] + choice.damage.max(0.0);
                if damage < next[b] {
                    (next[b], pick[b]) = (damage, index);
                }
            }
        }
        best = next;
        chosen.push(pick);
    }
    let mut left = n_buckets;
    if best[left].is_infinite() {
        return None;
    }
    let mut picks = vec![0; matrices.len()];
    for (m, pick) in chosen.iter().enumerate().rev() {
        picks[m] = pick[left];
        left -= matrices[m][pick[left]].bytes.div_ceil(bucket) as usize;
    }
    Some(picks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(bytes: u64, damage: f64) -> Choice {
        Choice { bytes, damage }
    }

    #[test]
    fn equals_trying_every_mixture() {
        let matrices: Vec<Vec<Choice>> = (0..5u64)
            .map(|m| {
                (0..3u64).map(|c| choice(100 + 90 * c + 7 * m, ((m + 1) * 5 % 7) as f64 / (c + 1) as f64)).collect()
            })
            .collect();
        for budget in [600, 800, 1000, 1200, 2000] {
            let mut least = f64::INFINITY;
            for code in 0..3usize.pow(5) {
                let picks: Vec<usize> = (0..5).map(|m| code / 3usize.pow(m) % 3).collect();
                let of = |f: fn(&Choice) -> f64| picks.iter().zip(&matrices).map(|(&p, m)| f(&m[p])).sum::<f64>();
                if of(|c| c.bytes as f64) <= budget as f64 {
                    least = least.min(of(|c| c.damage));
                }
            }
            let picks = spend(&matrices, budget).unwrap();
            let damage: f64 = picks.iter().zip(&matrices).map(|(&p, m)| m[p].damage).sum();
            let bytes: u64 = picks.iter().zip(&matrices).map(|(&p, m)| m[p].bytes).sum();
            assert!(bytes <= budget && (damage - least).abs() < 1e-9, "{budget}: {damage} against {least}");
        }
    }

    #[test]
    fn an_impossible_budget_is_refused() {
        assert_eq!(spend(&[vec![choice(10, 0.0)]], 9), None);
    }
}
