//! From what the caller wrote to a resolved scenario whose models exist and are long enough.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use results::run::{Run, StoreError};

use super::changes::Changes;
use super::{Blame, Failure};
use crate::cell::ResolvedScenario;
use crate::diagnostic::{At, Diagnostic, Diagnostics, Document, nearest};
use crate::forecast::Forecast;
use crate::library;
use crate::scenario::{self, Scenario, Workload};

/// The text of a scenario and the file it is in, when it is in one.
pub struct Found {
    /// The TOML.
    pub text: String,
    /// The file.
    pub file: Option<PathBuf>,
}

/// Finds the scenario called `given`, or the file of that path.
pub fn find(given: &str) -> Result<Found, Failure> {
    let path = Path::new(given);
    let is_path = path.extension().is_some_and(|e| e == "toml") || given.contains(['/', '\\']);
    if is_path {
        return Ok(Found { text: scenario::read(path).usage()?, file: Some(path.into()) });
    }
    if let Some(definition) = library::definition(given) {
        return Ok(Found { text: definition.text.into(), file: None });
    }
    let names = library::definitions().iter().map(|d| d.name);
    let hint = match nearest(given, names) {
        Some(name) => format!("did you mean `{name}`? "),
        None if path.exists() => format!("a file needs its ending or its folder: ./{given}; "),
        None => String::new(),
    };
    Err(anyhow!("no scenario is called `{given}`; {hint}`infermark list` shows all of them, and the path of a .toml file works too")).usage()
}

/// The run that lies in `path`.
pub fn run(path: &Path) -> Result<Run, Failure> {
    const EXPECTED: &str = "expected a run directory that `infermark run` wrote";
    let none = |what: &str| Err(anyhow!("{}: {what}; {EXPECTED}", path.display())).usage();
    match path {
        path if !path.exists() => none("no such run directory"),
        path if !path.is_dir() => none("is a file"),
        path => match Run::load(path) {
            Err(StoreError::NotARun { .. }) => {
                none("holds no run (neither observations.parquet nor observations.jsonl)")
            }
            loaded => loaded.failed(),
        },
    }
}

/// The interpreter of other engines: `python3`, or the one that was named. A path that is not there is a slip of the pen; a bare name is
/// looked up on the machine, and where it is missing the cells that need it are skipped.
pub fn python(given: Option<&Path>) -> Result<PathBuf, Failure> {
    let python = given.unwrap_or(Path::new("python3"));
    if python.components().count() > 1 && !python.is_file() {
        let problem = "there is no such program; expected a Python 3.9 interpreter or newer";
        return Err(anyhow!("--python {}: {problem}", python.display())).usage();
    }
    Ok(python.into())
}

/// Resolves `found` with the overrides of the command line, and checks that its models can do what it asks.
pub fn resolve(found: Found, changes: &Changes) -> Result<ResolvedScenario, Failure> {
    let text = changes.applied(&found.text)?;
    let resolved = ResolvedScenario::parse(&text, found.file.as_deref()).usage()?;
    check_lengths(&resolved)?;
    check_calibration(&resolved)?;
    Ok(resolved)
}

/// A quantizer that is given no window would choose its codes without looking.
fn check_calibration(resolved: &ResolvedScenario) -> Result<(), Failure> {
    let mut forecast = Forecast::default();
    let Some(reason) = resolved.cells.iter().find_map(|cell| forecast.calibration(resolved, cell)) else {
        return Ok(());
    };
    let diagnostic = Diagnostic {
        title: format!("`calibration`: {reason}"),
        span: span(resolved, "calibration.text"),
        label: "too short".into(),
        help: "give a longer text, or set calibration.window_tokens to fewer tokens".into(),
    };
    Err(Diagnostics::one(&shown(resolved), &resolved.source_text, diagnostic)).usage()
}

fn span(resolved: &ResolvedScenario, path: &str) -> std::ops::Range<usize> {
    Document::parse(&resolved.source_text).map_or(0..0, |document| document.span(path, At::Value))
}

/// The scenario as a message names it.
fn shown(resolved: &ResolvedScenario) -> String {
    resolved.file.as_ref().map_or(resolved.scenario.name.clone(), |file| file.display().to_string())
}

/// Nothing in the scenario may be longer than the positions its models know.
fn check_lengths(resolved: &ResolvedScenario) -> Result<(), Failure> {
    let file = resolved.file.as_deref();
    for (field, given) in sources(&resolved.scenario) {
        let source = library::model_source(&given, file).usage()?;
        // a hub model that is not here yet is checked when its engine is built
        let Some(architecture) = library::architecture(&source).failed()? else { continue };
        let limit = architecture.max_positions;
        let Some((path, what)) = too_long(&resolved.scenario, limit) else { continue };
        let diagnostic = Diagnostic {
            title: format!("`{path}`: {what} is more than the {limit} positions of {field} = \"{given}\""),
            span: span(resolved, &path),
            label: format!("at most {limit}"),
            help: "shorten it, or choose a model with a longer context".into(),
        };
        return Err(Diagnostics::one(&shown(resolved), &resolved.source_text, diagnostic)).usage();
    }
    Ok(())
}

/// Every checkpoint that the cells use, with the field that names it.
fn sources(scenario: &Scenario) -> Vec<(&'static str, String)> {
    let field = match (&scenario.matrix.model[..], &scenario.engine.model) {
        ([], None) => "model.source",
        ([], Some(_)) => "engine.model",
        _ => "matrix.model",
    };
    let mut found: Vec<_> = scenario.models().into_iter().map(|part| (field, part.source)).collect();
    found.extend(scenario.draft().map(|draft| ("model.draft", draft.to_string())));
    found
}

/// The first field that asks for more than `limit` positions, and what it asks for in words.
fn too_long(scenario: &Scenario, limit: usize) -> Option<(String, String)> {
    let expect = &scenario.expect;
    if expect.prompt_tokens.saturating_add(expect.lossless_tokens) > limit {
        let what = format!("a check of {} and {} tokens", expect.prompt_tokens, expect.lossless_tokens);
        return Some(("expect".into(), what));
    }
    if let Some(calibration) = scenario.calibration.as_ref().filter(|c| c.window_tokens > limit) {
        return Some(("calibration.window_tokens".into(), format!("{} tokens", calibration.window_tokens)));
    }
    let i = scenario.workloads.iter().position(|w| w.context_tokens() > limit)?;
    let workload = &scenario.workloads[i];
    let tokens = format!("{} tokens", workload.context_tokens());
    Some(match workload {
        Workload::Perplexity { protocols, .. } => {
            let at = protocols.iter().position(|p| p.window > limit).unwrap_or(0);
            (format!("workload[{i}].protocols[{at}].window"), tokens)
        }
        Workload::Generate { prompt_tokens, new_tokens, .. } => {
            let what = format!("a prompt of {prompt_tokens} and {new_tokens} new tokens");
            (format!("workload[{i}].new_tokens"), what)
        }
        Workload::Decode { context, tokens, .. } => {
            let what = format!("{context} tokens of context and {tokens} new ones");
            (format!("workload[{i}].tokens"), what)
        }
        Workload::Sensitivity { .. } => (format!("workload[{i}].window_tokens"), tokens),
        Workload::Passkey(_) => (format!("workload[{i}].lengths"), format!("a text of {tokens}")),
        _ => (format!("workload[{i}].tokens"), tokens),
    })
}

/// Brings every hub repository that the scenario names into the cache, once, before workers ask for it.
pub fn fetch_models(resolved: &ResolvedScenario) -> Result<(), Failure> {
    for (_, given) in sources(&resolved.scenario) {
        if let engine::ModelSource::Hub { repo, revision } =
            library::model_source(&given, resolved.file.as_deref()).usage()?
        {
            library::models().hub.fetch(&repo, &revision).failed()?;
        }
    }
    Ok(())
}
