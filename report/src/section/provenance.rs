//! Everything a number depends on that is no column: code, machine, inputs, hashes.

use results::run::sitting_of;
use serde::Serialize;

use super::{Content, Section};
use crate::digest::Digest;

/// See the module.
pub const SECTION: Section = Section {
    id: "provenance",
    title: "Provenance",
    reading: "Where the numbers come from: code, build, machine, inputs and their hashes. Two runs are comparable when these agree.",
    template: include_str!("../../templates/provenance.tera"),
    content,
};

#[derive(Serialize)]
struct Scope {
    name: String,
    title: String,
    open: bool,
    facts: Vec<(String, Vec<String>)>,
}

#[derive(Serialize)]
struct Values {
    run_id: String,
    command: String,
    n_rows: usize,
    scopes: Vec<Scope>,
}

fn content(digest: &Digest) -> tera::TeraResult<Content> {
    let mut scopes: Vec<Scope> = Vec::new();
    for fact in &digest.run.facts {
        let scope = match scopes.iter_mut().find(|scope| scope.name == fact.scope) {
            Some(scope) => scope,
            None => {
                let (title, open) = match fact.scope.as_str() {
                    "run" => ("The run".to_owned(), true),
                    "machine" => ("The machine".to_owned(), true),
                    sitting if sitting_of(sitting).is_some() => (format!("Rows with {sitting}"), true),
                    cell => (digest.index(cell).map_or(cell, |index| &digest.cells[index].label).to_owned(), false),
                };
                scopes.push(Scope { name: fact.scope.clone(), title, open, facts: Vec::new() });
                scopes.last_mut().expect("just pushed")
            }
        };
        // a resumed run states its facts once per sitting: different values stay visible
        match scope.facts.iter_mut().find(|(key, _)| *key == fact.key) {
            Some((_, values)) if values.contains(&fact.value) => {}
            Some((_, values)) => values.push(fact.value.clone()),
            None => scope.facts.push((fact.key.clone(), vec![fact.value.clone()])),
        }
    }
    let run_id = digest.summary().map(|summary| summary.run_id.clone());
    let run_id = run_id.or_else(|| digest.run.observations.first().map(|row| row.run_id.clone()));
    Content::of(&Values {
        run_id: run_id.unwrap_or_default(),
        command: digest.summary().map_or(String::new(), |summary| summary.command.clone()),
        n_rows: digest.run.observations.len(),
        scopes,
    })
}
