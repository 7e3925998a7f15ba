//! `list` and `show`: the scenarios inside the program.

use clap::Args;
use serde::Serialize;

use super::table::table;
use super::{Blame, Outcome, PASS, Shape, find, json, print};
use crate::cell::ResolvedScenario;
use crate::library;

/// The command `list`.
#[derive(Args)]
pub struct List {
    /// For people or for programs
    #[arg(long, value_enum, default_value_t)]
    format: Shape,
}

#[derive(Serialize)]
struct Row {
    name: &'static str,
    group: &'static str,
    question: String,
    cells: usize,
    claims: usize,
}

impl List {
    pub(super) fn obey(&self) -> Outcome {
        let mut rows = vec![];
        for definition in library::definitions() {
            let resolved = ResolvedScenario::parse(definition.text, None).failed()?;
            rows.push(Row {
                name: definition.name,
                group: definition.group(),
                question: resolved.scenario.question.trim().into(),
                cells: resolved.cells.len(),
                claims: resolved.scenario.claims.len(),
            });
        }
        match self.format {
            Shape::Json => print(&json(&rows)?)?,
            Shape::Table => {
                let cells =
                    |r: Row| vec![r.name.into(), r.group.into(), r.cells.to_string(), r.claims.to_string(), r.question];
                print(&table(&["scenario", "group", "cells", "claims", "question"], rows.into_iter().map(cells)))?;
            }
        }
        Ok(PASS)
    }
}

/// The command `show`.
#[derive(Args)]
#[command(after_help = "Save it as a file, set `name` to the file's name, change it, and run it:
  infermark show smoke > mine.toml")]
pub struct Show {
    /// Name of a scenario
    #[arg(value_name = "NAME")]
    name: String,
}

impl Show {
    pub(super) fn obey(&self) -> Outcome {
        print(&find::find(&self.name)?.text)?;
        Ok(PASS)
    }
}
