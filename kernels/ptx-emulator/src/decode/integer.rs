//! Integer and bit arithmetic. 16-bit values live in the low half of a 32-bit slot and are kept zero-extended.

use super::Arithmetic;
use super::lanes::{one32, one64, three32, three64, two32, two64};

/// What may stand between name and type.
const SUFFIXES: [&str; 16] = [
    "lo", "hi", "wide", "sat", "relu", "shiftamt", "l", "r", "wrap", "clamp", "f4e", "b4e", "rc8", "ecl", "ecr", "rc16",
];

fn s16(x: u32) -> i32 {
    x as u16 as i16 as i32
}

/// The function of an integer instruction, from its name and suffixes; None where it is no integer instruction.
pub fn arithmetic(parts: &[&str]) -> Option<Arithmetic> {
    let kind = *parts.last()?;
    let has = |name: &str| parts.contains(&name);
    if !parts[1..].iter().all(|part| *part == kind || SUFFIXES.contains(part)) || has("relu") && kind != "s32" {
        return None;
    }
    if has("wide") {
        return wide(parts[0], kind);
    }
    match kind {
        "u16" | "s16" | "b16" => sixteen(parts[0], kind == "s16", &has),
        "u32" | "s32" | "b32" => thirty_two(parts[0], kind == "s32", &has),
        "u64" | "s64" | "b64" => sixty_four(parts[0], kind == "s64", &has),
        _ => None,
    }
}

fn wide(name: &str, kind: &str) -> Option<Arithmetic> {
    Some(match (name, kind) {
        ("mul", "s16") => two32!(|x, y| s16(x).wrapping_mul(s16(y)) as u32).into(),
        ("mul", "u16") => two32!(|x, y| (x & 0xffff).wrapping_mul(y & 0xffff)).into(),
        ("mad", "s16") => three32!(|x, y, z| (s16(x).wrapping_mul(s16(y)) as u32).wrapping_add(z)).into(),
        ("mad", "u16") => three32!(|x, y, z| (x & 0xffff).wrapping_mul(y & 0xffff).wrapping_add(z)).into(),
        ("mul", "s32") => two64!(|x, y| (x as i32 as i64 * y as i32 as i64) as u64).into(),
        ("mul", "u32") => two64!(|x, y| x as u32 as u64 * (y as u32 as u64)).into(),
        ("mad", "s32") => three64!(|x, y, z| ((x as i32 as i64 * y as i32 as i64) as u64).wrapping_add(z)).into(),
        ("mad", "u32") => three64!(|x, y, z| (x as u32 as u64 * (y as u32 as u64)).wrapping_add(z)).into(),
        _ => return None,
    })
}

fn sixteen(name: &str, signed: bool, has: &dyn Fn(&str) -> bool) -> Option<Arithmetic> {
    Some(match (name, signed) {
        ("add", _) => two32!(|x, y| x.wrapping_add(y) & 0xffff).into(),
        ("sub", _) => two32!(|x, y| x.wrapping_sub(y) & 0xffff).into(),
        ("mul", true) if has("hi") => two32!(|x, y| ((s16(x) * s16(y)) >> 16) as u32 & 0xffff).into(),
        ("mul", false) if has("hi") => two32!(|x, y| ((x & 0xffff) * (y & 0xffff)) >> 16).into(),
        ("mul", _) => two32!(|x, y| x.wrapping_mul(y) & 0xffff).into(),
        ("mad", _) => three32!(|x, y, z| x.wrapping_mul(y).wrapping_add(z) & 0xffff).into(),
        ("div", true) => two32!(|x, y| s16(x).checked_div(s16(y)).unwrap_or(-1) as u32 & 0xffff).into(),
        ("div", false) => two32!(|x, y| (x & 0xffff).checked_div(y & 0xffff).unwrap_or(0xffff)).into(),
        ("rem", true) => two32!(|x, y| s16(x).checked_rem(s16(y)).unwrap_or(-1) as u32 & 0xffff).into(),
        ("rem", false) => two32!(|x, y| (x & 0xffff).checked_rem(y & 0xffff).unwrap_or(0xffff)).into(),
        ("min", true) => two32!(|x, y| s16(x).min(s16(y)) as u32 & 0xffff).into(),
        ("min", false) => two32!(|x, y| (x & 0xffff).min(y & 0xffff)).into(),
        ("max", true) => two32!(|x, y| s16(x).max(s16(y)) as u32 & 0xffff).into(),
        ("max", false) => two32!(|x, y| (x & 0xffff).max(y & 0xffff)).into(),
        ("abs", _) => one32!(|x| s16(x).unsigned_abs() & 0xffff).into(),
        ("neg", _) => one32!(|x| x.wrapping_neg() & 0xffff).into(),
        ("not", _) => one32!(|x| !x & 0xffff).into(),
        ("mov", _) => one32!(|x| x & 0xffff).into(),
        ("and", _) => two32!(|x, y| x & y & 0xffff).into(),
        ("or", _) => two32!(|x, y| (x | y) & 0xffff).into(),
        ("xor", _) => two32!(|x, y| (x ^ y) & 0xffff).into(),
        ("cnot", _) => one32!(|x| (x & 0xffff == 0) as u32).into(),
        ("shl", _) => two32!(|x, y| if y > 15 { 0 } else { x << y & 0xffff }).into(),
        ("shr", true) => two32!(|x, y| (s16(x) >> y.min(15)) as u32 & 0xffff).into(),
        ("shr", false) => two32!(|x, y| if y > 15 { 0 } else { (x & 0xffff) >> y }).into(),
        _ => return None,
    })
}

fn thirty_two(name: &str, signed: bool, has: &dyn Fn(&str) -> bool) -> Option<Arithmetic> {
    Some(match (name, signed) {
        ("add", true) if has("sat") => two32!(|x, y| (x as i32).saturating_add(y as i32) as u32).into(),
        ("sub", true) if has("sat") => two32!(|x, y| (x as i32).saturating_sub(y as i32) as u32).into(),
        ("add", _) => two32!(|x, y| x.wrapping_add(y)).into(),
        ("sub", _) => two32!(|x, y| x.wrapping_sub(y)).into(),
        ("mul", true) if has("hi") => two32!(|x, y| ((x as i32 as i64 * y as i32 as i64) >> 32) as u32).into(),
        ("mul", false) if has("hi") => two32!(|x, y| ((x as u64 * y as u64) >> 32) as u32).into(),
        ("mul", _) => two32!(|x, y| x.wrapping_mul(y)).into(),
        ("mad", true) if has("hi") => {
            three32!(|x, y, z| (((x as i32 as i64 * y as i32 as i64) >> 32) as u32).wrapping_add(z)).into()
        }
        ("mad", false) if has("hi") => {
            three32!(|x, y, z| (((x as u64 * y as u64) >> 32) as u32).wrapping_add(z)).into()
        }
        ("mad", _) => three32!(|x, y, z| x.wrapping_mul(y).wrapping_add(z)).into(),
        ("mul24", true) => two32!(|x, y| ((x << 8) as i32 >> 8).wrapping_mul((y << 8) as i32 >> 8) as u32).into(),
        ("mul24", false) => two32!(|x, y| (x & 0xff_ffff).wrapping_mul(y & 0xff_ffff)).into(),
        ("div", true) => two32!(|x, y| if y == 0 { !0 } else { (x as i32).wrapping_div(y as i32) as u32 }).into(),
        ("div", false) => two32!(|x, y| x.checked_div(y).unwrap_or(!0)).into(),
        ("rem", true) => two32!(|x, y| if y == 0 { x } else { (x as i32).wrapping_rem(y as i32) as u32 }).into(),
        ("rem", false) => two32!(|x, y| x.checked_rem(y).unwrap_or(x)).into(),
        ("min", true) if has("relu") => two32!(|x, y| (x as i32).min(y as i32).max(0) as u32).into(),
        ("max", true) if has("relu") => two32!(|x, y| (x as i32).max(y as i32).max(0) as u32).into(),
        ("min", true) => two32!(|x, y| (x as i32).min(y as i32) as u32).into(),
        ("min", false) => two32!(|x, y| x.min(y)).into(),
        ("max", true) => two32!(|x, y| (x as i32).max(y as i32) as u32).into(),
        ("max", false) => two32!(|x, y| x.max(y)).into(),
        ("sad", true) => three32!(|x, y, z| (x as i32).abs_diff(y as i32).wrapping_add(z)).into(),
        ("sad", false) => three32!(|x, y, z| x.abs_diff(y).wrapping_add(z)).into(),
        ("abs", _) => one32!(|x| (x as i32).wrapping_abs() as u32).into(),
        ("neg", _) => one32!(|x| x.wrapping_neg()).into(),
        ("not", _) => one32!(|x| !x).into(),
        ("mov", _) => one32!(|x| x).into(),
        ("and", _) => two32!(|x, y| x & y).into(),
        ("or", _) => two32!(|x, y| x | y).into(),
        ("xor", _) => two32!(|x, y| x ^ y).into(),
        ("cnot", _) => one32!(|x| (x == 0) as u32).into(),
        ("shl", _) => two32!(|x, y| if y > 31 { 0 } else { x << y }).into(),
        ("shr", true) => two32!(|x, y| ((x as i32) >> y.min(31)) as u32).into(),
        ("shr", false) => two32!(|x, y| if y > 31 { 0 } else { x >> y }).into(),
        ("shf", _) => return funnel(has),
        ("clz", _) => one32!(|x| x.leading_zeros()).into(),
        ("popc", _) => one32!(|x| x.count_ones()).into(),
        ("brev", _) => one32!(|x| x.reverse_bits()).into(),
        ("bfind", true) if has("shiftamt") => {
            one32!(|x| (x ^ ((x as i32) >> 31) as u32).checked_ilog2().map_or(!0, |h| 31 - h)).into()
        }
        ("bfind", false) if has("shiftamt") => one32!(|x| x.checked_ilog2().map_or(!0, |h| 31 - h)).into(),
        ("bfind", true) => one32!(|x| (x ^ ((x as i32) >> 31) as u32).checked_ilog2().unwrap_or(!0)).into(),
        ("bfind", false) => one32!(|x| x.checked_ilog2().unwrap_or(!0)).into(),
        ("bfe", true) => three32!(|x, y, z| extract_signed(x as i32 as i64, 32, y, z) as u32).into(),
        ("bfe", false) => three32!(|x, y, z| extract(x as u64, y, z) as u32).into(),
        ("prmt", _) => return permute(has),
        _ => return None,
    })
}

fn funnel(has: &dyn Fn(&str) -> bool) -> Option<Arithmetic> {
    Some(match (has("l"), has("wrap")) {
        (true, true) => three32!(|x, y, z| ((((y as u64) << 32 | x as u64) << (z & 31)) >> 32) as u32).into(),
        (true, false) => three32!(|x, y, z| ((((y as u64) << 32 | x as u64) << z.min(32)) >> 32) as u32).into(),
        (false, true) => three32!(|x, y, z| (((y as u64) << 32 | x as u64) >> (z & 31)) as u32).into(),
        (false, false) => three32!(|x, y, z| (((y as u64) << 32 | x as u64) >> z.min(32)) as u32).into(),
    })
}

/// `len` bits from `at`, zero-extended.
fn extract(x: u64, at: u32, len: u32) -> u64 {
    let (at, len) = (at & 0xff, len & 0xff);
    if at > 63 || len == 0 {
        return 0;
    }
    let low = x >> at;
    if len > 63 { low } else { low & ((1 << len) - 1) }
}

/// `len` bits from `at`, sign-extended; positions beyond the value repeat its sign.
fn extract_signed(x: i64, width: u32, at: u32, len: u32) -> i64 {
    let (at, len) = (at & 0xff, len & 0xff);
    if len == 0 {
        return 0;
    }
    let low = x >> at.min(63);
    let kept = len.min(width.saturating_sub(at)).max(1);
    if at >= width {
        return x >> 63;
    }
    low << (64 - kept) >> (64 - kept)
}

/// Four bytes chosen among the eight of two registers.
fn choose(x: u32, y: u32, selector: u32) -> u32 {
    let bytes = ((y as u64) << 32 | x as u64).to_le_bytes();
    let mut out = 0;
    for place in 0..4 {
        let nibble = selector >> (4 * place) & 15;
        let byte = bytes[nibble as usize & 7];
        let byte = if nibble & 8 != 0 { ((byte as i8) >> 7) as u8 } else { byte };
        out |= (byte as u32) << (8 * place);
    }
    out
}

fn permute(has: &dyn Fn(&str) -> bool) -> Option<Arithmetic> {
    const F4E: [u32; 4] = [0x3210, 0x4321, 0x5432, 0x6543];
    const B4E: [u32; 4] = [0x5670, 0x6701, 0x7012, 0x0123];
    const RC8: [u32; 4] = [0x0000, 0x1111, 0x2222, 0x3333];
    const ECL: [u32; 4] = [0x3210, 0x3211, 0x3222, 0x3333];
    const ECR: [u32; 4] = [0x0000, 0x1110, 0x2210, 0x3210];
    const RC16: [u32; 4] = [0x1010, 0x3232, 0x1010, 0x3232];
    Some(if has("f4e") {
        three32!(|x, y, z| choose(x, y, F4E[z as usize & 3])).into()
    } else if has("b4e") {
        three32!(|x, y, z| choose(x, y, B4E[z as usize & 3])).into()
    } else if has("rc8") {
        three32!(|x, y, z| choose(x, y, RC8[z as usize & 3])).into()
    } else if has("ecl") {
        three32!(|x, y, z| choose(x, y, ECL[z as usize & 3])).into()
    } else if has("ecr") {
        three32!(|x, y, z| choose(x, y, ECR[z as usize & 3])).into()
    } else if has("rc16") {
        three32!(|x, y, z| choose(x, y, RC16[z as usize & 3])).into()
    } else {
        three32!(|x, y, z| choose(x, y, z)).into()
    })
}

fn sixty_four(name: &str, signed: bool, has: &dyn Fn(&str) -> bool) -> Option<Arithmetic> {
    Some(match (name, signed) {
        ("add", _) => two64!(|x, y| x.wrapping_add(y)).into(),
        ("sub", _) => two64!(|x, y| x.wrapping_sub(y)).into(),
        ("mul", true) if has("hi") => two64!(|x, y| ((x as i64 as i128 * y as i64 as i128) >> 64) as u64).into(),
        ("mul", false) if has("hi") => two64!(|x, y| ((x as u128 * y as u128) >> 64) as u64).into(),
        ("mul", _) => two64!(|x, y| x.wrapping_mul(y)).into(),
        ("mad", true) if has("hi") => {
            three64!(|x, y, z| (((x as i64 as i128 * y as i64 as i128) >> 64) as u64).wrapping_add(z)).into()
        }
        ("mad", false) if has("hi") => {
            three64!(|x, y, z| (((x as u128 * y as u128) >> 64) as u64).wrapping_add(z)).into()
        }
        ("mad", _) => three64!(|x, y, z| x.wrapping_mul(y).wrapping_add(z)).into(),
        ("div", true) => two64!(|x, y| if y == 0 { !0 } else { (x as i64).wrapping_div(y as i64) as u64 }).into(),
        ("div", false) => two64!(|x, y| x.checked_div(y).unwrap_or(!0)).into(),
        ("rem", true) => two64!(|x, y| if y == 0 { x } else { (x as i64).wrapping_rem(y as i64) as u64 }).into(),
        ("rem", false) => two64!(|x, y| x.checked_rem(y).unwrap_or(x)).into(),
        ("min", true) => two64!(|x, y| (x as i64).min(y as i64) as u64).into(),
        ("min", false) => two64!(|x, y| x.min(y)).into(),
        ("max", true) => two64!(|x, y| (x as i64).max(y as i64) as u64).into(),
        ("max", false) => two64!(|x, y| x.max(y)).into(),
        ("abs", _) => one64!(|x| (x as i64).wrapping_abs() as u64).into(),
        ("neg", _) => one64!(|x| x.wrapping_neg()).into(),
        ("not", _) => one64!(|x| !x).into(),
        ("mov", _) => one64!(|x| x).into(),
        ("and", _) => two64!(|x, y| x & y).into(),
        ("or", _) => two64!(|x, y| x | y).into(),
        ("xor", _) => two64!(|x, y| x ^ y).into(),
        ("cnot", _) => one64!(|x| (x == 0) as u64).into(),
        ("shl", _) => two64!(|x, y| if y > 63 { 0 } else { x << y }).into(),
        ("shr", true) => two64!(|x, y| ((x as i64) >> y.min(63)) as u64).into(),
        ("shr", false) => two64!(|x, y| if y > 63 { 0 } else { x >> y }).into(),
        ("clz", _) => one64!(|x| x.leading_zeros() as u64).into(),
        ("popc", _) => one64!(|x| x.count_ones() as u64).into(),
        ("brev", _) => one64!(|x| x.reverse_bits()).into(),
        ("bfind", false) if has("shiftamt") => {
            one64!(|x| x.checked_ilog2().map_or(u32::MAX as u64, |h| 63 - h as u64)).into()
        }
        ("bfind", true) if has("shiftamt") => {
            one64!(|x| (x ^ ((x as i64) >> 63) as u64).checked_ilog2().map_or(u32::MAX as u64, |h| 63 - h as u64))
                .into()
        }
        ("bfind", false) => one64!(|x| x.checked_ilog2().unwrap_or(u32::MAX) as u64).into(),
        ("bfind", true) => {
            one64!(|x| (x ^ ((x as i64) >> 63) as u64).checked_ilog2().unwrap_or(u32::MAX) as u64).into()
        }
        ("bfe", true) => three64!(|x, y, z| extract_signed(x as i64, 64, y as u32, z as u32) as u64).into(),
        ("bfe", false) => three64!(|x, y, z| extract(x, y as u32, z as u32)).into(),
        _ => return None,
    })
}

/// Bits of `x` inserted into `y`.
pub fn insert(x: u64, y: u64, at: u32, len: u32, width: u32) -> u64 {
    let (at, len) = (at & 0xff, len & 0xff);
    if at >= width || len == 0 {
        return y;
    }
    let len = len.min(width - at);
    let mask = if len > 63 { !0 } else { ((1u64 << len) - 1) << at };
    y & !mask | x << at & mask
}
