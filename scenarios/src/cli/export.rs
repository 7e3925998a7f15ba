//! `export`: a run in the shapes other tools read.

mod llama_bench;

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use results::aggregate::aggregate;
use results::judgement;
use results::observation::{Direction, Status};
use results::run::Run;
use serde_json::{Value, json};

use super::{Blame, Failure, Outcome, PASS, deliver, find};

/// The command `export`.
#[derive(Args)]
#[command(
    after_help = "`-` as FILE means standard output. A pipe that its reader closes ends the text quietly; a full disk is an error.

Two commits under llama.cpp's own script:
  infermark export A --llama-bench - > both.jsonl; infermark export B --llama-bench - >> both.jsonl
  compare-llama-bench.py -t llama-bench -i both.jsonl -b COMMIT-OF-A -c COMMIT-OF-B"
)]
pub struct Export {
    /// A run directory
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Every row as CSV
    #[arg(long, value_name = "FILE", required_unless_present_any = ["claims", "llama_bench", "github_benchmark", "github_benchmark_smaller"])]
    csv: Option<PathBuf>,
    /// Every number of every claim as CSV: verdict, interval, model and command, to put runs on several models side by side
    #[arg(long, value_name = "FILE")]
    claims: Option<PathBuf>,
    /// Prompt processing and generation as llama-bench JSON lines, which llama.cpp's compare-llama-bench.py reads
    #[arg(long, value_name = "FILE")]
    llama_bench: Option<PathBuf>,
    /// Medians of what is better when larger, as github-action-benchmark JSON (customBiggerIsBetter)
    #[arg(long, value_name = "FILE")]
    github_benchmark: Option<PathBuf>,
    /// Medians of what is better when smaller, as github-action-benchmark JSON (customSmallerIsBetter)
    #[arg(long, value_name = "FILE")]
    github_benchmark_smaller: Option<PathBuf>,
}

impl Export {
    pub(super) fn obey(&self) -> Outcome {
        let files =
            [&self.csv, &self.claims, &self.llama_bench, &self.github_benchmark, &self.github_benchmark_smaller];
        let named: Vec<&PathBuf> = files.into_iter().flatten().collect();
        if let Some(twice) = named.iter().enumerate().find(|(i, file)| named[..*i].contains(file)) {
            return Err(anyhow!("{}: two formats cannot share one file; name one for each", twice.1.display())).usage();
        }
        let run = find::run(&self.run)?;
        if let Some(file) = &self.csv {
            deliver(file, |out| Ok(results::frame::export_csv(&run.observations, out)?))?;
        }
        if let Some(file) = &self.claims {
            let rows = judgement::of(&run);
            self.need(!rows.is_empty(), "--claims", "no claim")?;
            deliver(file, |out| Ok(judgement::write(&rows, out)?))?;
        }
        if let Some(file) = &self.llama_bench {
            let lines = llama_bench::lines(&run);
            self.need(!lines.is_empty(), "--llama-bench", "no speed of prompt processing or generation")?;
            deliver(file, |out| {
                lines.iter().try_for_each(|line| Ok(writeln!(out, "{}", serde_json::to_string(line)?)?))
            })?;
        }
        for (flag, file, direction) in [
            ("--github-benchmark", &self.github_benchmark, Direction::Higher),
            ("--github-benchmark-smaller", &self.github_benchmark_smaller, Direction::Lower),
        ] {
            let Some(file) = file else { continue };
            let medians = medians(&run, direction);
            self.need(!medians.is_empty(), flag, "no measured value with that direction")?;
            deliver(file, |out| Ok(writeln!(out, "{}", serde_json::to_string_pretty(&medians)?)?))?;
        }
        Ok(PASS)
    }

    /// An empty file would look like a result.
    fn need(&self, holds: bool, flag: &str, missing: &str) -> Result<(), Failure> {
        match holds {
            true => Ok(()),
            false => Err(anyhow!("{flag}: {} has {missing}, so there is nothing to write", self.run.display())).usage(),
        }
    }
}

/// Medians of every metric that gets better in `direction`, in github-action-benchmark's shape.
fn medians(run: &Run, direction: Direction) -> Vec<Value> {
    let rows = aggregate(&run.observations).into_iter();
    let rows = rows.filter(|row| row.direction == direction && row.status == Status::Ok);
    rows.filter_map(|row| {
        // JSON has no word for what is no number, and the reader of this file stops at one
        let value = row.median.filter(|value| value.is_finite())?;
        // one value has no interval
        let ends = row.low.zip(row.high).filter(|(low, high)| low < high);
        let width = ends.map(|(low, high)| (high - low) / 2.0).filter(|width| width.is_finite());
        let range = width.map(|width| format!("± {width:.4}"));
        let at = row.x.map_or(String::new(), |x| format!(" @ {x}"));
        let extra = format!("n = {}; {}", row.n_text(), row.kernel_path);
        let name = format!("{} / {} / {}{at}", row.cell, row.workload, row.metric);
        Some(json!({ "name": name, "unit": row.unit, "value": value, "range": range, "extra": extra }))
    })
    .collect()
}
