//! **What** Rules for a sequence's tokens, whatever the logits say: some never generated, a first and a last one prescribed.
//! **Source** Hugging Face's logits processors (no bad words, suppress tokens, forced begin and end of text).
//! **Shapes** ids of the vocabulary; counts of generated tokens.
//! **Method** 1. the last token allowed is the prescribed last one; 2. the first is the prescribed first one; 3. else every
//!   token may come that is not forbidden.
//! **Exactness** theirs: a forbidden token keeps its share of the probability (others do not grow by it), a prescribed one
//!   costs a hypothesis nothing. Greedy and beam decoding obey; see [`Decoder::obeys_constraints`](crate::Decoder::obeys_constraints).
//! **Cost** one look at the forbidden ids per candidate.
//! **Not handled** words of several tokens, rules that look at earlier tokens.

use model::TokenId;

/// Rules for the tokens of one sequence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Constraints {
    /// Never generated.
    pub never: Vec<TokenId>,
    /// The first generated token.
    pub first: Option<TokenId>,
    /// The token at the length limit.
    pub last: Option<TokenId>,
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

    /// Whether `token` may be generated where none is prescribed.
    pub fn allows(&self, token: TokenId) -> bool {
        !self.never.contains(&token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_token_outranks_the_first() {
        let rules = Constraints { never: vec![TokenId(3)], first: Some(TokenId(5)), last: Some(TokenId(0)) };
        assert_eq!(rules.prescribed(0, 4), Some(TokenId(5)));
        assert_eq!((rules.prescribed(1, 4), rules.prescribed(3, 4)), (None, Some(TokenId(0))));
        assert_eq!(rules.prescribed(0, 1), Some(TokenId(0)));
        assert!(rules.allows(TokenId(4)) && !rules.allows(TokenId(3)));
        assert!(Constraints::default().is_empty() && !rules.is_empty());
    }
}
