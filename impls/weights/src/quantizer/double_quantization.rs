//! What: double quantization, the scales of blocks as 8-bit codes with one f32 constant per 256 of them.
//! Source: QLoRA (arXiv 2305.14314) §3: 8-bit floats, blocks of 256, mean subtracted first; bitsandbytes' nested form: its
//!   signed dynamic 8-bit map (Dettmers 2016, arXiv 1511.04561, §2: dynamic tree) instead of the float.
//! Shapes: scales `[m]` → codes `[m]`, constants `[⌈m/256⌉]`, a map `[256]`, one offset.
//! Method: 1. offset = mean of all scales. 2. per 256 scales, constant = max |scale − offset|. 3. code = nearest map value to
//!   (scale − offset)/constant.
//! Exactness: with the dynamic map, bit for bit bitsandbytes' codes, constants and scales, but for the last bit of the mean.
//! Cost: 8/block + 32/(256·block) bits per weight instead of 32/block: 0.127 instead of 0.5 at blocks of 64.
//! Not handled: other numbers of scales per constant; the kernel knows 256.

use std::sync::LazyLock;

use cpu_kernels::{NestedScales, e4m3_to_f32};

use super::levels::Levels;

/// What the 8-bit codes of scales stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DoubleQuant {
    /// E4M3 floats over 448, their largest value: the paper's FP8.
    Fp8,
    /// The signed dynamic map of bitsandbytes.
    Dynamic,
}

/// 256 values, and how to find the nearest.
struct Map {
    values: [f32; 256],
    levels: Levels,
}

impl DoubleQuant {
    pub(super) fn tag(self) -> &'static str {
        match self {
            DoubleQuant::Fp8 => "-dqfp8",
            DoubleQuant::Dynamic => "-dq",
        }
    }

    /// The values of its codes, within ±1.
    pub fn map(self) -> &'static [f32; 256] {
        &self.made().values
    }

    fn made(self) -> &'static Map {
        static FP8: LazyLock<Map> =
            LazyLock::new(|| Map::new(std::array::from_fn(|code| e4m3_to_f32(code as u8) / 448.0)));
        static DYNAMIC: LazyLock<Map> = LazyLock::new(|| Map::new(dynamic_map()));
        match self {
            DoubleQuant::Fp8 => &FP8,
            DoubleQuant::Dynamic => &DYNAMIC,
        }
    }

    /// `scales` as codes.
    pub fn compress(self, scales: &[f32]) -> NestedScales {
        let map = self.made();
        // 1.
        let sum: f64 = scales.iter().map(|&s| s as f64).sum();
        let offset = (sum / scales.len().max(1) as f64) as f32;
        let mut codes = Vec::with_capacity(scales.len());
        let mut constants = vec![];
        for scales in scales.chunks(NestedScales::PER_CONSTANT) {
            // 2.
            let constant = scales.iter().fold(0.0f32, |max, s| max.max((s - offset).abs()));
            constants.push(constant);
            // 3.
            let divisor = if constant == 0.0 { 1.0 } else { constant };
            codes.extend(scales.iter().map(|s| map.levels.nearest((s - offset) / divisor)));
        }
        // NaN codes of the float are never chosen; the kernel's table is of numbers
        let values = map.values.map(|v| if v.is_nan() { 0.0 } else { v });
        NestedScales { codes, map: Box::new(values), constants, offset }
    }
}

impl Map {
    fn new(values: [f32; 256]) -> Map {
        Map { values, levels: Levels::new(&values) }
    }
}

/// Decades 10⁻⁶ … 1, each with twice the values of the one below: the means of neighbours among 2ⁱ + 1 points from 0.1 to 1,
/// with both signs; and 0 and 1.
fn dynamic_map() -> [f32; 256] {
    let mut values = vec![0.0f32, 1.0];
    for i in 0..7 {
        let n = 1usize << i;
        let step = (1.0f32 - 0.1f32) / n as f32;
        // from the nearer end with one rounding, as tensor libraries do
        let point = |j: usize| match 2 * j < n + 1 {
            true => (0.1f32 as f64 + step as f64 * j as f64) as f32,
            false => (1.0 - step as f64 * (n - j) as f64) as f32,
        };
        let decade = 10.0f64.powi(i - 6) as f32;
        for j in 0..n {
            let value = (point(j) + point(j + 1)) / 2.0 * decade;
            values.extend([value, -value]);
        }
    }
    values.sort_by(f32::total_cmp);
    values.try_into().unwrap_or_else(|_| unreachable!("2 + 2·(2⁷ − 1) values"))
}

/// In TOML: `false`, `true` ("dynamic"), "dynamic", "fp8".
pub(super) mod choice {
    use std::fmt;

    use serde::{Deserializer, Serializer, de};

    use super::DoubleQuant;

    pub(crate) fn serialize<S: Serializer>(choice: &Option<DoubleQuant>, serializer: S) -> Result<S::Ok, S::Error> {
        match choice {
            None => serializer.serialize_bool(false),
            Some(DoubleQuant::Fp8) => serializer.serialize_str("fp8"),
            Some(DoubleQuant::Dynamic) => serializer.serialize_str("dynamic"),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DoubleQuant>, D::Error> {
        struct Choice;
        impl de::Visitor<'_> for Choice {
            type Value = Option<DoubleQuant>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("false, true, \"dynamic\" (what true means: bitsandbytes' map) or \"fp8\" (the paper's)")
            }
            fn visit_bool<E: de::Error>(self, on: bool) -> Result<Self::Value, E> {
                Ok(on.then_some(DoubleQuant::Dynamic))
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<Self::Value, E> {
                match name {
                    "fp8" => Ok(Some(DoubleQuant::Fp8)),
                    "dynamic" => Ok(Some(DoubleQuant::Dynamic)),
                    _ => Err(E::invalid_value(de::Unexpected::Str(name), &self)),
                }
            }
        }
        deserializer.deserialize_any(Choice)
    }
}
