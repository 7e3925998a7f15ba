//! The int8 dot-product peak: the multiply-adds that [`crate::PackedInt8`] is made of, in registers only.

use crate::cpu::{Cpu, SendPtr};
use crate::linear::int8_dot::Dots;
use std::hint::black_box;

/// `iterations` rounds of independent int8 dot products on every thread, with the instructions that the int8 linear
/// uses on `cpu`; returns the operations done (a multiply-add counts two).
pub fn int8_peak(cpu: &Cpu, iterations: usize) -> usize {
    let dots = Dots::best(cpu);
    let mut ops = vec![0usize; cpu.threads()];
    let out = SendPtr(ops.as_mut_ptr());
    cpu.parallel(cpu.threads(), &|i| {
        let done = match dots {
            Dots::Scalar => scalar(iterations),
            // SAFETY: the token proves AVX2.
            #[cfg(target_arch = "x86_64")]
            Dots::Sign(_) => unsafe { x86::sign(iterations) },
            // SAFETY: the token proves VNNI.
            #[cfg(target_arch = "x86_64")]
            Dots::Vnni(_) => unsafe { x86::vnni(iterations) },
        };
        // SAFETY: every i writes its own slot.
        unsafe { *out.get().add(i) = done };
    });
    ops.iter().sum()
}

fn scalar(iterations: usize) -> usize {
    let (a, b) = (black_box([3i8; 64]), black_box([5i8; 64]));
    let mut sums = [0i32; 16];
    for _ in 0..iterations {
        let a = black_box(a);
        for i in 0..64 {
            sums[i / 4] += i32::from(a[i]) * i32::from(b[i]);
        }
    }
    black_box(sums);
    2 * 64 * iterations
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// Eight chains of sign, maddubs, madd, add.
    #[target_feature(enable = "avx2")]
    pub(super) fn sign(iterations: usize) -> usize {
        let (w, x) = (_mm256_set1_epi8(black_box(3)), [_mm256_set1_epi8(black_box(5)); 8]);
        let (magnitude, ones) = (_mm256_abs_epi8(w), _mm256_set1_epi16(1));
        let mut sums = [_mm256_setzero_si256(); 8];
        for _ in 0..iterations {
            for (sum, x) in sums.iter_mut().zip(&x) {
                // SAFETY: a reference is valid to read. Volatile, or the compiler hoists the whole product; a load has
                // ports of its own, so the four operations remain the limit.
                let x = unsafe { std::ptr::from_ref(x).read_volatile() };
                let pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(x, w));
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
            }
        }
        black_box(sums);
        2 * 32 * 8 * iterations
    }

    /// Sixteen chains of vpdpbusd.
    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn vnni(iterations: usize) -> usize {
        let (w, x) = (_mm512_set1_epi8(black_box(3)), _mm512_set1_epi8(black_box(5)));
        let mut sums = [_mm512_setzero_si512(); 16];
        for _ in 0..iterations {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, x, w);
            }
        }
        black_box(sums);
        2 * 64 * 16 * iterations
    }
}
