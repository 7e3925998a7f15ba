//! What lies beside a tokenizer.json and belongs to it: tokenizer_config.json, special_tokens_map.json, added_tokens.json.
//!
//! The order is that of Hugging Face's `AutoTokenizer`. Where tokenizer_config.json lists its added tokens, the two older files
//! are not asked. What is put around a text is the template of tokenizer.json: beside one, `add_bos_token` and `add_eos_token` of
//! tokenizer_config.json say nothing there either.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use crate::EngineError;

/// Fields that name one special token each.
const NAMED: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// Fields that list more of them.
const LISTS: [&str; 2] = ["additional_special_tokens", "extra_special_tokens"];

/// The three files as they matter for a tokenizer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Beside {
    /// tokenizer_config.json, with what special_tokens_map.json says where that is asked.
    config: Map<String, Value>,
    /// Tokens in the order of their declared ids.
    declared: BTreeMap<u64, AddedToken>,
}

impl Beside {
    /// Reads what there is in `folder`.
    pub(crate) fn read(folder: &Path) -> Result<Beside, EngineError> {
        let file = folder.join("tokenizer_config.json");
        let mut config = object(&file)?.unwrap_or_default();
        let mut declared = BTreeMap::new();
        if let Some(decoder) = config.get("added_tokens_decoder").filter(|v| !v.is_null()) {
            let wrong = || EngineError::Tokenizer {
                file: file.clone(),
                problem: format!("`added_tokens_decoder` is {decoder}; expected tokens by id"),
            };
            for (id, token) in decoder.as_object().ok_or_else(wrong)? {
                let id = id.parse().map_err(|_| wrong())?;
                declared.insert(id, added(token, false).ok_or_else(wrong)?);
            }
            return Ok(Beside { config, declared });
        }
        config.extend(object(&folder.join("special_tokens_map.json"))?.unwrap_or_default());
        let special: Vec<String> = special_tokens(&config).into_iter().map(|token| token.content).collect();
        let file = folder.join("added_tokens.json");
        for (text, id) in object(&file)?.unwrap_or_default() {
            let problem = || format!("`{text}` is {id}; expected a token id");
            let id = id.as_u64().ok_or_else(|| EngineError::Tokenizer { file: file.clone(), problem: problem() })?;
            let is_special = special.contains(&text);
            declared.insert(id, AddedToken::from(text, is_special));
        }
        Ok(Beside { config, declared })
    }

    /// Text of the special token `field`, such as `bos_token`.
    pub(crate) fn named(&self, field: &str) -> Option<String> {
        self.config.get(field).and_then(|value| added(value, true)).map(|token| token.content)
    }

    /// Texts of the named special tokens, for chat templates.
    pub(crate) fn names(&self) -> BTreeMap<String, String> {
        NAMED.iter().filter_map(|field| Some((field.to_string(), self.named(field)?))).collect()
    }

    /// Field of tokenizer_config.json.
    pub(crate) fn field(&self, name: &str) -> Option<&Value> {
        self.config.get(name).filter(|value| !value.is_null())
    }

    /// Adds to `inner` the tokens that it lacks.
    pub(super) fn complete(&self, inner: &mut tokenizers::Tokenizer) -> Result<(), String> {
        let present = inner.get_added_tokens_decoder();
        let is_there = |content: &str| present.values().any(|token| token.content == content);
        let mut lacking: Vec<AddedToken> = self.declared.values().cloned().collect();
        for token in special_tokens(&self.config) {
            let listed = lacking.iter_mut().find(|known| known.content == token.content);
            match listed {
                Some(known) => known.special = true,
                None if !is_there(&token.content) => lacking.push(token),
                None => {}
            }
        }
        lacking.retain(|token| !present.values().any(|known| known == token && known.special == token.special));
        if lacking.is_empty() {
            return Ok(());
        }
        inner.add_tokens(lacking).map(|_| ()).map_err(|e| format!("cannot add the tokens of the files beside it: {e}"))
    }
}

/// The named and listed special tokens of `config`.
fn special_tokens(config: &Map<String, Value>) -> Vec<AddedToken> {
    let named = NAMED.iter().filter_map(|field| config.get(*field));
    let listed = LISTS.iter().filter_map(|field| config.get(*field)).flat_map(|list| match list {
        Value::Array(list) => list.iter().collect(),
        Value::Object(map) => map.values().collect(),
        _ => vec![],
    });
    named.chain(listed).filter_map(|value| added(value, true)).collect()
}

/// A token written as text or as an object with its flags; the text of special ones is not normalized unless it says so.
fn added(value: &Value, special: bool) -> Option<AddedToken> {
    match value {
        Value::String(text) => Some(AddedToken::from(text.clone(), special)),
        Value::Object(fields) => {
            let flag = |name: &str| fields.get(name).and_then(Value::as_bool);
            let special = special || flag("special").unwrap_or(false);
            let content = fields.get("content")?.as_str()?.to_string();
            Some(AddedToken {
                content,
                single_word: flag("single_word").unwrap_or(false),
                lstrip: flag("lstrip").unwrap_or(false),
                rstrip: flag("rstrip").unwrap_or(false),
                normalized: flag("normalized").unwrap_or(!special),
                special,
            })
        }
        _ => None,
    }
}

/// The JSON object in `file`, where there is such a file.
pub(crate) fn object(file: &Path) -> Result<Option<Map<String, Value>>, EngineError> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(EngineError::Io { file: file.into(), source }),
    };
    match serde_json::from_str(&text) {
        Ok(Value::Object(map)) => Ok(Some(map)),
        Ok(_) => Err(EngineError::Tokenizer { file: file.into(), problem: "expected a JSON object".into() }),
        Err(e) => Err(EngineError::Tokenizer { file: file.into(), problem: format!("{e}; expected a JSON object") }),
    }
}
