//! Kernels between a decoder's products on the emulated device, against f64.

use cuda_kernels::rows::{self, CacheLayout, Curve, Heads, Places, Stored, Turn};
use cuda_kernels::{Buffer, Gpu};
use half::{bf16, f16};

use crate::devices;
use crate::problems::normals;

/// `n` values that no kernel may read, three of them behind what it may write.
fn poisoned(gpu: &Gpu, n: usize) -> Buffer<f32> {
    gpu.upload(&vec![f32::NAN; n + 3]).unwrap()
}

/// What a kernel wrote; what lies behind is as it was.
fn written(buffer: &Buffer<f32>, n: usize) -> Vec<f32> {
    let mut values = buffer.read().unwrap();
    assert!(values[n..].iter().all(|v| v.is_nan()), "stored beyond the end");
    values.truncate(n);
    values
}

#[track_caller]
fn assert_close(found: &[f32], expected: impl IntoIterator<Item = f64>, relative: f64, absolute: f64) {
    let mut n = 0;
    for (i, (&found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(found) - expected).abs();
        assert!(error <= relative * expected.abs() + absolute, "value {i}: {found} for {expected}");
        n += 1;
    }
    assert_eq!(n, found.len());
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

#[test]
fn embeddings_are_gathered_widened_and_scaled() {
    for gpu in devices() {
        let (vocab, cols, factor) = (9, 37, 1.5f32);
        let table = normals(vocab * cols, 1);
        let tokens = [8u32, 0, 8, 3];
        let rows = tokens.len();
        let (y, ids) = (poisoned(&gpu, rows * cols), gpu.upload(&tokens).unwrap());
        let check = |stored: Stored<'_>, value: &dyn Fn(f32) -> f32| {
            rows::embed_rows(stored, &ids, rows, cols, factor, &y).unwrap();
            let expected = tokens.iter().flat_map(|&t| &table[t as usize * cols..][..cols]).map(|&v| value(v) * factor);
            assert_eq!(written(&y, rows * cols), expected.collect::<Vec<_>>());
        };
        let single = gpu.upload(&table).unwrap();
        check(Stored::F32(&single), &|v| v);
        let half: Vec<f16> = table.iter().map(|&v| f16::from_f32(v)).collect();
        check(Stored::F16(&gpu.upload(&half).unwrap()), &|v| f16::from_f32(v).to_f32());
        let brain: Vec<bf16> = table.iter().map(|&v| bf16::from_f32(v)).collect();
        check(Stored::Bf16(&gpu.upload(&brain).unwrap()), &|v| bf16::from_f32(v).to_f32());
        // learned positions, the first two rows of the table left out
        let before = written(&y, rows * cols);
        rows::add_positions(&single, 2, &gpu.upload(&[0u32, 1, 2, 6]).unwrap(), rows, cols, &y).unwrap();
        let added = [2usize, 3, 4, 8].into_iter().flat_map(|at| &table[at * cols..][..cols]);
        let expected: Vec<f32> = before.iter().zip(added).map(|(y, p)| y + p).collect();
        assert_eq!(written(&y, rows * cols), expected);
    }
}

/// Normalised groups of `width` in f64.
fn normed(x: &[f32], gain: &[f32], bias: Option<&[f32]>, width: usize, eps: f64) -> Vec<f64> {
    let parts = gain.len() / width;
    let group = |(g, x): (usize, &[f32])| {
        let x = wide(x);
        let mean = if bias.is_some() { x.iter().sum::<f64>() / width as f64 } else { 0.0 };
        let square = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / width as f64;
        let at = g % parts * width;
        let one = |(i, v): (usize, &f64)| {
            let offset = bias.map_or(0.0, |bias| f64::from(bias[at + i]));
            (v - mean) / (square + eps).sqrt() * f64::from(gain[at + i]) + offset
        };
        x.iter().enumerate().map(one).collect::<Vec<_>>()
    };
    x.chunks(width).enumerate().flat_map(group).collect()
}

#[test]
fn norms_agree_in_rows_groups_and_in_place() {
    for gpu in devices() {
        // around the widths of a warp and of a block, in fours and not, with a gain per head in the last
        for (groups, width, parts) in [(3, 1, 1), (2, 64, 1), (2, 65, 1), (1, 2052, 1), (2, 2049, 1), (12, 16, 4)] {
            let (x, gain) = (normals(groups * width, 2), normals(parts * width, 3));
            let (bias, shape) = (normals(parts * width, 4), [groups, width]);
            let [on_x, on_gain, on_bias] = [&x, &gain, &bias].map(|values| gpu.upload(values).unwrap());
            let y = poisoned(&gpu, x.len());
            rows::rms_norm(&on_x, &on_gain, shape, 1e-5, &y).unwrap();
            assert_close(&written(&y, x.len()), normed(&x, &gain, None, width, 1e-5), 1e-5, 1e-6);
            rows::layer_norm(&on_x, &on_gain, &on_bias, shape, 1e-5, &y).unwrap();
            assert_close(&written(&y, x.len()), normed(&x, &gain, Some(&bias), width, 1e-5), 2e-5, 2e-6);
            rows::rms_norm(&on_x, &on_gain, shape, 1e-5, &on_x).unwrap();
            assert_close(&on_x.read().unwrap(), normed(&x, &gain, None, width, 1e-5), 1e-5, 1e-6);
        }
    }
}

#[test]
fn a_sum_and_its_norm_are_one_pass() {
    for gpu in devices() {
        for width in [48, 131] {
            let (rows, factor) = (3, 0.25f32);
            let [x, added, gain] = [(rows * width, 5), (rows * width, 6), (width, 7)].map(|(n, seed)| normals(n, seed));
            let [on_x, on_added, on_gain] = [&x, &added, &gain].map(|values| gpu.upload(values).unwrap());
            let y = poisoned(&gpu, x.len());
            rows::add_rms_norm(&on_added, factor, &on_gain, [rows, width], 1e-6, &on_x, &y).unwrap();
            let sum: Vec<f32> = x.iter().zip(&added).map(|(x, a)| factor.mul_add(*a, *x)).collect();
            assert_eq!(on_x.read().unwrap(), sum);
            assert_close(&written(&y, x.len()), normed(&sum, &gain, None, width, 1e-6), 1e-5, 1e-6);
        }
    }
}

/// x `[rows, heads·head_dim]` with leading features turned, in f64.
fn turned(x: &[f32], head_dim: usize, dim: usize, interleaved: bool, angles: &[f64], heads: usize) -> Vec<f64> {
    let mut y = wide(x);
    for (head, y) in y.chunks_mut(head_dim).enumerate() {
        for pair in 0..dim / 2 {
            let (low, high) = if interleaved { (2 * pair, 2 * pair + 1) } else { (pair, pair + dim / 2) };
            let (sin, cos) = angles[head / heads * (dim / 2) + pair].sin_cos();
            (y[low], y[high]) = (y[low] * cos - y[high] * sin, y[high] * cos + y[low] * sin);
        }
    }
    y
}

#[test]
fn rotation_alone_and_with_the_append_agree() {
    for gpu in devices() {
        for (interleaved, dim, half) in [(false, 12, false), (true, 8, true), (false, 0, false)] {
            let (rows, heads, kv_heads, head_dim, capacity) = (3, 4, 2, 12, 5);
            let width = (heads + 2 * kv_heads) * head_dim;
            let qkv = normals(rows * width, 8);
            let angles: Vec<f64> = normals(rows * dim / 2, 9).into_iter().map(|a| f64::from(a) * 3.0).collect();
            let table =
                |f: fn(f64) -> f64| gpu.upload(&angles.iter().map(|&a| f(a) as f32).collect::<Vec<_>>()).unwrap();
            let (cos, sin) = (table(f64::cos), table(f64::sin));
            let turn = Turn { dim, interleaved, cos: &cos, sin: &sin };
            let columns = |from: usize, n: usize| -> Vec<f32> {
                qkv.chunks(width).flat_map(|row| row[from * head_dim..][..n * head_dim].to_vec()).collect()
            };
            let expected = |values: &[f32], heads| turned(values, head_dim, dim, interleaved, &angles, heads);
            let q = gpu.upload(&columns(0, heads)).unwrap();
            rows::rope(&turn, [rows, heads, head_dim], &q).unwrap();
            assert_close(&q.read().unwrap(), expected(&columns(0, heads), heads), 1e-6, 1e-6);

            let layout = CacheLayout { slots: 2, heads: kv_heads, capacity, dim: head_dim };
            let (slots, entries) = ([1i32, 0, 1], [0i32, 4, 1]);
            let (on_slots, on_entries) = (gpu.upload(&slots).unwrap(), gpu.upload(&entries).unwrap());
            let places = Places { rows, slots: &on_slots, entries: &on_entries };
            let (from, to) = (gpu.upload(&qkv).unwrap(), poisoned(&gpu, rows * heads * head_dim));
            let (keys, values) = if half {
                let fill = vec![f16::NAN; layout.values()];
                let (k, v) = (gpu.upload(&fill).unwrap(), gpu.upload(&fill).unwrap());
                rows::rope_append(&from, &turn, places, heads, layout, &to, [Stored::F16(&k), Stored::F16(&v)])
                    .unwrap();
                let widened = |b: &Buffer<f16>| b.read().unwrap().into_iter().map(f16::to_f32).collect::<Vec<_>>();
                (widened(&k), widened(&v))
            } else {
                let (k, v) = (poisoned(&gpu, layout.values()), poisoned(&gpu, layout.values()));
                rows::rope_append(&from, &turn, places, heads, layout, &to, [Stored::F32(&k), Stored::F32(&v)])
                    .unwrap();
                (written(&k, layout.values()), written(&v, layout.values()))
            };
            let tolerance = if half { 1.0 / 2048.0 } else { 1e-6 };
            assert_close(&written(&to, rows * heads * head_dim), expected(&columns(0, heads), heads), 1e-6, 1e-6);
            let k = expected(&columns(heads, kv_heads), kv_heads);
            let v = wide(&columns(heads + kv_heads, kv_heads));
            for row in 0..rows {
                for head in 0..kv_heads {
                    let at = ((slots[row] as usize * kv_heads + head) * capacity + entries[row] as usize) * head_dim;
                    let of = (row * kv_heads + head) * head_dim;
                    assert_close(&keys[at..][..head_dim], k[of..][..head_dim].iter().copied(), tolerance, 1e-6);
                    assert_close(&values[at..][..head_dim], v[of..][..head_dim].iter().copied(), tolerance, 1e-7);
                }
            }
            let stored = keys.iter().chain(&values).filter(|value| !value.is_nan()).count();
            assert_eq!(stored, 2 * rows * kv_heads * head_dim, "entries that no row names are as they were");
        }
    }
}

#[test]
fn appended_halves_are_held_at_the_ends_of_their_range() {
    for gpu in devices() {
        let layout = CacheLayout { slots: 1, heads: 2, capacity: 4, dim: 3 };
        let x = [1e6, -1e6, 0.1, 65519.0, f32::INFINITY, -0.0];
        let cache = gpu.upload(&vec![f16::ZERO; layout.values()]).unwrap();
        let (slot, entry) = (gpu.upload(&[0i32]).unwrap(), gpu.upload(&[2i32]).unwrap());
        let places = Places { rows: 1, slots: &slot, entries: &entry };
        rows::cache_append(&gpu.upload(&x).unwrap(), places, layout, Stored::F16(&cache)).unwrap();
        let found = cache.read().unwrap();
        assert_eq!(found[6..9].to_vec(), [65504.0, -65504.0, 0.1].map(f16::from_f32));
        assert_eq!(found[18..21].to_vec(), [65504.0, f32::INFINITY, -0.0].map(f16::from_f32));
        let error = rows::cache_append(&gpu.upload(&x[..5]).unwrap(), places, layout, Stored::F16(&cache)).unwrap_err();
        assert!(error.to_string().contains("cache_append"), "{error}");
    }
}

/// The error function by Simpson's rule.
fn erf(x: f64) -> f64 {
    let (steps, f) = (2000, |t: f64| (-t * t).exp());
    let h = x / f64::from(steps);
    let inner = |i: i32| if i % 2 == 1 { 4.0 } else { 2.0 } * f(f64::from(i) * h);
    (f(0.0) + f(x) + (1..steps).map(inner).sum::<f64>()) * h / 3.0 * 2.0 / std::f64::consts::PI.sqrt()
}

fn curve(curve: Curve, x: f64) -> f64 {
    match curve {
        Curve::Silu => x / (1.0 + (-x).exp()),
        Curve::Gelu => 0.5 * x * (1.0 + erf(x / 2f64.sqrt())),
        Curve::GeluTanh => 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh()),
        Curve::Relu => x.max(0.0),
    }
}

#[test]
fn activations_follow_their_curves() {
    for gpu in devices() {
        for kind in Curve::ALL {
            for (rows, width) in [(2, 36), (3, 7)] {
                let mut x = normals(rows * 2 * width, 10);
                x.iter_mut().for_each(|x| *x *= 3.0);
                (x[0], x[1]) = (-40.0, 40.0);
                let (from, y) = (gpu.upload(&x).unwrap(), poisoned(&gpu, rows * width));
                rows::activate_mul(kind, &from, rows, width, &y).unwrap();
                let of = |row: &[f32]| {
                    let (gate, up) = row.split_at(width);
                    gate.iter().zip(up).map(|(&g, &u)| curve(kind, g.into()) * f64::from(u)).collect::<Vec<_>>()
                };
                assert_close(&written(&y, rows * width), x.chunks(2 * width).flat_map(of), 1e-5, 2e-6);
                rows::activate(kind, x.len(), &from).unwrap();
                assert_close(&from.read().unwrap(), x.iter().map(|&x| curve(kind, x.into())), 1e-5, 2e-6);
            }
        }
    }
}

#[test]
fn plain_arithmetic_and_copies() {
    for gpu in devices() {
        for (rows, cols) in [(3, 20), (5, 9)] {
            let n = rows * cols;
            let [x, y, bias] = [(n, 11), (n, 12), (cols, 13)].map(|(n, seed)| normals(n, seed));
            let (from, to) = (gpu.upload(&x).unwrap(), gpu.upload(&y).unwrap());
            rows::add_scaled(&from, 0.3, n, &to).unwrap();
            let sum: Vec<f32> = x.iter().zip(&y).map(|(x, y)| 0.3f32.mul_add(*x, *y)).collect();
            assert_eq!(to.read().unwrap(), sum);
            rows::add_bias(&gpu.upload(&bias).unwrap(), rows, &to).unwrap();
            let sum: Vec<f32> = sum.iter().enumerate().map(|(i, s)| s + bias[i % cols]).collect();
            assert_eq!(to.read().unwrap(), sum);
            rows::scale(-2.5, n, &to).unwrap();
            let scaled: Vec<f32> = sum.iter().map(|s| s * -2.5).collect();
            assert_eq!(to.read().unwrap(), scaled);
            rows::soft_cap(5.0, n, &to).unwrap();
            assert_close(&to.read().unwrap(), scaled.iter().map(|&s| 5.0 * (f64::from(s) / 5.0).tanh()), 2e-6, 1e-6);
            let (start, width) = (4, cols - 5);
            let part = poisoned(&gpu, rows * width);
            rows::take_columns(&from, [rows, cols], start, width, &part).unwrap();
            let columns: Vec<f32> = x.chunks(cols).flat_map(|row| row[start..start + width].to_vec()).collect();
            assert_eq!(written(&part, rows * width), columns);
            let some = poisoned(&gpu, 2 * cols);
            rows::gather_rows(&from, &gpu.upload(&[2u32, 0]).unwrap(), 2, cols, &some).unwrap();
            assert_eq!(written(&some, 2 * cols), [&x[2 * cols..3 * cols], &x[..cols]].concat());
        }
    }
}

#[test]
fn tokens_are_chosen_as_on_the_processor() {
    for gpu in devices() {
        let cols = 517;
        let mut logits = normals(4 * cols, 14);
        // a tie, the last column, and a row of nothing but −∞
        (logits[40], logits[300]) = (9.0, 9.0);
        logits[2 * cols - 1] = 11.0;
        logits[3 * cols..].fill(f32::NEG_INFINITY);
        let (on, tokens) = (gpu.upload(&logits).unwrap(), gpu.upload(&[77u32; 5]).unwrap());
        rows::argmax(&on, [4, cols], &tokens).unwrap();
        let best = |row: &[f32]| (0..cols).rev().max_by(|&i, &j| row[i].total_cmp(&row[j])).unwrap() as u32;
        let mut expected: Vec<u32> = logits.chunks(cols).map(best).collect();
        assert_eq!(expected[0], 40);
        expected.push(77);
        assert_eq!(tokens.read().unwrap(), expected);
        let y = poisoned(&gpu, 3 * cols);
        rows::probabilities(&on, [3, cols], 0.7, &y).unwrap();
        let softmax = |row: &[f32]| {
            let weights: Vec<f64> = row.iter().map(|&l| (f64::from(l) / 0.7).exp()).collect();
            let sum: f64 = weights.iter().sum();
            weights.into_iter().map(move |w| w / sum).collect::<Vec<_>>()
        };
        assert_close(&written(&y, 3 * cols), logits[..3 * cols].chunks(cols).flat_map(softmax), 1e-5, 1e-12);
    }
}

/// Attention of one row and head in f64: entries `first..len` of keys and values `[capacity, dim]`.
fn attended(q: &[f32], k: &[f32], v: &[f32], [key_dim, value_dim]: [usize; 2], heads: Heads, len: usize) -> Vec<f64> {
    let first = heads.window.map_or(0, |window| len.saturating_sub(window));
    let score = |entry: usize| {
        let pairs = q.iter().zip(&k[entry * key_dim..]).map(|(&q, &k)| f64::from(q) * f64::from(k));
        let score = pairs.sum::<f64>() * f64::from(heads.scale);
        heads.cap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
    };
    let weights: Vec<f64> = (first..len).map(|entry| score(entry).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let mixed = |f: usize| {
        let one = |(w, entry): (&f64, usize)| w * f64::from(v[entry * value_dim + f]);
        weights.iter().zip(first..len).map(one).sum::<f64>() / sum
    };
    (0..value_dim).map(mixed).collect()
}

#[test]
fn attention_of_rows_agrees_in_every_shape() {
    for gpu in devices() {
        // (key heads, value heads, key dim, value dim, window, cap): grouped, uneven, wider than a warp, windowed, capped
        let shapes = [
            (2, 2, 14, 14, None, None),
            (1, 2, 9, 40, Some(3), None),
            (4, 4, 72, 72, None, Some(2.0)),
            (2, 1, 8, 8, Some(64), None),
        ];
        for (key_heads, value_heads, key_dim, value_dim, window, cap) in shapes {
            let (n, slots, capacity) = (4, 2, 70);
            let heads = Heads { n, scale: 0.4, window, cap };
            let layout = |heads, dim| CacheLayout { slots, heads, capacity, dim };
            let (k_layout, v_layout) = (layout(key_heads, key_dim), layout(value_heads, value_dim));
            let (mut k, mut v) = (normals(k_layout.values(), 15), normals(v_layout.values(), 16));
            // slot 1 has 65 entries, slot 0 all of them; what lies behind must not be read
            let lens = [[1, capacity], [65, 33]];
            for (values, layout) in [(&mut k, k_layout), (&mut v, v_layout)] {
                for head in 0..layout.heads {
                    let slot = (layout.heads + head) * capacity;
                    values[(slot + 65) * layout.dim..(slot + capacity) * layout.dim].fill(f32::NAN);
                }
            }
            let rows_of = [(0, lens[0][0]), (1, lens[1][0]), (0, lens[0][1]), (1, lens[1][1])];
            let q = normals(rows_of.len() * n * key_dim, 17);
            let on_slots = gpu.upload(&rows_of.map(|(slot, _)| slot as i32)).unwrap();
            let on_entries = gpu.upload(&rows_of.map(|(_, len)| len as i32 - 1)).unwrap();
            let places = Places { rows: rows_of.len(), slots: &on_slots, entries: &on_entries };
            let out = poisoned(&gpu, rows_of.len() * n * value_dim);
            let on_q = gpu.upload(&q).unwrap();
            for half in [false, true] {
                let round = |values: &[f32]| values.iter().map(|&v| f16::from_f32(v)).collect::<Vec<_>>();
                if half {
                    let (on_k, on_v) = (gpu.upload(&round(&k)).unwrap(), gpu.upload(&round(&v)).unwrap());
                    let (keys, values) = ((k_layout, Stored::F16(&on_k)), (v_layout, Stored::F16(&on_v)));
                    rows::attend_rows(&on_q, places, heads, keys, values, &out).unwrap();
                } else {
                    let (on_k, on_v) = (gpu.upload(&k).unwrap(), gpu.upload(&v).unwrap());
                    let (keys, values) = ((k_layout, Stored::F32(&on_k)), (v_layout, Stored::F32(&on_v)));
                    rows::attend_rows(&on_q, places, heads, keys, values, &out).unwrap();
                }
                let stored = |values: &[f32]| match half {
                    true => round(values).into_iter().map(f16::to_f32).collect::<Vec<_>>(),
                    false => values.to_vec(),
                };
                let (k, v) = (stored(&k), stored(&v));
                let groups = key_heads.max(value_heads);
                let mut expected = vec![];
                for (row, &(slot, len)) in rows_of.iter().enumerate() {
                    for head in 0..n {
                        let group = head / (n / groups);
                        let at = |heads: usize, dim| (slot * heads + group * heads / groups) * capacity * dim;
                        let q = &q[(row * n + head) * key_dim..][..key_dim];
                        let (k, v) = (&k[at(key_heads, key_dim)..], &v[at(value_heads, value_dim)..]);
                        expected.extend(attended(q, k, v, [key_dim, value_dim], heads, len));
                    }
                }
                assert_close(&written(&out, expected.len()), expected, 1e-5, 1e-5);
            }
        }
    }
}
