//! What each cell loses: perplexity over the reference's, judged by its interval, and only where it was measured for that cell.

use std::collections::HashMap;

use results::aggregate::{Comparison, compare};
use results::observation::Observation;
use results::statistics::Ratio;

use super::material::Material;
use super::names::simplest;
use crate::quantity::{ratio_text, significant};
use crate::wording;

/// Quality loss that a reader would call none: 1 % of perplexity.
const NO_LOSS: f64 = 1.01;
/// Perplexities nearer than this factor's logarithm differ by the rounding of kernels.
const NEGLIGIBLE: f64 = 1e-4;

/// The loss of one cell, by the protocol that shows it most clearly.
#[derive(Debug, Clone)]
pub struct Loss {
    /// Perplexity over the reference's.
    pub ratio: Ratio,
    /// The highest end of the intervals of all protocols.
    pub highest: f64,
    /// Protocol and text, where there are several.
    pub by: String,
}

impl Loss {
    /// Whether it is told to be at most 1 %: the whole interval is.
    pub fn is_small(&self) -> bool {
        self.highest <= NO_LOSS && (self.ratio.n > 1 || self.ratio.ratio == 1.0)
    }

    /// Whether the two are equal up to rounding.
    pub fn is_rounding(&self) -> bool {
        is_rounding(&self.ratio)
    }
}

/// Whether a ratio of perplexities is 1 up to rounding.
pub fn is_rounding(ratio: &Ratio) -> bool {
    ratio.low.ln().abs().max(ratio.high.ln().abs()) < NEGLIGIBLE
}

/// Losses of all cells.
pub struct Quality {
    losses: HashMap<String, Loss>,
    rows: Vec<Observation>,
    /// Whether the reference has a perplexity at all.
    pub measured: bool,
    n_cells: usize,
}

impl Quality {
    /// Reads the perplexities of `material`.
    pub fn of(material: &Material<'_>) -> Quality {
        // the windows give the intervals
        let rows = [material.rows("ppl"), material.rows("nll_window")].concat();
        let n_cells = material.cells.len();
        let nothing = Quality { losses: HashMap::new(), rows: vec![], measured: false, n_cells };
        let Some(reference) = material.reference else { return nothing };
        let is_ppl = |row: &Observation| wording::base(&row.metric) == "ppl";
        let mut places: Vec<(&str, &str)> =
            rows.iter().filter(|r| r.cell == reference.id && is_ppl(r)).map(|r| (&*r.workload, &*r.metric)).collect();
        places.sort_unstable();
        places.dedup();
        if places.is_empty() {
            return nothing;
        }
        let comparisons = losses_over(&rows, &reference.id);
        let several = places.len() > 1;
        let mut losses = HashMap::new();
        for cell in &material.cells {
            let of = |place: &(&str, &str)| {
                comparisons.iter().find(|c| c.cell == cell.id && (&*c.workload, &*c.metric) == *place)
            };
            if cell.id == reference.id {
                let ratio = Ratio { ratio: 1.0, low: 1.0, high: 1.0, n: 1 };
                losses.insert(cell.id.clone(), Loss { ratio, highest: 1.0, by: String::new() });
            } else if let Some(found) = places.iter().map(of).collect::<Option<Vec<_>>>() {
                losses.extend(worst(&found, several).map(|loss| (cell.id.clone(), loss)));
            }
        }
        Quality { losses, measured: true, n_cells, rows }
    }

    /// The loss of `cell`; none where it was not compared by every protocol.
    pub fn loss(&self, cell: &str) -> Option<&Loss> {
        self.losses.get(cell)
    }

    /// Whether every cell was compared.
    pub fn is_whole(&self) -> bool {
        self.losses.len() == self.n_cells
    }

    /// `14 of 16 cells`, or `all 16 cells`.
    pub fn compared(&self) -> String {
        match self.is_whole() {
            true => format!("all {} cells", self.n_cells),
            false => format!("{} of {} cells", self.losses.len(), self.n_cells),
        }
    }

    /// The loss of `cell` against `other`, by the protocol that shows most of it.
    pub fn between(&self, cell: &str, other: &str) -> Option<Loss> {
        let pair: Vec<Observation> =
            self.rows.iter().filter(|row| row.cell == cell || row.cell == other).cloned().collect();
        let found = losses_over(&pair, other);
        let own = self.rows.iter().filter(|row| row.cell == other && wording::base(&row.metric) == "ppl");
        let mut places: Vec<_> = own.map(|row| (&row.workload, &row.metric)).collect();
        places.sort_unstable();
        places.dedup();
        let several = places.len() > 1;
        if found.len() < places.len() {
            return None;
        }
        worst(&found.iter().collect::<Vec<_>>(), several)
    }

    /// Cells whose perplexity equals that of `cell` up to rounding, itself included.
    fn equals<'a>(&'a self, material: &'a Material<'_>, cell: &'a str) -> Vec<&'a str> {
        let others = material.cells.iter().map(|c| c.id.as_str());
        others.filter(|id| *id == cell || self.between(id, cell).is_some_and(|loss| loss.is_rounding())).collect()
    }
}

fn losses_over(rows: &[Observation], reference: &str) -> Vec<Comparison> {
    let all = compare(rows, reference);
    all.into_iter().filter(|c| wording::base(&c.metric) == "ppl" && c.ratio.is_some()).collect()
}

/// Of the comparisons that tell a loss the largest; where none does, the one whose interval reaches highest.
fn worst(found: &[&Comparison], several: bool) -> Option<Loss> {
    let high = |c: &&&Comparison| c.ratio.map_or(0.0, |r| r.high);
    let told = found.iter().filter(|c| c.ratio.is_some_and(|r| r.low > 1.0));
    let largest = told.max_by(|a, b| {
        a.ratio.map(|r| r.ratio).partial_cmp(&b.ratio.map(|r| r.ratio)).unwrap_or(std::cmp::Ordering::Equal)
    });
    let worst = largest.or_else(|| found.iter().max_by(|a, b| high(a).total_cmp(&high(b))))?;
    let part = wording::part(&worst.metric);
    let by = match (several, part.is_empty()) {
        (false, _) => String::new(),
        (true, true) => format!(" on {}, where it is largest", worst.workload),
        (true, false) => format!(" by {part}, the protocol that shows it most clearly"),
    };
    let highest = found.iter().map(|c| high(&c)).fold(1.0, f64::max);
    Some(Loss { ratio: worst.ratio?, highest, by })
}

/// For how many cells quality was compared, and the largest loss that is told.
pub fn sentence(material: &Material<'_>, quality: &Quality) -> Option<String> {
    if !quality.measured || material.cells.len() < 2 {
        return None;
    }
    let compared = quality.compared();
    let of_reference = material.label(&material.reference?.id).to_owned();
    let ids = material.cells.iter().map(|c| c.id.as_str());
    let losses = ids
        .filter_map(|id| Some((id, quality.loss(id)?)))
        .filter(|(_, loss)| loss.ratio.low > 1.0 && !loss.is_rounding());
    let Some((worst, loss)) = losses.max_by(|a, b| a.1.ratio.ratio.total_cmp(&b.1.ratio.ratio)) else {
        if quality.losses.len() < 2 {
            return Some(format!(
                "Perplexity was compared for no cell but the reference {of_reference}: nothing is known of what the others lose."
            ));
        }
        return Some(format!(
            "Perplexity was compared for {compared}; none is told to lose any against the reference {of_reference}."
        ));
    };
    let equals = quality.equals(material, worst);
    let name = simplest(material, &equals).unwrap_or(worst);
    let alike = match equals.len() - 1 {
        0 => String::new(),
        1 => " (another cell has the same)".into(),
        n => format!(" ({n} other cells have the same)"),
    };
    let agreement = material.value(name, "top1_agreement").filter(|a| *a < 1.0).map_or(String::new(), |a| {
        format!(", and its most likely token is the reference's {} % of the time", significant(100.0 * a, 3))
    });
    Some(format!(
        "Perplexity was compared for {compared}: the largest loss is that of {}{alike}, {} the perplexity of the reference{}{agreement}.",
        material.label(name),
        ratio_text(&loss.ratio),
        loss.by
    ))
}
