//! The table-lookup linear: exact against integers by the definition, and near f64 as far as its tables round.

use crate::oracle::{assert_same_bits, cpus, values};
use cpu_kernels::GroupCodes;
use cpu_kernels::linear::{LutTables, PackedLut};

fn codes(seed: u64, n: usize, k: usize, bits: u8, group: usize, equal_zero: bool) -> GroupCodes {
    let groups = k.div_ceil(group);
    let top = f32::from((1u16 << bits) - 1);
    GroupCodes {
        n,
        k,
        bits,
        group,
        codes: values(seed, n * k).iter().map(|v| ((v * 0.5 + 0.5) * (top + 0.99)).clamp(0.0, top) as u8).collect(),
        scales: values(seed + 1, n * groups).iter().map(|v| half::f16::from_f32(0.01 + v.abs()).to_f32()).collect(),
        zeros: match equal_zero {
            true => vec![0.5 * top; n * groups],
            false => values(seed + 2, n * groups).iter().map(|v| half::f16::from_f32(v * top).to_f32()).collect(),
        },
        order: None,
    }
}

/// Σ over planes and tables of one block by the definition, from the codes as given and the tables' entries.
fn block_sum(source: &GroupCodes, tables: &LutTables, row: usize, block: usize) -> i32 {
    let bit = |t: u8, column: usize| column < source.k && source.codes[row * source.k + column] >> t & 1 == 1;
    let mut sum = 0;
    for t in 0..source.bits {
        for table in 0..16 {
            let signs = (0..4).map(|i| usize::from(bit(t, block * 64 + table * 4 + i)) << i).sum();
            sum += tables.entry(block, table, signs) << t;
        }
    }
    sum
}

/// y by the definition: integer sums, then the scales in f64.
fn defined(source: &GroupCodes, tables: &LutTables, x: &[f32]) -> Vec<f64> {
    let groups = source.k.div_ceil(source.group);
    let mid = f64::from((1u16 << source.bits) - 1) / 2.0;
    let block = |row: usize, block: usize| {
        let columns = block * 64..(block * 64 + 64).min(source.k);
        let at = row * groups + columns.start / source.group;
        let total: f64 = x[columns].iter().map(|&x| f64::from(x)).sum();
        let looked_up = 0.5 * f64::from(tables.step(block)) * f64::from(block_sum(source, tables, row, block));
        f64::from(source.scales[at]) * (looked_up + (mid - f64::from(source.zeros[at])) * total)
    };
    (0..source.n).map(|row| (0..source.k.div_ceil(64)).map(|b| block(row, b)).sum()).collect()
}

#[test]
fn sums_equal_the_definition_and_come_near_the_weights() {
    for (n, k, group) in [(1, 4, 64), (64, 64, 64), (65, 130, 128), (130, 256, 64), (70, 300, 512)] {
        for (bits, equal_zero) in (1..=4).flat_map(|bits| [(bits, true), (bits, false)]) {
            let source = codes(7 * n as u64 + u64::from(bits), n, k, bits, group, equal_zero);
            let (packed, x) = (PackedLut::from_codes(&source), values(3, k));
            let groups = k.div_ceil(group);
            let weight = |i: usize| {
                let at = i / k * groups + i % k / group;
                f64::from(source.scales[at]) * (f64::from(source.codes[i]) - f64::from(source.zeros[at]))
            };
            let weights: Vec<f64> = (0..n * k).map(weight).collect();
            let unpacked = packed.unpack();
            assert!(unpacked.iter().zip(&weights).all(|(a, b)| (f64::from(*a) - b).abs() <= 1e-6 * b.abs()));
            for cpu in cpus(&[1, 2]) {
                let tables = LutTables::of(&cpu, &x);
                let want = defined(&source, &tables, &x);
                let mut y = vec![f32::NAN; n];
                packed.forward(&cpu, &x, 1, &mut y);
                for row in 0..n {
                    let w = &weights[row * k..][..k];
                    let size: f64 = w.iter().zip(&x).map(|(w, x)| (w * f64::from(*x)).abs()).sum();
                    let about = format!("{bits} bits, {n} x {k}, output {row}: {}", y[row]);
                    assert!(
                        (f64::from(y[row]) - want[row]).abs() <= 1e-5 * size.max(1e-3),
                        "{about} for {}",
                        want[row]
                    );
                    let exact: f64 = w.iter().zip(&x).map(|(w, x)| w * f64::from(*x)).sum();
                    // each entry is off by half a step at most, and counts as often as its plane says
                    let steps = f64::from((1u32 << bits) - 1) * 0.25 * 16.0;
                    let bound: f64 = (0..k.div_ceil(64))
                        .map(|b| steps * f64::from(tables.step(b) * source.scales[row * groups + b * 64 / group]))
                        .sum();
                    assert!((f64::from(y[row]) - exact).abs() <= bound + 1e-5 * size, "{about} for {exact}");
                }
            }
        }
    }
}

#[test]
fn levels_round_tables_alike_and_sum_exactly() {
    let (n, k) = (192, 320);
    let x = values(5, k);
    for bits in 1..=4 {
        // a scale of 1 and no offset: what is left of one block is an integer times a step, exact in f32
        let mut source = codes(u64::from(bits), n, k, bits, 64, true);
        source.scales.fill(1.0);
        let packed = PackedLut::from_codes(&source);
        for row in 0..n {
            assert!((0..k).all(|column| packed.code(row, column) == source.codes[row * k + column]));
        }
        for block in 0..k / 64 {
            let mut alone = vec![0.0; k];
            alone[block * 64..][..64].copy_from_slice(&x[block * 64..][..64]);
            let mut first: Option<Vec<f32>> = None;
            for cpu in cpus(&[1]) {
                let tables = LutTables::of(&cpu, &alone);
                let mut y = vec![f32::NAN; n];
                packed.forward(&cpu, &alone, 1, &mut y);
                for (row, y) in y.iter().enumerate() {
                    let sum = block_sum(&source, &tables, row, block) as f32;
                    assert_eq!(*y, sum * (tables.step(block) * 0.5), "{bits} bits, output {row}");
                }
                match &first {
                    Some(first) => assert_same_bits(&y, first, "levels"),
                    None => first = Some(y),
                }
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_the_others() {
    let (n, k) = (200, 192);
    let (source, x) = (codes(1, n, k, 2, 64, false), values(9, 5 * k));
    let packed = PackedLut::from_codes(&source);
    for cpu in cpus(&[1, 2]) {
        let mut all = vec![0.0; 5 * n];
        packed.forward(&cpu, &x, 5, &mut all);
        for (x, want) in x.chunks_exact(k).zip(all.chunks_exact(n)) {
            let mut alone = vec![0.0; n];
            packed.forward(&cpu, x, 1, &mut alone);
            assert_same_bits(&alone, want, "one row");
        }
    }
}
