//! **What** Rules for a sequence's tokens, whatever the logits say: some never generated, some less likely, a first and a last one
//!   prescribed, an end that may not come too early.
//! **Source** Hugging Face's logits processors: repetition penalty (Keskar et al. 2019, §4.1), no repeated n-grams (Paulus et al.
//!   2017, §2.5), bad words, suppressed tokens, minimum lengths, forced begin and end of text.
//! **Shapes** ids of the vocabulary; counts of tokens; scores `[vocab]`, in place.
//! **Method** 1. the last token allowed is the prescribed last one; 2. the first is the prescribed first one; 3. else scores of
//!   tokens that came before are divided by the penalty where positive and multiplied where negative; 4. forbidden ones go to -inf.
//! **Exactness** theirs, in f32: a forbidden token keeps its share of the probability (others do not grow by it), a prescribed one
//!   costs a hypothesis nothing. Every decoder but speculation obeys; see [`Decoder::obeys_constraints`](crate::Decoder::obeys_constraints).
//! **Cost** one look at the earlier tokens and at the forbidden ids per candidate row.
//! **Not handled** biases of sequences, decaying length penalties.

use model::TokenId;

/// Rules for the tokens of one sequence.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Constraints {
    /// Never generated.
    pub never: Vec<TokenId>,
    /// Words of one or more tokens that are never completed.
    pub words: Vec<Vec<TokenId>>,
    /// Not generated as the first token; as the second where the first is prescribed.
    pub not_first: Vec<TokenId>,
    /// The first generated token.
    pub first: Option<TokenId>,
    /// The token at the length limit.
    pub last: Option<TokenId>,
    /// Above 1, tokens of the prompt and of what was generated become less likely; below 1, likelier.
    pub repetition_penalty: Option<f32>,
    /// So many tokens in a row come once in prompt and generated tokens together; 0 allows everything.
    pub no_repeat_ngram: usize,
    /// Tokens of the sequence, its prompt included, before a stop token may come.
    pub min_tokens: usize,
    /// Generated tokens before a stop token may come.
    pub min_new_tokens: usize,
}

impl Constraints {
    /// Whether they leave every token as it is.
    pub fn is_empty(&self) -> bool {
        *self == Constraints::default()
    }

    /// The token prescribed after `n_generated` of at most `max_new_tokens`.
    pub fn prescribed(&self, n_generated: usize, max_new_tokens: usize) -> Option<TokenId> {
        let last = self.last.filter(|_| n_generated + 1 == max_new_tokens);
        last.or(self.first.filter(|_| n_generated == 0))
    }

    /// Changes `scores` of the token that follows `tokens`, of which `n_prompt` are the prompt; `stop` ends the sequence.
    pub fn adjust(&self, tokens: &[TokenId], n_prompt: usize, stop: &[TokenId], scores: &mut [f32]) {
        if let Some(penalty) = self.repetition_penalty {
            let mut seen = tokens.to_vec();
            seen.sort_unstable();
            seen.dedup();
            for token in seen {
                if let Some(score) = scores.get_mut(token.0 as usize) {
                    *score = if *score < 0.0 { *score * penalty } else { *score / penalty };
                }
            }
        }
        let mut forbid = |token: TokenId| {
            if let Some(score) = scores.get_mut(token.0 as usize) {
                *score = f32::NEG_INFINITY;
            }
        };
        let n = self.no_repeat_ngram;
        if n > 0 && tokens.len() + 1 >= n {
            let begun = &tokens[tokens.len() + 1 - n..];
            tokens.windows(n).filter(|window| window[..n - 1] == *begun).for_each(|window| forbid(window[n - 1]));
        }
        for word in &self.words {
            if let Some((last, _)) = word.split_last().filter(|(_, before)| tokens.ends_with(before)) {
                forbid(*last);
            }
        }
        let n_generated = tokens.len().saturating_sub(n_prompt);
        if tokens.len() < self.min_tokens || n_generated < self.min_new_tokens {
            stop.iter().copied().for_each(&mut forbid);
        }
        self.never.iter().copied().for_each(&mut forbid);
        if n_generated == usize::from(self.first.is_some()) {
            self.not_first.iter().copied().for_each(&mut forbid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u32]) -> Vec<TokenId> {
        ids.iter().copied().map(TokenId).collect()
    }

    #[test]
    fn the_last_token_outranks_the_first() {
        let rules = Constraints { first: Some(TokenId(5)), last: Some(TokenId(0)), ..Constraints::default() };
        assert_eq!(rules.prescribed(0, 4), Some(TokenId(5)));
        assert_eq!((rules.prescribed(1, 4), rules.prescribed(3, 4)), (None, Some(TokenId(0))));
        assert_eq!(rules.prescribed(0, 1), Some(TokenId(0)));
        assert!(Constraints::default().is_empty() && !rules.is_empty());
    }

    /// Scores 1, -1, 2, -2, 3, -3 after `tokens`, with the stop token 5; what is forbidden is written as -9.
    fn after(rules: &Constraints, tokens: &[u32], n_prompt: usize) -> Vec<f32> {
        let mut scores = [1.0, -1.0, 2.0, -2.0, 3.0, -3.0];
        rules.adjust(&ids(tokens), n_prompt, &ids(&[5]), &mut scores);
        scores.map(|score| if score == f32::NEG_INFINITY { -9.0 } else { score }).to_vec()
    }

    #[test]
    fn what_came_before_is_penalised_once() {
        let rules = Constraints { repetition_penalty: Some(2.0), ..Constraints::default() };
        assert_eq!(after(&rules, &[4, 1, 1], 2), [1.0, -2.0, 2.0, -2.0, 1.5, -3.0]);
    }

    #[test]
    fn an_n_gram_comes_once() {
        let rules = |n| Constraints { no_repeat_ngram: n, ..Constraints::default() };
        assert_eq!(after(&rules(2), &[0, 1, 2, 1, 3, 1], 1), [1.0, -1.0, -9.0, -9.0, 3.0, -3.0]);
        assert_eq!(after(&rules(1), &[0, 4], 1), [-9.0, -1.0, 2.0, -2.0, -9.0, -3.0]);
        assert_eq!(after(&rules(3), &[0, 1], 1), [1.0, -1.0, 2.0, -2.0, 3.0, -3.0]);
    }

    #[test]
    fn words_are_never_completed() {
        let rules = Constraints { words: vec![ids(&[2]), ids(&[0, 1, 4])], ..Constraints::default() };
        assert_eq!(after(&rules, &[0, 1], 1), [1.0, -1.0, -9.0, -2.0, -9.0, -3.0]);
        assert_eq!(after(&rules, &[1], 1), [1.0, -1.0, -9.0, -2.0, 3.0, -3.0]);
    }

    #[test]
    fn an_end_waits_and_a_beginning_is_chosen() {
        let rules = Constraints { min_tokens: 4, min_new_tokens: 2, not_first: ids(&[4]), ..Constraints::default() };
        assert_eq!(after(&rules, &[0, 0, 0], 3), [1.0, -1.0, 2.0, -2.0, -9.0, -9.0]);
        assert_eq!(after(&rules, &[0, 0, 0, 0], 3)[4..], [3.0, -9.0]);
        assert_eq!(after(&rules, &[0, 0, 0, 0, 0], 3)[4..], [3.0, -3.0]);
        let forced = Constraints { first: Some(TokenId(1)), not_first: ids(&[4]), ..Constraints::default() };
        assert_eq!(after(&forced, &[0, 1], 1)[4], -9.0);
    }
}
