//! Frames to one offline HTML file: the answer in words, then the pictures, then everything needed to doubt them.
//!
//! [`render`] digests a run once (`digest::Digest`), asks every entry of `section::SECTIONS` for its HTML and puts the parts on one
//! page. All charts are SVG made here; the scripts in `templates/script/` only add hover, sorting, filtering and metric pickers.

mod answer;
mod chart;
mod claim_rule;
mod digest;
mod mark;
mod page;
mod quantity;
mod reading;
mod scale;
mod section;
mod svg;
mod wording;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use results::aggregate::Comparison;
use results::run::{Run, StoreError};
use results::summary::Summary;

pub use answer::{answer, caveats};

/// Name of the file that [`write()`] leaves in a run directory.
pub const FILE_NAME: &str = "report.html";

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The run directory could not be read.
    #[error(transparent)]
    Run(#[from] StoreError),
    /// A template is broken or misses a value; a defect of this crate, never of a run.
    #[error("report template: {0}")]
    Template(#[from] tera::Error),
    /// The file could not be written.
    #[error("cannot write {}: {source}; free some space or pass another folder", path.display())]
    Write {
        /// File that was to be written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The report of a run as one HTML document that needs no other file and no network.
pub fn render(run: &Run) -> Result<String, ReportError> {
    let digest = digest::Digest::new(run);
    Ok(page::page(&digest)?)
}

/// The word of the report's tables for a comparison, where two copies of the reference reach `floor` (a logarithm; 0 without copies).
pub fn word(comparison: &Comparison, floor: f64) -> &'static str {
    reading::of_comparison(comparison, floor).word
}

/// Writes the sentences of the run in `run_dir` anew from its rows and claims, into its `summary.json`; nothing else is touched.
pub fn answer_again(run_dir: &Path) -> Result<(), ReportError> {
    let run = Run::load(run_dir)?;
    let answer = answer::answer(&run);
    let Some(summary) = run.summary else { return Ok(()) };
    let text = serde_json::to_string_pretty(&Summary { answer, ..summary }).expect("plain data with string keys");
    replace(run_dir, "summary.json", &format!("{text}\n")).map(|_| ())
}

/// Renders the run in `run_dir` and replaces its `report.html`: a reader sees the old file or the new one, never a part.
pub fn write(run_dir: &Path) -> Result<PathBuf, ReportError> {
    let html = render(&Run::load(run_dir)?)?;
    replace(run_dir, FILE_NAME, &html)
}

/// Replaces a file in one step.
fn replace(run_dir: &Path, name: &str, text: &str) -> Result<PathBuf, ReportError> {
    let path = run_dir.join(name);
    let unfinished = run_dir.join(format!(".{name}.{}", std::process::id()));
    let written = save(&unfinished, text.as_bytes()).and_then(|()| fs::rename(&unfinished, &path));
    written.map_err(|source| {
        // the old file stays; the unfinished one is of no use to anyone
        let _ = fs::remove_file(&unfinished);
        ReportError::Write { path: path.clone(), source }
    })?;
    Ok(path)
}

fn save(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
