//! How noisy a run was: what its two copies of the reference cell let it tell apart, in one word that sentences, badge and verdicts share.
//!
//! Every metric of a clock has its [`Resolution`]: the smallest slow-down that this many repetitions under this noise tell. A workload's is
//! that of its middle metric, because the shortest lengths of a sweep are noisier than what is asked about; the run's is that of its noisiest
//! workload, because one word covers all of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::aggregate::{Comparison, noise_floor};
use crate::metric::{Kind, metric};
use crate::observation::{Direction, Observation};
use crate::statistics::{Resolution, interval_coverage};

/// Slow-downs of this share are told in a quiet run: less than the effects that techniques are chosen for, which begin at about 10 %.
const QUIET: f64 = 0.05;
/// A run that does not tell slow-downs of this share is unusable for speed: halving the bytes of the weights, the least that quantization
/// does, may be worth no more than a factor of 1.5. Below it each comparison still has to be told by its own pairs.
const UNUSABLE: f64 = 0.5;
/// Copies whose middle differs by more than this share differ for a reason, and no number of repetitions helps.
const APART: f64 = 0.25;

/// What a reader may do with the speeds of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoiseLevel {
    /// Small differences can be told.
    Quiet,
    /// Only large differences can be told.
    Noisy,
    /// No difference of speed means anything.
    Unusable,
}

impl NoiseLevel {
    /// The word of the badge.
    pub fn word(self) -> &'static str {
        match self {
            NoiseLevel::Quiet => "quiet",
            NoiseLevel::Noisy => "noisy",
            NoiseLevel::Unusable => "unusable",
        }
    }
}

/// The reference and its copy, compared in everything that a clock measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Noise {
    /// The noisiest workload decides.
    pub level: NoiseLevel,
    /// What that workload tells apart.
    pub resolution: Resolution,
    /// The comparison of the copies that this rests on: of the workload's metrics the middle one.
    pub widest: Comparison,
    /// Every comparison of the copies.
    pub comparisons: Vec<Comparison>,
}

impl Noise {
    /// The numbers behind the word, in sentences.
    pub fn numbers(&self) -> String {
        let copies = self.widest.ratio.map_or(String::new(), |r| {
            let percent = 100.0 * interval_coverage(r.n);
            format!("{:.3} with the {percent:.0} % interval [{:.3}, {:.3}] over {} pairs", r.ratio, r.low, r.high, r.n)
        });
        let place = self.widest.x.map_or(String::new(), |x| format!(" at {x}"));
        format!(
            "Two copies of the reference have the ratio {copies} in {}{place} of {}. So many repetitions tell a difference of {} or more, in 95 \
             of 100 runs, with 1 false alarm in 100.",
            self.widest.metric,
            self.widest.workload,
            share(self.resolution.slowdown())
        )
    }
}

/// A share as a percentage with two digits.
fn share(share: f64) -> String {
    let percent = 100.0 * share;
    match percent {
        p if p >= 1000.0 => "1000 %".to_owned(),
        p if p >= 10.0 => format!("{p:.0} %"),
        p if p >= 1.0 => format!("{p:.1} %"),
        p => format!("{p:.2} %"),
    }
}

/// The noise of the rows of `reference` and its copy `control`; `None` where no clock measured both in five repetitions or more.
pub fn noise(rows: &[Observation], reference: &str, control: &str) -> Option<Noise> {
    let timed = |c: &Comparison| {
        c.direction != Direction::None
            && c.ratio.is_some()
            // a share of a roof is a time once more, over a limit that rises while the run goes on
            && !c.metric.starts_with("roof_")
            && metric(&c.metric).is_some_and(|metric| metric.kind() == Kind::Timing)
    };
    let comparisons: Vec<Comparison> = noise_floor(rows, reference, control).into_iter().filter(timed).collect();
    let mut workloads: BTreeMap<&str, Vec<(Resolution, &Comparison)>> = BTreeMap::new();
    for comparison in &comparisons {
        if let Some(resolution) = comparison.ratio.as_ref().and_then(Resolution::of_copies) {
            workloads.entry(&comparison.workload).or_default().push((resolution, comparison));
        }
    }
    let by_slowdown =
        |a: &(Resolution, &Comparison), b: &(Resolution, &Comparison)| a.0.slowdown().total_cmp(&b.0.slowdown());
    let middles = workloads.into_values().map(|mut metrics| {
        metrics.sort_by(by_slowdown);
        metrics[metrics.len() / 2]
    });
    let (resolution, widest) = middles.max_by(by_slowdown)?;
    let apart = widest.ratio.is_some_and(|r| r.ratio.ln().abs() > APART.ln_1p());
    let level = match resolution.slowdown() {
        _ if apart => NoiseLevel::Unusable,
        told if told <= QUIET => NoiseLevel::Quiet,
        told if told <= UNUSABLE => NoiseLevel::Noisy,
        _ => NoiseLevel::Unusable,
    };
    let widest = widest.clone();
    Some(Noise { level, resolution, widest, comparisons })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::observe;
    use crate::observation::{Axes, Status};
    use crate::trace::{Event, Trace, Work};

    fn row() -> Observation {
        Observation {
            run_id: "r".into(),
            scenario: "s".into(),
            cell: String::new(),
            axes: Axes::default(),
            workload: String::new(),
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

    /// Prefills of both copies under `workload`, repetition by repetition; the copy takes `apart(i)` times as long.
    fn copies(workload: &str, n: u32, apart: impl Fn(u32) -> f64) -> Vec<Observation> {
        let of = |cell: &str, repetition: u32, factor: f64| {
            let duration_ns = (1e9 * (1.0 + 0.1 * f64::from(repetition)) * factor) as u64;
            let event = Event::Prefill { n_tokens: 64, context: 0, duration_ns, work: Work::default() };
            let trace =
                Trace { cell: cell.into(), workload: workload.into(), repetition, events: vec![event], roof: None };
            observe(&trace, &row())
        };
        (0..n).flat_map(|i| [of("a", i, 1.0), of("a#aa", i, apart(i))].concat()).collect()
    }

    /// Pairs of one size and alternating sign: the pair means are 0 and plus and minus that size, so of 12 pairs the interval is
    /// plus and minus the size (only 21 of 78 means are at each end, and 13 are cut off).
    fn wobble(size: f64) -> impl Fn(u32) -> f64 {
        move |i| if i % 2 == 0 { 1.0 + size } else { 1.0 / (1.0 + size) }
    }

    #[test]
    fn the_word_follows_what_the_copies_let_a_run_tell() {
        for (size, word) in [(0.002, "quiet"), (0.02, "noisy"), (0.3, "unusable")] {
            let found = noise(&copies("pp", 12, wobble(size)), "a", "a#aa").expect("two copies");
            assert_eq!(found.level.word(), word, "{}", found.numbers());
        }
        // the same noise, four times the repetitions: half the slow-down, or less as its bound tightens
        let told = |n| noise(&copies("pp", n, wobble(0.02)), "a", "a#aa").expect("two copies").resolution.slowdown();
        assert!(told(48) < 0.55 * told(12), "{} {}", told(48), told(12));
    }

    #[test]
    fn copies_that_differ_surely_are_noise_however_narrow_the_interval() {
        let found = noise(&copies("pp", 20, |i| 1.4 + 0.001 * f64::from(i % 3)), "a", "a#aa").expect("two copies");
        assert_eq!(found.level, NoiseLevel::Unusable, "{}", found.numbers());
        assert!(found.numbers().contains("over 20 pairs"), "{}", found.numbers());
    }

    #[test]
    fn the_noisiest_workload_decides() {
        let rows = [copies("pp", 12, wobble(0.002)), copies("tg", 12, wobble(0.3))].concat();
        let found = noise(&rows, "a", "a#aa").expect("two copies");
        assert_eq!((found.level, found.widest.workload.as_str()), (NoiseLevel::Unusable, "tg"));
    }

    #[test]
    fn no_copy_or_too_few_repetitions_have_no_word() {
        assert_eq!(noise(&copies("pp", 4, wobble(0.01)), "a", "a#aa"), None);
        let alone: Vec<_> = copies("pp", 12, wobble(0.01)).into_iter().filter(|row| row.cell == "a").collect();
        assert_eq!(noise(&alone, "a", "a#aa"), None);
    }
}
