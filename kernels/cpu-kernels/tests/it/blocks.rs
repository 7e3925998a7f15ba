//! ggml's blocks against their definition: whole numbers bit for bit with int8 activations, f64 with f32 ones.

use crate::oracle::{assert_same_bits, cpus, values};
use cpu_kernels::{BlockForm, BlockRow, BlockSource, Cpu, PackedBlocks};
use half::f16;

/// Rows of pseudo-random blocks; constants of a usual size.
fn rows(form: BlockForm, n: usize, k: usize, seed: u64) -> Vec<BlockRow> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + form as u64 + 1;
    let mut next = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    let mut row = || {
        let mut row = BlockRow::new(form, k);
        row.codes.iter_mut().for_each(|code| *code = (next() & ((1 << form.bits()) - 1)) as u8);
        let mut half = |range: f32| f16::from_f32((next() % 2001) as f32 / 1000.0 * range - range).to_bits();
        row.scales.iter_mut().for_each(|scale| *scale = half(0.01));
        row.minima.iter_mut().for_each(|minimum| *minimum = half(0.05));
        let top = if form == BlockForm::Q6K || form == BlockForm::Q3K { 256 } else { 64 };
        row.scale_integers.iter_mut().for_each(|scale| *scale = (next() % top) as u8);
        row.minimum_integers.iter_mut().for_each(|minimum| *minimum = (next() % 64) as u8);
        row
    };
    (0..n).map(|_| row()).collect()
}

fn pack(cpu: &Cpu, k: usize, parts: &[(BlockForm, &[BlockRow])]) -> PackedBlocks {
    let fills: Vec<_> =
        parts.iter().map(|(_, rows)| move |i: usize, row: &mut BlockRow| row.clone_from(&rows[i])).collect();
    let sources: Vec<BlockSource> =
        parts.iter().zip(&fills).map(|((form, rows), fill)| BlockSource { form: *form, n: rows.len(), fill }).collect();
    PackedBlocks::pack(cpu, k, &sources, &mut |_, _| {})
}

/// Scale and minimum of column `j`, exact.
fn constants(form: BlockForm, row: &BlockRow, j: usize) -> (f64, f64) {
    let half = |bits: u16| f64::from(f16::from_bits(bits));
    let (group, at) = (j / form.columns(), j * form.parts() / 32);
    match (form.is_super(), form.has_minima()) {
        (false, false) => (half(row.scales[group]), 0.0),
        (false, true) => (half(row.scales[group]), half(row.minima[group])),
        (true, false) => (half(row.scales[group]) * f64::from(row.scale_integers[at] as i8), 0.0),
        (true, true) => (
            half(row.scales[group]) * f64::from(row.scale_integers[at]),
            -half(row.minima[group]) * f64::from(row.minimum_integers[at]),
        ),
    }
}

/// Σ over blocks of fma(t, sx, y), then of the minima, with t over the parts of a block: every number that is summed is whole.
fn definition(form: BlockForm, rows: &[BlockRow], x: &[f32]) -> Vec<f32> {
    let k = rows[0].codes.len();
    let width = 32 / form.parts();
    let mut y = vec![];
    for x in x.chunks_exact(k) {
        for row in rows {
            let mut sum = 0.0f32;
            for block in (0..k).step_by(32) {
                let absmax = x[block..block + 32].iter().fold(0.0f32, |m, v| m.max(v.abs()));
                let q = |j: usize| if absmax < 1e-36 { 0.0 } else { (x[j] * (127.0 / absmax)).round_ties_even() };
                let step = if absmax < 1e-36 { 0.0 } else { absmax / 127.0 };
                let (mut t, mut minima) = (0.0f32, vec![]);
                for from in (block..block + 32).step_by(width) {
                    let (scale, minimum) = constants(form, row, from);
                    let total: f64 = (from..from + width).map(|j| f64::from(q(j))).sum();
                    let dot: f64 = (from..from + width)
                        .map(|j| (f64::from(row.codes[j]) - f64::from(form.zero())) * f64::from(q(j)))
                        .sum();
                    let (dot, scale) = (dot as f32, scale as f32);
                    t = if from == block { dot * scale } else { dot.mul_add(scale, t) };
                    minima.push((minimum as f32, step * total as f32));
                }
                sum = t.mul_add(step, sum);
                if form.has_minima() {
                    minima.into_iter().for_each(|(minimum, total)| sum = minimum.mul_add(total, sum));
                }
            }
            y.push(sum);
        }
    }
    y
}

#[test]
fn int8_activations_equal_their_definition_in_whole_numbers() {
    for form in BlockForm::ALL {
        for (n, blocks, batch) in [(1, 1, 1), (16, 2, 5), (37, 3, 13), (100, 1, 31)] {
            let k = blocks * form.columns();
            let rows = rows(form, n, k, blocks as u64);
            let x = values(7 + n as u64, batch * k);
            let want = definition(form, &rows, &x);
            for cpu in cpus(&[1, 2]) {
                let packed = pack(&cpu, k, &[(form, &rows)]);
                let mut y = vec![f32::NAN; want.len()];
                packed.forward_int8(&cpu, &x, batch, &mut y);
                assert_same_bits(
                    &y,
                    &want,
                    &format!("{form:?} {n}×{k}, {batch} rows, {} {}", cpu.isa(), cpu.threads()),
                );
            }
        }
    }
}

#[test]
fn every_count_of_rows_gives_the_bits_of_a_row_alone() {
    let (n, k) = (70, 256);
    for form in BlockForm::ALL {
        let rows = rows(form, n, k, 3);
        let x = values(5, 29 * k);
        for cpu in cpus(&[2]) {
            let packed = pack(&cpu, k, &[(form, &rows)]);
            let mut alone = vec![0.0; 29 * n];
            for (x, y) in x.chunks_exact(k).zip(alone.chunks_exact_mut(n)) {
                packed.forward_int8(&cpu, x, 1, y);
            }
            for batch in 2..=29 {
                let mut y = vec![0.0; batch * n];
                packed.forward_int8(&cpu, &x[..batch * k], batch, &mut y);
                assert_same_bits(&y, &alone[..batch * n], &format!("{form:?}, {batch} rows, {}", cpu.isa()));
            }
        }
    }
}

#[test]
fn extremes_do_not_saturate() {
    let (n, k) = (17, 2048);
    for form in BlockForm::ALL {
        let top = ((1u32 << form.bits()) - 1) as u8;
        for code in [0, top] {
            let mut row = BlockRow::new(form, k);
            row.codes.fill(code);
            row.scales.fill(f16::ONE.to_bits());
            row.minima.fill(f16::ONE.to_bits());
            row.scale_integers.fill(63);
            row.minimum_integers.fill(63);
            let rows = vec![row; n];
            for sign in [1.0f32, -1.0] {
                let x = vec![sign; 3 * k];
                let want = definition(form, &rows, &x);
                for cpu in cpus(&[1]) {
                    let mut y = vec![0.0; 3 * n];
                    pack(&cpu, k, &[(form, &rows)]).forward_int8(&cpu, &x, 3, &mut y);
                    assert_same_bits(&y, &want, &format!("{form:?} of {code} on {}", cpu.isa()));
                }
            }
        }
    }
}

#[test]
fn f32_activations_multiply_the_exact_weights() {
    for form in BlockForm::ALL {
        for (n, blocks, batch) in [(1, 1, 1), (37, 3, 3), (50, 2, 40)] {
            let k = blocks * form.columns();
            let rows = rows(form, n, k, 11);
            let x = values(1, batch * k);
            let weight = |row: &BlockRow, j: usize| {
                let (scale, minimum) = constants(form, row, j);
                // one rounding, of the sum: the product is exact
                (scale * (f64::from(row.codes[j]) - f64::from(form.zero())) + minimum) as f32
            };
            let weights: Vec<f32> = rows.iter().flat_map(|row| (0..k).map(move |j| weight(row, j))).collect();
            for cpu in cpus(&[1, 2]) {
                let packed = pack(&cpu, k, &[(form, &rows)]);
                assert_eq!(packed.unpack(), weights, "{form:?} unpacked");
                let mut y = vec![0.0; batch * n];
                packed.forward(&cpu, &x, batch, &mut y);
                for (i, y) in y.iter().enumerate() {
                    let (x, w) = (&x[i / n * k..][..k], &weights[i % n * k..][..k]);
                    let terms = || x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
                    let (want, size) = (terms().sum::<f64>(), terms().map(f64::abs).sum::<f64>());
                    let bound = (k as f64 + 8.0) * size * f64::from(f32::EPSILON) / 2.0;
                    assert!((f64::from(*y) - want).abs() <= bound, "{form:?} {n}×{k} y[{i}] on {}", cpu.isa());
                }
            }
        }
    }
}

#[test]
fn parts_of_several_forms_are_their_products_side_by_side() {
    let k = 512;
    let forms = [(BlockForm::Q4K, 40), (BlockForm::Q6K, 7), (BlockForm::Q8_0, 33)];
    let parts: Vec<(BlockForm, Vec<BlockRow>)> =
        forms.into_iter().map(|(form, n)| (form, rows(form, n, k, 2))).collect();
    let borrowed: Vec<(BlockForm, &[BlockRow])> = parts.iter().map(|(form, rows)| (*form, &rows[..])).collect();
    for cpu in cpus(&[1, 2]) {
        let all = pack(&cpu, k, &borrowed);
        let x = values(2, 6 * k);
        for exact in [false, true] {
            let run = |packed: &PackedBlocks| {
                let mut y = vec![0.0; 6 * packed.n()];
                if exact {
                    packed.forward(&cpu, &x, 6, &mut y)
                } else {
                    packed.forward_int8(&cpu, &x, 6, &mut y)
                }
                y
            };
            let (y, alone): (_, Vec<_>) =
                (run(&all), borrowed.iter().map(|part| run(&pack(&cpu, k, &[*part]))).collect());
            for (row, y) in y.chunks_exact(all.n()).enumerate() {
                let want: Vec<f32> =
                    alone.iter().zip(forms).flat_map(|(y, (_, n))| y[row * n..(row + 1) * n].to_vec()).collect();
                assert_same_bits(y, &want, &format!("row {row} on {}", cpu.isa()));
            }
        }
    }
}

#[test]
fn blocks_with_nan_poison_their_row_and_zero_rows_are_zero() {
    let (n, k) = (20, 256);
    for form in BlockForm::ALL {
        let rows = rows(form, n, k, 0);
        let mut x = vec![0.0; 4 * k];
        x[k + 7] = f32::NAN;
        x[2 * k + 1] = f32::NEG_INFINITY;
        x[3 * k..].fill(1e-38);
        for cpu in cpus(&[1]) {
            let mut y = vec![5.0; 4 * n];
            pack(&cpu, k, &[(form, &rows)]).forward_int8(&cpu, &x, 4, &mut y);
            let zero = |y: &[f32]| y.iter().all(|&v| v == 0.0);
            assert!(zero(&y[..n]) && zero(&y[3 * n..]) && y[n..3 * n].iter().all(|v| v.is_nan()), "{}", cpu.isa());
        }
    }
}
