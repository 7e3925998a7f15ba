//! How many items of a task a cell answers: multiple choice, last words and hidden keys, all judged by likelihood.
//!
//! Source: EleutherAI's lm-evaluation-harness 0.4 (`ConfigurableTask.process_results`), whose names these are: `acc` takes the answer with
//! the largest sum of log-probabilities, `acc_norm` the largest sum per character and `acc_bytes` per byte of the answer; of equal ones the
//! first. A last word counts where every token of it is the most likely one.
//!
//! A share has its interval from the items behind it (metrics that end in `_item`), and two cells are compared by those items in pairs.

use super::{Definition, Kind, Value};
use crate::observation::Direction;
use crate::trace::{Answer, Event, Hidden, Judged, Trace};

const ROUNDING: &str = "rounding of the kernels only; the choice of items shows in the interval over items";

const fn share(
    id: &'static str,
    formula_id: &'static str,
    formula: &'static str,
    derive: fn(&Trace) -> Vec<Value>,
) -> Definition {
    Definition {
        id,
        formula_id,
        formula,
        unit: "1",
        direction: Direction::Higher,
        kind: Kind::Quality,
        noise: ROUNDING,
        pooled: false,
        derive,
    }
}

/// Share of items answered.
pub const ACC: Definition = share(
    "acc",
    "acc@1",
    "items whose right answer has the largest sum of ln p(token) / items; of last words: items whose every token is the most likely one / items",
    |trace| total(trace, acc),
);

/// Share of items answered when sums are divided by characters.
pub const ACC_NORM: Definition = share(
    "acc_norm",
    "acc_norm@1",
    "items whose right answer has the largest sum of ln p(token) / characters of the answer, by items",
    |trace| total(trace, acc_norm),
);

/// Share of items answered when sums are divided by bytes.
pub const ACC_BYTES: Definition = share(
    "acc_bytes",
    "acc_bytes@1",
    "items whose right answer has the largest sum of ln p(token) / bytes of the answer in UTF-8, by items",
    |trace| total(trace, acc_bytes),
);

/// Share of hidden answers that greedy decoding says.
pub const EXACT_MATCH: Definition = share(
    "exact_match",
    "exact_match@1",
    "hidden answers of which every token is the most likely one, which is what greedy decoding would say / items",
    |trace| total(trace, exact_match),
);

/// Perplexity of last words.
pub const TARGET_PPL: Definition = Definition {
    direction: Direction::Lower,
    ..share("target_ppl", "target_ppl@1", "exp(mean over items of -sum of ln p(token) of the last word)", |trace| {
        let losses: Vec<f64> =
            items(trace).filter(|item| item.judged == Judged::LastWord).filter_map(|item| item.loss()).collect();
        mean(&losses).map(|loss| Value::new(0, loss.exp())).into_iter().collect()
    })
};

/// Share of items answered at one length and depth.
pub const ACC_AT: Definition =
    share("acc_at", "acc_at@1", "acc of the items of one length (x) and one depth", |trace| places(trace, acc));

/// Share of hidden answers said at one length and depth.
pub const EXACT_MATCH_AT: Definition =
    share("exact_match_at", "exact_match_at@1", "exact_match of the items of one length (x) and one depth", |trace| {
        places(trace, exact_match)
    });

/// Items whose context was cut.
pub const CUT_ITEMS: Definition = Definition {
    direction: Direction::None,
    kind: Kind::Deterministic,
    noise: "none",
    ..share(
        "cut_items",
        "cut_items@1",
        "items whose context was cut from the left, because the window is shorter",
        |trace| {
            let cut = items(trace).filter(|item| item.cut_tokens > 0).count();
            let any = items(trace).next().is_some();
            any.then(|| Value::new(0, cut as f64)).into_iter().collect()
        },
    )
};

/// Whether each item is answered.
pub const ACC_ITEM: Definition =
    share("acc_item", "acc_item@1", "1 where acc counts the item, else 0; item = item", |trace| each(trace, acc));

/// Whether each item is answered by sums per character.
pub const ACC_NORM_ITEM: Definition =
    share("acc_norm_item", "acc_norm_item@1", "1 where acc_norm counts the item, else 0; item = item", |trace| {
        each(trace, acc_norm)
    });

/// Whether each item is answered by sums per byte.
pub const ACC_BYTES_ITEM: Definition =
    share("acc_bytes_item", "acc_bytes_item@1", "1 where acc_bytes counts the item, else 0; item = item", |trace| {
        each(trace, acc_bytes)
    });

/// Whether each hidden answer is said.
pub const EXACT_MATCH_ITEM: Definition = share(
    "exact_match_item",
    "exact_match_item@1",
    "1 where exact_match counts the item, else 0; item = item",
    |trace| each(trace, exact_match),
);

/// The same by length and depth.
pub const ACC_ITEM_AT: Definition = share(
    "acc_item_at",
    "acc_item_at@1",
    "1 where acc counts the item, else 0, by length (x) and depth; item = item",
    |trace| each_placed(trace, acc),
);

/// The same by length and depth.
pub const EXACT_MATCH_ITEM_AT: Definition = share(
    "exact_match_item_at",
    "exact_match_item_at@1",
    "1 where exact_match counts the item, else 0, by length (x) and depth; item = item",
    |trace| each_placed(trace, exact_match),
);

/// Loss of each item's right answer.
pub const TARGET_NLL: Definition = Definition {
    unit: "nat",
    direction: Direction::Lower,
    ..share("target_nll", "target_nll@1", "-sum of ln p(token) of the right answer; item = item", |trace| {
        items(trace).filter_map(|item| Some(Value::new(item.index, item.loss()?))).collect()
    })
};

/// Loss of each answer.
pub const ANSWER_NLL: Definition = Definition {
    unit: "nat",
    direction: Direction::None,
    ..share("answer_nll", "answer_nll@1", "-sum of ln p(token) of one answer; item = item, part = answer", |trace| {
        let of = |item: Item<'_>| -> Vec<Value> {
            let answers = item.answers.iter().enumerate();
            answers.map(|(k, a)| Value::new(item.index, -a.log_likelihood).of(&format!("answer {k}"))).collect()
        };
        items(trace).flat_map(of).collect()
    })
};

/// One scored item.
#[derive(Clone, Copy)]
struct Item<'a> {
    index: usize,
    judged: Judged,
    gold: usize,
    answers: &'a [Answer],
    cut_tokens: u64,
    hidden: Option<&'a Hidden>,
}

impl Item<'_> {
    fn loss(&self) -> Option<f64> {
        self.answers.get(self.gold).map(|answer| -answer.log_likelihood)
    }

    /// Whether the right answer has the largest figure; of equal ones the first counts.
    fn picks(&self, figure: impl Fn(&Answer) -> f64) -> bool {
        let figures: Vec<f64> = self.answers.iter().map(figure).collect();
        let best = figures.iter().enumerate().fold(0, |best, (k, v)| if *v > figures[best] { k } else { best });
        best == self.gold
    }

    fn is_said(&self) -> bool {
        self.answers.get(self.gold).is_some_and(|answer| answer.greedy)
    }
}

fn items(trace: &Trace) -> impl Iterator<Item = Item<'_>> {
    trace.events.iter().filter_map(|event| match event {
        Event::Item { item, judged, gold, answers, cut_tokens, hidden, .. } => Some(Item {
            index: *item as usize,
            judged: *judged,
            gold: *gold as usize,
            answers,
            cut_tokens: *cut_tokens,
            hidden: hidden.as_ref(),
        }),
        _ => None,
    })
}

fn acc(item: &Item<'_>) -> Option<bool> {
    Some(match item.judged {
        Judged::LastWord => item.is_said(),
        _ => item.picks(|answer| answer.log_likelihood),
    })
}

fn acc_norm(item: &Item<'_>) -> Option<bool> {
    (item.judged == Judged::Choice).then(|| item.picks(|answer| answer.log_likelihood / answer.n_chars as f64))
}

fn acc_bytes(item: &Item<'_>) -> Option<bool> {
    (item.judged == Judged::Choice).then(|| item.picks(|answer| answer.log_likelihood / answer.n_bytes as f64))
}

fn exact_match(item: &Item<'_>) -> Option<bool> {
    (item.judged == Judged::Retrieval).then(|| item.is_said())
}

type Counts = fn(&Item<'_>) -> Option<bool>;

/// Items that count and whether they do; a likelihood that is no number counts for nothing and gives no share.
fn counted(trace: &Trace, counts: Counts) -> Vec<(Item<'_>, f64)> {
    let whole = |item: &Item<'_>| item.answers.iter().all(|answer| answer.log_likelihood.is_finite());
    let value = |item: &Item<'_>, yes: bool| if whole(item) { f64::from(u8::from(yes)) } else { f64::NAN };
    items(trace).filter_map(|item| counts(&item).map(|yes| (item, value(&item, yes)))).collect()
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn total(trace: &Trace, counts: Counts) -> Vec<Value> {
    let values: Vec<f64> = counted(trace, counts).into_iter().map(|(_, value)| value).collect();
    mean(&values).map(|share| Value::new(0, share)).into_iter().collect()
}

fn each(trace: &Trace, counts: Counts) -> Vec<Value> {
    counted(trace, counts).into_iter().map(|(item, value)| Value::new(item.index, value)).collect()
}

fn each_placed(trace: &Trace, counts: Counts) -> Vec<Value> {
    let placed = counted(trace, counts).into_iter().filter_map(|(item, value)| Some((item.hidden?, item.index, value)));
    placed.map(|(hidden, index, value)| Value::new(index, value).at(hidden.length).of(&hidden.depth)).collect()
}

fn places(trace: &Trace, counts: Counts) -> Vec<Value> {
    let mut groups: Vec<(&Hidden, Vec<f64>)> = vec![];
    for (item, value) in counted(trace, counts) {
        let Some(hidden) = item.hidden else { continue };
        match groups.iter_mut().find(|(known, _)| *known == hidden) {
            Some((_, values)) => values.push(value),
            None => groups.push((hidden, vec![value])),
        }
    }
    let share =
        |(hidden, values): &(&Hidden, Vec<f64>)| Some(Value::new(0, mean(values)?).at(hidden.length).of(&hidden.depth));
    groups.iter().filter_map(share).collect()
}
