//! What attention over a cache of 16 bits reads and multiplies, counted by the emulator, against the least that it could.

use cuda_kernels::attention::{DecodeShape, DecodeWorkspace, Heads, KvView, PackedShape, Rows, Sees, packed};
use cuda_kernels::{Arch, Gpu};
use half::f16;

use crate::compiler;

/// Bytes that memory hands out at once.
const SECTOR: usize = 32;
/// What a tile reads beside keys, values and queries: lengths and slots of its rows.
const PER_ROW: usize = 2;

struct Counted {
    read: usize,
    multiplied: usize,
    conflicts: usize,
}

/// `rows` neighbouring rows of one sequence behind `start` cached tokens, as `splits` splits.
fn count(gpu: &Gpu, heads: Heads, rows: usize, start: usize, splits: usize) -> Counted {
    let (capacity, width) = (start + rows, heads.heads * heads.dim);
    let cache = vec![f16::from_f32(0.25); heads.kv_heads * capacity * heads.dim];
    let (k, v) = (gpu.upload(&cache).unwrap(), gpu.upload(&cache).unwrap());
    let (q, out) = (gpu.upload(&vec![0.5f32; rows * width]).unwrap(), gpu.upload(&vec![0f32; rows * width]).unwrap());
    let lengths = gpu.upload(&[capacity as i32]).unwrap();
    let shape = DecodeShape { sequences: 1, q_rows: rows, max_length: capacity, heads };
    let workspace = DecodeWorkspace::with_splits(gpu, &shape, splits).unwrap();
    let shape = PackedShape { sequences: 1, q_rows: rows, heads };
    let before = gpu.counts().unwrap();
    let (q, out, kv) = (Rows::packed(&q, width), Rows::packed(&out, width), KvView::contiguous(&k, &v, capacity));
    packed(&shape, q, &kv, Sees::Lengths(&lengths), None, out, Some(&workspace)).unwrap();
    let after = gpu.counts().unwrap();
    Counted {
        read: (after.global_read_sectors - before.global_read_sectors) as usize,
        multiplied: (after.mma_flops - before.mma_flops) as usize,
        conflicts: (after.shared_conflicts - before.shared_conflicts) as usize,
    }
}

/// Sectors of one key and its value.
fn sectors_per_key(heads: &Heads) -> usize {
    2 * heads.dim * 2 / SECTOR
}

/// A token decoded reads every key and value once for all heads of its group, be they one or sixteen, and nothing else of weight.
#[test]
fn a_decoded_token_reads_each_key_once_for_its_group() {
    let Some(nvrtc) = compiler() else { return };
    let gpu = Gpu::emulated(Arch::Sm90a, nvrtc);
    for (heads, length) in [(Heads::new(1, 1, 128), 500), (Heads::new(8, 1, 128), 500), (Heads::new(32, 2, 64), 300)] {
        let counted = count(&gpu, heads, 1, length - 1, 1);
        let floor = length * heads.kv_heads * sectors_per_key(&heads) + heads.heads * heads.dim * 4 / SECTOR;
        assert!((floor..=floor + 4 * heads.kv_heads).contains(&counted.read), "{heads:?}: {} of {floor}", counted.read);
        // high and low queries and weights, sixteen rows whatever the group, keys in tiles of 64
        assert_eq!(counted.multiplied, 8 * 16 * heads.dim * length.next_multiple_of(64) * heads.kv_heads, "{heads:?}");
        assert!(counted.conflicts * 50 <= counted.read, "{heads:?}: {} conflicts", counted.conflicts);
    }
    // in splits, partial results come on top, and no key is read twice
    let (heads, length) = (Heads::new(8, 1, 128), 600);
    let (whole, split) = (count(&gpu, heads, 1, length - 1, 1).read, count(&gpu, heads, 1, length - 1, 4).read);
    let partial = heads.heads * 4 * (heads.dim * 4 / SECTOR + 8) + 3 * heads.heads * heads.dim * 4 / SECTOR;
    assert!(split <= whole + partial, "{split} of {whole}, {partial} more allowed");
}

/// A prompt reads keys and values once per 128 rows of a tile, (token, head of the group) each, and multiplies what a warp's rows see.
#[test]
fn a_prompt_reads_each_key_once_per_tile() {
    let Some(nvrtc) = compiler() else { return };
    let gpu = Gpu::emulated(Arch::Sm90a, nvrtc);
    for (heads, rows, start) in
        [(Heads::new(4, 1, 128), 64, 0), (Heads::new(2, 2, 128), 160, 40), (Heads::new(8, 2, 64), 20, 300)]
    {
        let counted = count(&gpu, heads, rows, start, 1);
        let group = heads.group();
        let sees = |packed_row: usize| start + packed_row.min(rows * group - 1) / group + 1;
        let tiles = (0..rows * group).step_by(128);
        let keys: usize = tiles.clone().map(|tile| sees(tile + 127)).sum();
        let queries = rows * heads.heads * heads.dim * 4 / SECTOR;
        let floor = keys * heads.kv_heads * sectors_per_key(&heads) + queries;
        let slack = PER_ROW * (rows + tiles.count()) * heads.kv_heads;
        let read = counted.read;
        assert!((floor..=floor + slack).contains(&read), "{heads:?} {rows} rows: {read} of {floor} to {slack} more");
        let warps = (0..rows * group).step_by(16);
        let pairs: usize = warps.map(|warp| 16 * sees(warp + 15).next_multiple_of(64)).sum();
        assert_eq!(counted.multiplied, 8 * heads.dim * heads.kv_heads * pairs, "{heads:?} {rows} rows");
        assert!(counted.conflicts == 0, "{heads:?}: {} conflicts", counted.conflicts);
    }
}
