//! Text of a checkpoint: its tokens, with what is put around it.

use model::TokenId;
use model::checkpoint::gguf::{is_gguf, open_vocabulary};

use super::{Checkpoint, Library, ModelSource};
use crate::{Bos, EngineError, TextFacts, Tokenizer};

/// What reads and writes the text of a checkpoint.
#[derive(Clone, Copy)]
pub struct Text<'a> {
    source: &'a ModelSource,
    tokenizer: Option<&'a Tokenizer>,
    /// Why there is none, where it is not simply absent.
    without: Option<&'a str>,
    facts: &'a TextFacts,
    bos: Bos,
}

/// The text of a checkpoint whose weights are not looked at.
pub struct TextAlone {
    source: ModelSource,
    tokenizer: Option<Tokenizer>,
    without: Option<String>,
    facts: TextFacts,
    vocab_size: usize,
}

impl TextAlone {
    /// Opens the tokenizer of `source`. A GGUF file need not hold weights, nor be of a family that is known here.
    pub fn open(source: &ModelSource, library: &Library<'_>) -> Result<TextAlone, EngineError> {
        if let ModelSource::Folder(file) = source
            && is_gguf(file)
        {
            let vocabulary = open_vocabulary(file)?;
            let vocab_size = vocabulary.as_ref().map_or(0, |v| v.tokens.len());
            let without = vocabulary.as_ref().and_then(crate::tokenizer::unsupported);
            let parse = |vocabulary| Tokenizer::from_gguf(file, &vocabulary, vocab_size);
            let tokenizer = vocabulary.clone().filter(|_| without.is_none()).map(parse).transpose()?;
            let facts = TextFacts::of_gguf(vocabulary.as_ref(), tokenizer.as_ref(), vocab_size);
            return Ok(TextAlone { source: source.clone(), tokenizer, without, facts, vocab_size });
        }
        let whole = Checkpoint::open(source, library)?;
        let vocab_size = whole.architecture.vocab_size;
        let Checkpoint { source, tokenizer, without_text: without, facts, .. } = whole;
        Ok(TextAlone { source, tokenizer, without, facts, vocab_size })
    }

    /// Its text, begun as `bos` says.
    pub fn text(&self, bos: Bos) -> Text<'_> {
        let TextAlone { source, tokenizer, without, facts, .. } = self;
        Text { source, tokenizer: tokenizer.as_ref(), without: without.as_deref(), facts, bos }
    }

    /// Tokens that there are.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }
}

impl Checkpoint {
    /// What reads and writes its text.
    pub fn text(&self) -> Text<'_> {
        let Checkpoint { source, tokenizer, without_text, facts, bos, .. } = self;
        Text { source, tokenizer: tokenizer.as_ref(), without: without_text.as_deref(), facts, bos: *bos }
    }

    /// [`Text::reader`].
    pub fn reader(&self) -> Result<&Tokenizer, EngineError> {
        self.text().reader()
    }

    /// [`Text::encode`].
    pub fn encode(&self, text: &str) -> Result<Vec<TokenId>, EngineError> {
        self.text().encode(text)
    }

    /// [`Text::encode_with_ends`].
    pub fn encode_with_ends(&self, text: &str) -> Result<(Vec<TokenId>, Vec<usize>), EngineError> {
        self.text().encode_with_ends(text)
    }

    /// [`Text::begins_with`].
    pub fn begins_with(&self) -> Result<Option<TokenId>, EngineError> {
        self.text().begins_with()
    }

    /// [`Text::before`].
    pub fn before(&self) -> Result<Vec<TokenId>, EngineError> {
        self.text().before()
    }

    /// [`Text::beginning`].
    pub fn beginning(&self) -> Result<String, EngineError> {
        self.text().beginning()
    }
}

impl<'a> Text<'a> {
    /// The tokenizer, or why this checkpoint cannot read text.
    pub fn reader(&self) -> Result<&'a Tokenizer, EngineError> {
        self.tokenizer.ok_or_else(|| {
            EngineError::Mismatch(format!(
                "{}: {}, so it cannot read text",
                self.source,
                self.without.unwrap_or("no tokenizer.json beside the weights")
            ))
        })
    }

    /// Tokens of `text`, with the beginning and the end that [`Bos`] asks for.
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
