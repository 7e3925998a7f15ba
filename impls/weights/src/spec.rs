//! What a scenario says about weights: one tagged table, checked when it is read.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::quantizer::gptq::GptqSpec;
use crate::quantizer::round_to_nearest::GroupSpec;

/// How a model's weight matrices are stored and how their codes are chosen.
///
/// In TOML a table with the tag `kind`: `{ kind = "gptq", bits = 4, group = 128 }`. `group = "row"` stands for one
/// grid per row.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub enum WeightsSpec {
    /// 32-bit floats.
    F32,
    /// IEEE half precision, widened on the fly.
    F16,
    /// bfloat16, widened on the fly.
    Bf16,
    /// int8 weights per output channel, int8 activations per token, int32 accumulation.
    Int8,
    /// Integer codes in groups, rounded to nearest.
    Rtn(GroupSpec),
    /// Integer codes in groups, chosen by GPTQ.
    Gptq(GptqSpec),
}

/// A field of a weights spec has a value that cannot work.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("weights: `{field} = {found}` cannot be used: expected {expected}; {advice}")]
pub struct SpecError {
    /// Field of the table.
    pub field: &'static str,
    /// What it held.
    pub found: String,
    /// What it may hold.
    pub expected: &'static str,
    /// What to do.
    pub advice: &'static str,
}

impl WeightsSpec {
    /// Short name, unique among specs, used in frames: `f32`, `int8`, `gptq-4bit-g128`, `gptq-3bit-row-actorder`.
    pub fn tag(&self) -> String {
        match self {
            WeightsSpec::F32 => "f32".into(),
            WeightsSpec::F16 => "f16".into(),
            WeightsSpec::Bf16 => "bf16".into(),
            WeightsSpec::Int8 => "int8".into(),
            WeightsSpec::Rtn(spec) => format!("rtn-{}", spec.tag()),
            WeightsSpec::Gptq(spec) => format!("gptq-{}", spec.tag()),
        }
    }

    /// Whether building needs [`crate::CalibrationStats`].
    pub fn needs_calibration(&self) -> bool {
        matches!(self, WeightsSpec::Gptq(_))
    }

    /// Nominal bits per weight, scales and zero points of full groups included; per-row constants, which vanish
    /// against a row, are not.
    pub fn bits_per_weight(&self) -> f64 {
        match self {
            WeightsSpec::F32 => 32.0,
            WeightsSpec::F16 | WeightsSpec::Bf16 => 16.0,
            WeightsSpec::Int8 => 8.0,
            WeightsSpec::Rtn(spec) => spec.bits_per_weight(),
            WeightsSpec::Gptq(spec) => spec.grid().bits_per_weight(),
        }
    }

    /// Checks the ranges of every field.
    pub fn validate(&self) -> Result<(), SpecError> {
        match self {
            WeightsSpec::Rtn(spec) => spec.validate(),
            WeightsSpec::Gptq(spec) => spec.validate(),
            _ => Ok(()),
        }
    }

    /// A spec of every kind, with the corners of each: what conformance loops over.
    pub fn all() -> Vec<WeightsSpec> {
        let mut all = vec![WeightsSpec::F32, WeightsSpec::F16, WeightsSpec::Bf16, WeightsSpec::Int8];
        for bits in [2, 3, 4, 8] {
            for group in [Some(128), Some(32), None] {
                all.push(WeightsSpec::Rtn(GroupSpec { bits, group, symmetric: false }));
            }
            all.push(WeightsSpec::Rtn(GroupSpec { bits, group: Some(128), symmetric: true }));
            all.push(WeightsSpec::Gptq(GptqSpec::new(bits, Some(128))));
        }
        let gptq = GptqSpec::new(3, None);
        all.push(WeightsSpec::Gptq(GptqSpec { act_order: true, ..gptq }));
        let gptq = GptqSpec::new(4, Some(32));
        all.push(WeightsSpec::Gptq(GptqSpec { act_order: true, ..gptq }));
        all.push(WeightsSpec::Gptq(GptqSpec { act_order: true, static_groups: true, ..gptq }));
        all
    }
}

/// The table as written: every field of every kind, so that a wrong one is reported by its name.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bits: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<GroupLength>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    symmetric: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    act_order: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    static_groups: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    damping: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    block: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    F32,
    F16,
    Bf16,
    Int8,
    Rtn,
    Gptq,
}

impl Wire {
    fn empty(kind: Kind) -> Wire {
        Wire {
            kind,
            bits: None,
            group: None,
            symmetric: None,
            act_order: None,
            static_groups: None,
            damping: None,
            block: None,
        }
    }

    fn grid(&self) -> Result<GroupSpec, SpecError> {
        let bits = self.bits.ok_or(SpecError {
            field: "bits",
            found: "nothing".into(),
            expected: "2, 3, 4 or 8",
            advice: "say how many bits a weight gets, e.g. bits = 4",
        })?;
        let group = self.group.unwrap_or(GroupLength::Columns(GroupSpec::DEFAULT_GROUP));
        Ok(GroupSpec { bits, group: group.into(), symmetric: self.symmetric.unwrap_or(false) })
    }

    /// The first field that is set although `kind` has no use for it.
    fn surplus(&self) -> Option<&'static str> {
        let grid = matches!(self.kind, Kind::Rtn | Kind::Gptq);
        let gptq = self.kind == Kind::Gptq;
        [
            ("bits", self.bits.is_some() && !grid),
            ("group", self.group.is_some() && !grid),
            ("symmetric", self.symmetric.is_some() && !grid),
            ("act_order", self.act_order.is_some() && !gptq),
            ("static_groups", self.static_groups.is_some() && !gptq),
            ("damping", self.damping.is_some() && !gptq),
            ("block", self.block.is_some() && !gptq),
        ]
        .into_iter()
        .find_map(|(field, wrong)| wrong.then_some(field))
    }
}

impl TryFrom<Wire> for WeightsSpec {
    type Error = SpecError;

    fn try_from(wire: Wire) -> Result<WeightsSpec, SpecError> {
        if let Some(field) = wire.surplus() {
            return Err(SpecError {
                field,
                found: "…".into(),
                expected: "no such field for this kind (bits, group and symmetric belong to rtn and gptq, the rest to gptq)",
                advice: "remove it or change `kind`",
            });
        }
        let spec = match wire.kind {
            Kind::F32 => WeightsSpec::F32,
            Kind::F16 => WeightsSpec::F16,
            Kind::Bf16 => WeightsSpec::Bf16,
            Kind::Int8 => WeightsSpec::Int8,
            Kind::Rtn => WeightsSpec::Rtn(wire.grid()?),
            Kind::Gptq => {
                let grid = wire.grid()?;
                let base = GptqSpec::new(grid.bits, grid.group);
                WeightsSpec::Gptq(GptqSpec {
                    symmetric: grid.symmetric,
                    act_order: wire.act_order.unwrap_or(base.act_order),
                    static_groups: wire.static_groups.unwrap_or(base.static_groups),
                    damping: wire.damping.unwrap_or(base.damping),
                    block: wire.block.unwrap_or(base.block),
                    ..base
                })
            }
        };
        spec.validate()?;
        Ok(spec)
    }
}

impl From<WeightsSpec> for Wire {
    fn from(spec: WeightsSpec) -> Wire {
        match spec {
            WeightsSpec::F32 => Wire::empty(Kind::F32),
            WeightsSpec::F16 => Wire::empty(Kind::F16),
            WeightsSpec::Bf16 => Wire::empty(Kind::Bf16),
            WeightsSpec::Int8 => Wire::empty(Kind::Int8),
            WeightsSpec::Rtn(spec) => Wire {
                bits: Some(spec.bits),
                group: Some(spec.group.into()),
                symmetric: Some(spec.symmetric),
                ..Wire::empty(Kind::Rtn)
            },
            WeightsSpec::Gptq(spec) => Wire {
                kind: Kind::Gptq,
                bits: Some(spec.bits),
                group: Some(spec.group.into()),
                symmetric: Some(spec.symmetric),
                act_order: Some(spec.act_order),
                static_groups: Some(spec.static_groups),
                damping: Some(spec.damping),
                block: Some(spec.block),
            },
        }
    }
}

/// `group` as written: a number of columns, or `"row"`.
#[derive(Debug, Clone, Copy, PartialEq)]
enum GroupLength {
    Columns(usize),
    Row,
}

impl From<GroupLength> for Option<usize> {
    fn from(length: GroupLength) -> Option<usize> {
        match length {
            GroupLength::Columns(n) => Some(n),
            GroupLength::Row => None,
        }
    }
}

impl From<Option<usize>> for GroupLength {
    fn from(group: Option<usize>) -> GroupLength {
        group.map_or(GroupLength::Row, GroupLength::Columns)
    }
}

impl Serialize for GroupLength {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            GroupLength::Columns(n) => serializer.serialize_u64(*n as u64),
            GroupLength::Row => serializer.serialize_str("row"),
        }
    }
}

impl<'de> Deserialize<'de> for GroupLength {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<GroupLength, D::Error> {
        struct LengthVisitor;
        impl de::Visitor<'_> for LengthVisitor {
            type Value = GroupLength;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of columns that share a scale, or \"row\" for one scale per row")
            }
            fn visit_i64<E: de::Error>(self, n: i64) -> Result<GroupLength, E> {
                usize::try_from(n)
                    .map(GroupLength::Columns)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(n), &self))
            }
            fn visit_u64<E: de::Error>(self, n: u64) -> Result<GroupLength, E> {
                usize::try_from(n)
                    .map(GroupLength::Columns)
                    .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(n), &self))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<GroupLength, E> {
                match text {
                    "row" => Ok(GroupLength::Row),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(LengthVisitor)
    }
}
