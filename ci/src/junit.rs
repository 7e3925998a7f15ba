//! A check as JUnit XML: a suite of gates, a suite of cells, a suite of claims.

use crate::check::Report;
use crate::verdict::Weight;

/// One test case.
struct Case<'a> {
    class: &'a str,
    name: String,
    weight: Weight,
    word: &'a str,
    reason: &'a str,
}

/// Renders `report`. A regression is a failure, a failed cell an error, an open question a skipped test.
pub fn render(report: &Report) -> String {
    let gates: Vec<Case> = report
        .gates
        .iter()
        .map(|gate| Case {
            class: &gate.cell,
            name: gate.title(),
            weight: gate.weight,
            word: gate.outcome.word(),
            reason: &gate.reason,
        })
        .collect();
    let cells: Vec<Case> = report
        .cells
        .iter()
        .map(|cell| Case {
            class: &cell.cell,
            name: cell.label.clone(),
            weight: cell.weight,
            word: cell.outcome.word(),
            reason: &cell.reason,
        })
        .collect();
    let claims: Vec<Case> = report
        .claims
        .iter()
        .map(|claim| Case {
            class: "claims",
            name: claim.id.clone(),
            weight: claim.weight,
            word: claim.head.map_or("missing", |verdict| verdict.word()),
            reason: &claim.reason,
        })
        .collect();
    let whole = Case {
        class: "check",
        name: "verdict".to_owned(),
        weight: match report.verdict.exit_code(true) {
            0 => Weight::None,
            1 => Weight::Regression,
            3 => Weight::Failure,
            _ => Weight::Open,
        },
        word: report.verdict.word(),
        reason: &report.summary,
    };
    let told = [&[report.summary.clone()][..], &report.warnings].concat().join("; ");
    let whole = Case { reason: &told, ..whole };
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"infermark\">\n");
    for (name, cases) in [("check", vec![whole]), ("gates", gates), ("cells", cells), ("claims", claims)] {
        text.push_str(&suite(&format!("{} {name}", report.scenario), &cases));
    }
    text.push_str("</testsuites>\n");
    text
}

fn suite(name: &str, cases: &[Case]) -> String {
    let count = |weight: Weight| cases.iter().filter(|case| case.weight == weight).count();
    let mut text = format!(
        "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\">\n",
        escape(name),
        cases.len(),
        count(Weight::Regression),
        count(Weight::Failure),
        count(Weight::Open)
    );
    for case in cases {
        let (class, name) = (escape(case.class), escape(&case.name));
        let message = escape(&format!("{}: {}", case.word, case.reason));
        let inside = match case.weight {
            Weight::None => format!("<system-out>{message}</system-out>"),
            Weight::Open => format!("<skipped message=\"{message}\"/>"),
            Weight::Regression => format!("<failure type=\"{}\" message=\"{message}\"/>", escape(case.word)),
            Weight::Failure => format!("<error type=\"{}\" message=\"{message}\"/>", escape(case.word)),
        };
        text.push_str(&format!("    <testcase classname=\"{class}\" name=\"{name}\">{inside}</testcase>\n"));
    }
    text.push_str("  </testsuite>\n");
    text
}

/// Text for an XML attribute or element: entities, and no character that XML 1.0 forbids.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\t' | '\n' | '\r' => out.push_str(&format!("&#{};", c as u32)),
            c if c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_escaped() {
        assert_eq!(
            escape("a<b> & \"c\" 'd'\u{0}\u{1b}\n"),
            "a&lt;b&gt; &amp; &quot;c&quot; &apos;d&apos;\u{fffd}\u{fffd}&#10;"
        );
    }
}
