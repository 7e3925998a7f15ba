//! Number formats that products are written for.

use half::{bf16, f16};

/// How a value is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Number {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// bfloat16.
    Bf16,
}

impl Number {
    /// All of them.
    pub const ALL: [Number; 3] = [Number::F32, Number::F16, Number::Bf16];

    /// Name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Number::F32 => "f32",
            Number::F16 => "f16",
            Number::Bf16 => "bf16",
        }
    }

    /// Bytes of a value.
    pub fn bytes(self) -> usize {
        if self == Number::F32 { 4 } else { 2 }
    }

    /// `value` as stored, the upper half zero for 16-bit formats.
    pub(crate) fn bits(self, value: f32) -> u32 {
        match self {
            Number::F32 => value.to_bits(),
            Number::F16 => f16::from_f32(value).to_bits().into(),
            Number::Bf16 => bf16::from_f32(value).to_bits().into(),
        }
    }

    /// The value of stored bits.
    pub(crate) fn value(self, bits: u32) -> f32 {
        match self {
            Number::F32 => f32::from_bits(bits),
            Number::F16 => f16::from_bits(bits as u16).to_f32(),
            Number::Bf16 => bf16::from_bits(bits as u16).to_f32(),
        }
    }

    /// `value` rounded to the format.
    pub(crate) fn round(self, value: f32) -> f32 {
        self.value(self.bits(value))
    }

    /// `values` in device order: words of 32 bits, two values a word where they have 16.
    pub(crate) fn pack(self, values: &[f32]) -> Vec<u32> {
        if self == Number::F32 {
            return values.iter().map(|v| v.to_bits()).collect();
        }
        let pair = |p: &[f32]| self.bits(p[0]) | p.get(1).map_or(0, |&high| self.bits(high)) << 16;
        values.chunks(2).map(pair).collect()
    }

    /// The type's name in `numbers.cuh`, and in the texts of attention.
    pub(crate) fn in_text(self) -> &'static str {
        match self {
            Number::F32 => "Single",
            Number::F16 => "Half",
            Number::Bf16 => "Bf16",
        }
    }

    /// The type's name in `stored.cuh`.
    pub(crate) fn device_type(self) -> &'static str {
        match self {
            Number::F32 => "F32",
            Number::F16 => "F16",
            Number::Bf16 => "BFloat16",
        }
    }
}
