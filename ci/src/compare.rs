//! Two runs side by side: every shared metric with its change, and no judgement.

use std::collections::BTreeSet;

use results::metric::Kind;
use results::run::Run;
use serde::Serialize;

use crate::comparability;
use crate::console;
use crate::estimate::{Change, Estimate, Pairing, Spread};
use crate::numbers;
use crate::policy::Policy;
use crate::series;
use crate::side::Side;

/// Names that an explanation lists before it stops.
const MOST_LISTED: usize = 8;

/// One metric that both runs have.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Cell id.
    pub cell: String,
    /// Workload name.
    pub workload: String,
    /// Metric id.
    pub metric: String,
    /// Sweep coordinate.
    pub x: Option<f64>,
    /// Unit.
    pub unit: String,
    /// What may make it differ.
    pub kind: Kind,
    /// First run.
    pub a: Spread,
    /// Second run.
    pub b: Spread,
    /// b against a.
    pub change: Option<Change>,
    /// Pairs behind the change; 0 where the runs' clocks do not pair and medians are compared.
    pub pairs: usize,
    /// Chance of such a change between equals, for clocks; of one row, uncorrected.
    pub p: Option<f64>,
    /// Why the two may not be the same measurement.
    pub caveat: String,
}

/// Every shared metric of two runs, in order of cell, workload and metric.
pub fn compare_runs(a: &Run, b: &Run) -> Vec<Row> {
    let (first, second) = (series::collect(&a.observations), series::collect(&b.observations));
    let shared = first.iter().filter_map(|(key, was)| Some((key, was, second.get(key)?)));
    shared
        .map(|(key, was, is)| {
            let estimate = Estimate::new(was, is, was.kind, Pairing::Recorded);
            Row {
                cell: key.cell.clone(),
                workload: key.workload.clone(),
                metric: key.metric.clone(),
                x: key.x(),
                unit: was.unit.clone(),
                kind: was.kind,
                a: estimate.base,
                b: estimate.head,
                change: estimate.change(),
                pairs: if was.kind == Kind::Timing { 0 } else { estimate.pairs },
                p: estimate.p,
                caveat: was.mismatch(is).unwrap_or_default(),
            }
        })
        .collect()
}

/// What a run holds, in two lines: for a reader who wonders why two runs share nothing.
pub fn contents(a: &Run, b: &Run) -> String {
    let one = |name: &str, run: &Run| {
        let (side, series) = (Side::from(run), series::collect(&run.observations));
        let of = |what: fn(&series::SeriesKey) -> &str| {
            let found: BTreeSet<&str> = series.keys().map(what).filter(|word| !word.is_empty()).collect();
            let more = found.len().saturating_sub(MOST_LISTED);
            let shown: Vec<&str> = found.into_iter().take(MOST_LISTED).collect();
            if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
        };
        let head = format!("{name} {} (scenario {})", side.summary.run_id, side.summary.scenario);
        if series.is_empty() {
            return format!("{head} has no measured value");
        }
        format!("{head} has workloads {}; cells {}", of(|key| &key.workload), of(|key| &key.cell))
    };
    format!("{}\n{}", one("A", a), one("B", b))
}

/// What a reader must know before comparing: other scenarios, machines or inputs, runs that are not whole, metrics of one run alone.
fn notes(a: &Run, b: &Run, shared: usize) -> Vec<String> {
    let (first, second) = (Side::from(a), Side::from(b));
    let mut notes: Vec<String> = [("A", &first), ("B", &second)]
        .into_iter()
        .filter(|(_, side)| !side.summary.complete)
        .map(|(name, _)| format!("{name} was not finished"))
        .collect();
    if let Ok(policy) = Policy::shipped() {
        let differences = comparability::differences(&first, &second, &policy.comparable);
        notes.extend(differences.iter().map(|difference| format!("differs: {}", difference.describe())));
    }
    for (name, run) in [("A", a), ("B", b)] {
        let alone = series::collect(&run.observations).len() - shared;
        if alone > 0 {
            notes.push(format!("{alone} metrics are in {name} alone and not shown"));
        }
    }
    notes
}

/// The rows as a table: plain text, or Markdown.
pub fn render(a: &Run, b: &Run, rows: &[Row], markdown: bool) -> String {
    let heads = ["cell", "workload", "metric", "A", "B", "B against A", "p", "caveat"];
    let lines: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let x = row.x.map(|x| format!(" @ {x}")).unwrap_or_default();
            vec![
                row.cell.clone(),
                row.workload.clone(),
                format!("{}{x}", row.metric),
                numbers::spread(&row.a, &row.unit),
                numbers::spread(&row.b, &row.unit),
                row.change.as_ref().map_or_else(|| "-".to_owned(), |change| numbers::change(change, &row.unit)),
                row.p.map_or_else(|| "-".to_owned(), numbers::probability),
                row.caveat.clone(),
            ]
        })
        .collect();
    let (a, b) = (Side::from(a), Side::from(b));
    let title =
        format!("A {} ({})\nB {} ({})\n", a.summary.run_id, a.summary.scenario, b.summary.run_id, b.summary.scenario);
    let found = notes(a.run, b.run, rows.len());
    let note = "Intervals are 95 %, p is of one row alone. Clocks of two runs do not pair: their change includes whatever the machine did between them.\n";
    if !markdown {
        let found: String = found.iter().map(|line| format!("  {line}\n")).collect();
        return format!("{title}{found}{}{} shared metrics. {note}", console::table(&heads, &lines), rows.len());
    }
    let mut text = format!("{}\n\n", crate::markdown::escape(&title));
    found.iter().for_each(|line| text.push_str(&format!("- {}\n", crate::markdown::escape(line))));
    if !found.is_empty() {
        text.push('\n');
    }
    text.push_str(&format!("| {} |\n|{}\n", heads.join(" | "), "---|".repeat(heads.len())));
    for line in &lines {
        let cells: Vec<String> = line.iter().map(|cell| crate::markdown::escape(cell)).collect();
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    text + "\n" + note
}
