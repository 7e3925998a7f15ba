//! `records/claims.csv` and the page that shows it.

use std::path::Path;

use results::claim::Verdict;
use results::judgement::{Judgement, headline, kept};

const PAGE: &str = "REAL-MODELS.md";
const BEGIN: &str =
    "<!-- records/claims.csv: `UPDATE_TABLES=1 cargo test -p results --test it` writes this table -->\n";
const END: &str = "<!-- end -->\n";

/// The headline of every claim, a column per model; the small embedded models share the first.
fn table() -> String {
    let mut columns: Vec<String> = vec![];
    let mut claims: Vec<&str> = vec![];
    for row in kept() {
        if !is_embedded(row) && !columns.contains(&row.subject()) {
            columns.push(row.subject());
        }
        if !claims.contains(&row.claim.as_str()) {
            claims.push(&row.claim);
        }
    }
    let of = |claim: &str, wanted: &dyn Fn(&Judgement) -> bool| {
        let rows: Vec<&Judgement> = kept().iter().filter(|row| row.claim == claim && wanted(row)).collect();
        headline(rows.into_iter())
    };
    let shown = |row: Option<&Judgement>| row.map_or("not judged".into(), cell);
    let mut lines = vec![
        format!("| claim and its headline number | embedded models | {} |", columns.join(" | ")),
        format!("|---|---{}|", "|---".repeat(columns.len())),
    ];
    for claim in claims {
        let part = of(claim, &|_| true).map_or("", |row| row.part.as_str());
        let mut cells = vec![format!("`{claim}`: {part}"), shown(of(claim, &is_embedded))];
        cells.extend(columns.iter().map(|model| shown(of(claim, &|row| row.subject() == *model))));
        lines.push(format!("| {} |", cells.join(" | ")));
    }
    lines.join("\n") + "\n"
}

fn is_embedded(row: &Judgement) -> bool {
    row.subject().starts_with("embedded:")
}

fn cell(row: &Judgement) -> String {
    let digits = |value: f64| {
        let text = format!("{value:.4}");
        text.trim_end_matches('0').trim_end_matches('.').to_string()
    };
    let word = row.verdict.word();
    match (row.measured, row.low.zip(row.high)) {
        (Some(value), Some((low, high))) if low < high => {
            format!("{word}: {} [{}, {}]", digits(value), digits(low), digits(high))
        }
        (Some(value), _) => format!("{word}: {}", digits(value)),
        (None, _) => word.to_string(),
    }
}

#[test]
fn the_page_shows_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the marker where the table begins");
    let (_, after) = rest.split_once(END).expect("the marker where it ends");
    let expected = format!("{before}{BEGIN}{}{END}{after}", table());
    if std::env::var_os("UPDATE_TABLES").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    assert!(page == expected || std::env::var_os("UPDATE_TABLES").is_some(), "{PAGE} lags behind records/claims.csv");
}

#[test]
fn kept_verdicts_name_no_folder_and_rest_on_a_number() {
    for row in kept() {
        assert!(!row.command.contains('/') && !row.model.contains('/'), "{row:?}");
        assert!(row.measured.is_some() || !matches!(row.verdict, Verdict::Reproduced | Verdict::Holds), "{row:?}");
        assert!(!row.machine.is_empty() && !row.started.is_empty() && !row.commit.is_empty(), "{row:?}");
    }
}
