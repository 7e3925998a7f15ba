//! 16 lanes as two 256-bit registers.

use super::{Kernel, LANES, Simd};
use crate::isa::Avx2;
use crate::linear::lut::{ENTRIES, OUTPUTS, TABLES};
use crate::linear::tile::AHEAD;
use std::arch::x86_64::*;

/// Lanes 0–7 and 8–15.
#[derive(Clone, Copy)]
pub(crate) struct V(__m256, __m256);
/// Lanes 0–7 and 8–15.
#[derive(Clone, Copy)]
pub(crate) struct I(__m256i, __m256i);

/// Both halves through one intrinsic. SAFETY of every use: the token `self` proves AVX2, FMA and F16C.
macro_rules! both {
    ($out:ident, $f:expr, $($a:expr),*) => {
        // SAFETY: the token `self` proves AVX2, FMA and F16C.
        unsafe { $out($f($($a.0),*), $f($($a.1),*)) }
    };
}

impl Simd for Avx2 {
    type V = V;
    type I = I;
    const WIDE: bool = false;

    #[inline(always)]
    fn vectorize<K: Kernel>(self, k: K) -> K::Out {
        #[target_feature(enable = "avx2,fma,f16c")]
        #[inline(never)]
        fn inner<K: Kernel>(token: Avx2, k: K) -> K::Out {
            k.run(token)
        }
        // SAFETY: the token proves the enabled features.
        unsafe { inner(self, k) }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> V {
        // SAFETY: the token proves AVX.
        let v = unsafe { _mm256_set1_ps(x) };
        V(v, v)
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> V {
        // SAFETY: the caller vouches for 16 readable elements.
        unsafe { V(_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: V) {
        // SAFETY: the caller vouches for 16 writable elements.
        unsafe {
            _mm256_storeu_ps(p, v.0);
            _mm256_storeu_ps(p.add(8), v.1);
        }
    }
    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        both!(V, _mm256_add_ps, a, b)
    }
    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        both!(V, _mm256_sub_ps, a, b)
    }
    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        both!(V, _mm256_mul_ps, a, b)
    }
    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        both!(V, _mm256_div_ps, a, b)
    }
    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        both!(V, _mm256_max_ps, a, b)
    }
    #[inline(always)]
    fn min(self, a: V, b: V) -> V {
        both!(V, _mm256_min_ps, a, b)
    }
    #[inline(always)]
    fn fma(self, a: V, b: V, c: V) -> V {
        both!(V, _mm256_fmadd_ps, a, b, c)
    }
    #[inline(always)]
    fn select_lt(self, a: V, b: V, t: V, f: V) -> V {
        let m = both!(V, _mm256_cmp_ps::<_CMP_LT_OQ>, a, b);
        both!(V, _mm256_blendv_ps, f, t, m)
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> V {
        // SAFETY: the caller vouches for 16 readable elements; the token proves F16C.
        unsafe { V(_mm256_cvtph_ps(_mm_loadu_si128(p.cast())), _mm256_cvtph_ps(_mm_loadu_si128(p.add(8).cast()))) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u16) -> V {
        // SAFETY: the caller vouches for 16 readable elements.
        let wide = unsafe {
            I(_mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast())), _mm256_cvtepu16_epi32(_mm_loadu_si128(p.add(8).cast())))
        };
        self.floats(both!(I, _mm256_slli_epi32::<16>, wide))
    }
    #[inline(always)]
    unsafe fn load_u32(self, p: *const u32) -> I {
        // SAFETY: the caller vouches for 16 readable elements.
        unsafe { I(_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(8).cast())) }
    }
    #[inline(always)]
    unsafe fn load_u8(self, p: *const u8) -> I {
        // SAFETY: the caller vouches for 16 readable elements.
        unsafe {
            let low = _mm_loadl_epi64(p.cast());
            I(_mm256_cvtepu8_epi32(low), _mm256_cvtepu8_epi32(_mm_loadl_epi64(p.add(8).cast())))
        }
    }
    #[inline(always)]
    unsafe fn gather(self, p: *const f32, i: I) -> V {
        // SAFETY: the caller vouches for every index; the token proves AVX2.
        unsafe { V(_mm256_i32gather_ps::<4>(p, i.0), _mm256_i32gather_ps::<4>(p, i.1)) }
    }
    /// Both halves of the table by the low three bits, then one of them by the fourth, shifted to where blends look.
    #[inline(always)]
    fn lookup16(self, table: V, i: I) -> V {
        let fourth = both!(I, _mm256_slli_epi32::<28>, i);
        let (low, high) = (V(table.0, table.0), V(table.1, table.1));
        let (low, high) = (both!(V, _mm256_permutevar8x32_ps, low, i), both!(V, _mm256_permutevar8x32_ps, high, i));
        let mask = self.floats(fourth);
        both!(V, _mm256_blendv_ps, low, high, mask)
    }
    #[inline(always)]
    fn splat_u32(self, x: u32) -> I {
        // SAFETY: the token proves AVX.
        let v = unsafe { _mm256_set1_epi32(x as i32) };
        I(v, v)
    }
    #[inline(always)]
    fn bits(self, v: V) -> I {
        both!(I, _mm256_castps_si256, v)
    }
    #[inline(always)]
    fn floats(self, a: I) -> V {
        both!(V, _mm256_castsi256_ps, a)
    }
    #[inline(always)]
    fn add_u32(self, a: I, b: I) -> I {
        both!(I, _mm256_add_epi32, a, b)
    }
    #[inline(always)]
    fn and(self, a: I, b: I) -> I {
        both!(I, _mm256_and_si256, a, b)
    }
    #[inline(always)]
    fn or(self, a: I, b: I) -> I {
        both!(I, _mm256_or_si256, a, b)
    }
    #[inline(always)]
    fn shl(self, a: I, n: u32) -> I {
        // SAFETY: the token proves AVX2.
        unsafe {
            let n = _mm_cvtsi32_si128(n as i32);
            I(_mm256_sll_epi32(a.0, n), _mm256_sll_epi32(a.1, n))
        }
    }
    #[inline(always)]
    fn shr(self, a: I, n: u32) -> I {
        // SAFETY: the token proves AVX2.
        unsafe {
            let n = _mm_cvtsi32_si128(n as i32);
            I(_mm256_srl_epi32(a.0, n), _mm256_srl_epi32(a.1, n))
        }
    }
    #[inline(always)]
    fn to_f32(self, a: I) -> V {
        both!(V, _mm256_cvtepi32_ps, a)
    }
    /// One permutation does masking and conversion: it looks at three bits of each lane only.
    #[inline(always)]
    fn code2(self, a: I) -> V {
        // SAFETY: the token proves AVX2.
        unsafe {
            let table = _mm256_setr_ps(0., 1., 2., 3., 0., 1., 2., 3.);
            V(_mm256_permutevar8x32_ps(table, a.0), _mm256_permutevar8x32_ps(table, a.1))
        }
    }
    /// As [`Simd::code2`]: one permutation.
    #[inline(always)]
    fn code3(self, a: I) -> V {
        // SAFETY: the token proves AVX2.
        unsafe {
            let table = _mm256_setr_ps(0., 1., 2., 3., 4., 5., 6., 7.);
            V(_mm256_permutevar8x32_ps(table, a.0), _mm256_permutevar8x32_ps(table, a.1))
        }
    }
    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        // SAFETY: a prefetch has no effect but on the caches, whatever the address; SSE is x86-64's baseline.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) };
    }
    #[inline(always)]
    unsafe fn transpose(self, rows: [*const f32; LANES], d: usize, out: *mut f32) {
        let whole = d / 8 * 8;
        for half in 0..2 {
            let rows = &rows[half * 8..half * 8 + 8];
            for j in (0..whole).step_by(8) {
                // SAFETY: the caller vouches for d values per row and 16·d of output.
                unsafe {
                    let mut block = [_mm256_setzero_ps(); 8];
                    for i in 0..8 {
                        block[i] = _mm256_loadu_ps(rows[i].add(j));
                    }
                    let block = transpose_8x8(block);
                    for i in 0..8 {
                        _mm256_storeu_ps(out.add((j + i) * LANES + half * 8), block[i]);
                    }
                }
            }
        }
        for j in whole..d {
            for (i, row) in rows.iter().enumerate() {
                // SAFETY: as above.
                unsafe { *out.add(j * LANES + i) = *row.add(j) };
            }
        }
    }
    #[inline(always)]
    unsafe fn load_i8(self, p: *const i8) -> V {
        // SAFETY: the caller vouches for 16 readable elements; the token proves AVX2.
        unsafe {
            let codes = _mm_loadu_si128(p.cast());
            let (low, high) = (_mm256_cvtepi8_epi32(codes), _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(codes, codes)));
            V(_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
        }
    }
    /// Four blocks of 8 × 8.
    #[inline(always)]
    fn transpose_block(self, r: [V; LANES]) -> [V; LANES] {
        let mut out = r;
        for half in 0..2 {
            let mut block = [r[0].0; 8];
            for i in 0..8 {
                block[i] = r[half * 8 + i].0;
            }
            // SAFETY: the token proves AVX2.
            let low = unsafe { transpose_8x8(block) };
            for i in 0..8 {
                block[i] = r[half * 8 + i].1;
            }
            // SAFETY: the token proves AVX2.
            let high = unsafe { transpose_8x8(block) };
            for i in 0..8 {
                if half == 0 {
                    (out[i].0, out[i + 8].0) = (low[i], high[i]);
                } else {
                    (out[i].1, out[i + 8].1) = (low[i], high[i]);
                }
            }
        }
        out
    }
    #[inline(always)]
    unsafe fn lookup(self, planes: *const u8, tables: *const u8, bits: usize, bias: u32) -> [V; 4] {
        // SAFETY: the token proves AVX2; the caller vouches for planes and tables.
        unsafe {
            let nibble = _mm256_set1_epi8(15);
            let (mut even_all, mut odd_all) = ([_mm256_setzero_si256(); 2], [_mm256_setzero_si256(); 2]);
            // the last plane first: what is there doubles with each further one
            for t in (0..bits).rev() {
                let (mut both, mut odd) = ([_mm256_setzero_si256(); 2], [_mm256_setzero_si256(); 2]);
                for pair in 0..TABLES / 2 {
                    let at = planes.add((t * (TABLES / 2) + pair) * OUTPUTS);
                    _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD).cast());
                    let table = |i: usize| {
                        _mm256_broadcastsi128_si256(_mm_loadu_si128(tables.add((2 * pair + i) * ENTRIES).cast()))
                    };
                    let (first, second) = (table(0), table(1));
                    for half in 0..2 {
                        let bytes = _mm256_loadu_si256(at.add(half * 32).cast());
                        let low = _mm256_shuffle_epi8(first, _mm256_and_si256(bytes, nibble));
                        let high = _mm256_shuffle_epi8(second, _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), nibble));
                        both[half] = _mm256_add_epi16(both[half], _mm256_add_epi16(low, high));
                        let odds = _mm256_add_epi16(_mm256_srli_epi16::<8>(low), _mm256_srli_epi16::<8>(high));
                        odd[half] = _mm256_add_epi16(odd[half], odds);
                    }
                }
                for half in 0..2 {
                    let even = _mm256_sub_epi16(both[half], _mm256_slli_epi16::<8>(odd[half]));
                    even_all[half] = _mm256_add_epi16(_mm256_slli_epi16::<1>(even_all[half]), even);
                    odd_all[half] = _mm256_add_epi16(_mm256_slli_epi16::<1>(odd_all[half]), odd[half]);
                }
            }
            let bias = _mm256_set1_epi32(bias as i32);
            let float = |eight: __m128i| _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_cvtepu16_epi32(eight), bias));
            let wide = |v: __m256i| V(float(_mm256_castsi256_si128(v)), float(_mm256_extracti128_si256::<1>(v)));
            [wide(even_all[0]), wide(even_all[1]), wide(odd_all[0]), wide(odd_all[1])]
        }
    }
    #[inline(always)]
    fn sum(self, v: V) -> f32 {
        // SAFETY: the token proves AVX.
        unsafe {
            let v = _mm256_add_ps(v.0, v.1);
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        }
    }
    #[inline(always)]
    fn maximum(self, v: V) -> f32 {
        // SAFETY: the token proves AVX.
        unsafe {
            let v = _mm256_max_ps(v.0, v.1);
            let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
        }
    }
}

/// 8 × 8 transposition: pairs, quadruples, then halves.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose_8x8(r: [__m256; 8]) -> [__m256; 8] {
    let pair = |a, b| (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    let ((a0, a1), (a2, a3)) = (pair(r[0], r[1]), pair(r[2], r[3]));
    let ((a4, a5), (a6, a7)) = (pair(r[4], r[5]), pair(r[6], r[7]));
    let quad = |a, b| (_mm256_shuffle_ps::<0x44>(a, b), _mm256_shuffle_ps::<0xee>(a, b));
    let ((b0, b1), (b2, b3)) = (quad(a0, a2), quad(a1, a3));
    let ((b4, b5), (b6, b7)) = (quad(a4, a6), quad(a5, a7));
    let low = |a, b| _mm256_permute2f128_ps::<0x20>(a, b);
    let high = |a, b| _mm256_permute2f128_ps::<0x31>(a, b);
    [low(b0, b4), low(b1, b5), low(b2, b6), low(b3, b7), high(b0, b4), high(b1, b5), high(b2, b6), high(b3, b7)]
}

const _: () = assert!(LANES == 16, "two registers of 8");
