//! What a checkpoint says about generating from it, in generation_config.json or, in older ones, in config.json.
//!
//! Fields that change the output and are not honoured are refused by name unless they hold the value that changes nothing.

use std::path::Path;

use decoding::{BeamSpec, Constraints};
use model::TokenId;
use serde_json::{Map, Value, json};

use crate::EngineError;

/// How its makers generate.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerationConfig {
    /// Token that a target starts from.
    pub start: Option<TokenId>,
    /// Tokens that end a text; empty where the file does not say.
    pub end: Vec<TokenId>,
    /// Beam search, where more than one beam is asked for.
    pub beams: Option<BeamSpec>,
    /// Rules for the tokens.
    pub constraints: Constraints,
    /// Tokens to generate at most, beside the start.
    pub max_new_tokens: Option<usize>,
}

/// Fields that would change what is generated, and the value with which they do not.
fn inert() -> [(&'static str, Value); 22] {
    [
        ("do_sample", json!(false)),
        ("num_beam_groups", json!(1)),
        ("num_return_sequences", json!(1)),
        ("diversity_penalty", json!(0.0)),
        ("repetition_penalty", json!(1.0)),
        ("encoder_repetition_penalty", json!(1.0)),
        ("no_repeat_ngram_size", json!(0)),
        ("encoder_no_repeat_ngram_size", json!(0)),
        ("min_length", json!(0)),
        ("min_new_tokens", json!(0)),
        ("exponential_decay_length_penalty", Value::Null),
        ("force_words_ids", Value::Null),
        ("constraints", Value::Null),
        ("sequence_bias", Value::Null),
        ("begin_suppress_tokens", json!([])),
        ("forced_decoder_ids", Value::Null),
        ("guidance_scale", json!(1.0)),
        ("renormalize_logits", json!(false)),
        ("remove_invalid_values", json!(false)),
        ("penalty_alpha", Value::Null),
        ("watermarking_config", Value::Null),
        ("stop_strings", Value::Null),
    ]
}

impl GenerationConfig {
    /// End tokens by generation_config.json in `folder`; none where there is no such file. Its other fields are not looked at.
    pub fn end_tokens(folder: &Path, vocab: usize) -> Result<Vec<TokenId>, EngineError> {
        let file = folder.join("generation_config.json");
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
            Err(source) => return Err(EngineError::Io { file, source }),
        };
        Fields { file: &file, map: &object(&file, &text)?, vocab }.ids("eos_token_id")
    }

    /// Reads `text`, called `file` in errors; ids must lie below `vocab`.
    pub fn parse(file: &Path, text: &str, vocab: usize) -> Result<GenerationConfig, EngineError> {
        let map = object(file, text)?;
        let fields = Fields { file, map: &map, vocab };
        let is_inert = |(field, value): &(&str, Value)| fields.get(field).is_none_or(|found| same(found, value));
        if let Some((field, value)) = inert().into_iter().find(|field| !is_inert(field)) {
            return Err(fields.wrong(field, &format!("{value}: anything else is not written yet; remove the field")));
        }
        let end = fields.ids("eos_token_id")?;
        let constraints = Constraints {
            never: fields.never(&end)?,
            first: fields.id("forced_bos_token_id")?,
            last: fields.ids("forced_eos_token_id")?.first().copied(),
        };
        let new = fields.count("max_new_tokens")?;
        // a target starts from one token, which max_length counts
        let whole = fields.count("max_length")?.map(|length| length.saturating_sub(1));
        Ok(GenerationConfig {
            start: fields.id("decoder_start_token_id")?,
            beams: fields.beams()?,
            end,
            constraints,
            max_new_tokens: new.or(whole),
        })
    }
}

fn object(file: &Path, text: &str) -> Result<Map<String, Value>, EngineError> {
    serde_json::from_str(text)
        .map_err(|e| EngineError::Mismatch(format!("{}: {e}; expected a JSON object", file.display())))
}

fn same(found: &Value, value: &Value) -> bool {
    match (found.as_f64(), value.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => found == value,
    }
}

struct Fields<'a> {
    file: &'a Path,
    map: &'a Map<String, Value>,
    vocab: usize,
}

impl Fields<'_> {
    fn get(&self, field: &str) -> Option<&Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    fn wrong(&self, field: &str, expected: &str) -> EngineError {
        let found = self.map.get(field).unwrap_or(&Value::Null);
        EngineError::Mismatch(format!("{}: `{field}` is {found}; expected {expected}", self.file.display()))
    }

    fn count(&self, field: &str) -> Result<Option<usize>, EngineError> {
        let count = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
        self.get(field).map(|value| count(value).ok_or_else(|| self.wrong(field, "a number of tokens"))).transpose()
    }

    fn token(&self, field: &str, value: &Value) -> Result<TokenId, EngineError> {
        let id = value.as_u64().filter(|&id| id < self.vocab as u64).and_then(|id| u32::try_from(id).ok());
        id.map(TokenId).ok_or_else(|| self.wrong(field, &format!("token ids below {}", self.vocab)))
    }

    fn id(&self, field: &str) -> Result<Option<TokenId>, EngineError> {
        self.get(field).map(|value| self.token(field, value)).transpose()
    }

    /// One id or a list of them.
    fn ids(&self, field: &str) -> Result<Vec<TokenId>, EngineError> {
        match self.get(field) {
            None => Ok(vec![]),
            Some(Value::Array(ids)) => ids.iter().map(|id| self.token(field, id)).collect(),
            Some(id) => Ok(vec![self.token(field, id)?]),
        }
    }

    /// Suppressed tokens and forbidden words of one token; a forbidden end token is none, as in Hugging Face's code.
    fn never(&self, end: &[TokenId]) -> Result<Vec<TokenId>, EngineError> {
        const WORDS: &str = "bad_words_ids";
        let mut never = self.ids("suppress_tokens")?;
        for word in self.get(WORDS).map_or(Ok(&[][..]), |words| {
            words.as_array().map(Vec::as_slice).ok_or_else(|| self.wrong(WORDS, "a list of lists of token ids"))
        })? {
            match word.as_array().map(Vec::as_slice) {
                Some([id]) => never.extend(Some(self.token(WORDS, id)?).filter(|id| !end.contains(id))),
                _ => return Err(self.wrong(WORDS, "words of one token: longer ones are not written yet")),
            }
        }
        Ok(never)
    }

    fn beams(&self) -> Result<Option<BeamSpec>, EngineError> {
        let Some(n_beams) = self.count("num_beams")?.filter(|&n| n > 1) else { return Ok(None) };
        let number = |field: &str, default: f64| match self.get(field) {
            None => Ok(default),
            Some(value) => value.as_f64().ok_or_else(|| self.wrong(field, "a number")),
        };
        let early_stopping = match self.get("early_stopping") {
            None => false,
            Some(Value::Bool(early)) => *early,
            Some(_) => return Err(self.wrong("early_stopping", "true or false: \"never\" is not written yet")),
        };
        let spec = BeamSpec { n_beams, length_penalty: number("length_penalty", 1.0)?, early_stopping };
        spec.validate()?;
        Ok(Some(spec))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<GenerationConfig, EngineError> {
        GenerationConfig::parse(Path::new("generation_config.json"), text, 100)
    }

    #[test]
    fn fields_are_read() {
        let found = parse(
            r#"{"decoder_start_token_id": 2, "eos_token_id": [0, 7], "num_beams": 4, "length_penalty": 0.6, "max_length": 12,
                "bad_words_ids": [[2], [7]], "suppress_tokens": [9], "forced_bos_token_id": 5, "forced_eos_token_id": 0,
                "repetition_penalty": 1, "do_sample": false, "min_length": null, "temperature": 0.3}"#,
        )
        .expect("readable");
        let id = TokenId;
        assert_eq!((found.start, found.end), (Some(id(2)), vec![id(0), id(7)]));
        let never = vec![id(9), id(2)];
        assert_eq!(found.constraints, Constraints { never, first: Some(id(5)), last: Some(id(0)) });
        assert_eq!(found.beams, Some(BeamSpec { n_beams: 4, length_penalty: 0.6, early_stopping: false }));
        assert_eq!(found.max_new_tokens, Some(11));
        assert_eq!(parse("{}").expect("nothing said"), GenerationConfig::default());
    }

    #[test]
    fn what_would_change_the_output_is_refused_by_name() {
        for (text, field) in [
            (r#"{"do_sample": true}"#, "do_sample"),
            (r#"{"no_repeat_ngram_size": 3}"#, "no_repeat_ngram_size"),
            (r#"{"bad_words_ids": [[1, 2]]}"#, "bad_words_ids"),
            (r#"{"eos_token_id": 100}"#, "eos_token_id"),
            (r#"{"num_beams": 2, "early_stopping": "never"}"#, "early_stopping"),
            (r#"{"num_beams": "many"}"#, "num_beams"),
            (r#"{"max_length": -1}"#, "max_length"),
        ] {
            let said = parse(text).expect_err(text).to_string();
            assert!(said.contains(field) && said.contains("expected"), "{said}");
        }
        assert!(parse("[]").expect_err("a list").to_string().contains("JSON object"));
    }
}
