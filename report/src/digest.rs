//! A run, read once for all sections: cells with their looks, aggregates, comparisons with the reference, and the noise floor.

use std::collections::HashMap;

use results::aggregate::{Aggregate, Comparison, aggregate, climb, compare, noise_floor};
use results::metric::{Kind, metric};
use results::noise::NoiseLevel;
use results::observation::{Axes, Observation, Status};
use results::run::Run;
use results::summary::{Role, Summary};

use crate::mark::{Channel, Mark, channels};
use crate::wording;

/// A cell as the report shows it.
#[derive(Debug, Clone)]
pub struct Cell {
    /// Stable id.
    pub id: String,
    /// Short label.
    pub label: String,
    /// Value on each axis of [`Digest::axes`].
    pub places: Vec<String>,
    /// Role in the comparison.
    pub role: Role,
    /// How it ended.
    pub status: Status,
    /// Why, when not ok.
    pub reason: String,
    /// Its look.
    pub mark: Mark,
}

/// An axis on which the cells differ.
#[derive(Debug, Clone)]
pub struct VaryingAxis {
    /// Its name, e.g. `weights`.
    pub name: &'static str,
    /// Its values in order of appearance.
    pub values: Vec<String>,
    /// How plots show it.
    pub channel: Channel,
}

/// What identifies an aggregate: cell, workload, metric and the bits of its sweep coordinate.
type Place = (String, String, String, Option<u64>);

/// Everything the sections need.
#[derive(Debug)]
pub struct Digest<'a> {
    /// The run itself.
    pub run: &'a Run,
    /// Every cell, in the order of the scenario.
    pub cells: Vec<Cell>,
    /// The axes that vary.
    pub axes: Vec<VaryingAxis>,
    /// One entry per cell, workload, metric and sweep coordinate, `cell_status` rows left out.
    pub aggregates: Vec<Aggregate>,
    /// Workloads in order of appearance.
    pub workloads: Vec<String>,
    cell_index: HashMap<String, usize>,
    comparisons: HashMap<Place, Comparison>,
    climbs: HashMap<Place, Comparison>,
    floors: HashMap<(String, String, Option<u64>), f64>,
    /// Whether no speed of the run means anything.
    unusable: bool,
}

/// The floor of speeds in a run that is too noisy for any: no ratio is beyond it.
pub const NOTHING_TOLD: f64 = 1e3;

impl<'a> Digest<'a> {
    /// Reads `run`.
    pub fn new(run: &'a Run) -> Digest<'a> {
        let (cells, axes) = cells_and_axes(run);
        let by_role = |role| cells.iter().find(|cell: &&Cell| cell.role == role).map(|cell| cell.id.as_str());
        let comparisons = by_role(Role::Reference).map(|reference| compare(&run.observations, reference));
        let noise = match (by_role(Role::Reference), by_role(Role::AaControl)) {
            (Some(reference), Some(control)) => noise_floor(&run.observations, reference, control),
            _ => Vec::new(),
        };
        let mut workloads: Vec<String> = Vec::new();
        for row in &run.observations {
            if !row.workload.is_empty() && workloads.last() != Some(&row.workload) && !workloads.contains(&row.workload)
            {
                workloads.push(row.workload.clone());
            }
        }
        let mut aggregates = aggregate(&run.observations);
        aggregates.retain(|a| !a.metric.is_empty() && a.metric != "cell_status");
        let cell_index = cells.iter().enumerate().map(|(index, cell)| (cell.id.clone(), index)).collect();
        let (comparisons, climbs) = (placed(comparisons.unwrap_or_default()), placed(climb(&run.observations)));
        let unusable = match (by_role(Role::Reference), by_role(Role::AaControl)) {
            (Some(reference), Some(control)) => results::noise::noise(&run.observations, reference, control)
                .is_some_and(|n| n.level == NoiseLevel::Unusable),
            _ => false,
        };
        let floors = noise.into_iter().filter_map(|c| {
            let floor = c.reach()?;
            Some(((c.workload, c.metric, c.x.map(f64::to_bits)), floor))
        });
        let floors = floors.collect();
        Digest { run, aggregates, workloads, cell_index, comparisons, climbs, floors, unusable, cells, axes }
    }

    /// The summary, where the run got as far as writing one.
    pub fn summary(&self) -> Option<&Summary> {
        self.run.summary.as_ref()
    }

    /// Index of a cell in [`Digest::cells`].
    pub fn index(&self, cell: &str) -> Option<usize> {
        self.cell_index.get(cell).copied()
    }

    /// Whether everything is compared with this cell.
    pub fn is_reference(&self, cell: &str) -> bool {
        self.index(cell).is_some_and(|index| self.cells[index].role == Role::Reference)
    }

    /// The cell of an aggregate against the reference.
    pub fn comparison(&self, a: &Aggregate) -> Option<&Comparison> {
        self.comparisons.get(&place_of(a))
    }

    /// The kernel of an aggregate against the first rung of its ladder in the same cell.
    pub fn climb(&self, a: &Aggregate) -> Option<&Comparison> {
        self.climbs.get(&place_of(a))
    }

    /// Largest |ln ratio| that the A/A interval reaches for this metric, or for the kernel that the reference has in its place; 0
    /// where no control measured it. In a run that is unusable for speed nothing that a clock measured is beyond it.
    pub fn floor(&self, a: &Aggregate) -> f64 {
        if self.unusable && metric(&a.metric).is_some_and(|metric| metric.kind() == Kind::Timing) {
            return NOTHING_TOLD;
        }
        let of =
            |metric: &str| self.floors.get(&(a.workload.clone(), metric.to_owned(), a.x.map(f64::to_bits))).copied();
        of(&a.metric).or_else(|| of(&self.comparison(a)?.reference_metric)).unwrap_or(0.0)
    }

    /// A fact about the machine as a number, the largest where it was stated more than once.
    pub fn machine(&self, key: &str) -> Option<f64> {
        self.largest(|scope| scope == "machine", key)
    }

    /// The largest number that any cell states under `key`: what one of them saw, the device can do.
    pub fn most(&self, key: &str) -> Option<f64> {
        self.largest(|scope| scope != "machine", key)
    }

    fn largest(&self, within: impl Fn(&str) -> bool, key: &str) -> Option<f64> {
        let stated = self.run.facts.iter().filter(|fact| fact.key == key && within(&fact.scope));
        let numbers = stated.filter_map(|fact| fact.value.trim().parse().ok());
        numbers.filter(|v: &f64| v.is_finite() && *v > 0.0).reduce(f64::max)
    }

    /// Ok rows of `metric` (parts included) under `workload`, by cell index.
    pub fn rows(&self, workload: &str, metric: &str) -> Vec<Vec<&'a Observation>> {
        let mut rows = vec![Vec::new(); self.cells.len()];
        for row in self.run.observations.iter().filter(|row| row.workload == workload && row.value.is_some()) {
            if row.status == Status::Ok
                && wording::base(&row.metric) == metric
                && let Some(index) = self.index(&row.cell)
            {
                rows[index].push(row);
            }
        }
        rows
    }
}

fn placed(comparisons: Vec<Comparison>) -> HashMap<Place, Comparison> {
    let place = |c: &Comparison| (c.cell.clone(), c.workload.clone(), c.metric.clone(), c.x.map(f64::to_bits));
    comparisons.into_iter().map(|c| (place(&c), c)).collect()
}

fn place_of(a: &Aggregate) -> Place {
    (a.cell.clone(), a.workload.clone(), a.metric.clone(), a.x.map(f64::to_bits))
}

/// The summary's cells, then any that only rows mention, and the axes on which they differ.
fn cells_and_axes(run: &Run) -> (Vec<Cell>, Vec<VaryingAxis>) {
    let mut found: Vec<(Cell, Axes)> = Vec::new();
    for cell in run.summary.iter().flat_map(|summary| &summary.cells) {
        let (id, label, reason) = (cell.id.clone(), cell.label.clone(), cell.reason.clone());
        let shown =
            Cell { id, label, reason, role: cell.role, status: cell.status, places: Vec::new(), mark: Mark::default() };
        found.push((shown, cell.axes.clone()));
    }
    let mut known: std::collections::HashSet<String> = found.iter().map(|(cell, _)| cell.id.clone()).collect();
    for row in run.observations.iter().filter(|row| !row.cell.is_empty()) {
        if known.contains(&row.cell) {
            continue;
        }
        known.insert(row.cell.clone());
        let (id, label) = (row.cell.clone(), row.cell.clone());
        let (status, reason) = (row.status, row.reason.clone());
        let shown =
            Cell { id, label, reason, role: Role::Candidate, status, places: Vec::new(), mark: Mark::default() };
        found.push((shown, row.axes.clone()));
    }
    let axes = varying(&found);
    let channels: Vec<Channel> = axes.iter().map(|axis| axis.channel).collect();
    let cells = found.into_iter().map(|(cell, tagged)| {
        let places: Vec<String> = axes.iter().map(|axis| place(&tagged, axis.name).to_owned()).collect();
        let index = |axis: &VaryingAxis, value: &String| axis.values.iter().position(|v| v == value).unwrap_or(0);
        let indices: Vec<usize> = axes.iter().zip(&places).map(|(axis, value)| index(axis, value)).collect();
        let label = if cell.label.is_empty() { cell.id.clone() } else { cell.label };
        Cell { label, mark: Mark::at(&indices, &channels), places, ..cell }
    });
    let cells = cells.collect();
    (cells, axes)
}

fn place<'a>(axes: &'a Axes, name: &str) -> &'a str {
    axes.named().into_iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
}

fn varying(cells: &[(Cell, Axes)]) -> Vec<VaryingAxis> {
    let mut axes: Vec<VaryingAxis> = Vec::new();
    for (name, _) in Axes::default().named() {
        let mut values: Vec<String> = Vec::new();
        for (_, tagged) in cells {
            let value = place(tagged, name);
            if !values.iter().any(|known| known == value) {
                values.push(value.to_owned());
            }
        }
        if values.len() > 1 {
            axes.push(VaryingAxis { name, values, channel: Channel::None });
        }
    }
    let counts: Vec<usize> = axes.iter().map(|axis| axis.values.len()).collect();
    for (axis, channel) in axes.iter_mut().zip(channels(&counts)) {
        axis.channel = channel;
    }
    axes
}
