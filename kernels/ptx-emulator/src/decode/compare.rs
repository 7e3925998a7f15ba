//! Comparisons: the function of `setp` and `set`.

use std::cmp::Ordering;

use super::lanes::{compare32, compare64};
use crate::float::{brain, flush, half};
use crate::operation::{Compare32, Compare64};

/// A comparison by operand width.
pub enum Comparison {
    /// Operands of at most 32 bits.
    Narrow(Compare32),
    /// Operands of 64 bits.
    Wide(Compare64),
}

impl From<Compare32> for Comparison {
    fn from(f: Compare32) -> Comparison {
        Comparison::Narrow(f)
    }
}

impl From<Compare64> for Comparison {
    fn from(f: Compare64) -> Comparison {
        Comparison::Wide(f)
    }
}

/// `name` is the relation (`lt`, `geu`, …), `kind` the operand type.
pub fn comparison(name: &str, kind: &str, ftz: bool) -> Option<Comparison> {
    match kind {
        "f32" if ftz => floating!(compare32, name, flushed),
        "f32" => floating!(compare32, name, f32::from_bits),
        "f64" => floating!(compare64, name, f64::from_bits),
        "f16" => floating!(compare32, name, low_half),
        "bf16" => floating!(compare32, name, low_brain),
        "s16" => integer!(compare32, name, low_signed),
        "u16" | "b16" => integer!(compare32, name, low),
        "s32" => integer!(compare32, name, u32::cast_signed),
        "u32" | "b32" => integer!(compare32, name, u32::from),
        "s64" => integer!(compare64, name, u64::cast_signed),
        "u64" | "b64" => integer!(compare64, name, u64::from),
        _ => None,
    }
}

fn flushed(x: u32) -> f32 {
    flush(f32::from_bits(x))
}

fn low_half(x: u32) -> f32 {
    half(x & 0xffff)
}

fn low_brain(x: u32) -> f32 {
    brain(x & 0xffff)
}

fn low(x: u32) -> u16 {
    x as u16
}

fn low_signed(x: u32) -> i16 {
    x as i16
}

macro_rules! integer {
    ($compare:ident, $name:expr, $value:path) => {
        Some(match $name {
            "eq" => $compare!(|x, y| $value(x) == $value(y)).into(),
            "ne" => $compare!(|x, y| $value(x) != $value(y)).into(),
            "lt" | "lo" => $compare!(|x, y| $value(x) < $value(y)).into(),
            "le" | "ls" => $compare!(|x, y| $value(x) <= $value(y)).into(),
            "gt" | "hi" => $compare!(|x, y| $value(x) > $value(y)).into(),
            "ge" | "hs" => $compare!(|x, y| $value(x) >= $value(y)).into(),
            _ => return None,
        })
    };
}

macro_rules! floating {
    ($compare:ident, $name:expr, $value:path) => {
        Some(match $name {
            "eq" => $compare!(|x, y| $value(x) == $value(y)).into(),
            "ne" => $compare!(|x, y| $value(x).partial_cmp(&$value(y)).is_some_and(Ordering::is_ne)).into(),
            "lt" => $compare!(|x, y| $value(x) < $value(y)).into(),
            "le" => $compare!(|x, y| $value(x) <= $value(y)).into(),
            "gt" => $compare!(|x, y| $value(x) > $value(y)).into(),
            "ge" => $compare!(|x, y| $value(x) >= $value(y)).into(),
            "equ" => $compare!(|x, y| $value(x).partial_cmp(&$value(y)).is_none_or(Ordering::is_eq)).into(),
            "neu" => $compare!(|x, y| $value(x) != $value(y)).into(),
            "ltu" => $compare!(|x, y| $value(x).partial_cmp(&$value(y)).is_none_or(Ordering::is_lt)).into(),
            "leu" => $compare!(|x, y| $value(x).partial_cmp(&$value(y)).is_none_or(Ordering::is_le)).into(),
            "gtu" => $compare!(|x, y| $value(x).partial_cmp(&$value(y)).is_none_or(Ordering::is_gt)).into(),
            "geu" => $compare!(|x, y| $value(x).partial_cmp(&$value(y)).is_none_or(Ordering::is_ge)).into(),
            "num" => $compare!(|x, y| $value(x).partial_cmp(&$value(y)).is_some()).into(),
            "nan" => $compare!(|x, y| $value(x).partial_cmp(&$value(y)).is_none()).into(),
            _ => return None,
        })
    };
}

use {floating, integer};

/// `testp`: both operands are the one number.
pub fn test(name: &str, kind: &str) -> Option<Comparison> {
    Some(match (name, kind) {
        ("finite", "f32") => compare32!(|x, _y| f32::from_bits(x).is_finite()).into(),
        ("infinite", "f32") => compare32!(|x, _y| f32::from_bits(x).is_infinite()).into(),
        ("number", "f32") => compare32!(|x, _y| !f32::from_bits(x).is_nan()).into(),
        ("notanumber", "f32") => compare32!(|x, _y| f32::from_bits(x).is_nan()).into(),
        ("normal", "f32") => compare32!(|x, _y| f32::from_bits(x).is_normal()).into(),
        ("subnormal", "f32") => compare32!(|x, _y| f32::from_bits(x).is_subnormal()).into(),
        ("finite", "f64") => compare64!(|x, _y| f64::from_bits(x).is_finite()).into(),
        ("infinite", "f64") => compare64!(|x, _y| f64::from_bits(x).is_infinite()).into(),
        ("number", "f64") => compare64!(|x, _y| !f64::from_bits(x).is_nan()).into(),
        ("notanumber", "f64") => compare64!(|x, _y| f64::from_bits(x).is_nan()).into(),
        _ => return None,
    })
}
