//! What sentences are made of: the believable rows of a run, its cells and who they are compared with.

use std::collections::{BTreeMap, HashMap, HashSet};

use results::aggregate::{Aggregate, Comparison, aggregate};
use results::claim::ClaimResult;
use results::metric::{Kind, metric};
use results::noise::{Noise, NoiseLevel, noise};
use results::observation::{Observation, Status};
use results::run::Run;
use results::statistics::median;
use results::summary::{CellSummary, Role};

use crate::wording;

/// A run as the sentences see it.
pub struct Material<'a> {
    /// The run.
    pub run: &'a Run,
    /// Every cell of the plan.
    pub planned: &'a [CellSummary],
    /// Cells that ended well, the control left out.
    pub cells: Vec<&'a CellSummary>,
    /// The cell that everything is compared with, when it ended well.
    pub reference: Option<&'a CellSummary>,
    /// Claims as judged.
    pub claims: &'a [ClaimResult],
    /// The reference against its copy; none where no clock measured both.
    pub noise: Option<Noise>,
    /// Believable rows by what their metric is about.
    by_base: HashMap<&'a str, Vec<&'a Observation>>,
}

impl<'a> Material<'a> {
    /// Reads `run`.
    pub fn read(run: &'a Run) -> Material<'a> {
        let planned = run.summary.as_ref().map_or(&[][..], |summary| &summary.cells);
        let broken = broken(run);
        let last = last_sittings(run);
        let good = |cell: &&CellSummary| {
            let id = cell.id.as_str();
            cell.status == Status::Ok && last.get(id).is_none_or(|sitting| !broken.contains(&(id, *sitting)))
        };
        let by_role = |role: Role| planned.iter().filter(good).find(|cell| cell.role == role);
        let (reference, control) = (by_role(Role::Reference), by_role(Role::AaControl));
        let noise = reference.zip(control).and_then(|(cell, control)| noise(&run.observations, &cell.id, &control.id));
        let believed: HashSet<&str> = planned.iter().filter(good).map(|cell| cell.id.as_str()).collect();
        let cells = planned.iter().filter(good).filter(|cell| cell.role != Role::AaControl).collect();
        let mut by_base: HashMap<&str, Vec<&Observation>> = HashMap::new();
        let mut bases: HashMap<&str, &str> = HashMap::new();
        for row in &run.observations {
            let is_number = row.status == Status::Ok && row.value.is_some_and(f64::is_finite);
            let cell = row.cell.as_str();
            if is_number && believed.contains(cell) && !broken.contains(&(cell, row.sitting)) {
                let base = *bases.entry(&row.metric).or_insert_with(|| wording::base(&row.metric));
                by_base.entry(base).or_default().push(row);
            }
        }
        Material { run, planned, cells, reference, claims: &run.claims, noise, by_base }
    }

    /// Whether any cell gave a number.
    pub fn has_values(&self) -> bool {
        self.by_base.values().flatten().any(|row| !row.workload.is_empty())
    }

    /// Whether the two copies of the reference differ by so much that no speed means anything.
    pub fn is_unusable(&self) -> bool {
        self.noise.as_ref().is_some_and(|noise| noise.level == NoiseLevel::Unusable)
    }

    /// Believable rows of one metric, parts included: numbers of cells that ended well.
    pub fn of(&self, base: &str) -> &[&'a Observation] {
        self.by_base.get(base).map_or(&[], Vec::as_slice)
    }

    /// The same as a table for `results`.
    pub fn rows(&self, base: &str) -> Vec<Observation> {
        self.of(base).iter().map(|row| (*row).clone()).collect()
    }

    /// Whether a clock timed anything.
    pub fn is_timed(&self) -> bool {
        let timed = |base: &str| metric(base).is_some_and(|m| m.kind() == Kind::Timing) && base != "load_s";
        self.by_base.iter().any(|(base, rows)| timed(base) && rows.iter().any(|row| !row.workload.is_empty()))
    }

    /// Medians and intervals of one metric, parts included.
    pub fn aggregates(&self, base: &str) -> Vec<Aggregate> {
        aggregate(&self.rows(base))
    }

    /// The median of a metric of which a cell has one value, such as the bytes of its weights; the largest where it has several.
    pub fn value(&self, cell: &str, base: &str) -> Option<f64> {
        let own = self.of(base).iter().filter(|row| row.cell == cell);
        let mut places: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
        for row in own {
            places.entry((&row.workload, &row.metric)).or_default().extend(row.value);
        }
        places.values().filter_map(|values| median(values)).reduce(f64::max)
    }

    /// The comparison of the two copies of the reference in one quantity.
    pub fn copies(&self, metric: &str, workload: &str, x: Option<f64>) -> Option<&Comparison> {
        let comparisons = &self.noise.as_ref()?.comparisons;
        comparisons.iter().find(|c| c.metric == metric && c.workload == workload && c.x == x)
    }

    /// The largest |ln ratio| that the interval of the two copies reaches in one quantity; 0 where there is no second copy.
    pub fn floor(&self, metric: &str, workload: &str, x: Option<f64>) -> f64 {
        let ratio = self.copies(metric, workload, x).and_then(|c| c.ratio);
        ratio.map_or(0.0, |r| r.low.ln().abs().max(r.high.ln().abs()))
    }

    /// The label of a cell.
    pub fn label<'b>(&'b self, cell: &'b str) -> &'b str {
        let found = self.planned.iter().find(|c| c.id == cell).map(|c| c.label.as_str());
        // two builds of one cell have the same label and the same parts: their ids tell them apart
        let is_own = |c: &&CellSummary| c.role != Role::AaControl;
        let shared = |label: &&str| self.planned.iter().filter(is_own).filter(|c| c.label == *label).count() > 1;
        found.filter(|label| !label.is_empty() && !shared(label)).unwrap_or(cell)
    }

    /// Whether every cell has a place of its own on the axes; two builds of one cell have not.
    pub fn is_by_axes(&self) -> bool {
        let places: HashSet<_> = self.cells.iter().map(|cell| &cell.axes).collect();
        places.len() == self.cells.len()
    }
}

/// Cells and sittings that ended badly, by the rows: a run that was killed has not said so in its summary.
fn broken(run: &Run) -> HashSet<(&str, u32)> {
    let ended = run.observations.iter().filter(|row| row.workload.is_empty() && row.status != Status::Ok);
    ended.map(|row| (row.cell.as_str(), row.sitting)).collect()
}

fn last_sittings(run: &Run) -> HashMap<&str, u32> {
    let mut last = HashMap::new();
    for row in &run.observations {
        let sitting = last.entry(row.cell.as_str()).or_insert(row.sitting);
        *sitting = row.sitting.max(*sitting);
    }
    last
}
