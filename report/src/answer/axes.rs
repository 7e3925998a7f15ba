//! What each part buys: one part against the reference's on its axis, paired over all other axes, everything else equal.

use std::collections::{BTreeMap, BTreeSet};

use results::observation::{Direction, Observation};
use results::statistics::{Center, Ratio, paired_ratio};
use results::summary::CellSummary;

use super::contest::{FEWEST_PAIRS, Told, speed_up, told};
use super::material::Material;
use super::names::{joined, parts, place, times, varying};
use super::quality::{Quality, is_rounding};
use super::speed::{KINDS, Kind, Quantity, ends, quantities};
use crate::quantity::{Unit, ratio_text};

/// Parts of an axis that get a sentence each; an axis of more is a list for the tables.
const MOST_PARTS: usize = 6;
/// Seed of the intervals, so that the same rows give the same sentence.
const SEED: u64 = 0x1f_a8e5_0001;

/// A cell and the one that differs from it in one axis only.
type Pair<'a> = (&'a CellSummary, &'a CellSummary);

/// One entry per axis, one sentence per part.
pub fn sentences(material: &Material<'_>, quality: &Quality) -> Vec<String> {
    let Some(reference) = material.reference.filter(|_| material.is_by_axes()) else { return vec![] };
    let axis_sentence = |axis: &'static str| {
        let base = place(reference, axis);
        let others: Vec<&str> = parts(&material.cells, axis).into_iter().filter(|part| *part != base).collect();
        if others.len() > MOST_PARTS {
            return None;
        }
        let said: Vec<String> =
            others.iter().filter_map(|part| effect(material, quality, axis, (part, base))).collect();
        (!said.is_empty()).then(|| said.join(" "))
    };
    varying(&material.cells).into_iter().filter_map(axis_sentence).collect()
}

fn pairs<'a>(material: &Material<'a>, axis: &str, (part, base): (&str, &str)) -> Vec<Pair<'a>> {
    let alike = |a: &CellSummary, b: &CellSummary| {
        a.axes.named().into_iter().zip(b.axes.named()).all(|(x, y)| x.0 == axis || x == y)
    };
    let of =
        |wanted: &str| material.cells.iter().copied().filter(|cell| place(cell, axis) == wanted).collect::<Vec<_>>();
    let bases = of(base);
    of(part).into_iter().filter_map(|cell| Some((cell, *bases.iter().find(|b| alike(cell, b))?))).collect()
}

fn effect(material: &Material<'_>, quality: &Quality, axis: &str, (part, base): (&str, &str)) -> Option<String> {
    let pairs = pairs(material, axis, (part, base));
    if pairs.is_empty() {
        return None;
    }
    let mut clauses: Vec<String> = vec![];
    if !material.is_unusable() {
        // the decoder plays no part in reading a prompt
        let kinds = KINDS.iter().filter(|kind| axis != "decoding" || kind.decodes);
        clauses.extend(kinds.filter_map(|kind| speed(material, kind, &pairs)));
    }
    clauses.extend(bytes(material, &pairs));
    clauses.extend(perplexity(quality, &pairs));
    if clauses.is_empty() {
        return None;
    }
    let n = match pairs.len() {
        1 => "1 pair of cells".to_owned(),
        n => format!("{n} pairs of cells"),
    };
    let noun = match axis {
        "attention" => " attention",
        "weights" => " weights",
        "kv" => " as KV cache",
        "decoding" => " decoding",
        _ => "",
    };
    let clauses: Vec<&str> = clauses.iter().map(String::as_str).collect();
    Some(format!("With {part} instead of {base}{noun} and all else equal ({n}), {}.", joined(&clauses, "and")))
}

/// `generation (128 tokens at context 16) is 1.52× [1.48, 1.55] as fast`, at the shortest and at the longest length.
fn speed(material: &Material<'_>, kind: &Kind, pairs: &[Pair<'_>]) -> Option<String> {
    let all = quantities(material, kind);
    let (shown, _) = ends(&all);
    let clause = |quantity: &&Quantity| {
        let (quantity, lengths) = (*quantity, quantity.lengths());
        let ratio = combined(&quantity.rows(material), pairs)?;
        let faster = speed_up(ratio, quantity.direction);
        let floor = material.floor(&quantity.metric, &quantity.workload, quantity.x);
        let text = ratio_text(&faster);
        Some(match told(Some(ratio), ratio.n, quantity.direction, floor) {
            Told::Open if ratio.n < FEWEST_PAIRS => {
                format!("{} ({lengths}) was timed only {}, too few to tell", kind.word, times(ratio.n))
            }
            Told::Open if ratio.low > 1.0 || ratio.high < 1.0 => format!(
                "{} ({lengths}) is not told to be faster or slower ({text}, and two copies of the reference differ as much)",
                kind.word
            ),
            Told::Open => format!("{} ({lengths}) is not told to be faster or slower ({text})", kind.word),
            Told::Better | Told::Worse => format!("{} ({lengths}) is {text} as fast", kind.word),
        })
    };
    let clauses: Vec<String> = shown.iter().filter_map(clause).collect();
    (!clauses.is_empty()).then(|| clauses.join(", "))
}

/// The ratio of `pairs` combined: the mean log-ratio of all pairs in each repetition that they share, then over repetitions.
pub fn combined(rows: &[Observation], pairs: &[Pair<'_>]) -> Option<Ratio> {
    let logarithms = |cell: &CellSummary| {
        let mut at: BTreeMap<(u32, u32), Vec<f64>> = BTreeMap::new();
        for row in rows.iter().filter(|row| row.cell == cell.id) {
            let value = row.value.filter(|v| *v > 0.0);
            at.entry((row.sitting, row.repetition)).or_default().extend(value.map(f64::ln));
        }
        at
    };
    let mean = |values: &[f64]| (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
    let difference = |(cell, base): &Pair<'_>| {
        let base = logarithms(base);
        let of = |(at, values): (&(u32, u32), &Vec<f64>)| Some((*at, mean(values)? - mean(base.get(at)?)?));
        logarithms(cell).iter().filter_map(of).collect::<BTreeMap<(u32, u32), f64>>()
    };
    let differences: Vec<BTreeMap<(u32, u32), f64>> = pairs.iter().map(difference).filter(|d| !d.is_empty()).collect();
    let shared = differences.iter().map(|d| d.keys().copied().collect::<BTreeSet<_>>());
    let shared = shared.reduce(|a, b| &a & &b)?;
    let of_repetition = |at: &(u32, u32)| {
        let all: Vec<f64> = differences.iter().filter_map(|d| d.get(at).copied()).collect();
        Some((mean(&all)?.exp(), 1.0))
    };
    let per_repetition: Vec<(f64, f64)> = shared.iter().filter_map(of_repetition).collect();
    paired_ratio(&per_repetition, Center::Median, SEED)
}

/// Bytes that differ, and the peak of the process.
fn bytes(material: &Material<'_>, pairs: &[Pair<'_>]) -> Vec<String> {
    let mut clauses = vec![];
    for (metric, what) in [("weights_bytes", "weights"), ("kv_logical_bytes", "keys and values")] {
        let of = |(cell, base): &Pair<'_>| Some((material.value(&cell.id, metric)?, material.value(&base.id, metric)?));
        let all: Vec<(f64, f64)> = pairs.iter().filter_map(of).collect();
        // where other axes change the bytes too, the pair with the reference stands for all, by name
        let with_reference = pairs.iter().find(|(_, base)| material.reference.is_some_and(|r| r.id == base.id));
        let one = all.windows(2).all(|w| w[0] == w[1]);
        let (shown, named) = match (one, with_reference.and_then(of).zip(with_reference)) {
            (true, _) => (all.first().copied(), String::new()),
            (false, Some((bytes, (cell, _)))) => (Some(bytes), format!(" in {}", material.label(&cell.id))),
            (false, None) => (None, String::new()),
        };
        if let Some((own, other)) = shown.filter(|(own, other)| own != other) {
            clauses.push(format!("{what} take {} instead of {}{named}", size(own), size(other)));
        }
    }
    clauses.extend(peak(material, pairs));
    clauses
}

/// The peak of the process: of several pairs how far apart their ratios are, because each pair is a case of its own.
fn peak(material: &Material<'_>, pairs: &[Pair<'_>]) -> Option<String> {
    const PEAK: &str = "peak_rss_bytes";
    let rows = material.rows(PEAK);
    let repeated = |pair: &Pair<'_>| combined(&rows, std::slice::from_ref(pair)).filter(|r| r.n >= FEWEST_PAIRS);
    let ratios: Vec<Ratio> = pairs.iter().filter_map(repeated).collect();
    let [low, high] = [f64::min, f64::max].map(|pick| ratios.iter().map(|r| r.ratio).reduce(pick));
    let (low, high) = (low?, high?);
    if let [ratio] = ratios[..] {
        let text = ratio_text(&ratio);
        return Some(match told(Some(ratio), ratio.n, Direction::Lower, 0.0) {
            Told::Open => format!("the process is not told to take more or less memory ({text})"),
            _ => format!("the process takes {text} the memory at its peak, loading included"),
        });
    }
    let range = format!("{low:.2}× to {high:.2}× the memory at its peak, loading included");
    Some(match low > 1.0 || high < 1.0 {
        true => format!("the process takes {range}, depending on the pair"),
        false => format!("the process takes more memory in some pairs and less in others ({range})"),
    })
}

fn size(bytes: f64) -> String {
    Unit::of("", "B", bytes).short(bytes)
}

/// Perplexity of all pairs: the middle of their ratios, and an interval as wide as all of theirs together, because they read one text
/// and are not independent.
fn perplexity(quality: &Quality, pairs: &[Pair<'_>]) -> Option<String> {
    if !quality.measured {
        return None;
    }
    let found: Vec<_> = pairs.iter().filter_map(|(cell, base)| quality.between(&cell.id, &base.id)).collect();
    let of = match found.len() {
        0 => return Some("perplexity was not compared".into()),
        n if n == pairs.len() => String::new(),
        n => format!(", compared in {n} of the pairs"),
    };
    let ratios = || found.iter().map(|loss| loss.ratio);
    let mean = ratios().map(|r| r.ratio.ln()).sum::<f64>() / found.len() as f64;
    let low = ratios().map(|r| r.low).fold(f64::INFINITY, f64::min);
    let high = ratios().map(|r| r.high).fold(f64::NEG_INFINITY, f64::max);
    let ratio = Ratio { ratio: mean.exp(), low, high, n: found.len() };
    let windows = ratios().map(|r| r.n).min().unwrap_or(0);
    if windows < FEWEST_PAIRS && !is_rounding(&ratio) {
        let plural = if windows == 1 { "window" } else { "windows" };
        return Some(format!("perplexity was read on {windows} {plural} only, too few to tell"));
    }
    if is_rounding(&ratio) {
        return Some(format!("perplexity is equal to within 0.01 %{of}"));
    }
    let by = found.iter().max_by(|a, b| a.ratio.low.total_cmp(&b.ratio.low)).map_or("", |loss| &loss.by);
    let text = ratio_text(&ratio);
    Some(match low > 1.0 || high < 1.0 {
        true => format!("perplexity is {text} of what it was{by}{of}"),
        false => format!("perplexity is not told to differ ({text}){by}{of}"),
    })
}
