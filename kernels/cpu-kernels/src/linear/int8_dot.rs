//! What: register tiles of int8 × int8 → int32 dot products, acc\[MR, 16·P\] = x\[MR, k\] · W\[16·P, k\]ᵀ.
//! Source: Intel SDM vol. 2, `VPMADDUBSW` and `VPDPBUSD`; the sign trick is common practice.
//! Shapes: W as panels `[⌈k/4⌉][16][4]`; x rows of ⌈k/4⌉ groups of four bytes.
//! Method: scalar: plain loops. AVX2: `maddubs(|w|, sign(x, w))`: |w| ≤ 128 and |x| ≤ 127, so a pair sums to at most
//! 2·128·127 = 32 512 < 2¹⁵ and the instruction's saturation cannot occur; `madd` with ones widens to int32.
//! VNNI: `vpdpbusd` wants an unsigned operand, so x carries +128 and the sum starts at −128·Σw.
//! Exactness: int32, equal on all three.
//! Cost: 64 multiply-adds per VNNI instruction; 32 per four instructions on AVX2.
//! Not handled: activations of −128 (never produced), AVX-512 without VNNI (runs the AVX2 tile).

use crate::Cpu;
#[cfg(target_arch = "x86_64")]
use crate::isa::{Avx2, Vnni};
use crate::simd::LANES;

/// Which dot-product instructions to use, with their proof.
#[derive(Clone, Copy)]
pub(crate) enum Dots {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Sign(Avx2),
    #[cfg(target_arch = "x86_64")]
    Vnni(Vnni),
}

impl Dots {
    /// The best that the level of `cpu` allows.
    pub(crate) fn best(cpu: &Cpu) -> Self {
        #[cfg(target_arch = "x86_64")]
        match cpu.token() {
            crate::isa::Token::Scalar(_) => Dots::Scalar,
            crate::isa::Token::Avx2(token) => Dots::Sign(token),
            crate::isa::Token::Avx512(token) => Vnni::detect().map_or(Dots::Sign(token.avx2()), Dots::Vnni),
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = cpu;
            Dots::Scalar
        }
    }

    /// What must be added to activation codes.
    pub(crate) fn offset(self) -> u8 {
        match self {
            #[cfg(target_arch = "x86_64")]
            Dots::Vnni(_) => 128,
            _ => 0,
        }
    }
}

/// Rows of the next tile when `left` remain.
pub(crate) fn largest_tile(dots: Dots, left: usize) -> usize {
    match dots {
        Dots::Scalar => left.min(4),
        #[cfg(target_arch = "x86_64")]
        Dots::Sign(_) => left.min(4),
        #[cfg(target_arch = "x86_64")]
        Dots::Vnni(_) => super::tile::tile_rows(true, left),
    }
}

/// Most panels beside `rows` rows.
pub(crate) fn panels_for(dots: Dots, rows: usize) -> usize {
    match (dots, rows) {
        (Dots::Scalar, _) => 1,
        #[cfg(target_arch = "x86_64")]
        (Dots::Sign(_), _) => [4, 2, 1, 1][rows - 1],
        #[cfg(target_arch = "x86_64")]
        (Dots::Vnni(_), _) => super::tile::max_panels(true, rows),
    }
}

/// acc\[rows, 16·panels\] for `rows` a [`largest_tile`] and `panels` at most [`panels_for`] the block's first tile;
/// `offsets` are 128·Σw per output.
pub(crate) fn dot_tiles(
    dots: Dots,
    w: &[i8],
    x: &[u8],
    rows: usize,
    panels: usize,
    offsets: &[i32],
    acc: &mut [i32; 12 * 4 * LANES],
) {
    let quads = x.len() / 4 / rows.max(1);
    assert!(w.len() == panels * quads * LANES * 4 && x.len() == rows * quads * 4 && offsets.len() == panels * LANES);
    match dots {
        Dots::Scalar => scalar(w, x, rows, panels, quads, acc),
        // SAFETY: the lengths are asserted; the token proves AVX2.
        #[cfg(target_arch = "x86_64")]
        Dots::Sign(_) => unsafe { x86::sign_rows(w.as_ptr(), x.as_ptr(), rows, panels, quads, acc) },
        // SAFETY: the lengths are asserted; the token proves VNNI.
        #[cfg(target_arch = "x86_64")]
        Dots::Vnni(_) => unsafe {
            x86::vnni_rows(w.as_ptr(), x.as_ptr(), rows, panels, quads, offsets.as_ptr(), acc);
        },
    }
}

fn scalar(w: &[i8], x: &[u8], rows: usize, panels: usize, quads: usize, acc: &mut [i32]) {
    for r in 0..rows {
        let x = &x[r * quads * 4..(r + 1) * quads * 4];
        for p in 0..panels {
            let mut sums = [0i32; LANES];
            let panel = w[p * quads * LANES * 4..].chunks_exact(LANES * 4);
            for (w, x) in panel.zip(x.chunks_exact(4)) {
                for lane in 0..LANES {
                    for i in 0..4 {
                        sums[lane] += i32::from(w[lane * 4 + i]) * i32::from(x[i] as i8);
                    }
                }
            }
            acc[(r * panels + p) * LANES..][..LANES].copy_from_slice(&sums);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::LANES;
    use crate::linear::tile::further;
    use std::arch::x86_64::*;

    /// SAFETY: w, x and acc must hold the panels, rows and sums named; AVX2 must be present.
    pub(super) unsafe fn sign_rows(
        w: *const i8,
        x: *const u8,
        rows: usize,
        panels: usize,
        quads: usize,
        acc: &mut [i32],
    ) {
        macro_rules! pick {
            ($(($m:literal, $p:literal))*) => {
                match (rows, panels) {
                    // SAFETY: passed on from the caller.
                    $(($m, $p) => unsafe { sign::<$m, $p>(w, x, quads, acc.as_mut_ptr()) },)*
                    _ => unreachable!("no {rows} × {panels} tile"),
                }
            };
        }
        pick!((1, 4)(1, 2)(2, 2)(1, 1)(2, 1)(3, 1)(4, 1));
    }

    #[target_feature(enable = "avx2")]
    unsafe fn sign<const MR: usize, const P: usize>(w: *const i8, x: *const u8, quads: usize, out: *mut i32) {
        let ones = _mm256_set1_epi16(1);
        let mut acc = [[[_mm256_setzero_si256(); 2]; P]; MR];
        for quad in 0..quads {
            for p in 0..P {
                let here = w.wrapping_add((p * quads + quad) * LANES * 4);
                _mm_prefetch::<_MM_HINT_T0>(further(here.cast(), quad * LANES * 4, quads * LANES * 4, P).cast());
                for half in 0..2 {
                    // SAFETY: here and below, the caller vouches for MR rows, P panels and the output.
                    let w = unsafe { _mm256_loadu_si256(w.add(((p * quads + quad) * LANES + half * 8) * 4).cast()) };
                    let magnitude = _mm256_abs_epi8(w);
                    for r in 0..MR {
                        // SAFETY: as above.
                        let x =
                            _mm256_set1_epi32(unsafe { x.add((r * quads + quad) * 4).cast::<i32>().read_unaligned() });
                        let pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(x, w));
                        acc[r][p][half] = _mm256_add_epi32(acc[r][p][half], _mm256_madd_epi16(pairs, ones));
                    }
                }
            }
        }
        for r in 0..MR {
            for p in 0..P {
                for half in 0..2 {
                    // SAFETY: as above.
                    unsafe { _mm256_storeu_si256(out.add((r * P + p) * LANES + half * 8).cast(), acc[r][p][half]) };
                }
            }
        }
    }

    /// SAFETY: as [`sign_rows`], with 16 offsets per panel; VNNI must be present.
    pub(super) unsafe fn vnni_rows(
        w: *const i8,
        x: *const u8,
        rows: usize,
        panels: usize,
        quads: usize,
        offsets: *const i32,
        acc: &mut [i32],
    ) {
        macro_rules! pick {
            ($(($m:literal, $p:literal))*) => {
                match (rows, panels) {
                    // SAFETY: passed on from the caller.
                    $(($m, $p) => unsafe { vnni::<$m, $p>(w, x, quads, offsets, acc.as_mut_ptr()) },)*
                    _ => unreachable!("no {rows} × {panels} tile"),
                }
            };
        }
        pick!((1, 4)(2, 4)(3, 4)(4, 4)(1, 2)(2, 2)(3, 2)(4, 2)(5, 2)(6, 2)(7, 2)(8, 2)(12, 2)(1, 1)(2, 1)(3, 1)(4, 1)(
            5, 1
        )(6, 1)(7, 1)(8, 1)(12, 1));
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn vnni<const MR: usize, const P: usize>(
        w: *const i8,
        x: *const u8,
        quads: usize,
        offsets: *const i32,
        out: *mut i32,
    ) {
        let mut acc = [[_mm512_setzero_si512(); P]; MR];
        for p in 0..P {
            // SAFETY: here and below, the caller vouches for MR rows, P panels, the offsets and the output.
            let offset = unsafe { _mm512_loadu_si512(offsets.add(p * LANES).cast()) };
            for r in 0..MR {
                acc[r][p] = _mm512_sub_epi32(_mm512_setzero_si512(), offset);
            }
        }
        for quad in 0..quads {
            let mut b = [_mm512_setzero_si512(); P];
            for p in 0..P {
                // SAFETY: as above.
                b[p] = unsafe { _mm512_loadu_si512(w.add((p * quads + quad) * LANES * 4).cast()) };
                let here = w.wrapping_add((p * quads + quad) * LANES * 4);
                _mm_prefetch::<_MM_HINT_T0>(further(here.cast(), quad * LANES * 4, quads * LANES * 4, P).cast());
            }
            for r in 0..MR {
                // SAFETY: as above.
                let x = _mm512_set1_epi32(unsafe { x.add((r * quads + quad) * 4).cast::<i32>().read_unaligned() });
                for p in 0..P {
                    acc[r][p] = _mm512_dpbusd_epi32(acc[r][p], x, b[p]);
                }
            }
        }
        for r in 0..MR {
            for p in 0..P {
                // SAFETY: as above.
                unsafe { _mm512_storeu_si512(out.add((r * P + p) * LANES).cast(), acc[r][p]) };
            }
        }
    }
}
