//! `tokenizer.json` through the `tokenizers` crate.

mod cuts;
mod described;
mod gguf;
mod vocabulary;

use std::path::Path;

pub(crate) use described::{Described, Told};
pub(crate) use gguf::unsupported;
use model::TokenId;

use crate::EngineError;

/// A tokenizer whose ids all fit its model's vocabulary.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    vocab_size: usize,
}

impl Tokenizer {
    /// Parses the bytes of a tokenizer.json; `vocab_size` is the model's.
    pub fn from_bytes(file: &Path, bytes: &[u8], vocab_size: usize) -> Result<Tokenizer, EngineError> {
        let wrong = |problem: String| EngineError::Tokenizer { file: file.into(), problem };
        let foreign = |e: &dyn std::fmt::Display| wrong(format!("not a tokenizer.json of the tokenizers library: {e}"));
        // the library panics on some of what is not JSON, and on damaged tables of its normalisers
        serde_json::from_slice::<serde::de::IgnoredAny>(bytes).map_err(|e| foreign(&e))?;
        let mut inner = std::panic::catch_unwind(|| tokenizers::Tokenizer::from_bytes(bytes))
            .map_err(|_| foreign(&"a part of it is damaged"))?
            .map_err(|e| foreign(&e))?;
        // truncation or padding stored in the file would silently change what is scored
        inner.with_truncation(None).map_err(|e| wrong(format!("cannot switch truncation off: {e}")))?;
        inner.with_padding(None);
        Ok(Tokenizer { inner, vocab_size })
    }

    /// Token ids of `text`, without special tokens.
    pub fn encode(&self, text: &str) -> Result<Vec<TokenId>, EngineError> {
        self.encode_as(text, false)
    }

    /// Token ids of `text` with what the tokenizer's template adds (a beginning-of-sequence token, mostly).
    pub fn encode_with_special(&self, text: &str) -> Result<Vec<TokenId>, EngineError> {
        self.encode_as(text, true)
    }

    /// Token ids of `text` without special tokens, and the byte of `text` at which each token ends.
    pub fn encode_with_ends(&self, text: &str) -> Result<(Vec<TokenId>, Vec<usize>), EngineError> {
        let encoding = self.inner.encode(text, false).map_err(|e| EngineError::Tokenizer {
            file: "tokenizer.json".into(),
            problem: format!("cannot encode the text: {e}"),
        })?;
        let ids = self.checked(encoding.get_ids())?;
        Ok((ids, encoding.get_offsets().iter().map(|&(_, end)| end).collect()))
    }

    fn encode_as(&self, text: &str, special: bool) -> Result<Vec<TokenId>, EngineError> {
        let wrong = |problem: String| EngineError::Tokenizer { file: "tokenizer.json".into(), problem };
        let encoding =
            self.inner.encode_fast(text, special).map_err(|e| wrong(format!("cannot encode the text: {e}")))?;
        self.checked(encoding.get_ids())
    }

    fn checked(&self, ids: &[u32]) -> Result<Vec<TokenId>, EngineError> {
        let wrong = |problem: String| EngineError::Tokenizer { file: "tokenizer.json".into(), problem };
        match ids.iter().find(|&&id| id as usize >= self.vocab_size) {
            Some(id) => Err(wrong(format!(
                "gives token {id}, but config.json says vocab_size {}; the files do not belong together",
                self.vocab_size
            ))),
            None => Ok(ids.iter().map(|&id| TokenId(id)).collect()),
        }
    }

    /// Text of `tokens`.
    pub fn decode(&self, tokens: &[TokenId]) -> String {
        let ids: Vec<u32> = tokens.iter().map(|t| t.0).collect();
        self.inner.decode(&ids, false).unwrap_or_default()
    }

    /// The text of the tokenizer.json.
    pub(crate) fn to_json(&self) -> Result<String, EngineError> {
        self.inner.to_string(false).map_err(|e| EngineError::Tokenizer {
            file: "tokenizer.json".into(),
            problem: format!("cannot be written: {e}"),
        })
    }

    /// Entries of the tokenizer, added tokens included.
    pub fn len(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Whether it has no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Id of a token by its text.
    pub fn id_of(&self, token: &str) -> Option<TokenId> {
        self.inner.token_to_id(token).map(TokenId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_an_error() {
        let whole = r#"{"version":"1.0","model":{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"},"decoder":{"type":"Fuse"}}"#;
        let read = |text: &str| Tokenizer::from_bytes(Path::new("tokenizer.json"), text.as_bytes(), 1);
        assert!(read(whole).is_ok());
        for end in (0..whole.len()).step_by(7) {
            let error = read(&whole[..end]).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(error.contains("tokenizer.json"), "{end}: {error}");
        }
    }
}
