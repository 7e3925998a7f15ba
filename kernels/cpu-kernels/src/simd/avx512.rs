//! 16 lanes as one 512-bit register.

use super::{Kernel, LANES, Simd};
use crate::isa::Avx512;
use crate::linear::lut::{ENTRIES, OUTPUTS, TABLES};
use crate::linear::tile::AHEAD;
use std::arch::x86_64::*;

/// One intrinsic call. SAFETY of every use: the token `self` proves AVX-512 F, BW, DQ and VL.
macro_rules! one {
    ($e:expr) => {
        // SAFETY: the token `self` proves AVX-512 F, BW, DQ and VL; pointers are the caller's to vouch for.
        unsafe { $e }
    };
}

impl Simd for Avx512 {
    type V = __m512;
    type I = __m512i;
    const WIDE: bool = true;

    #[inline(always)]
    fn vectorize<K: Kernel>(self, k: K) -> K::Out {
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
        #[inline(never)]
        fn inner<K: Kernel>(token: Avx512, k: K) -> K::Out {
            k.run(token)
        }
        // SAFETY: the token proves the enabled features.
        unsafe { inner(self, k) }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        one!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m512 {
        one!(_mm512_loadu_ps(p))
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: __m512) {
        one!(_mm512_storeu_ps(p, v))
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        one!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        one!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        one!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        one!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        one!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        one!(_mm512_min_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        one!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn select_lt(self, a: __m512, b: __m512, t: __m512, f: __m512) -> __m512 {
        one!(_mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), f, t))
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> __m512 {
        one!(_mm512_cvtph_ps(_mm256_loadu_si256(p.cast())))
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u16) -> __m512 {
        one!(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast())))))
    }
    #[inline(always)]
    unsafe fn load_u32(self, p: *const u32) -> __m512i {
        one!(_mm512_loadu_si512(p.cast()))
    }
    #[inline(always)]
    unsafe fn load_u8(self, p: *const u8) -> __m512i {
        one!(_mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast())))
    }
    #[inline(always)]
    unsafe fn gather(self, p: *const f32, i: __m512i) -> __m512 {
        one!(_mm512_i32gather_ps::<4>(i, p))
    }
    /// One permutation, which looks at four bits of each lane only.
    #[inline(always)]
    fn lookup16(self, table: __m512, i: __m512i) -> __m512 {
        one!(_mm512_permutexvar_ps(i, table))
    }
    #[inline(always)]
    fn splat_u32(self, x: u32) -> __m512i {
        one!(_mm512_set1_epi32(x as i32))
    }
    #[inline(always)]
    fn bits(self, v: __m512) -> __m512i {
        one!(_mm512_castps_si512(v))
    }
    #[inline(always)]
    fn floats(self, a: __m512i) -> __m512 {
        one!(_mm512_castsi512_ps(a))
    }
    #[inline(always)]
    fn add_u32(self, a: __m512i, b: __m512i) -> __m512i {
        one!(_mm512_add_epi32(a, b))
    }
    #[inline(always)]
    fn and(self, a: __m512i, b: __m512i) -> __m512i {
        one!(_mm512_and_si512(a, b))
    }
    #[inline(always)]
    fn or(self, a: __m512i, b: __m512i) -> __m512i {
        one!(_mm512_or_si512(a, b))
    }
    #[inline(always)]
    fn shl(self, a: __m512i, n: u32) -> __m512i {
        one!(_mm512_sll_epi32(a, _mm_cvtsi32_si128(n as i32)))
    }
    #[inline(always)]
    fn shr(self, a: __m512i, n: u32) -> __m512i {
        one!(_mm512_srl_epi32(a, _mm_cvtsi32_si128(n as i32)))
    }
    #[inline(always)]
    fn to_f32(self, a: __m512i) -> __m512 {
        one!(_mm512_cvtepi32_ps(a))
    }
    /// One permutation does masking and conversion: it looks at four bits of each lane only.
    #[inline(always)]
    fn code2(self, a: __m512i) -> __m512 {
        one!(_mm512_permutexvar_ps(a, _mm512_setr_ps(0., 1., 2., 3., 0., 1., 2., 3., 0., 1., 2., 3., 0., 1., 2., 3.)))
    }
    /// As [`Simd::code2`]: one permutation.
    #[inline(always)]
    fn code3(self, a: __m512i) -> __m512 {
        one!(_mm512_permutexvar_ps(a, _mm512_setr_ps(0., 1., 2., 3., 4., 5., 6., 7., 0., 1., 2., 3., 4., 5., 6., 7.)))
    }
    /// As [`Simd::code2`]: one permutation.
    #[inline(always)]
    fn code4(self, a: __m512i) -> __m512 {
        one!(_mm512_permutexvar_ps(
            a,
            _mm512_setr_ps(0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.)
        ))
    }
    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        // SAFETY: a prefetch has no effect but on the caches, whatever the address; SSE is x86-64's baseline.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) };
    }
    #[inline(always)]
    unsafe fn transpose(self, rows: [*const f32; LANES], d: usize, out: *mut f32) {
        // SAFETY: the caller's promises are passed on.
        unsafe { self.avx2().transpose(rows, d, out) };
    }
    #[inline(always)]
    unsafe fn load_i8(self, p: *const i8) -> __m512 {
        one!(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()))))
    }
    /// Pairs, quadruples, then two exchanges of 128-bit quarters.
    #[inline(always)]
    fn transpose_block(self, r: [__m512; LANES]) -> [__m512; LANES] {
        let mut out = r;
        let mut quads = r;
        for g in 0..4 {
            let (a, b, c, d) = (r[4 * g], r[4 * g + 1], r[4 * g + 2], r[4 * g + 3]);
            let (ab, cd) = (one!(_mm512_unpacklo_ps(a, b)), one!(_mm512_unpacklo_ps(c, d)));
            let (ab_high, cd_high) = (one!(_mm512_unpackhi_ps(a, b)), one!(_mm512_unpackhi_ps(c, d)));
            quads[4 * g] = one!(_mm512_shuffle_ps::<0x44>(ab, cd));
            quads[4 * g + 1] = one!(_mm512_shuffle_ps::<0xee>(ab, cd));
            quads[4 * g + 2] = one!(_mm512_shuffle_ps::<0x44>(ab_high, cd_high));
            quads[4 * g + 3] = one!(_mm512_shuffle_ps::<0xee>(ab_high, cd_high));
        }
        for c in 0..4 {
            let (a, b, e, f) = (quads[c], quads[c + 4], quads[c + 8], quads[c + 12]);
            let (even_ab, odd_ab) =
                (one!(_mm512_shuffle_f32x4::<0x88>(a, b)), one!(_mm512_shuffle_f32x4::<0xdd>(a, b)));
            let (even_ef, odd_ef) =
                (one!(_mm512_shuffle_f32x4::<0x88>(e, f)), one!(_mm512_shuffle_f32x4::<0xdd>(e, f)));
            out[c] = one!(_mm512_shuffle_f32x4::<0x88>(even_ab, even_ef));
            out[c + 4] = one!(_mm512_shuffle_f32x4::<0x88>(odd_ab, odd_ef));
            out[c + 8] = one!(_mm512_shuffle_f32x4::<0xdd>(even_ab, even_ef));
            out[c + 12] = one!(_mm512_shuffle_f32x4::<0xdd>(odd_ab, odd_ef));
        }
        out
    }
    #[inline(always)]
    unsafe fn lookup(self, planes: *const u8, tables: *const u8, bits: usize, bias: u32) -> [__m512; 4] {
        // SAFETY: the token proves AVX-512 BW; the caller vouches for planes and tables.
        unsafe {
            let nibble = _mm512_set1_epi8(15);
            let (mut even_all, mut odd_all) = (_mm512_setzero_si512(), _mm512_setzero_si512());
            // the last plane first: what is there doubles with each further one
            for t in (0..bits).rev() {
                let (mut both, mut odd) = (_mm512_setzero_si512(), _mm512_setzero_si512());
                for pair in 0..TABLES / 2 {
                    let at = planes.add((t * (TABLES / 2) + pair) * OUTPUTS);
                    _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD).cast());
                    let bytes = _mm512_loadu_si512(at.cast());
                    let table =
                        |i: usize| _mm512_broadcast_i32x4(_mm_loadu_si128(tables.add((2 * pair + i) * ENTRIES).cast()));
                    let low = _mm512_shuffle_epi8(table(0), _mm512_and_si512(bytes, nibble));
                    let high = _mm512_shuffle_epi8(table(1), _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), nibble));
                    both = _mm512_add_epi16(both, _mm512_add_epi16(low, high));
                    odd = _mm512_add_epi16(
                        odd,
                        _mm512_add_epi16(_mm512_srli_epi16::<8>(low), _mm512_srli_epi16::<8>(high)),
                    );
                }
                let even = _mm512_sub_epi16(both, _mm512_slli_epi16::<8>(odd));
                even_all = _mm512_add_epi16(_mm512_slli_epi16::<1>(even_all), even);
                odd_all = _mm512_add_epi16(_mm512_slli_epi16::<1>(odd_all), odd);
            }
            let bias = _mm512_set1_epi32(bias as i32);
            let float = |half: __m256i| _mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_cvtepu16_epi32(half), bias));
            let low = |v: __m512i| float(_mm512_castsi512_si256(v));
            let high = |v: __m512i| float(_mm512_extracti64x4_epi64::<1>(v));
            [low(even_all), high(even_all), low(odd_all), high(odd_all)]
        }
    }
    #[inline(always)]
    fn sum(self, v: __m512) -> f32 {
        // SAFETY: the token proves AVX-512.
        unsafe {
            let v = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
        }
    }
    #[inline(always)]
    fn maximum(self, v: __m512) -> f32 {
        // SAFETY: the token proves AVX-512.
        unsafe {
            let v = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
            let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
        }
    }
}

const _: () = assert!(LANES == 16, "one register of 16");
