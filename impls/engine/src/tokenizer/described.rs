//! What a GGUF file says about text, in the files of a folder, and what a folder says about text, for a GGUF file.

use std::path::Path;

use model::checkpoint::gguf::Vocabulary;
use serde_json::{Map, Value, json};

use crate::EngineError;

/// What a source says of its special tokens.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Told {
    /// Begins a sequence.
    pub(crate) bos: Option<u32>,
    /// Tokens that end a text.
    pub(crate) ends: Vec<u32>,
    /// Fills what is shorter than others.
    pub(crate) padding: Option<u32>,
    /// Chat templates: name and text.
    pub(crate) chat_templates: Vec<(String, String)>,
}

impl Told {
    /// By the files of a Hugging Face folder; ids lie below `vocab`.
    pub(crate) fn of_folder(folder: &Path, vocab: usize) -> Result<Told, EngineError> {
        let object = |name: &str| -> Result<Map<String, Value>, EngineError> {
            let file = folder.join(name);
            match std::fs::read_to_string(&file) {
                Ok(text) => serde_json::from_str(&text)
                    .map_err(|e| EngineError::Mismatch(format!("{}: {e}; expected a JSON object", file.display()))),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Map::new()),
                Err(source) => Err(EngineError::Io { file, source }),
            }
        };
        let files = [object("generation_config.json")?, object("config.json")?];
        let ids = |field: &str| -> Vec<u32> {
            let mut all = vec![];
            for value in files.iter().filter_map(|file| file.get(field)) {
                let each = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
                for id in each.iter().filter_map(Value::as_u64).filter(|id| *id < vocab as u64) {
                    if !all.contains(&(id as u32)) {
                        all.push(id as u32);
                    }
                }
            }
            all
        };
        let config = object("tokenizer_config.json")?;
        let chat_templates = match std::fs::read_to_string(folder.join("chat_template.jinja")) {
            Ok(text) => vec![("default".into(), text)],
            Err(_) => match config.get("chat_template") {
                Some(Value::String(text)) => vec![("default".into(), text.clone())],
                Some(Value::Array(list)) => {
                    let text = |entry: &Value, field: &str| entry[field].as_str().map(String::from);
                    list.iter().filter_map(|entry| Some((text(entry, "name")?, text(entry, "template")?))).collect()
                }
                _ => vec![],
            },
        };
        let first = |field: &str| ids(field).first().copied();
        Ok(Told {
            bos: first("bos_token_id"),
            ends: ids("eos_token_id"),
            padding: first("pad_token_id"),
            chat_templates,
        })
    }
}

/// What a GGUF file says in the words of a folder.
pub(crate) struct Described {
    /// Text of config.json.
    pub(crate) config: String,
    /// Of its special tokens.
    pub(crate) told: Told,
    /// Small files beside config.json and tokenizer.json: name and text.
    pub(crate) files: Vec<(String, String)>,
}

impl Described {
    /// `config` as the metadata say it, and `vocabulary`.
    pub(crate) fn new(config: String, vocabulary: Option<&Vocabulary>) -> Described {
        let Some(v) = vocabulary else {
            return Described { config, told: Told::default(), files: vec![] };
        };
        let ends = v.ends();
        let told =
            Told { bos: v.bos, ends: ends.clone(), padding: v.padding, chat_templates: v.chat_templates.clone() };
        let mut fields: Map<String, Value> = serde_json::from_str(&config).unwrap_or_default();
        let mut generation = Map::new();
        let eos = match ends.as_slice() {
            [] => Value::Null,
            [one] => json!(one),
            all => json!(all),
        };
        for (name, value) in [("bos_token_id", json!(v.bos)), ("eos_token_id", eos), ("pad_token_id", json!(v.padding))]
        {
            if !value.is_null() {
                generation.insert(name.into(), value.clone());
                fields.insert(name.into(), value);
            }
        }
        let text =
            |id: Option<u32>| id.and_then(|id| v.tokens.get(id as usize)).map_or(Value::Null, |text| json!(text));
        let template = match v.chat_templates.as_slice() {
            [] => Value::Null,
            [(name, text)] if name == "default" => json!(text),
            all => all.iter().map(|(name, text)| json!({ "name": name, "template": text })).collect(),
        };
        let tokenizer = json!({
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": text(v.bos), "eos_token": text(v.eos),
            "pad_token": text(v.padding), "unk_token": text(v.unknown), "chat_template": template,
        });
        let file = |name: &str, value: Value| (name.to_string(), format!("{value:#}\n"));
        let files = vec![
            file("generation_config.json", Value::Object(generation)),
            file("tokenizer_config.json", without_nulls(tokenizer)),
        ];
        Described { config: Value::Object(fields).to_string(), told, files }
    }
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(map.into_iter().filter(|(_, value)| !value.is_null()).collect()),
        other => other,
    }
}
