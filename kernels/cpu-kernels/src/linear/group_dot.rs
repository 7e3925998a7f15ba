//! What: register tiles of the group linear with int8 activations, y\[MR, 16·P\].
//! Source: Intel SDM vol. 2, `VPDPBUSD` and `VPMADDUBSW`.
//! Shapes: weights by quads (`group_store`), x codes `[MR, blocks, 32]`, scales and sums `[MR, blocks]`.
//! Method: per block: 1. codes of a word are masked out byte by byte, unsigned; 2. VNNI: one `vpdpbusd` per quad, row and
//! panel. AVX2: `maddubs` on planes of at most four bits: eight of them add up to 8·2·15·127 = 30 480 < 2¹⁵ in int16, so
//! neither the instruction nor the sum saturates; `madd` with ones widens once per block, and the high plane of 8-bit
//! codes counts 16-fold; 3. ((d − zero·Σq)·sw)·sx is added to the row's sum, unfused.
//! Exactness: the same bits on all three.
//! Cost: per block, row and panel 8 dot instructions (VNNI) and 4 on f32.
//! Not handled: AVX-512 without VNNI (runs the AVX2 tile).

use super::codes::BLOCK;
use super::int8_dot::Dots;
use crate::simd::{LANES, scalar::f16_to_f32};

/// One tile's operands; pointers at its first row and panel, strides in elements.
#[derive(Clone, Copy)]
pub(super) struct Dot {
    pub(super) bits: usize,
    pub(super) blocks: usize,
    pub(super) blocks_per_group: usize,
    pub(super) words: *const u32,
    pub(super) panel_words: usize,
    /// f16 scales.
    pub(super) scales: *const u16,
    /// f16 zeros, laid out as the scales, where they are not part of `sums`.
    pub(super) zeros: Option<*const u16>,
    pub(super) panel_groups: usize,
    pub(super) x: *const i8,
    pub(super) sx: *const f32,
    /// −zero·Σq, or with `zeros` the bits of Σq in f32.
    pub(super) sums: *const i32,
    pub(super) y: *mut f32,
    pub(super) y_stride: usize,
    /// Columns of y that exist, at most 16·P.
    pub(super) n_cols: usize,
}

/// Rows of the next tile when `left` remain.
pub(super) fn largest_tile(dots: Dots, left: usize) -> usize {
    match dots {
        Dots::Scalar => left.min(4),
        #[cfg(target_arch = "x86_64")]
        Dots::Sign(_) => left.min(4),
        #[cfg(target_arch = "x86_64")]
        Dots::Vnni(_) => left.min(3),
    }
}

/// Most panels beside a block of `rows` rows.
pub(super) fn panels_for(dots: Dots, rows: usize) -> usize {
    match dots {
        #[cfg(target_arch = "x86_64")]
        Dots::Vnni(_) if rows > 1 => 4,
        _ => 1,
    }
}

/// y\[rows, n_cols\] of `rows` a [`largest_tile`] and `panels` at most [`panels_for`].
///
/// # Safety
/// Every pointer of `d` must be valid for these rows, panels and all blocks; y exclusively.
pub(super) unsafe fn tile(dots: Dots, rows: usize, panels: usize, d: Dot) {
    // SAFETY: passed on; the token of `dots` proves the instructions.
    unsafe {
        match dots {
            Dots::Scalar => scalar(rows, panels, d),
            #[cfg(target_arch = "x86_64")]
            Dots::Sign(_) => x86::planes_tile(rows, panels, d),
            #[cfg(target_arch = "x86_64")]
            Dots::Vnni(_) => x86::vnni_tile(rows, panels, d),
        }
    }
}

/// SAFETY: as [`tile`].
unsafe fn scalar(rows: usize, panels: usize, d: Dot) {
    let (per_byte, mask) = (8 / d.bits, 0x0101_0101 * ((1u32 << d.bits) - 1));
    for (row, p) in (0..rows).flat_map(|row| (0..panels).map(move |p| (row, p))) {
        let mut y = [0.0f32; LANES];
        for block in 0..d.blocks {
            let group = p * d.panel_groups + block / d.blocks_per_group * LANES;
            // SAFETY: here and below, the caller vouches for all rows, panels and blocks.
            let (sx, sum) = unsafe { (*d.sx.add(row * d.blocks + block), *d.sums.add(row * d.blocks + block)) };
            for lane in 0..LANES {
                let mut dot = if d.zeros.is_some() { 0 } else { sum };
                for quad in 0..BLOCK / 4 {
                    let at = p * d.panel_words + (block * d.bits + quad / per_byte) * LANES + lane;
                    // SAFETY: as above.
                    let (word, x) = unsafe { (*d.words.add(at), d.x.add((row * d.blocks + block) * BLOCK + quad * 4)) };
                    let codes = (word >> (quad % per_byte * d.bits) & mask).to_le_bytes();
                    for (i, code) in codes.into_iter().enumerate() {
                        // SAFETY: as above.
                        dot += i32::from(code) * i32::from(unsafe { *x.add(i) });
                    }
                }
                let mut value = dot as f32;
                if let Some(zeros) = d.zeros {
                    // SAFETY: as above.
                    value -= f16_to_f32(unsafe { *zeros.add(group + lane) }) * f32::from_bits(sum as u32);
                }
                // SAFETY: as above.
                y[lane] += value * f16_to_f32(unsafe { *d.scales.add(group + lane) }) * sx;
            }
        }
        let here = d.n_cols.saturating_sub(p * LANES).min(LANES);
        // SAFETY: as above, and `here` columns of this panel exist.
        unsafe { std::ptr::copy_nonoverlapping(y.as_ptr(), d.y.add(row * d.y_stride + p * LANES), here) };
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{BLOCK, Dot, LANES};
    use crate::linear::tile::{AHEAD, further};
    use std::arch::x86_64::*;

    macro_rules! pick {
        ($kernel:ident, $d:ident, $rows:ident, $panels:ident, $(($m:literal, $p:literal))*) => {
            match ($rows, $panels, $d.bits, $d.zeros.is_some()) {
                $(
                    ($m, $p, 2, false) => $kernel::<2, $m, $p, false>($d),
                    ($m, $p, 4, false) => $kernel::<4, $m, $p, false>($d),
                    ($m, $p, 8, false) => $kernel::<8, $m, $p, false>($d),
                    ($m, $p, 2, true) => $kernel::<2, $m, $p, true>($d),
                    ($m, $p, 4, true) => $kernel::<4, $m, $p, true>($d),
                    ($m, $p, 8, true) => $kernel::<8, $m, $p, true>($d),
                )*
                _ => unreachable!("no tile of {} rows and {} panels for {} bits", $rows, $panels, $d.bits),
            }
        };
    }

    /// SAFETY: as [`super::tile`]; AVX2, FMA and F16C must be present.
    pub(super) unsafe fn planes_tile(rows: usize, panels: usize, d: Dot) {
        // SAFETY: passed on from the caller.
        unsafe { pick!(planes, d, rows, panels, (1, 1)(2, 1)(3, 1)(4, 1)) }
    }

    /// SAFETY: as [`super::tile`]; AVX-512 and VNNI must be present.
    pub(super) unsafe fn vnni_tile(rows: usize, panels: usize, d: Dot) {
        // SAFETY: passed on from the caller.
        unsafe { pick!(vnni, d, rows, panels, (1, 1)(2, 1)(3, 1)(1, 2)(2, 2)(3, 2)(1, 4)(2, 4)(3, 4)) }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn planes<const BITS: usize, const MR: usize, const P: usize, const ZEROS: bool>(d: Dot) {
        const { assert!(P == 1, "two halves of a panel fill the registers") };
        let mask = _mm256_set1_epi8(if BITS == 2 { 3 } else { 15 });
        let ones = _mm256_set1_epi16(1);
        let mut sums = [[_mm256_setzero_ps(); 2]; MR];
        for block in 0..d.blocks {
            // [low plane, high plane] of each half; the high one is used by 8 bits alone
            let mut pairs = [[[_mm256_setzero_si256(); 2]; 2]; MR];
            // SAFETY: here and below, the caller vouches for MR rows, one panel and all blocks.
            let words = unsafe { d.words.add(block * BITS * LANES) };
            for word in 0..BITS {
                for half in 0..2 {
                    // SAFETY: as above.
                    let mut w = unsafe { _mm256_loadu_si256(words.add(word * LANES + half * 8).cast()) };
                    _mm_prefetch::<_MM_HINT_T0>(words.wrapping_add(word * LANES).cast::<i8>().wrapping_add(AHEAD));
                    for step in 0..8 / BITS.min(4) {
                        let codes = _mm256_and_si256(w, mask);
                        w = if BITS == 2 { _mm256_srli_epi16::<2>(w) } else { _mm256_srli_epi16::<4>(w) };
                        let (quad, plane) = if BITS == 8 { (word, step) } else { (word * (8 / BITS) + step, 0) };
                        for r in 0..MR {
                            // SAFETY: as above.
                            let x = unsafe { d.x.add((r * d.blocks + block) * BLOCK + quad * 4).cast::<i32>() };
                            // SAFETY: as above.
                            let x = _mm256_set1_epi32(unsafe { x.read_unaligned() });
                            let products = _mm256_maddubs_epi16(codes, x);
                            pairs[r][half][plane] = _mm256_add_epi16(pairs[r][half][plane], products);
                        }
                    }
                }
            }
            let group = block / d.blocks_per_group * LANES;
            for r in 0..MR {
                // SAFETY: as above.
                let (sx, sum) = unsafe { (*d.sx.add(r * d.blocks + block), *d.sums.add(r * d.blocks + block)) };
                for half in 0..2 {
                    let [low, high] = pairs[r][half];
                    let mut dot = _mm256_madd_epi16(low, ones);
                    if BITS == 8 {
                        dot = _mm256_add_epi32(dot, _mm256_slli_epi32::<4>(_mm256_madd_epi16(high, ones)));
                    }
                    if !ZEROS {
                        dot = _mm256_add_epi32(dot, _mm256_set1_epi32(sum));
                    }
                    let mut value = _mm256_cvtepi32_ps(dot);
                    if let (true, Some(zeros)) = (ZEROS, d.zeros) {
                        // SAFETY: as above.
                        let zero = unsafe { _mm256_cvtph_ps(_mm_loadu_si128(zeros.add(group + half * 8).cast())) };
                        let sum = _mm256_set1_ps(f32::from_bits(sum as u32));
                        value = _mm256_sub_ps(value, _mm256_mul_ps(zero, sum));
                    }
                    // SAFETY: as above.
                    let sw = unsafe { _mm256_cvtph_ps(_mm_loadu_si128(d.scales.add(group + half * 8).cast())) };
                    let scaled = _mm256_mul_ps(_mm256_mul_ps(value, sw), _mm256_set1_ps(sx));
                    sums[r][half] = _mm256_add_ps(sums[r][half], scaled);
                }
            }
        }
        for r in 0..MR {
            let mut out = [0.0f32; LANES];
            // SAFETY: the array holds both halves; n_cols columns of y exist.
            unsafe {
                _mm256_storeu_ps(out.as_mut_ptr(), sums[r][0]);
                _mm256_storeu_ps(out.as_mut_ptr().add(8), sums[r][1]);
                std::ptr::copy_nonoverlapping(out.as_ptr(), d.y.add(r * d.y_stride), d.n_cols.min(LANES));
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn vnni<const BITS: usize, const MR: usize, const P: usize, const ZEROS: bool>(d: Dot) {
        let mask = _mm512_set1_epi8(if BITS == 2 { 3 } else { 15 });
        let mut sums = [[_mm512_setzero_ps(); P]; MR];
        let (mut group, mut left_in_group) = (0, d.blocks_per_group);
        for block in 0..d.blocks {
            let mut dots = [[_mm512_setzero_si512(); P]; MR];
            for r in 0..MR {
                if !ZEROS {
                    // SAFETY: here and below, the caller vouches for MR rows, P panels and all blocks.
                    dots[r] = [_mm512_set1_epi32(unsafe { *d.sums.add(r * d.blocks + block) }); P];
                }
            }
            // SAFETY: as above.
            let words = unsafe { d.words.add(block * BITS * LANES) };
            let bytes = |words: usize| words * size_of::<u32>();
            let ahead = further(words.cast(), bytes(block * BITS * LANES), bytes(d.panel_words), P);
            for word in 0..BITS {
                let mut w = [_mm512_setzero_si512(); P];
                for p in 0..P {
                    // SAFETY: as above.
                    w[p] = unsafe { _mm512_loadu_si512(words.add(p * d.panel_words + word * LANES).cast()) };
                    let ahead = ahead.wrapping_add(bytes(p * d.panel_words + word * LANES));
                    _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                }
                for step in 0..8 / BITS {
                    let codes = if BITS == 8 { w } else { w.map(|w| _mm512_and_si512(w, mask)) };
                    if BITS == 2 {
                        w = w.map(|w| _mm512_srli_epi16::<2>(w));
                    } else if BITS == 4 {
                        w = w.map(|w| _mm512_srli_epi16::<4>(w));
                    }
                    let quad = word * (8 / BITS) + step;
                    for r in 0..MR {
                        // SAFETY: as above.
                        let x = unsafe { d.x.add((r * d.blocks + block) * BLOCK + quad * 4).cast::<i32>() };
                        // SAFETY: as above.
                        let x = _mm512_set1_epi32(unsafe { x.read_unaligned() });
                        for p in 0..P {
                            dots[r][p] = _mm512_dpbusd_epi32(dots[r][p], codes[p], x);
                        }
                    }
                }
            }
            for p in 0..P {
                let at = p * d.panel_groups + group;
                // SAFETY: as above.
                let sw = unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(d.scales.add(at).cast())) };
                let mut zero = _mm512_setzero_ps();
                if let (true, Some(zeros)) = (ZEROS, d.zeros) {
                    // SAFETY: as above.
                    zero = unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(zeros.add(at).cast())) };
                }
                for r in 0..MR {
                    // SAFETY: as above.
                    let (sx, sum) = unsafe { (*d.sx.add(r * d.blocks + block), *d.sums.add(r * d.blocks + block)) };
                    let mut value = _mm512_cvtepi32_ps(dots[r][p]);
                    if ZEROS {
                        let sum = _mm512_set1_ps(f32::from_bits(sum as u32));
                        value = _mm512_sub_ps(value, _mm512_mul_ps(zero, sum));
                    }
                    let scaled = _mm512_mul_ps(_mm512_mul_ps(value, sw), _mm512_set1_ps(sx));
                    sums[r][p] = _mm512_add_ps(sums[r][p], scaled);
                }
            }
            left_in_group -= 1;
            if left_in_group == 0 {
                (group, left_in_group) = (group + LANES, d.blocks_per_group);
            }
        }
        for r in 0..MR {
            for p in 0..P {
                let here = d.n_cols.saturating_sub(p * LANES).min(LANES);
                let first = ((1u32 << here) - 1) as u16;
                // SAFETY: as above; the mask leaves columns alone that do not exist.
                unsafe { _mm512_mask_storeu_ps(d.y.add(r * d.y_stride + p * LANES), first, sums[r][p]) };
            }
        }
    }
}
