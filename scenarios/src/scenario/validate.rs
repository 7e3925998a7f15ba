//! What a well-formed scenario must also be: everything that can be known before a model is opened.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Claim, Measure, Protocol, Scenario, Select, Workload};
use crate::diagnostic::{At, meant, nearest};
use crate::matrix::{self, AXES};
use crate::{library, text};

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
    let mut names = BTreeMap::new();
    for (i, workload) in scenario.workloads.iter().enumerate() {
        if let Some(first) = names.insert(workload.name(), i) {
            let title = format!("`{}` is the name of workload number {} too", workload.name(), first + 1);
            faults.add(format!("workload[{i}]"), title, "join the two into one: their results could not be told apart");
        }
        check_workload(scenario, &format!("workload[{i}]"), workload, &mut faults);
    }
    cells(scenario, &mut faults);
    claims(scenario, &mut faults);
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
    match &scenario.model {
        Some(choice) => {
            check_source("model.source", &choice.source, faults);
            if let Some(draft) = &choice.draft {
                check_source("model.draft", draft, faults);
            }
        }
        None => {
            let needing = scenario.workloads.iter().position(Workload::needs_model);
            if let Some(i) = needing {
                let title = "this workload runs a model, and the scenario names none";
                faults.add(format!("workload[{i}]"), title, "add [model] with source = \"embedded:base\"");
            }
        }
    }
    if let Some(calibration) = &scenario.calibration {
        check_text("calibration.text", &calibration.text, faults);
        faults.need(calibration.windows >= 1, "calibration.windows", "must be at least 1", "32 is the default");
        faults.need(
            calibration.window_tokens >= 2,
            "calibration.window_tokens",
            "must be at least 2",
            "256 is the default",
        );
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
        Ok(engine::ModelSource::Folder(folder)) if !folder.is_dir() => {
            format!(
                "`{}` is not a folder; expected embedded:NAME, random:SHAPE, hf:org/name@revision or a Hugging Face folder, relative to the scenario file",
                folder.display()
            )
        }
        Ok(_) => return,
    };
    let (title, help) = problem.split_once("; ").unwrap_or((&problem, ""));
    faults.add(path, title, help);
}

fn check_text(path: &str, given: &str, faults: &mut Faults<'_>) {
    if let Err(error) = text::exists(given, faults.file) {
        let problem = error.to_string();
        let (title, help) = problem.split_once("; ").unwrap_or((&problem, ""));
        faults.add(path, title, help);
    }
}

fn check_workload(scenario: &Scenario, path: &str, workload: &Workload, faults: &mut Faults<'_>) {
    let field = |name: &str| format!("{path}.{name}");
    match workload {
        Workload::Perplexity { text, protocols, max_tokens } => {
            check_text(&field("text"), text, faults);
            faults.need(
                !protocols.is_empty(),
                &field("protocols"),
                "no protocol",
                "e.g. protocols = [{ rule = \"gptq\", window = 512 }]",
            );
            for (i, protocol) in protocols.iter().enumerate() {
                check_protocol(&format!("{path}.protocols[{i}]"), protocol, faults);
            }
            faults.need(
                max_tokens.is_none_or(|n| n >= 2),
                &field("max_tokens"),
                "must be at least 2",
                "leave it out to read the whole text",
            );
        }
        Workload::Prefill { tokens } => {
            faults.need(
                !tokens.is_empty() && tokens.iter().all(|&n| n >= 1),
                &field("tokens"),
                "must be prompt lengths of at least 1",
                "e.g. tokens = [512]",
            );
        }
        Workload::Decode { tokens, context } => {
            faults.need(*tokens >= 1, &field("tokens"), "must be at least 1", "e.g. tokens = 128");
            faults.need(
                *context >= 1,
                &field("context"),
                "must be at least 1",
                "a decoder needs a token to start from; 16 is the default",
            );
        }
        Workload::Generate { text, prompts, prompt_tokens, new_tokens } => {
            check_text(&field("text"), text, faults);
            for (name, n) in [("prompts", prompts), ("prompt_tokens", prompt_tokens), ("new_tokens", new_tokens)] {
                faults.need(
                    *n >= 1,
                    &field(name),
                    "must be at least 1",
                    "e.g. prompts = 8, prompt_tokens = 64, new_tokens = 64",
                );
            }
        }
        Workload::Kernels { kernels } => {
            faults.need(
                !kernels.is_empty(),
                &field("kernels"),
                "no kernel",
                "e.g. kernels = [{ op = \"gemm\", rows = 512, n = 512, k = 512 }]",
            );
            for (i, kernel) in kernels.iter().enumerate() {
                let known = cpu_kernels::OPS;
                if !known.contains(&kernel.op.as_str()) {
                    let help = meant(&kernel.op, known, "operations");
                    faults.add(format!("{path}.kernels[{i}].op"), format!("unknown operation `{}`", kernel.op), help);
                }
                for (name, n) in [("rows", kernel.rows), ("n", kernel.n), ("k", kernel.k)] {
                    faults.need(
                        (1..=1 << 24).contains(&n),
                        &format!("{path}.kernels[{i}].{name}"),
                        "must be 1 to 16777216",
                        "it is a matrix size",
                    );
                }
            }
        }
        Workload::AttentionSweep { lengths, heads, kv_heads, head_dim, .. } => {
            faults.need(
                !lengths.is_empty() && lengths.iter().all(|&n| n >= 1),
                &field("lengths"),
                "must be sequence lengths of at least 1",
                "e.g. lengths = [256, 512, 1024]",
            );
            faults.need(
                *heads >= 1 && *kv_heads >= 1 && heads.is_multiple_of((*kv_heads).max(1)),
                &field("kv_heads"),
                "must divide `heads`",
                "every KV head serves the same number of query heads",
            );
            faults.need(*head_dim >= 1, &field("head_dim"), "must be at least 1", "64 is usual");
        }
        Workload::Identity { check } => {
            let known: Vec<&str> = crate::claims::identities().iter().map(|(name, _)| *name).collect();
            if !known.contains(&check.as_str()) {
                faults.add(field("check"), format!("unknown identity `{check}`"), meant(check, &known, "identities"));
            }
        }
    }
    let random = scenario.model.as_ref().is_some_and(|m| m.source.starts_with("random:"));
    if random && matches!(workload, Workload::Perplexity { .. } | Workload::Generate { .. }) {
        faults.add(
            path,
            "random weights cannot read text",
            "use prefill and decode for speed, or a trained checkpoint",
        );
    }
}

fn check_protocol(path: &str, protocol: &Protocol, faults: &mut Faults<'_>) {
    let known = Protocol::RULES;
    if !known.contains(&protocol.rule.as_str()) {
        let help = meant(&protocol.rule, &known, "rules");
        faults.add(format!("{path}.rule"), format!("unknown rule `{}`", protocol.rule), help);
    }
    faults.need(
        protocol.window >= 2,
        &format!("{path}.window"),
        "must be at least 2 tokens",
        "the first token of a window has nothing before it, so one token is never scored",
    );
    match (protocol.rule.as_str(), protocol.stride) {
        ("hf-stride", Some(stride)) => {
            faults.need(
                (1..=protocol.window).contains(&stride),
                &format!("{path}.stride"),
                &format!("must be 1 to the window, {}", protocol.window),
                "half the window is usual",
            );
        }
        ("hf-stride", None) => {
            faults.add(path, "hf-stride needs a `stride`", format!("e.g. stride = {}", protocol.window / 2))
        }
        (_, Some(_)) => faults.add(
            format!("{path}.stride"),
            "only hf-stride has a stride",
            "remove it: the windows of this rule do not overlap",
        ),
        (_, None) => {}
    }
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
    let needs_text = |spec: &weights::WeightsSpec| spec.needs_calibration();
    let random = scenario.model.as_ref().is_some_and(|m| m.source.starts_with("random:"));
    if scenario.calibration.is_none() && !random {
        let in_matrix = scenario.matrix.weights.iter().position(needs_text).map(|i| format!("matrix.weights[{i}]"));
        let in_engine =
            scenario.engine.weights.as_ref().filter(|spec| needs_text(spec)).map(|_| "engine.weights".to_string());
        if let Some(path) = in_matrix.or(in_engine) {
            faults.add(
                path,
                "this quantizer needs a calibration text",
                "add [calibration] with text = \"embedded:calibration\"",
            );
        }
    }
    let n: usize = lists.iter().map(|list| list.len().max(1)).product();
    faults.need(
        n <= matrix::MOST_CELLS,
        "matrix",
        &format!("{n} cells are more than the {} allowed", matrix::MOST_CELLS),
        "shorten a list: every cell is a process of its own",
    );
}

fn claims(scenario: &Scenario, faults: &mut Faults<'_>) {
    let lists = matrix::lists(scenario);
    let mut seen = BTreeMap::new();
    for (i, claim) in scenario.claims.iter().enumerate() {
        let path = format!("claim[{i}]");
        if let Some(first) = seen.insert(&claim.id, i) {
            faults.add(
                format!("{path}.id"),
                format!("claim `{}` is already number {}", claim.id, first + 1),
                "give each claim its own id",
            );
        }
        check_claim(&path, claim, &lists, faults);
    }
}

fn check_claim(path: &str, claim: &Claim, lists: &[Vec<String>; 5], faults: &mut Faults<'_>) {
    faults.need(
        !claim.parts.is_empty(),
        path,
        "a claim without a part has no number",
        "add a [[claim.part]] with label, measure and rule",
    );
    for (i, part) in claim.parts.iter().enumerate() {
        let part_path = format!("{path}.part[{i}]");
        for (name, select) in part.measure.selections() {
            for (axis, (tag, list)) in AXES.iter().zip(select.tags().into_iter().zip(lists)) {
                let Some(tag) = tag.filter(|tag| !list.iter().any(|t| t == *tag)) else { continue };
                let known: Vec<&str> = list.iter().map(String::as_str).collect();
                let title = format!("no cell has {axis} `{tag}`");
                faults.add(format!("{part_path}.measure.{name}.{axis}"), title, meant(tag, &known, "tags"));
            }
        }
        let rule = &part.rule;
        let judged = rule.at_least.is_some() || rule.at_most.is_some();
        let title = "the rule judges nothing: no at_least, no at_most, not report_only";
        faults.need(
            judged || rule.report_only,
            &format!("{part_path}.rule"),
            title,
            "add a bound, or report_only = true",
        );
    }
}

impl Measure {
    /// The cells this measure names, by field.
    fn selections(&self) -> Vec<(&'static str, &Select)> {
        match self {
            Measure::Value { cell, .. } | Measure::Slope { cell, .. } | Measure::Share { cell, .. } => {
                vec![("cell", cell)]
            }
            Measure::Ratio { over, under, .. } => vec![("over", over), ("under", under)],
            Measure::Closure { method, baseline, .. } => vec![("method", method), ("baseline", baseline)],
            Measure::BestRatio { over, under, .. } => {
                over.iter().map(|o| ("over", o)).chain([("under", under)]).collect()
            }
            Measure::SpeedupOverModel { speculative, plain, .. } => {
                vec![("speculative", speculative), ("plain", plain)]
            }
        }
    }
}

impl Select {
    /// Tags asked for, in the order of [`AXES`].
    fn tags(&self) -> [Option<&String>; 5] {
        [self.attention.as_ref(), self.weights.as_ref(), self.kv.as_ref(), self.decoding.as_ref(), self.device.as_ref()]
    }
}
