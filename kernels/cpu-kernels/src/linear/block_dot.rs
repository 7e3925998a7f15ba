//! What: register tiles of ggml's blocks times int8 activations, y\[MR, 16·P\].
//! Source: Intel SDM vol. 2, `VPDPBUSD` and `VPMADDUBSW`.
//! Shapes: weights as `block_store` keeps them; x codes `[MR, blocks, 32]`, scales `[MR, blocks]`, sums `[MR, blocks, parts]`.
//! Method: per block: 1. the codes of a quad are put together byte by byte, unsigned; 2. D = Σ code·q − zero·Σq in int32, for
//! each part (the block, or its two halves); 3. t = f(D₀)·sw₀, then t = fma(f(D₁), sw₁, t) where there are halves, y = fma(t, sx, y),
//! and with minima y = fma(m, sx·Σq, y) for each part, every step rounded once.
//! VNNI: one `vpdpbusd` per quad, row and panel. AVX2: `maddubs` of codes below 2⁴, 2⁵ or 2⁶ may be added 8, 4 or 2 times in int16
//! (8·2·15·127, 4·2·31·127 and 2·2·63·127 are below 2¹⁵) before `madd` with ones widens; 8-bit codes are two planes of 4 bits.
//! Exactness: the same bits on all three, whatever the tile.
//! Cost: per block, row and panel 8 dot instructions (VNNI) and 3 on f32; taking codes apart is shared by the rows of a tile.
//! Not handled: AVX-512 without VNNI (runs the AVX2 tile).

use super::block_form::{BLOCK, BlockForm, SUPER};
use super::block_store::BlockStore;
use super::int8_dot::Dots;
use crate::simd::LANES;

/// One tile's operands; pointers at its first row and panel, strides in elements.
#[derive(Clone, Copy)]
pub(super) struct Dot {
    pub(super) blocks: usize,
    pub(super) words: *const u32,
    pub(super) panel_words: usize,
    pub(super) halves: *const u16,
    pub(super) panel_halves: usize,
    pub(super) integers: *const u8,
    pub(super) panel_integers: usize,
    pub(super) x: *const i8,
    pub(super) sx: *const f32,
    /// −zero·Σq, or with minima the bits of sx·Σq in f32.
    pub(super) sums: *const i32,
    pub(super) y: *mut f32,
    pub(super) y_stride: usize,
    /// Columns of y that exist, at most 16·P.
    pub(super) n_cols: usize,
}

/// Rows of the next tile when `left` remain.
pub(super) fn largest_tile(dots: Dots, left: usize) -> usize {
    match (dots, left) {
        (Dots::Scalar, _) => left.min(4),
        #[cfg(target_arch = "x86_64")]
        (Dots::Sign(_), _) => left.min(4),
        // two tiles of the same size where 12 would leave a small one
        #[cfg(target_arch = "x86_64")]
        (Dots::Vnni(_), 16) => 8,
        #[cfg(target_arch = "x86_64")]
        (Dots::Vnni(_), 12..) => 12,
        #[cfg(target_arch = "x86_64")]
        (Dots::Vnni(_), 8..) => 8,
        #[cfg(target_arch = "x86_64")]
        (Dots::Vnni(_), 6..) => 6,
        #[cfg(target_arch = "x86_64")]
        (Dots::Vnni(_), _) => left.min(4),
    }
}

/// Most panels beside a tile of `rows` rows: 1, 2 or 4.
pub(super) fn panels_for(dots: Dots, rows: usize) -> usize {
    match (dots, rows) {
        #[cfg(target_arch = "x86_64")]
        (Dots::Vnni(_), 1 | 2) => 4,
        #[cfg(target_arch = "x86_64")]
        (Dots::Vnni(_), 3..=6) => 2,
        _ => 1,
    }
}

/// y\[rows, n_cols\] of `rows` a [`largest_tile`] and `panels` at most [`panels_for`] it.
///
/// # Safety
/// Every pointer of `d` must be valid for these rows, panels and all blocks of `form`; y exclusively.
pub(super) unsafe fn tile(dots: Dots, store: &BlockStore, rows: usize, panels: usize, first: usize, d: Dot) {
    // SAFETY: passed on; the token of `dots` proves the instructions.
    unsafe {
        match dots {
            Dots::Scalar => scalar(store, rows, panels, first, d),
            #[cfg(target_arch = "x86_64")]
            Dots::Sign(_) => x86::avx2_tile(store.form, rows, panels, d),
            #[cfg(target_arch = "x86_64")]
            Dots::Vnni(_) => x86::vnni_tile(store.form, rows, panels, d),
        }
    }
}

/// The definition. SAFETY: as [`tile`].
unsafe fn scalar(store: &BlockStore, rows: usize, panels: usize, first: usize, d: Dot) {
    let form = store.form;
    let width = BLOCK / form.parts();
    for row in 0..rows {
        for column in 0..d.n_cols.min(panels * LANES) {
            let output = first * LANES + column;
            let mut y = 0.0f32;
            for block in 0..d.blocks {
                let at = row * d.blocks + block;
                // SAFETY: here and below, the caller vouches for all rows and blocks.
                let sx = unsafe { *d.sx.add(at) };
                let (mut t, mut added) = (0.0f32, [(0.0f32, 0.0f32); 2]);
                for part in 0..form.parts() {
                    // SAFETY: as above.
                    let sum = unsafe { *d.sums.add(at * form.parts() + part) };
                    let (scale, minimum) = store.constants(output, block, part);
                    let mut dot = if form.has_minima() { 0 } else { sum };
                    for j in part * width..(part + 1) * width {
                        // SAFETY: as above.
                        let q = i32::from(unsafe { *d.x.add(at * BLOCK + j) });
                        dot += store.code(output, block * BLOCK + j) as i32 * q;
                    }
                    t = if part == 0 { dot as f32 * scale } else { (dot as f32).mul_add(scale, t) };
                    added[part] = (minimum, f32::from_bits(sum as u32));
                }
                y = t.mul_add(sx, y);
                for (minimum, sum) in added.into_iter().take(form.parts()).filter(|_| form.has_minima()) {
                    y = minimum.mul_add(sum, y);
                }
            }
            // SAFETY: as above, and this column exists.
            unsafe { *d.y.add(row * d.y_stride + column) = y };
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{BLOCK, BlockForm, Dot, LANES, SUPER};
    use crate::linear::tile::{AHEAD, further};
    use std::arch::x86_64::*;

    macro_rules! pick {
        ($kernel:ident, $form:ident, $d:ident, $rows:ident, $panels:ident, $sizes:tt) => {
            pick!(@forms $kernel, $form, $d, $rows, $panels, $sizes,
                Q4_0 0, Q4_1 1, Q5_0 2, Q5_1 3, Q8_0 4, Q2K 5, Q3K 6, Q4K 7, Q5K 8, Q6K 9)
        };
        (@forms $kernel:ident, $form:ident, $d:ident, $rows:ident, $panels:ident, $sizes:tt, $($name:ident $f:literal),*) => {
            match $form {
                $(BlockForm::$name => pick!(@sizes $kernel, $d, $rows, $panels, $f, $sizes),)*
            }
        };
        (@sizes $kernel:ident, $d:ident, $rows:ident, $panels:ident, $f:literal, ($(($m:literal, $p:literal))*)) => {
            match ($rows, $panels) {
                $(($m, $p) => $kernel::<$f, $m, $p>($d),)*
                _ => unreachable!("no tile of {} rows and {} panels", $rows, $panels),
            }
        };
    }

    /// SAFETY: as [`super::tile`]; AVX2, FMA and F16C must be present.
    pub(super) unsafe fn avx2_tile(form: BlockForm, rows: usize, panels: usize, d: Dot) {
        // SAFETY: passed on from the caller.
        unsafe { pick!(avx2, form, d, rows, panels, ((1, 1)(2, 1)(3, 1)(4, 1))) }
    }

    /// SAFETY: as [`super::tile`]; AVX-512 and VNNI must be present.
    pub(super) unsafe fn vnni_tile(form: BlockForm, rows: usize, panels: usize, d: Dot) {
        // SAFETY: passed on from the caller.
        unsafe {
            pick!(
                vnni,
                form,
                d,
                rows,
                panels,
                ((1, 4)(2, 4)(1, 2)(2, 2)(3, 2)(4, 2)(6, 2)(1, 1)(2, 1)(3, 1)(4, 1)(6, 1)(8, 1)(12, 1))
            )
        }
    }

    /// Scales of 8 outputs from `half` on, of part `part` of a block.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn constant8<const F: usize>(d: &Dot, block: usize, part: usize, kind: usize, half: usize) -> __m256 {
        let form = const { BlockForm::ALL[F] };
        let group = if form.is_super() { block / SUPER } else { block };
        // SAFETY: the caller vouches for all blocks.
        let float = unsafe {
            let at = d.halves.add((group * form.kinds() + kind) * LANES + half * 8);
            _mm256_cvtph_ps(_mm_loadu_si128(at.cast()))
        };
        if !form.is_super() {
            return float;
        }
        // SAFETY: as above.
        let bytes = unsafe {
            let at = ((block * form.parts() + part) * form.kinds() + kind) * LANES + half * 8;
            _mm_loadl_epi64(d.integers.add(at).cast())
        };
        let whole = if form.has_minima() { _mm256_cvtepu8_epi32(bytes) } else { _mm256_cvtepi8_epi32(bytes) };
        let product = _mm256_mul_ps(float, _mm256_cvtepi32_ps(whole));
        if kind == 1 { _mm256_xor_ps(product, _mm256_set1_ps(-0.0)) } else { product }
    }

    /// Codes of quad `quad` in the bytes of 8 outputs, of the low plane or (8 bits) its high half alone.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn codes8<const F: usize>(words: *const u32, quad: usize, half: usize, plane: usize) -> __m256i {
        let form = const { BlockForm::ALL[F] };
        let per_word = const { 8 / BlockForm::ALL[F].low() };
        // SAFETY: the caller vouches for the words of this block.
        let load = |word: usize| unsafe { _mm256_loadu_si256(words.add(word * LANES + half * 8).cast()) };
        let shifted = |v: __m256i, by: usize| _mm256_srl_epi16(v, _mm_cvtsi32_si128(by as i32));
        let shift = if form.low() == 8 { 4 * plane } else { form.low() * (quad % per_word) };
        let mask = if form.low() == 2 { 3 } else { 15 };
        let low = _mm256_and_si256(shifted(load(quad / per_word), shift), _mm256_set1_epi8(mask));
        if form.high() == 0 {
            return low;
        }
        let (word, shift, mask) = if form.high() == 1 { (0, quad, 1) } else { (quad / 4, 2 * (quad % 4), 3) };
        let high = _mm256_and_si256(shifted(load(form.low() + word), shift), _mm256_set1_epi8(mask));
        // masked bytes stay inside themselves
        _mm256_or_si256(low, _mm256_sll_epi16(high, _mm_cvtsi32_si128(form.low() as i32)))
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn avx2<const F: usize, const MR: usize, const P: usize>(d: Dot) {
        const { assert!(P == 1, "a panel's sums fill the registers") };
        let form = const { BlockForm::ALL[F] };
        let quads = const { 8 / BlockForm::ALL[F].parts() };
        // products that may be added in int16
        let run = const {
            match BlockForm::ALL[F].bits() {
                5 => 4,
                6 => 2,
                _ => 8 / BlockForm::ALL[F].parts(),
            }
        };
        let ones = _mm256_set1_epi16(1);
        for half in 0..2 {
            let mut y = [_mm256_setzero_ps(); MR];
            for block in 0..d.blocks {
                // SAFETY: here and below, the caller vouches for MR rows, one panel and all blocks.
                let words = unsafe { d.words.add(block * form.bits() * LANES) };
                for line in 0..form.bits() {
                    let next = words.wrapping_add(line * LANES).cast::<i8>().wrapping_add(AHEAD);
                    _mm_prefetch::<_MM_HINT_T0>(next);
                }
                let mut t = [_mm256_setzero_ps(); MR];
                for part in 0..form.parts() {
                    let mut dots = [_mm256_setzero_si256(); MR];
                    for plane in 0..if form.low() == 8 { 2 } else { 1 } {
                        for from in (part * quads..(part + 1) * quads).step_by(run) {
                            let mut pairs = [_mm256_setzero_si256(); MR];
                            for quad in from..from + run {
                                // SAFETY: as above.
                                let codes = unsafe { codes8::<F>(words, quad, half, plane) };
                                for r in 0..MR {
                                    // SAFETY: as above.
                                    let x = unsafe {
                                        d.x.add((r * d.blocks + block) * BLOCK + quad * 4)
                                            .cast::<i32>()
                                            .read_unaligned()
                                    };
                                    let products = _mm256_maddubs_epi16(codes, _mm256_set1_epi32(x));
                                    pairs[r] = _mm256_add_epi16(pairs[r], products);
                                }
                            }
                            for r in 0..MR {
                                let wide = _mm256_madd_epi16(pairs[r], ones);
                                let wide = if plane == 1 { _mm256_slli_epi32::<4>(wide) } else { wide };
                                dots[r] = _mm256_add_epi32(dots[r], wide);
                            }
                        }
                    }
                    // SAFETY: as above.
                    let scale = unsafe { constant8::<F>(&d, block, part, 0, half) };
                    for r in 0..MR {
                        if !form.has_minima() {
                            // SAFETY: as above.
                            let sum = unsafe { *d.sums.add((r * d.blocks + block) * form.parts() + part) };
                            dots[r] = _mm256_add_epi32(dots[r], _mm256_set1_epi32(sum));
                        }
                        let value = _mm256_cvtepi32_ps(dots[r]);
                        t[r] =
                            if part == 0 { _mm256_mul_ps(value, scale) } else { _mm256_fmadd_ps(value, scale, t[r]) };
                    }
                }
                for r in 0..MR {
                    // SAFETY: as above.
                    y[r] = _mm256_fmadd_ps(t[r], _mm256_set1_ps(unsafe { *d.sx.add(r * d.blocks + block) }), y[r]);
                }
                for part in 0..if form.has_minima() { form.parts() } else { 0 } {
                    // SAFETY: as above.
                    let minimum = unsafe { constant8::<F>(&d, block, part, 1, half) };
                    for r in 0..MR {
                        // SAFETY: as above.
                        let sum = unsafe { *d.sums.add((r * d.blocks + block) * form.parts() + part) };
                        y[r] = _mm256_fmadd_ps(minimum, _mm256_set1_ps(f32::from_bits(sum as u32)), y[r]);
                    }
                }
            }
            for r in 0..MR {
                let mut out = [0.0f32; 8];
                let here = d.n_cols.saturating_sub(half * 8).min(8);
                // SAFETY: the array holds 8 values; `here` columns of y exist.
                unsafe {
                    _mm256_storeu_ps(out.as_mut_ptr(), y[r]);
                    std::ptr::copy_nonoverlapping(out.as_ptr(), d.y.add(r * d.y_stride + half * 8), here);
                }
            }
        }
    }

    /// 16 scales or (kind 1) minima of panel `p`, part `part` of a block; `float` is what integers are multiplied by.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn constant16<const F: usize>(
        d: &Dot,
        p: usize,
        block: usize,
        part: usize,
        kind: usize,
        float: __m512,
    ) -> __m512 {
        let form = const { BlockForm::ALL[F] };
        if !form.is_super() {
            // SAFETY: the caller vouches for all panels and blocks.
            let at = unsafe { d.halves.add(p * d.panel_halves + (block * form.kinds() + kind) * LANES) };
            // SAFETY: as above.
            return _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(at.cast()) });
        }
        let at = ((block * form.parts() + part) * form.kinds() + kind) * LANES;
        // SAFETY: as above.
        let bytes = unsafe { _mm_loadu_si128(d.integers.add(p * d.panel_integers + at).cast()) };
        let whole = if form.has_minima() { _mm512_cvtepu8_epi32(bytes) } else { _mm512_cvtepi8_epi32(bytes) };
        _mm512_mul_ps(float, _mm512_cvtepi32_ps(whole))
    }

    macro_rules! shift {
        ($v:expr, $by:expr) => {
            match $by {
                0i32 => $v,
                1 => _mm512_srli_epi16::<1>($v),
                2 => _mm512_srli_epi16::<2>($v),
                3 => _mm512_srli_epi16::<3>($v),
                4 => _mm512_srli_epi16::<4>($v),
                6 => _mm512_srli_epi16::<6>($v),
                -1 => _mm512_slli_epi16::<1>($v),
                -2 => _mm512_slli_epi16::<2>($v),
                -3 => _mm512_slli_epi16::<3>($v),
                5 => _mm512_srli_epi16::<5>($v),
                _ => _mm512_slli_epi16::<4>($v),
            }
        };
    }

    /// Codes of quad `Q` in the bytes of 16 outputs.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn codes16<const F: usize, const Q: usize>(words: *const u32) -> __m512i {
        let form = const { BlockForm::ALL[F] };
        let (low, per_word) = (form.low(), 8 / form.low());
        // SAFETY: the caller vouches for the words of this block.
        let load = |word: usize| unsafe { _mm512_loadu_si512(words.add(word * LANES).cast()) };
        let first = load(Q / per_word);
        if low == 8 {
            return first;
        }
        let shift_first = (low * (Q % per_word)) as i32;
        let mask = _mm512_set1_epi8(if low == 2 { 3 } else { 15 });
        let codes = _mm512_and_si512(shift!(first, shift_first), mask);
        if form.high() == 0 {
            return codes;
        }
        let (word, at, mask) = if form.high() == 1 { (0, Q, 1i8 << low) } else { (Q / 4, 2 * (Q % 4), 48) };
        let second = shift!(load(low + word), at as i32 - low as i32);
        // codes | (second & mask)
        _mm512_ternarylogic_epi32::<0xf8>(codes, second, _mm512_set1_epi8(mask))
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    unsafe fn vnni<const F: usize, const MR: usize, const P: usize>(d: Dot) {
        let form = const { BlockForm::ALL[F] };
        let parts = form.parts();
        let block_words = form.bits() * LANES;
        let mut y = [[_mm512_setzero_ps(); P]; MR];
        let mut floats = [[_mm512_setzero_ps(); 2]; P];
        for block in 0..d.blocks {
            if form.is_super() && block % SUPER == 0 {
                for p in 0..P {
                    for kind in 0..form.kinds() {
                        // SAFETY: here and below, the caller vouches for MR rows, P panels and all blocks.
                        let at =
                            unsafe { d.halves.add(p * d.panel_halves + (block / SUPER * form.kinds() + kind) * LANES) };
                        // SAFETY: as above.
                        let float = _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(at.cast()) });
                        // minima are subtracted
                        floats[p][kind] = if kind == 1 { _mm512_sub_ps(_mm512_setzero_ps(), float) } else { float };
                    }
                }
            }
            // SAFETY: as above.
            let words = unsafe { d.words.add(block * block_words) };
            let ahead = further(words.cast(), 4 * block * block_words, 4 * d.panel_words, P);
            for p in 0..P {
                for line in 0..form.bits() {
                    _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(4 * (p * d.panel_words + line * LANES)).cast());
                }
            }
            let mut t = [[_mm512_setzero_ps(); P]; MR];
            for part in 0..parts {
                let mut dots = [[_mm512_setzero_si512(); P]; MR];
                if !form.has_minima() {
                    for r in 0..MR {
                        // SAFETY: as above.
                        let sum = unsafe { *d.sums.add((r * d.blocks + block) * parts + part) };
                        dots[r] = [_mm512_set1_epi32(sum); P];
                    }
                }
                macro_rules! quad {
                    ($q:literal) => {
                        let mut codes = [_mm512_setzero_si512(); P];
                        for p in 0..P {
                            // SAFETY: as above.
                            codes[p] = unsafe { codes16::<F, $q>(words.add(p * d.panel_words)) };
                        }
                        for r in 0..MR {
                            // SAFETY: as above.
                            let x = unsafe {
                                d.x.add((r * d.blocks + block) * BLOCK + $q * 4).cast::<i32>().read_unaligned()
                            };
                            let x = _mm512_set1_epi32(x);
                            for p in 0..P {
                                dots[r][p] = _mm512_dpbusd_epi32(dots[r][p], codes[p], x);
                            }
                        }
                    };
                }
                if part == 0 {
                    quad!(0);
                    quad!(1);
                    quad!(2);
                    quad!(3);
                }
                if part == 1 || parts == 1 {
                    quad!(4);
                    quad!(5);
                    quad!(6);
                    quad!(7);
                }
                for p in 0..P {
                    // SAFETY: as above.
                    let scale = unsafe { constant16::<F>(&d, p, block, part, 0, floats[p][0]) };
                    for r in 0..MR {
                        let value = _mm512_cvtepi32_ps(dots[r][p]);
                        t[r][p] = if part == 0 {
                            _mm512_mul_ps(value, scale)
                        } else {
                            _mm512_fmadd_ps(value, scale, t[r][p])
                        };
                    }
                }
            }
            for r in 0..MR {
                // SAFETY: as above.
                let sx = _mm512_set1_ps(unsafe { *d.sx.add(r * d.blocks + block) });
                for p in 0..P {
                    y[r][p] = _mm512_fmadd_ps(t[r][p], sx, y[r][p]);
                }
            }
            for part in 0..if form.has_minima() { parts } else { 0 } {
                for p in 0..P {
                    // SAFETY: as above.
                    let minimum = unsafe { constant16::<F>(&d, p, block, part, 1, floats[p][1]) };
                    for r in 0..MR {
                        // SAFETY: as above.
                        let sum = unsafe { *d.sums.add((r * d.blocks + block) * parts + part) };
                        y[r][p] = _mm512_fmadd_ps(minimum, _mm512_set1_ps(f32::from_bits(sum as u32)), y[r][p]);
                    }
                }
            }
        }
        for r in 0..MR {
            for p in 0..P {
                let here = d.n_cols.saturating_sub(p * LANES).min(LANES);
                let first = ((1u32 << here) - 1) as u16;
                // SAFETY: as above; the mask leaves columns alone that do not exist.
                unsafe { _mm512_mask_storeu_ps(d.y.add(r * d.y_stride + p * LANES), first, y[r][p]) };
            }
        }
    }
}
