//! What must be in the page, and what must never be.

use std::sync::LazyLock;

use crate::sample::{self, HOSTILE};
use results::run::Run;

/// The page of the sample, rendered once for all tests.
static PAGE: LazyLock<String> = LazyLock::new(|| report::render(&sample::run(4)).expect("renders"));

/// Text of the section with this anchor.
fn section<'a>(html: &'a str, id: &str) -> &'a str {
    let start = html.find(&format!("<section id=\"{id}\"")).unwrap_or_else(|| panic!("no section {id}"));
    let rest = &html[start..];
    &rest[..rest.find("</section>").expect("section ends")]
}

#[test]
fn every_section_is_there_in_order() {
    let html = &*PAGE;
    let ids = [
        "answer",
        "pareto",
        "tables",
        "latency",
        "roofline",
        "claims",
        "sweeps",
        "models",
        "caveats",
        "glossary",
        "provenance",
    ];
    let places: Vec<usize> = ids.iter().map(|id| html.find(&format!("<section id=\"{id}\"")).expect(id)).collect();
    assert!(places.is_sorted(), "{places:?}");
    for id in ids {
        assert!(html.contains(&format!("href=\"#{id}\"")), "{id} is not in the contents");
    }
}

#[test]
fn nothing_is_fetched() {
    let html = &*PAGE;
    for needle in
        ["src=\"http", "href=\"http", "src='http", "url(http", "@import", "<link", "src=\"//", "fetch(", "<iframe"]
    {
        assert!(!html.contains(needle), "{needle}");
    }
    let without_namespace = html.replace("http://www.w3.org/2000/svg", "");
    assert!(!without_namespace.contains("http://") && !without_namespace.contains("https://"));
}

#[test]
fn hostile_text_stays_text() {
    let html = &*PAGE;
    assert!(!html.contains(HOSTILE) && !html.contains("<img"));
    let escaped = "&lt;/script&gt;&lt;img src=x onerror=";
    assert!(html.matches(escaped).count() >= 4, "answer, missing cells, claim and provenance carry it as text");
    assert_eq!(html.matches("</script>").count(), 2, "the data and the script end once each");
}

#[test]
fn hostile_labels_stay_inside_the_data() {
    let mut run = sample::run(1);
    for cell in &mut run.summary.as_mut().expect("summary").cells {
        cell.label = format!("{}{HOSTILE}", cell.label);
        cell.axes.weights = format!("{}{HOSTILE}", cell.axes.weights);
    }
    let html = report::render(&run).expect("renders");
    assert!(!html.contains("<img"));
    assert_eq!(html.matches("</script>").count(), 2);
    let start = html.find("id=\"pareto-data\">").expect("data") + "id=\"pareto-data\">".len();
    let json = &html[start..start + html[start..].find("</script>").expect("end")];
    let data: serde_json::Value = serde_json::from_str(json).expect("the data is JSON");
    assert!(data["cells"][0]["label"].as_str().expect("label").ends_with(HOSTILE), "and comes back as it was");
}

#[test]
fn the_answer_comes_first_and_partial_is_said() {
    let html = &*PAGE;
    let answer = section(html, "answer");
    for needle in
        ["Which cheap trick", "2.65× the reference", "partial", "2 confirmed", "not reproduced", "skipped: no GPU"]
    {
        assert!(answer.contains(needle), "{needle}");
    }
}

#[test]
fn cells_without_numbers_are_listed_with_reasons() {
    let html = &*PAGE;
    let pareto = section(html, "pareto");
    for needle in ["wrong result", "logits is 3.100e0", "skipped", "needs a calibration text"] {
        assert!(pareto.contains(needle), "{needle}");
    }
    assert!(!pareto.contains("data-cell=\"naive+gptq-4bit-g128+contiguous+greedy+cpu\""), "a wrong cell has no point");
}

#[test]
fn tables_word_noise_and_spread() {
    let html = &*PAGE;
    let tables = section(html, "tables");
    for needle in [
        "within noise",
        "better",
        "excellent",
        "<span class=\"tag\" title=\"the reference again",
        "95 % interval",
        "equal",
    ] {
        assert!(tables.contains(needle), "{needle}");
    }
}

#[test]
fn impossible_speeds_and_cached_weights_are_called_so() {
    let html = &*PAGE;
    let roofline = section(html, "roofline");
    assert!(roofline.contains("impossible: distrust"));
    assert!(roofline.contains("; impossible: flash · int8"), "cells above the roof are named");
    assert!(
        roofline.contains("cache bandwidth") && !roofline.contains("<td>bandwidth</td>"),
        "the level of memory is named"
    );
    assert!(!html.contains("\u{202f}MB") && html.contains("\u{202f}MiB"), "sizes are binary everywhere");
    assert!(
        roofline.contains("says nothing about memory bandwidth")
            || roofline.contains("say nothing about memory bandwidth")
            || roofline.contains("speed says nothing")
    );
}

#[test]
fn every_chart_has_a_text_alternative() {
    let html = &*PAGE;
    let n_charts = html.matches("class=\"drawing\"").count();
    assert!(n_charts >= 6, "{n_charts}");
    assert_eq!(html.matches("<desc id=").count(), n_charts);
    assert!(html.matches("<details class=\"data\">").count() >= n_charts);
    assert!(
        !html.contains("NaN") || html.matches("NaN").count() == 2,
        "numbers are numbers (the script names NaN itself)"
    );
}

#[test]
fn a_claim_shows_the_papers_number_and_the_share_that_was_found() {
    let claims = section(&PAGE, "claims");
    let start = claims.find("id=\"claim-awq-salient-channels\"").expect("the claim");
    let claim = &claims[start..start + claims[start..].find("</tbody>").expect("its end")];
    assert!(claim.contains("<span class=\"value\">0.484"), "{claim}");
    assert!(claim.contains("<span class=\"found\">0.47 % of the paper&#39;s effect</span>"), "{claim}");
    // the same in the picture and in its text
    let label = "measured 0.9966\u{202f}× [0.9947, 0.9986], the rule wants at most 0.98, the paper prints 0.484";
    assert!(claim.contains(label), "{claim}");
    assert_eq!(claim.matches("class=\"of-paper\"").count(), 1, "{claim}");
    assert_eq!(claim.matches("class=\"origin\"").count(), 2, "{claim}");
    // every other number of the claim has its own line
    assert!(claim.contains("kept by activations over at random: 0.97"), "{claim}");
}

#[test]
fn untrusted_percentiles_are_marked() {
    let html = &*PAGE;
    assert!(section(html, "latency").contains("too few events or repetitions for this percentile"));
}

#[test]
fn a_run_without_anything_is_a_page_too() {
    let html = report::render(&Run::default()).expect("renders");
    assert!(html.contains("Not in this report") && html.contains("no summary"));
    let mut run = sample::run(1);
    run.summary = None;
    run.claims.clear();
    run.facts.clear();
    let html = report::render(&run).expect("renders without a summary");
    assert!(html.contains("section id=\"tables\""));
}

#[test]
fn the_same_run_gives_the_same_page() {
    let run = sample::run(1);
    assert_eq!(report::render(&run).expect("renders"), report::render(&run).expect("renders"));
}

#[test]
fn writing_replaces_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("run");
    let mut directory = results::run::RunDirectory::create(&path).expect("a run directory");
    directory.append(&sample::run(1).observations).expect("rows");
    directory.seal().expect("sealed");
    std::fs::write(path.join(report::FILE_NAME), "old").expect("an old report");
    let written = report::write(&path).expect("a report");
    assert!(std::fs::read_to_string(written).expect("readable").starts_with("<!DOCTYPE html>"));
    let leftovers = std::fs::read_dir(&path)
        .expect("folder")
        .filter(|e| e.as_ref().is_ok_and(|e| e.file_name().to_string_lossy().starts_with(".report")));
    assert_eq!(leftovers.count(), 0);
    assert!(report::write(&folder.path().join("nothing")).is_err());
}
