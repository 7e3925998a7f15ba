//! `doctor --resolution`: the smallest slow-down that is told on this machine, now.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use results::aggregate::compare;
use results::noise::{Noise, NoiseLevel, noise};
use results::run::Run;
use results::statistics::{Ratio, Resolution};

use super::advice;
use crate::cell::ResolvedScenario;
use crate::cli::table::table;
use crate::cli::{Blame, Outcome, PASS, RUN_FAILED, print};
use crate::machine;
use crate::runner::{self, Asked, RunRequest};
use crate::stopwatch::Stopwatch;

/// Longest measurement.
const MOST_SECONDS: f64 = 86_400.0;

/// Reads `--seconds`.
pub(super) fn seconds(given: &str) -> Result<f64, String> {
    match given.parse::<f64>() {
        Ok(seconds) if (1.0..=MOST_SECONDS).contains(&seconds) => Ok(seconds),
        _ => Err(format!("expected a number of seconds from 1 to {MOST_SECONDS}, e.g. 60")),
    }
}

/// Two copies of one loop, and a third cell that is 3 % slower: as many as make up the smallest question. Cells of a round that stand further
/// apart in time differ more, so two alone would promise too much.
fn scenario(seconds: f64) -> String {
    format!(
        "name = \"resolution\"\nquestion = \"What is the smallest slow-down that this machine tells?\"\n\
         [budget]\nthreads = 1\nseconds = {seconds:?}\nmin_repetitions = 8\nmax_repetitions = 1000000\nprecision = 1e-9\n\
         measure_machine = false\n[[workload]]\nkind = \"known-answer\"\nslowdowns = [1.0, 1.03]\n"
    )
}

pub(super) fn obey(seconds: f64, python: &Path) -> Outcome {
    let scenario = ResolvedScenario::parse(&scenario(seconds), None).failed()?;
    let ids = scenario.cells.iter().map(|cell| cell.id.clone()).collect::<Vec<_>>();
    let folder = std::env::temp_dir().join(format!("infermark-resolution-{}", std::process::id()));
    let request = RunRequest {
        scenario,
        output: folder.clone(),
        resume: false,
        cells_filter: None,
        asked: Asked {
            command: format!("infermark doctor --resolution --seconds {seconds}"),
            continue_with: String::new(),
            sets: vec![],
            file_blake3: None,
        },
        allow_other_build: false,
        python: python.to_path_buf(),
        quiet: true,
    };
    let measured = with_bar(seconds, || {
        let outcome = runner::run(request)?;
        Run::load(&outcome.run_dir).context("the rows of the two copies")
    });
    // rows of a loop are of no use to anyone later; what cannot be removed lies in the system's own scratch folder
    let _ = std::fs::remove_dir_all(&folder);
    let run = measured.failed()?;
    let found = noise(&run.observations, &ids[0], &ids[ids.len() - 1]);
    let Some(found) = found else {
        let ended = run.summary.iter().flat_map(|summary| &summary.cells).find(|cell| !cell.reason.is_empty());
        let why =
            ended.map_or("fewer than five repetitions were made; raise --seconds".into(), |cell| cell.reason.clone());
        print(&format!("The two copies could not be compared: {why}\n"))?;
        return Ok(RUN_FAILED);
    };
    let slower =
        compare(&run.observations, &ids[0]).into_iter().find(|c| c.cell == ids[1] && c.metric == found.widest.metric);
    print(&text(seconds, &found, slower.and_then(|c| c.ratio)))?;
    Ok(PASS)
}

/// Runs `task` beside a bar of its seconds.
fn with_bar<T>(seconds: f64, task: impl FnOnce() -> T) -> T {
    let bar = ProgressBar::new(seconds.ceil() as u64);
    let style = ProgressStyle::with_template("two copies of a counted loop  {bar:30} {pos}/{len} s");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let (clock, over) = (Stopwatch::start(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                bar.set_position((clock.seconds() as u64).min(seconds.ceil() as u64));
                std::thread::sleep(Duration::from_millis(100));
            }
            bar.finish_and_clear();
        });
        let result = task();
        over.store(true, Ordering::Relaxed);
        result
    })
}

/// What was found, what it means, and what to do where it is bad.
fn text(seconds: f64, found: &Noise, slower: Option<Ratio>) -> String {
    let resolution = &found.resolution;
    let shown = |ratio: Option<Ratio>| {
        ratio.map_or("not measured".into(), |r| format!("{:.4} [{:.4}, {:.4}]", r.ratio, r.low, r.high))
    };
    let rows = [
        ("noise".to_string(), found.level.word().to_string()),
        ("repetitions of each copy".into(), resolution.pairs.to_string()),
        ("ratio of the two copies, 95 % interval".into(), shown(found.widest.ratio)),
        ("ratio of a loop with 3 % more steps".into(), shown(slower)),
        ("smallest slow-down told with as many".into(), percent(resolution.slowdown())),
        ("repetitions for a slow-down of 3 %".into(), repetitions(resolution, 0.03)),
        ("repetitions for a slow-down of 1 %".into(), repetitions(resolution, 0.01)),
    ];
    let mut text = format!(
        "Resolution of this machine, measured now for {seconds} seconds with two copies of a counted loop\n{}\n\
         A slow-down counts as told when 95 of 100 runs find it while 1 of 100 runs without one gives a false alarm. The numbers allow for \
         the noise being an estimate. They are those of a loop that needs no memory; the badge of a report says the same of its own workloads.\n",
        table(&["what", "value"], rows.map(|(what, value)| vec![what, value]))
    );
    if found.level != NoiseLevel::Quiet || resolution.bias > 0.0 {
        text += "\nAdvice\n";
        let facts = machine::facts(1);
        let mut lines = advice(&facts, machine::default_threads());
        // the last line is about threads, which one loop does not use
        lines.pop();
        if resolution.bias > 0.0 {
            lines.push(format!(
                "the two copies differ by {} beyond chance: something is tied to a process and not to the moment (the core it runs on, \
                 a neighbour of that core); no number of repetitions removes it, fewer threads or pinned cores may",
                percent(resolution.bias.exp_m1())
            ));
        }
        lines.push("stop what else runs here, or measure when less does; more repetitions narrow every interval by their square root".into());
        if found.level == NoiseLevel::Unusable {
            lines.push("until then this machine measures quality and memory, and no speed".into());
        }
        for line in lines {
            text += &format!("  - {line}\n");
        }
    }
    text
}

fn repetitions(resolution: &Resolution, slowdown: f64) -> String {
    match resolution.pairs_for(slowdown) {
        Some(pairs) => pairs.to_string(),
        None => "no number is enough: the copies themselves differ by as much".into(),
    }
}

fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    if percent < 1.0 { format!("{percent:.2} %") } else { format!("{percent:.1} %") }
}

#[cfg(test)]
mod tests {
    use results::aggregate::Comparison;
    use results::observation::Direction;
    use results::statistics::Interval;

    use super::*;

    fn found(log_ratio: f64, half_width: f64, level: NoiseLevel) -> Noise {
        let [ratio, low, high] = [log_ratio, log_ratio - half_width, log_ratio + half_width].map(f64::exp);
        let ratio = Ratio { ratio, low, high, n: 100 };
        let widest = Comparison {
            cell: "counted-loop#aa".into(),
            reference: "counted-loop".into(),
            workload: "known-answer".into(),
            metric: "us_per_call".into(),
            reference_metric: "us_per_call".into(),
            note: String::new(),
            unit: "us".into(),
            direction: Direction::Lower,
            x: None,
            n_pairs: 100,
            ratio: Some(ratio),
            difference: Interval { estimate: 0.0, low: 0.0, high: 0.0, n: 100 },
            p: Some(0.5),
        };
        let resolution = Resolution::of_copies(&ratio).expect("pairs");
        Noise { level, resolution, widest, comparisons: vec![] }
    }

    /// Oracle: as worked out beside `Resolution`: a half-width of 1.96 % over 100 pairs tells 7.7 %.
    #[test]
    fn the_table_says_what_was_found() {
        let quiet = text(60.0, &found(0.0, 0.019_599_64, NoiseLevel::Quiet), None);
        for said in ["for 60 seconds", "quiet", "7.7 %", "[0.9806, 1.0198]"] {
            assert!(quiet.contains(said), "{said} is not in {quiet}");
        }
        assert!(!quiet.contains("Advice"), "{quiet}");
        let biased = text(60.0, &found(0.05, 0.004, NoiseLevel::Noisy), None);
        assert!(biased.contains("no number is enough") && biased.contains("tied to a process"), "{biased}");
    }

    #[test]
    fn seconds_are_a_number_in_range() {
        assert_eq!(seconds("60"), Ok(60.0));
        for bad in ["0", "-1", "nan", "inf", "x", "1e9"] {
            assert!(seconds(bad).is_err_and(|why| why.contains("from 1 to 86400")), "{bad}");
        }
    }

    #[test]
    fn its_scenario_is_two_copies_and_a_slower_loop() {
        let resolved = ResolvedScenario::parse(&scenario(2.5), None).unwrap_or_else(|e| panic!("{e}"));
        let ids: Vec<&str> = resolved.cells.iter().map(|cell| cell.id.as_str()).collect();
        assert_eq!(ids, ["counted-loop", "counted-loop[x1.03]", "counted-loop#aa"]);
    }
}
