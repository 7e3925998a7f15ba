//! One instruction at a time against Rust arithmetic: a kernel loads three operands per thread, executes it and stores the result.

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::device::{Device, pointer};

const THREADS: usize = 256;

/// Runs `text`, which makes `{d}` of `{a}`, `{b}`, `{c}`: registers of 64 bits, or of 32 whose operands are the low halves.
fn run(text: &str, wide: bool, operands: &[[u64; 3]]) -> Vec<u64> {
    let (file, kind, bytes) = if wide { ("%rd", "b64", 8) } else { ("%r", "b32", 4) };
    let body = ["{a}", "{b}", "{c}", "{d}"]
        .iter()
        .enumerate()
        .fold(text.to_owned(), |body, (index, name)| body.replace(name, &format!("{file}{}", index + 10)));
    let ptx = format!(
        ".version 9.0\n.target sm_90a\n.address_size 64\n.visible .entry one(.param .u64 x, .param .u64 y)\n{{\n\
         .reg .pred %p<4>;\n.reg .b16 %h<8>;\n.reg .b32 %r<20>;\n.reg .b64 %rd<20>;\n.reg .f32 %f<4>;\n.reg .f64 %fd<4>;\n\
         ld.param.u64 %rd1, [x];\nld.param.u64 %rd2, [y];\nmov.u32 %r1, %tid.x;\n\
         mad.wide.u32 %rd3, %r1, {}, %rd1;\nmad.wide.u32 %rd4, %r1, {bytes}, %rd2;\n\
         ld.global.{kind} {file}10, [%rd3];\nld.global.{kind} {file}11, [%rd3+{bytes}];\n\
         ld.global.{kind} {file}12, [%rd3+{}];\nmov.{kind} {file}13, 0;\n{body}\nst.global.{kind} [%rd4], {file}13;\nret;\n}}\n",
        3 * bytes,
        2 * bytes,
    );
    let mut device = Device::new(&ptx);
    let flat: Vec<u8> = operands.iter().flatten().flat_map(|value| value.to_le_bytes()[..bytes].to_vec()).collect();
    let (input, output) = (device.bytes(&flat), device.memory.alloc(bytes * operands.len()));
    let threads = [operands.len() as u32, 1, 1];
    device
        .run("one", [1, 1, 1], threads, 0, &[pointer(input), pointer(output)])
        .unwrap_or_else(|e| panic!("{text}: {e}"));
    let mut all = vec![0; bytes * operands.len()];
    device.memory.read(output, &mut all).unwrap();
    all.chunks_exact(bytes)
        .map(|value| {
            let mut whole = [0; 8];
            whole[..bytes].copy_from_slice(value);
            u64::from_le_bytes(whole)
        })
        .collect()
}

/// Random bits, and the values at the ends among them.
fn bits(seed: u64) -> Vec<[u64; 3]> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let edges = [0, 1, 2, 31, 32, 33, 63, 64, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, i64::MIN as u64, u64::MAX];
    let mut one = || match random.random_range(0..3u32) {
        0 => edges[random.random_range(0..edges.len())],
        1 => random.random_range(0..100u64),
        _ => random.random(),
    };
    (0..THREADS).map(|_| [one(), one(), one()]).collect()
}

/// Bits of f32: of all exponents, with zeros, infinities, subnormal numbers and no-numbers.
fn singles(seed: u64) -> Vec<[u64; 3]> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let edges =
        [0.0f32, -0.0, 1.0, -1.5, f32::MAX, f32::MIN_POSITIVE, 1e-40, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
    let mut one = || match random.random_range(0..4u32) {
        0 => edges[random.random_range(0..edges.len())].to_bits() as u64,
        1 => random.random::<u32>() as u64,
        _ => random.random_range(-4.0f32..4.0).to_bits() as u64,
    };
    (0..THREADS).map(|_| [one(), one(), one()]).collect()
}

fn check32(text: &str, expected: impl Fn(u32, u32, u32) -> u32) {
    let operands = bits(text.len() as u64);
    for (found, [a, b, c]) in run(text, false, &operands).into_iter().zip(&operands) {
        let wanted = expected(*a as u32, *b as u32, *c as u32);
        assert_eq!(found as u32, wanted, "{text} of {a:#x}, {b:#x}, {c:#x}");
    }
}

fn check64(text: &str, expected: impl Fn(u64, u64, u64) -> u64) {
    let operands = bits(text.len() as u64);
    for (found, [a, b, c]) in run(text, true, &operands).into_iter().zip(&operands) {
        assert_eq!(found, expected(*a, *b, *c), "{text} of {a:#x}, {b:#x}, {c:#x}");
    }
}

/// Equal bits, or both no number.
fn check_single(text: &str, expected: impl Fn(f32, f32, f32) -> f32) {
    let operands = singles(text.len() as u64);
    for (found, [a, b, c]) in run(text, false, &operands).into_iter().zip(&operands) {
        let [a, b, c] = [a, b, c].map(|bits| f32::from_bits(*bits as u32));
        let (found, wanted) = (f32::from_bits(found as u32), expected(a, b, c));
        let same = found.to_bits() == wanted.to_bits() || found.is_nan() && wanted.is_nan();
        assert!(same, "{text} of {a:e}, {b:e}, {c:e}: {found:e} is not {wanted:e}");
    }
}

#[test]
fn integers_of_32_bits() {
    check32("add.s32 {d}, {a}, {b};", |a, b, _| a.wrapping_add(b));
    check32("sub.s32 {d}, {a}, {b};", |a, b, _| a.wrapping_sub(b));
    check32("add.sat.s32 {d}, {a}, {b};", |a, b, _| (a as i32).saturating_add(b as i32) as u32);
    check32("mul.lo.s32 {d}, {a}, {b};", |a, b, _| a.wrapping_mul(b));
    check32("mul.hi.u32 {d}, {a}, {b};", |a, b, _| ((a as u64 * b as u64) >> 32) as u32);
    check32("mul.hi.s32 {d}, {a}, {b};", |a, b, _| ((a as i32 as i64 * b as i32 as i64) >> 32) as u32);
    check32("mad.lo.s32 {d}, {a}, {b}, {c};", |a, b, c| a.wrapping_mul(b).wrapping_add(c));
    check32("max.s32 {d}, {a}, {b};", |a, b, _| (a as i32).max(b as i32) as u32);
    check32("min.relu.s32 {d}, {a}, {b};", |a, b, _| (a as i32).min(b as i32).max(0) as u32);
    check32("min.u32 {d}, {a}, {b};", |a, b, _| a.min(b));
    check32("abs.s32 {d}, {a};", |a, _, _| (a as i32).wrapping_abs() as u32);
    check32("or.b32 {b}, {b}, 1;\ndiv.s32 {d}, {a}, {b};", |a, b, _| (a as i32).wrapping_div((b | 1) as i32) as u32);
    check32("or.b32 {b}, {b}, 1;\nrem.u32 {d}, {a}, {b};", |a, b, _| a % (b | 1));
    check32("shl.b32 {d}, {a}, {b};", |a, b, _| a.checked_shl(b).unwrap_or(0));
    check32("shr.u32 {d}, {a}, {b};", |a, b, _| a.checked_shr(b).unwrap_or(0));
    check32("shr.s32 {d}, {a}, {b};", |a, b, _| ((a as i32) >> b.min(31)) as u32);
    check32("shf.l.wrap.b32 {d}, {a}, {b}, {c};", |a, b, c| {
        (((((b as u64) << 32) | a as u64) << (c & 31)) >> 32) as u32
    });
    check32("shf.r.clamp.b32 {d}, {a}, {b}, {c};", |a, b, c| ((((b as u64) << 32) | a as u64) >> c.min(32)) as u32);
    check32("clz.b32 {d}, {a};", |a, _, _| a.leading_zeros());
    check32("popc.b32 {d}, {a};", |a, _, _| a.count_ones());
    check32("brev.b32 {d}, {a};", |a, _, _| a.reverse_bits());
    check32("bfind.u32 {d}, {a};", |a, _, _| a.checked_ilog2().unwrap_or(u32::MAX));
    check32("lop3.b32 {d}, {a}, {b}, {c}, 0xEA;", |a, b, c| (a & b) | c);
    check32("lop3.b32 {d}, {a}, {b}, {c}, 0x96;", |a, b, c| a ^ b ^ c);
    check32("bfe.u32 {d}, {a}, 5, 9;", |a, _, _| (a >> 5) & 0x1ff);
    check32("bfe.s32 {d}, {a}, 5, 9;", |a, _, _| ((a as i32) << 18 >> 23) as u32);
    check32("bfe.s32 {d}, {a}, 28, 9;", |a, _, _| ((a as i32) >> 28) as u32);
    check32("bfi.b32 {d}, {a}, {b}, 4, 8;", |a, b, _| (b & !0xff0) | ((a << 4) & 0xff0));
    check32("prmt.b32 {d}, {a}, {b}, 0x5410;", |a, b, _| (a & 0xffff) | (b << 16));
    check32("prmt.b32 {d}, {a}, {b}, 0x7632;", |a, b, _| (a >> 16) | (b & 0xffff_0000));
    check32("dp4a.s32.s32 {d}, {a}, {b}, {c};", |a, b, c| {
        let pairs = a.to_le_bytes().into_iter().zip(b.to_le_bytes());
        pairs.fold(c, |sum, (x, y)| sum.wrapping_add((x as i8 as i32 * y as i8 as i32) as u32))
    });
    check32("add.cc.u32 {b}, {a}, {b};\naddc.u32 {d}, {c}, 0;", |a, b, c| {
        c.wrapping_add(a.overflowing_add(b).1 as u32)
    });
    check32("sub.cc.u32 {b}, {a}, {b};\nsubc.u32 {d}, {c}, 0;", |a, b, c| c.wrapping_sub((a < b) as u32));
}

#[test]
fn integers_of_16_and_64_bits_and_between() {
    check64("add.s64 {d}, {a}, {b};", |a, b, _| a.wrapping_add(b));
    check64("mul.lo.s64 {d}, {a}, {b};", |a, b, _| a.wrapping_mul(b));
    check64("mul.hi.u64 {d}, {a}, {b};", |a, b, _| ((a as u128 * b as u128) >> 64) as u64);
    check64("shl.b64 {d}, {a}, 7;", |a, _, _| a << 7);
    check64("shr.s64 {d}, {a}, 70;", |a, _, _| ((a as i64) >> 63) as u64);
    check64("or.b64 {b}, {b}, 1;\nrem.s64 {d}, {a}, {b};", |a, b, _| (a as i64).wrapping_rem((b | 1) as i64) as u64);
    check64("max.s64 {d}, {a}, {b};", |a, b, _| (a as i64).max(b as i64) as u64);
    let both = "cvt.u32.u64 %r2, {a};\ncvt.u32.u64 %r3, {b};\n";
    check64(&format!("{both}mul.wide.s32 {{d}}, %r2, %r3;"), |a, b, _| (a as i32 as i64 * b as i32 as i64) as u64);
    check64(&format!("{both}mad.wide.u32 {{d}}, %r2, %r3, {{c}};"), |a, b, c| {
        (a as u32 as u64 * b as u32 as u64).wrapping_add(c)
    });
    check64(&format!("{both}mov.b64 {{d}}, {{%r3, %r2}};"), |a, b, _| (a << 32) | (b & 0xffff_ffff));
    check64("mov.b64 {%r2, %r3}, {a};\ncvt.s64.s32 {d}, %r3;", |a, _, _| (a >> 32) as i32 as i64 as u64);
    check64(
        "cvt.u16.u64 %h1, {a};\ncvt.u16.u64 %h2, {b};\nmul.wide.s16 %r2, %h1, %h2;\ncvt.s64.s32 {d}, %r2;",
        |a, b, _| (a as i16 as i64 * b as i16 as i64) as u64,
    );
    check64("cvt.u16.u64 %h1, {a};\nshr.s16 %h2, %h1, 3;\ncvt.s64.s16 {d}, %h2;", |a, _, _| {
        ((a as i16) >> 3) as i64 as u64
    });
    check64("cvt.sat.s8.s64 {d}, {a};", |a, _, _| (a as i64).clamp(-128, 127) as u64);
    check64("cvt.sat.u32.s64 %r2, {a};\ncvt.u64.u32 {d}, %r2;", |a, _, _| (a as i64).clamp(0, 0xffff_ffff) as u64);
}

#[test]
fn comparisons_and_predicates() {
    check32(
        "setp.lt.s32 %p1, {a}, {b};\nselp.b32 {d}, {c}, 7, %p1;",
        |a, b, c| {
            if (a as i32) < b as i32 { c } else { 7 }
        },
    );
    check32("setp.hs.u32 %p1|%p2, {a}, {b};\nselp.u32 {d}, 1, 0, %p2;", |a, b, _| (a < b) as u32);
    check32("setp.ne.s32 %p1, {a}, 0;\nsetp.gt.and.u32 %p2, {b}, {c}, %p1;\nselp.u32 {d}, 1, 0, %p2;", |a, b, c| {
        (a != 0 && b > c) as u32
    });
    check32(
        "setp.eq.s32 %p1, {a}, 1;\nsetp.lt.u32 %p2, {b}, 50;\nxor.pred %p3, %p1, %p2;\n@!%p3 mov.u32 {d}, 5;",
        |a, b, _| if (a == 1) != (b < 50) { 0 } else { 5 },
    );
    let float = |text: &str, holds: fn(f32, f32) -> bool| {
        let text = format!("setp.{text}.f32 %p1, {{a}}, {{b}};\nselp.f32 {{d}}, 0f3F800000, 0f00000000, %p1;");
        check_single(&text, |a, b, _| holds(a, b) as u32 as f32);
    };
    float("lt", |a, b| a < b);
    float("ne", |a, b| !a.is_nan() && !b.is_nan() && a != b);
    float("equ", |a, b| a.is_nan() || b.is_nan() || a == b);
    float("geu", |a, b| a.is_nan() || b.is_nan() || a >= b);
    float("nan", |a, b| a.is_nan() || b.is_nan());
}

#[test]
fn floats_of_32_and_64_bits() {
    check_single("add.f32 {d}, {a}, {b};", |a, b, _| a + b);
    check_single("mul.rn.f32 {d}, {a}, {b};", |a, b, _| a * b);
    check_single("fma.rn.f32 {d}, {a}, {b}, {c};", |a, b, c| a.mul_add(b, c));
    check_single("div.rn.f32 {d}, {a}, {b};", |a, b, _| a / b);
    check_single("sqrt.rn.f32 {d}, {a};", |a, _, _| a.sqrt());
    check_single("neg.f32 {d}, {a};", |a, _, _| -a);
    check_single("add.sat.f32 {d}, {a}, {b};", |a, b, _| if a + b > 0.0 { (a + b).min(1.0) } else { 0.0 });
    let flush = |x: f32| if x.is_subnormal() { 0f32.copysign(x) } else { x };
    check_single("mul.ftz.f32 {d}, {a}, {b};", |a, b, _| flush(flush(a) * flush(b)));
    check_single("max.f32 {d}, {a}, {b};", |a, b, _| match (a.is_nan(), b.is_nan()) {
        (true, _) => b,
        (_, true) => a,
        _ if a == b => f32::from_bits(a.to_bits() & b.to_bits()),
        _ => {
            if a > b {
                a
            } else {
                b
            }
        }
    });
    check_single("max.NaN.f32 {d}, {a}, {b};", |a, b, _| {
        if a.is_nan() || b.is_nan() {
            f32::NAN
        } else if a == b {
            f32::from_bits(a.to_bits() & b.to_bits())
        } else if a > b {
            a
        } else {
            b
        }
    });
    check_single("cvt.rni.f32.f32 {d}, {a};", |a, _, _| a.round_ties_even());
    check_single("cvt.rmi.f32.f32 {d}, {a};", |a, _, _| a.floor());
    check_single("ex2.approx.ftz.f32 {d}, {a};", |a, _, _| flush((flush(a) as f64).exp2() as f32));
    check_single("copysign.f32 {d}, {a}, {b};", |a, b, _| b.copysign(a));
    check_single("add.rm.f32 {d}, {a}, {b};", |a, b, _| {
        let (near, a, b) = (a + b, a as f64, b as f64);
        // the sum in f64, and what it lacks
        let sum = a + b;
        let of_b = sum - a;
        let lacks = (a - (sum - of_b)) + (b - of_b);
        let above = near as f64 > sum || near as f64 == sum && lacks < 0.0;
        if above { near.next_down() } else { near }
    });
    check32("cvt.rzi.s32.f32 {d}, {a};", |a, _, _| f32::from_bits(a) as i32 as u32);
    check32("cvt.rni.u32.f32 {d}, {a};", |a, _, _| f32::from_bits(a).round_ties_even() as u32);
    check32("cvt.rn.f32.s32 {d}, {a};", |a, _, _| (a as i32 as f32).to_bits());
    check32("cvt.rn.f32.u32 {d}, {a};", |a, _, _| (a as f32).to_bits());
    check64("cvt.rn.f64.s64 {d}, {a};", |a, _, _| (a as i64 as f64).to_bits());
    check64("cvt.rn.f64.u64 %fd1, {a};\ncvt.rn.f64.u64 %fd2, {b};\nfma.rn.f64 {d}, %fd1, %fd2, %fd1;", |a, b, _| {
        (a as f64).mul_add(b as f64, a as f64).to_bits()
    });
}
