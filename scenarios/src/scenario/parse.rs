//! From text to a checked [`Scenario`].

use std::path::Path;

use super::Scenario;
use super::validate::validate;
use crate::diagnostic::{Diagnostic, Diagnostics, Document, explain};

/// Longest scenario file, bytes: far above any that a person writes.
const LIMIT_BYTES: usize = 1 << 20;

/// Parses and checks the text of a scenario; `shown` names it in messages, `file` is where it lies, when it does.
pub fn parse(text: &str, shown: &str, file: Option<&Path>) -> Result<Scenario, Diagnostics> {
    let fail = |diagnostic| Diagnostics::one(shown, text, diagnostic);
    if text.len() > LIMIT_BYTES {
        let problem = format!("a scenario of {} bytes is longer than the {LIMIT_BYTES} allowed", text.len());
        return Err(Diagnostics::unreadable(
            Path::new(shown),
            problem,
            "put texts into files of their own and name them",
        ));
    }
    let syntax = |error: toml::de::Error| {
        let message = error.message();
        let (what, more) = message.split_once('\n').unwrap_or((message, ""));
        fail(Diagnostic {
            title: format!("not TOML: {what}"),
            span: error.span().unwrap_or(0..0),
            label: "here".into(),
            help: more.replace('\n', "; "),
        })
    };
    let document = Document::parse(text).map_err(syntax)?;
    let deserializer = toml::Deserializer::parse(text).map_err(syntax)?;
    let scenario: Scenario = serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        fail(explain(&document, &path, inner.message(), inner.span().unwrap_or(0..0)))
    })?;
    let faults = validate(&scenario, file);
    if faults.is_empty() {
        return Ok(scenario);
    }
    let place = |fault: super::validate::Fault| Diagnostic {
        span: document.span(&fault.path, fault.at),
        title: if fault.path.is_empty() { fault.title } else { format!("`{}`: {}", fault.path, fault.title) },
        label: fault.label,
        help: fault.help,
    };
    Err(Diagnostics { file: shown.into(), source: text.into(), list: faults.into_iter().map(place).collect() })
}

/// Text of the scenario file `file`.
pub fn read(file: &Path) -> Result<String, Diagnostics> {
    let bytes = std::fs::read(file).map_err(|error| {
        let help = "`infermark list` shows the scenarios that need no file";
        Diagnostics::unreadable(file, format!("cannot read the scenario: {error}"), help)
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Diagnostics::unreadable(file, format!("not UTF-8 at byte {at}"), "save the file as UTF-8")
    })
}
