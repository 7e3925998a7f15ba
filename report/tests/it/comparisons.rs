//! What the page says of pairs of cells: kernels, gaps, the frontier, and what stands behind an interval.

use results::metric::{metric, observe};
use results::observation::{Axes, Direction, Observation, SCHEMA_VERSION, Status};
use results::run::Run;
use results::summary::{CellSummary, Role, Summary};
use results::trace::{Event, Trace, Work};

use crate::sample;

/// Text of the section with this anchor.
fn section<'a>(html: &'a str, id: &str) -> &'a str {
    let start = html.find(&format!("<section id=\"{id}\"")).unwrap_or_else(|| panic!("no section {id}"));
    let rest = &html[start..];
    &rest[..rest.find("</section>").expect("section ends")]
}

fn base(cell: &str) -> Observation {
    Observation {
        run_id: "r".into(),
        scenario: "s".into(),
        cell: cell.into(),
        axes: Axes { attention: cell.into(), ..Axes::default() },
        workload: "w".into(),
        sitting: 0,
        repetition: 0,
        item: 0,
        metric: String::new(),
        formula_id: String::new(),
        unit: String::new(),
        direction: Direction::None,
        value: None,
        x: None,
        status: Status::Ok,
        reason: String::new(),
        threads: 1,
        kernel_path: String::new(),
        seed: 1,
    }
}

fn values(cell: &str, id: &str, values: &[f64]) -> Vec<Observation> {
    let known = metric(id).expect("a registered metric");
    let row = |(value, repetition): (&f64, u32)| Observation {
        repetition,
        metric: id.into(),
        formula_id: known.formula_id().into(),
        unit: known.unit().into(),
        direction: known.direction(),
        value: Some(*value),
        ..base(cell)
    };
    values.iter().zip(0..).map(row).collect()
}

/// A run of these cells, the first of which is the reference.
fn run(cells: &[&str], observations: Vec<Observation>) -> Run {
    let cell = |(index, id): (usize, &&str)| CellSummary {
        id: (*id).into(),
        label: (*id).into(),
        axes: base(id).axes,
        role: if index == 0 { Role::Reference } else { Role::Candidate },
        status: Status::Ok,
        reason: String::new(),
    };
    let summary = Summary {
        schema_version: SCHEMA_VERSION,
        run_id: "r".into(),
        scenario: "s".into(),
        question: String::new(),
        analysis: String::new(),
        answer: vec![],
        caveats: vec![],
        models: vec![],
        cells: cells.iter().enumerate().map(cell).collect(),
        command: String::new(),
        started: String::new(),
        elapsed_s: 1.0,
        complete: true,
        ..Summary::default()
    };
    Run { summary: Some(summary), observations, ..Run::default() }
}

#[test]
fn kernels_stand_beside_the_reference_and_beside_their_ladder() {
    let kernel = |op: &str, rung: &str, shape: &str, us: u64| Event::Kernel {
        op: op.into(),
        rung: rung.into(),
        shape: shape.into(),
        calls: 10,
        duration_ns: us * 10_000,
        work: Work::default(),
    };
    let mut rows = vec![];
    for repetition in 0..4 {
        for (cell, us) in [("naive", 80), ("flash", 20)] {
            let events = vec![
                kernel("attention", cell, "n512 h8/8 d64", us + u64::from(repetition)),
                kernel("gemv", "scalar", "1x64x64", 40 + u64::from(repetition)),
                kernel("gemv", "avx2", "1x64x64", 10),
            ];
            let trace = Trace { cell: cell.into(), workload: "w".into(), repetition, events, roof: None };
            rows.extend(observe(&trace, &base(cell)));
        }
    }
    let html = report::render(&run(&["naive", "flash"], rows)).expect("renders");
    let tables = section(&html, "tables");
    assert!(tables.contains("vs naive") && !tables.contains("vs flash"), "flash stands beside naive");
    assert!(tables.contains(">to scalar<"), "the ladder has a column of its own");
}

/// Four cells: `near` is as good as `fast` and slower (medians 199 and 200) by less than their repetitions differ; `slow` is beaten.
#[test]
fn only_what_is_told_apart_from_the_frontier_is_beaten() {
    let speeds = [
        ("slow", [100.0, 101.0, 99.0, 100.5, 99.5, 100.0, 101.0, 99.0], 10.0),
        ("fast", [200.0, 204.0, 196.0, 202.0, 198.0, 200.0, 203.0, 197.0], 10.0),
        ("near", [201.0, 198.0, 202.0, 197.0, 200.0, 199.0, 198.0, 199.0], 10.0),
        ("good", [150.0, 151.0, 149.0, 150.0, 150.5, 149.5, 151.0, 149.0], 9.0),
    ];
    let rows = speeds
        .iter()
        .flat_map(|(cell, speed, ppl)| [values(cell, "decode_tok_s", speed), values(cell, "ppl", &[*ppl])].concat());
    let html = report::render(&run(&["slow", "fast", "near", "good"], rows.collect())).expect("renders");
    let pareto = section(&html, "pareto");
    let place = |cell: &str| {
        let row = &pareto[pareto.find(&format!("<tr data-cell=\"{cell}\"")).expect("a row")..];
        let row = &row[..row.find("</tr>").expect("a row ends")];
        let last = &row[row.rfind("<td>").expect("a last cell") + 4..];
        last[..last.find("</td>").expect("it ends")].to_owned()
    };
    assert_eq!(place("fast"), "frontier");
    assert_eq!(place("good"), "frontier");
    assert_eq!(place("near"), "not told apart from fast");
    assert_eq!(place("slow"), "beaten by fast");
    assert_eq!(
        pareto.matches(" beaten\" data-cell").count(),
        0,
        "the beaten one is the reference, which is never pale"
    );
    assert!(pareto.contains("n = 8") && pareto.contains("\nnot told apart from fast"), "the tooltip says it too");
}

#[test]
fn n_names_repetitions_and_events() {
    let html = report::render(&sample::run(4)).expect("renders");
    // eight requests per repetition, 47 gaps in each request of a cell that emits one token at a time
    for id in ["tables", "latency"] {
        let text = section(&html, id);
        assert!(text.contains(">4\u{202f}×\u{202f}8<") && text.contains(">4\u{202f}×\u{202f}376<"), "{id}");
    }
}

#[test]
fn gaps_of_decoders_that_emit_several_tokens_have_no_better_end() {
    let html = report::render(&sample::run(4)).expect("renders");
    let tables = section(&html, "tables");
    let table = &tables[tables.find("<caption>Gap between chunks").expect("a table")..];
    let table = &table[..table.find("</table>").expect("a table ends")];
    assert!(table.starts_with("<caption>Gap between chunks in ms, neither way is better between some of these cells"));
    for row in table.split("<tr ").filter(|row| row.contains("speculative-k4")) {
        let word = &row[row.find("reading-word").expect("a reading")..];
        assert!(!word.contains("better") && !word.contains("worse"), "{word}");
    }
    assert!(
        section(&html, "latency").contains("Not a ranking of all these cells: the cells emit unequally many tokens")
    );
}

/// Few repetitions carry no percentile, however many events they hold.
#[test]
fn percentiles_need_repetitions() {
    let trusted = |repetitions| {
        let html = report::render(&sample::run(repetitions)).expect("renders");
        let latency = section(&html, "latency");
        // every row has a cell for n, and one for each percentile that is trusted
        latency.matches("<td class=\"num\" data-sort=").count() > latency.matches("<tr data-cell").count()
    };
    assert!(!trusted(6) && trusted(8));
}
