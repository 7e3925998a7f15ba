//! Which two values are one pair, and which values are one and the same: the rules that tables, claims and gates share.
//!
//! What a clock or the operating system measured is comparable only beside what was measured next to it: equal sitting, repetition
//! and item. What is counted or scored is the same whenever it is had, so it pairs by item, whatever the sitting and repetition, and
//! counts once however often it was had. A run that was interrupted and resumed then says what an uninterrupted one says.

use std::collections::BTreeMap;

use crate::metric::{Kind, metric};

/// A value and where in the run it was taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Taken {
    /// Sitting of the run.
    pub sitting: u32,
    /// Repetition; shared by cells that were interleaved.
    pub repetition: u32,
    /// Index inside the repetition.
    pub item: u32,
    /// The value, finite.
    pub value: f64,
}

/// Sitting, repetition and item, with 0 for what does not matter.
pub type Place = (u32, u32, u32);

/// How much of two places must agree before their values are a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grain {
    /// The item: every repetition of every sitting says the same.
    Item,
    /// Repetition and item: repetitions do different work (other prompts), sittings repeat it.
    Repetition,
    /// Sitting, repetition and item: measured next to each other.
    Sitting,
}

/// Ends of the names that scenarios give to times and to what a counter of the processor saw: the registry does not know them.
const CLOCKED_NAMES: [&str; 5] = ["_ms", "_us", "_ns", "_s", "_misses"];

/// Whether a value of this metric depends on the moment it was taken at.
pub fn needs_clock(id: &str) -> bool {
    match metric(id) {
        Some(metric) => matches!(metric.kind(), Kind::Timing | Kind::Memory),
        None => CLOCKED_NAMES.iter().any(|end| id.ends_with(end)),
    }
}

impl Grain {
    /// The coarsest grain at which every side says one thing per place; without it values taken apart would be mixed.
    pub fn of(id: &str, sides: &[&[Taken]]) -> Grain {
        if needs_clock(id) {
            return Grain::Sitting;
        }
        let fits = |grain: &Grain| sides.iter().all(|side| grain.places(side).values().all(|values| values.len() == 1));
        [Grain::Item, Grain::Repetition].into_iter().find(fits).unwrap_or(Grain::Sitting)
    }

    /// The different values at each place, in the order of places.
    pub fn places(self, side: &[Taken]) -> BTreeMap<Place, Vec<f64>> {
        let mut places: BTreeMap<Place, Vec<f64>> = BTreeMap::new();
        for taken in side {
            let values = places.entry(self.place(taken)).or_default();
            if !values.contains(&taken.value) {
                values.push(taken.value);
            }
        }
        places
    }

    fn place(self, taken: &Taken) -> Place {
        match self {
            Grain::Item => (0, 0, taken.item),
            Grain::Repetition => (0, taken.repetition, taken.item),
            Grain::Sitting => (taken.sitting, taken.repetition, taken.item),
        }
    }
}

/// Independent groups of values: one value per item of what says the same whenever it is had; else the values of each repetition.
pub fn independent(id: &str, taken: &[Taken]) -> Vec<Vec<f64>> {
    let constant = taken.iter().all(|one| (one.item, one.value) == (taken[0].item, taken[0].value));
    let grain = if constant { Grain::Item } else { Grain::of(id, &[taken]) };
    if grain == Grain::Item {
        return grain.places(taken).into_values().collect();
    }
    let mut repetitions: BTreeMap<(u32, u32), Vec<f64>> = BTreeMap::new();
    if needs_clock(id) {
        // two equal times are two times
        for one in taken {
            repetitions.entry((one.sitting, one.repetition)).or_default().push(one.value);
        }
    } else {
        for ((sitting, repetition, _), values) in grain.places(taken) {
            repetitions.entry((sitting, repetition)).or_default().extend(values);
        }
    }
    repetitions.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(sitting: u32, repetition: u32, item: u32, value: f64) -> Taken {
        Taken { sitting, repetition, item, value }
    }

    #[test]
    fn clocks_are_told_from_counts() {
        for (id, clocked) in [
            ("decode_tok_s", true),
            ("peak_rss_bytes", true),
            ("roof_fraction:gemv/v0/1x64x64", true),
            ("attention_t2_ms", true),
            ("attention_llc_misses", true),
            ("ppl:gptq-256", false),
            ("weights_bytes", false),
            ("check:logits", false),
            ("attention_flops", false),
        ] {
            assert_eq!(needs_clock(id), clocked, "{id}");
        }
    }

    /// The grain is the coarsest that mixes nothing: worked out by hand for each case.
    #[test]
    fn the_grain_follows_from_what_repeats() {
        let twice = [taken(0, 0, 0, 1.0), taken(0, 0, 1, 2.0), taken(1, 3, 0, 1.0), taken(1, 3, 1, 2.0)];
        let prompts = [taken(0, 0, 0, 1.0), taken(0, 1, 0, 2.0), taken(1, 0, 0, 1.0)];
        let changed = [taken(0, 0, 0, 1.0), taken(1, 0, 0, 1.5)];
        assert_eq!(Grain::of("nll_window", &[&twice]), Grain::Item);
        assert_eq!(Grain::of("accepted_tokens", &[&prompts]), Grain::Repetition);
        assert_eq!(Grain::of("accepted_tokens", &[&twice, &prompts]), Grain::Repetition);
        assert_eq!(Grain::of("ppl", &[&changed]), Grain::Sitting);
        assert_eq!(Grain::of("decode_tok_s", &[&twice]), Grain::Sitting);
        assert_eq!(Grain::Item.places(&twice).len(), 2);
        assert_eq!(Grain::Repetition.places(&prompts)[&(0, 0, 0)], [1.0]);
    }
}
