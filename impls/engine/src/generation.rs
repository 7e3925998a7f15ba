//! What a checkpoint says about generating from it, in generation_config.json or, in older ones, in config.json.
//!
//! Fields that change the output and are not honoured are refused by name unless they hold the value that changes nothing.

use std::path::Path;

use decoding::{BeamSpec, Constraints, DecodingSpec, SamplingSpec};
use model::TokenId;
use serde_json::{Map, Value, json};

use crate::EngineError;

/// How its makers generate.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerationConfig {
    /// Token that a target starts from.
    pub start: Option<TokenId>,
    /// Token that a sequence begins with.
    pub bos: Option<TokenId>,
    /// Tokens that end a text; empty where the file does not say.
    pub end: Vec<TokenId>,
    /// Beam search, where more than one beam is asked for.
    pub beams: Option<BeamSpec>,
    /// Which distribution is drawn from, where tokens are drawn.
    pub sampling: Option<SamplingSpec>,
    /// Rules for the tokens.
    pub constraints: Constraints,
    /// Tokens to generate at most.
    pub max_new_tokens: Option<usize>,
    /// Tokens of prompt and continuation together, at most.
    pub max_length: Option<usize>,
    /// Texts that end a text.
    pub stop_strings: Vec<String>,
}

/// Whose generation is described: a few fields mean something else, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// A decoder that continues its prompt.
    Prompt,
    /// An encoder-decoder that reads a source.
    Source,
}

/// The length limit that Hugging Face's library has where nothing says another.
const UNSAID_LENGTH: usize = 20;
/// Most likely tokens kept where tokens are drawn and `top_k` is not written: the library's default.
const UNSAID_TOP_K: usize = 50;

/// Fields that would change what is generated, and the value with which they do not.
fn inert() -> [(&'static str, Value); 21] {
    [
        ("num_beam_groups", json!(1)),
        ("num_return_sequences", json!(1)),
        ("diversity_penalty", json!(0.0)),
        ("encoder_repetition_penalty", json!(1.0)),
        ("encoder_no_repeat_ngram_size", json!(0)),
        ("exponential_decay_length_penalty", Value::Null),
        ("force_words_ids", Value::Null),
        ("constraints", Value::Null),
        ("sequence_bias", Value::Null),
        ("forced_decoder_ids", Value::Null),
        ("guidance_scale", json!(1.0)),
        ("renormalize_logits", json!(false)),
        ("remove_invalid_values", json!(false)),
        ("penalty_alpha", json!(0.0)),
        ("watermarking_config", Value::Null),
        ("dola_layers", Value::Null),
        ("max_time", Value::Null),
        ("token_healing", json!(false)),
        ("prefix_allowed_tokens_fn", Value::Null),
        ("begin_index", Value::Null),
        ("custom_generate", Value::Null),
    ]
}

/// The same for fields that matter where tokens are drawn.
fn inert_draws() -> [(&'static str, Value); 4] {
    [("typical_p", json!(1.0)), ("epsilon_cutoff", json!(0.0)), ("eta_cutoff", json!(0.0)), ("top_h", Value::Null)]
}

impl GenerationConfig {
    /// Only which tokens start, begin and end a text.
    pub fn ids(file: &Path, text: &str, vocab: usize) -> Result<GenerationConfig, EngineError> {
        let map = object(file, text)?;
        let fields = Fields { file, map: &map, vocab };
        Ok(GenerationConfig {
            start: fields.id("decoder_start_token_id")?,
            bos: fields.id("bos_token_id")?,
            end: fields.ids("eos_token_id")?,
            ..GenerationConfig::default()
        })
    }

    /// Reads `text`, called `file` in errors; ids must lie below `vocab`.
    pub fn parse(file: &Path, text: &str, vocab: usize, reads: Reads) -> Result<GenerationConfig, EngineError> {
        let ids = GenerationConfig::ids(file, text, vocab)?;
        let map = object(file, text)?;
        let fields = Fields { file, map: &map, vocab };
        fields.refuse(&inert())?;
        let draws = fields.flag("do_sample")?;
        let beams = fields.beams()?;
        if draws && beams.is_some() {
            return Err(
                fields.wrong("num_beams", "1 where do_sample is true: beams of drawn tokens are not written yet")
            );
        }
        if draws {
            fields.refuse(&inert_draws())?;
        }
        let penalty = fields.number("repetition_penalty", 1.0)?;
        if penalty <= 0.0 {
            return Err(fields.wrong("repetition_penalty", "a number above 0"));
        }
        let constraints = Constraints {
            never: fields.ids("suppress_tokens")?,
            words: fields.words(&ids.end)?,
            not_first: fields.ids("begin_suppress_tokens")?,
            first: fields.id("forced_bos_token_id")?,
            last: fields.ids("forced_eos_token_id")?.first().copied(),
            repetition_penalty: Some(penalty as f32).filter(|penalty| *penalty != 1.0),
            no_repeat_ngram: fields.count("no_repeat_ngram_size")?.unwrap_or(0),
            min_tokens: fields.count("min_length")?.unwrap_or(0),
            min_new_tokens: fields.count("min_new_tokens")?.unwrap_or(0),
        };
        let max_length = fields.count("max_length")?;
        Ok(GenerationConfig {
            beams,
            sampling: if draws { Some(fields.sampling()?) } else { None },
            constraints,
            max_new_tokens: fields.count("max_new_tokens")?,
            max_length: max_length.filter(|length| reads == Reads::Source || *length != UNSAID_LENGTH),
            stop_strings: fields.texts("stop_strings")?,
            ..ids
        })
    }

    /// In a few words each, what it asks for beside the plain most likely token.
    pub fn wishes(&self) -> Vec<String> {
        let c = &self.constraints;
        let number = |on: bool, name: &str, value: &dyn std::fmt::Display| on.then(|| format!("{name} {value}"));
        let named = |on: bool, name: &str| on.then(|| name.to_string());
        let penalty = c.repetition_penalty.unwrap_or(1.0);
        [
            self.sampling.as_ref().map(|spec| DecodingSpec::Sampled(spec.clone()).tag()),
            self.beams.as_ref().map(|spec| DecodingSpec::Beam(spec.clone()).tag()),
            number(penalty != 1.0, "repetition_penalty", &penalty),
            number(c.no_repeat_ngram > 0, "no_repeat_ngram_size", &c.no_repeat_ngram),
            number(c.min_tokens > 0, "min_length", &c.min_tokens),
            number(c.min_new_tokens > 0, "min_new_tokens", &c.min_new_tokens),
            named(!c.never.is_empty(), "suppress_tokens"),
            named(!c.not_first.is_empty(), "begin_suppress_tokens"),
            named(!c.words.is_empty(), "bad_words_ids"),
            named(c.first.is_some(), "forced_bos_token_id"),
            named(c.last.is_some(), "forced_eos_token_id"),
            named(!self.stop_strings.is_empty(), "stop_strings"),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// New tokens that it allows behind `n_prompt` tokens; none where it does not say.
    pub fn new_tokens(&self, n_prompt: usize) -> Option<usize> {
        self.max_new_tokens.or(self.max_length.map(|length| length.saturating_sub(n_prompt)))
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

    /// Forbidden words; a forbidden end token is none, as in Hugging Face's code.
    fn words(&self, end: &[TokenId]) -> Result<Vec<Vec<TokenId>>, EngineError> {
        const WORDS: &str = "bad_words_ids";
        let expected = || self.wrong(WORDS, "a list of lists of token ids, each of at least one");
        let Some(words) = self.get(WORDS) else { return Ok(vec![]) };
        let mut found = vec![];
        for word in words.as_array().ok_or_else(expected)? {
            let ids = word.as_array().filter(|ids| !ids.is_empty()).ok_or_else(expected)?;
            let ids = ids.iter().map(|id| self.token(WORDS, id)).collect::<Result<Vec<_>, _>>()?;
            if !matches!(ids[..], [id] if end.contains(&id)) {
                found.push(ids);
            }
        }
        Ok(found)
    }

    fn refuse(&self, inert: &[(&str, Value)]) -> Result<(), EngineError> {
        let is_inert = |(field, value): &&(&str, Value)| self.get(field).is_none_or(|found| same(found, value));
        match inert.iter().find(|field| !is_inert(field)) {
            Some((field, value)) => Err(self.wrong(field, &format!("{value}: anything else is not written yet"))),
            None => Ok(()),
        }
    }

    fn flag(&self, field: &str) -> Result<bool, EngineError> {
        self.get(field).map_or(Ok(false), |value| value.as_bool().ok_or_else(|| self.wrong(field, "true or false")))
    }

    fn number(&self, field: &str, default: f64) -> Result<f64, EngineError> {
        self.get(field).map_or(Ok(default), |value| value.as_f64().ok_or_else(|| self.wrong(field, "a number")))
    }

    /// One text or a list of them.
    fn texts(&self, field: &str) -> Result<Vec<String>, EngineError> {
        let text = |value: &Value| value.as_str().map(String::from).ok_or_else(|| self.wrong(field, "texts"));
        match self.get(field) {
            None => Ok(vec![]),
            Some(Value::Array(list)) => list.iter().map(text).collect(),
            Some(value) => Ok(vec![text(value)?]),
        }
    }

    fn sampling(&self) -> Result<SamplingSpec, EngineError> {
        let fraction = |field: &str| self.number(field, 1.0).map(|p| Some(p as f32).filter(|p| *p < 1.0));
        let top_k = self.count("top_k")?.unwrap_or(UNSAID_TOP_K);
        let spec = SamplingSpec {
            temperature: self.number("temperature", 1.0)? as f32,
            top_k: Some(top_k).filter(|k| *k > 0),
            top_p: fraction("top_p")?,
            min_p: self.get("min_p").map(|_| self.number("min_p", 0.0)).transpose()?.map(|p| p as f32),
            ..SamplingSpec::default()
        };
        spec.validate().map_err(|e| EngineError::Mismatch(format!("{}: {e}", self.file.display())))?;
        Ok(spec)
    }

    fn beams(&self) -> Result<Option<BeamSpec>, EngineError> {
        let Some(n_beams) = self.count("num_beams")?.filter(|&n| n > 1) else { return Ok(None) };
        let early_stopping = match self.get("early_stopping") {
            None => false,
            Some(Value::Bool(early)) => *early,
            Some(_) => return Err(self.wrong("early_stopping", "true or false: \"never\" is not written yet")),
        };
        let spec = BeamSpec { n_beams, length_penalty: self.number("length_penalty", 1.0)?, early_stopping };
        spec.validate()?;
        Ok(Some(spec))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<GenerationConfig, EngineError> {
        GenerationConfig::parse(Path::new("generation_config.json"), text, 100, Reads::Prompt)
    }

    #[test]
    fn fields_are_read() {
        let found = parse(
            r#"{"decoder_start_token_id": 2, "bos_token_id": 1, "eos_token_id": [0, 7], "num_beams": 4, "length_penalty": 0.6,
                "max_length": 12, "bad_words_ids": [[2], [7], [3, 4]], "suppress_tokens": [9], "forced_bos_token_id": 5,
                "forced_eos_token_id": 0, "repetition_penalty": 1.5, "do_sample": false, "min_length": null,
                "min_new_tokens": 3, "no_repeat_ngram_size": 2, "begin_suppress_tokens": [8], "temperature": 0.3,
                "stop_strings": "END"}"#,
        )
        .expect("readable");
        let id = TokenId;
        assert_eq!((found.start, found.bos, found.end.clone()), (Some(id(2)), Some(id(1)), vec![id(0), id(7)]));
        let expected = Constraints {
            never: vec![id(9)],
            words: vec![vec![id(2)], vec![id(3), id(4)]],
            not_first: vec![id(8)],
            first: Some(id(5)),
            last: Some(id(0)),
            repetition_penalty: Some(1.5),
            no_repeat_ngram: 2,
            min_tokens: 0,
            min_new_tokens: 3,
        };
        assert_eq!(found.constraints, expected);
        assert_eq!(found.beams, Some(BeamSpec { n_beams: 4, length_penalty: 0.6, early_stopping: false }));
        assert_eq!((found.new_tokens(5), found.new_tokens(20), found.sampling), (Some(7), Some(0), None));
        assert_eq!(found.stop_strings, ["END"]);
        assert_eq!(parse("{}").expect("nothing said"), GenerationConfig::default());
        assert_eq!(parse(r#"{"max_length": 20}"#).expect("the library's default").new_tokens(1), None);
    }

    #[test]
    fn what_is_drawn_from_has_the_defaults_of_the_library() {
        let sampling = |text: &str| parse(text).expect(text).sampling.expect(text);
        let said = sampling(r#"{"do_sample": true, "temperature": 0.6, "top_p": 0.9, "top_k": 0, "min_p": 0.1}"#);
        let expected = SamplingSpec { temperature: 0.6, top_k: None, top_p: Some(0.9), min_p: Some(0.1), seed: 0 };
        assert_eq!(said, expected);
        let unsaid = sampling(r#"{"do_sample": true, "top_p": 1.0, "typical_p": 1}"#);
        assert_eq!(unsaid, SamplingSpec { top_k: Some(50), ..SamplingSpec::default() });
    }

    #[test]
    fn what_would_change_the_output_is_refused_by_name() {
        for (text, field) in [
            (r#"{"do_sample": true, "typical_p": 0.9}"#, "typical_p"),
            (r#"{"do_sample": true, "num_beams": 4}"#, "num_beams"),
            (r#"{"do_sample": true, "temperature": -1}"#, "temperature"),
            (r#"{"do_sample": "yes"}"#, "do_sample"),
            (r#"{"sequence_bias": [[[1], 2.0]]}"#, "sequence_bias"),
            (r#"{"exponential_decay_length_penalty": [3, 1.1]}"#, "exponential_decay_length_penalty"),
            (r#"{"guidance_scale": 1.5}"#, "guidance_scale"),
            (r#"{"repetition_penalty": 0}"#, "repetition_penalty"),
            (r#"{"bad_words_ids": [[]]}"#, "bad_words_ids"),
            (r#"{"eos_token_id": 100}"#, "eos_token_id"),
            (r#"{"num_beams": 2, "early_stopping": "never"}"#, "early_stopping"),
            (r#"{"num_beams": "many"}"#, "num_beams"),
            (r#"{"max_length": -1}"#, "max_length"),
        ] {
            let said = parse(text).expect_err(text).to_string();
            assert!(said.contains(field) && said.contains("expected"), "{said}");
        }
        assert!(parse("[]").expect_err("a list").to_string().contains("JSON object"));
        // without draws, what shapes draws changes nothing
        assert_eq!(parse(r#"{"typical_p": 0.9, "top_k": 5}"#).expect("inert").sampling, None);
    }
}
