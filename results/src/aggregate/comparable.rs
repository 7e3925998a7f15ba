//! Comparisons in which neither cell is better, although the metric has a direction.

use std::collections::BTreeMap;

use super::{Groups, Key, taken};
use crate::metric::kernel;
use crate::observation::{Axes, Observation};
use crate::pairing::Taken;
use crate::statistics::{mean, median};

/// Figures of the passes that a decoder makes: a longer draft makes longer passes.
const PER_PASS: [&str; 3] = ["draft_ms_per_run", "verify_ms_per_run", "accepted_tokens"];

/// Why the two cells have no better and worse in this metric.
pub(super) fn why_not(key: &Key, other: &Key, groups: &Groups) -> Option<String> {
    match key.metric.split(':').next()? {
        "itl_ms" => unlike_gaps(key, other, groups),
        base if base.starts_with("roof_") && kernel::variant(key.metric).is_none() => {
            let (own, others) = axes(key, other, groups)?;
            let work = |axes: &Axes| [axes.model.clone(), axes.weights.clone(), axes.kv.clone(), axes.decoding.clone()];
            (work(own) != work(others)).then(|| {
                "the two cells have different work to do, so the one with the larger share of the roof need not be the faster".into()
            })
        }
        base if PER_PASS.contains(&base) => {
            let (own, others) = axes(key, other, groups)?;
            (own.decoding != others.decoding)
                .then(|| "the two decoders draft differently, so their passes do not do the same work".into())
        }
        _ => None,
    }
}

fn axes<'a>(key: &Key, other: &Key, groups: &'a Groups) -> Option<(&'a Axes, &'a Axes)> {
    Some((&groups.get(key)?.first()?.axes, &groups.get(other)?.first()?.axes))
}

/// A decoder that emits several tokens at once has longer gaps and is not slower for it.
fn unlike_gaps(key: &Key, other: &Key, groups: &Groups) -> Option<String> {
    let chunks = |rows: &Vec<&Observation>| taken(rows);
    let own = groups.get(&Key { metric: "chunk_tokens", x: None, ..*key }).map(chunks)?;
    let others = groups.get(&Key { metric: "chunk_tokens", x: None, ..*other }).map(chunks)?;
    unlike_chunks(&own, &others)
}

/// Why gaps between chunks do not rank two cells whose `chunk_tokens` these are; `None` where their chunks are of one size.
pub fn unlike_chunks(own: &[Taken], others: &[Taken]) -> Option<String> {
    let (mine, theirs) = (by_repetition(own), by_repetition(others));
    let shared: Vec<_> = mine.iter().filter_map(|(place, mean)| Some((*mean, *theirs.get(place)?))).collect();
    let unlike = match shared.is_empty() {
        true => average(own) != average(others),
        false => shared.iter().any(|(mine, theirs)| mine != theirs),
    };
    unlike.then(|| {
        format!(
            "the cells emit unequally many tokens at once ({:.2} against {:.2} on average), so a longer gap between chunks is not a slower one; compare the time per output token",
            average(own).unwrap_or(f64::NAN),
            average(others).unwrap_or(f64::NAN)
        )
    })
}

/// Mean and median tokens per chunk of each repetition.
fn by_repetition(chunks: &[Taken]) -> BTreeMap<(u32, u32), (Option<f64>, Option<f64>)> {
    let mut repetitions: BTreeMap<(u32, u32), Vec<f64>> = BTreeMap::new();
    for one in chunks {
        repetitions.entry((one.sitting, one.repetition)).or_default().push(one.value);
    }
    repetitions.into_iter().map(|(place, values)| (place, (mean(&values), median(&values)))).collect()
}

fn average(chunks: &[Taken]) -> Option<f64> {
    mean(&chunks.iter().map(|one| one.value).collect::<Vec<_>>())
}
