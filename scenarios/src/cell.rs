//! One combination of parts, and a scenario with all of its combinations.

use std::path::{Path, PathBuf};

use engine::EngineSpec;
use results::observation::Axes;
use results::summary::Role;

use crate::diagnostic::Diagnostics;
use crate::external::ExternalPart;
use crate::matrix::expand;
use crate::scenario::{self, ModelPart, Scenario, Workload};

/// What the id of the control cell ends with.
pub const CONTROL_SUFFIX: &str = "#aa";

/// A cell of the matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// Tags of the axes joined by `+`, e.g. `flash+int8+contiguous+greedy+cpu`, after the model's where models vary; the
    /// control's ends with `#aa`.
    pub id: String,
    /// The tags that vary in this scenario.
    pub label: String,
    /// Its model; none in a scenario without one.
    pub model: Option<ModelPart>,
    /// Its parts.
    pub spec: EngineSpec,
    /// The other engine that this cell belongs to; `spec` then says what of ours it is compared with.
    pub external: Option<ExternalPart>,
    /// Its place on the axes.
    pub axes: Axes,
    /// Its role in the comparison.
    pub role: Role,
    /// How many times the reference's work it does, in a scenario of known answer; 1 in every other.
    pub slowdown: f64,
    /// Why it cannot run here; it is then listed as skipped.
    pub unsupported: Option<String>,
}

impl Cell {
    /// A second copy of this cell: the difference between the two is the noise floor.
    pub fn control(&self) -> Cell {
        Cell {
            id: format!("{}{CONTROL_SUFFIX}", self.id),
            label: format!("{} (again)", self.label),
            role: Role::AaControl,
            ..self.clone()
        }
    }
}

/// A scenario with its cells.
#[derive(Debug, Clone)]
pub struct ResolvedScenario {
    /// What the file says.
    pub scenario: Scenario,
    /// The file; absent when the scenario is inside the binary.
    pub file: Option<PathBuf>,
    /// The TOML.
    pub source_text: String,
    /// Cells, the reference first.
    pub cells: Vec<Cell>,
}

impl ResolvedScenario {
    /// Resolves the text of a scenario that lies at `file`, or inside the binary.
    pub fn parse(text: &str, file: Option<&Path>) -> Result<ResolvedScenario, Diagnostics> {
        let shown = file.map_or("scenario".to_string(), |f| f.display().to_string());
        let scenario = scenario::parse(text, &shown, file)?;
        let cells = expand(&scenario);
        Ok(ResolvedScenario { scenario, file: file.map(Path::to_path_buf), source_text: text.into(), cells })
    }

    /// The cell that everything is compared with.
    pub fn reference(&self) -> &Cell {
        &self.cells[0]
    }

    /// Tokens that one sequence of any workload or check holds at most.
    pub fn context_tokens(&self) -> usize {
        let expect = &self.scenario.expect;
        let check = expect.prompt_tokens.saturating_add(expect.lossless_tokens);
        self.scenario.workloads.iter().map(Workload::context_tokens).chain([check]).max().unwrap_or(check)
    }
}
