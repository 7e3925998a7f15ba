//! The shapes a check can be printed in.

use std::str::FromStr;

use serde::Serialize;

use crate::check::Report;
use crate::{annotations, console, junit, markdown};

/// How a check is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// Plain text for a terminal.
    #[default]
    Console,
    /// A pull-request comment.
    Markdown,
    /// JUnit XML.
    Junit,
    /// GitHub workflow commands.
    Annotations,
    /// The whole report.
    Json,
}

impl Format {
    /// Every format under the name that a command line gives it.
    pub const ALL: &[(&str, Format)] = &[
        ("console", Format::Console),
        ("markdown", Format::Markdown),
        ("junit", Format::Junit),
        ("annotations", Format::Annotations),
        ("json", Format::Json),
    ];

    /// Prints `report`; `strict` decides the exit code that the JSON names.
    pub fn render(self, report: &Report, strict: bool) -> Result<String, serde_json::Error> {
        Ok(match self {
            Format::Console => console::render(report),
            Format::Markdown => markdown::render(report),
            Format::Junit => junit::render(report),
            Format::Annotations => annotations::render(report),
            Format::Json => {
                let receipt =
                    Receipt { schema: "infermark.check.v1", exit_code: report.verdict.exit_code(strict), report };
                serde_json::to_string_pretty(&receipt)? + "\n"
            }
        })
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names: Vec<&str> = Self::ALL.iter().map(|(name, _)| *name).collect();
        let found = Self::ALL.iter().find(|(name, _)| *name == text).map(|(_, format)| *format);
        found.ok_or_else(|| format!("unknown format `{text}`, expected one of {}", names.join(", ")))
    }
}

/// The JSON verdict.
#[derive(Serialize)]
struct Receipt<'a> {
    schema: &'static str,
    exit_code: u8,
    #[serde(flatten)]
    report: &'a Report,
}
