//! Filters against their definitions, on any scores.

use decoding::sampling::{argmax, draw, min_p, top_k, top_p};
use model::TokenId;
use proptest::prelude::*;

/// Scores on a coarse grid, so that ties are common; some tokens already removed.
fn scores() -> impl Strategy<Value = Vec<f64>> {
    let score = prop_oneof![8 => (-12i32..12).prop_map(|x| f64::from(x) / 2.0), 1 => Just(f64::NEG_INFINITY)];
    (prop::collection::vec(score, 0..700), -3.0..3.0f64).prop_map(|(mut scores, sure)| {
        scores.push(sure);
        scores
    })
}

fn kept(scores: &[f64], apply: impl Fn(&mut [f64])) -> Vec<usize> {
    let mut after = scores.to_vec();
    apply(&mut after);
    for (before, after) in scores.iter().zip(&after) {
        assert!(after == before || *after == f64::NEG_INFINITY, "a score is kept or removed, never changed");
    }
    (0..scores.len()).filter(|&x| after[x] > f64::NEG_INFINITY).collect()
}

fn probabilities(scores: &[f64]) -> Vec<f64> {
    let sum: f64 = scores.iter().map(|score| score.exp()).sum();
    scores.iter().map(|score| score.exp() / sum).collect()
}

proptest! {
    #[test]
    fn top_k_keeps_what_fewer_than_k_exceed(scores in scores(), k in 1usize..800) {
        let exceeding = |x: usize| scores.iter().filter(|score| **score > scores[x]).count();
        let expected: Vec<usize> =
            (0..scores.len()).filter(|&x| scores[x] > f64::NEG_INFINITY && exceeding(x) < k).collect();
        prop_assert_eq!(kept(&scores, |s| top_k::apply(s, k)), expected);
    }

    #[test]
    fn top_p_keeps_the_smallest_set_that_reaches_p(scores in scores(), p in 0.001..0.999f64) {
        let probabilities = probabilities(&scores);
        let kept = kept(&scores, |s| top_p::apply(s, p));
        let mass: f64 = kept.iter().map(|&x| probabilities[x]).sum();
        let least = kept.iter().map(|&x| probabilities[x]).fold(f64::INFINITY, f64::min);
        prop_assert!(!kept.is_empty());
        prop_assert!(mass >= p - 1e-9, "reaches p");
        prop_assert!(mass - least < p + 1e-9, "none could be spared");
        let removed = (0..scores.len()).filter(|x| !kept.contains(x));
        // ties at the border go to the lower ids
        let last = *kept.iter().rfind(|&&x| probabilities[x] == least).expect("not empty");
        for x in removed {
            prop_assert!(probabilities[x] < least || (probabilities[x] == least && x > last));
        }
    }

    #[test]
    fn min_p_keeps_a_fraction_of_the_largest(scores in scores(), p in 0.0..=1.0f64) {
        let probabilities = probabilities(&scores);
        let max = probabilities.iter().copied().fold(0.0, f64::max);
        let kept = kept(&scores, |s| min_p::apply(s, p));
        prop_assert!(!kept.is_empty());
        for x in 0..scores.len() {
            let ratio = probabilities[x] / max;
            if (ratio - p).abs() > 1e-9 {
                prop_assert_eq!(kept.contains(&x), ratio > p);
            }
        }
    }

    #[test]
    fn a_draw_is_possible_and_in_order(weights in prop::collection::vec(0u8..4, 1..50), u in 0.0..1.0f64) {
        prop_assume!(weights.iter().any(|w| *w > 0));
        let probabilities: Vec<f64> = weights.iter().map(|w| f64::from(*w)).collect();
        let token = draw(&probabilities, u).0 as usize;
        let sum: f64 = probabilities.iter().sum();
        let before: f64 = probabilities[..token].iter().sum();
        prop_assert!(probabilities[token] > 0.0);
        prop_assert!(before <= u * sum && u * sum < before + probabilities[token]);
    }
}

#[test]
fn equal_logits_go_to_the_lower_token() {
    assert_eq!(argmax(&[0.0, 2.0, 1.0, 2.0]), Ok(TokenId(1)));
    assert_eq!(argmax(&[-0.0, 0.0]), Ok(TokenId(0)));
    assert!(argmax(&[f32::NEG_INFINITY; 3]).is_err());
    assert!(argmax(&[]).is_err());
}
