//! A check as plain text for a terminal; the last line is the verdict's word.

use crate::check::Report;
use crate::numbers;

/// Renders `report`.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    let base = report.base_run.as_deref().unwrap_or("no baseline");
    text.push_str(&format!("{}: {base} -> {}\n", report.scenario, report.head_run));
    report.warnings.iter().for_each(|warning| text.push_str(&format!("  warning: {warning}\n")));
    for difference in &report.differences {
        text.push_str(&format!("  differs: {}\n", difference.describe()));
    }
    if !report.cells.is_empty() {
        let rows: Vec<Vec<String>> = report
            .cells
            .iter()
            .map(|cell| vec![cell.outcome.word().to_owned(), cell.label.clone(), cell.reason.clone()])
            .collect();
        text.push_str(&table(&["outcome", "cell", "reason"], &rows));
    }
    let rows: Vec<Vec<String>> = report
        .notable()
        .iter()
        .map(|gate| {
            let spread = |side: &Option<_>| side.as_ref().map(|spread| numbers::spread(spread, &gate.unit));
            vec![
                gate.outcome.word().to_owned(),
                gate.title(),
                spread(&gate.base).unwrap_or_else(|| "-".to_owned()),
                spread(&gate.head).unwrap_or_else(|| "-".to_owned()),
                gate.change.as_ref().map_or_else(|| "-".to_owned(), |change| numbers::change(change, &gate.unit)),
                gate.reason.clone(),
            ]
        })
        .collect();
    if !rows.is_empty() {
        text.push_str(&table(&["outcome", "gate", "base", "head", "change", "reason"], &rows));
    }
    let rows: Vec<Vec<String>> = report
        .changed_claims()
        .iter()
        .map(|claim| {
            let word =
                |verdict: Option<results::claim::Verdict>| verdict.map_or("-", |verdict| verdict.word()).to_owned();
            vec![claim.id.clone(), word(claim.base), word(claim.head), claim.reason.clone()]
        })
        .collect();
    if !rows.is_empty() {
        text.push_str(&table(&["claim", "base", "head", "reason"], &rows));
    }
    text.push_str(&format!("gates: {}\n{}\n{}\n", report.counts(), report.summary, report.verdict.word()));
    text
}

/// Columns as wide as their widest entry; the last one is left ragged.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let cells = |column: usize| rows.iter().map(move |row| row[column].chars().count());
    let widths: Vec<usize> =
        head.iter().enumerate().map(|(column, name)| cells(column).max().unwrap_or(0).max(name.len())).collect();
    let line = |row: &[String]| {
        let padded = row.iter().zip(&widths).map(|(cell, &width)| {
            let gap = width.saturating_sub(cell.chars().count());
            format!("{}{}", cell.replace('\n', " "), " ".repeat(gap))
        });
        format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    let head: Vec<String> = head.iter().map(|name| (*name).to_owned()).collect();
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    format!("\n{}{}{}\n", line(&head), line(&rule), rows.iter().map(|row| line(row)).collect::<String>())
}
