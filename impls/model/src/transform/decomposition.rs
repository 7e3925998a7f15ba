//! What: the heads' score matrices as one sum of rank-one terms that all heads share: CANDECOMP/PARAFAC by alternating least squares.
//! Source: Cordonnier, Loukas, Jaggi 2020, arXiv 2006.16362, §4.1; the method: Kolda and Bader 2009, figure 3.3.
//! Shapes: T\[i\] = W_q^{i}ᵀ·W_k^i, `[D, D]` for each of h heads; A (queries) `[R, D]`, B (keys) `[R, D]`, C (mixing) `[h, R]`;
//!   T\[i\]\[x\]\[y\] ≈ Σ_r A\[r\]\[x\]·B\[r\]\[y\]·C\[i\]\[r\].
//! Method: 1. R = h·d_k: A and B are the stacked projections and C block one-hot, which is exact. 2. else start from the R of these
//!   terms with the largest |A\[r\]|·|B\[r\]|. 3. repeat: solve for A, for B, for C, each a linear least-squares problem with
//!   the other two fixed, by Cholesky of the R × R normal matrix; stop when the error falls by less than 1e-6 of itself.
//! Exactness: f64; the error never rises from one step to the next but for rounding; no randomness.
//! Cost: per round O(h·R·d_k·D + R³); T is never formed, only its factors.
//! Not handled: regularisation beyond 1e-12 of the normal matrix's trace, which keeps it invertible.

/// Least relative fall of the error that is worth another round.
const WORTH: f64 = 1e-6;

/// Query and key projections of one layer, all heads stacked.
pub struct Heads<'a> {
    /// `[h·d_k, D]`.
    pub q: &'a [f64],
    /// `[h·d_k, D]`.
    pub k: &'a [f64],
    /// h.
    pub n: usize,
    /// D.
    pub hidden: usize,
}

/// Factors that all heads share, and how each mixes them.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Queries `[R, D]`.
    pub q: Vec<f64>,
    /// Keys `[R, D]`.
    pub k: Vec<f64>,
    /// Mixing `[h, R]`.
    pub mixing: Vec<f64>,
    /// ‖T − approximation‖ / ‖T‖ (Frobenius) after each round, the start first.
    pub errors: Vec<f64>,
}

/// Decomposes `heads` into `rank` shared terms in at most `rounds` rounds.
pub fn decompose(heads: &Heads<'_>, rank: usize, rounds: usize) -> Shared {
    let full = heads.q.len() / heads.hidden;
    let mut shared = start(heads, rank);
    let total = norm2(heads);
    shared.errors.push(error(heads, &shared, total));
    if rank >= full {
        return shared;
    }
    for _ in 0..rounds {
        let gram = hadamard(&gram(&shared.k, heads.hidden), &gram_of_columns(&shared.mixing, rank));
        shared.q = solve(gram, transpose(&project(heads, &shared.k, &shared.mixing, [heads.k, heads.q]), rank), rank);
        let gram = hadamard(&self::gram(&shared.q, heads.hidden), &gram_of_columns(&shared.mixing, rank));
        shared.k = solve(gram, transpose(&project(heads, &shared.q, &shared.mixing, [heads.q, heads.k]), rank), rank);
        let gram = hadamard(&self::gram(&shared.q, heads.hidden), &self::gram(&shared.k, heads.hidden));
        let mixed = solve(gram, transpose(&mixture(heads, &shared), rank), rank);
        shared.mixing = transpose(&mixed, heads.n);
        balance(&mut shared, rank, heads.hidden);
        let (last, now) = (shared.errors[shared.errors.len() - 1], error(heads, &shared, total));
        shared.errors.push(now);
        if last - now < WORTH * last {
            break;
        }
    }
    shared
}

/// The `rank` terms with the largest norm among those of the exact form, in their order.
fn start(heads: &Heads<'_>, rank: usize) -> Shared {
    let (d, full) = (heads.hidden, heads.q.len() / heads.hidden);
    let size = |w: &[f64], r: usize| w[r * d..(r + 1) * d].iter().map(|v| v * v).sum::<f64>();
    let mut order: Vec<usize> = (0..full).collect();
    order.sort_by(|&a, &b| (size(heads.q, b) * size(heads.k, b)).total_cmp(&(size(heads.q, a) * size(heads.k, a))));
    order.truncate(rank);
    order.sort_unstable();
    let rows = |w: &[f64]| order.iter().flat_map(|&r| w[r * d..(r + 1) * d].to_vec()).collect();
    let mut mixing = vec![0.0; heads.n * order.len()];
    for (at, &r) in order.iter().enumerate() {
        mixing[r / (full / heads.n) * order.len() + at] = 1.0;
    }
    Shared { q: rows(heads.q), k: rows(heads.k), mixing, errors: vec![] }
}

/// `[rows, D]·[rows', D]ᵀ`.
fn products(a: &[f64], b: &[f64], d: usize) -> Vec<f64> {
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    a.chunks_exact(d).flat_map(|x| b.chunks_exact(d).map(move |y| dot(x, y))).collect()
}

fn gram(a: &[f64], d: usize) -> Vec<f64> {
    products(a, a, d)
}

/// CᵀC of C `[h, rank]`.
fn gram_of_columns(c: &[f64], rank: usize) -> Vec<f64> {
    let columns = transpose(c, rank);
    gram(&columns, c.len() / rank)
}

fn hadamard(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a * b).collect()
}

/// `[rows, cols]` → `[cols, rows]`.
fn transpose(a: &[f64], cols: usize) -> Vec<f64> {
    (0..cols).flat_map(|c| a.iter().skip(c).step_by(cols).copied()).collect()
}

/// Right-hand side for one side's factor `[D, R]`: Σ_i C[i][r]·T[i]·(other factor r), through the two projections.
fn project(heads: &Heads<'_>, other: &[f64], mixing: &[f64], [inner, outer]: [&[f64]; 2]) -> Vec<f64> {
    let (d, rank) = (heads.hidden, other.len() / heads.hidden);
    let head = inner.len() / d / heads.n;
    // [h·d_k, R]
    let inside = products(inner, other, d);
    let mut out = vec![0.0; d * rank];
    for (row, weights) in inside.chunks_exact(rank).enumerate() {
        let mixing = &mixing[row / head * rank..][..rank];
        let weighted: Vec<f64> = weights.iter().zip(mixing).map(|(w, m)| w * m).collect();
        for (x, out) in outer[row * d..][..d].iter().zip(out.chunks_exact_mut(rank)) {
            out.iter_mut().zip(&weighted).for_each(|(o, w)| *o += x * w);
        }
    }
    out
}

/// Right-hand side for the mixing `[h, R]`: A[r]ᵀ·T[i]·B[r].
fn mixture(heads: &Heads<'_>, shared: &Shared) -> Vec<f64> {
    let (d, rank) = (heads.hidden, shared.q.len() / heads.hidden);
    let head = heads.q.len() / d / heads.n;
    let (q, k) = (products(heads.q, &shared.q, d), products(heads.k, &shared.k, d));
    let mut out = vec![0.0; heads.n * rank];
    for (row, (q, k)) in q.chunks_exact(rank).zip(k.chunks_exact(rank)).enumerate() {
        let out = &mut out[row / head * rank..][..rank];
        out.iter_mut().zip(q.iter().zip(k)).for_each(|(o, (q, k))| *o += q * k);
    }
    out
}

/// X `[R, n]` with `gram`·X = `right`; `gram` is symmetric and, with the ridge, positive definite.
fn solve(mut gram: Vec<f64>, mut right: Vec<f64>, rank: usize) -> Vec<f64> {
    let ridge = 1e-12 * (0..rank).map(|i| gram[i * rank + i]).sum::<f64>();
    let n = right.len() / rank;
    for i in 0..rank {
        gram[i * rank + i] += ridge;
        for j in 0..=i {
            let (above, below) = gram.split_at(i * rank);
            let other = if j == i { &below[..j] } else { &above[j * rank..][..j] };
            let sum = below[j] - below[..j].iter().zip(other).map(|(a, b)| a * b).sum::<f64>();
            gram[i * rank + j] = if i == j { sum.max(f64::MIN_POSITIVE).sqrt() } else { sum / gram[j * rank + j] };
        }
    }
    let axpy = |right: &mut [f64], to: usize, from: usize, factor: f64| {
        for c in 0..n {
            right[to * n + c] -= factor * right[from * n + c];
        }
    };
    for i in 0..rank {
        (0..i).for_each(|j| axpy(&mut right, i, j, gram[i * rank + j]));
        right[i * n..(i + 1) * n].iter_mut().for_each(|v| *v /= gram[i * rank + i]);
    }
    for i in (0..rank).rev() {
        (i + 1..rank).for_each(|j| axpy(&mut right, i, j, gram[j * rank + i]));
        right[i * n..(i + 1) * n].iter_mut().for_each(|v| *v /= gram[i * rank + i]);
    }
    right
}

/// Gives the three factors of each term equal norms, which changes no product and keeps the problems well conditioned.
fn balance(shared: &mut Shared, rank: usize, d: usize) {
    for r in 0..rank {
        let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|v| v * v).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
        let q = norm(&mut shared.q[r * d..][..d].iter().copied());
        let k = norm(&mut shared.k[r * d..][..d].iter().copied());
        let c = norm(&mut shared.mixing.iter().skip(r).step_by(rank).copied());
        let each = (q * k * c).cbrt();
        shared.q[r * d..][..d].iter_mut().for_each(|v| *v *= each / q);
        shared.k[r * d..][..d].iter_mut().for_each(|v| *v *= each / k);
        shared.mixing.iter_mut().skip(r).step_by(rank).for_each(|v| *v *= each / c);
    }
}

/// ‖T‖² = Σ_i ⟨Q_i Q_iᵀ, K_i K_iᵀ⟩.
fn norm2(heads: &Heads<'_>) -> f64 {
    let part = heads.q.len() / heads.n;
    let of = |i: usize| [&heads.q[i * part..][..part], &heads.k[i * part..][..part]].map(|w| gram(w, heads.hidden));
    (0..heads.n).map(of).map(|[q, k]| hadamard(&q, &k).iter().sum::<f64>()).sum()
}

/// ‖T − approximation‖ / ‖T‖, by ‖T‖² − 2⟨T, X⟩ + ‖X‖².
fn error(heads: &Heads<'_>, shared: &Shared, total: f64) -> f64 {
    let rank = shared.q.len() / heads.hidden;
    let inner: f64 = hadamard(&mixture(heads, shared), &shared.mixing).iter().sum();
    let pairs = hadamard(&gram(&shared.q, heads.hidden), &gram(&shared.k, heads.hidden));
    let own: f64 = hadamard(&pairs, &gram_of_columns(&shared.mixing, rank)).iter().sum();
    ((total - 2.0 * inner + own).max(0.0) / total.max(f64::MIN_POSITIVE)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

    const HIDDEN: usize = 12;

    fn random(n: usize, seed: u64) -> Vec<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..n).map(|_| rng.random_range(-1.0..1.0)).collect()
    }

    /// Largest |T − approximation| entry by entry, from the definition.
    fn worst(heads: &Heads<'_>, shared: &Shared) -> f64 {
        let (d, rank) = (heads.hidden, shared.q.len() / heads.hidden);
        let head = heads.q.len() / d / heads.n;
        let mut worst = 0.0f64;
        for i in 0..heads.n {
            for (x, y) in (0..d).flat_map(|x| (0..d).map(move |y| (x, y))) {
                let rows = i * head..(i + 1) * head;
                let exact: f64 = rows.map(|r| heads.q[r * d + x] * heads.k[r * d + y]).sum();
                let term = |r: usize| shared.q[r * d + x] * shared.k[r * d + y] * shared.mixing[i * rank + r];
                worst = worst.max((exact - (0..rank).map(term).sum::<f64>()).abs());
            }
        }
        worst
    }

    #[test]
    fn full_rank_is_exact_and_less_gets_worse() {
        let (q, k) = (random(3 * 4 * HIDDEN, 1), random(3 * 4 * HIDDEN, 2));
        let heads = Heads { q: &q, k: &k, n: 3, hidden: HIDDEN };
        let exact = decompose(&heads, 12, 50);
        assert_eq!(worst(&heads, &exact), 0.0);
        let mut last = 1e-9;
        for rank in [10, 8, 6, 4, 2] {
            let errors = decompose(&heads, rank, 200).errors;
            assert!(errors.windows(2).all(|w| w[1] <= w[0] * (1.0 + 1e-9)), "rank {rank}: {errors:?}");
            assert!(errors[errors.len() - 1] > last, "rank {rank}");
            last = errors[errors.len() - 1];
        }
    }

    #[test]
    fn terms_that_heads_share_are_found() {
        // two heads of four features that mix the same five terms: rank 5 is enough where 8 are stored
        let (a, b, c) = (random(5 * HIDDEN, 3), random(5 * HIDDEN, 4), random(2 * 5, 5));
        let part = |w: &[f64], r: usize| w[r * HIDDEN..(r + 1) * HIDDEN].to_vec();
        let (mut q, mut k) = (vec![], vec![]);
        for i in 0..2 {
            for r in 0..5 {
                q.extend(part(&a, r).iter().map(|v| v * c[i * 5 + r]));
                k.extend(part(&b, r));
            }
        }
        let heads = Heads { q: &q, k: &k, n: 2, hidden: HIDDEN };
        let shared = decompose(&heads, 5, 2000);
        assert!(shared.errors[shared.errors.len() - 1] < 1e-2, "{:?}", shared.errors.last());
        assert!(worst(&heads, &shared) < 0.1);
    }
}
