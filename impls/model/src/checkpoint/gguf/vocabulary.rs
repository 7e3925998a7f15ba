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
    /// Ends a turn of a chat.
    pub eot: Option<u32>,
    /// Ends a message of a turn.
    pub eom: Option<u32>,
    /// More tokens that end a text than the format has keys for.
    pub more_ends: Vec<u32>,
    /// Fills what is shorter than others.
    pub padding: Option<u32>,
    /// Stands for what no token covers.
    pub unknown: Option<u32>,
    /// Whether a sequence gets a beginning; absent means the default of the model.
    pub add_bos: Option<bool>,
    /// Whether a sequence gets an end.
    pub add_eos: Option<bool>,
    /// Whether text gets a leading space (`llama` only).
    pub add_space_prefix: Option<bool>,
    /// Chat templates: name (`default` mostly) and text.
    pub chat_templates: Vec<(String, String)>,
    /// A whole tokenizer.json, where the writer kept it.
    pub json: Option<String>,
}

/// Where the ends stand that have no key of their own.
pub(super) const MORE_ENDS: &str = "infermark.end_token_ids";
/// The template of a chat, or what precedes the name of one of several.
pub(super) const TEMPLATE: &str = "tokenizer.chat_template";

/// Chat templates by name, the usual one first.
fn templates(metadata: &Metadata) -> Result<Vec<(String, String)>, CheckpointError> {
    let mut names: Vec<&str> =
        metadata.values.keys().filter_map(|key| key.strip_prefix(TEMPLATE)?.strip_prefix('.')).collect();
    names.sort_unstable();
    let mut found = vec![];
    for (name, key) in [("default", TEMPLATE.to_string())]
        .into_iter()
        .chain(names.into_iter().map(|name| (name, format!("{TEMPLATE}.{name}"))))
    {
        found.extend(metadata.text(&key)?.map(|text| (name.to_string(), text.to_string())));
    }
    Ok(found)
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
            let known = |id: &u64| tokens.is_empty() || (*id as usize) < tokens.len();
            Ok::<_, CheckpointError>(id.filter(known).and_then(|id| u32::try_from(id).ok()))
        };
        let kinds: Vec<TokenKind> = list("token_type")?.into_iter().map(TokenKind::of).collect();
        // llama.cpp's ids for pieces with scores, where the file has no key and the tokens are there
        let usual = |id: u32| (model == "llama" && kinds.get(id as usize) == Some(&TokenKind::Control)).then_some(id);
        Ok(Some(Vocabulary {
            model: model.into(),
            pre: metadata.text(&key("pre"))?.map(String::from),
            scores: list("scores")?.into_iter().map(|score| score as f32).collect(),
            merges: metadata.texts(bytes, &key("merges"))?.unwrap_or_default(),
            bos: id("bos_token_id")?.or_else(|| usual(1)),
            eos: id("eos_token_id")?.or_else(|| usual(2)),
            eot: id("eot_token_id")?,
            eom: id("eom_token_id")?,
            more_ends: {
                let list = metadata.numbers(bytes, MORE_ENDS)?.unwrap_or_default();
                list.into_iter()
                    .filter(|id| tokens.is_empty() || *id < tokens.len() as f64)
                    .map(|id| id as u32)
                    .collect()
            },
            padding: id("padding_token_id")?,
            chat_templates: templates(metadata)?,
            unknown: id("unknown_token_id")?,
            add_bos: metadata.flag(&key("add_bos_token"))?,
            add_eos: metadata.flag(&key("add_eos_token"))?,
            add_space_prefix: metadata.flag(&key("add_space_prefix"))?,
            json: metadata.text("tokenizer.huggingface.json")?.map(String::from),
            kinds,
            tokens,
        }))
    }

    /// Tokens that end a text, each once: what the keys of sequence, turn and message say together.
    pub fn ends(&self) -> Vec<u32> {
        let mut ends: Vec<u32> = vec![];
        for id in [self.eos, self.eot, self.eom].into_iter().flatten().chain(self.more_ends.iter().copied()) {
            if !ends.contains(&id) {
                ends.push(id);
            }
        }
        ends
    }

    /// What token `id` is.
    pub fn kind(&self, id: usize) -> TokenKind {
        self.kinds.get(id).copied().unwrap_or(TokenKind::Normal)
    }
}
