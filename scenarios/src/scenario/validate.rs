//! What a well-formed scenario must also be: everything that can be known before a model is opened.

mod claim;
mod rule;
mod task;
mod workload;

use std::collections::BTreeMap;
use std::path::Path;

use model::checkpoint::gguf::is_gguf;

use super::{ModelPart, Parts, Scenario, Workload};
use crate::diagnostic::{At, nearest};
use crate::library;
use crate::matrix::{self, AXES};

/// Something wrong at a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Path of the field, e.g. `workload[2].tokens`.
    pub path: String,
    /// Which side of it to point at.
    pub at: At,
    /// What is wrong.
    pub title: String,
    /// Words beside the caret.
    pub label: String,
    /// What to do.
    pub help: String,
}

#[derive(Default)]
struct Faults<'a> {
    list: Vec<Fault>,
    file: Option<&'a Path>,
}

impl Faults<'_> {
    fn add(&mut self, path: impl Into<String>, title: impl Into<String>, help: impl Into<String>) {
        let title = title.into();
        self.list.push(Fault { path: path.into(), at: At::Value, label: "here".into(), title, help: help.into() });
    }

    fn need(&mut self, holds: bool, path: &str, title: &str, help: &str) {
        if !holds {
            self.add(path, title, help);
        }
    }
}

/// Everything wrong with `scenario`, which lies at `file` when it lies anywhere.
pub fn validate(scenario: &Scenario, file: Option<&Path>) -> Vec<Fault> {
    let mut faults = Faults { list: vec![], file };
    head(scenario, &mut faults);
    budget(scenario, &mut faults);
    models(scenario, &mut faults);
    workload::check_all(scenario, &mut faults);
    cells(scenario, &mut faults);
    externals(scenario, &mut faults);
    claim::check_all(scenario, &mut faults);
    faults.list
}

fn head(scenario: &Scenario, faults: &mut Faults<'_>) {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if scenario.name.is_empty() || !scenario.name.chars().all(plain) {
        faults.add(
            "name",
            format!("{:?} is no scenario name", scenario.name),
            "use lower-case letters, digits and hyphens: it becomes a file name",
        );
    }
    if let Some(stem) = faults.file.and_then(Path::file_stem).map(|s| s.to_string_lossy().into_owned())
        && stem != scenario.name
    {
        let title = format!("{:?} is not the file's name, {stem:?}", scenario.name);
        faults.add(
            "name",
            title,
            format!("write name = \"{stem}\" or rename the file: results are found by this name"),
        );
    }
    faults.need(
        !scenario.question.trim().is_empty(),
        "question",
        "the question is empty",
        "say what the reader will know afterwards; the report opens with it",
    );
    faults.need(
        !scenario.workloads.is_empty(),
        "",
        "no workload: the cells would do nothing",
        "add at least one [[workload]], e.g. kind = \"decode\" with tokens = 128",
    );
}

fn budget(scenario: &Scenario, faults: &mut Faults<'_>) {
    let b = &scenario.budget;
    faults.need(
        b.seconds.is_finite() && b.seconds > 0.0,
        "budget.seconds",
        "must be a positive number of seconds",
        "60 is the default",
    );
    faults.need(
        b.min_repetitions >= 1,
        "budget.min_repetitions",
        "must be at least 1",
        "5 is the default; an interval needs 5 or more",
    );
    faults.need(
        b.min_repetitions <= b.max_repetitions,
        "budget.min_repetitions",
        &format!("{} is more than max_repetitions = {}", b.min_repetitions, b.max_repetitions),
        "raise max_repetitions or lower min_repetitions",
    );
    faults.need(
        b.precision > 0.0 && b.precision < 1.0,
        "budget.precision",
        "must lie between 0 and 1",
        "0.02 stops when the interval is within 2 % of the median",
    );
    faults.need(
        b.threads.is_none_or(|n| (1..=1024).contains(&n)),
        "budget.threads",
        "must be 1 to 1024",
        "leave it out to use the physical cores",
    );
    let e = &scenario.expect;
    faults.need(
        e.logit_tolerance.is_finite() && e.logit_tolerance >= 0.0,
        "expect.logit_tolerance",
        "must be a number that is at least 0",
        "2e-4 is the default",
    );
    faults.need(e.prompt_tokens >= 1, "expect.prompt_tokens", "must be at least 1", "48 is the default");
}

fn models(scenario: &Scenario, faults: &mut Faults<'_>) {
    if let Some(choice) = &scenario.model {
        check_source("model.source", &choice.source, faults);
        if let Some(draft) = &choice.draft {
            check_source("model.draft", draft, faults);
        }
    }
    let in_matrix = scenario.matrix.model.iter().enumerate().map(|(i, part)| (format!("matrix.model[{i}]"), part));
    let shared = scenario.engine.model.iter().map(|part| ("engine.model".to_string(), part));
    for (path, part) in in_matrix.chain(shared) {
        check_model(&path, part, faults);
    }
    if scenario.models().is_empty()
        && let Some(i) = scenario.workloads.iter().position(Workload::needs_model)
    {
        let title = "this workload runs a model, and the scenario names none";
        faults.add(format!("workload[{i}]"), title, "add [model] with source = \"embedded:base\"");
    }
    if let Some(calibration) = &scenario.calibration {
        workload::check_text("calibration.text", &calibration.text, faults);
        faults.need(calibration.windows >= 1, "calibration.windows", "must be at least 1", "32 is the default");
        faults.need(
            calibration.window_tokens >= 2,
            "calibration.window_tokens",
            "must be at least 2",
            "256 is the default",
        );
    }
}

/// The source exists, and its architecture, where it is known without reading weights, allows the transforms.
fn check_model(path: &str, part: &ModelPart, faults: &mut Faults<'_>) {
    let before = faults.list.len();
    check_source(path, &part.source, faults);
    if faults.list.len() > before || part.transforms.is_empty() {
        return;
    }
    let known = library::model_source(&part.source, faults.file).and_then(|source| library::architecture(&source));
    if let Ok(Some(architecture)) = known
        && let Err(error) = part.transforms.architecture(&architecture)
    {
        faults.add(path, error.to_string(), "a transform is applied to the checkpoint's own architecture");
    }
}

fn check_source(path: &str, given: &str, faults: &mut Faults<'_>) {
    let problem = match library::model_source(given, faults.file) {
        Err(error) => error.to_string(),
        Ok(engine::ModelSource::Embedded(name)) if !library::checkpoints().iter().any(|m| m.name == name) => {
            let known: Vec<&str> = library::checkpoints().iter().map(|m| m.name).collect();
            let listed = known.iter().map(|n| format!("embedded:{n}")).collect::<Vec<_>>().join(", ");
            match nearest(&name, known) {
                Some(word) => format!(
                    "no embedded checkpoint is called `{name}`; did you mean `embedded:{word}`? There is {listed}"
                ),
                None => format!("no embedded checkpoint is called `{name}`; there is {listed}"),
            }
        }
        Ok(engine::ModelSource::Folder(folder)) if !folder.is_dir() && !is_gguf(&folder) => {
            format!(
                "`{}` is neither a folder nor a GGUF file; expected embedded:NAME, random:SHAPE, hf:org/name@revision, a Hugging Face folder or a GGUF file, relative to the scenario file",
                folder.display()
            )
        }
        Ok(_) => return,
    };
    let (title, help) = problem.split_once("; ").unwrap_or((&problem, ""));
    faults.add(path, title, help);
}

fn cells(scenario: &Scenario, faults: &mut Faults<'_>) {
    let lists = matrix::lists(scenario);
    for (axis, list) in AXES.iter().zip(&lists) {
        let mut seen = BTreeMap::new();
        for (i, tag) in list.iter().enumerate() {
            if let Some(first) = seen.insert(tag, i) {
                let title = format!("`{tag}` is listed twice (first as number {})", first + 1);
                faults.add(format!("matrix.{axis}[{i}]"), title, "remove one: two cells would be the same");
            }
        }
    }
    for (axis, (list, reference)) in AXES.iter().zip(lists.iter().zip(matrix::reference_tags(scenario))) {
        if let Some(tag) = reference.filter(|tag| !list.contains(tag)) {
            let title = format!("`{tag}` is not in the matrix, which has {}", list.join(", "));
            faults.add(
                format!("reference.{axis}"),
                title,
                format!("add it to matrix.{axis} or choose one of the list"),
            );
        }
    }
    single_cells(scenario, &lists, faults);
    let needs_text = |spec: &weights::WeightsSpec| spec.needs_calibration();
    let models = scenario.models();
    let random = !models.is_empty() && models.iter().all(ModelPart::is_random);
    if scenario.calibration.is_none() && !random {
        let in_matrix = scenario.matrix.weights.iter().position(needs_text).map(|i| format!("matrix.weights[{i}]"));
        let in_engine =
            scenario.engine.weights.as_ref().filter(|spec| needs_text(spec)).map(|_| "engine.weights".to_string());
        let alone = |parts: &Parts| parts.weights.as_ref().is_some_and(needs_text);
        let in_cell = scenario.cells.iter().position(alone).map(|i| format!("cell[{i}].weights"));
        if let Some(path) = in_matrix.or(in_engine).or(in_cell) {
            faults.add(
                path,
                "this quantizer needs a calibration text",
                "add [calibration] with text = \"embedded:calibration\"",
            );
        }
    }
    for (i, spec) in scenario.matrix.decoding.iter().enumerate() {
        check_decoding(&format!("matrix.decoding[{i}]"), spec, faults);
    }
    if let Some(spec) = &scenario.engine.decoding {
        check_decoding("engine.decoding", spec, faults);
    }
    let product: usize = lists.iter().map(|list| list.len().max(1)).product();
    let n = product + scenario.cells.len();
    faults.need(
        n <= matrix::MOST_CELLS,
        "matrix",
        &format!("{n} cells are more than the {} allowed", matrix::MOST_CELLS),
        "shorten a list: every cell is a process of its own",
    );
}

/// Cells that are listed one by one: each differs from every other.
fn single_cells(scenario: &Scenario, lists: &[Vec<String>; 6], faults: &mut Faults<'_>) {
    let wanted = matrix::reference_tags(scenario);
    let first = |(list, tag): (&Vec<String>, Option<String>)| tag.or_else(|| list.first().cloned()).unwrap_or_default();
    let reference: Vec<String> = lists.iter().zip(wanted).map(first).collect();
    let mut seen: Vec<Vec<String>> = vec![];
    for (i, parts) in scenario.cells.iter().enumerate() {
        let path = format!("cell[{i}]");
        if parts.model.is_some() {
            let help = "list models in matrix.model: single cells have the reference's";
            faults.add(format!("{path}.model"), "a single cell has no model of its own", help);
        }
        if let Some(spec) = &parts.decoding {
            check_decoding(&format!("{path}.decoding"), spec, faults);
        }
        let own: Vec<String> = matrix::tags_of(parts)
            .into_iter()
            .zip(&reference)
            .map(|(tag, r)| tag.unwrap_or_else(|| r.clone()))
            .collect();
        let of_matrix = lists.iter().zip(&own).all(|(list, tag)| list.contains(tag));
        if of_matrix || seen.contains(&own) {
            let title = format!("the cell {} is there already", own[1..].join("+"));
            faults.add(path, title, "remove one, or name a part in which it differs from the reference");
        }
        seen.push(own);
    }
}

fn externals(scenario: &Scenario, faults: &mut Faults<'_>) {
    let mut seen = vec![];
    for (i, external) in scenario.externals.iter().enumerate() {
        for (field, list, known) in external.lists() {
            for (at, word) in list.iter().enumerate().filter(|(_, word)| !known.contains(&word.as_str())) {
                let title = format!("{} has no {field} called `{word}`", external.engine.name());
                faults.add(format!("external[{i}].{field}[{at}]"), title, format!("there is {}", known.join(", ")));
            }
        }
        for part in external.parts() {
            match seen.contains(&part) {
                true => faults.add(
                    format!("external[{i}]"),
                    format!("{} {} {} is listed twice", part.engine.name(), part.attention, part.weights),
                    "remove one: two cells would be the same",
                ),
                false => seen.push(part),
            }
        }
    }
    let most = matrix::MOST_CELLS;
    faults.need(seen.len() <= most, "external", &format!("more than {most} cells"), "shorten a list");
}

fn check_decoding(path: &str, spec: &decoding::DecodingSpec, faults: &mut Faults<'_>) {
    if let Err(error) = spec.validate() {
        let problem = error.to_string();
        let (title, help) = problem.split_once(": ").unwrap_or((&problem, ""));
        faults.add(path, title, help);
    }
}
