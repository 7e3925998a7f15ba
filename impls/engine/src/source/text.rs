//! Text of a checkpoint: its tokens, with what is put around it.

use model::TokenId;

use super::Checkpoint;
use crate::{Bos, EngineError, Tokenizer};

impl Checkpoint {
    /// Its tokenizer, or why this checkpoint cannot read text.
    pub fn reader(&self) -> Result<&Tokenizer, EngineError> {
        self.tokenizer.as_ref().ok_or_else(|| {
            EngineError::Mismatch(format!(
                "{}: {}, so it cannot read text",
                self.source,
                self.without_text.as_deref().unwrap_or("no tokenizer.json beside the weights")
            ))
        })
    }

    /// Tokens of `text`, with the beginning and the end that [`bos`](Checkpoint::bos) asks for.
    pub fn encode(&self, text: &str) -> Result<Vec<TokenId>, EngineError> {
        self.encode_with_ends(text).map(|(tokens, _)| tokens)
    }

    /// The same, and the byte of `text` at which each token ends.
    pub fn encode_with_ends(&self, text: &str) -> Result<(Vec<TokenId>, Vec<usize>), EngineError> {
        let (before, after) = self.around()?;
        let (plain, ends) = self.reader()?.encode_with_ends(text)?;
        let ends = [vec![0; before.len()], ends, vec![text.len(); after.len()]].concat();
        Ok(([before, plain, after].concat(), ends))
    }

    /// The token that a text begins with, where one is put before it.
    pub fn begins_with(&self) -> Result<Option<TokenId>, EngineError> {
        Ok(self.around()?.0.first().copied())
    }

    /// What is put before a text.
    pub fn before(&self) -> Result<Vec<TokenId>, EngineError> {
        Ok(self.around()?.0)
    }

    /// What is put before and after a text.
    fn around(&self) -> Result<(Vec<TokenId>, Vec<TokenId>), EngineError> {
        let tokenizer = self.reader()?;
        if self.bos == Bos::Never {
            return Ok((vec![], vec![]));
        }
        let (before, after) = tokenizer.around()?;
        match (self.bos, self.facts.bos) {
            (Bos::Always, Some(bos)) if before.is_empty() => Ok((vec![bos], after)),
            (Bos::Always, None) if before.is_empty() => Err(EngineError::Mismatch(format!(
                "{}: no file says which token begins a text (bos_token_id, bos_token), so none can be put before it",
                self.source
            ))),
            _ => Ok((before, after)),
        }
    }

    /// In words, what is put around a text, for the provenance of a number: `auto: <bos> before a text`.
    pub fn beginning(&self) -> Result<String, EngineError> {
        let tokenizer = self.reader()?;
        let asked = match self.bos {
            Bos::Auto => "auto",
            Bos::Always => "always",
            Bos::Never => "never",
        };
        let (before, after) = self.around()?;
        let names = |tokens: &[TokenId]| {
            let name = |token: &TokenId| tokenizer.piece(*token).unwrap_or_else(|| token.0.to_string());
            tokens.iter().map(name).collect::<Vec<_>>().join(" ")
        };
        Ok(match (before.is_empty(), after.is_empty()) {
            (true, true) => format!("{asked}: nothing is put around a text"),
            (false, true) => format!("{asked}: {} before a text", names(&before)),
            (true, false) => format!("{asked}: {} behind a text", names(&after)),
            (false, false) => format!("{asked}: {} before a text, {} behind it", names(&before), names(&after)),
        })
    }
}
