//! Score tiles, weighted sums and the online softmax: against f64, and independent of the number of queries.

use crate::oracle::{assert_close, assert_same_bits, cpus, values};
use cpu_kernels::attention::{Codes, Rows, decode_rows};
use cpu_kernels::{online_softmax_update, scale_row, scores_tile, weighted_sum};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn tiles_match_f64(seed in 0u64..1000, n_q in 1usize..30, n_k in 1usize..100, d in 1usize..80, gap in 0usize..3) {
        let stride = d + gap;
        let (q, k) = (values(seed, n_q * stride), values(seed + 1, n_k * stride));
        let p = values(seed + 2, n_q * (n_k + gap));
        let start = values(seed + 3, n_q * stride);
        let mut want_scores = Vec::new();
        let mut want_sums = Vec::new();
        for i in 0..n_q {
            for j in 0..n_k {
                let terms = (0..d).map(|x| f64::from(q[i * stride + x]) * f64::from(k[j * stride + x]) * 0.25);
                want_scores.push(terms.fold((0.0, 0.0), |(sum, size), t: f64| (sum + t, size + t.abs())));
            }
            for x in 0..d {
                let terms = (0..n_k).map(|j| f64::from(p[i * (n_k + gap) + j]) * f64::from(k[j * stride + x]));
                let first = f64::from(start[i * stride + x]);
                want_sums.push(terms.fold((first, first.abs()), |(sum, size), t| (sum + t, size + t.abs())));
            }
        }
        for cpu in cpus(&[1]) {
            let mut scores = vec![7.0; n_q * (n_k + gap)];
            scores_tile(&cpu, &q, stride, n_q, Rows::f32(&k, stride), n_k, d, 0.25, &mut scores, n_k + gap);
            let tight: Vec<f32> = scores.chunks(n_k + gap).flat_map(|row| row[..n_k].to_vec()).collect();
            assert_close(&tight, &want_scores, 2e-5, "scores");
            prop_assert!(scores.chunks(n_k + gap).all(|row| row[n_k..].iter().all(|&v| v == 7.0)), "gap untouched");
            let mut out = start.clone();
            weighted_sum(&cpu, &p, n_k + gap, n_q, Rows::f32(&k, stride), n_k, d, &mut out, stride);
            let tight: Vec<f32> = out.chunks(stride).flat_map(|row| row[..d].to_vec()).collect();
            assert_close(&tight, &want_sums, 2e-5, "sums");
            prop_assert!(out.chunks(stride).zip(start.chunks(stride)).all(|(a, b)| a[d..] == b[d..]), "gap untouched");
        }
    }

    #[test]
    fn online_softmax_equals_the_whole(seed in 0u64..1000, tiles in 1usize..6, width in 1usize..70) {
        let scores: Vec<f32> = values(seed, tiles * width).iter().map(|v| v * 20.0).collect();
        let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f64 = scores.iter().map(|&s| (f64::from(s) - f64::from(top)).exp2()).sum();
        for cpu in cpus(&[1]) {
            let (mut m, mut l) = (f32::NEG_INFINITY, 0.0);
            let mut weights: Vec<f32> = Vec::new();
            for tile in scores.chunks(width) {
                let mut row = tile.to_vec();
                let factor = online_softmax_update(&cpu, &mut row, &mut m, &mut l);
                scale_row(&cpu, &mut weights, factor);
                weights.extend(row);
            }
            prop_assert_eq!(m, top);
            prop_assert!((f64::from(l) / total - 1.0).abs() < 1e-5);
            let want: Vec<_> = scores.iter().map(|&s| (f64::from(s) - f64::from(top)).exp2()).map(|e| (e, 1.0)).collect();
            assert_close(&weights, &want, 1e-6, "weights");
        }
    }
}

#[test]
fn a_row_does_not_depend_on_the_number_of_queries() {
    for d in [16, 20, 32, 64, 80, 128] {
        let (n_q, n_k) = (64, 75);
        let (q, k, p) = (values(1, n_q * d), values(2, n_k * d), values(3, n_q * n_k));
        for cpu in cpus(&[1]) {
            let mut scores = vec![0.0; n_q * n_k];
            let mut sums = vec![0.0; n_q * d];
            scores_tile(&cpu, &q, d, n_q, Rows::f32(&k, d), n_k, d, 0.125, &mut scores, n_k);
            weighted_sum(&cpu, &p, n_k, n_q, Rows::f32(&k, d), n_k, d, &mut sums, d);
            for rows in [1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 33] {
                let mut some = vec![0.0; rows * n_k];
                scores_tile(&cpu, &q[..rows * d], d, rows, Rows::f32(&k, d), n_k, d, 0.125, &mut some, n_k);
                assert_same_bits(&some, &scores[..rows * n_k], "scores");
                let mut some = vec![0.0; rows * d];
                weighted_sum(&cpu, &p[..rows * n_k], n_k, rows, Rows::f32(&k, d), n_k, d, &mut some, d);
                assert_same_bits(&some, &sums[..rows * d], "sums");
            }
        }
    }
}

#[test]
fn stored_codes_give_the_bits_of_their_decoded_values() {
    for d in [16, 48, 64, 128, 192] {
        let (n_q, n_k) = (6, 53);
        let (q, p, wide) = (values(1, n_q * d), values(3, n_q * n_k), values(2, n_k * d));
        let half: Vec<u16> = wide.iter().map(|&x| half::f16::from_f32(x).to_bits()).collect();
        let bytes: Vec<i8> = wide.iter().map(|x| (x * 90.0) as i8).collect();
        let scales: Vec<f32> = (0..n_k).map(|i| 0.01 + i as f32 * 0.001).collect();
        for codes in [Codes::F32(&wide), Codes::F16(&half), Codes::Int8 { codes: &bytes, scales: &scales }] {
            let rows = Rows { codes, stride: d };
            for cpu in cpus(&[1]) {
                let mut decoded = vec![0.0; n_k * d];
                decode_rows(&cpu, rows, 0, n_k, d, &mut decoded);
                for n_q in 1..=n_q {
                    let (mut found, mut want) = (vec![0.0; n_q * n_k], vec![0.0; n_q * n_k]);
                    scores_tile(&cpu, &q, d, n_q, rows, n_k, d, 0.125, &mut found, n_k);
                    scores_tile(&cpu, &q, d, n_q, Rows::f32(&decoded, d), n_k, d, 0.125, &mut want, n_k);
                    assert_same_bits(&found, &want, "scores");
                    let (mut found, mut want) = (vec![0.5; n_q * d], vec![0.5; n_q * d]);
                    weighted_sum(&cpu, &p, n_k, n_q, rows, n_k, d, &mut found, d);
                    weighted_sum(&cpu, &p, n_k, n_q, Rows::f32(&decoded, d), n_k, d, &mut want, d);
                    assert_same_bits(&found, &want, "sums");
                }
            }
        }
    }
}

#[test]
fn masked_rows_give_no_nan() {
    for cpu in cpus(&[1]) {
        let (mut m, mut l) = (f32::NEG_INFINITY, 0.0);
        let mut row = [f32::NEG_INFINITY; 5];
        assert_eq!(online_softmax_update(&cpu, &mut row, &mut m, &mut l), 1.0);
        assert_eq!((row, m, l), ([0.0; 5], f32::NEG_INFINITY, 0.0));
        let mut row = [f32::NEG_INFINITY, 2.0];
        assert_eq!(online_softmax_update(&cpu, &mut row, &mut m, &mut l), 0.0);
        assert_eq!((row, m, l), ([0.0, 1.0], 2.0, 1.0));
        let mut row = [f32::NEG_INFINITY; 2];
        assert_eq!(online_softmax_update(&cpu, &mut row, &mut m, &mut l), 1.0);
        assert_eq!((row, m, l), ([0.0, 0.0], 2.0, 1.0));
    }
}
