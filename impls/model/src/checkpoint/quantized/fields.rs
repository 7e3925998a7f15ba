//! A `quantization_config` being read: typed fields, errors that name them.

use std::path::Path;

use serde_json::{Map, Value};

use crate::architecture::ConfigError;
use crate::checkpoint::CheckpointError;

/// The table, and what to call its fields.
pub(super) struct ConfigFields {
    file: String,
    prefix: &'static str,
    map: Map<String, Value>,
    /// Where the table has no `quant_method`.
    method: &'static str,
}

impl ConfigFields {
    /// `quantization_config` inside the config.json `file`; nothing where it is absent or null.
    pub(super) fn inside(file: &Path, text: &str) -> Result<Option<ConfigFields>, CheckpointError> {
        let config = object(file, text)?;
        match config.get("quantization_config") {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(map)) => Ok(Some(ConfigFields {
                file: file.display().to_string(),
                prefix: "quantization_config.",
                map: map.clone(),
                method: "",
            })),
            Some(other) => {
                let file = file.display().to_string();
                let (expected, found) = ("an object".into(), other.to_string());
                Err(ConfigError::Field { file, field: "quantization_config".into(), expected, found }.into())
            }
        }
    }

    /// A quantizer's own file; `method` is whose.
    pub(super) fn whole(file: &Path, text: &str, method: &'static str) -> Result<ConfigFields, CheckpointError> {
        Ok(ConfigFields { file: file.display().to_string(), prefix: "", map: object(file, text)?, method })
    }

    /// Which quantizer wrote the weights.
    pub(super) fn method(&self) -> Result<String, CheckpointError> {
        Ok(self.text(&["quant_method"])?.unwrap_or_else(|| self.method.into()))
    }

    fn value(&self, field: &str) -> Option<&Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    /// The first of `names` that is present.
    fn first<'n>(&self, names: &[&'n str]) -> &'n str {
        names.iter().find(|name| self.value(name).is_some()).unwrap_or(&names[0])
    }

    /// A lower-case word.
    pub(super) fn text(&self, names: &[&str]) -> Result<Option<String>, CheckpointError> {
        let name = self.first(names);
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.to_lowercase())),
            Some(_) => Err(self.wrong(name, "a string")),
        }
    }

    /// One of `known`, or `default` where absent; refused by name otherwise.
    pub(super) fn word(&self, names: &[&str], known: &[&str], default: &str) -> Result<String, CheckpointError> {
        let found = self.text(names)?.unwrap_or_else(|| default.into());
        match known.contains(&found.as_str()) {
            true => Ok(found),
            false => Err(self.unsupported(self.first(names), &known.join(", "))),
        }
    }

    pub(super) fn flag(&self, name: &str, default: bool) -> Result<bool, CheckpointError> {
        match self.value(name) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.wrong(name, "true or false")),
        }
    }

    /// Bits per code, one of `known`.
    pub(super) fn bits(&self, names: &[&str], known: &[u8]) -> Result<u8, CheckpointError> {
        let name = self.first(names);
        let found = self.value(name).and_then(Value::as_u64);
        match found.and_then(|bits| known.iter().find(|&&k| u64::from(k) == bits)) {
            Some(&bits) => Ok(bits),
            None => {
                let known = known.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
                Err(self.wrong(name, &format!("one of {known}")))
            }
        }
    }

    /// Columns per group; −1 (`None`) is a whole row.
    pub(super) fn group(&self, names: &[&str]) -> Result<Option<usize>, CheckpointError> {
        let name = self.first(names);
        match self.value(name).and_then(Value::as_i64) {
            Some(-1) => Ok(None),
            Some(group) if (1..=1 << 20).contains(&group) => Ok(Some(group as usize)),
            _ => Err(self.wrong(name, "-1 or 1 to 1048576")),
        }
    }

    /// Refuses `field` unless it is absent, null, false, or an empty list, table or text.
    pub(super) fn must_be_unset(&self, field: &str) -> Result<(), CheckpointError> {
        let unset = match self.value(field) {
            None | Some(Value::Bool(false)) => true,
            Some(Value::Array(list)) => list.is_empty(),
            Some(Value::Object(map)) => map.is_empty(),
            Some(Value::String(text)) => text.is_empty() || text == "none",
            Some(_) => false,
        };
        if unset { Ok(()) } else { Err(self.unsupported(field, "absent")) }
    }

    pub(super) fn wrong(&self, field: &str, expected: &str) -> CheckpointError {
        let (file, found) = (self.file.clone(), self.shown(field));
        ConfigError::Field { file, field: format!("{}{field}", self.prefix), expected: expected.into(), found }.into()
    }

    pub(super) fn unsupported(&self, field: &str, supported: &str) -> CheckpointError {
        let (file, asked) = (self.file.clone(), self.shown(field));
        let (field, supported) = (format!("{}{field}", self.prefix), supported.into());
        ConfigError::Unsupported { file, field, asked, supported }.into()
    }

    fn shown(&self, field: &str) -> String {
        self.value(field).map_or("nothing".into(), |value| value.to_string().chars().take(80).collect())
    }
}

fn object(file: &Path, text: &str) -> Result<Map<String, Value>, CheckpointError> {
    let syntax = |reason: String| ConfigError::Syntax { file: file.display().to_string(), reason };
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(syntax("the top level is not an object".into()).into()),
        Err(e) => Err(syntax(e.to_string()).into()),
    }
}
