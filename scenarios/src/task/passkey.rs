//! A key in a long text of no matter: can the model still say it at the end?
//!
//! The form of Mohtashami and Jaggi, "Landmark Attention" (2023), in words of our own: an introduction, sentences that have nothing to do
//! with the key, the key at a chosen depth among them, and a question. Everything drawn follows from the seed, the length, the depth and the
//! number of the text, so that more lengths or texts leave the others as they were.

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use results::trace::{Hidden, Judged};

use super::{Ask, Item};
use crate::scenario::PasskeyPart;

const INTRODUCTION: &str =
    "Somewhere in the text below stands the number of a locker. Read it and remember that number.";
const QUESTION: &str = "Which number does the locker have? The locker has the number";

/// Sentences of no matter.
const FILLING: [&str; 16] = [
    "The lane goes down to the mill and comes back on the other side of the stream.",
    "In the morning the shutters are opened, and in the evening they are closed again.",
    "Two dogs lie in the shade of the wall and do not look up.",
    "The bread is in the basket, and the basket stands on the table.",
    "Somebody has left a ladder against the apple tree.",
    "It rained a little yesterday, and today the grass is wet.",
    "The cart stands in the yard, and nobody needs it before autumn.",
    "A child carries water to the beans and spills half of it on the way.",
    "The clock in the hall is slow, but everyone has grown used to that.",
    "Behind the house there is a shed, and in the shed there are old chairs.",
    "The baker knows everybody in the street by name.",
    "On the sill stand three pots, and only one of them has a plant in it.",
    "The wind turns in the afternoon and smells of hay.",
    "There is a bench at the corner where people wait for the bus.",
    "The cat has found a warm place on the roof of the barn.",
    "Every window of the school looks out on the same row of limes.",
];

/// Every text of `part`; `tokens` counts those of a text.
pub fn items(
    part: &PasskeyPart,
    seed: u64,
    tokens: &dyn Fn(&str) -> Result<usize, String>,
) -> Result<Vec<Item>, String> {
    let mut items = vec![];
    for &length in &part.lengths {
        for &depth in &part.depths {
            for number in 0..part.items {
                items.push(item(part, (length, depth, number), seed, tokens)?);
            }
        }
    }
    Ok(items)
}

fn item(
    part: &PasskeyPart,
    (length, depth, number): (usize, f64, usize),
    seed: u64,
    tokens: &dyn Fn(&str) -> Result<usize, String>,
) -> Result<Item, String> {
    let place = format!("{seed} {length} {depth} {number}");
    let mut random = ChaCha8Rng::from_seed(*blake3::hash(place.as_bytes()).as_bytes());
    let mut keys: Vec<String> = vec![];
    while keys.len() < part.choices {
        let key = random.random_range(10_000..100_000u32).to_string();
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    let gold = random.random_range(0..keys.len());
    let filling = filling(&mut random, length);
    let context = |n: usize| context(&filling[..n], depth, &keys[gold]);
    // keys may differ in tokens: room is made for the longest
    let size = |n: usize| -> Result<usize, String> {
        let all: Result<Vec<usize>, String> = keys.iter().map(|key| tokens(&format!("{} {key}", context(n)))).collect();
        Ok(all?.into_iter().max().unwrap_or(0))
    };
    let least = size(0)?;
    if least > length {
        return Err(format!(
            "a length of {length} tokens has no room: introduction, key and question alone take {least}"
        ));
    }
    let (mut fits, mut beyond) = (0, filling.len() + 1);
    while beyond - fits > 1 {
        let middle = (fits + beyond) / 2;
        if size(middle)? <= length { fits = middle } else { beyond = middle }
    }
    Ok(Item {
        id: format!("{length} tokens, depth {depth}, text {}", number + 1),
        subject: None,
        ask: Ask::Choose { context: context(fits), answers: keys.clone(), judged: Judged::Retrieval },
        gold,
        hidden: Some(Hidden { length: length as f64, depth: format!("depth {depth}") }),
    })
}

/// More sentences than `length` tokens can hold, none twice in a row.
fn filling(random: &mut ChaCha8Rng, length: usize) -> Vec<&'static str> {
    let mut all: Vec<&'static str> = vec![];
    // a sentence has more than eight tokens in any vocabulary of words
    while all.len() < length / 8 + 1 {
        let mut round = FILLING;
        round.shuffle(random);
        if all.last() == Some(&round[0]) {
            round.swap(0, 1);
        }
        all.extend(round);
    }
    all
}

fn context(filling: &[&str], depth: f64, key: &str) -> String {
    let needle = format!("The number of the locker is {key}. Remember it: the locker has the number {key}.");
    let at = ((filling.len() as f64 * depth).round() as usize).min(filling.len());
    let sentences: Vec<&str> =
        filling[..at].iter().copied().chain([needle.as_str()]).chain(filling[at..].iter().copied()).collect();
    format!("{INTRODUCTION}\n\n{}\n\n{QUESTION}", sentences.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Result<usize, String> {
        Ok(text.split_whitespace().count())
    }

    #[test]
    fn texts_are_as_long_as_asked_and_hide_one_key() {
        let part = PasskeyPart { lengths: vec![100, 400], depths: vec![0.0, 0.5, 1.0], items: 3, choices: 4 };
        let items = items(&part, 1, &words).expect("room");
        assert_eq!(items.len(), 18);
        let longest = FILLING.iter().map(|s| words(s).expect("words")).max().expect("sentences");
        for item in &items {
            let Ask::Choose { context, answers, .. } = &item.ask else { panic!("{item:?}") };
            let (hidden, n) = (item.hidden.as_ref().expect("a place"), words(context).expect("words") + 1);
            assert!(n <= hidden.length as usize && n + longest > hidden.length as usize, "{n} of {}", hidden.length);
            for (k, answer) in answers.iter().enumerate() {
                assert_eq!(context.matches(answer.as_str()).count(), if k == item.gold { 2 } else { 0 }, "{item:?}");
            }
            let at = context.find("The number of the locker").expect("the key") as f64 / context.len() as f64;
            let depth: f64 = hidden.depth.trim_start_matches("depth ").parse().expect("a number");
            assert!((at - depth).abs() < 0.3, "{at} for {depth}");
        }
        let fewer = PasskeyPart { lengths: vec![400], depths: vec![0.5], items: 1, choices: 4 };
        assert!(items.contains(&super::items(&fewer, 1, &words).expect("room")[0]), "other lengths change nothing");
        assert_ne!(super::items(&part, 2, &words).expect("room"), items);
        assert!(
            super::items(&PasskeyPart { lengths: vec![20], ..part }, 1, &words).expect_err("short").contains("no room")
        );
    }
}
