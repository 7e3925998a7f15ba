//! exp and what is built on it, norms, activations, rotations, vector primitives: against f64.

use crate::oracle::{assert_close, assert_same_bits, cpus, values};
use cpu_kernels::{
    Activation, activate, activate_mul, add_in_place, argmax, axpy, dot, exp, layer_norm, log_sum_exp, rms_norm,
    rope_half_split, rope_interleaved, softmax_row,
};
use proptest::prelude::*;

/// Distance in units of the last place of the exact value rounded to f32.
fn ulps(got: f32, want: f64) -> f64 {
    let rounded = want as f32;
    let ulp = f64::from(f32::from_bits(rounded.to_bits() + 1)) - f64::from(rounded);
    (f64::from(got) - want).abs() / ulp
}

#[test]
fn exp_is_within_two_ulp_over_the_softmax_range() {
    // A million steps over [−87, 0] and the positive half as far as results are finite and unsaturated.
    let grid: Vec<f32> = (0..=1_000_000).map(|i| -87.0 + i as f32 * (175.0 / 1_000_000.0)).collect();
    for cpu in cpus(&[1]) {
        let mut y = grid.clone();
        exp(&cpu, &mut y);
        let worst = grid.iter().zip(&y).map(|(&x, &y)| ulps(y, f64::from(x).exp())).fold(0.0, f64::max);
        assert!(worst <= 2.0, "{}: {worst} ULP", cpu.isa());
    }
}

#[test]
fn exp_edges() {
    for cpu in cpus(&[1]) {
        let mut y = [0.0, -0.0, f32::NEG_INFINITY, -90.0, -1e30, f32::NAN, f32::from_bits(0x7f80_0001), 100.0];
        exp(&cpu, &mut y);
        assert_eq!(y[..5], [1.0, 1.0, 0.0, 0.0, 0.0], "{}", cpu.isa());
        assert!(y[5].is_nan() && y[6].is_nan(), "{}: NaN must stay NaN: {y:?}", cpu.isa());
        assert!(y[7] > 2e38 && y[7].is_finite(), "{}: {}", cpu.isa(), y[7]);
    }
}

#[test]
fn softmax_of_masked_rows() {
    for cpu in cpus(&[1]) {
        let mut row = vec![f32::NEG_INFINITY; 20];
        softmax_row(&cpu, &mut row);
        assert_eq!(row, vec![0.0; 20]);
        assert_eq!(log_sum_exp(&cpu, &[f32::NEG_INFINITY; 3]), f32::NEG_INFINITY);
        assert_eq!(log_sum_exp(&cpu, &[]), f32::NEG_INFINITY);
        let mut row = vec![f32::NEG_INFINITY, 3.0, f32::NEG_INFINITY];
        softmax_row(&cpu, &mut row);
        assert_eq!(row, [0.0, 1.0, 0.0]);
    }
}

#[test]
fn argmax_takes_the_first_of_ties() {
    assert_eq!(argmax(&[1.0, 3.0, 3.0, 2.0]), 1);
    assert_eq!(argmax(&[f32::NAN, 3.0, f32::NAN]), 1);
    assert_eq!(argmax(&[]), 0);
    assert_eq!(argmax(&[f32::NEG_INFINITY; 40]), 0);
    let mut row = values(1, 1000);
    row[777] = 5.0;
    row[778] = 5.0;
    assert_eq!(argmax(&row), 777);
}

#[test]
fn avx2_and_avx512_agree_bit_for_bit() {
    let x = values(4, 533);
    let mut results: Vec<Vec<f32>> = Vec::new();
    for cpu in cpus(&[1]).iter().filter(|cpu| cpu.isa() != cpu_kernels::Isa::Scalar) {
        let mut all = x.clone();
        exp(cpu, &mut all);
        softmax_row(cpu, &mut all);
        all.push(log_sum_exp(cpu, &x));
        all.push(dot(cpu, &x, &x));
        let mut y = vec![0.0; 533];
        rms_norm(cpu, &x, 1, 533, &x, 1e-5, &mut y);
        all.extend(&y);
        activate(cpu, Activation::GeluTanh, &mut y, 1, 533);
        activate(cpu, Activation::Gelu, &mut y, 1, 533);
        all.extend(&y);
        results.push(all);
    }
    results.windows(2).for_each(|pair| assert_same_bits(&pair[0], &pair[1], "levels"));
}

/// erf by Simpson's rule on its integral.
fn erf(x: f64) -> f64 {
    let (n, h) = (2000, x.clamp(-7.0, 7.0) / 2000.0);
    let f = |i: usize| (-(i as f64 * h).powi(2)).exp();
    let inner: f64 = (1..n).map(|i| f(i) * if i % 2 == 1 { 4.0 } else { 2.0 }).sum();
    (f(0) + inner + f(n)) * h / 3.0 * 2.0 / std::f64::consts::PI.sqrt()
}

#[test]
fn interleaved_pairs_are_the_half_split_of_reordered_features() {
    let (rows, heads, dim, rotary) = (3, 2, 12, 8);
    let (x, angles) = (values(7, rows * heads * dim), values(8, rows * rotary / 2));
    let (cos, sin): (Vec<f32>, Vec<f32>) = angles.iter().map(|a| (a.cos(), a.sin())).unzip();
    let place = |i: usize| if i >= rotary { i } else { i / 2 + i % 2 * rotary / 2 };
    let mut split = x.clone();
    for (to, from) in split.chunks_exact_mut(dim).zip(x.chunks_exact(dim)) {
        (0..dim).for_each(|i| to[place(i)] = from[i]);
    }
    for cpu in cpus(&[1]) {
        let mut split = split.clone();
        rope_half_split(&cpu, &mut split, rows, heads * dim, heads, dim, rotary, &cos, &sin);
        let mut interleaved = x.clone();
        rope_interleaved(&cpu, &mut interleaved, rows, heads * dim, heads, dim, rotary, &cos, &sin);
        for (got, want) in interleaved.chunks_exact(dim).zip(split.chunks_exact(dim)) {
            let reordered: Vec<f32> = (0..dim).map(|i| want[place(i)]).collect();
            assert_same_bits(got, &reordered, "interleaved");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn rows_match_f64(seed in 0u64..1000, rows in 1usize..5, cols in 1usize..150) {
        let x: Vec<f32> = values(seed, rows * cols).iter().map(|v| v * 8.0).collect();
        let (gain, bias) = (values(seed + 1, cols), values(seed + 2, cols));
        for cpu in cpus(&[1, 2]) {
            let mut rms = vec![0.0; x.len()];
            rms_norm(&cpu, &x, rows, cols, &gain, 1e-5, &mut rms);
            let mut layer = vec![0.0; x.len()];
            layer_norm(&cpu, &x, rows, cols, &gain, &bias, 1e-5, &mut layer);
            for row in 0..rows {
                let at = row * cols..(row + 1) * cols;
                let wide: Vec<f64> = x[at.clone()].iter().map(|&v| v.into()).collect();
                let c = cols as f64;
                let inverse = 1.0 / (wide.iter().map(|v| v * v).sum::<f64>() / c + 1e-5).sqrt();
                let want: Vec<_> =
                    (0..cols).map(|j| wide[j] * inverse * f64::from(gain[j])).map(|v| (v, v.abs())).collect();
                assert_close(&rms[at.clone()], &want, 1e-5, "rms_norm");
                let mean = wide.iter().sum::<f64>() / c;
                let deviation = (wide.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / c + 1e-5).sqrt();
                let want: Vec<_> = (0..cols)
                    .map(|j| ((wide[j] - mean) / deviation * f64::from(gain[j]) + f64::from(bias[j]), 2.0))
                    .collect();
                // Cancellation in x − mean is relative to |mean|/deviation, which one or two columns make large.
                let slack = 1e-5 * (1.0 + mean.abs() / deviation);
                assert_close(&layer[at.clone()], &want, slack, "layer_norm");

                let mut soft = x[at.clone()].to_vec();
                softmax_row(&cpu, &mut soft);
                let top = wide.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = wide.iter().map(|v| (v - top).exp()).sum();
                let want: Vec<_> = wide.iter().map(|v| (v - top).exp() / total).map(|v| (v, v)).collect();
                assert_close(&soft, &want, 3e-6, "softmax");
                let lse = log_sum_exp(&cpu, &x[at]);
                prop_assert!((f64::from(lse) - (top + total.ln())).abs() < 3e-6 * (1.0 + top.abs()));
            }
        }
    }

    #[test]
    fn activations_match_f64(seed in 0u64..1000, rows in 1usize..4, ffn in 1usize..80) {
        let x: Vec<f32> = values(seed, rows * 2 * ffn).iter().map(|v| v * 10.0).collect();
        let silu = |g: f64| g / (1.0 + (-g).exp());
        let gelu = |g: f64| 0.5 * g * (1.0 + erf(g / 2f64.sqrt()));
        let gelu_tanh = |g: f64| 0.5 * g * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (g + 0.044715 * g.powi(3))).tanh());
        for cpu in cpus(&[1]) {
            let table: [(Activation, &dyn Fn(f64) -> f64); 6] = [
                (Activation::Silu, &silu),
                (Activation::GeluTanh, &gelu_tanh),
                (Activation::Gelu, &gelu),
                (Activation::Relu, &|g| g.max(0.0)),
                (Activation::ReluSquared, &|g| g.max(0.0) * g.max(0.0)),
                (Activation::QuickGelu, &|g| g / (1.0 + (-1.702 * g).exp())),
            ];
            for (activation, f) in table {
                let name = &format!("{activation:?}");
                let mut plain = x.clone();
                activate(&cpu, activation, &mut plain, rows, 2 * ffn);
                let want: Vec<_> = x.iter().map(|&v| (f(v.into()), f64::from(v).abs())).collect();
                assert_close(&plain, &want, 1e-6, name);
                let mut y = vec![0.0; rows * ffn];
                activate_mul(&cpu, activation, &x, rows, ffn, &mut y);
                let want: Vec<_> = (0..rows * ffn)
                    .map(|i| {
                        let (row, j) = (i / ffn, i % ffn);
                        let (g, u) = (f64::from(x[row * 2 * ffn + j]), f64::from(x[row * 2 * ffn + ffn + j]));
                        (f(g) * u, (g * u).abs())
                    })
                    .collect();
                assert_close(&y, &want, 1e-6, name);
            }
        }
    }

    #[test]
    fn rope_rotates_pairs(seed in 0u64..1000, rows in 1usize..4, heads in 1usize..4, half in 1usize..40, rest in 0usize..5) {
        let (head_dim, stride) = (2 * half + rest, heads * (2 * half + rest) + 3);
        let x = values(seed, (rows - 1) * stride + heads * head_dim);
        let angles = values(seed + 1, rows * half);
        let cos: Vec<f32> = angles.iter().map(|a| (a * 3.0).cos()).collect();
        let sin: Vec<f32> = angles.iter().map(|a| (a * 3.0).sin()).collect();
        let mut want = x.clone();
        for row in 0..rows {
            for head in 0..heads {
                for i in 0..half {
                    let at = row * stride + head * head_dim + i;
                    let (a, b, c, s) = (x[at], x[at + half], cos[row * half + i], sin[row * half + i]);
                    want[at] = a * c - b * s;
                    want[at + half] = b * c + a * s;
                }
            }
        }
        for cpu in cpus(&[1]) {
            let mut y = x.clone();
            rope_half_split(&cpu, &mut y, rows, stride, heads, head_dim, 2 * half, &cos, &sin);
            assert_same_bits(&y, &want, "rope");
        }
    }

    #[test]
    fn vectors_match_f64(seed in 0u64..1000, len in 0usize..200) {
        let (a, b) = (values(seed, len), values(seed + 1, len));
        let want: f64 = a.iter().zip(&b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
        for cpu in cpus(&[1]) {
            prop_assert!((f64::from(dot(&cpu, &a, &b)) - want).abs() < 1e-5);
            let mut y = b.clone();
            add_in_place(&cpu, &a, &mut y);
            prop_assert!(y.iter().zip(&a).zip(&b).all(|((&y, &a), &b)| y == a + b));
            axpy(&cpu, -1.0, &a, &mut y);
            prop_assert!(y.iter().zip(&b).all(|(&y, &b)| (y - b).abs() < 1e-6));
        }
    }
}

#[test]
fn exp2_is_within_two_ulp_over_the_softmax_range() {
    let grid: Vec<f32> = (0..200_000).map(|i| -125.0 * i as f32 / 200_000.0).collect();
    for cpu in cpus(&[1]) {
        let mut y = grid.clone();
        cpu_kernels::exp::exp2(&cpu, &mut y);
        let worst = grid.iter().zip(&y).map(|(&x, &y)| ulps(y, f64::from(x).exp2())).fold(0.0, f64::max);
        assert!(worst <= 2.0, "{worst} ULP");
        let mut low = [-126.0, -1e9, f32::NEG_INFINITY];
        cpu_kernels::exp::exp2(&cpu, &mut low);
        assert_eq!(low, [0.0; 3]);
    }
}
