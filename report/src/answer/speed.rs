//! Who generates and who reads prompts fastest, at which length.

use results::aggregate::{Comparison, aggregate, compare};
use results::observation::{Direction, Observation};

use super::contest::{Contest, FEWEST_PAIRS, Outcome, Told, speed_up, told};
use super::material::Material;
use super::names::{set, times};
use super::quality::{Loss, Quality};
use crate::quantity::{ratio_text, significant};
use crate::wording;

/// A speed at one length: what sentences may compare.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantity {
    /// Metric id.
    pub metric: String,
    /// Workload.
    pub workload: String,
    /// Sweep coordinate.
    pub x: Option<f64>,
    /// Which way is better.
    pub direction: Direction,
}

/// A kind of speed; metrics in order of preference.
pub struct Kind {
    /// What is done.
    pub word: &'static str,
    metrics: [&'static str; 2],
    /// Whether the decoder takes part in it.
    pub decodes: bool,
}

/// The kinds of speed that sentences are about.
pub const KINDS: [Kind; 2] = [
    Kind { word: "generation", metrics: ["decode_tok_s", "tpot_ms"], decodes: true },
    Kind { word: "reading a prompt", metrics: ["prefill_tok_s", "ttft_ms"], decodes: false },
];

impl Quantity {
    /// Its rows.
    pub fn rows(&self, material: &Material<'_>) -> Vec<Observation> {
        let is_own = |row: &&Observation| row.metric == self.metric && row.workload == self.workload && row.x == self.x;
        material.of(wording::base(&self.metric)).iter().copied().filter(is_own).cloned().collect()
    }

    /// The lengths in words: `128 tokens at context 16`.
    pub fn lengths(&self) -> String {
        let at = |x: f64| significant(x, 6);
        let number = |name: &str| self.workload.strip_prefix(name)?.split('@').next()?.parse::<u64>().ok();
        match (wording::base(&self.metric), self.x) {
            ("decode_tok_s", Some(x)) => match number("tg") {
                Some(tokens) => format!("{tokens} tokens at context {}", at(x)),
                None => format!("{} at context {}", self.workload, at(x)),
            },
            ("prefill_tok_s", Some(x)) => format!("{} tokens", at(x)),
            _ => {
                let sizes: Vec<&str> =
                    self.workload.strip_prefix("generate-").map_or(vec![], |sizes| sizes.split('-').collect());
                match sizes[..] {
                    [prompt, new] => format!("requests of {prompt} prompt tokens and {new} new ones"),
                    _ => self.workload.clone(),
                }
            }
        }
    }
}

/// Every quantity of `kind`, short before long; only those of the first metric that there is.
pub fn quantities(material: &Material<'_>, kind: &Kind) -> Vec<Quantity> {
    for base in kind.metrics {
        let mut found: Vec<Quantity> = vec![];
        for row in material.of(base) {
            let (metric, workload) = (row.metric.clone(), row.workload.clone());
            let quantity = Quantity { metric, workload, x: row.x, direction: row.direction };
            if !found.contains(&quantity) {
                found.push(quantity);
            }
        }
        found.sort_by(|a, b| {
            let x = |q: &Quantity| q.x.unwrap_or(0.0);
            x(a).total_cmp(&x(b)).then_with(|| a.workload.cmp(&b.workload))
        });
        if !found.is_empty() {
            return found;
        }
    }
    vec![]
}

/// The first and the last of `quantities`, and how many are between.
pub fn ends(quantities: &[Quantity]) -> (Vec<&Quantity>, usize) {
    match quantities {
        [first, .., last] => (vec![first, last], quantities.len() - 2),
        all => (all.iter().collect(), 0),
    }
}

/// Who is fastest: a sentence for the shortest and the longest length of each kind of speed.
pub fn sentences(material: &Material<'_>, quality: &Quality, kinds: &[Kind]) -> Vec<String> {
    if material.is_unusable() {
        return vec![];
    }
    let of_kind = |kind: &Kind| {
        let all = quantities(material, kind);
        let (shown, between) = ends(&all);
        let mut said: Vec<String> = shown.into_iter().filter_map(|q| sentence(material, quality, kind, q)).collect();
        if between > 0
            && let Some(last) = said.last_mut()
        {
            let noun = if between == 1 { "1 length between lies" } else { &format!("{between} lengths between lie") };
            last.push_str(&format!(" {noun} in the tables."));
        }
        said
    };
    kinds.iter().flat_map(of_kind).collect()
}

fn sentence(material: &Material<'_>, quality: &Quality, kind: &Kind, quantity: &Quantity) -> Option<String> {
    let reference = material.reference?;
    let rows = quantity.rows(material);
    // the decoder plays no part in reading a prompt: its cells would only be repeated draws of one number
    let takes_part = |decoding: &str| kind.decodes || decoding == reference.axes.decoding;
    let measured: Vec<&str> = material
        .cells
        .iter()
        .filter(|c| takes_part(&c.axes.decoding) && rows.iter().any(|row| row.cell == c.id))
        .map(|c| c.id.as_str())
        .collect();
    let topic = format!("{} ({})", capital(kind.word), quantity.lengths());
    if let [only] = measured[..] {
        return alone(material, &rows, only, &topic);
    }
    let floor = material.floor(&quantity.metric, &quantity.workload, quantity.x);
    let keeps = |id: &&str| !quality.measured || quality.loss(id).is_some_and(Loss::is_small);
    let kept: Vec<&str> = measured.iter().copied().filter(keeps).collect();
    let direction = quantity.direction;
    let contest = Contest { rows: &rows, contestants: &kept, reference: &reference.id, direction, floor };
    let (mut text, best) = match contest.outcome() {
        Some(outcome) => (
            outcome_in_words(material, quantity, &topic, &who(quality, kept.len(), measured.len()), &outcome)?,
            outcome.best,
        ),
        None if quality.measured && kept.len() < 2 => (
            format!("{topic}: none of the cells beside the reference is told to lose at most 1 % of perplexity."),
            reference.id.as_str(),
        ),
        None => return None,
    };
    text.extend(faster_at_a_loss(material, quality, (&rows, quantity, floor), best, (&measured, &kept)));
    Some(text)
}

/// Among whom the winner is: `of the 12 of 16 cells that are told to lose at most 1 % of perplexity,`.
fn who(quality: &Quality, kept: usize, all: usize) -> String {
    match (quality.measured, kept == all) {
        (false, _) => format!("of {all} cells"),
        (true, true) => format!("of {all} cells, all told to lose at most 1 % of perplexity,"),
        (true, false) => format!("of the {kept} of {all} cells that are told to lose at most 1 % of perplexity,"),
    }
}

fn outcome_in_words(
    material: &Material<'_>,
    quantity: &Quantity,
    topic: &str,
    who: &str,
    outcome: &Outcome<'_>,
) -> Option<String> {
    let reference = material.label(&material.reference?.id);
    let copies = copies(material, quantity);
    let Some(gain) = &outcome.gain else {
        let n = outcome.most_pairs;
        return Some(match outcome.n_worse {
            _ if n < FEWEST_PAIRS => format!(
                "{topic}: the cells were timed together only {}, too few to tell them apart; it takes {FEWEST_PAIRS} repetitions at \
                 least, so raise budget.min_repetitions or budget.seconds.",
                times(n)
            ),
            0 => format!("{topic}: {who} no difference could be measured ({copies})."),
            worse => format!(
                "{topic}: {who} none is told to be faster than the reference {reference}, and {worse} to be slower ({copies})."
            ),
        });
    };
    let gain = ratio_text(gain);
    Some(match set(material, &outcome.level) {
        (name, false) => {
            format!("{topic}: {who} {name} is the fastest, {gain} the speed of the reference {reference}.")
        }
        (name, true) => format!(
            "{topic}: {who} the fastest are {name}, not told apart; {} has {gain} the speed of the reference {reference}.",
            material.label(outcome.best)
        ),
    })
}

/// The cell outside `kept` that is told to be faster than `best`, with what it loses.
fn faster_at_a_loss(
    material: &Material<'_>,
    quality: &Quality,
    (rows, quantity, floor): (&[Observation], &Quantity, f64),
    best: &str,
    (measured, kept): (&[&str], &[&str]),
) -> Option<String> {
    let comparisons = compare(rows, best);
    let faster = comparisons.iter().filter(|c| {
        measured.contains(&c.cell.as_str())
            && !kept.contains(&c.cell.as_str())
            && told(c.ratio, c.n_pairs, quantity.direction, floor) == Told::Better
    });
    let gain = |c: &Comparison| c.ratio.map(|r| speed_up(r, quantity.direction));
    let (found, ratio) = faster.filter_map(|c| Some((c, gain(c)?))).max_by(|a, b| a.1.ratio.total_cmp(&b.1.ratio))?;
    let loss = match quality.loss(&found.cell) {
        Some(loss) => format!("with {} the reference's perplexity{}", ratio_text(&loss.ratio), loss.by),
        None => "but its perplexity was not compared".into(),
    };
    Some(format!(
        " Faster still is {}, {} the speed of {}, {loss}.",
        material.label(&found.cell),
        ratio_text(&ratio),
        material.label(best)
    ))
}

/// A single cell has a speed and no rank.
fn alone(material: &Material<'_>, rows: &[Observation], cell: &str, topic: &str) -> Option<String> {
    let own: Vec<Observation> = rows.iter().filter(|row| row.cell == cell).cloned().collect();
    let a = aggregate(&own).into_iter().next()?;
    let (median, low, high) = (a.median?, a.low?, a.high?);
    let number = |v: f64| significant(v, 3);
    let interval = if low < high { format!(" [{}, {}]", number(low), number(high)) } else { String::new() };
    Some(format!("{topic}: {} reaches {}{interval} {}.", material.label(cell), number(median), a.unit))
}

/// What two copies of the reference say of this quantity.
fn copies(material: &Material<'_>, quantity: &Quantity) -> String {
    match material.copies(&quantity.metric, &quantity.workload, quantity.x).and_then(|c| c.ratio) {
        Some(ratio) => {
            format!("two copies of the reference: {}", ratio_text(&speed_up(ratio, quantity.direction)))
        }
        None => "no second copy of the reference was timed, so the noise is not known".into(),
    }
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().collect::<String>() + letters.as_str())
}
