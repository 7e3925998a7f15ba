//! `group` in TOML: a number of columns, or `"row"` for one grid per row.

use std::fmt;

use serde::{Deserializer, Serializer, de};

/// `None` is written `"row"`.
pub(crate) fn serialize<S: Serializer>(group: &Option<usize>, serializer: S) -> Result<S::Ok, S::Error> {
    match group {
        Some(columns) => serializer.serialize_u64(*columns as u64),
        None => serializer.serialize_str("row"),
    }
}

/// `"row"` is read as `None`.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    deserializer.deserialize_any(LengthVisitor)
}

struct LengthVisitor;

impl de::Visitor<'_> for LengthVisitor {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`group` to be a number of columns that share a scale, or \"row\" for one scale per row")
    }

    fn visit_i64<E: de::Error>(self, n: i64) -> Result<Option<usize>, E> {
        usize::try_from(n).map(Some).map_err(|_| E::invalid_value(de::Unexpected::Signed(n), &self))
    }

    fn visit_u64<E: de::Error>(self, n: u64) -> Result<Option<usize>, E> {
        usize::try_from(n).map(Some).map_err(|_| E::invalid_value(de::Unexpected::Unsigned(n), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Option<usize>, E> {
        match text {
            "row" => Ok(None),
            _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
        }
    }
}
