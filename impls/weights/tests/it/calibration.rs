//! H against a plain f64 sum, across the chunk and panel sizes.

use model::Activations;
use weights::CalibrationStats;

use crate::{device, wave};

fn plain(x: &[f32], d: usize) -> Vec<f64> {
    let rows = x.len() / d;
    let mut h = vec![0.0; d * d];
    for row in x.chunks(d) {
        for i in 0..d {
            for j in 0..d {
                h[i * d + j] += row[i] as f64 * row[j] as f64 * 2.0 / rows as f64;
            }
        }
    }
    h
}

fn assert_close(found: &[f64], wanted: &[f64], d: usize) {
    for i in 0..d {
        for j in 0..d {
            let size = (wanted[i * d + i] * wanted[j * d + j]).sqrt();
            let miss = (found[i * d + j] - wanted[i * d + j]).abs();
            assert!(miss <= 2e-6 * size, "H[{i}, {j}] misses by {miss}, size {size}");
            assert_eq!(found[i * d + j], found[j * d + i]);
        }
    }
}

#[test]
fn hessian_is_the_second_moment() {
    let device = device();
    for (rows, d) in [(1, 1), (3, 7), (300, 33), (513, 65), (257, 600)] {
        let x = wave(1, rows, d);
        let mut stats = CalibrationStats::new(d);
        stats.add(device.cpu(), &Activations::from_vec(rows, d, x.clone()));
        assert_eq!((stats.n_rows(), stats.features()), (rows, d));
        assert_close(&stats.hessian(), &plain(&x, d), d);
    }
}

#[test]
fn parts_add_up() {
    let device = device();
    let d = 20;
    let x = wave(2, 50, d);
    let (head, tail) = x.split_at(17 * d);
    let mut stats = CalibrationStats::new(d);
    stats.add(device.cpu(), &Activations::from_vec(17, d, head.to_vec()));
    let mut other = CalibrationStats::new(d);
    other.add(device.cpu(), &Activations::from_vec(33, d, tail.to_vec()));
    stats.merge(&other);
    assert_eq!(stats.n_rows(), 50);
    assert_close(&stats.hessian(), &plain(&x, d), d);
    let again = CalibrationStats::from_hessian(d, 50, &stats.hessian());
    assert_close(&again.hessian(), &plain(&x, d), d);
}

#[test]
fn no_rows_give_zeros() {
    assert_eq!(CalibrationStats::new(3).hessian(), vec![0.0; 9]);
}
