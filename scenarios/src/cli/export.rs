//! `export`: a run in the shapes other tools read.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::Args;
use results::aggregate::aggregate;
use results::observation::{Direction, Observation, Status};
use results::run::Run;
use serde_json::{Value, json};

use super::{Blame, Failure, Outcome, PASS};

/// The command `export`.
#[derive(Args)]
#[command(after_help = "`-` as FILE means standard output.")]
pub struct Export {
    /// A run directory
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Every row as CSV
    #[arg(long, value_name = "FILE", required_unless_present_any = ["llama_bench", "github_benchmark"])]
    csv: Option<PathBuf>,
    /// Prompt processing and generation as llama-bench JSON lines
    #[arg(long, value_name = "FILE")]
    llama_bench: Option<PathBuf>,
    /// Medians as github-action-benchmark JSON (customBiggerIsBetter)
    #[arg(long, value_name = "FILE")]
    github_benchmark: Option<PathBuf>,
}

impl Export {
    pub(super) fn obey(&self) -> Outcome {
        if !self.run.is_dir() {
            return Err(anyhow!(
                "{}: no such run directory; expected one that `infermark run` wrote",
                self.run.display()
            ))
            .usage();
        }
        let run = Run::load(&self.run).failed()?;
        if let Some(file) = &self.csv {
            deliver(file, |out| Ok(results::frame::export_csv(&run.observations, out)?))?;
        }
        if let Some(file) = &self.llama_bench {
            deliver(file, |out| Ok(llama_bench(&run).iter().try_for_each(|line| writeln!(out, "{line}"))?))?;
        }
        if let Some(file) = &self.github_benchmark {
            deliver(file, |out| Ok(serde_json::to_writer_pretty(out, &github_benchmark(&run))?))?;
        }
        Ok(PASS)
    }
}

fn deliver(file: &Path, write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>) -> Result<(), Failure> {
    if file == Path::new("-") {
        return write(&mut std::io::stdout().lock()).failed();
    }
    let cannot = || format!("{}: cannot write", file.display());
    let mut out = BufWriter::new(File::create(file).with_context(cannot).failed()?);
    write(&mut out).with_context(cannot).failed()?;
    out.flush().with_context(cannot).failed()
}

/// Which metric of a timed workload llama-bench would have measured.
fn llama_kind(row: &Observation) -> bool {
    row.status == Status::Ok && ["prefill_tok_s", "decode_tok_s"].contains(&row.metric.as_str()) && row.value.is_some()
}

/// One object per (cell, workload, length), with llama-bench's field names; a sample is one repetition.
fn llama_bench(run: &Run) -> Vec<Value> {
    let mut groups: Vec<(&Observation, Vec<f64>)> = vec![];
    for row in run.observations.iter().filter(|row| llama_kind(row)) {
        let value = row.value.unwrap_or(0.0);
        let same = |first: &Observation| {
            (&first.cell, &first.workload, &first.metric, first.x) == (&row.cell, &row.workload, &row.metric, row.x)
        };
        match groups.iter_mut().find(|(first, _)| same(first)) {
            Some((_, values)) => values.push(value),
            None => groups.push((row, vec![value])),
        }
    }
    let fact = |scope: &str, key: &str| run.fact(scope, key).unwrap_or("").to_string();
    let object = |(row, rates): &(&Observation, Vec<f64>)| {
        let prompt = row.metric == "prefill_tok_s";
        let tokens = tokens_in(&row.workload, row.x);
        let nanoseconds: Vec<f64> = rates.iter().map(|rate| tokens as f64 / rate * 1e9).collect();
        json!({
            "build_commit": fact("run", "git_commit"), "cpu_info": fact("machine", "cpu_model"), "backends": "infermark",
            "model_filename": row.axes.model, "model_type": row.axes.weights, "n_threads": row.threads,
            "type_k": row.axes.kv, "flash_attn": row.axes.attention == "flash", "cell": row.cell,
            "n_prompt": if prompt { tokens } else { 0 }, "n_gen": if prompt { 0 } else { tokens },
            "test_time": run.summary.as_ref().map_or("", |s| s.started.as_str()),
            "avg_ns": mean(&nanoseconds), "stddev_ns": deviation(&nanoseconds),
            "avg_ts": mean(rates), "stddev_ts": deviation(rates), "samples_ns": nanoseconds, "samples_ts": rates,
        })
    };
    groups.iter().map(object).collect()
}

/// 512 of `pp512`, 128 of `tg128@16`; a sweep's length is its coordinate.
fn tokens_in(workload: &str, x: Option<f64>) -> u64 {
    let sweep = workload.starts_with("pp") && workload.contains('-');
    let digits: String = workload.chars().skip(2).take_while(char::is_ascii_digit).collect();
    match x.filter(|_| sweep) {
        Some(x) => x as u64,
        None => digits.parse().unwrap_or(0),
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn deviation(values: &[f64]) -> f64 {
    let (m, n) = (mean(values), values.len() as f64);
    if n < 2.0 { 0.0 } else { (values.iter().map(|v| (v - m) * (v - m)).sum::<f64>() / (n - 1.0)).sqrt() }
}

/// Medians of every metric that gets better upwards.
fn github_benchmark(run: &Run) -> Vec<Value> {
    let rows = aggregate(&run.observations).into_iter();
    let rows = rows.filter(|row| row.direction == Direction::Higher && row.status == Status::Ok);
    rows.filter_map(|row| {
        let value = row.median?;
        let range = row.low.zip(row.high).filter(|(low, high)| low < high).map(|(low, high)| format!("± {:.4}", (high - low) / 2.0));
        let at = row.x.map_or(String::new(), |x| format!(" @ {x}"));
        let extra = format!("n = {}; {}", row.n_text(), row.kernel_path);
        let name = format!("{} / {} / {}{at}", row.cell, row.workload, row.metric);
        Some(json!({ "name": name, "unit": row.unit, "value": value, "range": range, "extra": extra }))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_come_from_names_and_coordinates() {
        assert_eq!(tokens_in("pp512", Some(512.0)), 512);
        assert_eq!(tokens_in("pp128-512", Some(128.0)), 128);
        assert_eq!(tokens_in("tg128@64", Some(64.0)), 128);
        assert_eq!((mean(&[1.0, 3.0]), deviation(&[1.0, 3.0])), (2.0, f64::sqrt(2.0)));
    }
}
