//! A check as GitHub workflow commands: one annotation per finding.

use crate::check::Report;
use crate::verdict::Weight;

/// Annotations of one level that a step may show; the rest is counted in the last one.
const MAX_PER_LEVEL: usize = 9;

/// Renders `report`.
pub fn render(report: &Report) -> String {
    let cells = report.cells.iter().map(|cell| (cell.weight, cell.label.clone(), cell.outcome.word(), &cell.reason));
    let gates = report.notable().into_iter().map(|gate| (gate.weight, gate.title(), gate.outcome.word(), &gate.reason));
    let claims = report.changed_claims().into_iter().map(|claim| {
        (
            claim.weight,
            format!("claim {}", claim.id),
            claim.head.map_or("missing", |verdict| verdict.word()),
            &claim.reason,
        )
    });
    let findings: Vec<_> = cells.chain(gates).chain(claims).collect();
    let mut text = String::new();
    for level in ["error", "warning", "notice"] {
        let here: Vec<_> = findings.iter().filter(|(weight, ..)| level_of(*weight) == level).collect();
        for (_, title, word, reason) in here.iter().take(MAX_PER_LEVEL) {
            text.push_str(&command(level, title, &format!("{word}: {reason}")));
        }
        if here.len() > MAX_PER_LEVEL {
            let rest = format!("{} more; see the summary of the job", here.len() - MAX_PER_LEVEL);
            text.push_str(&command(level, "infermark", &rest));
        }
    }
    for warning in report.warnings.iter().take(MAX_PER_LEVEL) {
        text.push_str(&command("notice", "infermark", warning));
    }
    let level = level_of(match report.verdict.exit_code(true) {
        0 => Weight::None,
        4 => Weight::Open,
        _ => Weight::Failure,
    });
    text.push_str(&command(level, &format!("infermark {}", report.verdict.word()), &report.summary));
    text
}

fn level_of(weight: Weight) -> &'static str {
    match weight {
        Weight::None => "notice",
        Weight::Open => "warning",
        Weight::Regression | Weight::Failure => "error",
    }
}

fn command(level: &str, title: &str, message: &str) -> String {
    format!("::{level} title={}::{}\n", property(title), message_text(message))
}

fn message_text(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    message_text(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workflow_commands_cannot_be_broken_out_of() {
        let line = command("error", "a:b,c\n::warning::x", "5 %\n::notice::y");
        assert_eq!(line, "::error title=a%3Ab%2Cc%0A%3A%3Awarning%3A%3Ax::5 %25%0A::notice::y\n");
        assert_eq!(line.lines().count(), 1);
    }
}
