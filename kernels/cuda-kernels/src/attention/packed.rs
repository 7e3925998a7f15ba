//! Launches `packed.cu`: any rows over a cache of 16-bit keys and values, on tensor cores. Decoding, verifying and prompts are one
//! kernel in three shapes, which give a row the same bits.

use super::cache::{KvView, Rows};
use super::decode::{DecodeWorkspace, Merge, merge};
use super::heads::Heads;
use crate::{Arg, Buffer, GpuError, KernelSpec, LaunchShape, Number, Source};

static TEXT: Source = Source { name: "attention/packed.cu", text: include_str!("packed.cu") };

const NAME: &str = "attention_packed";
/// Head dims that kernels are compiled for; others take the next. Above, the results of 16 rows do not fit a warp's registers.
const DIMS: [usize; 2] = [64, 128];
/// Rows of a tile for a token's heads, for a few tokens to verify and for a prompt; and blocks of it that a multiprocessor holds.
const TILES: [(usize, usize); 3] = [(FLAT, 3), (64, 2), (128, 1)];
/// Rows of the tile whose warps share the keys and not the rows.
const FLAT: usize = 16;

/// Sizes of a launch: `sequences` neighbouring spans of `q_rows` rows each, which share tiles within themselves alone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PackedShape {
    /// Spans.
    pub sequences: usize,
    /// Rows of each span. Rows of one slot that stand together share what is read; other rows may stand among them.
    pub q_rows: usize,
    /// Heads and how scores are formed.
    pub heads: Heads,
}

/// Where on the device it is written what each row sees.
#[derive(Debug, Clone, Copy)]
pub enum Sees<'a> {
    /// `[sequences]`: tokens of a sequence, whose last `q_rows` are the rows; row r sees L − q_rows + r + 1.
    Lengths(&'a Buffer<i32>),
    /// `[rows]` from an element on: tokens that a row sees.
    Tokens(&'a Buffer<i32>, usize),
    /// `[rows]` from an element on: the position of a row, which sees itself and those before.
    Positions(&'a Buffer<i32>, usize),
}

impl Sees<'_> {
    /// The buffer and its first element of use; rows per element; what an element lacks.
    fn parts(&self, q_rows: usize) -> (&Buffer<i32>, usize, usize, usize) {
        match *self {
            Sees::Lengths(lengths) => (lengths, 0, q_rows, 0),
            Sees::Tokens(tokens, at) => (tokens, at, 1, 0),
            Sees::Positions(positions, at) => (positions, at, 1, 1),
        }
    }
}

impl PackedShape {
    /// Rows of all spans.
    pub fn rows(&self) -> usize {
        self.sequences * self.q_rows
    }

    /// Rows of the first tile that has room for a span's (token, head) pairs of one kv head, and its blocks per multiprocessor.
    fn tile(&self) -> (usize, usize) {
        let rows = self.q_rows * self.heads.group();
        TILES.into_iter().find(|tile| tile.0 >= rows).unwrap_or(TILES[TILES.len() - 1])
    }

    /// Splits that fill a device of so many multiprocessors with these rows, which see up to `max_length` tokens. A row's bits depend
    /// on the splits: who wants them independent of the rows beside it asks for the splits of one row.
    pub fn splits(&self, max_length: usize, multiprocessors: usize) -> usize {
        super::decode::splits(self.blocks(), max_length, self.resident(multiprocessors))
    }

    /// Blocks of one split.
    fn blocks(&self) -> usize {
        self.sequences * self.heads.kv_heads * (self.q_rows * self.heads.group()).div_ceil(self.tile().0)
    }

    fn resident(&self, multiprocessors: usize) -> usize {
        multiprocessors * self.tile().1
    }
}

/// Whether there is a kernel for a cache of `element` with these heads.
pub fn packs(element: Number, heads: &Heads) -> bool {
    element != Number::F32 && heads.dim <= DIMS[DIMS.len() - 1]
}

/// `out = softmax(q·Kᵀ)·V` for rows whose keys and values are in the cache already; `q` and `out` are rows of `[heads][dim]`.
///
/// `slots`: where in the cache a sequence ([`Sees::Lengths`]) or a row lies, from the same element on; `None` is its number. What
/// rows see and where they lie is read on the device, so a recording may be repeated. Without a workspace a row's keys are not split.
/// [`packs`] must hold.
pub fn packed(
    shape: &PackedShape,
    q: Rows<'_>,
    kv: &KvView<'_>,
    sees: Sees<'_>,
    slots: Option<&Buffer<i32>>,
    out: Rows<'_>,
    workspace: Option<&DecodeWorkspace>,
) -> Result<(), GpuError> {
    let (heads, rows) = (&shape.heads, shape.rows());
    let splits = workspace.map_or(1, DecodeWorkspace::splits);
    let (ends, at, per, plus) = sees.parts(shape.q_rows);
    check(shape, q, kv, out)?;
    let entries = rows / per.max(1);
    let named = slots.map_or(at + entries, Buffer::len);
    if ends.len() < at + entries || named < at + entries {
        let reason = format!("{} lengths and {named} slots, expected {entries} from number {at} on", ends.len());
        return Err(GpuError::shape(NAME, reason));
    }
    workspace.map_or(Ok(()), |workspace| workspace.check(NAME, rows * heads.heads, heads.dim))?;
    if rows == 0 {
        return Ok(());
    }
    let (kernel, tile) = kernel_for(kv.element, heads.dim, shape.tile().0);
    let int = |value: usize| Arg::I32(value as i32);
    let args = [
        q.arg(),
        Arg::Pointer(kv.k),
        Arg::Pointer(kv.v),
        ends.arg_at(at),
        slots.map_or(Arg::Pointer(0), |slots| slots.arg_at(at)),
        kv.table(),
        out.arg(),
        workspace.map_or(Arg::Pointer(0), |workspace| workspace.partial.arg()),
        workspace.map_or(Arg::Pointer(0), |workspace| workspace.states.arg()),
        int(shape.q_rows),
        int(per),
        int(plus),
        int(heads.heads),
        int(heads.kv_heads),
        int(heads.dim),
        int(q.stride),
        int(out.stride),
        int(kv.page_tokens),
        int(kv.max_pages),
        int(heads.window.unwrap_or(0)),
        int(splits),
        Arg::F32(heads.scale),
        Arg::F32(heads.softcap.unwrap_or(0.0)),
    ];
    let tiles = (shape.q_rows * heads.group()).div_ceil(tile.rows);
    let gpu = q.buffer.gpu();
    // where rows fill the device, a block takes several splits in turn: who decodes many sequences starts no idle blocks
    let turns = super::decode::fill(shape.blocks(), splits, shape.resident(gpu.multiprocessors()));
    let grid = LaunchShape::grid(shape.sequences * tiles, heads.kv_heads, turns, tile.threads);
    // SAFETY: rows, cache, lengths and workspace were checked against the shape; the kernel reads tokens below each end, of slots
    // and pages that the caller's tables name.
    unsafe { gpu.launch(&kernel, grid.with_shared(tile.shared), &args) }?;
    let Some(workspace) = workspace else { return Ok(()) };
    merge(gpu, &Merge { parts: true, rows, per, plus, ends: ends.arg_at(at), heads, out }, workspace)
}

fn check(shape: &PackedShape, q: Rows<'_>, kv: &KvView<'_>, out: Rows<'_>) -> Result<(), GpuError> {
    let (heads, rows) = (&shape.heads, shape.rows());
    heads.check(NAME)?;
    if !packs(kv.element, heads) {
        let reason = format!("a cache of {:?}, head dim {}; expected 16 bits and at most 128", kv.element, heads.dim);
        return Err(GpuError::shape(NAME, reason));
    }
    q.check(NAME, "q", rows, heads.heads * heads.dim)?;
    out.check(NAME, "out", rows, heads.heads * heads.dim)?;
    kv.check(NAME, 0, heads.kv_heads, heads.dim)
}

/// A tile and what its block takes.
struct Tile {
    rows: usize,
    threads: usize,
    /// Dynamic shared memory, bytes: keys and values twice, low halves of queries, a flat tile's scores.
    shared: usize,
}

fn kernel_for(element: Number, dim: usize, rows: usize) -> (KernelSpec, Tile) {
    let dim = if dim <= DIMS[0] { DIMS[0] } else { DIMS[1] };
    let kernel = KernelSpec::new(&TEXT, NAME);
    let kernel = kernel.define("NUMBER", element.in_text()).define("DIM", dim).define("ROWS", rows);
    // a flat tile's high halves of queries leave their place to scores, a tall one's theirs to keys and values
    let (kv, scores, queries) = (4 * 64 * dim * 2, FLAT * 72 * 4, rows * dim * 2);
    let shared = queries + if rows == FLAT { kv + scores } else { kv };
    (kernel, Tile { rows, threads: if rows == FLAT { 128 } else { 2 * rows }, shared })
}

/// Everything that is launched here.
pub(super) fn kernels() -> Vec<KernelSpec> {
    let numbers = Number::ALL.into_iter().filter(|&number| number != Number::F32);
    let forms = DIMS.into_iter().flat_map(|dim| TILES.map(|(rows, _)| (dim, rows)));
    numbers.flat_map(|number| forms.clone().map(move |(dim, rows)| kernel_for(number, dim, rows).0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Arch;

    /// Lists of the rows of a tile, in static shared memory: three, of 32 bits.
    const LISTS: usize = 3 * 4;

    #[test]
    fn tiles_fit_every_architecture_and_a_hopper_as_often_as_is_said() {
        for (dim, (rows, blocks)) in DIMS.into_iter().flat_map(|dim| TILES.map(|tile| (dim, tile))) {
            let tile = kernel_for(Number::F16, dim, rows).1;
            let bytes = tile.shared + LISTS * rows;
            for arch in Arch::ALL {
                assert!(bytes <= arch.shared_bytes() as usize, "{rows} rows of {dim} take {bytes} bytes on {arch}");
            }
            // 228 KB a multiprocessor, of which every block costs one more
            assert!((bytes + 1024) * blocks <= 228 << 10, "{blocks} blocks of {bytes} bytes");
        }
    }
}
