//! 16 lanes as a plain array: the portable level, which the compiler maps to the baseline's vectors where it can.

use super::{Kernel, LANES, Simd};
use crate::isa::Scalar;

type V = [f32; LANES];
type I = [u32; LANES];

macro_rules! lanes {
    ($i:ident => $e:expr) => {{
        let mut out = [Default::default(); LANES];
        for $i in 0..LANES {
            out[$i] = $e;
        }
        out
    }};
}

macro_rules! tree {
    ($v:ident, $f:expr) => {{
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                $v[i] = $f($v[i], $v[i + width]);
            }
            width /= 2;
        }
        $v[0]
    }};
}

/// Exact widening of an IEEE half: shift the 15 low bits into place and multiply by 2¹¹², which also normalises
/// subnormals; infinities and NaN get the top exponent back.
#[inline(always)]
pub(crate) fn f16_to_f32(h: u16) -> f32 {
    let magnitude = (u32::from(h) & 0x7fff) << 13;
    let scaled = (f32::from_bits(magnitude) * f32::from_bits(0x7780_0000)).to_bits();
    let special = if magnitude >= 0x0f80_0000 { 0x7f80_0000 } else { 0 };
    f32::from_bits(scaled | special | ((u32::from(h) & 0x8000) << 16))
}

impl Simd for Scalar {
    type V = V;
    type I = I;
    const WIDE: bool = false;

    #[inline(always)]
    fn vectorize<K: Kernel>(self, k: K) -> K::Out {
        #[inline(never)]
        fn inner<K: Kernel>(token: Scalar, k: K) -> K::Out {
            k.run(token)
        }
        inner(self, k)
    }
    #[inline(always)]
    fn splat(self, x: f32) -> V {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> V {
        // SAFETY: the caller vouches for 16 readable elements.
        unsafe { p.cast::<V>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: V) {
        // SAFETY: the caller vouches for 16 writable elements.
        unsafe { p.cast::<V>().write_unaligned(v) }
    }
    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        lanes!(i => a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        lanes!(i => a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        lanes!(i => a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        lanes!(i => a[i] / b[i])
    }
    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        lanes!(i => if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn min(self, a: V, b: V) -> V {
        lanes!(i => if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn fma(self, a: V, b: V, c: V) -> V {
        lanes!(i => a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn select_lt(self, a: V, b: V, t: V, f: V) -> V {
        lanes!(i => if a[i] < b[i] { t[i] } else { f[i] })
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> V {
        // SAFETY: the caller vouches for 16 readable elements.
        let h = unsafe { p.cast::<[u16; LANES]>().read_unaligned() };
        lanes!(i => f16_to_f32(h[i]))
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u16) -> V {
        // SAFETY: the caller vouches for 16 readable elements.
        let h = unsafe { p.cast::<[u16; LANES]>().read_unaligned() };
        lanes!(i => f32::from_bits(u32::from(h[i]) << 16))
    }
    #[inline(always)]
    unsafe fn load_u32(self, p: *const u32) -> I {
        // SAFETY: the caller vouches for 16 readable elements.
        unsafe { p.cast::<I>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_u8(self, p: *const u8) -> I {
        // SAFETY: the caller vouches for 16 readable elements.
        let bytes = unsafe { p.cast::<[u8; LANES]>().read_unaligned() };
        lanes!(i => u32::from(bytes[i]))
    }
    #[inline(always)]
    unsafe fn gather(self, p: *const f32, index: I) -> V {
        // SAFETY: the caller vouches for every index.
        lanes!(i => unsafe { *p.add(index[i] as usize) })
    }
    #[inline(always)]
    fn lookup16(self, table: V, index: I) -> V {
        lanes!(i => table[index[i] as usize % LANES])
    }
    #[inline(always)]
    fn splat_u32(self, x: u32) -> I {
        [x; LANES]
    }
    #[inline(always)]
    fn bits(self, v: V) -> I {
        lanes!(i => v[i].to_bits())
    }
    #[inline(always)]
    fn floats(self, a: I) -> V {
        lanes!(i => f32::from_bits(a[i]))
    }
    #[inline(always)]
    fn add_u32(self, a: I, b: I) -> I {
        lanes!(i => a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    fn and(self, a: I, b: I) -> I {
        lanes!(i => a[i] & b[i])
    }
    #[inline(always)]
    fn or(self, a: I, b: I) -> I {
        lanes!(i => a[i] | b[i])
    }
    #[inline(always)]
    fn shl(self, a: I, n: u32) -> I {
        lanes!(i => a[i] << n)
    }
    #[inline(always)]
    fn shr(self, a: I, n: u32) -> I {
        lanes!(i => a[i] >> n)
    }
    #[inline(always)]
    fn to_f32(self, a: I) -> V {
        lanes!(i => a[i] as i32 as f32)
    }
    #[inline(always)]
    fn sum(self, v: V) -> f32 {
        let mut v = v;
        tree!(v, |a: f32, b: f32| a + b)
    }
    #[inline(always)]
    fn maximum(self, v: V) -> f32 {
        let mut v = v;
        tree!(v, |a: f32, b: f32| if a > b { a } else { b })
    }
}
