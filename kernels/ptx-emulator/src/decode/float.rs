//! Floating-point arithmetic. f32 and f64 are IEEE; the approximate functions are computed in f64 and rounded once, so they are
//! within the error that the hardware states, not equal to its bits.

use super::Arithmetic;
use super::lanes::{one32, one64, three32, three64, two32, two64};
use crate::float::{
    Rounding, brain, extreme, flush, fused, half, odd_single, odd_sum, saturate, single, to_brain, to_half,
};

/// An f32 function; `$ftz` flushes subnormal sources and results.
macro_rules! unary {
    ($ftz:expr, |$a:ident| $result:expr) => {
        if $ftz {
            one32!(|x| {
                let $a = flush(f32::from_bits(x));
                flush($result).to_bits()
            })
            .into()
        } else {
            one32!(|x| {
                let $a = f32::from_bits(x);
                ($result).to_bits()
            })
            .into()
        }
    };
}

macro_rules! binary {
    ($ftz:expr, |$a:ident, $b:ident| $result:expr) => {
        if $ftz {
            two32!(|x, y| {
                let ($a, $b) = (flush(f32::from_bits(x)), flush(f32::from_bits(y)));
                flush($result).to_bits()
            })
            .into()
        } else {
            two32!(|x, y| {
                let ($a, $b) = (f32::from_bits(x), f32::from_bits(y));
                ($result).to_bits()
            })
            .into()
        }
    };
}

/// Functions of one, two or three 16-bit floats, single or in pairs.
macro_rules! narrow {
    ($pair:expr, $from:ident, $to:ident, |$a:ident| $result:expr) => {
        if $pair {
            one32!(|x| {
                let low = {
                    let $a = $from(x & 0xffff);
                    $to($result)
                };
                let high = {
                    let $a = $from(x >> 16);
                    $to($result)
                };
                low | high << 16
            })
            .into()
        } else {
            one32!(|x| {
                let $a = $from(x & 0xffff);
                $to($result)
            })
            .into()
        }
    };
    ($pair:expr, $from:ident, $to:ident, |$a:ident, $b:ident| $result:expr) => {
        if $pair {
            two32!(|x, y| {
                let low = {
                    let ($a, $b) = ($from(x & 0xffff), $from(y & 0xffff));
                    $to($result)
                };
                let high = {
                    let ($a, $b) = ($from(x >> 16), $from(y >> 16));
                    $to($result)
                };
                low | high << 16
            })
            .into()
        } else {
            two32!(|x, y| {
                let ($a, $b) = ($from(x & 0xffff), $from(y & 0xffff));
                $to($result)
            })
            .into()
        }
    };
    ($pair:expr, $from:ident, $to:ident, |$a:ident, $b:ident, $c:ident| $result:expr) => {
        if $pair {
            three32!(|x, y, z| {
                let low = {
                    let ($a, $b, $c) = ($from(x & 0xffff), $from(y & 0xffff), $from(z & 0xffff));
                    $to($result)
                };
                let high = {
                    let ($a, $b, $c) = ($from(x >> 16), $from(y >> 16), $from(z >> 16));
                    $to($result)
                };
                low | high << 16
            })
            .into()
        } else {
            three32!(|x, y, z| {
                let ($a, $b, $c) = ($from(x & 0xffff), $from(y & 0xffff), $from(z & 0xffff));
                $to($result)
            })
            .into()
        }
    };
}

/// What may stand between name and type.
const SUFFIXES: [&str; 9] = ["rn", "rz", "rm", "rp", "ftz", "approx", "full", "sat", "NaN"];

/// The function of a floating-point instruction, from its name and suffixes; None where it is none.
pub fn arithmetic(parts: &[&str]) -> Option<Arithmetic> {
    let kind = *parts.last()?;
    let has = |name: &str| parts.contains(&name);
    if !parts[1..].iter().all(|part| *part == kind || SUFFIXES.contains(part)) {
        return None;
    }
    match kind {
        "f32" => single_precision(parts[0], &has),
        "f64" => double_precision(parts[0], &has),
        "f16" | "f16x2" => half_precision(parts[0], kind == "f16x2", &has),
        "bf16" | "bf16x2" => brain_precision(parts[0], kind == "bf16x2", &has),
        _ => None,
    }
}

/// Clamps an f32 to 0..=1.
pub fn saturation() -> Arithmetic {
    one32!(|x| saturate(f32::from_bits(x)).to_bits()).into()
}

fn single_precision(name: &str, has: &dyn Fn(&str) -> bool) -> Option<Arithmetic> {
    let ftz = has("ftz");
    if has("rz") || has("rm") || has("rp") {
        return directed(name, has);
    }
    Some(match name {
        "mov" => one32!(|x| x).into(),
        "add" => binary!(ftz, |a, b| a + b),
        "sub" => binary!(ftz, |a, b| a - b),
        "mul" => binary!(ftz, |a, b| a * b),
        "div" => binary!(ftz, |a, b| a / b),
        "fma" | "mad" if ftz => three32!(|x, y, z| {
            let (a, b, c) = (flush(f32::from_bits(x)), flush(f32::from_bits(y)), flush(f32::from_bits(z)));
            flush(fused(a, b, c) as f32).to_bits()
        })
        .into(),
        "fma" | "mad" => {
            three32!(|x, y, z| (fused(f32::from_bits(x), f32::from_bits(y), f32::from_bits(z)) as f32).to_bits()).into()
        }
        "neg" => unary!(ftz, |a| -a),
        "abs" => unary!(ftz, |a| a.abs()),
        "min" if has("NaN") => {
            binary!(ftz, |a, b| if a.is_nan() || b.is_nan() { f32::NAN } else { extreme(a, b, false) })
        }
        "max" if has("NaN") => {
            binary!(ftz, |a, b| if a.is_nan() || b.is_nan() { f32::NAN } else { extreme(a, b, true) })
        }
        "min" => binary!(ftz, |a, b| extreme(a, b, false)),
        "max" => binary!(ftz, |a, b| extreme(a, b, true)),
        "copysign" => two32!(|x, y| x & 0x8000_0000 | y & 0x7fff_ffff).into(),
        "sqrt" => unary!(ftz, |a| a.sqrt()),
        "rcp" => unary!(ftz, |a| 1.0 / a),
        "rsqrt" => unary!(ftz, |a| (1.0 / (a as f64).sqrt()) as f32),
        "ex2" => unary!(ftz, |a| (a as f64).exp2() as f32),
        "lg2" => unary!(ftz, |a| (a as f64).log2() as f32),
        "sin" => unary!(ftz, |a| (a as f64).sin() as f32),
        "cos" => unary!(ftz, |a| (a as f64).cos() as f32),
        "tanh" => unary!(false, |a| (a as f64).tanh() as f32),
        _ => return None,
    })
}

fn directed(name: &str, has: &dyn Fn(&str) -> bool) -> Option<Arithmetic> {
    macro_rules! towards {
        ($rounding:expr) => {
            match name {
                "add" => two32!(
                    |x, y| single(odd_sum(f32::from_bits(x) as f64, f32::from_bits(y) as f64), $rounding).to_bits()
                )
                .into(),
                "sub" => {
                    two32!(|x, y| single(odd_sum(f32::from_bits(x) as f64, -f32::from_bits(y) as f64), $rounding)
                        .to_bits())
                    .into()
                }
                "mul" => {
                    two32!(|x, y| single(f32::from_bits(x) as f64 * f32::from_bits(y) as f64, $rounding).to_bits())
                        .into()
                }
                "fma" => three32!(|x, y, z| single(
                    fused(f32::from_bits(x), f32::from_bits(y), f32::from_bits(z)),
                    $rounding
                )
                .to_bits())
                .into(),
                "div" => {
                    two32!(|x, y| single(f32::from_bits(x) as f64 / f32::from_bits(y) as f64, $rounding).to_bits())
                        .into()
                }
                "rcp" => one32!(|x| single(1.0 / f32::from_bits(x) as f64, $rounding).to_bits()).into(),
                "sqrt" => one32!(|x| single((f32::from_bits(x) as f64).sqrt(), $rounding).to_bits()).into(),
                _ => return None,
            }
        };
    }
    Some(if has("rz") {
        towards!(Rounding::Zero)
    } else if has("rm") {
        towards!(Rounding::Down)
    } else {
        towards!(Rounding::Up)
    })
}

fn double_precision(name: &str, has: &dyn Fn(&str) -> bool) -> Option<Arithmetic> {
    if has("rz") || has("rm") || has("rp") {
        return None;
    }
    Some(match name {
        "mov" => one64!(|x| x).into(),
        "add" => two64!(|x, y| (f64::from_bits(x) + f64::from_bits(y)).to_bits()).into(),
        "sub" => two64!(|x, y| (f64::from_bits(x) - f64::from_bits(y)).to_bits()).into(),
        "mul" => two64!(|x, y| (f64::from_bits(x) * f64::from_bits(y)).to_bits()).into(),
        "div" => two64!(|x, y| (f64::from_bits(x) / f64::from_bits(y)).to_bits()).into(),
        "fma" | "mad" => {
            three64!(|x, y, z| f64::from_bits(x).mul_add(f64::from_bits(y), f64::from_bits(z)).to_bits()).into()
        }
        "neg" => one64!(|x| x ^ 1 << 63).into(),
        "abs" => one64!(|x| x & !(1 << 63)).into(),
        "min" => two64!(|x, y| f64::from_bits(x).min(f64::from_bits(y)).to_bits()).into(),
        "max" => two64!(|x, y| f64::from_bits(x).max(f64::from_bits(y)).to_bits()).into(),
        "copysign" => two64!(|x, y| x & 1 << 63 | y & !(1 << 63)).into(),
        "sqrt" => one64!(|x| f64::from_bits(x).sqrt().to_bits()).into(),
        "rcp" => one64!(|x| (1.0 / f64::from_bits(x)).to_bits()).into(),
        "rsqrt" => one64!(|x| (1.0 / f64::from_bits(x).sqrt()).to_bits()).into(),
        _ => return None,
    })
}

fn half_precision(name: &str, pair: bool, has: &dyn Fn(&str) -> bool) -> Option<Arithmetic> {
    if has("sat") || has("relu") || has("ftz") && !matches!(name, "ex2" | "tanh") {
        return None;
    }
    Some(match name {
        "mov" => one32!(|x| x).into(),
        "add" => narrow!(pair, half, to_half, |a, b| a + b),
        "sub" => narrow!(pair, half, to_half, |a, b| a - b),
        "mul" => narrow!(pair, half, to_half, |a, b| a * b),
        "fma" => narrow!(pair, half, to_half, |a, b, c| odd_single(fused(a, b, c))),
        "neg" if pair => one32!(|x| x ^ 0x8000_8000).into(),
        "neg" => one32!(|x| (x ^ 0x8000) & 0xffff).into(),
        "abs" if pair => one32!(|x| x & 0x7fff_7fff).into(),
        "abs" => one32!(|x| x & 0x7fff).into(),
        "min" if has("NaN") => {
            narrow!(pair, half, to_half, |a, b| if a.is_nan() || b.is_nan() { f32::NAN } else { extreme(a, b, false) })
        }
        "max" if has("NaN") => {
            narrow!(pair, half, to_half, |a, b| if a.is_nan() || b.is_nan() { f32::NAN } else { extreme(a, b, true) })
        }
        "min" => narrow!(pair, half, to_half, |a, b| extreme(a, b, false)),
        "max" => narrow!(pair, half, to_half, |a, b| extreme(a, b, true)),
        "ex2" => narrow!(pair, half, to_half, |a| (a as f64).exp2() as f32),
        "tanh" => narrow!(pair, half, to_half, |a| (a as f64).tanh() as f32),
        _ => return None,
    })
}

fn brain_precision(name: &str, pair: bool, has: &dyn Fn(&str) -> bool) -> Option<Arithmetic> {
    if has("sat") || has("relu") {
        return None;
    }
    Some(match name {
        "mov" => one32!(|x| x).into(),
        "add" => narrow!(pair, brain, to_brain, |a, b| a + b),
        "sub" => narrow!(pair, brain, to_brain, |a, b| a - b),
        "mul" => narrow!(pair, brain, to_brain, |a, b| a * b),
        "fma" => narrow!(pair, brain, to_brain, |a, b, c| odd_single(fused(a, b, c))),
        "neg" if pair => one32!(|x| x ^ 0x8000_8000).into(),
        "neg" => one32!(|x| (x ^ 0x8000) & 0xffff).into(),
        "abs" if pair => one32!(|x| x & 0x7fff_7fff).into(),
        "abs" => one32!(|x| x & 0x7fff).into(),
        "min" if has("NaN") => narrow!(pair, brain, to_brain, |a, b| if a.is_nan() || b.is_nan() {
            f32::NAN
        } else {
            extreme(a, b, false)
        }),
        "max" if has("NaN") => {
            narrow!(pair, brain, to_brain, |a, b| if a.is_nan() || b.is_nan() { f32::NAN } else { extreme(a, b, true) })
        }
        "min" => narrow!(pair, brain, to_brain, |a, b| extreme(a, b, false)),
        "max" => narrow!(pair, brain, to_brain, |a, b| extreme(a, b, true)),
        "ex2" => narrow!(pair, brain, to_brain, |a| (a as f64).exp2() as f32),
        "tanh" => narrow!(pair, brain, to_brain, |a| (a as f64).tanh() as f32),
        _ => return None,
    })
}
