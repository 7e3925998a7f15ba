//! What: exact attention in tiles with the online softmax; the score matrix never exists.
//!
//! Source: Dao et al. 2022, arXiv:2205.14135, algorithm 1 (order `fa1`); Dao 2023, arXiv:2307.08691, algorithm 1 and
//! §3.1–3.2 (order `fa2`); Ainslie et al. 2023, arXiv:2305.13245 (a group's query heads share one read of its keys);
//! Dao, Haziza, Massa and Sizov 2023, "Flash-Decoding" (`split`).
//! Shapes: q `[rows, n_heads·key_dim]`, out `[rows, n_heads·value_dim]`; a query tile stacks rows × the query heads of
//! one group; a key tile is `[key_tile, key_dim]`; scores `[query_tile, key_tile]`.
//! Method: `flash/fa2.rs`, `flash/fa1.rs`; the loops over tiles, which also feed the counters, are `flash/tiles.rs`.
//! Exactness: max|Δ| ≤ 1e-5·max|out| against f64, not bit-equal to naive. A row's bits depend on its keys and
//! `key_tile` alone: key tiles and sections start at fixed entries and are joined in order, so neither the rows
//! beside it, nor threads, nor `causal_skip` change them.
//! Cost: 2·(key_dim + value_dim) FLOPs per visited score; scratch does not grow with keys in order `fa2`. Encoded keys
//! and values are decoded inside the products.
//! Not handled: the backward pass; whole tiles off a token tree's paths are computed and struck out.

mod fa1;
mod fa2;
mod online;
pub(crate) mod tiles;

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};

use cpu_kernels::Cpu;
use model::{Activations, Attention, BufferPool, HeadShape, KvCache, Step};
use serde::{Deserialize, Serialize};

use crate::SpecError;

/// Sizes and order of the tiles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlashSpec {
    /// Query rows of a tile, the query heads of a group counted; a group larger than this still stays together.
    pub query_tile: usize,
    /// Keys of a tile.
    pub key_tile: usize,
    /// Leave out tiles that no row of the query tile sees.
    pub causal_skip: bool,
    /// Order of the two loops.
    pub order: FlashOrder,
    /// Keys after which a fresh accumulator starts (whole key tiles; order `fa2`), so that the keys of few rows spread
    /// over threads; 0 runs over all keys in one go. The partition is by entry, never by threads or rows.
    pub split: usize,
    /// A group's query heads share one read of each tile of its keys and values; else each head reads them.
    pub share_group: bool,
}

/// Which loop is outside, and with it what happens to the output between tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlashOrder {
    /// Keys outside, queries inside: the output is kept normalised and written again for every key tile.
    Fa1,
    /// Queries outside, keys inside: the output stays un-normalised in scratch and is written once.
    Fa2,
}

impl Default for FlashSpec {
    fn default() -> FlashSpec {
        // 64 rows fill the kernels' register tiles and 256 keys amortise a rescale: 15 % faster than 32 x 64 at 2K tokens
        FlashSpec {
            query_tile: 64,
            key_tile: 256,
            causal_skip: true,
            order: FlashOrder::Fa2,
            split: 1024,
            share_group: true,
        }
    }
}

impl FlashSpec {
    const QUERY_TILE: RangeInclusive<usize> = 1..=1024;
    const KEY_TILE: RangeInclusive<usize> = 1..=4096;
    const SPLIT: RangeInclusive<usize> = 0..=1 << 20;

    /// The default and each option away from it.
    pub(crate) fn all() -> Vec<FlashSpec> {
        let default = FlashSpec::default;
        vec![
            default(),
            FlashSpec { query_tile: 16, key_tile: 128, ..default() },
            FlashSpec { query_tile: 1, key_tile: 7, ..default() },
            FlashSpec { causal_skip: false, ..default() },
            FlashSpec { order: FlashOrder::Fa1, ..default() },
            FlashSpec { split: 0, ..default() },
            FlashSpec { split: 256, ..default() },
            FlashSpec { share_group: false, ..default() },
            FlashSpec { order: FlashOrder::Fa1, causal_skip: false, query_tile: 8, key_tile: 24, ..default() },
        ]
    }

    pub(crate) fn validate(&self) -> Result<(), SpecError> {
        let fields = [
            ("query_tile", self.query_tile, Self::QUERY_TILE),
            ("key_tile", self.key_tile, Self::KEY_TILE),
            ("split", self.split, Self::SPLIT),
        ];
        match fields.into_iter().find(|(_, found, range)| !range.contains(found)) {
            None => Ok(()),
            Some((field, found, range)) => Err(SpecError { field, found, least: *range.start(), most: *range.end() }),
        }
    }

    pub(crate) fn tag(&self) -> String {
        let default = FlashSpec::default();
        let mut tag = String::from("flash");
        if (self.query_tile, self.key_tile) != (default.query_tile, default.key_tile) {
            tag += &format!("-q{}-k{}", self.query_tile, self.key_tile);
        }
        tag + self.options('-').as_str()
    }

    fn options(&self, joint: char) -> String {
        let mut options = String::new();
        let mut add = |option: &str| options += &format!("{joint}{option}");
        if self.order == FlashOrder::Fa1 {
            add("fa1");
        }
        if !self.causal_skip {
            add("noskip");
        }
        if !self.share_group {
            add("perhead");
        }
        match self.split {
            0 => add("unsplit"),
            n if n != FlashSpec::default().split => add(&format!("split{n}")),
            _ => {}
        }
        options
    }

    /// Groups of query heads that share tiles.
    pub(crate) fn groups(&self, shape: &HeadShape) -> usize {
        if self.share_group { shape.groups() } else { shape.n_heads }
    }

    /// Query heads per group.
    pub(crate) fn group(&self, shape: &HeadShape) -> usize {
        shape.n_heads / self.groups(shape)
    }
}

pub(crate) struct Flash {
    spec: FlashSpec,
    cpu: Arc<Cpu>,
    /// Buffers of the loop over tiles, one per thread.
    work: BufferPool,
    /// Partial results of sections, where one query tile is spread over threads.
    partials: BufferPool,
}

/// The arguments of a pass.
struct Call<'a> {
    step: &'a Step,
    layer: usize,
    shape: &'a HeadShape,
    /// Query heads that share tiles.
    group: usize,
    q: &'a Activations,
    kv: &'a dyn KvCache,
    out: Mutex<&'a mut [f32]>,
}

impl Call<'_> {
    /// The group of the cache that `tile` reads.
    fn cache_group(&self, tile: &tiles::QueryTile) -> usize {
        tile.group * self.group / self.shape.group()
    }
}

impl Flash {
    pub(crate) fn new(spec: FlashSpec, cpu: Arc<Cpu>) -> Flash {
        Flash { spec, cpu, work: BufferPool::default(), partials: BufferPool::default() }
    }
}

impl Attention for Flash {
    fn forward(
        &self,
        step: &Step,
        layer: usize,
        shape: &HeadShape,
        q: &Activations,
        kv: &dyn KvCache,
        out: &mut Activations,
    ) {
        out.reshape(q.rows(), shape.n_heads * shape.value_dim);
        let group = self.spec.group(shape);
        let call = Call { step, layer, shape, group, q, kv, out: Mutex::new(out.as_mut_slice()) };
        match self.spec.order {
            FlashOrder::Fa2 => fa2::forward(self, &call),
            FlashOrder::Fa1 => fa1::forward(self, &call),
        }
    }

    fn scratch_bytes(&self, shape: &HeadShape, rows: usize, keys: usize) -> usize {
        let values = match self.spec.order {
            FlashOrder::Fa2 => fa2::scratch_len(&self.spec, shape, self.cpu.threads(), rows, keys),
            FlashOrder::Fa1 => fa1::scratch_len(&self.spec, shape, self.cpu.threads(), rows),
        };
        values * size_of::<f32>()
    }

    fn kernel_name(&self) -> String {
        let FlashSpec { query_tile, key_tile, .. } = self.spec;
        format!("flash_q{query_tile}_k{key_tile}{}_{}", self.spec.options('_'), self.cpu.isa().name())
    }
}

#[cfg(test)]
mod tests {
    use model::conformance::attention::cases;

    use super::*;

    #[test]
    fn scratch_is_what_was_announced() {
        for spec in FlashSpec::all() {
            for threads in [1, 2, 5] {
                for case in cases().into_iter().filter(|case| case.spans.len() == 1 && case.is_plain()) {
                    let flash = Flash::new(spec.clone(), Arc::new(Cpu::new(None, threads).unwrap()));
                    case.run(&flash);
                    let (past, rows) = case.spans[0];
                    let announced = flash.scratch_bytes(&case.shape, rows, past + rows);
                    let found = flash.work.resident_bytes() + flash.partials.resident_bytes();
                    let about = format!("{}, {threads} threads, {}", spec.tag(), case.name);
                    // A thread that came too late to get work has taken no buffer.
                    assert!(found > 0 && found <= announced, "{about}: {found} bytes, {announced} announced");
                    assert!(threads > 1 || found == announced, "{about}: {found} bytes, {announced} announced");
                }
            }
        }
    }

    #[test]
    fn scratch_of_the_second_order_does_not_grow_with_keys() {
        let flash = Flash::new(FlashSpec::default(), Arc::new(Cpu::new(None, 2).unwrap()));
        let bytes = |keys| flash.scratch_bytes(&HeadShape::new(8, 2, 64), keys, keys);
        assert_eq!(bytes(256), bytes(65536));
        let decode = |keys| flash.scratch_bytes(&HeadShape::new(8, 1, 64), 1, keys);
        assert_eq!(decode(1 << 14), decode(1 << 20));
    }
}
