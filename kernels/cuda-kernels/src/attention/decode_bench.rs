//! Decoding problems with caches drawn by seed, rows checked against the f64 oracle.

use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, StandardNormal};

use super::bench::worst;
use super::cache::{KvView, Rows, Stored};
use super::decode::{DecodeShape, DecodeWorkspace, decode};
use super::oracle::{Scores, row};
use super::packed::{PackedShape, Sees, packed, packs};
use crate::{Arch, Bench, Buffer, Deviation, Gpu, GpuError, Number, Rung};

/// Tokens of a page.
const PAGE: usize = 16;
/// Rows that are compared with the oracle; all where there are no more.
const CHECKED_ROWS: usize = 32;
/// f32 sums and the fast exponential, on results of the order of 1.
const ALLOWED: f64 = 2e-5;

const UNSPLIT: &str = "d0_unsplit";
const SPLIT: &str = "d1_split_kv";
const PAGED: &str = "d2_paged";
const PACKED: &str = "d3_packed_heads";

/// The ways to read a cache while decoding, from the simplest on.
const LADDER: [Rung; 4] = [
    Rung { name: UNSPLIT, idea: "one block per sequence and kv head", needs: Arch::Sm80 },
    Rung { name: SPLIT, idea: "sequences split until the device is full", needs: Arch::Sm80 },
    Rung { name: PAGED, idea: "the same, keys and values in shuffled pages", needs: Arch::Sm80 },
    Rung { name: PACKED, idea: "tensor cores: the heads of a group are rows of one tile", needs: Arch::Sm80 },
];

struct DecodeBench<T> {
    shape: DecodeShape,
    /// Tokens that a slot has room for.
    capacity: usize,
    seed: u64,
    table: Vec<i32>,
    host: [Vec<T>; 2],
    host_q: Vec<f32>,
    q: Buffer<f32>,
    k: Buffer<T>,
    v: Buffer<T>,
    pages: Buffer<i32>,
    lengths: Buffer<i32>,
    out: Buffer<f32>,
    unsplit: DecodeWorkspace,
    split: DecodeWorkspace,
    packed: DecodeWorkspace,
}

/// A decoding problem: every sequence has `shape.max_length` tokens in a cache of `element`. The same random memory is read as
/// slots and as a pool of shuffled pages.
pub fn decode_bench(gpu: &Gpu, shape: DecodeShape, element: Number, seed: u64) -> Result<Box<dyn Bench>, GpuError> {
    shape.heads.check("attention_decode")?;
    match element {
        Number::F32 => bench::<f32>(gpu, shape, seed),
        Number::F16 => bench::<half::f16>(gpu, shape, seed),
        Number::Bf16 => bench::<half::bf16>(gpu, shape, seed),
    }
}

fn bench<T: Stored>(gpu: &Gpu, shape: DecodeShape, seed: u64) -> Result<Box<dyn Bench>, GpuError> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let capacity = shape.max_length.next_multiple_of(PAGE).max(PAGE);
    let values = shape.sequences * shape.heads.kv_heads * capacity * shape.heads.dim;
    let mut draw = |n: usize| -> Vec<f32> { (0..n).map(|_| StandardNormal.sample(&mut random)).collect() };
    let host_q = draw(shape.rows() * shape.heads.heads * shape.heads.dim);
    let host = [draw(values), draw(values)].map(|all| all.into_iter().map(T::from_f32).collect::<Vec<T>>());
    let mut table: Vec<i32> = (0..(shape.sequences * capacity / PAGE) as i32).collect();
    table.shuffle(&mut random);
    Ok(Box::new(DecodeBench {
        shape,
        capacity,
        seed,
        q: gpu.upload(&host_q)?,
        k: gpu.upload(&host[0])?,
        v: gpu.upload(&host[1])?,
        pages: gpu.upload(&table)?,
        lengths: gpu.upload(&vec![shape.max_length as i32; shape.sequences])?,
        out: gpu.alloc(host_q.len())?,
        unsplit: DecodeWorkspace::with_splits(gpu, &shape, 1)?,
        split: DecodeWorkspace::new(gpu, &shape)?,
        packed: DecodeWorkspace::with_splits(
            gpu,
            &shape,
            packed_shape(&shape).splits(shape.max_length, gpu.multiprocessors()),
        )?,
        table,
        host,
        host_q,
    }))
}

fn packed_shape(shape: &DecodeShape) -> PackedShape {
    PackedShape { sequences: shape.sequences, q_rows: shape.q_rows, heads: shape.heads }
}

impl<T: Stored> DecodeBench<T> {
    /// Largest error of one row of one head.
    fn error(&self, name: &str, out: &[f32], q_row: usize, head: usize) -> f64 {
        let (s, h) = (&self.shape, &self.shape.heads);
        let (sequence, kv_head) = (q_row / s.q_rows, head / h.group());
        let end = (s.max_length + q_row % s.q_rows + 1).saturating_sub(s.q_rows);
        let begin = h.window.map_or(0, |window| end.saturating_sub(window));
        let at = |token: usize| match name {
            PAGED => {
                let page = self.table[sequence * (self.capacity / PAGE) + token / PAGE] as usize;
                ((page * h.kv_heads + kv_head) * PAGE + token % PAGE) * h.dim
            }
            _ => ((sequence * h.kv_heads + kv_head) * self.capacity + token) * h.dim,
        };
        let from = (q_row * h.heads + head) * h.dim;
        let query: Vec<f64> = self.host_q[from..from + h.dim].iter().map(|&x| f64::from(x)).collect();
        let scores = Scores { scale: f64::from(h.scale), softcap: h.softcap.map(f64::from) };
        let value = |of: usize, token: usize, d: usize| self.host[of][at(token) + d].to_f64();
        let exact = row(&query, begin..end, scores, |t, d| value(0, t, d), |t, d| value(1, t, d));
        worst(0.0, out[from..from + h.dim].iter().map(|&x| f64::from(x)), &exact.out)
    }
}

impl<T: Stored> Bench for DecodeBench<T> {
    fn label(&self) -> String {
        let (s, h) = (&self.shape, &self.shape.heads);
        let kv = match T::ELEMENT {
            Number::F32 => "f32",
            Number::F16 => "f16",
            Number::Bf16 => "bf16",
        };
        format!(
            "decode b{} q{} h{}/{} l{} d{} kv {kv}",
            s.sequences, s.q_rows, h.heads, h.kv_heads, s.max_length, h.dim
        )
    }

    fn rungs(&self) -> Vec<(Rung, Result<(), String>)> {
        let packs = packs(T::ELEMENT, &self.shape.heads);
        let can = |rung: &Rung| match rung.name {
            PACKED if !packs => Err("needs a cache of 16 bits and head dims up to 128".into()),
            _ => Ok(()),
        };
        LADDER.map(|rung| (rung, can(&rung))).to_vec()
    }

    fn flops(&self) -> u64 {
        4 * (self.shape.rows() * self.shape.heads.heads * self.shape.max_length * self.shape.heads.dim) as u64
    }

    fn bytes(&self) -> u64 {
        let (s, h) = (&self.shape, &self.shape.heads);
        let cache = 2 * s.sequences * s.max_length * h.kv_heads * h.dim * T::ELEMENT.bytes();
        (cache + 2 * 4 * self.host_q.len()) as u64
    }

    fn poison(&self) -> Result<(), GpuError> {
        self.unsplit.poison()?;
        self.split.poison()?;
        self.packed.poison()?;
        self.out.write(0, &vec![f32::NAN; self.out.len()])
    }

    fn run(&self, name: &str) -> Result<(), GpuError> {
        let width = self.shape.heads.heads * self.shape.heads.dim;
        let (q, out) = (Rows::packed(&self.q, width), Rows::packed(&self.out, width));
        let slots = KvView::contiguous(&self.k, &self.v, self.capacity);
        let pages = KvView::paged(&self.k, &self.v, &self.pages, self.capacity / PAGE, PAGE);
        if name == PACKED {
            let sees = Sees::Lengths(&self.lengths);
            return packed(&packed_shape(&self.shape), q, &slots, sees, None, out, Some(&self.packed));
        }
        let (kv, workspace) = match name {
            UNSPLIT => (slots, &self.unsplit),
            SPLIT => (slots, &self.split),
            PAGED => (pages, &self.split),
            _ => return Err(GpuError::shape("attention_decode", format!("no rung {name}"))),
        };
        decode(&self.shape, q, &kv, &self.lengths, None, out, workspace)
    }

    fn deviation(&self, name: &str) -> Result<Deviation, GpuError> {
        let (heads, out) = (self.shape.heads.heads, self.out.read()?);
        let all = self.shape.rows() * heads;
        let mut random = ChaCha8Rng::seed_from_u64(self.seed ^ 0x5eed);
        let mut largest = 0.0f64;
        for i in 0..all.min(CHECKED_ROWS) {
            let place = if all <= CHECKED_ROWS { i } else { random.random_range(0..all) };
            let error = self.error(name, &out, place / heads, place % heads);
            largest = if error.is_nan() { f64::NAN } else { largest.max(error) };
        }
        Ok(Deviation { largest, allowed: ALLOWED })
    }
}
