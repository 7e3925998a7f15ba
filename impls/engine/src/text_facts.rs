//! What the files beside the weights say about text: which tokens begin and end it, how its makers generate, how a chat is written.
//!
//! A folder, a repository of the hub, a GGUF file and an embedded checkpoint all come to the same facts. Tokens that end a text are
//! all that any of the files names; nothing is guessed from how a token is spelled.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use model::TokenId;
use model::checkpoint::gguf::Vocabulary;
use serde_json::{Map, Value};

use crate::generation::Reads;
use crate::tokenizer::{Beside, object};
use crate::{EngineError, GenerationConfig, Tokenizer};

/// Facts about the text of one checkpoint.
#[derive(Debug, Clone, Default)]
pub struct TextFacts {
    /// The token that begins a sequence.
    pub bos: Option<TokenId>,
    /// Tokens that end a text.
    pub ends: Vec<TokenId>,
    /// Texts of the special tokens by their names (`bos_token`), for chat templates.
    pub names: BTreeMap<String, String>,
    /// Chat templates: name (`default` mostly) and text.
    pub chat_templates: Vec<(String, String)>,
    /// What says how to generate: generation_config.json, else config.json; its path and its text.
    generation: Option<(PathBuf, String)>,
    vocab: usize,
}

impl TextFacts {
    /// Of a Hugging Face folder whose config.json is `config`.
    pub(crate) fn of_folder(
        folder: &Path,
        config: &str,
        beside: &Beside,
        tokenizer: Option<&Tokenizer>,
        vocab: usize,
    ) -> Result<TextFacts, EngineError> {
        let file = folder.join("generation_config.json");
        let generation = match std::fs::read_to_string(&file) {
            Ok(text) => Some((file, text)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(EngineError::Io { file, source }),
        };
        let mut facts = TextFacts::of_texts((folder.join("config.json"), config), generation, vocab)?;
        let id_of = |field: &str| tokenizer?.id_of(&beside.named(field)?);
        facts.bos = facts.bos.or_else(|| id_of("bos_token"));
        if facts.ends.is_empty() {
            facts.ends.extend(id_of("eos_token"));
        }
        facts.names = beside.names();
        facts.chat_templates = chat_templates(folder, beside)?;
        Ok(facts.named_by(tokenizer))
    }

    /// Of texts: config.json with its path, and generation_config.json with its own where there is one.
    pub(crate) fn of_texts(
        config: (PathBuf, &str),
        generation: Option<(PathBuf, String)>,
        vocab: usize,
    ) -> Result<TextFacts, EngineError> {
        let (file, text) = config;
        // what is no config.json was refused before
        let fields: Map<String, Value> = serde_json::from_str(text).unwrap_or_default();
        let whole = Some(&fields);
        let inner = fields.get("text_config").and_then(Value::as_object);
        let from_config = |field: &str| -> Vec<TokenId> {
            let values = [whole, inner].into_iter().flatten().filter_map(|map| map.get(field));
            let each = values.flat_map(|value| value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice));
            // an id outside the vocabulary, as some files have it for "none", cannot come
            let known = each.filter_map(Value::as_u64).filter(|id| *id < vocab as u64);
            known.map(|id| TokenId(id as u32)).collect()
        };
        let said = match &generation {
            Some((file, text)) => GenerationConfig::ids(file, text, vocab)?,
            None => GenerationConfig::default(),
        };
        let mut ends = said.end;
        ends.extend(from_config("eos_token_id"));
        let bos = said.bos.or_else(|| from_config("bos_token_id").first().copied());
        let generation = Some(generation.unwrap_or((file, text.into())));
        Ok(TextFacts { bos, generation, vocab, ..TextFacts::default() }.ending(ends))
    }

    /// Of a GGUF file.
    pub(crate) fn of_gguf(vocabulary: Option<&Vocabulary>, tokenizer: Option<&Tokenizer>, vocab: usize) -> TextFacts {
        let Some(v) = vocabulary else { return TextFacts { vocab, ..TextFacts::default() } };
        let bos = v.bos.map(TokenId);
        let chat_templates = v.chat_templates.clone();
        let ends = v.ends().into_iter().filter(|id| (*id as usize) < vocab).map(TokenId);
        let facts = TextFacts { bos, chat_templates, vocab, ..TextFacts::default() }.ending(ends);
        facts.named_by(tokenizer)
    }

    /// Without facts, for weights that know no text.
    pub(crate) fn none(vocab: usize) -> TextFacts {
        TextFacts { vocab, ..TextFacts::default() }
    }

    /// How its makers generate; nothing special where no file says it.
    pub fn generation(&self, reads: Reads) -> Result<GenerationConfig, EngineError> {
        match &self.generation {
            Some((file, text)) => GenerationConfig::parse(file, text, self.vocab, reads),
            None => Ok(GenerationConfig::default()),
        }
    }

    /// Only which tokens start, begin and end a text, by the same file.
    pub fn ids(&self) -> Result<GenerationConfig, EngineError> {
        match &self.generation {
            Some((file, text)) => GenerationConfig::ids(file, text, self.vocab),
            None => Ok(GenerationConfig::default()),
        }
    }

    /// In words, what the makers ask for when text is generated, where somebody else says how: it is not done then.
    pub fn unasked(&self) -> Option<String> {
        let (file, _) = self.generation.as_ref().filter(|_| self.generation_file() == "generation_config.json")?;
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned())?;
        let wishes = match self.generation(Reads::Prompt) {
            Ok(config) => config.wishes(),
            Err(_) => vec!["fields that are not written here".into()],
        };
        (!wishes.is_empty())
            .then(|| format!("{name} asks for {}; the cell's decoding is used instead", wishes.join(", ")))
    }

    /// The name of the file that [`generation`](TextFacts::generation) reads.
    pub fn generation_file(&self) -> &str {
        let name = |(file, _): &(PathBuf, String)| file.file_name().map(|name| name == "generation_config.json");
        match self.generation.as_ref().and_then(name) {
            Some(false) => "config.json",
            _ => "generation_config.json",
        }
    }

    fn ending(mut self, ends: impl IntoIterator<Item = TokenId>) -> TextFacts {
        for end in ends {
            if !self.ends.contains(&end) {
                self.ends.push(end);
            }
        }
        self
    }

    /// With the names that no file gives, by the texts of the ids that they stand for.
    fn named_by(mut self, tokenizer: Option<&Tokenizer>) -> TextFacts {
        for (name, id) in [("bos_token", self.bos), ("eos_token", self.ends.first().copied())] {
            if let Some(text) = id.and_then(|id| tokenizer?.piece(id)) {
                self.names.entry(name.into()).or_insert(text);
            }
        }
        self
    }
}

/// chat_template.jinja, else chat_template.json, else what tokenizer_config.json holds.
fn chat_templates(folder: &Path, beside: &Beside) -> Result<Vec<(String, String)>, EngineError> {
    let file = folder.join("chat_template.jinja");
    match std::fs::read_to_string(&file) {
        Ok(text) => return Ok(vec![("default".into(), text)]),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => return Err(EngineError::Io { file, source }),
    }
    let older = object(&folder.join("chat_template.json"))?.unwrap_or_default();
    let found = older.get("chat_template").or_else(|| beside.field("chat_template"));
    Ok(match found {
        Some(Value::String(text)) => vec![("default".into(), text.clone())],
        Some(Value::Array(list)) => {
            let text = |entry: &Value, field: &str| entry.get(field).and_then(Value::as_str).map(String::from);
            list.iter().filter_map(|entry| Some((text(entry, "name")?, text(entry, "template")?))).collect()
        }
        _ => vec![],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(config: &str, files: &[(&str, &str)]) -> Result<TextFacts, EngineError> {
        let place = tempfile::tempdir().expect("a temporary folder");
        files.iter().for_each(|(name, text)| std::fs::write(place.path().join(name), text).expect("writable"));
        let beside = Beside::read(place.path())?;
        let tokenizer = Tokenizer::from_bytes(
            Path::new("tokenizer.json"),
            br#"{"model": {"type": "WordLevel", "vocab": {"<s>": 0, "</s>": 1, "<end>": 2, "a": 3}, "unk_token": "a"}}"#,
            4,
        )?;
        TextFacts::of_folder(place.path(), config, &beside, Some(&tokenizer), 4)
    }

    fn ends(config: &str, files: &[(&str, &str)]) -> Vec<u32> {
        facts(config, files).expect("readable").ends.iter().map(|id| id.0).collect()
    }

    #[test]
    fn a_text_ends_at_every_end_that_a_file_names() {
        let generation = |text| [("generation_config.json", text)];
        assert_eq!(ends(r#"{"eos_token_id": 1}"#, &generation(r#"{"eos_token_id": [2, 1]}"#)), [2, 1]);
        assert_eq!(ends(r#"{"eos_token_id": [1, 3]}"#, &generation("{}")), [1, 3]);
        assert_eq!(ends(r#"{"text_config": {"eos_token_id": 2}, "eos_token_id": null}"#, &[]), [2]);
        // a name counts where no file has an id; a spelling alone never does
        let named = [("tokenizer_config.json", r#"{"eos_token": {"content": "<end>"}}"#)];
        assert_eq!((ends("{}", &named), ends(r#"{"eos_token_id": 3}"#, &named)), (vec![2], vec![3]));
        assert_eq!(ends("{}", &[]), Vec::<u32>::new());
        // what lies outside the vocabulary cannot come; in generation_config.json it is a fault
        assert_eq!(ends(r#"{"eos_token_id": -1}"#, &[]), Vec::<u32>::new());
        let error = facts("{}", &generation(r#"{"eos_token_id": 4}"#)).expect_err("outside").to_string();
        assert!(error.contains("eos_token_id"), "{error}");
    }

    #[test]
    fn names_and_templates_come_from_where_they_are() {
        let config = r#"{"bos_token": "<s>", "chat_template": [{"name": "default", "template": "x"}, {"name": "rag", "template": "y"}]}"#;
        let found = facts(r#"{"eos_token_id": 1}"#, &[("tokenizer_config.json", config)]).expect("readable");
        assert_eq!(found.bos, Some(TokenId(0)));
        let names: Vec<(&str, &str)> = found.names.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        assert_eq!(names, [("bos_token", "<s>"), ("eos_token", "</s>")]);
        assert_eq!(found.chat_templates.len(), 2);
        let files = [("tokenizer_config.json", config), ("chat_template.jinja", "own")];
        let found = facts("{}", &files).expect("readable");
        assert_eq!(found.chat_templates, [("default".to_string(), "own".to_string())]);
    }

    #[test]
    fn wishes_that_nobody_follows_are_said() {
        let said = |text| facts("{}", &[("generation_config.json", text)]).expect("readable").unasked();
        let words = said(r#"{"do_sample": true, "temperature": 0.6, "repetition_penalty": 1.1}"#).expect("wishes");
        assert!(words.contains("sampled-t0.6-k50") && words.contains("repetition_penalty 1.1"), "{words}");
        assert_eq!(said(r#"{"eos_token_id": 1}"#), None);
        assert_eq!(facts(r#"{"do_sample": true}"#, &[]).expect("readable").unasked(), None);
    }
}
