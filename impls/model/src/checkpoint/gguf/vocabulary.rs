//! The tokenizer of a GGUF file as its metadata describe it.

use super::metadata::Metadata;
use crate::checkpoint::{Bytes, CheckpointError};

/// What a token is, by its number in the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Text.
    Normal,
    /// Stands for what no token covers.
    Unknown,
    /// Begins, ends, separates; never made from text by merging.
    Control,
    /// Found in the text before anything else.
    UserDefined,
    /// A place without a token.
    Unused,
    /// One byte, written `<0x0A>`.
    Byte,
}

impl TokenKind {
    /// By number; unknown numbers are plain text.
    fn of(number: f64) -> TokenKind {
        match number as i64 {
            2 => TokenKind::Unknown,
            3 => TokenKind::Control,
            4 => TokenKind::UserDefined,
            5 => TokenKind::Unused,
            6 => TokenKind::Byte,
            _ => TokenKind::Normal,
        }
    }

    /// Its number in the format.
    pub fn number(self) -> i32 {
        match self {
            TokenKind::Normal => 1,
            TokenKind::Unknown => 2,
            TokenKind::Control => 3,
            TokenKind::UserDefined => 4,
            TokenKind::Unused => 5,
            TokenKind::Byte => 6,
        }
    }
}

/// The tokenizer of a GGUF file; it is built elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Vocabulary {
    /// `gpt2` (bytes and merges) or `llama` (pieces and scores); others are possible.
    pub model: String,
    /// How text is cut before merging (`gpt2` only).
    pub pre: Option<String>,
    /// Texts by id.
    pub tokens: Vec<String>,
    /// Kinds by id; empty means all normal.
    pub kinds: Vec<TokenKind>,
    /// Scores by id (`llama` only).
    pub scores: Vec<f32>,
    /// Merges, best first: left and right separated by a space.
    pub merges: Vec<String>,
    /// Begins a sequence.
    pub bos: Option<u32>,
    /// Ends a sequence.
    pub eos: Option<u32>,
    /// Stands for what no token covers.
    pub unknown: Option<u32>,
    /// Whether a sequence gets a beginning; absent means the default of the model.
    pub add_bos: Option<bool>,
    /// Whether a sequence gets an end.
    pub add_eos: Option<bool>,
    /// Whether text gets a leading space (`llama` only).
    pub add_space_prefix: Option<bool>,
    /// A whole tokenizer.json, where the writer kept it.
    pub json: Option<String>,
}

impl Vocabulary {
    /// The tokenizer that `metadata` describe, if they describe one.
    pub(super) fn read(metadata: &Metadata, bytes: &Bytes) -> Result<Option<Vocabulary>, CheckpointError> {
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        let model = match metadata.text(&key("model"))? {
            None | Some("none" | "no_vocab") => match metadata.has("tokenizer.huggingface.json") {
                true => "none",
                false => return Ok(None),
            },
            Some(model) => model,
        };
        let tokens = metadata.texts(bytes, &key("tokens"))?.unwrap_or_default();
        let list = |name: &str| {
            let list = metadata.numbers(bytes, &key(name))?.unwrap_or_default();
            match list.is_empty() || list.len() == tokens.len() {
                true => Ok(list),
                false => Err(metadata.wrong(&key(name), &format!("one entry for each of {} tokens", tokens.len()))),
            }
        };
        let id = |name: &str| {
            let id = metadata.whole(&key(name))?;
            // files keep ids of tokens that were cut off; they mean none
            Ok::<_, CheckpointError>(id.filter(|id| (*id as usize) < tokens.len()).map(|id| id as u32))
        };
        Ok(Some(Vocabulary {
            model: model.into(),
            pre: metadata.text(&key("pre"))?.map(String::from),
            kinds: list("token_type")?.into_iter().map(TokenKind::of).collect(),
            scores: list("scores")?.into_iter().map(|score| score as f32).collect(),
            merges: metadata.texts(bytes, &key("merges"))?.unwrap_or_default(),
            bos: id("bos_token_id")?,
            eos: id("eos_token_id")?,
            unknown: id("unknown_token_id")?,
            add_bos: metadata.flag(&key("add_bos_token"))?,
            add_eos: metadata.flag(&key("add_eos_token"))?,
            add_space_prefix: metadata.flag(&key("add_space_prefix"))?,
            json: metadata.text("tokenizer.huggingface.json")?.map(String::from),
            tokens,
        }))
    }

    /// What token `id` is.
    pub fn kind(&self, id: usize) -> TokenKind {
        self.kinds.get(id).copied().unwrap_or(TokenKind::Normal)
    }
}
