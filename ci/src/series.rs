//! Rows of a run, grouped into the series that are compared: one per (cell, workload, metric, x).

use std::collections::BTreeMap;

use results::metric::{Kind, metric};
use results::observation::{Direction, Observation, Status};
use results::pairing::Taken;

/// What base and head must share to be compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeriesKey {
    /// Cell id.
    pub cell: String,
    /// Workload name.
    pub workload: String,
    /// Metric id.
    pub metric: String,
    /// Bits of the sweep coordinate: equal, or another series.
    x_bits: Option<u64>,
}

impl SeriesKey {
    /// Sweep coordinate.
    pub fn x(&self) -> Option<f64> {
        self.x_bits.map(f64::from_bits)
    }

    /// Another metric of the same cell and workload, without a sweep coordinate.
    pub fn sibling(&self, metric: &str) -> Self {
        Self { metric: metric.to_owned(), x_bits: None, ..self.clone() }
    }

    /// The same series of another cell.
    pub fn in_cell(&self, cell: &str) -> Self {
        Self { cell: cell.to_owned(), ..self.clone() }
    }
}

/// All values of one metric of one cell.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Metric id.
    pub metric: String,
    /// Versioned formula.
    pub formula_id: String,
    /// Unit.
    pub unit: String,
    /// Better direction.
    pub direction: Direction,
    /// Which gate applies.
    pub kind: Kind,
    /// Items of two cells do not correspond one to one.
    pub pooled: bool,
    /// Worker threads.
    pub threads: u32,
    /// Seed of the cell.
    pub seed: u64,
    /// Kernel path taken.
    pub kernel_path: String,
    /// Finite values, in the order of the rows.
    pub samples: Vec<Taken>,
}

impl Series {
    /// Why two series of one name are not the same measurement.
    pub fn mismatch(&self, head: &Series) -> Option<String> {
        let differs =
            |what: &str, was: &dyn std::fmt::Display, is: &dyn std::fmt::Display| format!("{what}: {was} -> {is}");
        if self.formula_id != head.formula_id {
            return Some(differs("formula", &self.formula_id, &head.formula_id));
        }
        if self.unit != head.unit {
            return Some(differs("unit", &self.unit, &head.unit));
        }
        if self.threads != head.threads {
            return Some(differs("threads", &self.threads, &head.threads));
        }
        (self.seed != head.seed).then(|| differs("seed", &self.seed, &head.seed))
    }
}

/// Groups the believable rows. A row without a finite value adds nothing, so a series of such rows reads as missing.
pub fn collect(observations: &[Observation]) -> BTreeMap<SeriesKey, Series> {
    let mut all: BTreeMap<SeriesKey, Series> = BTreeMap::new();
    for row in observations.iter().filter(|row| row.status == Status::Ok) {
        let Some(value) = row.value.filter(|value| value.is_finite()) else { continue };
        let key = SeriesKey {
            cell: row.cell.clone(),
            workload: row.workload.clone(),
            metric: row.metric.clone(),
            x_bits: row.x.map(f64::to_bits),
        };
        let series = all.entry(key).or_insert_with(|| Series {
            metric: row.metric.clone(),
            formula_id: row.formula_id.clone(),
            unit: row.unit.clone(),
            direction: row.direction,
            kind: registered(&row.metric).0,
            pooled: registered(&row.metric).1,
            threads: row.threads,
            seed: row.seed,
            kernel_path: row.kernel_path.clone(),
            samples: Vec::new(),
        });
        series.samples.push(Taken { sitting: row.sitting, repetition: row.repetition, item: row.item, value });
    }
    all
}

/// The kind and pooling that the registry gives a metric; a value that a scenario named itself has those of `value`.
fn registered(id: &str) -> (Kind, bool) {
    metric(id).or_else(|| metric("value")).map_or((Kind::Quality, false), |known| (known.kind(), known.pooled()))
}
