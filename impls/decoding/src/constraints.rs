//! What a sequence's next token may be, whatever the logits say: tokens never generated, a first and a last one prescribed.
//!
//! The rules are those of Hugging Face's logits processors: a token that is never generated keeps its share of the
//! probability (others do not grow by it), and a prescribed token costs nothing. Greedy and beam decoding obey them; see
//! [`Decoder::obeys_constraints`](crate::Decoder::obeys_constraints).

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
