//! Launches `prefill_f32.cu` and `prefill_mma.cu`: many query rows over a cache that already holds their own keys.

use super::cache::{KvView, Rows};
use super::heads::Heads;
use crate::{Arg, Buffer, GpuError, KernelSpec, LaunchShape, Number, Source};

static F32_TEXT: Source = Source { name: "attention/prefill_f32.cu", text: include_str!("prefill_f32.cu") };
static MMA_TEXT: Source = Source { name: "attention/prefill_mma.cu", text: include_str!("prefill_mma.cu") };

const NAME: &str = "attention_prefill";
/// Head dims that kernels are compiled for; others take the next.
const F32_DIMS: [usize; 3] = [64, 128, 256];
/// The same for tensor cores: above, the results of 16 rows do not fit a warp's registers.
const MMA_DIMS: [usize; 2] = [64, 128];

/// Sizes of a prefill step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrefillShape {
    /// Query rows, of any sequences in any order; neighbours of one sequence share reads.
    pub rows: usize,
    /// Heads and how scores are formed.
    pub heads: Heads,
}

/// `out = softmax(q·Kᵀ)·V` for `rows` rows, whose keys and values are in the cache already: row r sees the tokens 0 to
/// `positions[r]` of slot `slots[r]`, within the window.
///
/// `q` and `out`: rows of `[heads][dim]`. Caches of 16 bits are multiplied on tensor cores, queries and weights as sums of two
/// 16-bit numbers; f32 caches, and head dims above 128, in f32.
pub fn prefill(
    shape: &PrefillShape,
    q: Rows<'_>,
    kv: &KvView<'_>,
    positions: &Buffer<i32>,
    slots: &Buffer<i32>,
    out: Rows<'_>,
) -> Result<(), GpuError> {
    let (heads, rows) = (&shape.heads, shape.rows);
    let width = heads.heads * heads.dim;
    heads.check(NAME)?;
    q.check(NAME, "q", rows, width)?;
    out.check(NAME, "out", rows, width)?;
    kv.check(NAME, 0, heads.kv_heads, heads.dim)?;
    if positions.len() < rows || slots.len() < rows {
        let reason = format!("{} positions and {} slots for {rows} rows", positions.len(), slots.len());
        return Err(GpuError::shape(NAME, reason));
    }
    if rows == 0 {
        return Ok(());
    }
    let (kernel, rows_per_block, threads, shared) = choose(kv.element, heads.dim);
    let int = |value: usize| Arg::I32(value as i32);
    let args = [
        q.arg(),
        Arg::Pointer(kv.k),
        Arg::Pointer(kv.v),
        positions.arg(),
        slots.arg(),
        kv.table(),
        out.arg(),
        int(rows),
        int(heads.heads),
        int(heads.kv_heads),
        int(heads.dim),
        int(q.stride),
        int(out.stride),
        int(kv.page_tokens),
        int(kv.max_pages),
        int(heads.window.unwrap_or(0)),
        Arg::F32(heads.scale),
        Arg::F32(heads.softcap.unwrap_or(0.0)),
    ];
    let grid = LaunchShape::grid(rows.div_ceil(rows_per_block), heads.heads, 1, threads).with_shared(shared);
    // SAFETY: rows, positions and slots were checked against the shape; the kernel reads the tokens up to each position, of
    // slots and pages that the caller's tables name.
    unsafe { q.buffer.gpu().launch(&kernel, grid, &args) }
}

/// The kernel for a cache, its rows and threads per block, and its dynamic shared memory.
fn choose(element: Number, dim: usize) -> (KernelSpec, usize, usize, usize) {
    let mma = MMA_DIMS.into_iter().find(|&compiled| compiled >= dim).filter(|_| element != Number::F32);
    match mma {
        Some(compiled) => (mma_kernel(element, compiled), 64, 128, 4 * 64 * compiled * 2),
        None => {
            let compiled = F32_DIMS.into_iter().find(|&compiled| compiled >= dim).unwrap_or(dim);
            (f32_kernel(element, compiled), 32, 256, (2 * 32 * (compiled + 4) + 32 * 36) * 4)
        }
    }
}

fn f32_kernel(element: Number, dim: usize) -> KernelSpec {
    KernelSpec::new(&F32_TEXT, "attention_prefill_f32").define("ELEMENT", element.in_text()).define("DIM", dim)
}

fn mma_kernel(number: Number, dim: usize) -> KernelSpec {
    KernelSpec::new(&MMA_TEXT, "attention_prefill_mma").define("NUMBER", number.in_text()).define("DIM", dim)
}

/// Everything that is launched here.
pub(super) fn kernels() -> Vec<KernelSpec> {
    let mut all: Vec<KernelSpec> = vec![];
    for (element, dim) in Number::ALL.into_iter().flat_map(|element| F32_DIMS.map(|dim| (element, dim))) {
        all.push(choose(element, dim).0);
    }
    all
}
