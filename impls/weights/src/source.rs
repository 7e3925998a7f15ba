//! The matrix as the checkpoint stores it.

use std::borrow::Cow;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use model::checkpoint::StoredCodes;

/// Values of a weight matrix `[out_features, in_features]`, row-major, in the type they are stored in.
#[derive(Debug, Clone, Copy)]
pub enum WeightSource<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// IEEE half precision.
    F16(&'a [f16]),
    /// bfloat16.
    Bf16(&'a [bf16]),
    /// Codes of an already quantized checkpoint, one part below the other.
    Stored(&'a [StoredCodes]),
}

impl<'a> WeightSource<'a> {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            WeightSource::F32(v) => v.len(),
            WeightSource::F16(v) => v.len(),
            WeightSource::Bf16(v) => v.len(),
            WeightSource::Stored(parts) => parts.iter().map(|part| part.n() * part.k()).sum(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is blocks of a file, all of it.
    pub fn is_blocks(&self) -> bool {
        matches!(self, WeightSource::Stored(parts) if parts.iter().all(|part| matches!(part, StoredCodes::Blocks(_))))
    }

    /// Index of the first value that is NaN or infinite.
    pub fn first_non_finite(&self) -> Option<usize> {
        match self {
            WeightSource::F32(v) => first_bad(v, |x| !x.is_finite()),
            WeightSource::F16(v) => first_bad(v, |x| !x.is_finite()),
            WeightSource::Bf16(v) => first_bad(v, |x| !x.is_finite()),
            WeightSource::Stored(parts) if parts.iter().all(StoredCodes::is_finite) => None,
            WeightSource::Stored(_) => first_bad(&self.to_f32(), |x: f32| !x.is_finite()),
        }
    }

    /// The values as f32 (exact); borrowed when they already are.
    pub fn to_f32(&self) -> Cow<'a, [f32]> {
        match self {
            WeightSource::F32(v) => Cow::Borrowed(v),
            WeightSource::F16(v) => v.to_f32_vec().into(),
            WeightSource::Bf16(v) => v.to_f32_vec().into(),
            WeightSource::Stored(parts) => parts.iter().flat_map(StoredCodes::dequantise).collect::<Vec<_>>().into(),
        }
    }
}

/// Index of the first value that `is_bad`. Blocks without one, the normal case, cost a branch-free pass.
pub(crate) fn first_bad<T: Copy>(values: &[T], is_bad: impl Fn(T) -> bool) -> Option<usize> {
    const BLOCK: usize = 4096;
    values.chunks(BLOCK).enumerate().find_map(|(i, block)| {
        let any = block.iter().fold(false, |any, &x| any | is_bad(x));
        any.then(|| block.iter().position(|&x| is_bad(x)).map(|at| i * BLOCK + at)).flatten()
    })
}
