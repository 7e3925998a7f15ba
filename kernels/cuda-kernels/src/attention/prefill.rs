//! Many query rows over a cache that already holds their own keys: `packed.cu`, and `prefill_f32.cu` for what that does not take.

use super::cache::{KvView, Rows};
use super::heads::Heads;
use super::packed::{PackedShape, Sees, packed, packs};
use crate::{Arg, Buffer, GpuError, KernelSpec, LaunchShape, Number, Source};

static F32_TEXT: Source = Source { name: "attention/prefill_f32.cu", text: include_str!("prefill_f32.cu") };

const NAME: &str = "attention_prefill";
/// Head dims that the f32 kernel is compiled for; others take the next.
const F32_DIMS: [usize; 3] = [64, 128, 256];
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
    if packs(kv.element, heads) {
        let shape = PackedShape { sequences: 1, q_rows: rows, heads: *heads };
        return packed(&shape, q, kv, Sees::Positions(positions, 0), Some(slots), out, None);
    }
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
    let (kernel, rows_per_block, shared) = choose(kv.element, heads.dim);
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
    let grid = LaunchShape::grid(rows.div_ceil(rows_per_block), heads.heads, 1, 256).with_shared(shared);
    // SAFETY: rows, positions and slots were checked against the shape; the kernel reads the tokens up to each position, of
    // slots and pages that the caller's tables name.
    unsafe { q.buffer.gpu().launch(&kernel, grid, &args) }
}

/// The kernel for a cache, rows of a block, and its dynamic shared memory. With heads of 256, 64 rows would not fit an Ada's.
fn choose(element: Number, dim: usize) -> (KernelSpec, usize, usize) {
    let dim = F32_DIMS.into_iter().find(|&compiled| compiled >= dim).unwrap_or(dim);
    let rows = if dim > 128 { 32 } else { 64 };
    let kernel = KernelSpec::new(&F32_TEXT, "attention_prefill_f32").define("ELEMENT", element.in_text());
    (kernel.define("DIM", dim).define("ROWS", rows), rows, ((rows + 32) * (dim + 4) + rows * 36) * 4)
}

/// Everything that is launched here.
pub(super) fn kernels() -> Vec<KernelSpec> {
    let wide = [Number::F16, Number::Bf16].map(|element| choose(element, F32_DIMS[2]).0);
    F32_DIMS.into_iter().map(|dim| choose(Number::F32, dim).0).chain(wide).collect()
}
