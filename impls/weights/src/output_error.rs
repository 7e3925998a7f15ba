//! The layer error that quantizers are judged by.

use std::sync::OnceLock;

use cpu_kernels::{Cpu, subtract_combination};
use ndarray::ArrayView2;

use crate::row_update::COLUMN_CHUNK;
use crate::{CalibrationStats, Quantized};

const TILE_ROWS: usize = 16;

/// ‖(W − Ŵ)·X‖² relative to ‖W·X‖² over the calibration inputs: tr(D·H·Dᵀ) / tr(W·H·Wᵀ), D = W − Ŵ, in f64.
/// 0 when both are 0.
///
/// # Panics
/// If the shapes of `weight`, `quantized` and `stats` do not agree.
pub fn output_error(cpu: &Cpu, weight: ArrayView2<f32>, quantized: &Quantized, stats: &CalibrationStats) -> f64 {
    let (n, k) = weight.dim();
    assert_eq!(stats.features(), k, "statistics of the weight's {k} inputs");
    let approximation = quantized.dequantise();
    assert_eq!(approximation.len(), n * k, "codes of a {n}x{k} weight");
    // v·H·vᵀ needs half of H: the diagonal once and what lies above it twice
    let mut h = stats.hessian();
    for (i, row) in h.chunks_mut(k).enumerate() {
        row[..i].fill(0.0);
        row[i + 1..].iter_mut().for_each(|x| *x *= 2.0);
    }
    let tiles: Vec<OnceLock<[f64; 2]>> = (0..n.div_ceil(TILE_ROWS)).map(|_| OnceLock::new()).collect();
    cpu.parallel(tiles.len(), &|tile| {
        let rows = tile * TILE_ROWS..((tile + 1) * TILE_ROWS).min(n);
        let (mut original, mut difference) = (vec![], vec![]);
        for row in rows {
            let approximate = &approximation[row * k..][..k];
            original.extend(weight.row(row).iter().map(|&w| w as f64));
            difference.extend(weight.row(row).iter().zip(approximate).map(|(&w, &a)| w as f64 - a as f64));
        }
        tiles[tile].get_or_init(|| [&difference, &original].map(|rows| quadratic_form(cpu, rows, &h, k)));
    });
    let sums = tiles.iter().filter_map(OnceLock::get).fold([0.0; 2], |sum, x| [sum[0] + x[0], sum[1] + x[1]]);
    if sums[0] == 0.0 { 0.0 } else { sums[0] / sums[1] }
}

/// Σ over rows v of v·U·vᵀ, `rows [·, k]`, `u [k, k]` upper triangular.
fn quadratic_form(cpu: &Cpu, rows: &[f64], u: &[f64], k: usize) -> f64 {
    const DEPTH: usize = 64;
    let mut product = vec![0.0; rows.len()];
    for k0 in (0..k).step_by(DEPTH) {
        let k1 = (k0 + DEPTH).min(k);
        for c0 in (k0..k).step_by(COLUMN_CHUNK) {
            let c1 = (c0 + COLUMN_CHUNK).min(k);
            for (product, v) in product.chunks_mut(k).zip(rows.chunks(k)) {
                subtract_combination(cpu, &mut product[c0..c1], &v[k0..k1], &u[k0 * k + c0..], k);
            }
        }
    }
    -product.iter().zip(rows).map(|(p, v)| p * v).sum::<f64>()
}
