//! What: keys or values of one head as a cache stores them, and their decoding to f32.
//! Source: IEEE 754-2008 binary16; symmetric int8 with a scale per row.
//! Shapes: rows of d codes, a fixed stride apart.
//! Exactness: f16 widens exactly; an int8 value is code · scale, rounded once.

use crate::simd::scalar::f16_to_f32;
use crate::simd::{LANES, Simd, dispatch};

/// Stored numbers in one of the encodings that attention kernels read.
#[derive(Clone, Copy, Debug)]
pub enum Codes<'a> {
    /// The values themselves.
    F32(&'a [f32]),
    /// IEEE half bit patterns.
    F16(&'a [u16]),
    /// value = code · scale, with one scale per row.
    Int8 {
        /// Signed codes.
        codes: &'a [i8],
        /// Scale of each row, rows in order.
        scales: &'a [f32],
    },
}

impl<'a> Codes<'a> {
    /// Without the first `n` codes and the first `n_scales` scales.
    pub fn skip(self, n: usize, n_scales: usize) -> Codes<'a> {
        match self {
            Codes::F32(values) => Codes::F32(&values[n..]),
            Codes::F16(codes) => Codes::F16(&codes[n..]),
            Codes::Int8 { codes, scales } => Codes::Int8 { codes: &codes[n..], scales: &scales[n_scales..] },
        }
    }

    fn len(&self) -> usize {
        match self {
            Codes::F32(values) => values.len(),
            Codes::F16(codes) => codes.len(),
            Codes::Int8 { codes, .. } => codes.len(),
        }
    }
}

/// Bytes of keys or values to ask for ahead of use. The hardware's own prefetching ends at each page of 4 KiB.
const AHEAD: usize = 4096;

/// Rows of codes: row t starts `t · stride` codes in.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// The codes.
    pub codes: Codes<'a>,
    /// Codes between rows.
    pub stride: usize,
}

impl<'a> Rows<'a> {
    /// Rows of f32 values.
    pub fn f32(values: &'a [f32], stride: usize) -> Rows<'a> {
        Rows { codes: Codes::F32(values), stride }
    }

    /// Value `i` of row `row`.
    pub fn get(&self, row: usize, i: usize) -> f32 {
        let at = row * self.stride + i;
        match self.codes {
            Codes::F32(values) => values[at],
            Codes::F16(codes) => f16_to_f32(codes[at]),
            Codes::Int8 { codes, scales } => f32::from(codes[at]) * scales[row],
        }
    }

    /// How many rows of `d` values ahead of use to ask for: 0 for codes, whose decoding takes longer than their loads.
    pub(super) fn ahead(&self, d: usize) -> usize {
        match self.codes {
            Codes::F32(_) => AHEAD.div_ceil((d * size_of::<f32>()).max(1)),
            _ => 0,
        }
    }

    /// Whether `n` rows of `d` values are there.
    pub(super) fn hold(&self, n: usize, d: usize) -> bool {
        let scaled = !matches!(self.codes, Codes::Int8 { scales, .. } if scales.len() < n);
        scaled && super::fits(self.codes.len(), n, self.stride, d)
    }
}

dispatch! {
    /// out ← `n` rows of `d` values, from row `first` on, decoded and without gaps.
    pub fn decode_rows(rows: Rows<'_>, first: usize, n: usize, d: usize, out: &mut [f32]) = decode_generic
}

#[inline(always)]
pub(super) fn decode_generic<S: Simd>(s: S, rows: Rows<'_>, first: usize, n: usize, d: usize, out: &mut [f32]) {
    assert!(rows.hold(first + n, d) && out.len() >= n * d, "n rows of d values");
    for (t, out) in (first..first + n).zip(out.chunks_exact_mut(d.max(1))) {
        match rows.codes {
            Codes::F32(values) => out.copy_from_slice(&values[t * rows.stride..][..d]),
            Codes::F16(codes) => {
                let codes = &codes[t * rows.stride..][..d];
                let whole = d / LANES * LANES;
                for i in (0..whole).step_by(LANES) {
                    // SAFETY: 16 codes and 16 values from i on lie inside both slices of d.
                    unsafe { s.store(out.as_mut_ptr().add(i), s.load_f16(codes.as_ptr().add(i))) };
                }
                out[whole..].iter_mut().zip(&codes[whole..]).for_each(|(v, c)| *v = f16_to_f32(*c));
            }
            Codes::Int8 { codes, scales } => {
                let codes = &codes[t * rows.stride..][..d];
                let scale = scales[t];
                for (v, c) in out.iter_mut().zip(codes) {
                    *v = f32::from(*c) * scale;
                }
            }
        }
    }
}
