//! Launches `decode.cu`: a few query rows per sequence over a long cache, split over blocks.

use super::cache::{KvView, Rows};
use super::heads::Heads;
use crate::{Arg, Buffer, Gpu, GpuError, KernelSpec, LaunchShape, Number, Source};

static TEXT: Source = Source { name: "attention/decode.cu", text: include_str!("decode.cu") };
static MERGE_TEXT: Source = Source { name: "attention/decode_merge.cu", text: include_str!("decode_merge.cu") };

const NAME: &str = "attention_decode";
const MERGE: &str = "attention_decode_merge";
const THREADS: usize = 128;
/// A split shorter than this costs more to merge than it saves.
const LEAST_TOKENS: usize = 256;
/// Most splits of a sequence.
const MOST_SPLITS: usize = 128;

/// Head dim up to which a kernel is compiled, and the query rows of a block that read one kv head together. The first that
/// has room is taken, the last where none has.
const FORMS: [(usize, usize); 5] = [(64, 1), (128, 1), (64, 8), (128, 8), (256, 8)];

/// Sizes of a decoding step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DecodeShape {
    /// Sequences.
    pub sequences: usize,
    /// New rows of each: the last ones of its visible length.
    pub q_rows: usize,
    /// The most tokens that any sequence can have now or when the launch is repeated: the splits are planned for it.
    pub max_length: usize,
    /// Heads and how scores are formed.
    pub heads: Heads,
}

impl DecodeShape {
    /// Query rows.
    pub fn rows(&self) -> usize {
        self.sequences * self.q_rows
    }

    /// Splits that fill `gpu`.
    pub fn splits(&self, gpu: &Gpu) -> usize {
        splits(self.blocks(), self.max_length, self.resident(gpu))
    }

    /// Blocks that `gpu` holds at once, by their registers.
    fn resident(&self, gpu: &Gpu) -> usize {
        gpu.multiprocessors() * if self.form().1 == 1 { 4 } else { 2 }
    }

    /// Blocks of one split.
    fn blocks(&self) -> usize {
        self.sequences * self.heads.kv_heads * self.chunks()
    }

    /// Parts into which the rows that read one kv head are divided.
    fn chunks(&self) -> usize {
        (self.q_rows * self.heads.group()).div_ceil(self.form().1)
    }

    /// Head dim and rows of the kernel that takes it.
    fn form(&self) -> (usize, usize) {
        let (dim, rows) = (self.heads.dim, (self.q_rows * self.heads.group()).min(8));
        FORMS.into_iter().find(|&form| form.0 >= dim && form.1 >= rows).unwrap_or(FORMS[FORMS.len() - 1])
    }
}

/// How many splits a sequence gets: 1 where the blocks fill the device without, else the least number whose last wave of
/// blocks is nearly (85 % of the best) as full as it can be. `blocks` are those of one split, `resident` what the device holds.
pub fn splits(blocks: usize, max_length: usize, resident: usize) -> usize {
    fill(blocks, (max_length / LEAST_TOKENS).clamp(1, MOST_SPLITS), resident)
}

/// The same with up to `most`.
pub(super) fn fill(blocks: usize, most: usize, resident: usize) -> usize {
    if blocks * 10 >= resident * 8 || blocks == 0 {
        return 1;
    }
    let efficiency = |splits: usize| {
        let blocks = blocks * splits;
        blocks as f64 / (blocks.div_ceil(resident) * resident) as f64
    };
    let best = (1..=most).map(efficiency).fold(0.0, f64::max);
    (1..=most).find(|&splits| efficiency(splits) >= 0.85 * best).unwrap_or(1)
}

/// Memory that the splits of one launch need, and how many there are: fixed, so that a recorded launch may be repeated while
/// lengths grow to [`DecodeShape::max_length`].
#[derive(Debug)]
pub struct DecodeWorkspace {
    splits: usize,
    pub(super) partial: Buffer<f32>,
    pub(super) states: Buffer<f32>,
}

impl DecodeWorkspace {
    /// For `shape`, with as many splits as fill `gpu`.
    pub fn new(gpu: &Gpu, shape: &DecodeShape) -> Result<DecodeWorkspace, GpuError> {
        DecodeWorkspace::with_splits(gpu, shape, shape.splits(gpu))
    }

    /// For `shape`, with `splits` splits.
    pub fn with_splits(gpu: &Gpu, shape: &DecodeShape, splits: usize) -> Result<DecodeWorkspace, GpuError> {
        let splits = splits.max(1);
        let places = if splits == 1 { 0 } else { shape.rows() * shape.heads.heads * splits };
        let (partial, states) = (gpu.alloc(places * shape.heads.dim)?, gpu.alloc(places * 2)?);
        Ok(DecodeWorkspace { splits, partial, states })
    }

    /// Splits of each sequence.
    pub fn splits(&self) -> usize {
        self.splits
    }

    pub(super) fn check(&self, kernel: &'static str, rows: usize, dim: usize) -> Result<(), GpuError> {
        let places = if self.splits == 1 { 0 } else { rows * self.splits };
        if self.partial.len() < places * dim || self.states.len() < places * 2 {
            return Err(GpuError::shape(kernel, "the workspace was made for fewer rows or heads"));
        }
        Ok(())
    }

    /// Fills it with NaN: what a launch does not write must not be read.
    pub fn poison(&self) -> Result<(), GpuError> {
        for buffer in [&self.partial, &self.states] {
            buffer.write(0, &vec![f32::NAN; buffer.len()])?;
        }
        Ok(())
    }
}

/// `out = softmax(q·Kᵀ)·V` for the last `q_rows` rows of each sequence: row r of a sequence of length L sees tokens below
/// L − q_rows + r + 1 (its own included), within the window.
///
/// `q` and `out`: `[sequences·q_rows]` rows of `[heads][dim]`. `lengths[s]`: tokens of sequence s, the new ones included; 0 gives
/// zeros. `slots[s]`: where in the cache it lies; `None` is s. Both are read on the device, so a recording may be repeated.
pub fn decode(
    shape: &DecodeShape,
    q: Rows<'_>,
    kv: &KvView<'_>,
    lengths: &Buffer<i32>,
    slots: Option<&Buffer<i32>>,
    out: Rows<'_>,
    workspace: &DecodeWorkspace,
) -> Result<(), GpuError> {
    let heads = &shape.heads;
    let (width, rows, splits) = (heads.heads * heads.dim, shape.rows(), workspace.splits);
    heads.check(NAME)?;
    q.check(NAME, "q", rows, width)?;
    out.check(NAME, "out", rows, width)?;
    let slots_known = if slots.is_some() { 0 } else { shape.sequences };
    kv.check(NAME, slots_known, heads.kv_heads, heads.dim)?;
    let named = slots.map_or(shape.sequences, Buffer::len);
    if lengths.len() < shape.sequences || named < shape.sequences {
        let reason = format!("{} lengths and {named} slots for {} sequences", lengths.len(), shape.sequences);
        return Err(GpuError::shape(NAME, reason));
    }
    workspace.check(NAME, rows * heads.heads, heads.dim)?;
    if rows == 0 {
        return Ok(());
    }
    let kernel = kernel(kv.element, shape.form());
    let gpu = q.buffer.gpu();
    // where the rows fill the device, a block takes several splits in turn
    let turns = fill(shape.blocks(), splits, shape.resident(gpu));
    let grid = LaunchShape::grid(shape.sequences, heads.kv_heads * shape.chunks(), turns, THREADS);
    let (window, softcap) = (Arg::I32(heads.window.unwrap_or(0) as i32), Arg::F32(heads.softcap.unwrap_or(0.0)));
    let int = |value: usize| Arg::I32(value as i32);
    let args = [
        q.arg(),
        Arg::Pointer(kv.k),
        Arg::Pointer(kv.v),
        lengths.arg(),
        slots.map_or(Arg::Pointer(0), Buffer::arg),
        kv.table(),
        out.arg(),
        workspace.partial.arg(),
        workspace.states.arg(),
        int(shape.q_rows),
        int(heads.heads),
        int(heads.kv_heads),
        int(heads.dim),
        int(q.stride),
        int(out.stride),
        int(kv.page_tokens),
        int(kv.max_pages),
        window,
        int(splits),
        Arg::F32(heads.scale),
        softcap,
    ];
    // SAFETY: rows, cache, lengths and workspace were checked against the shape; the kernel reads tokens below each length,
    // and slots and pages that the caller's tables name.
    unsafe { gpu.launch(&kernel, grid, &args) }?;
    let ends = lengths.arg();
    merge(gpu, &Merge { parts: false, rows, per: shape.q_rows, plus: 0, ends, heads, out }, workspace)
}

/// What the merge needs to know of the launch before it.
pub(super) struct Merge<'a> {
    /// Parts of `packed.cu`, or splits of `decode.cu`.
    pub(super) parts: bool,
    pub(super) rows: usize,
    /// Rows per element of `ends`, and what an element lacks: see `packed::Sees`.
    pub(super) per: usize,
    pub(super) plus: usize,
    pub(super) ends: Arg<'static>,
    pub(super) heads: &'a Heads,
    pub(super) out: Rows<'a>,
}

/// Adds up what the splits of a launch left; nothing where there was one.
pub(super) fn merge(gpu: &Gpu, what: &Merge<'_>, workspace: &DecodeWorkspace) -> Result<(), GpuError> {
    if workspace.splits == 1 {
        return Ok(());
    }
    let int = |value: usize| Arg::I32(value as i32);
    let args = [
        workspace.partial.arg(),
        workspace.states.arg(),
        what.ends,
        what.out.arg(),
        int(what.rows),
        int(what.per),
        int(what.plus),
        int(what.heads.heads),
        int(what.heads.dim),
        int(workspace.splits),
        int(what.out.stride),
        int(what.heads.window.unwrap_or(0)),
    ];
    let grid = LaunchShape::line((what.rows * what.heads.heads).div_ceil(4), THREADS);
    // SAFETY: the launch before checked rows and output; the workspace holds a partial result per split, row and head.
    unsafe { gpu.launch(&merge_kernel(what.parts), grid, &args) }
}

fn kernel(element: Number, (dim, rows): (usize, usize)) -> KernelSpec {
    KernelSpec::new(&TEXT, NAME).define("ELEMENT", element.in_text()).define("DIM", dim).define("ROWS", rows)
}

fn merge_kernel(parts: bool) -> KernelSpec {
    KernelSpec::new(&MERGE_TEXT, MERGE).define("PARTS", usize::from(parts))
}

/// Everything that is launched here.
pub(super) fn kernels() -> Vec<KernelSpec> {
    let mut all = vec![merge_kernel(false), merge_kernel(true)];
    for element in Number::ALL {
        all.extend(FORMS.map(|form| kernel(element, form)));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESIDENT: usize = 132 * 4;

    #[test]
    fn a_full_device_is_not_split_and_an_empty_one_is() {
        assert_eq!(splits(RESIDENT, 1 << 15, RESIDENT), 1);
        assert_eq!(splits(0, 1 << 15, RESIDENT), 1);
        // 8 kv heads of one sequence of 32K: enough splits for 85 % of a wave, none under 256 tokens
        let alone = splits(8, 1 << 15, RESIDENT);
        assert!(alone * 8 >= RESIDENT * 8 / 10 && alone <= (1 << 15) / LEAST_TOKENS, "{alone}");
        assert_eq!(splits(8, 255, RESIDENT), 1);
        assert!((MOST_SPLITS * 85 / 100..=MOST_SPLITS).contains(&splits(1, 1 << 20, RESIDENT)));
    }

    #[test]
    fn splits_never_leave_a_mostly_empty_wave() {
        for blocks in 1..RESIDENT {
            let n = splits(blocks, 1 << 16, RESIDENT);
            let waves = (blocks * n).div_ceil(RESIDENT);
            let fill = (blocks * n) as f64 / (waves * RESIDENT) as f64;
            let most = (1..=MOST_SPLITS)
                .map(|s| (blocks * s) as f64 / ((blocks * s).div_ceil(RESIDENT) * RESIDENT) as f64)
                .fold(0.0, f64::max);
            assert!(n == 1 || fill >= 0.85 * most, "{blocks} blocks, {n} splits, {fill}");
        }
    }
}
