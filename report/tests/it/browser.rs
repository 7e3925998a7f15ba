//! The page opened, clicked through and printed by a headless Chromium; skipped with a word where there is none.

use std::path::Path;
use std::process::Command;

use crate::sample::{self, HOSTILE};
use results::run::Run;

const FLAGS: [&str; 9] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=3000",
];

fn browser() -> Option<&'static str> {
    let works = |name: &&str| Command::new(name).arg("--version").output().is_ok_and(|out| out.status.success());
    ["chromium", "chromium-browser", "google-chrome"].into_iter().find(works)
}

/// The document after its scripts ran.
fn opened(browser: &str, page: &Path, hash: &str) -> String {
    let profile = tempfile::tempdir().expect("a profile folder");
    let out = Command::new(browser)
        .args(FLAGS)
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(["--dump-dom", &format!("file://{}{hash}", page.display())])
        .output()
        .expect("the browser starts");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn passes(browser: &str, run: &Run) {
    let folder = tempfile::tempdir().expect("a folder");
    let page = folder.path().join("report.html");
    std::fs::write(&page, report::render(run).expect("renders")).expect("written");
    let dom = opened(browser, &page, "#selftest");
    let root = &dom[dom.find("<html").expect("a document")..];
    let root = &root[..root.find('>').expect("a tag")];
    assert!(root.contains("data-selftest=\"ok\""), "{root}");
    assert!(!root.contains("data-script-error") && !root.contains("data-hacked"), "{root}");
    let plain = opened(browser, &page, "");
    assert!(!plain.contains("data-selftest="), "the self-test runs only when asked");
}

#[test]
fn the_page_works_in_a_browser() {
    let Some(browser) = browser() else {
        println!("skipped: no chromium");
        return;
    };
    passes(browser, &sample::run(3));
    let mut hostile = sample::run(1);
    for cell in &mut hostile.summary.as_mut().expect("summary").cells {
        cell.label.push_str(HOSTILE);
        cell.axes.weights.push_str(HOSTILE);
    }
    passes(browser, &hostile);
    passes(browser, &Run::default());
}
