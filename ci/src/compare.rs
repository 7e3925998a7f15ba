//! Two runs side by side: every shared metric with its change, and no judgement.

use results::metric::Kind;
use results::run::Run;
use serde::Serialize;

use crate::console;
use crate::estimate::{Change, Estimate, Pairing, Spread};
use crate::numbers;
use crate::series;
use crate::side::Side;

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
    let note = "Intervals are 95 %, p is of one row alone. Clocks of two runs do not pair: their change includes whatever the machine did between them.\n";
    if !markdown {
        return format!("{title}{}{} shared metrics. {note}", console::table(&heads, &lines), rows.len());
    }
    let mut text = format!("{}\n\n", crate::markdown::escape(&title));
    text.push_str(&format!("| {} |\n|{}\n", heads.join(" | "), "---|".repeat(heads.len())));
    for line in &lines {
        let cells: Vec<String> = line.iter().map(|cell| crate::markdown::escape(cell)).collect();
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    text + "\n" + note
}
