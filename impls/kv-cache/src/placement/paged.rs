//! What: a pool of blocks of a fixed number of entries, and a table of blocks per sequence: room is handed out as it is used, and
//! sequences share what they have in common.
//!
//! Source: Kwon et al. 2023, arXiv:2309.06180, §4.1 (blocks and tables), §4.3 (a block that is shared and written to is copied first).
//! Shapes: a block holds, layer after layer, keys `[n_key_heads, block, key_dim]` and values `[n_value_heads, block, value_dim]`, scales
//! beside them as `[heads, block]`; a tile never leaves a block.
//! Method: 1. `reserve` counts the blocks that the new entries need, a copy of a shared last block included, and takes all or none;
//! 2. `append` encodes rows in place; 3. tiles borrow one block at a time; 4. `fork` copies a table and counts references; 5. `truncate`
//! gives back whole blocks behind the end.
//! Exactness: that of the encoding; attention that waits for a whole key tile gives the bits of a contiguous cache.
//! Cost: at most block − 1 entries per sequence are reserved and unused; a table look-up per block and head.
//! Not handled: moving blocks to another memory.

use std::collections::HashMap;
use std::ops::Range;

use model::{Activations, CacheFull, KvBytes, KvCache, KvEntries, KvShape, KvTile, Room, SeqId, Step};
use serde::{Deserialize, Serialize};

use crate::SpecError;
use crate::encoding::{Encoding, EncodingName};
use crate::pool::{Pool, Side};

/// How a paged cache cuts and stores its entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PagedSpec {
    /// Encoding of keys and values.
    pub encoding: EncodingName,
    /// Entries of a block.
    pub block: usize,
    /// Entries that all sequences may hold together; none: what each may hold, for as many as there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<usize>,
    /// Keep the compressed vectors of latent attention instead of keys and values.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub latent: bool,
}

impl Default for PagedSpec {
    fn default() -> PagedSpec {
        PagedSpec { encoding: EncodingName::F32, block: Self::BLOCK, pool: None, latent: false }
    }
}

impl PagedSpec {
    /// What the paper uses: larger blocks waste more, smaller ones are looked up more often.
    const BLOCK: usize = 16;
    /// Entries that a block may have.
    const BLOCKS: std::ops::RangeInclusive<usize> = 1..=4096;

    pub(crate) fn tag(&self) -> String {
        let mut tag = String::from("paged");
        if self.latent {
            tag += "-latent";
        }
        if self.block != Self::BLOCK {
            tag += &format!("-b{}", self.block);
        }
        if let Some(pool) = self.pool {
            tag += &format!("-pool{pool}");
        }
        match self.encoding {
            EncodingName::F32 => tag,
            encoding => tag + "-" + encoding.name(),
        }
    }

    /// Whether the sizes are possible.
    pub(crate) fn validate(&self) -> Result<(), SpecError> {
        let (least, most) = (*Self::BLOCKS.start(), *Self::BLOCKS.end());
        if !Self::BLOCKS.contains(&self.block) {
            return Err(SpecError { field: "block", found: self.block, least, most });
        }
        match self.pool {
            Some(pool) if pool < self.block => {
                Err(SpecError { field: "pool", found: pool, least: self.block, most: usize::MAX })
            }
            _ => Ok(()),
        }
    }
}

pub(crate) struct Paged<E: Encoding> {
    shape: KvShape,
    /// Entries that one sequence may hold.
    capacity: usize,
    pool: Pool<E>,
    sequences: HashMap<SeqId, Sequence>,
}

#[derive(Clone)]
struct Sequence {
    /// Blocks of the pool, in the order of their entries.
    table: Vec<u32>,
    /// Of every entry that some layer has.
    positions: Vec<u32>,
    /// Entries of each layer.
    lens: Vec<usize>,
}

impl<E: Encoding> Paged<E> {
    pub(crate) fn new(spec: &PagedSpec, shape: KvShape, capacity: usize) -> Paged<E> {
        let most = spec.pool.map(|entries| entries / spec.block);
        Paged { shape, capacity, pool: Pool::new(shape, spec.block, most), sequences: HashMap::new() }
    }

    fn block(&self) -> usize {
        self.pool.block()
    }
}

impl<E: Encoding> KvCache for Paged<E> {
    fn reserve(&mut self, seq: SeqId, len: usize) -> Result<(), CacheFull> {
        if len > self.capacity {
            return Err(CacheFull { seq, needed: len, capacity: self.capacity, limit: Room::Sequence });
        }
        let block = self.block();
        let held = self.sequences.get(&seq);
        let (table, written) = held.map_or((&[][..], 0), |held| (&held.table[..], held.positions.len()));
        // the block that the next entry goes into, where others read it too
        let shared = (len > written)
            .then(|| table.get(written / block))
            .flatten()
            .filter(|&&id| self.pool.references(id) > 1)
            .map(|_| written / block);
        let more = len.div_ceil(block).saturating_sub(table.len());
        let needed = more + usize::from(shared.is_some());
        if needed > self.pool.free() {
            let (needed, capacity) = (needed * block, self.pool.free() * block);
            return Err(CacheFull { seq, needed, capacity, limit: Room::Pool });
        }
        let n_layers = self.shape.n_layers;
        let sequence = self.sequences.entry(seq).or_insert_with(|| Sequence::new(n_layers));
        if let Some(at) = shared {
            sequence.table[at] = self.pool.copy(sequence.table[at]);
        }
        sequence.table.extend((0..more).map(|_| self.pool.take()));
        Ok(())
    }

    fn append(&mut self, layer: usize, step: &Step, k: &Activations, v: &Activations) {
        let block = self.block();
        for span in &step.spans {
            let sequence = self.sequences.get_mut(&span.seq).expect("room was reserved, as the trait asks");
            for row in span.rows.clone() {
                let entry = sequence.lens[layer];
                let id = *sequence.table.get(entry / block).expect("room was reserved, as the trait asks");
                // The first layer to get an entry names its position; every layer gets the same Steps.
                if entry == sequence.positions.len() {
                    sequence.positions.push(step.positions[row]);
                }
                self.pool.store(id, layer, Side::Keys, entry % block, k.row(row));
                self.pool.store(id, layer, Side::Values, entry % block, v.row(row));
                sequence.lens[layer] += 1;
            }
        }
    }

    fn len(&self, layer: usize, seq: SeqId) -> usize {
        self.sequences.get(&seq).map_or(0, |sequence| sequence.lens[layer])
    }

    fn tiles(
        &self,
        layer: usize,
        seq: SeqId,
        mut entries: Range<usize>,
        tile_len: usize,
        visit: &mut dyn FnMut(KvTile<'_>),
    ) {
        let Some(sequence) = self.sequences.get(&seq) else { return };
        let block = self.block();
        assert!(entries.end <= sequence.lens[layer], "{seq:?}: entries {entries:?} of {}", sequence.lens[layer]);
        while !entries.is_empty() {
            let (id, at) = (sequence.table[entries.start / block], entries.start % block);
            let n = tile_len.min(block - at).min(entries.len());
            let tile = entries.start..entries.start + n;
            entries.start = tile.end;
            let k: KvEntries<'_> = self.pool.entries(id, layer, Side::Keys, at);
            let v = if self.shape.value_prefix { k } else { self.pool.entries(id, layer, Side::Values, at) };
            visit(KvTile { first: tile.start, positions: &sequence.positions[tile], k, v });
        }
    }

    fn truncate(&mut self, seq: SeqId, len: usize) {
        let Some(sequence) = self.sequences.get_mut(&seq) else { return };
        sequence.positions.truncate(len);
        sequence.lens.iter_mut().for_each(|held| *held = (*held).min(len));
        // from the tail on: what lies there is the least likely to be wanted again
        let kept = sequence.positions.len().div_ceil(self.pool.block());
        while sequence.table.len() > kept {
            sequence.table.pop().into_iter().for_each(|id| self.pool.release(id));
        }
        if len == 0 {
            self.sequences.remove(&seq);
        }
    }

    fn fork(&mut self, from: SeqId, to: SeqId) -> bool {
        if from == to {
            return true;
        }
        self.truncate(to, 0);
        if let Some(origin) = self.sequences.get(&from) {
            let mut copy = origin.clone();
            // blocks that were reserved and hold nothing yet stay the origin's own
            copy.table.truncate(copy.positions.len().div_ceil(self.pool.block()));
            copy.table.iter().for_each(|&id| self.pool.share(id));
            self.sequences.insert(to, copy);
        }
        true
    }

    fn bytes(&self) -> KvBytes {
        let entries: usize = self.sequences.values().flat_map(|sequence| &sequence.lens).sum();
        KvBytes { logical: entries * self.entry_bytes(), resident: self.pool.bytes() + self.tables() }
    }

    fn entry_bytes(&self) -> usize {
        self.pool.entry_bytes()
    }
}

impl<E: Encoding> Paged<E> {
    /// Bytes of tables: what paging adds to the entries.
    fn tables(&self) -> usize {
        self.sequences.values().map(|sequence| size_of_val(sequence.table.as_slice())).sum()
    }
}

impl Sequence {
    fn new(n_layers: usize) -> Sequence {
        Sequence { table: vec![], positions: vec![], lens: vec![0; n_layers] }
    }
}
