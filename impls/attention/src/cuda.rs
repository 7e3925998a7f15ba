//! What: attention of a Step's rows over a cache in device memory: in splits where rows are few, and the plain form, one warp
//! per row and head.
//!
//! Source: Dao et al. 2023 (Flash-Decoding); kernels `attention/decode.cu` and `rows/attend.cu` of `cuda-kernels`.
//! Shapes: q `[rows, n_heads·key_dim]`, out `[rows, n_heads·value_dim]`; keys and values as the cache lays them.
//! Method: 1. a row is a sequence of its own, as long as what it sees, so that one row decoded and many rows verified take
//! the same splits; 2. beyond `SPLIT_ROWS` rows the device is full without splits.
//! Exactness: 1e-5 of the largest |out| against f64; a row's bits depend on whether the Step has more than `SPLIT_ROWS` rows,
//! and on nothing else beside its own keys.
//! Cost: that of the kernels.
//! Not handled: trees and full visibility, which the cache refuses.

use std::sync::{Arc, Mutex, PoisonError};

use cuda_kernels::GpuError;
use cuda_kernels::attention::{DecodeShape, DecodeWorkspace, Heads, KvView, PrefillShape, Rows, decode, prefill};
use cuda_kernels::rows::{self, CacheLayout, Stored};
use model::{Activations, Attention, Cuda, CudaCache, HeadShape, KvCache, Step};

/// Rows up to which a Step's attention is split over the keys.
const SPLIT_ROWS: usize = 64;

/// Which kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// One warp per row and head.
    Rows,
    /// In splits, query heads of a group together.
    Splits,
}

pub(crate) struct CudaAttention {
    cuda: Arc<Cuda>,
    form: Form,
    /// Of the largest Step so far.
    workspace: Mutex<Option<(DecodeShape, DecodeWorkspace)>>,
}

impl CudaAttention {
    pub(crate) fn new(cuda: &Arc<Cuda>, form: Form) -> CudaAttention {
        CudaAttention { cuda: cuda.clone(), form, workspace: Mutex::default() }
    }

    fn run(
        &self,
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
        let slots = cache.places.slots;
        if n > SPLIT_ROWS {
            return prefill(&PrefillShape { rows: n, heads }, from, &view, cache.places.entries, slots, to);
        }
        let each = DecodeShape { sequences: n, q_rows: 1, max_length: layout.capacity, heads };
        let mut workspace = self.workspace.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = workspace.as_ref().is_some_and(|(of, _)| {
            of.sequences >= n
                && (of.max_length, of.heads.heads, of.heads.dim) == (each.max_length, heads.heads, heads.dim)
        });
        if !kept {
            // as many splits as one row alone would get, whatever the number of rows
            self.cuda.moved()?;
            let one = DecodeShape { sequences: 1, ..each };
            let splits = DecodeWorkspace::new(self.cuda.gpu(), &one)?.splits();
            *workspace = Some((each, DecodeWorkspace::with_splits(self.cuda.gpu(), &each, splits)?));
        }
        match &*workspace {
            Some((_, workspace)) => decode(&each, from, &view, cache.lengths, Some(slots), to, workspace),
            None => Err(GpuError::shape("attention", "no workspace")),
        }
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
        _: &Step,
        layer: usize,
        shape: &HeadShape,
        q: &Activations,
        kv: &dyn KvCache,
        out: &mut Activations,
    ) {
        self.cuda.run(|| {
            let cache =
                kv.on_cuda(layer).ok_or_else(|| GpuError::shape("attention", "the cache is not on the device"))?;
            self.run(shape, q, &cache, out)
        });
    }

    fn scratch_bytes(&self, shape: &HeadShape, rows: usize, keys: usize) -> usize {
        let workspace = self.workspace.lock().unwrap_or_else(PoisonError::into_inner);
        let splits = workspace.as_ref().map_or(1, |(_, workspace)| workspace.splits());
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
