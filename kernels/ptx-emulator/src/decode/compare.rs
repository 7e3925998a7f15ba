//! Comparisons: the function of `setp` and `set`.

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
        "f32" if ftz => floating!(compare32, name, |x| flush(f32::from_bits(x))),
        "f32" => floating!(compare32, name, |x| f32::from_bits(x)),
        "f64" => floating!(compare64, name, |x| f64::from_bits(x)),
        "f16" => floating!(compare32, name, |x| half(x & 0xffff)),
        "bf16" => floating!(compare32, name, |x| brain(x & 0xffff)),
        "s16" => integer!(compare32, name, |x| x as u16 as i16),
        "u16" | "b16" => integer!(compare32, name, |x| x as u16),
        "s32" => integer!(compare32, name, |x| x as i32),
        "u32" | "b32" => integer!(compare32, name, |x| x),
        "s64" => integer!(compare64, name, |x| x as i64),
        "u64" | "b64" => integer!(compare64, name, |x| x),
        _ => None,
    }
}

macro_rules! integer {
    ($compare:ident, $name:expr, |$v:ident| $value:expr) => {
        Some(match $name {
            "eq" => $compare!(|x, y| ({ let $v = x; $value }) == ({ let $v = y; $value })).into(),
            "ne" => $compare!(|x, y| ({ let $v = x; $value }) != ({ let $v = y; $value })).into(),
            "lt" | "lo" => $compare!(|x, y| ({ let $v = x; $value }) < ({ let $v = y; $value })).into(),
            "le" | "ls" => $compare!(|x, y| ({ let $v = x; $value }) <= ({ let $v = y; $value })).into(),
            "gt" | "hi" => $compare!(|x, y| ({ let $v = x; $value }) > ({ let $v = y; $value })).into(),
            "ge" | "hs" => $compare!(|x, y| ({ let $v = x; $value }) >= ({ let $v = y; $value })).into(),
            _ => return None,
        })
    };
}

macro_rules! floating {
    ($compare:ident, $name:expr, |$v:ident| $value:expr) => {
        Some(match $name {
            "eq" => $compare!(|x, y| ({ let $v = x; $value }) == ({ let $v = y; $value })).into(),
            "ne" => $compare!(|x, y| { let (a, b) = ({ let $v = x; $value }, { let $v = y; $value }); a < b || a > b }).into(),
            "lt" => $compare!(|x, y| ({ let $v = x; $value }) < ({ let $v = y; $value })).into(),
            "le" => $compare!(|x, y| ({ let $v = x; $value }) <= ({ let $v = y; $value })).into(),
            "gt" => $compare!(|x, y| ({ let $v = x; $value }) > ({ let $v = y; $value })).into(),
            "ge" => $compare!(|x, y| ({ let $v = x; $value }) >= ({ let $v = y; $value })).into(),
            "equ" => $compare!(|x, y| { let (a, b) = ({ let $v = x; $value }, { let $v = y; $value }); !(a < b || a > b) }).into(),
            "neu" => $compare!(|x, y| ({ let $v = x; $value }) != ({ let $v = y; $value })).into(),
            "ltu" => $compare!(|x, y| !(({ let $v = x; $value }) >= ({ let $v = y; $value }))).into(),
            "leu" => $compare!(|x, y| !(({ let $v = x; $value }) > ({ let $v = y; $value }))).into(),
            "gtu" => $compare!(|x, y| !(({ let $v = x; $value }) <= ({ let $v = y; $value }))).into(),
            "geu" => $compare!(|x, y| !(({ let $v = x; $value }) < ({ let $v = y; $value }))).into(),
            "num" => $compare!(|x, y| !({ let $v = x; $value }).is_nan() && !({ let $v = y; $value }).is_nan()).into(),
            "nan" => $compare!(|x, y| ({ let $v = x; $value }).is_nan() || ({ let $v = y; $value }).is_nan()).into(),
            _ => return None,
        })
    };
}

use {floating, integer};

/// `testp`: the second operand is not looked at.
pub fn test(name: &str, kind: &str) -> Option<Comparison> {
    Some(match (name, kind) {
        ("finite", "f32") => compare32!(|x, y| f32::from_bits(x | y & 0).is_finite()).into(),
        ("infinite", "f32") => compare32!(|x, y| f32::from_bits(x | y & 0).is_infinite()).into(),
        ("number", "f32") => compare32!(|x, y| !f32::from_bits(x | y & 0).is_nan()).into(),
        ("notanumber", "f32") => compare32!(|x, y| f32::from_bits(x | y & 0).is_nan()).into(),
        ("normal", "f32") => compare32!(|x, y| f32::from_bits(x | y & 0).is_normal()).into(),
        ("subnormal", "f32") => compare32!(|x, y| f32::from_bits(x | y & 0).is_subnormal()).into(),
        ("finite", "f64") => compare64!(|x, y| f64::from_bits(x | y & 0).is_finite()).into(),
        ("infinite", "f64") => compare64!(|x, y| f64::from_bits(x | y & 0).is_infinite()).into(),
        ("number", "f64") => compare64!(|x, y| !f64::from_bits(x | y & 0).is_nan()).into(),
        ("notanumber", "f64") => compare64!(|x, y| f64::from_bits(x | y & 0).is_nan()).into(),
        _ => return None,
    })
}
