//! The cell to use, as commands, where the scenario states limits: what may be lost and what memory there is.
//!
//! A pure function of the run: limits and commands are facts, everything else comes from the paired comparisons that the other
//! sentences use. A cell keeps the limit of loss when the whole interval of its loss does. Of the cells that keep all limits the
//! fastest is recommended, and where the clock does not tell some of them apart, the one of these that takes the least memory.

use results::observation::{Direction, Observation};
use results::statistics::Ratio;
use results::summary::CellSummary;

use super::axes::combined;
use super::contest::{Told, speed_up, told};
use super::material::Material;
use super::quality::{Loss, Quality};
use super::speed::{KINDS, Quantity, quantities};
use crate::quantity::{Unit, ratio_text, significant};

/// Amounts of memory nearer than this share of each other are one.
const SAME_MEMORY: f64 = 1.01;
/// What a cell takes at its peak.
const PEAK: &str = "peak_rss_bytes";

/// What a scenario asks of the cell that it recommends.
struct Limits {
    /// Most perplexity over the reference's, minus one.
    loss: f64,
    /// Most bytes at the peak.
    memory: Option<f64>,
    /// Whether reading prompts decides, not generation.
    by_prompt: bool,
}

impl Limits {
    fn of(material: &Material<'_>) -> Option<Limits> {
        let number = |key: &str| material.run.fact("run", key).and_then(|text| text.parse::<f64>().ok());
        let by_prompt = material.run.fact("run", "choose_speed").as_deref() == Some("prompt");
        Some(Limits { loss: number("choose_max_loss")?, memory: number("choose_max_memory"), by_prompt })
    }

    /// `told to lose at most 2 % of perplexity and to take at most 300 MiB`.
    fn in_words(&self) -> String {
        let memory = self.memory.map_or(String::new(), |bytes| format!(" and to take at most {}", size(bytes)));
        format!("told to lose at most {} % of perplexity{memory}", significant(100.0 * self.loss, 3))
    }
}

/// A cell that could be recommended: it is ours, and commands use its parts.
struct Candidate<'a> {
    cell: &'a CellSummary,
    loss: Option<&'a Loss>,
    memory: Option<f64>,
}

impl Candidate<'_> {
    /// By how much it misses the limits: the larger logarithm of what it has over what is allowed, 0 where it keeps both.
    fn excess(&self, limits: &Limits) -> f64 {
        // one window has no interval, so its loss is not told
        let told = self.loss.filter(|loss| loss.ratio.n > 1 || loss.is_rounding());
        let loss = told.map_or(f64::INFINITY, |loss| (loss.highest / (1.0 + limits.loss)).ln());
        let memory = match (limits.memory, self.memory) {
            (None, _) => 0.0,
            (Some(limit), Some(bytes)) => (bytes / limit).ln(),
            (Some(_), None) => f64::INFINITY,
        };
        loss.max(memory).max(0.0)
    }
}

/// The clock that decides, and its rows.
struct Race {
    quantity: Quantity,
    rows: Vec<Observation>,
    floor: f64,
}

impl Race {
    fn of(material: &Material<'_>, limits: &Limits) -> Option<Race> {
        let kind = &KINDS[usize::from(limits.by_prompt)];
        // the longest length: what differs between caches and attention shows there
        let quantity = quantities(material, kind).pop().filter(|_| !material.is_unusable())?;
        let rows = quantity.rows(material);
        let floor = material.floor(&quantity.metric, &quantity.workload, quantity.x);
        Some(Race { quantity, rows, floor })
    }

    /// How many times as fast `cell` is as `other`, with what that tells.
    fn between(&self, cell: &CellSummary, other: &CellSummary) -> Option<(Ratio, Told)> {
        let ratio = combined(&self.rows, &[(cell, other)])?;
        let told = told(Some(ratio), ratio.n, self.quantity.direction, self.floor);
        Some((speed_up(ratio, self.quantity.direction), told))
    }
}

/// Who is taken of several, and how sure that is.
struct Pick<'a, 'b> {
    taken: &'b Candidate<'a>,
    /// Cells whose speed is not told from the fastest's, the one taken included.
    level: usize,
}

/// The fastest of `among`; of those that are not told from it the one with the least memory.
fn pick<'a, 'b>(among: &[&'b Candidate<'a>], race: Option<&Race>, reference: &CellSummary) -> Option<Pick<'a, 'b>> {
    let point = |c: &Candidate<'_>| match race {
        Some(_) if c.cell.id == reference.id => 1.0,
        Some(race) => race.between(c.cell, reference).map_or(0.0, |(ratio, _)| ratio.ratio),
        None => 1.0,
    };
    let fastest = among.iter().copied().max_by(|a, b| point(a).total_cmp(&point(b)))?;
    let is_level = |c: &&&Candidate<'_>| match race {
        _ if c.cell.id == fastest.cell.id => true,
        Some(race) => race.between(c.cell, fastest.cell).is_some_and(|(_, told)| told == Told::Open),
        None => true,
    };
    let level: Vec<&Candidate<'a>> = among.iter().filter(is_level).copied().collect();
    let bytes = |c: &Candidate<'_>| c.memory.unwrap_or(f64::INFINITY);
    let least = level.iter().map(|c| bytes(c)).fold(f64::INFINITY, f64::min);
    let small = level.iter().copied().filter(|c| bytes(c) <= least * SAME_MEMORY);
    let taken = small.max_by(|a, b| point(a).total_cmp(&point(b)))?;
    Some(Pick { taken, level: level.len() })
}

/// The recommendation, its reasons, and what it was preferred to; nothing where the scenario states no limits.
pub fn sentences(material: &Material<'_>, quality: &Quality) -> Vec<String> {
    let (Some(limits), Some(reference)) = (Limits::of(material), material.reference) else { return vec![] };
    let all: Vec<Candidate<'_>> = material
        .cells
        .iter()
        .filter(|cell| command(material, cell).is_some())
        .map(|cell| Candidate { cell, loss: quality.loss(&cell.id), memory: material.value(&cell.id, PEAK) })
        .collect();
    if !quality.measured || all.is_empty() {
        let why = if all.is_empty() { "no cell has a command of its own" } else { "no perplexity was measured" };
        return vec![format!("Nothing is recommended: {why}.")];
    }
    let race = Race::of(material, &limits);
    let fitting: Vec<&Candidate<'_>> = all.iter().filter(|c| c.excess(&limits) == 0.0).collect();
    let mut said = match pick(&fitting, race.as_ref(), reference) {
        None => none_fits(material, &limits, &all),
        Some(first) => {
            let others: Vec<&Candidate<'_>> =
                fitting.iter().copied().filter(|c| c.cell.id != first.taken.cell.id).collect();
            let mut said =
                vec![recommended(material, first.taken), why(material, &limits, &first, fitting.len(), &race)];
            let second = pick(&others, race.as_ref(), reference);
            said.extend(second.map(|second| runner_up(material, &race, first.taken, second.taken)));
            said.extend(faster_still(material, &race, &limits, first.taken, &all));
            said
        }
    };
    said.extend(requantised(material, reference));
    said
}

fn command(material: &Material<'_>, cell: &CellSummary) -> Option<String> {
    let fact = |key: &str| material.run.values(&cell.id, key).last().map(|text| text.to_string());
    let last = fact("command")?;
    Some(match fact("command_first") {
        Some(first) => format!("`{first}`, then `{last}`"),
        None => format!("`{last}`"),
    })
}

fn recommended(material: &Material<'_>, taken: &Candidate<'_>) -> String {
    format!("Recommended: {}", command(material, taken.cell).unwrap_or_default())
}

fn why(material: &Material<'_>, limits: &Limits, first: &Pick<'_, '_>, n: usize, race: &Option<Race>) -> String {
    let cells = if n == 1 { "the only cell".to_string() } else { format!("of the {n} cells") };
    let does = if limits.by_prompt { "reads prompts" } else { "generates" };
    let reason = match (race, n, first.level) {
        (_, 1, _) => String::new(),
        (None, ..) => ", where no speed is told, it takes the least memory".into(),
        (Some(_), _, 1) => format!(" it {does} fastest"),
        (Some(_), _, level) => {
            format!(
                ", {level} of which are not told apart from the one that {does} fastest, it takes the least memory of these"
            )
        }
    };
    let verb = if n == 1 { "it is " } else { "" };
    format!(
        "Why {}: {verb}{cells} {}{reason}. It {}.",
        material.label(&first.taken.cell.id),
        limits.in_words(),
        figures(material, race, first.taken)
    )
}

/// `loses nothing that rounding would not, generates 135 [133, 137] tok/s and takes 272 MiB at its peak (weights 80 MiB)`.
fn figures(material: &Material<'_>, race: &Option<Race>, c: &Candidate<'_>) -> String {
    let mut words = vec![lost(c.loss)];
    words.extend(race.as_ref().and_then(|race| speed(race, c)));
    let weights =
        material.value(&c.cell.id, "weights_bytes").map_or(String::new(), |b| format!(" (weights {})", size(b)));
    words.extend(c.memory.map(|bytes| format!("takes {} at its peak, loading included{weights}", size(bytes))));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    super::names::joined(&words, "and")
}

fn lost(loss: Option<&Loss>) -> String {
    match loss {
        None => "was not compared in perplexity".into(),
        Some(loss) if loss.is_rounding() => "loses nothing (perplexity is equal to within 0.01 %)".into(),
        Some(Loss { ratio, .. }) => {
            let percent = |ratio: f64| significant(100.0 * (ratio - 1.0), 3);
            format!("loses {} % of perplexity [{}, {}]", percent(ratio.ratio), percent(ratio.low), percent(ratio.high))
        }
    }
}

fn speed(race: &Race, c: &Candidate<'_>) -> Option<String> {
    let own: Vec<Observation> = race.rows.iter().filter(|row| row.cell == c.cell.id).cloned().collect();
    let all = results::aggregate::aggregate(&own);
    let (median, low, high) = all.first().and_then(|a| Some((a.median?, a.low, a.high)))?;
    let unit = Unit::of(&race.quantity.metric, &all[0].unit, median);
    let ends = low
        .zip(high)
        .map_or(String::new(), |(low, high)| format!(" [{}, {}]", significant(low, 3), significant(high, 3)));
    let reached = match race.quantity.direction {
        Direction::Lower => "needs",
        _ => "reaches",
    };
    Some(format!("{reached} {}{ends} ({})", unit.short(median), race.quantity.lengths()))
}

fn runner_up(material: &Material<'_>, race: &Option<Race>, first: &Candidate<'_>, second: &Candidate<'_>) -> String {
    let ratio = race.as_ref().and_then(|race| race.between(second.cell, first.cell));
    let ratio = match ratio {
        None => String::new(),
        Some((ratio, Told::Open)) => format!(", whose speed is not told from it ({})", ratio_text(&ratio)),
        Some((ratio, _)) => format!(", {} as fast", ratio_text(&ratio)),
    };
    format!(
        "The runner-up is {}{ratio}: it {}. Its command: {}",
        material.label(&second.cell.id),
        figures(material, &None, second),
        command(material, second.cell).unwrap_or_default()
    )
}

/// The fastest cell that is told to be faster and keeps not every limit: what more loss or memory would buy.
fn faster_still(
    material: &Material<'_>,
    race: &Option<Race>,
    limits: &Limits,
    first: &Candidate<'_>,
    all: &[Candidate<'_>],
) -> Option<String> {
    let race = race.as_ref()?;
    let beyond = all.iter().filter(|c| c.excess(limits) > 0.0);
    let faster = beyond.filter_map(|c| Some((c, race.between(c.cell, first.cell)?)));
    let faster = faster.filter(|(_, (_, told))| *told == Told::Better);
    let (c, (ratio, _)) = faster.max_by(|a, b| a.1.0.ratio.total_cmp(&b.1.0.ratio))?;
    Some(format!(
        "Beyond the limits {} would be {} as fast: it {}.",
        material.label(&c.cell.id),
        ratio_text(&ratio),
        figures(material, &None, c)
    ))
}

fn none_fits(material: &Material<'_>, limits: &Limits, all: &[Candidate<'_>]) -> Vec<String> {
    let known = all.iter().filter(|c| c.excess(limits).is_finite());
    let nearest = known.min_by(|a, b| a.excess(limits).total_cmp(&b.excess(limits)));
    let nearest = nearest.map_or(String::new(), |c| {
        format!(
            " The nearest is {}, which {}: {}",
            material.label(&c.cell.id),
            figures(material, &None, c),
            command(material, c.cell).unwrap_or_default()
        )
    });
    let noun = if all.len() == 1 { "cell" } else { "cells" };
    vec![format!("Nothing is recommended: none of the {} {noun} is {}.{nearest}", all.len(), limits.in_words())]
}

/// What a file of codes means for methods that choose codes again.
fn requantised(material: &Material<'_>, reference: &CellSummary) -> Option<String> {
    let codes = material.run.values(&reference.id, "stored_codes").last()?.to_string();
    Some(format!(
        "The model's file holds codes already ({codes}). The reference computes with their values, so a cell that chooses codes anew shows what \
         requantising loses, not what the method loses on 16-bit weights: compare methods with each other, at equal bits."
    ))
}

fn size(bytes: f64) -> String {
    Unit::of("", "B", bytes).short(bytes)
}
