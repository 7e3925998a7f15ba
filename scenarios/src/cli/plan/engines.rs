//! Which other engines of a scenario are there: each is started once, all at the same time, and waited for no longer than a person waits.

use std::path::Path;
use std::time::Duration;

use cuda_kernels::Gpu;

use crate::cell::{Cell, ResolvedScenario};
use crate::external::ExternalEngine;
use crate::external::adapter::{Adapter, AdapterError, Patience};

/// How long an engine may take to import; a run waits longer.
const WAIT: Duration = Duration::from_secs(30);

/// What is missing of each engine that the scenario names.
pub struct Engines {
    missing: Vec<(ExternalEngine, Option<String>)>,
    /// Why no CUDA device can be used, where one is asked for and cannot.
    no_gpu: Option<String>,
}

impl Engines {
    /// Asks every engine of `scenario` under `python`.
    pub fn ask(scenario: &ResolvedScenario, python: &Path) -> Engines {
        let wanted = |engine: &ExternalEngine| {
            scenario.cells.iter().filter_map(|cell| cell.external.as_ref()).any(|part| part.engine == *engine)
        };
        let engines: Vec<ExternalEngine> = ExternalEngine::ALL.into_iter().filter(wanted).collect();
        let missing = std::thread::scope(|scope| {
            let asked: Vec<_> =
                engines.iter().map(|&engine| (engine, scope.spawn(move || why_missing(engine, python)))).collect();
            asked
                .into_iter()
                .map(|(engine, asked)| {
                    let unheard = || Some(format!("{} could not be asked", engine.name()));
                    (engine, asked.join().unwrap_or_else(|_| unheard()))
                })
                .collect()
        });
        let on_gpu = scenario.cells.iter().filter_map(|cell| cell.external.as_ref()).any(|part| part.is_on_gpu());
        let no_gpu = on_gpu.then(|| Gpu::probe(0).err().map(|error| error.to_string())).flatten();
        Engines { missing, no_gpu }
    }

    /// Why `cell` cannot run, where its engine is not there.
    pub fn missing(&self, cell: &Cell) -> Option<String> {
        let part = cell.external.as_ref()?;
        let engine = self.missing.iter().find(|(engine, _)| *engine == part.engine).and_then(|(_, why)| why.clone());
        engine.or_else(|| self.no_gpu.clone().filter(|_| part.is_on_gpu()))
    }
}

fn why_missing(engine: ExternalEngine, python: &Path) -> Option<String> {
    match Adapter::start(engine, python, Patience { hello: WAIT, ..Patience::default() }) {
        Ok(_) => None,
        Err(AdapterError::Refused(reason)) => Some(reason),
        Err(failed) => Some(failed.to_string()),
    }
}
