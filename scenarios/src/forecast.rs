//! What a cell will leave out, as far as it can be known before anything is built: `plan` prints it, `run` says it before it starts, and
//! the worker refuses for the same reasons.

use std::collections::HashMap;

use anyhow::Result;
use engine::{Checkpoint, DeviceSpec};

use crate::cell::{Cell, ResolvedScenario};
use crate::external;
use crate::library;
use crate::scenario::{ModelPart, Protocol, Workload};
use crate::text;
use crate::worker::task;

/// A workload that a cell will not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skip {
    /// Name of the workload.
    pub workload: String,
    /// Why.
    pub reason: String,
}

/// Texts of a scenario in tokens of its models, counted once each.
#[derive(Default)]
pub struct Forecast {
    counts: HashMap<(String, engine::Bos, String), Result<Option<usize>, String>>,
    tokenizers: HashMap<(String, engine::Bos), Option<Checkpoint>>,
}

impl Forecast {
    /// The workloads that `cell` of `scenario` will leave out. Reads tokenizers and texts, and of weights the header at most.
    pub fn skips(&mut self, scenario: &ResolvedScenario, cell: &Cell) -> Vec<Skip> {
        let of = |workload: &Workload| {
            let reason = self.refusal(scenario, cell, workload)?;
            Some(Skip { workload: workload.name(), reason })
        };
        scenario.scenario.workloads.iter().filter_map(of).collect()
    }

    /// Why the calibration text gives the quantizer of `cell` not one window.
    pub fn calibration(&mut self, scenario: &ResolvedScenario, cell: &Cell) -> Option<String> {
        let (calibration, part) = (scenario.scenario.calibration.as_ref()?, cell.model.as_ref()?);
        let ours = cell.unsupported.is_none() && cell.external.is_none();
        if !ours || !cell.spec.weights.needs_calibration() {
            return None;
        }
        let n = self.tokens(scenario, part, &calibration.text).ok()??;
        (n < calibration.window_tokens).then(|| fewer(&calibration.text, n, "one window", calibration.window_tokens))
    }

    fn refusal(&mut self, scenario: &ResolvedScenario, cell: &Cell, workload: &Workload) -> Option<String> {
        if let Some(part) = &cell.external {
            return external::refusal(part.engine, workload);
        }
        if let Some(reason) = on_device(&cell.spec.device, workload) {
            return Some(reason.into());
        }
        let part = cell.model.as_ref()?;
        match workload {
            Workload::Perplexity { text, protocols, max_tokens } => match self.tokens(scenario, part, text) {
                Ok(Some(n)) => too_short(text, n.min(max_tokens.unwrap_or(usize::MAX)), protocols),
                Ok(None) => None,
                Err(reason) => Some(reason),
            },
            Workload::Task(asked) => task::refusal(self.opened(scenario, part)?, asked),
            Workload::Generate { text, prompt_tokens, .. } => {
                self.need(scenario, part, text, *prompt_tokens, "one prompt")
            }
            Workload::Sensitivity { text, measured_on, window_tokens, .. } => [text, measured_on]
                .into_iter()
                .find_map(|text| self.need(scenario, part, text, *window_tokens, "one window")),
            _ => None,
        }
    }

    fn need(
        &mut self,
        scenario: &ResolvedScenario,
        part: &ModelPart,
        text: &str,
        least: usize,
        what: &str,
    ) -> Option<String> {
        match self.tokens(scenario, part, text) {
            Ok(Some(n)) if n < least => Some(fewer(text, n, what, least)),
            Ok(_) => None,
            Err(reason) => Some(reason),
        }
    }

    /// Tokens of `text` for the model `part`; none where the model is not here yet, and why where it reads no text.
    fn tokens(&mut self, scenario: &ResolvedScenario, part: &ModelPart, text: &str) -> Result<Option<usize>, String> {
        let key = (part.source.clone(), part.bos, text.to_string());
        if let Some(known) = self.counts.get(&key) {
            return known.clone();
        }
        let counted = self.count(scenario, part, text);
        self.counts.insert(key, counted.clone());
        counted
    }

    fn count(&mut self, scenario: &ResolvedScenario, part: &ModelPart, text: &str) -> Result<Option<usize>, String> {
        let file = scenario.file.as_deref();
        let Some(checkpoint) = self.opened(scenario, part) else { return Ok(None) };
        let text = text::resolve(text, file).map_err(|error| error.to_string())?;
        checkpoint.encode(&text).map(|tokens| Some(tokens.len())).map_err(|error| error.to_string())
    }

    /// The checkpoint of `part`, where it is here and can be opened.
    fn opened(&mut self, scenario: &ResolvedScenario, part: &ModelPart) -> Option<&Checkpoint> {
        let file = scenario.file.as_deref();
        let opened = self.tokenizers.entry((part.source.clone(), part.bos)).or_insert_with(|| {
            let source = library::model_source(&part.source, file).ok()?;
            // a model of the hub is not downloaded to plan, and one that cannot be opened fails its cells with its own reason
            if matches!(source, engine::ModelSource::Hub { .. }) {
                return None;
            }
            Some(Checkpoint::open(&source, &library::models()).ok()?.with_bos(part.bos))
        });
        opened.as_ref()
    }
}

/// Why a device cannot run `workload`, where it cannot.
pub fn on_device(device: &DeviceSpec, workload: &Workload) -> Option<&'static str> {
    let DeviceSpec::Cuda(cuda) = device else { return None };
    match workload {
        Workload::Prefill { .. } | Workload::Decode { .. } | Workload::Generate { .. } if cuda.emulate => {
            Some("an emulated device has no clock; its results are checked and its perplexity can be measured")
        }
        Workload::Kernels { .. }
        | Workload::AttentionSweep { .. }
        | Workload::Sensitivity { .. }
        | Workload::KnownAnswer { .. }
        | Workload::Identity { .. } => Some("this workload runs on a cpu device"),
        _ => None,
    }
}

/// Why `n` tokens of `text` give no protocol's number, or not that of every protocol; nothing where they do.
pub fn too_short(text: &str, n: usize, protocols: &[Protocol]) -> Option<String> {
    let short: Vec<&Protocol> = protocols.iter().filter(|p| n < p.least_tokens()).collect();
    let longest = short.iter().max_by_key(|p| p.least_tokens())?;
    let reason = fewer(text, n, "one window", longest.least_tokens());
    if short.len() == protocols.len() {
        return Some(reason);
    }
    let rules: Vec<String> = short.iter().map(|p| format!("{} with window {}", p.rule, p.window)).collect();
    Some(format!("{reason}: {} would give no number; shorten the window or take the protocol out", rules.join(", ")))
}

/// A text that has not enough tokens.
pub fn fewer(text: &str, n: usize, what: &str, least: usize) -> String {
    format!("{text} has {n} tokens, fewer than {what} of {least}")
}
