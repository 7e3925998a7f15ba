//! What: attention of a Step's rows over a cache in device memory: 16-bit caches on tensor cores, f32 caches in f32, in splits where
//! rows are few; and the plain form, one warp per row and head.
//!
//! Source: Dao et al. 2023 (FlashAttention-2, Flash-Decoding); kernels `attention/{packed,decode,prefill_f32}.cu` and
//! `rows/attend.cu` of `cuda-kernels`.
//! Shapes: q `[rows, n_heads·key_dim]`, out `[rows, n_heads·value_dim]`; keys and values as the cache lays them.
//! Method: 1. beyond `SPLIT_ROWS` rows the device is full without splits; up to there every row gets the splits that it would
//! have alone, so that one row decoded and many rows verified are the same. 2. 16-bit caches: spans of one length are one launch,
//! and a span's rows share what they read. 3. f32 caches: a row is a sequence of its own, unless a span has more than
//! `PROMPT_ROWS` rows.
//! Exactness: 1e-5 of the largest |out| against f64; a row's bits depend on whether the Step has more than `SPLIT_ROWS` rows,
//! for f32 caches and heads wider than 128 on whether a span has more than `PROMPT_ROWS`, and on nothing else beside its own keys.
//! Cost: that of the kernels.
//! Not handled: trees and full visibility, which the cache refuses.

use std::sync::{Arc, Mutex, PoisonError};

use cuda_kernels::attention::{
    DecodeShape, DecodeWorkspace, Heads, KvView, PackedShape, PrefillShape, Rows, Sees, decode, packed, packs, prefill,
};
use cuda_kernels::rows::{self, CacheLayout, Stored};
use cuda_kernels::{GpuError, Number};
use model::{Activations, Attention, Cuda, CudaCache, HeadShape, KvCache, Step};

/// Rows up to which a Step's attention is split over the keys.
const SPLIT_ROWS: usize = 64;
/// Rows of a span up to which reading an f32 cache for each of them is what decoding does.
const PROMPT_ROWS: usize = 16;

/// Which kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// One warp per row and head.
    Rows,
    /// In splits or tiles, query heads of a group together.
    Splits,
}

pub(crate) struct CudaAttention {
    cuda: Arc<Cuda>,
    form: Form,
    /// Of the largest Step so far, for every number of splits and heads: layers may differ.
    workspaces: Mutex<Vec<Workspace>>,
}

struct Workspace {
    rows: usize,
    /// Splits, heads and their dims.
    of: [usize; 3],
    memory: DecodeWorkspace,
}

impl CudaAttention {
    pub(crate) fn new(cuda: &Arc<Cuda>, form: Form) -> CudaAttention {
        CudaAttention { cuda: cuda.clone(), form, workspaces: Mutex::default() }
    }

    fn run(
        &self,
        step: &Step,
        shape: &HeadShape,
        q: &Activations,
        cache: &CudaCache<'_>,
        out: &mut Activations,
    ) -> Result<(), GpuError> {
        if shape.alibi.is_some() {
            return Err(GpuError::shape("attention", "scores that fall with distance have no kernel on a GPU"));
        }
        let (n, layout) = (q.rows(), cache.keys.0);
        let out_width = shape.n_heads * shape.value_dim;
        let (from, to) = (q.buffer()?, out.reshape_on(&self.cuda, n, out_width)?);
        if self.form == Form::Rows || !fits(shape, layout) {
            let heads = rows::Heads { n: shape.n_heads, scale: shape.scale, window: shape.window, cap: shape.softcap };
            return rows::attend_rows(from, cache.places, heads, cache.keys, cache.values, to);
        }
        let view = match (cache.keys.1, cache.values.1) {
            (Stored::F32(k), Stored::F32(v)) => KvView::contiguous(k, v, layout.capacity),
            (Stored::F16(k), Stored::F16(v)) => KvView::contiguous(k, v, layout.capacity),
            _ => return Err(GpuError::shape("attention", "keys and values are stored differently")),
        };
        let heads = Heads {
            heads: shape.n_heads,
            kv_heads: shape.n_key_heads,
            dim: shape.key_dim,
            scale: shape.scale,
            window: shape.window,
            softcap: shape.softcap,
        };
        let (from, to) = (Rows::packed(from, q.cols()), Rows::packed(to, out_width));
        let (places, packs) = (cache.places, packs(element(cache), &heads));
        let longest = step.spans.iter().map(|span| span.rows.len()).max().unwrap_or(0);
        if !packs && longest > if n > SPLIT_ROWS { 1 } else { PROMPT_ROWS } {
            return prefill(&PrefillShape { rows: n, heads }, from, &view, places.entries, places.slots, to);
        }
        let mut workspaces = self.workspaces.lock().unwrap_or_else(PoisonError::into_inner);
        let one = DecodeShape { sequences: 1, q_rows: 1, max_length: layout.capacity, heads };
        let splits = if n > SPLIT_ROWS {
            1
        } else if packs {
            PackedShape { sequences: 1, q_rows: 1, heads }.splits(layout.capacity, self.cuda.gpu().multiprocessors())
        } else {
            one.splits(self.cuda.gpu())
        };
        let workspace = self.room(&mut workspaces, &DecodeShape { sequences: n, ..one }, splits)?;
        if !packs {
            let each = DecodeShape { sequences: n, ..one };
            return decode(&each, from, &view, cache.lengths, Some(places.slots), to, workspace);
        }
        for group in step.spans.chunk_by(|a, b| a.rows.len() == b.rows.len()) {
            let (first, q_rows) = (group[0].rows.start, group[0].rows.len());
            let shape = PackedShape { sequences: group.len(), q_rows, heads };
            let from = Rows { at: from.at + first * from.stride, ..from };
            let to = Rows { at: to.at + first * to.stride, ..to };
            let sees = Sees::Tokens(cache.lengths, first);
            packed(&shape, from, &view, sees, Some(places.slots), to, Some(workspace))?;
        }
        Ok(())
    }

    /// The workspace that was kept if it has room, or one that has. Without splits any has.
    fn room<'a>(
        &self,
        kept: &'a mut Vec<Workspace>,
        shape: &DecodeShape,
        splits: usize,
    ) -> Result<&'a DecodeWorkspace, GpuError> {
        let of = [splits, shape.heads.heads, shape.heads.dim];
        let found = kept.iter().position(|w| w.of == of && (splits == 1 || w.rows >= shape.sequences));
        let at = match found {
            Some(at) => at,
            None => {
                self.cuda.moved()?;
                let memory = DecodeWorkspace::with_splits(self.cuda.gpu(), shape, splits)?;
                kept.retain(|w| w.of != of);
                kept.push(Workspace { rows: shape.sequences, of, memory });
                kept.len() - 1
            }
        };
        Ok(&kept[at].memory)
    }
}

/// What keys and values are stored as.
fn element(cache: &CudaCache<'_>) -> Number {
    match cache.keys.1 {
        Stored::F32(_) => Number::F32,
        Stored::F16(_) => Number::F16,
        Stored::Bf16(_) => Number::Bf16,
    }
}

/// Whether the kernel in splits takes these heads.
fn fits(shape: &HeadShape, layout: CacheLayout) -> bool {
    shape.key_dim == shape.value_dim
        && shape.n_key_heads == shape.n_value_heads
        && layout.dim.is_multiple_of(8)
        && layout.dim <= 256
}

impl Attention for CudaAttention {
    fn forward(
        &self,
        step: &Step,
        layer: usize,
        shape: &HeadShape,
        q: &Activations,
        kv: &dyn KvCache,
        out: &mut Activations,
    ) {
        self.cuda.run(|| {
            let cache =
                kv.on_cuda(layer).ok_or_else(|| GpuError::shape("attention", "the cache is not on the device"))?;
            self.run(step, shape, q, &cache, out)
        });
    }

    fn scratch_bytes(&self, shape: &HeadShape, rows: usize, keys: usize) -> usize {
        let workspaces = self.workspaces.lock().unwrap_or_else(PoisonError::into_inner);
        let splits = workspaces.iter().map(|workspace| workspace.of[0]).max().unwrap_or(1);
        let _ = keys;
        if splits == 1 { 0 } else { 4 * rows * shape.n_heads * splits * (shape.value_dim + 2) }
    }

    fn kernel_name(&self) -> String {
        match self.form {
            Form::Rows => "attend_rows".into(),
            Form::Splits => "attention_decode".into(),
        }
    }
}
