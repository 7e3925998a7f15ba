//! R, the upper Cholesky factor of H⁻¹ (H⁻¹ = RᵀR), without ever forming H⁻¹.
//!
//! With J the matrix that reverses an order, J·H·J = L·Lᵀ gives H = (J·L·J)(J·L·J)ᵀ, where J·L·J is upper triangular.
//! Hence H⁻¹ = RᵀR with R = J·L⁻¹·J: one Cholesky factorisation and one triangular inverse, n³/3 fused multiply-adds
//! together, where factor, invert, factor again would take twice that and lose digits. J on both sides of a row-major
//! matrix is the reversal of its values. f64 throughout; blocks of 64 so that panels stay in cache.

use std::sync::Mutex;

use cpu_kernels::{Cpu, subtract_combination};

use crate::row_update::COLUMN_CHUNK;

const BLOCK: usize = 64;
const TILE_ROWS: usize = 32;

/// A pivot was not positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadPivot(pub(crate) usize);

/// `h [n, n]`, symmetric positive definite (the lower triangle after reversal is read) → R `[n, n]`, upper
/// triangular, zeros below.
pub(crate) fn upper_factor_of_inverse(cpu: &Cpu, mut h: Vec<f64>, n: usize) -> Result<Vec<f64>, BadPivot> {
    h.reverse();
    cholesky_lower(cpu, &mut h, n).map_err(|BadPivot(pivot)| BadPivot(n - 1 - pivot))?;
    let mut inverse = invert_lower(cpu, &h, n);
    inverse.reverse();
    Ok(inverse)
}

/// Overwrites the lower triangle of `a` with L, a = L·Lᵀ; the strict upper triangle is left as it is.
fn cholesky_lower(cpu: &Cpu, a: &mut [f64], n: usize) -> Result<(), BadPivot> {
    let mut panel_t = Vec::new();
    for k0 in (0..n).step_by(BLOCK) {
        let k1 = (k0 + BLOCK).min(n);
        factor_diagonal(a, n, k0..k1)?;
        let (head, tail) = a.split_at_mut(k1 * n);
        let n_below = n - k1;
        let diagonal = &head[k0 * n..];
        parallel_tiles(cpu, tail, TILE_ROWS * n, &|_, tile| {
            for row in tile.chunks_mut(n) {
                for c in k0..k1 {
                    let l = &diagonal[(c - k0) * n..];
                    row[c] = (row[c] - dot(&row[k0..c], &l[k0..c])) / l[c];
                }
            }
        });
        // transposed, so that the update of a row runs along rows
        panel_t.clear();
        panel_t.resize((k1 - k0) * n_below, 0.0);
        for (i, row) in tail.chunks(n).enumerate() {
            (k0..k1).for_each(|c| panel_t[(c - k0) * n_below + i] = row[c]);
        }
        let panel_t = &panel_t;
        parallel_tiles(cpu, tail, TILE_ROWS * n, &|tile_index, tile| {
            let first = tile_index * TILE_ROWS;
            let widest = (first + TILE_ROWS).min(n_below);
            for c0 in (0..widest).step_by(COLUMN_CHUNK) {
                for (i, row) in tile.chunks_mut(n).enumerate() {
                    let c1 = (c0 + COLUMN_CHUNK).min(first + i + 1);
                    if c0 < c1 {
                        let (left, right) = row.split_at_mut(k1);
                        subtract_combination(cpu, &mut right[c0..c1], &left[k0..k1], &panel_t[c0..], n_below);
                    }
                }
            }
        });
    }
    Ok(())
}

fn factor_diagonal(a: &mut [f64], n: usize, block: std::ops::Range<usize>) -> Result<(), BadPivot> {
    for i in block.clone() {
        for j in block.start..=i {
            let sum = a[i * n + j] - dot(&a[i * n + block.start..i * n + j], &a[j * n + block.start..j * n + j]);
            if i > j {
                a[i * n + j] = sum / a[j * n + j];
            } else if sum > 0.0 && sum.is_finite() {
                a[i * n + i] = sum.sqrt();
            } else {
                return Err(BadPivot(i));
            }
        }
    }
    Ok(())
}

/// L⁻¹, lower triangular, zeros above; row i is (e_i − Σ_{k<i} L_ik · row k) / L_ii.
fn invert_lower(cpu: &Cpu, l: &[f64], n: usize) -> Vec<f64> {
    let mut x = vec![0.0; n * n];
    for k0 in (0..n).step_by(BLOCK) {
        let k1 = (k0 + BLOCK).min(n);
        let (done, rest) = x.split_at_mut(k0 * n);
        let block = &mut rest[..(k1 - k0) * n];
        parallel_tiles(cpu, block, 8 * n, &|tile_index, tile| {
            for b0 in (0..k0).step_by(BLOCK) {
                let b1 = b0 + BLOCK;
                for c0 in (0..b1).step_by(COLUMN_CHUNK) {
                    let c1 = (c0 + COLUMN_CHUNK).min(b1);
                    for (i, row) in tile.chunks_mut(n).enumerate() {
                        let l_row = &l[(k0 + tile_index * 8 + i) * n..][b0..b1];
                        subtract_combination(cpu, &mut row[c0..c1], l_row, &done[b0 * n + c0..], n);
                    }
                }
            }
        });
        for i in 0..k1 - k0 {
            let (above, row) = block.split_at_mut(i * n);
            let row = &mut row[..k0 + i + 1];
            row[k0 + i] = 1.0;
            let l_row = &l[(k0 + i) * n..][..k0 + i + 1];
            // rows of this block above i have zeros right of their diagonal
            subtract_combination(cpu, &mut row[..k0 + i], &l_row[k0..k0 + i], above, n);
            row.iter_mut().for_each(|value| *value /= l_row[k0 + i]);
        }
    }
    x
}

/// Runs `f(i, tile_i)` over consecutive tiles of `data`, in parallel.
fn parallel_tiles(cpu: &Cpu, data: &mut [f64], tile: usize, f: &(dyn Fn(usize, &mut [f64]) + Sync)) {
    let tiles: Vec<Mutex<&mut [f64]>> = data.chunks_mut(tile.max(1)).map(Mutex::new).collect();
    cpu.parallel(tiles.len(), &|i| {
        let mut tile = tiles[i].lock().expect("a tile is locked once, by its own task");
        f(i, &mut tile);
    });
}

/// Four sums, so that the additions do not wait for each other.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 4];
    let (fours_a, rest_a) = a.as_chunks::<4>();
    let (fours_b, rest_b) = b.as_chunks::<4>();
    for (a, b) in fours_a.iter().zip(fours_b) {
        for lane in 0..4 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = rest_a.iter().zip(rest_b).map(|(a, b)| a * b).sum();
    (sums[0] + sums[2]) + (sums[1] + sums[3]) + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Symmetric, diagonally dominant enough, different at every size.
    fn hessian(n: usize) -> Vec<f64> {
        let x: Vec<f64> = (0..n * (n + 3)).map(|i| ((i * 2654435761 % 1000) as f64 / 500.0 - 1.0) + 0.3).collect();
        let mut h = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..n {
                h[i * n + j] = (0..n + 3).map(|t| x[t * n + i] * x[t * n + j]).sum::<f64>() / (n + 3) as f64;
            }
            h[i * n + i] += 0.05;
        }
        h
    }

    #[test]
    fn inverse_of_h_is_r_transposed_r() {
        let cpu = Cpu::new(None, 2).expect("the best level is there");
        for n in [1, 2, 7, 63, 64, 65, 130, 200] {
            let h = hessian(n);
            let r = upper_factor_of_inverse(&cpu, h.clone(), n).expect("positive definite");
            for i in 0..n {
                assert!(r[i * n + i] > 0.0);
                assert!(r[i * n..i * n + i].iter().all(|&below| below == 0.0));
            }
            // R·H·Rᵀ = 1, because R H Rᵀ = R (RᵀR)⁻¹ Rᵀ
            let mut rh = vec![0.0; n * n];
            for i in 0..n {
                for j in 0..n {
                    rh[i * n + j] = (0..n).map(|k| r[i * n + k] * h[k * n + j]).sum();
                }
            }
            for i in 0..n {
                for j in 0..n {
                    let value: f64 = (0..n).map(|k| rh[i * n + k] * r[j * n + k]).sum();
                    let wanted = if i == j { 1.0 } else { 0.0 };
                    assert!((value - wanted).abs() < 1e-9, "n {n}, ({i}, {j}): {value}");
                }
            }
        }
    }

    #[test]
    fn an_indefinite_matrix_names_its_pivot() {
        let cpu = Cpu::new(None, 1).expect("the best level is there");
        let h = vec![-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
        assert_eq!(upper_factor_of_inverse(&cpu, h, 3), Err(BadPivot(0)));
    }
}
