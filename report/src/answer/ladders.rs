//! Ladders of kernels: the best rung of each operation and size, what it gains on the first rung, and how near it is to the roof.

use results::aggregate::Aggregate;
use results::metric::roof::EXCESS_LIMIT;
use results::observation::{Direction, Observation};

use super::contest::{Contest, FEWEST_PAIRS, Outcome};
use super::material::Material;
use super::names::{joined, set, times};
use crate::quantity::{ratio_text, significant};
use crate::wording;

/// Ladders that get a sentence each: the tables have the others.
const MOST_LADDERS: usize = 4;
const TIME: &str = "us_per_call";

/// One implementation on one cell.
#[derive(Debug, Clone, PartialEq)]
struct Rung {
    cell: String,
    name: String,
    /// Metric id of its times.
    metric: String,
}

/// All rungs of an operation at one size under one workload, in the order in which they ran.
#[derive(Debug)]
struct Ladder {
    op: String,
    shape: String,
    workload: String,
    rungs: Vec<Rung>,
}

/// A ladder that was decided.
struct Decided {
    sentence: String,
    name: String,
    share: Option<f64>,
}

/// One sentence per ladder while there are few, else the range of their shares of the roof and the two ends of it.
pub fn sentences(material: &Material<'_>) -> Vec<String> {
    if material.is_unusable() {
        return vec![];
    }
    let rows = material.rows(TIME);
    let shares = Shares::of(material);
    let mut decided: Vec<Decided> =
        ladders(&rows).iter().filter_map(|ladder| decide(material, &rows, ladder, &shares)).collect();
    if decided.len() <= MOST_LADDERS {
        return decided.into_iter().map(|d| d.sentence).collect();
    }
    let n = decided.len();
    decided.sort_by(|a, b| a.share.unwrap_or(0.0).total_cmp(&b.share.unwrap_or(0.0)));
    let known: Vec<&Decided> = decided.iter().filter(|d| d.share.is_some()).collect();
    let mut said = vec![];
    if let [first, .., last] = known[..] {
        said.push(format!(
            "The best rungs of {n} ladders reach from {} % ({}) to {} % ({}) of the measured roof.",
            significant(100.0 * first.share.unwrap_or(0.0), 3),
            first.name,
            significant(100.0 * last.share.unwrap_or(0.0), 3),
            last.name
        ));
    }
    said.push(decided[n - 1].sentence.clone());
    said.push(decided[0].sentence.clone());
    said.push(format!("{} other ladders lie in the tables.", n - 2));
    said
}

fn ladders(rows: &[Observation]) -> Vec<Ladder> {
    let mut ladders: Vec<Ladder> = vec![];
    for row in rows {
        let part = wording::part(&row.metric);
        let mut words = part.splitn(3, '/');
        // a trace with one kernel only has no part in its metric's name
        let op = words.next().filter(|op| !op.is_empty()).unwrap_or(&row.workload);
        let (rung, shape) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let rung = Rung { cell: row.cell.clone(), name: rung.to_owned(), metric: row.metric.clone() };
        match ladders.iter_mut().find(|l| l.op == op && l.shape == shape && l.workload == row.workload) {
            Some(ladder) if ladder.rungs.contains(&rung) => {}
            Some(ladder) => ladder.rungs.push(rung),
            None => ladders.push(Ladder {
                op: op.to_owned(),
                shape: shape.to_owned(),
                workload: row.workload.clone(),
                rungs: vec![rung],
            }),
        }
    }
    ladders
}

impl Ladder {
    /// Rows of this ladder with the rung as their cell, so that rungs pair by repetition.
    fn rows(&self, rows: &[Observation]) -> Vec<Observation> {
        let of = |row: &Observation| {
            let at = self.rungs.iter().position(|r| r.cell == row.cell && r.metric == row.metric)?;
            let (cell, metric) = (key(at), TIME.to_owned());
            (row.workload == self.workload).then(|| Observation { cell, metric, item: 0, ..row.clone() })
        };
        rows.iter().filter_map(of).collect()
    }

    /// Whether every rung is a cell of its own: then cells are compared, and their names say more.
    fn is_of_cells(&self) -> bool {
        let mut cells: Vec<&str> = self.rungs.iter().map(|r| r.cell.as_str()).collect();
        cells.dedup();
        cells.len() == self.rungs.len() && cells.len() > 1
    }

    fn rung(&self, material: &Material<'_>, at: usize) -> String {
        let rung = &self.rungs[at];
        let alone = self.rungs.iter().filter(|r| r.name == rung.name).count() == 1;
        match (rung.name.is_empty(), alone && !self.is_of_cells()) {
            (false, true) => rung.name.clone(),
            (false, false) if !self.is_of_cells() => format!("{} of {}", rung.name, material.label(&rung.cell)),
            _ => material.label(&rung.cell).to_owned(),
        }
    }
}

fn key(rung: usize) -> String {
    format!("{rung:06}")
}

fn decide(material: &Material<'_>, rows: &[Observation], ladder: &Ladder, shares: &Shares) -> Option<Decided> {
    let rows = ladder.rows(rows);
    let keys: Vec<String> = (0..ladder.rungs.len()).map(key).collect();
    let ids: Vec<&str> = keys.iter().map(String::as_str).collect();
    let reference = material.reference.map_or("", |c| c.id.as_str());
    let first = ladder.rungs.iter().position(|r| r.cell == reference).unwrap_or(0);
    let floor = ladder.rungs.get(first).map_or(0.0, |r| material.floor(&r.metric, &ladder.workload, None));
    let contest = Contest { rows: &rows, contestants: &ids, reference: ids[first], direction: Direction::Lower, floor };
    let outcome = contest.outcome();
    // times do not say which rung is best where nothing is told; its share of the roof is then that of the first
    let place = |id: &str| ids.iter().position(|k| *k == id).unwrap_or(first);
    let best = outcome.as_ref().map_or(first, |o| place(o.best));
    let name = format!("{} {}", ladder.op, ladder.shape).trim_end().to_owned();
    let share = shares.get(&ladder.rungs[best], &ladder.workload);
    let roof = share.map(|share| share.words());
    let rung = |at: usize| ladder.rung(material, at);
    let sentence = match &outcome {
        None => format!("{name}: {} reaches {}.", rung(best), roof.clone()?),
        Some(outcome) => {
            let level: Vec<usize> = outcome.level.iter().map(|id| place(id)).collect();
            said(material, ladder, &name, outcome, (first, best, &level), roof.as_deref())
        }
    };
    Some(Decided { sentence, name, share: share.and_then(|s| s.aggregate.median) })
}

fn said(
    material: &Material<'_>,
    ladder: &Ladder,
    name: &str,
    outcome: &Outcome<'_>,
    (first, best, level): (usize, usize, &[usize]),
    roof: Option<&str>,
) -> String {
    let (n, what) = (ladder.rungs.len(), if ladder.is_of_cells() { "cells" } else { "rungs" });
    let reaches = |who: &str| roof.map_or(String::new(), |roof| format!("; {who} reaches {roof}"));
    let (best_name, first_name) = (ladder.rung(material, best), ladder.rung(material, first));
    let Some(gain) = &outcome.gain else {
        let why = match outcome.n_worse {
            _ if outcome.most_pairs < FEWEST_PAIRS => {
                format!("{n} {what} were timed together only {}, too few to tell them apart", times(outcome.most_pairs))
            }
            0 => format!("no difference could be measured between {n} {what}"),
            worse => format!("of {n} {what} none is told to be faster than {first_name}, and {worse} to be slower"),
        };
        return format!("{name}: {why}{}.", reaches(&first_name));
    };
    let gain = ratio_text(gain);
    if level.len() < 2 {
        return format!(
            "{name}: {best_name} is the fastest of {n} {what}, {gain} the speed of {first_name}{}.",
            reaches("it")
        );
    }
    let names = match ladder.is_of_cells() {
        true => set(material, &level.iter().map(|at| ladder.rungs[*at].cell.as_str()).collect::<Vec<_>>()).0,
        false => joined(
            &level
                .iter()
                .map(|at| ladder.rung(material, *at))
                .collect::<Vec<_>>()
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>(),
            "and",
        ),
    };
    format!(
        "{name}: of {n} {what} the fastest are {names}, not told apart; {best_name} has {gain} the speed of {first_name}{}.",
        reaches("it")
    )
}

/// Shares of the roof of every kernel, and what binds each.
struct Shares {
    fractions: Vec<Aggregate>,
    limits: Vec<(&'static str, Vec<Aggregate>)>,
    rates: Vec<Aggregate>,
    /// Bandwidths of memory and cache, of the machine and of its GPU.
    machine: [Option<f64>; 2],
    gpu: [Option<f64>; 2],
}

/// The share of one kernel.
#[derive(Clone, Copy)]
struct Share<'a> {
    aggregate: &'a Aggregate,
    limit: &'static str,
}

impl Shares {
    fn of(material: &Material<'_>) -> Shares {
        let kernels = |base: &str| material.aggregates(base);
        // a GPU's are facts of the cells that ran on it
        let fact = |key: &str| {
            let stated = material.run.facts.iter().filter(|f| f.key == key);
            stated.filter_map(|f| f.value.trim().parse::<f64>().ok()).filter(|v| *v > 0.0).reduce(f64::max)
        };
        Shares {
            fractions: kernels("roof_fraction"),
            limits: vec![
                ("", kernels("roof_bandwidth_fraction")),
                ("f32 arithmetic", kernels("roof_flop_fraction")),
                ("int8 arithmetic", kernels("roof_int8_fraction")),
            ],
            rates: kernels("gb_s"),
            machine: [fact("stream_bytes_s"), fact("cache_bytes_s")],
            gpu: [fact("gpu_stream_bytes_s"), fact("gpu_cache_bytes_s")],
        }
    }

    fn get(&self, rung: &Rung, workload: &str) -> Option<Share<'_>> {
        let part = wording::part(&rung.metric);
        let same = |a: &&Aggregate| a.cell == rung.cell && a.workload == workload && wording::part(&a.metric) == part;
        let aggregate = self.fractions.iter().find(same)?;
        let of = |list: &'_ [Aggregate]| list.iter().find(same).and_then(|a| a.median);
        let shares = self.limits.iter().filter_map(|(word, list)| Some((*word, of(list)?)));
        let limit = shares.max_by(|a, b| a.1.total_cmp(&b.1));
        let limit = match limit {
            Some(("", share)) => {
                let levels = if aggregate.axes.device.starts_with("cuda") { self.gpu } else { self.machine };
                bandwidth(of(&self.rates).map(|rate| rate * 1e9 / share), levels)
            }
            Some((word, _)) => word,
            None => "",
        };
        Some(Share { aggregate, limit })
    }
}

/// Which level of memory a kernel was held against: the one whose measured bandwidth `roof` is nearer to.
pub fn bandwidth(roof: Option<f64>, [stream, cache]: [Option<f64>; 2]) -> &'static str {
    let distance = |level: Option<f64>| Some((roof?.ln() - level?.ln()).abs());
    match (distance(stream), distance(cache)) {
        (Some(memory), Some(cache)) if cache < memory => "cache bandwidth",
        (Some(_), Some(_)) => "memory bandwidth",
        _ => "bandwidth",
    }
}

impl Share<'_> {
    /// `87 % [85, 89] of the roof (cache bandwidth)`.
    fn words(&self) -> String {
        let percent = |v: f64| significant(100.0 * v, 3);
        let Aggregate { median, low, high, .. } = self.aggregate;
        let median = median.unwrap_or(0.0);
        let interval = match (low, high) {
            (Some(low), Some(high)) if low < high => format!(" [{}, {}]", percent(*low), percent(*high)),
            _ => String::new(),
        };
        let limit = if self.limit.is_empty() { String::new() } else { format!(" ({})", self.limit) };
        let doubt = if median > EXCESS_LIMIT { ", which is impossible, so do not trust this speed" } else { "" };
        format!("{} %{interval} of the measured roof{limit}{doubt}", percent(median))
    }
}
