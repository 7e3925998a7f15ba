//! A check as a pull-request comment: the verdict, the changed rows, the rest folded.

use crate::check::Report;
use crate::gate::Gate;
use crate::numbers;
use crate::verdict::CheckVerdict;

/// Rows of one table; a comment has a size limit and a reader too.
const MAX_ROWS: usize = 40;

/// Renders `report`.
pub fn render(report: &Report) -> String {
    let mark = match report.verdict {
        CheckVerdict::Pass => "✅",
        CheckVerdict::Regression | CheckVerdict::RunFailed => "❌",
        CheckVerdict::Inconclusive | CheckVerdict::NoBaseline | CheckVerdict::NotComparable => "⚠️",
    };
    let mut text = format!(
        "### {mark} infermark `{}`: {}\n\n{}\n",
        code(&report.scenario),
        report.verdict.word(),
        escape(&report.summary)
    );
    report.warnings.iter().for_each(|warning| text.push_str(&format!("\n> {}\n", escape(warning))));
    if !report.cells.is_empty() {
        text.push_str("\n| cell | outcome | reason |\n|---|---|---|\n");
        for cell in report.cells.iter().take(MAX_ROWS) {
            let (label, reason) = (escape(&cell.label), escape(&cell.reason));
            text.push_str(&format!("| {label} | {} | {reason} |\n", cell.outcome.word()));
        }
        text.push_str(&more(report.cells.len()));
    }
    let notable = report.notable();
    if !notable.is_empty() {
        text.push_str("\n| gate | base | head | change | outcome |\n|---|---|---|---|---|\n");
        notable.iter().take(MAX_ROWS).for_each(|gate| text.push_str(&row(gate)));
        text.push_str(&more(notable.len()));
    }
    let claims = report.changed_claims();
    if !claims.is_empty() {
        text.push_str("\n| claim | base | head | reason |\n|---|---|---|---|\n");
        for claim in claims.iter().take(MAX_ROWS) {
            let word = |verdict: Option<results::claim::Verdict>| verdict.map_or("–", |verdict| verdict.word());
            let (base, head) = (word(claim.base), word(claim.head));
            text.push_str(&format!("| {} | {base} | {head} | {} |\n", escape(&claim.id), escape(&claim.reason)));
        }
        text.push_str(&more(claims.len()));
    }
    text.push_str(&details(report, &notable));
    text
}

fn row(gate: &Gate) -> String {
    let spread =
        |side: &Option<_>| side.as_ref().map_or_else(|| "–".to_owned(), |found| numbers::spread(found, &gate.unit));
    let change = gate.change.as_ref().map_or_else(|| "–".to_owned(), |change| numbers::change(change, &gate.unit));
    let outcome = match gate.otherwise {
        Some(otherwise) => format!("{} (would be {})", gate.outcome.word(), otherwise.word()),
        None => gate.outcome.word().to_owned(),
    };
    let columns = [gate.title(), spread(&gate.base), spread(&gate.head), change, outcome];
    format!("| {} |\n", columns.map(|column| escape(&column)).join(" | "))
}

/// Everything that a first look does not need.
fn details(report: &Report, notable: &[&Gate]) -> String {
    let mut text = format!("\n<details><summary>{}, {} claims</summary>\n\n", report.counts(), report.claims.len());
    for gate in notable.iter().take(MAX_ROWS) {
        text.push_str(&format!("- {}: {}\n", escape(&gate.title()), escape(&gate.reason)));
    }
    for difference in &report.differences {
        text.push_str(&format!("- differs: {}\n", escape(&difference.describe())));
    }
    let base = report.base_run.as_deref().unwrap_or("none");
    text.push_str(&format!("- base `{}`, head `{}`\n", code(base), code(&report.head_run)));
    if !report.command.is_empty() {
        text.push_str(&format!("- again: `{}`\n", code(&report.command)));
    }
    text.push_str("\n</details>\n");
    text
}

fn more(rows: usize) -> String {
    if rows > MAX_ROWS { format!("\n… and {} more rows\n", rows - MAX_ROWS) } else { String::new() }
}

/// Text that stays text inside a Markdown table: no cell breaks, markup, HTML or mentions.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' => out.push(' '),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '@' => out.push_str("&#64;"),
            '|' | '`' | '*' | '_' | '[' | ']' | '\\' => out.extend(['\\', c]),
            _ => out.push(c),
        }
    }
    out
}

/// Text inside backticks, which know no escapes.
fn code(text: &str) -> String {
    text.replace('`', "'").replace(['\n', '\r'], " ")
}
