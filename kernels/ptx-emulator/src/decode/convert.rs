//! Conversions between all number types.

use super::Arithmetic;
use super::lanes::{one32, one64, two32};
use crate::float::{BF16, E4M3, E5M2, F16, Rounding, brain, flush, half, saturate, single, to_brain, to_half, to_tf32};

/// What may stand before the two types.
const SUFFIXES: [&str; 13] =
    ["rn", "rz", "rm", "rp", "rna", "rni", "rzi", "rmi", "rpi", "ftz", "sat", "satfinite", "relu"];

/// The function of `cvt`, from its suffixes. Two-source forms pack two numbers, the first in the high half.
pub fn conversion(parts: &[&str]) -> Option<Arithmetic> {
    let [.., to, from] = *parts else { return None };
    if parts.len() < 3 {
        return None;
    }
    let has = |name: &str| parts.contains(&name);
    if !parts[1..parts.len() - 2].iter().all(|part| SUFFIXES.contains(part)) {
        return None;
    }
    if matches!(to, "f16x2" | "bf16x2" | "e4m3x2" | "e5m2x2") || matches!(from, "e4m3x2" | "e5m2x2") {
        return packed(to, from, &has);
    }
    match (float(to), float(from)) {
        (false, false) => integers(to, from, has("sat")),
        (true, false) => to_float(to, from, &has),
        (false, true) => from_float(to, from, &has),
        (true, true) => floats(to, from, &has),
    }
}

fn float(kind: &str) -> bool {
    matches!(kind, "f16" | "bf16" | "f32" | "f64" | "tf32")
}

/// All integer conversions go through 64 bits: sign- or zero-extend from the source type, then cut (or clamp) to the other.
fn integers(to: &str, from: &str, clamp: bool) -> Option<Arithmetic> {
    macro_rules! from_source {
        (|$v:ident| $cut:expr) => {
            match from {
                "u8" | "b8" => one64!(|x| {
                    let $v = x as u8 as i128;
                    $cut
                }),
                "s8" => one64!(|x| {
                    let $v = x as i8 as i128;
                    $cut
                }),
                "u16" | "b16" => one64!(|x| {
                    let $v = x as u16 as i128;
                    $cut
                }),
                "s16" => one64!(|x| {
                    let $v = x as i16 as i128;
                    $cut
                }),
                "u32" | "b32" => one64!(|x| {
                    let $v = x as u32 as i128;
                    $cut
                }),
                "s32" => one64!(|x| {
                    let $v = x as i32 as i128;
                    $cut
                }),
                "u64" | "b64" => one64!(|x| {
                    let $v = x as i128;
                    $cut
                }),
                "s64" => one64!(|x| {
                    let $v = x as i64 as i128;
                    $cut
                }),
                _ => return None,
            }
        };
    }
    Some(
        match (to, clamp) {
            ("u8" | "b8", false) => from_source!(|v| v as u8 as u64),
            // A narrow signed result fills its register with its sign.
            ("s8", false) => from_source!(|v| v as i8 as i64 as u64),
            ("u16" | "b16", false) => from_source!(|v| v as u16 as u64),
            ("s16", false) => from_source!(|v| v as i16 as i64 as u64),
            ("u32" | "s32" | "b32", false) => from_source!(|v| v as i64 as u64),
            ("u64" | "s64" | "b64", false) => from_source!(|v| v as i64 as u64),
            ("u8", true) => from_source!(|v| v.clamp(0, u8::MAX as i128) as u64),
            ("s8", true) => from_source!(|v| v.clamp(i8::MIN as i128, i8::MAX as i128) as i64 as u64),
            ("u16", true) => from_source!(|v| v.clamp(0, u16::MAX as i128) as u64),
            ("s16", true) => from_source!(|v| v.clamp(i16::MIN as i128, i16::MAX as i128) as i64 as u64),
            ("u32", true) => from_source!(|v| v.clamp(0, u32::MAX as i128) as u64),
            ("s32", true) => from_source!(|v| v.clamp(i32::MIN as i128, i32::MAX as i128) as i64 as u64),
            ("u64", true) => from_source!(|v| v.clamp(0, u64::MAX as i128) as u64),
            ("s64", true) => from_source!(|v| v.clamp(i64::MIN as i128, i64::MAX as i128) as i64 as u64),
            _ => return None,
        }
        .into(),
    )
}

/// f32 nearest to an integer: the hardware rounds once, and so does `as`.
fn to_float(to: &str, from: &str, has: &dyn Fn(&str) -> bool) -> Option<Arithmetic> {
    macro_rules! from_source {
        (|$v:ident| $out:expr) => {
            match from {
                "u8" => one64!(|x| {
                    let $v = x as u8 as i128;
                    $out
                }),
                "s8" => one64!(|x| {
                    let $v = x as i8 as i128;
                    $out
                }),
                "u16" => one64!(|x| {
                    let $v = x as u16 as i128;
                    $out
                }),
                "s16" => one64!(|x| {
                    let $v = x as i16 as i128;
                    $out
                }),
                "u32" => one64!(|x| {
                    let $v = x as u32 as i128;
                    $out
                }),
                "s32" => one64!(|x| {
                    let $v = x as i32 as i128;
                    $out
                }),
                "u64" => one64!(|x| {
                    let $v = x as i128;
                    $out
                }),
                "s64" => one64!(|x| {
                    let $v = x as i64 as i128;
                    $out
                }),
                _ => return None,
            }
        };
    }
    if to == "f32" && !(has("rz") || has("rm") || has("rp")) {
        return Some(match from {
            "s32" => one32!(|x| (x as i32 as f32).to_bits()).into(),
            "u32" => one32!(|x| (x as f32).to_bits()).into(),
            _ => from_source!(|v| (v as f32).to_bits() as u64).into(),
        });
    }
    Some(
        match to {
            "f32" if has("rz") => from_source!(|v| single(v as f64, Rounding::Zero).to_bits() as u64),
            "f32" if has("rm") => from_source!(|v| single(v as f64, Rounding::Down).to_bits() as u64),
            "f32" => from_source!(|v| single(v as f64, Rounding::Up).to_bits() as u64),
            "f64" => from_source!(|v| (v as f64).to_bits()),
            "f16" if has("rz") => from_source!(|v| F16.encode(v as f64, Rounding::Zero, false) as u64),
            "f16" => from_source!(|v| F16.encode(v as f64, Rounding::Nearest, false) as u64),
            "bf16" => from_source!(|v| BF16.encode(v as f64, Rounding::Nearest, false) as u64),
            _ => return None,
        }
        .into(),
    )
}

/// Float to integer clamps, and NaN becomes 0.
fn from_float(to: &str, from: &str, has: &dyn Fn(&str) -> bool) -> Option<Arithmetic> {
    let mode = if has("rni") || has("rn") {
        0
    } else if has("rmi") || has("rm") {
        1
    } else if has("rpi") || has("rp") {
        2
    } else {
        3
    };
    macro_rules! target {
        (|$x:ident| $value:expr) => {
            match to {
                "s8" => one64!(|$x| ($value) as i8 as i64 as u64),
                "u8" => one64!(|$x| ($value) as u8 as u64),
                "s16" => one64!(|$x| ($value) as i16 as i64 as u64),
                "u16" => one64!(|$x| ($value) as u16 as u64),
                "s32" => one64!(|$x| ($value) as i32 as i64 as u64),
                "u32" => one64!(|$x| ($value) as u32 as u64),
                "s64" => one64!(|$x| ($value) as i64 as u64),
                "u64" => one64!(|$x| ($value) as u64),
                _ => return None,
            }
        };
    }
    macro_rules! rounded {
        (|$x:ident| $value:expr) => {
            match mode {
                0 => target!(|$x| ($value).round_ties_even()),
                1 => target!(|$x| ($value).floor()),
                2 => target!(|$x| ($value).ceil()),
                _ => target!(|$x| ($value).trunc()),
            }
        };
    }
    Some(
        match from {
            "f32" => rounded!(|x| f32::from_bits(x as u32) as f64),
            "f64" => rounded!(|x| f64::from_bits(x)),
            "f16" => rounded!(|x| half(x as u32 & 0xffff) as f64),
            "bf16" => rounded!(|x| brain(x as u32 & 0xffff) as f64),
            _ => return None,
        }
        .into(),
    )
}

fn floats(to: &str, from: &str, has: &dyn Fn(&str) -> bool) -> Option<Arithmetic> {
    let whole = |mode: &str| has(mode);
    let relu = has("relu");
    Some(match (to, from) {
        ("f32", "f32") if has("sat") => one32!(|x| saturate(f32::from_bits(x)).to_bits()).into(),
        ("f32", "f32") if whole("rni") => one32!(|x| f32::from_bits(x).round_ties_even().to_bits()).into(),
        ("f32", "f32") if whole("rzi") => one32!(|x| f32::from_bits(x).trunc().to_bits()).into(),
        ("f32", "f32") if whole("rmi") => one32!(|x| f32::from_bits(x).floor().to_bits()).into(),
        ("f32", "f32") if whole("rpi") => one32!(|x| f32::from_bits(x).ceil().to_bits()).into(),
        ("f32", "f32") if has("ftz") => one32!(|x| flush(f32::from_bits(x)).to_bits()).into(),
        ("f32", "f32") => one32!(|x| x).into(),
        ("f64", "f64") if whole("rni") => one64!(|x| f64::from_bits(x).round_ties_even().to_bits()).into(),
        ("f64", "f64") if whole("rzi") => one64!(|x| f64::from_bits(x).trunc().to_bits()).into(),
        ("f64", "f64") if whole("rmi") => one64!(|x| f64::from_bits(x).floor().to_bits()).into(),
        ("f64", "f64") if whole("rpi") => one64!(|x| f64::from_bits(x).ceil().to_bits()).into(),
        ("f64", "f32") => one64!(|x| (f32::from_bits(x as u32) as f64).to_bits()).into(),
        ("f32", "f64") if has("rz") => one64!(|x| single(f64::from_bits(x), Rounding::Zero).to_bits() as u64).into(),
        ("f32", "f64") if has("rm") => one64!(|x| single(f64::from_bits(x), Rounding::Down).to_bits() as u64).into(),
        ("f32", "f64") if has("rp") => one64!(|x| single(f64::from_bits(x), Rounding::Up).to_bits() as u64).into(),
        ("f32", "f64") => one64!(|x| (f64::from_bits(x) as f32).to_bits() as u64).into(),
        ("f32", "f16") => one32!(|x| half(x & 0xffff).to_bits()).into(),
        ("f32", "bf16") => one32!(|x| brain(x & 0xffff).to_bits()).into(),
        ("f64", "f16") => one64!(|x| (half(x as u32 & 0xffff) as f64).to_bits()).into(),
        ("f64", "bf16") => one64!(|x| (brain(x as u32 & 0xffff) as f64).to_bits()).into(),
        ("f16", "f32") if relu => one32!(|x| to_half(f32::from_bits(x).max(0.0))).into(),
        ("f16", "f32") if has("sat") => one32!(|x| to_half(saturate(f32::from_bits(x)))).into(),
        ("f16", "f32") if has("rz") => one32!(|x| F16.encode(f32::from_bits(x) as f64, Rounding::Zero, false)).into(),
        ("f16", "f32") => one32!(|x| to_half(f32::from_bits(x))).into(),
        ("bf16", "f32") if relu => one32!(|x| to_brain(f32::from_bits(x).max(0.0))).into(),
        ("bf16", "f32") if has("rz") => one32!(|x| BF16.encode(f32::from_bits(x) as f64, Rounding::Zero, false)).into(),
        ("bf16", "f32") => one32!(|x| to_brain(f32::from_bits(x))).into(),
        ("f16", "f64") => one64!(|x| F16.encode(f64::from_bits(x), Rounding::Nearest, false) as u64).into(),
        ("bf16", "f64") => one64!(|x| BF16.encode(f64::from_bits(x), Rounding::Nearest, false) as u64).into(),
        ("f16", "bf16") => one32!(|x| to_half(brain(x & 0xffff))).into(),
        ("bf16", "f16") => one32!(|x| to_brain(half(x & 0xffff))).into(),
        ("f16", "f16") if whole("rni") => one32!(|x| to_half(half(x & 0xffff).round_ties_even())).into(),
        ("f16", "f16") if whole("rzi") => one32!(|x| to_half(half(x & 0xffff).trunc())).into(),
        ("f16", "f16") if whole("rmi") => one32!(|x| to_half(half(x & 0xffff).floor())).into(),
        ("f16", "f16") if whole("rpi") => one32!(|x| to_half(half(x & 0xffff).ceil())).into(),
        ("tf32", "f32") => one32!(|x| to_tf32(f32::from_bits(x)).to_bits()).into(),
        _ => return None,
    })
}

fn packed(to: &str, from: &str, has: &dyn Fn(&str) -> bool) -> Option<Arithmetic> {
    Some(match (to, from, has("relu")) {
        ("f16x2", "f32", false) if has("rz") => two32!(|x, y| {
            let narrow = |v: u32| F16.encode(f32::from_bits(v) as f64, Rounding::Zero, false);
            narrow(x) << 16 | narrow(y)
        })
        .into(),
        ("bf16x2", "f32", false) if has("rz") => two32!(|x, y| {
            let narrow = |v: u32| BF16.encode(f32::from_bits(v) as f64, Rounding::Zero, false);
            narrow(x) << 16 | narrow(y)
        })
        .into(),
        ("f16x2", "f32", false) => two32!(|x, y| to_half(f32::from_bits(x)) << 16 | to_half(f32::from_bits(y))).into(),
        ("bf16x2", "f32", false) => {
            two32!(|x, y| to_brain(f32::from_bits(x)) << 16 | to_brain(f32::from_bits(y))).into()
        }
        ("f16x2", "f32", true) => {
            two32!(|x, y| to_half(f32::from_bits(x).max(0.0)) << 16 | to_half(f32::from_bits(y).max(0.0))).into()
        }
        ("bf16x2", "f32", true) => {
            two32!(|x, y| to_brain(f32::from_bits(x).max(0.0)) << 16 | to_brain(f32::from_bits(y).max(0.0))).into()
        }
        ("e4m3x2", "f32", false) => two32!(|x, y| {
            let narrow = |v: u32| E4M3.encode(f32::from_bits(v) as f64, Rounding::Nearest, true);
            narrow(x) << 8 | narrow(y)
        })
        .into(),
        ("e5m2x2", "f32", false) => two32!(|x, y| {
            let narrow = |v: u32| E5M2.encode(f32::from_bits(v) as f64, Rounding::Nearest, true);
            narrow(x) << 8 | narrow(y)
        })
        .into(),
        ("e4m3x2", "f16x2", false) => one32!(|x| {
            let narrow = |v: u32| E4M3.encode(half(v & 0xffff) as f64, Rounding::Nearest, true);
            narrow(x >> 16) << 8 | narrow(x)
        })
        .into(),
        ("e5m2x2", "f16x2", false) => one32!(|x| {
            let narrow = |v: u32| E5M2.encode(half(v & 0xffff) as f64, Rounding::Nearest, true);
            narrow(x >> 16) << 8 | narrow(x)
        })
        .into(),
        ("f16x2", "e4m3x2", false) => one32!(|x| {
            let widen = |v: u32| to_half(E4M3.decode(v & 0xff) as f32);
            widen(x >> 8) << 16 | widen(x)
        })
        .into(),
        ("f16x2", "e5m2x2", false) => one32!(|x| {
            let widen = |v: u32| to_half(E5M2.decode(v & 0xff) as f32);
            widen(x >> 8) << 16 | widen(x)
        })
        .into(),
        _ => return None,
    })
}
