//! Attention over a cache: decoding in splits and prefill, contiguous and in pages.

use cuda_kernels::attention::{
    DecodeShape, DecodeWorkspace, Heads, KvView, PackedShape, PrefillShape, Rows, Sees, Stored, decode, decode_bench,
    packed, packs, prefill,
};
use cuda_kernels::{Arch, Buffer, Gpu, Number};
use half::{bf16, f16};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::problems::climb;
use crate::{compiler, devices};

/// Sequences of these lengths, each in a slot of its own, rows beyond a length never written.
struct Problem {
    heads: Heads,
    lengths: Vec<usize>,
    slots: Vec<usize>,
    capacity: usize,
    /// `[slot][kv_heads][capacity][dim]`, what K and V are when read back from their element type.
    k: Vec<f64>,
    v: Vec<f64>,
}

/// Keys and values on the device.
enum Cache {
    Single(Buffer<f32>, Buffer<f32>),
    Half(Buffer<f16>, Buffer<f16>),
    Brain(Buffer<bf16>, Buffer<bf16>),
}

const PAGE: usize = 16;

impl Problem {
    fn draw(heads: Heads, lengths: &[usize], element: Number, seed: u64) -> Problem {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let capacity = lengths.iter().max().unwrap().next_multiple_of(PAGE).max(PAGE);
        let count = lengths.len() * heads.kv_heads * capacity * heads.dim;
        let mut draw = |_| {
            let x: f32 = random.random_range(-2.0..2.0);
            match element {
                Number::F32 => f64::from(x),
                Number::F16 => f16::from_f32(x).to_f64(),
                Number::Bf16 => bf16::from_f32(x).to_f64(),
            }
        };
        let k = (0..count).map(&mut draw).collect();
        let v = (0..count).map(&mut draw).collect();
        // sequences lie in the slots backwards
        let slots = (0..lengths.len()).rev().collect();
        Problem { heads, lengths: lengths.to_vec(), slots, capacity, k, v }
    }

    /// Number (slot, kv head, token, dim) of K and V.
    fn at(&self, slot: usize, kv_head: usize, token: usize, d: usize) -> usize {
        ((slot * self.heads.kv_heads + kv_head) * self.capacity + token) * self.heads.dim + d
    }

    /// Where `token` of `slot` lies in a pool of pages: pages of all slots interleaved, the last page first.
    fn page(&self, slot: usize, token: usize) -> usize {
        let pages = self.slots.len() * self.capacity / PAGE;
        pages - 1 - (token / PAGE * self.slots.len() + slot)
    }

    fn table(&self) -> Vec<i32> {
        let of = |slot: usize| (0..self.capacity / PAGE).map(move |page| (slot, page * PAGE));
        (0..self.slots.len()).flat_map(of).map(|(slot, token)| self.page(slot, token) as i32).collect()
    }

    fn upload(&self, gpu: &Gpu, element: Number, paged: bool) -> Cache {
        match element {
            Number::F32 => {
                let both = self.upload_as(gpu, paged, |x| x as f32);
                Cache::Single(both.0, both.1)
            }
            Number::F16 => {
                let both = self.upload_as(gpu, paged, f16::from_f64);
                Cache::Half(both.0, both.1)
            }
            Number::Bf16 => {
                let both = self.upload_as(gpu, paged, bf16::from_f64);
                Cache::Brain(both.0, both.1)
            }
        }
    }

    /// Rows within a sequence's length are written, all others stay as allocated: reading one stops the emulator.
    fn upload_as<T: Stored>(&self, gpu: &Gpu, paged: bool, of: impl Fn(f64) -> T) -> (Buffer<T>, Buffer<T>) {
        let both = (gpu.alloc(self.k.len()).unwrap(), gpu.alloc(self.v.len()).unwrap());
        let dim = self.heads.dim;
        for (sequence, &slot) in self.slots.iter().enumerate() {
            for (kv_head, token) in
                (0..self.heads.kv_heads).flat_map(|h| (0..self.lengths[sequence]).map(move |t| (h, t)))
            {
                let from = self.at(slot, kv_head, token, 0);
                let row = (self.page(slot, token) * self.heads.kv_heads + kv_head) * PAGE + token % PAGE;
                let to = if paged { row * dim } else { from };
                for (buffer, values) in [(&both.0, &self.k), (&both.1, &self.v)] {
                    let values: Vec<T> = values[from..from + dim].iter().map(|&x| of(x)).collect();
                    buffer.write(to, &values).unwrap();
                }
            }
        }
        both
    }

    /// One row in f64: `query` of `head` of a sequence, which sees the tokens below `end`.
    fn oracle(&self, query: &[f32], sequence: usize, head: usize, end: usize) -> Vec<f64> {
        let (h, slot) = (&self.heads, self.slots[sequence]);
        let begin = h.window.map_or(0, |window| end.saturating_sub(window));
        let kv_head = head / h.group();
        let score = |token: usize| {
            let dot: f64 = (0..h.dim).map(|d| f64::from(query[d]) * self.k[self.at(slot, kv_head, token, d)]).sum();
            let score = dot * f64::from(h.scale);
            h.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
        };
        let scores: Vec<f64> = (begin..end).map(score).collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|s| (s - largest).exp()).sum();
        let weighted = |d: usize| {
            let of = |(i, s): (usize, &f64)| (s - largest).exp() / sum * self.v[self.at(slot, kv_head, begin + i, d)];
            scores.iter().enumerate().map(of).sum()
        };
        (0..h.dim).map(weighted).collect()
    }
}

impl Cache {
    fn view<'a>(&'a self, problem: &Problem, table: Option<&'a Buffer<i32>>) -> KvView<'a> {
        fn of<'a, T: Stored>(
            k: &'a Buffer<T>,
            v: &'a Buffer<T>,
            capacity: usize,
            table: Option<&'a Buffer<i32>>,
        ) -> KvView<'a> {
            match table {
                Some(table) => KvView::paged(k, v, table, capacity / PAGE, PAGE),
                None => KvView::contiguous(k, v, capacity),
            }
        }
        match self {
            Cache::Single(k, v) => of(k, v, problem.capacity, table),
            Cache::Half(k, v) => of(k, v, problem.capacity, table),
            Cache::Brain(k, v) => of(k, v, problem.capacity, table),
        }
    }
}

fn queries(count: usize, seed: u64) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| random.random_range(-2.0f32..2.0)).collect()
}

fn int(values: &[usize]) -> Vec<i32> {
    values.iter().map(|&value| value as i32).collect()
}

/// The largest difference of `found` from the oracle; row r of a sequence sees `ends[r]` tokens.
fn difference(problem: &Problem, q: &[f32], found: &[f32], rows: &[(usize, usize)]) -> f64 {
    let (h, width) = (&problem.heads, problem.heads.heads * problem.heads.dim);
    let mut worst = 0.0f64;
    for (r, &(sequence, end)) in rows.iter().enumerate() {
        for head in 0..h.heads {
            let at = r * width + head * h.dim;
            let expected = problem.oracle(&q[at..at + h.dim], sequence, head, end);
            for (f, e) in found[at..at + h.dim].iter().zip(expected) {
                let off = (f64::from(*f) - e).abs();
                worst = if off.is_nan() { f64::NAN } else { worst.max(off) };
            }
        }
    }
    worst
}

fn check_decode(
    gpu: &Gpu,
    heads: Heads,
    lengths: &[usize],
    q_rows: usize,
    element: Number,
    paged: bool,
    splits: usize,
) {
    let problem = Problem::draw(heads, lengths, element, 3);
    let cache = problem.upload(gpu, element, paged);
    let table = gpu.upload(&problem.table()).unwrap();
    let kv = cache.view(&problem, paged.then_some(&table));
    let shape = DecodeShape { sequences: lengths.len(), q_rows, max_length: problem.capacity, heads };
    // queries are part of wider rows, as after a stacked projection
    let (width, stride) = (heads.heads * heads.dim, heads.heads * heads.dim + 24);
    let n_rows = lengths.len() * q_rows;
    let wide = queries(n_rows * stride + 8, 5);
    let q: Vec<f32> = (0..n_rows).flat_map(|r| wide[8 + r * stride..8 + r * stride + width].to_vec()).collect();
    let wide = gpu.upload(&wide).unwrap();
    let out = gpu.upload(&vec![f32::NAN; n_rows * width]).unwrap();
    let workspace = DecodeWorkspace::with_splits(gpu, &shape, splits).unwrap();
    workspace.poison().unwrap();
    let (slots, device_lengths) = (gpu.upload(&int(&problem.slots)).unwrap(), gpu.upload(&int(lengths)).unwrap());
    let (rows_in, rows_out) = (Rows { buffer: &wide, at: 8, stride }, Rows::packed(&out, width));
    let ends: Vec<(usize, usize)> = lengths
        .iter()
        .enumerate()
        .flat_map(|(s, &l)| (0..q_rows).map(move |r| (s, (l + r + 1).saturating_sub(q_rows))))
        .collect();
    decode(&shape, rows_in, &kv, &device_lengths, Some(&slots), rows_out, &workspace).unwrap();
    let off = difference(&problem, &q, &out.read().unwrap(), &ends);
    assert!(off < 2e-5, "{heads:?} {lengths:?} rows {q_rows} {element:?} paged {paged} splits {splits}: {off}");
    if packs(element, &heads) {
        out.write(0, &vec![f32::NAN; n_rows * width]).unwrap();
        workspace.poison().unwrap();
        let shape = PackedShape { sequences: lengths.len(), q_rows, heads };
        let sees = Sees::Lengths(&device_lengths);
        packed(&shape, rows_in, &kv, sees, Some(&slots), rows_out, Some(&workspace)).unwrap();
        let off = difference(&problem, &q, &out.read().unwrap(), &ends);
        let allowed = if element == Number::F16 { 2e-5 } else { 1e-4 };
        assert!(off < allowed, "packed {heads:?} {lengths:?} rows {q_rows} {element:?} {paged} splits {splits}: {off}");
    }
}

#[test]
fn decoding_is_right_for_every_cache_and_split() {
    let plain = Heads::new(1, 1, 64);
    for gpu in devices() {
        for element in Number::ALL {
            check_decode(&gpu, Heads::new(4, 2, 64), &[33, 1], 1, element, true, 1);
            check_decode(&gpu, Heads::new(8, 1, 128), &[70], 1, element, false, 3);
        }
        // no token, exactly one tile, and more splits than there are tokens for
        check_decode(&gpu, plain, &[0, 16, 65], 1, Number::F16, true, 2);
        check_decode(&gpu, plain, &[5, 40, 0], 1, Number::F32, false, 7);
        // several rows a sequence, odd dims, a group that fills more than one block, a dim between two kernels
        check_decode(&gpu, Heads::new(2, 1, 40), &[3, 50], 3, Number::Bf16, true, 2);
        check_decode(&gpu, Heads::new(12, 1, 8), &[19], 1, Number::F32, false, 1);
        check_decode(&gpu, Heads::new(2, 2, 96), &[20], 2, Number::F16, false, 1);
        check_decode(&gpu, Heads::new(2, 2, 256), &[20], 1, Number::F32, true, 2);
        // a group of rows that fills more than a flat tile; keys of several parts
        check_decode(&gpu, Heads::new(6, 1, 64), &[200, 66], 4, Number::F16, true, 3);
    }
}

#[test]
fn windows_caps_and_scales() {
    for gpu in devices() {
        let heads = Heads { window: Some(20), softcap: Some(3.0), scale: 0.4, ..Heads::new(2, 1, 64) };
        check_decode(&gpu, heads, &[100, 7], 2, Number::F32, false, 1);
        check_decode(&gpu, heads, &[100, 7], 2, Number::F16, true, 3);
        // parts that start before the window does, and come round to the first place again
        let heads = Heads { window: Some(100), ..Heads::new(2, 1, 64) };
        check_decode(&gpu, heads, &[500, 150], 3, Number::F16, false, 3);
        check_decode(&gpu, heads, &[500], 9, Number::F16, true, 2);
    }
}

/// A recorded launch sees the lengths of the moment it is repeated.
#[test]
fn a_recorded_launch_follows_the_lengths() {
    for gpu in devices() {
        let heads = Heads::new(2, 1, 64);
        let problem = Problem::draw(heads, &[40, 64], Number::F16, 11);
        let cache = problem.upload(&gpu, Number::F16, false);
        let kv = cache.view(&problem, None);
        let shape = DecodeShape { sequences: 2, q_rows: 1, max_length: 64, heads };
        let q = queries(2 * 128, 12);
        let (q_device, out) = (gpu.upload(&q).unwrap(), gpu.upload(&[f32::NAN; 2 * 128]).unwrap());
        let workspace = DecodeWorkspace::with_splits(&gpu, &shape, 4).unwrap();
        let (slots, lengths) = (gpu.upload(&int(&problem.slots)).unwrap(), gpu.upload(&[0i32, 0]).unwrap());
        let (q_rows, out_rows) = (Rows::packed(&q_device, 128), Rows::packed(&out, 128));
        let recording =
            gpu.record(|| decode(&shape, q_rows, &kv, &lengths, Some(&slots), out_rows, &workspace)).unwrap();
        for now in [[40, 64], [1, 17], [39, 0]] {
            workspace.poison().unwrap();
            lengths.write(0, &int(&now)).unwrap();
            recording.replay().unwrap();
            let off = difference(&problem, &q, &out.read().unwrap(), &[(0, now[0]), (1, now[1])]);
            assert!(off < 2e-5, "{now:?}: {off}");
        }
    }
}

/// Rows of two sequences, in order within each and not between them.
fn check_prefill(gpu: &Gpu, heads: Heads, element: Number, paged: bool, ends: &[(usize, usize)]) {
    let lengths = [
        ends.iter().filter(|e| e.0 == 0).map(|e| e.1).max().unwrap_or(0),
        ends.iter().filter(|e| e.0 == 1).map(|e| e.1).max().unwrap_or(0),
    ];
    let problem = Problem::draw(heads, &lengths, element, 21);
    let cache = problem.upload(gpu, element, paged);
    let table = gpu.upload(&problem.table()).unwrap();
    let kv = cache.view(&problem, paged.then_some(&table));
    let width = heads.heads * heads.dim;
    let q = queries(ends.len() * width, 22);
    let (q_device, out) = (gpu.upload(&q).unwrap(), gpu.upload(&vec![f32::NAN; q.len()]).unwrap());
    let positions: Vec<i32> = ends.iter().map(|e| e.1 as i32 - 1).collect();
    let slots: Vec<i32> = ends.iter().map(|e| problem.slots[e.0] as i32).collect();
    let (positions, slots) = (gpu.upload(&positions).unwrap(), gpu.upload(&slots).unwrap());
    let shape = PrefillShape { rows: ends.len(), heads };
    prefill(&shape, Rows::packed(&q_device, width), &kv, &positions, &slots, Rows::packed(&out, width)).unwrap();
    let off = difference(&problem, &q, &out.read().unwrap(), ends);
    assert!(off < 2e-5, "{heads:?} {element:?} paged {paged}: {off}");
}

#[test]
fn prefill_takes_rows_of_several_sequences() {
    // a chunk of the first sequence, all of the second, a late row of the first
    let mixed: Vec<(usize, usize)> =
        (30..50).map(|end| (0, end)).chain((1..40).map(|end| (1, end))).chain([(0, 51)]).collect();
    for gpu in devices() {
        check_prefill(&gpu, Heads::new(2, 1, 64), Number::F32, false, &mixed);
        check_prefill(&gpu, Heads::new(2, 1, 64), Number::F16, true, &mixed[..24]);
        check_prefill(
            &gpu,
            Heads { window: Some(7), softcap: Some(2.0), ..Heads::new(2, 2, 40) },
            Number::Bf16,
            false,
            &mixed[10..40],
        );
        check_prefill(&gpu, Heads::new(3, 1, 128), Number::F32, true, &[(1, 5), (0, 3)]);
        // more than one tile of rows, with a token's heads in two tiles
        check_prefill(&gpu, Heads::new(3, 1, 128), Number::F16, false, &mixed);
        check_prefill(&gpu, Heads::new(2, 2, 256), Number::F16, false, &mixed[15..35]);
    }
}

#[test]
fn the_decoding_ladder_is_right() {
    // what is compiled for Ampere is other code
    let ampere = compiler().map(|nvrtc| Gpu::emulated(Arch::Sm80, nvrtc));
    for gpu in devices().into_iter().chain(ampere) {
        let shape = DecodeShape { sequences: 2, q_rows: 1, max_length: 600, heads: Heads::new(4, 2, 64) };
        let ran = climb(&*decode_bench(&gpu, shape, Number::Bf16, 1).unwrap());
        assert_eq!(ran, ["d0_unsplit", "d1_split_kv", "d2_paged", "d3_packed_heads"]);
    }
}

/// One row's bits, alone in a flat tile and among others in a tall one, of one part and of several.
#[test]
fn rows_do_not_change_with_the_rows_beside_them() {
    for gpu in devices() {
        for (heads, splits) in [(Heads::new(4, 2, 128), 1), (Heads { window: Some(90), ..Heads::new(3, 1, 64) }, 3)] {
            let problem = Problem::draw(heads, &[230], Number::F16, 31);
            let cache = problem.upload(&gpu, Number::F16, false);
            let (kv, width, rows) = (cache.view(&problem, None), heads.heads * heads.dim, 70);
            let q = gpu.upload(&queries(rows * width, 32)).unwrap();
            let tokens: Vec<i32> = (0..rows as i32).map(|row| 230 - rows as i32 + 1 + row).collect();
            let (tokens, slots) = (gpu.upload(&tokens).unwrap(), gpu.upload(&vec![0i32; rows]).unwrap());
            let run = |sequences: usize, q_rows: usize, first: usize| {
                let out = gpu.upload(&vec![f32::NAN; rows * width]).unwrap();
                let shape = DecodeShape { sequences, q_rows, max_length: 230, heads };
                let workspace = DecodeWorkspace::with_splits(&gpu, &shape, splits).unwrap();
                workspace.poison().unwrap();
                let at = |buffer| Rows { buffer, at: first * width, stride: width };
                let shape = PackedShape { sequences, q_rows, heads };
                let sees = Sees::Tokens(&tokens, first);
                packed(&shape, at(&q), &kv, sees, Some(&slots), at(&out), Some(&workspace)).unwrap();
                out.read().unwrap()[first * width..(first + sequences * q_rows) * width].to_vec()
            };
            let together = run(1, rows, 0);
            for (sequences, q_rows, first) in [(1, 1, 0), (3, 1, 40), (1, 4, 65), (2, 12, 30)] {
                let some = run(sequences, q_rows, first);
                assert!(
                    some == together[first * width..][..some.len()],
                    "{heads:?}: {sequences} x {q_rows} from {first}"
                );
            }
        }
    }
}

/// Sequences that fill the device have blocks that take several splits in turn: a row's bits are those of its splits in blocks of
/// their own.
#[test]
fn many_sequences_take_their_splits_in_turn() {
    for gpu in devices() {
        let (heads, sequences) = (Heads::new(2, 2, 64), gpu.multiprocessors() * 5 / 3);
        let problem = Problem::draw(heads, &[75], Number::F16, 41);
        let width = heads.heads * heads.dim;
        let q = gpu.upload(&queries(sequences * width, 42)).unwrap();
        let tokens: Vec<i32> = (0..sequences as i32).map(|row| 60 + row % 16).collect();
        let (tokens, slots) = (gpu.upload(&tokens).unwrap(), gpu.upload(&vec![0i32; sequences]).unwrap());
        for element in [Number::F16, Number::F32] {
            let cache = problem.upload(&gpu, element, false);
            let kv = cache.view(&problem, None);
            let run = |count: usize| {
                let out = gpu.upload(&vec![f32::NAN; count * width]).unwrap();
                let shape = DecodeShape { sequences: count, q_rows: 1, max_length: 75, heads };
                let workspace = DecodeWorkspace::with_splits(&gpu, &shape, 3).unwrap();
                workspace.poison().unwrap();
                let (from, to) = (Rows::packed(&q, width), Rows::packed(&out, width));
                if packs(element, &heads) {
                    let shape = PackedShape { sequences: count, q_rows: 1, heads };
                    packed(&shape, from, &kv, Sees::Tokens(&tokens, 0), Some(&slots), to, Some(&workspace)).unwrap();
                } else {
                    decode(&shape, from, &kv, &tokens, Some(&slots), to, &workspace).unwrap();
                }
                out.read().unwrap()
            };
            assert!(run(16) == run(sequences)[..16 * width], "{element:?}");
        }
    }
}
