//! The noise floor of a job: what two identical cells differed by in it.

use std::collections::BTreeMap;

use results::metric::Kind;
use results::summary::Role;

use crate::estimate::{Estimate, Pairing};
use crate::series::{Series, SeriesKey};
use crate::side::Side;

/// Noise floors by (workload, metric, x), as log ratios.
#[derive(Debug, Default)]
pub struct NoiseFloors(BTreeMap<SeriesKey, f64>);

impl NoiseFloors {
    /// Compares each A/A control with its reference inside each run; the larger floor counts.
    pub fn measure(sides: &[(&Side, &BTreeMap<SeriesKey, Series>)]) -> Self {
        let mut floors = Self::default();
        for (run, all) in sides {
            let ids = |role: Role| run.summary.cells.iter().filter(move |cell| cell.role == role).map(|cell| &cell.id);
            let Some(reference) = ids(Role::Reference).next() else { continue };
            for control in ids(Role::AaControl) {
                for (key, series) in all.iter().filter(|(key, _)| key.cell == *control) {
                    let Some(twin) = all.get(&key.in_cell(reference)) else { continue };
                    if series.kind == Kind::Timing {
                        floors.raise(key, &Estimate::new(twin, series, Kind::Timing, Pairing::Interleaved));
                    }
                }
            }
        }
        floors
    }

    /// The floor of a series, whatever its cell.
    pub fn of(&self, key: &SeriesKey) -> Option<f64> {
        self.0.get(&key.in_cell("")).copied()
    }

    fn raise(&mut self, key: &SeriesKey, twins: &Estimate) {
        if let Some(change) = &twins.ratio {
            let floor = change.low.ln().abs().max(change.high.ln().abs());
            let known = self.0.entry(key.in_cell("")).or_default();
            *known = known.max(floor);
        }
    }
}
