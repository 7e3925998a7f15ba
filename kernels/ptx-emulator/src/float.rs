//! Narrow floating-point formats and correctly rounded arithmetic on them.
//!
//! Every format is converted from f64 with one rounding; [`fused`] keeps a sticky bit, so that multiply-add rounds once too.

/// How a value between two neighbours is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearest, ties to even.
    Nearest,
    /// Towards zero.
    Zero,
    /// Towards minus infinity.
    Down,
    /// Towards plus infinity.
    Up,
}

/// A binary format of at most 16 bits.
#[derive(Debug, Clone, Copy)]
pub struct Format {
    exponent_bits: i32,
    mantissa_bits: i32,
    /// e4m3 has no infinities: its top exponent holds numbers, and all ones is NaN.
    finite: bool,
}

/// IEEE half.
pub const F16: Format = Format { exponent_bits: 5, mantissa_bits: 10, finite: false };
/// Upper half of an f32.
pub const BF16: Format = Format { exponent_bits: 8, mantissa_bits: 7, finite: false };
/// 8 bits, largest 448.
pub const E4M3: Format = Format { exponent_bits: 4, mantissa_bits: 3, finite: true };
/// 8 bits, largest 57344.
pub const E5M2: Format = Format { exponent_bits: 5, mantissa_bits: 2, finite: false };

impl Format {
    /// Value of the bits.
    pub fn decode(self, bits: u32) -> f64 {
        let mantissa = (bits & ((1 << self.mantissa_bits) - 1)) as f64;
        let top = (1 << self.exponent_bits) - 1;
        let exponent = (bits >> self.mantissa_bits) as i32 & top;
        let negative = bits >> (self.exponent_bits + self.mantissa_bits) & 1 == 1;
        let bias = top >> 1;
        let scale = (-self.mantissa_bits as f64).exp2();
        let all_ones = (1 << self.mantissa_bits) - 1;
        let value = if exponent == top && !self.finite {
            if mantissa == 0.0 { f64::INFINITY } else { f64::NAN }
        } else if self.finite && exponent == top && mantissa as i32 == all_ones {
            f64::NAN
        } else if exponent == 0 {
            mantissa * scale * power(1 - bias)
        } else {
            (1.0 + mantissa * scale) * power(exponent - bias)
        };
        if negative { -value } else { value }
    }

    /// Nearest bits of `value`; `saturate` gives the largest finite number where it would overflow.
    pub fn encode(self, value: f64, rounding: Rounding, saturate: bool) -> u32 {
        let top = (1 << self.exponent_bits) - 1;
        let bias = top >> 1;
        let sign = ((value.to_bits() >> 63) as u32) << (self.exponent_bits + self.mantissa_bits);
        let infinity = if self.finite { 0x7f } else { (top as u32) << self.mantissa_bits };
        if value.is_nan() {
            let nan = (1u32 << (self.exponent_bits + self.mantissa_bits)) - 1;
            return if self.mantissa_bits <= 3 { 0x7f } else { nan };
        }
        let largest = if self.finite { 0x7e } else { infinity - 1 };
        let magnitude = value.abs();
        if magnitude == 0.0 {
            return sign;
        }
        if magnitude.is_infinite() {
            return sign | if saturate { largest } else { infinity };
        }
        let exponent = (((magnitude.to_bits() >> 52) as i32) - 1023).max(1 - bias);
        // The value in units of the last place: small enough to be exact.
        let units = magnitude * power_wide(self.mantissa_bits - exponent);
        let whole = units.floor();
        let rest = units - whole;
        let up = match rounding {
            Rounding::Nearest => rest > 0.5 || (rest == 0.5 && whole % 2.0 == 1.0),
            Rounding::Zero => false,
            Rounding::Down => rest > 0.0 && sign != 0,
            Rounding::Up => rest > 0.0 && sign == 0,
        };
        let whole = whole as u32 + up as u32;
        // A carry out of the mantissa moves into the exponent by itself.
        let hidden = 1u32 << self.mantissa_bits;
        let bits = (((exponent + bias - 1) as u32) << self.mantissa_bits) + whole;
        let bits = if whole < hidden && exponent == 1 - bias { whole } else { bits };
        if bits > largest {
            let keeps = saturate || matches!(rounding, Rounding::Zero);
            return sign | if keeps { largest } else { infinity };
        }
        sign | bits
    }
}

fn power(exponent: i32) -> f64 {
    f64::from_bits(((exponent + 1023) as u64) << 52)
}

fn power_wide(exponent: i32) -> f64 {
    if exponent > 1000 { power(1000) * power(exponent - 1000) } else { power(exponent) }
}

/// Value of half-precision bits.
#[inline(always)]
pub fn half(bits: u32) -> f32 {
    let sign = (bits & 0x8000) << 16;
    let rest = bits & 0x7fff;
    let magnitude = if rest >= 0x7c00 {
        f32::from_bits(0x7f80_0000 | (rest & 0x3ff) << 13)
    } else {
        // Exponent rebias by a multiplication, exact for normal and subnormal numbers alike.
        f32::from_bits(rest << 13) * f32::from_bits((254 - 15) << 23)
    };
    f32::from_bits(magnitude.to_bits() | sign)
}

/// Half-precision bits nearest to `value`.
#[inline(always)]
pub fn to_half(value: f32) -> u32 {
    let bits = value.to_bits();
    let sign = bits >> 16 & 0x8000;
    let rest = bits & 0x7fff_ffff;
    if rest > 0x7f80_0000 {
        return 0x7fff;
    }
    if rest >= 0x4780_0000 {
        return sign | 0x7c00;
    }
    if rest < 0x3880_0000 {
        // Subnormal halves: adding 0.5 puts their last place at the last place of the sum.
        let sum = f32::from_bits(rest) + 0.5;
        return sign | (sum.to_bits() - 0x3f00_0000);
    }
    let rounded = rest - 0x3800_0000 + 0xfff + (rest >> 13 & 1);
    sign | (rounded >> 13).min(0x7c00)
}

/// Value of bfloat16 bits.
#[inline(always)]
pub fn brain(bits: u32) -> f32 {
    f32::from_bits(bits << 16)
}

/// bfloat16 bits nearest to `value`.
#[inline(always)]
pub fn to_brain(value: f32) -> u32 {
    let bits = value.to_bits();
    if value.is_nan() {
        return 0x7fff;
    }
    (bits.wrapping_add(0x7fff + (bits >> 16 & 1))) >> 16
}

/// f32 with a 10-bit mantissa, ties away from zero.
pub fn to_tf32(value: f32) -> f32 {
    if !value.is_finite() {
        return value;
    }
    f32::from_bits(value.to_bits().wrapping_add(0x1000) & 0xffff_e000)
}

/// `a * b + c` in f64 with the last bit sticky: rounding it again to a narrower format is the same as rounding once.
#[inline(always)]
pub fn fused(a: f32, b: f32, c: f32) -> f64 {
    let product = a as f64 * b as f64;
    odd_sum(product, c as f64)
}

/// `a + b` in f64, rounded to odd.
#[inline(always)]
pub fn odd_sum(a: f64, b: f64) -> f64 {
    let sum = a + b;
    let virtual_b = sum - a;
    let error = (a - (sum - virtual_b)) + (b - virtual_b);
    let bits = sum.to_bits();
    let inexact = error != 0.0 && sum.is_finite() && bits & 1 == 0;
    let away = (error < 0.0) == (sum < 0.0);
    let odd = if away { bits.wrapping_add(1) } else { bits.wrapping_sub(1) };
    f64::from_bits(if inexact { odd } else { bits })
}

/// `value` as f32 in the given direction.
pub fn single(value: f64, rounding: Rounding) -> f32 {
    let nearest = value as f32;
    let (low, high) = if (nearest as f64) > value {
        (step(nearest, false), nearest)
    } else if (nearest as f64) < value {
        (nearest, step(nearest, true))
    } else {
        return nearest;
    };
    match rounding {
        Rounding::Nearest => nearest,
        Rounding::Down => low,
        Rounding::Up => high,
        Rounding::Zero if value < 0.0 => high,
        Rounding::Zero => low,
    }
}

fn step(value: f32, up: bool) -> f32 {
    if up { value.next_up() } else { value.next_down() }
}

/// Subnormal numbers become zero of their sign.
#[inline(always)]
pub fn flush(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits(if bits & 0x7f80_0000 == 0 { bits & 0x8000_0000 } else { bits })
}

/// `value` clamped to 0..=1, NaN as 0.
#[inline(always)]
pub fn saturate(value: f32) -> f32 {
    if value > 0.0 { value.min(1.0) } else { 0.0 }
}

/// The smaller (`max`: larger); a NaN gives way to a number, and −0 is below +0.
#[inline(always)]
pub fn extreme(a: f32, b: f32, max: bool) -> f32 {
    if a.is_nan() {
        return if b.is_nan() { f32::from_bits(0x7fff_ffff) } else { b };
    }
    if b.is_nan() {
        return a;
    }
    if a == b {
        let negative_first = a.is_sign_negative();
        return if negative_first != max { a } else { b };
    }
    if (a < b) != max { a } else { b }
}

/// `value` as f32, rounded to odd: a later rounding to at most 22 bits is then the only one that counts.
#[inline(always)]
pub fn odd_single(value: f64) -> f32 {
    let near = value as f32;
    let back = near as f64;
    let bits = near.to_bits();
    let inexact = back != value && bits & 1 == 0 && near.is_finite();
    let odd = if back.abs() < value.abs() { bits.wrapping_add(1) } else { bits.wrapping_sub(1) };
    f32::from_bits(if inexact { odd } else { bits })
}
