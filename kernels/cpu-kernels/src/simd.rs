//! The 16-lane vector that every kernel is written against, once, for all instruction sets.
//!
//! A kernel is a generic `#[inline(always)]` function over `S: Simd`; [`dispatch!`] and [`Simd::vectorize`] put it
//! inside a `#[target_feature]` function per level, so that the intrinsics inline. Closures are avoided in kernels:
//! one that is not inlined would fall out of the feature's scope and call every intrinsic.
//!
//! Exactness: AVX2 holds 16 lanes as 2 × 8 and AVX-512 as 1 × 16 with the same lane order and the same reduction
//! tree, and both fuse multiply-add: every f32 kernel gives the same bits on both. Scalar rounds twice in `fma`.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod scalar;

/// Lanes of a vector on every level.
pub(crate) const LANES: usize = 16;

/// A computation that can be compiled for any level.
pub(crate) trait Kernel {
    /// What it returns.
    type Out;
    /// The body; must be `#[inline(always)]`.
    fn run<S: Simd>(self, s: S) -> Self::Out;
}

/// Operations on 16 lanes of f32 (`V`) or u32 (`I`). The token `self` proves that the instructions exist.
///
/// # Safety
/// Methods taking pointers need 16 readable or writable elements there, without alignment.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// 16 f32 lanes.
    type V: Copy;
    /// 16 u32 lanes.
    type I: Copy;
    /// Whether a vector is one of 32 registers (else two of 16): decides register tiles.
    const WIDE: bool;

    /// Runs `k` inside a function of its own that has this level's target features. Never inlined: a driver that
    /// swallows all of its tiles gets worse registers and takes minutes to compile.
    fn vectorize<K: Kernel>(self, k: K) -> K::Out;

    fn splat(self, x: f32) -> Self::V;
    unsafe fn load(self, p: *const f32) -> Self::V;
    unsafe fn store(self, p: *mut f32, v: Self::V);
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// Lane-wise maximum; where a lane of `a` is NaN the result is `b`'s.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// Lane-wise minimum; where a lane of `a` is NaN the result is `b`'s.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a·b + c`, one rounding on levels with FMA, two on scalar.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `t` where `a < b`, else `f`.
    fn select_lt(self, a: Self::V, b: Self::V, t: Self::V, f: Self::V) -> Self::V;
    /// 16 IEEE half bit patterns widened exactly.
    unsafe fn load_f16(self, p: *const u16) -> Self::V;
    /// 16 bfloat16 bit patterns widened exactly.
    unsafe fn load_bf16(self, p: *const u16) -> Self::V;
    unsafe fn load_u32(self, p: *const u32) -> Self::I;
    /// 16 bytes, each in a lane of its own.
    unsafe fn load_u8(self, p: *const u8) -> Self::I;
    /// `p[i]` per lane; every index must be readable.
    unsafe fn gather(self, p: *const f32, i: Self::I) -> Self::V;
    /// Lane `i & 15` of `table`, per lane.
    fn lookup16(self, table: Self::V, i: Self::I) -> Self::V;
    fn splat_u32(self, x: u32) -> Self::I;
    fn bits(self, v: Self::V) -> Self::I;
    fn floats(self, i: Self::I) -> Self::V;
    fn add_u32(self, a: Self::I, b: Self::I) -> Self::I;
    fn and(self, a: Self::I, b: Self::I) -> Self::I;
    fn or(self, a: Self::I, b: Self::I) -> Self::I;
    fn shl(self, a: Self::I, n: u32) -> Self::I;
    fn shr(self, a: Self::I, n: u32) -> Self::I;
    /// Lanes as f32; values below 2³¹.
    fn to_f32(self, a: Self::I) -> Self::V;
    /// The low two bits of each lane as f32.
    #[inline(always)]
    fn code2(self, a: Self::I) -> Self::V {
        self.to_f32(self.and(a, self.splat_u32(3)))
    }
    /// The low three bits of each lane as f32.
    #[inline(always)]
    fn code3(self, a: Self::I) -> Self::V {
        self.to_f32(self.and(a, self.splat_u32(7)))
    }
    /// The low four bits of each lane as f32.
    #[inline(always)]
    fn code4(self, a: Self::I) -> Self::V {
        self.to_f32(self.and(a, self.splat_u32(15)))
    }
    /// The low eight bits of each lane as f32.
    #[inline(always)]
    fn code8(self, a: Self::I) -> Self::V {
        self.to_f32(self.and(a, self.splat_u32(255)))
    }
    /// Sum by the fixed tree (i, i+8), (i, i+4), (i, i+2), (i, i+1).
    fn sum(self, v: Self::V) -> f32;
    /// Largest lane, by the same tree.
    fn maximum(self, v: Self::V) -> f32;

    /// Asks for the cache line at `p`, which need not be readable; nothing on the portable level.
    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        let _ = p;
    }

    /// `out[j·16 + i] = rows[i][j]` for j below `d`.
    #[inline(always)]
    unsafe fn transpose(self, rows: [*const f32; LANES], d: usize, out: *mut f32) {
        for j in 0..d {
            for (i, row) in rows.iter().enumerate() {
                // SAFETY: the caller vouches for d values per row and 16·d of output.
                unsafe { *out.add(j * LANES + i) = *row.add(j) };
            }
        }
    }

    /// 16 signed bytes as f32.
    #[inline(always)]
    unsafe fn load_i8(self, p: *const i8) -> Self::V {
        // SAFETY: the caller vouches for 16 readable elements.
        let lanes: [f32; LANES] = unsafe { p.cast::<[i8; LANES]>().read_unaligned() }.map(f32::from);
        // SAFETY: 16 values.
        unsafe { self.load(lanes.as_ptr()) }
    }
    /// Lane i of vector j becomes lane j of vector i.
    #[inline(always)]
    fn transpose_block(self, rows: [Self::V; LANES]) -> [Self::V; LANES] {
        let (mut from, mut to) = ([[0.0f32; LANES]; LANES], [[0.0f32; LANES]; LANES]);
        for (row, v) in from.iter_mut().zip(rows) {
            // SAFETY: a row has 16 values.
            unsafe { self.store(row.as_mut_ptr(), v) };
        }
        for i in 0..LANES {
            for j in 0..LANES {
                to[i][j] = from[j][i];
            }
        }
        // SAFETY: a row has 16 values.
        to.map(|row| unsafe { self.load(row.as_ptr()) })
    }

    /// Sums of table entries for 64 outputs (see `linear::lut`): per plane and pair of 16-byte tables, an output adds the entry
    /// that the low half of its byte names in the first and the one that the high half names in the second; plane t counts
    /// 2^t; `bias` is taken off.
    ///
    /// # Safety
    /// `planes` holds `bits` planes of 8 × 64 bytes, `tables` 16 tables; sums stay below 2¹⁶.
    #[inline(always)]
    unsafe fn lookup(self, planes: *const u8, tables: *const u8, bits: usize, bias: u32) -> [Self::V; 4] {
        // SAFETY: the caller's promises are passed on.
        let sums = unsafe { crate::linear::lut::lookup_scalar(planes, tables, bits, bias) };
        let mut out = [self.splat(0.0); 4];
        for (out, sums) in out.iter_mut().zip(sums.chunks_exact(LANES)) {
            // SAFETY: 16 values.
            *out = unsafe { self.load(sums.as_ptr()) };
        }
        out
    }

    /// The first `n` lanes from `p`, the others `fill`.
    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize, fill: f32) -> Self::V {
        let mut lanes = [fill; LANES];
        // SAFETY: the caller vouches for n ≤ 16 readable elements.
        unsafe {
            std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n);
            self.load(lanes.as_ptr())
        }
    }
    /// Writes the first `n` lanes to `p`.
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize, v: Self::V) {
        let mut lanes = [0.0; LANES];
        // SAFETY: the caller vouches for n ≤ 16 writable elements.
        unsafe {
            self.store(lanes.as_mut_ptr(), v);
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), p, n);
        }
    }
}

/// `dispatch! { pub fn name(x: &[f32], y: &mut [f32]) -> R = generic }` defines `name(cpu, x, y)` that runs
/// `generic(token, x, y)` compiled for the level of `cpu`.
macro_rules! dispatch {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $generic:path) => {
        $(#[$meta])*
        $vis fn $name(cpu: &$crate::cpu::Cpu, $($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2(token: $crate::isa::Avx2, $($arg: $ty),*) $(-> $ret)? {
                $generic(token, $($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
            fn avx512(token: $crate::isa::Avx512, $($arg: $ty),*) $(-> $ret)? {
                $generic(token, $($arg),*)
            }
            match cpu.token() {
                // SAFETY: the token proves that the enabled features are present.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Token::Avx2(token) => unsafe { avx2(token, $($arg),*) },
                // SAFETY: the token proves that the enabled features are present.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Token::Avx512(token) => unsafe { avx512(token, $($arg),*) },
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Token::Scalar(token) => $generic(token, $($arg),*),
                #[cfg(not(target_arch = "x86_64"))]
                _ => $generic($crate::isa::Scalar, $($arg),*),
            }
        }
    };
}
pub(crate) use dispatch;

/// Runs `k` compiled for the level of `cpu`.
pub(crate) fn run<K: Kernel>(cpu: &crate::Cpu, k: K) -> K::Out {
    match cpu.token() {
        #[cfg(target_arch = "x86_64")]
        crate::isa::Token::Avx2(token) => token.vectorize(k),
        #[cfg(target_arch = "x86_64")]
        crate::isa::Token::Avx512(token) => token.vectorize(k),
        #[cfg(target_arch = "x86_64")]
        crate::isa::Token::Scalar(token) => token.vectorize(k),
        #[cfg(not(target_arch = "x86_64"))]
        _ => crate::isa::Scalar.vectorize(k),
    }
}
