//! Keys and values of a GGUF file. Arrays stay bytes until somebody asks for them, so that a false count costs nothing.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::cursor::{Cursor, Truncated};
use crate::checkpoint::{Bytes, CheckpointError};

/// How deep arrays of arrays may nest.
const DEEPEST: usize = 4;

/// What a metadata value is stored as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

impl Kind {
    /// By the number that the format gives it.
    pub(super) fn of(number: u32) -> Option<Kind> {
        use Kind::*;
        [U8, I8, U16, I16, U32, I32, F32, Bool, Text, Array, U64, I64, F64].get(number as usize).copied()
    }

    /// Bytes of one value; nothing where each says its own length.
    fn width(self) -> Option<u64> {
        match self {
            Kind::U8 | Kind::I8 | Kind::Bool => Some(1),
            Kind::U16 | Kind::I16 => Some(2),
            Kind::U32 | Kind::I32 | Kind::F32 => Some(4),
            Kind::U64 | Kind::I64 | Kind::F64 => Some(8),
            Kind::Text | Kind::Array => None,
        }
    }
}

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Any whole number.
    Whole(i128),
    /// Any float; f32 widened exactly.
    Float(f64),
    Bool(bool),
    Text(String),
    /// Values of one kind, and where they lie in the file.
    Array {
        kind: Kind,
        count: u64,
        place: Range<usize>,
    },
}

/// Why a value cannot be read.
pub(super) enum Fault {
    Truncated(Truncated),
    Unfit(String),
}

impl From<Truncated> for Fault {
    fn from(truncated: Truncated) -> Fault {
        Fault::Truncated(truncated)
    }
}

fn scalar(kind: Kind, bytes: &[u8]) -> Value {
    let mut wide = [0u8; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    let unsigned = u64::from_le_bytes(wide);
    match kind {
        Kind::I8 => Value::Whole((unsigned as u8 as i8).into()),
        Kind::I16 => Value::Whole((unsigned as u16 as i16).into()),
        Kind::I32 => Value::Whole((unsigned as u32 as i32).into()),
        Kind::I64 => Value::Whole((unsigned as i64).into()),
        Kind::F32 => Value::Float(f32::from_bits(unsigned as u32).into()),
        Kind::F64 => Value::Float(f64::from_bits(unsigned)),
        Kind::Bool => Value::Bool(unsigned != 0),
        _ => Value::Whole(unsigned.into()),
    }
}

/// Reads a value of `kind`, walking over arrays without keeping them.
pub(super) fn read(cursor: &mut Cursor<'_>, kind: Kind, depth: usize) -> Result<Value, Fault> {
    match kind {
        Kind::Text => match cursor.string()? {
            Some(text) => Ok(Value::Text(text.into())),
            None => Err(Fault::Unfit("holds text that is not UTF-8".into())),
        },
        Kind::Array => {
            if depth == DEEPEST {
                return Err(Fault::Unfit(format!("nests arrays deeper than {DEEPEST}")));
            }
            let number = cursor.u32()?;
            let kind = Kind::of(number).ok_or_else(|| Fault::Unfit(format!("holds an array of kind {number}")))?;
            let (count, start) = (cursor.u64()?, cursor.position());
            match kind.width() {
                Some(width) => {
                    let bytes = count.saturating_mul(width);
                    cursor.take(bytes)?;
                }
                None => (0..count).try_for_each(|_| match kind {
                    Kind::Text => cursor.string().map(|_| ()).map_err(Fault::from),
                    _ => read(cursor, kind, depth + 1).map(drop),
                })?,
            }
            Ok(Value::Array { kind, count, place: start..cursor.position() })
        }
        _ => Ok(scalar(kind, cursor.take(kind.width().unwrap_or(0))?)),
    }
}

/// Every key of a file.
pub(super) struct Metadata {
    pub(super) file: PathBuf,
    pub(super) values: HashMap<String, Value>,
}

impl Metadata {
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// An error about the value of `key`.
    pub(super) fn wrong(&self, key: &str, expected: &str) -> CheckpointError {
        let found = match self.values.get(key) {
            None => "nothing".into(),
            Some(Value::Array { kind, count, .. }) => format!("{count} values of kind {kind:?}"),
            Some(value) => format!("{value:?}").chars().take(80).collect(),
        };
        CheckpointError::Malformed {
            file: self.file.clone(),
            problem: format!("key `{key}`: expected {expected}, found {found}"),
            advice: "convert the model to GGUF again",
        }
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&str>, CheckpointError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(key, "a string")),
        }
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, CheckpointError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, CheckpointError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Float(f)) if f.is_finite() => Ok(Some(*f)),
            Some(Value::Whole(n)) => Ok(Some(*n as f64)),
            Some(_) => Err(self.wrong(key, "a finite number")),
        }
    }

    pub(super) fn whole(&self, key: &str) -> Result<Option<u64>, CheckpointError> {
        match self.values.get(key) {
            None => Ok(None),
            Some(Value::Whole(n)) => u64::try_from(*n).map(Some).map_err(|_| self.wrong(key, "a whole number")),
            Some(_) => Err(self.wrong(key, "a whole number")),
        }
    }

    /// A whole number that some models write once per layer: it must be the same in all `layers`.
    pub(super) fn per_layer(&self, bytes: &Bytes, key: &str, layers: usize) -> Result<Option<u64>, CheckpointError> {
        let Some(Value::Array { .. }) = self.values.get(key) else { return self.whole(key) };
        let list = self.numbers(bytes, key)?.unwrap_or_default();
        match list.first() {
            Some(&first) if list.len() == layers && list.iter().all(|n| *n == first) && first >= 0.0 => {
                Ok(Some(first as u64))
            }
            _ => Err(self.wrong(
                key,
                &format!("one whole number, or {layers} equal ones (layers that differ are not supported)"),
            )),
        }
    }

    /// An array of numbers.
    pub(super) fn numbers(&self, bytes: &Bytes, key: &str) -> Result<Option<Vec<f64>>, CheckpointError> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        let (kind, place) = match value {
            Value::Array { kind, place, .. } if kind.width().is_some() => (*kind, place.clone()),
            _ => return Err(self.wrong(key, "an array of numbers")),
        };
        let width = kind.width().unwrap_or(1) as usize;
        let number = |bytes: &[u8]| match scalar(kind, bytes) {
            Value::Whole(n) => n as f64,
            Value::Float(f) => f,
            Value::Bool(flag) => f64::from(u8::from(flag)),
            Value::Text(_) | Value::Array { .. } => f64::NAN,
        };
        Ok(Some(bytes.as_slice()[place].chunks_exact(width).map(number).collect()))
    }

    /// An array of strings.
    pub(super) fn texts(&self, bytes: &Bytes, key: &str) -> Result<Option<Vec<String>>, CheckpointError> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        let (count, place) = match value {
            Value::Array { kind: Kind::Text, count, place } => (*count, place.clone()),
            _ => return Err(self.wrong(key, "an array of strings")),
        };
        let mut cursor = Cursor::new(&bytes.as_slice()[place]);
        let mut texts = vec![];
        for i in 0..count {
            match cursor.string() {
                Ok(Some(text)) => texts.push(text.to_string()),
                _ => return Err(self.wrong(key, &format!("strings of UTF-8 (entry {i} is not)"))),
            }
        }
        Ok(Some(texts))
    }
}
