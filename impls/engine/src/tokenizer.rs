//! `tokenizer.json`, with what the files beside it add, through the `tokenizers` crate.

mod beside;
mod cuts;
mod described;
mod gguf;
mod stream;
mod vocabulary;

use std::collections::BTreeSet;
use std::path::Path;

pub(crate) use beside::{Beside, object};
pub(crate) use described::{Described, Told};
pub(crate) use gguf::unsupported;
use model::TokenId;
use serde::{Deserialize, Serialize};
pub use stream::TextStream;

use crate::EngineError;

/// Whether the tokens that begin and end a sequence are put around a text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bos {
    /// As the tokenizer's template says.
    #[default]
    Auto,
    /// A beginning in any case; an end as the template says.
    Always,
    /// Neither.
    Never,
}

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

    /// The tokenizer of a Hugging Face folder, with the tokens that the files beside tokenizer.json add;
    /// nothing where there is no tokenizer.json.
    pub(crate) fn from_folder(
        folder: &Path,
        beside: &Beside,
        vocab_size: usize,
    ) -> Result<Option<Tokenizer>, EngineError> {
        let file = folder.join("tokenizer.json");
        let bytes = match std::fs::read(&file) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(EngineError::Io { file, source }),
        };
        let Tokenizer { mut inner, .. } = Tokenizer::from_bytes(&file, &bytes, vocab_size)?;
        beside.complete(&mut inner).map_err(|problem| EngineError::Tokenizer { file, problem })?;
        Ok(Some(Tokenizer { inner, vocab_size }))
    }

    /// What the tokenizer's template puts before and after a text.
    pub fn around(&self) -> Result<(Vec<TokenId>, Vec<TokenId>), EngineError> {
        let (plain, whole) = (self.encode("a")?, self.encode_with_special("a")?);
        let at = whole.windows(plain.len().max(1)).position(|window| window == plain);
        let at = at.ok_or_else(|| EngineError::Tokenizer {
            file: "tokenizer.json".into(),
            problem: "its post-processor does more than put tokens around a text; this is not written yet".into(),
        })?;
        Ok((whole[..at].to_vec(), whole[at + plain.len()..].to_vec()))
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

    /// Text of a token as the vocabulary spells it.
    pub fn piece(&self, token: TokenId) -> Option<String> {
        self.inner.id_to_token(token.0)
    }

    /// Tokens that stand for no text of their own.
    pub fn specials(&self) -> BTreeSet<TokenId> {
        let added = self.inner.get_added_tokens_decoder();
        added.into_iter().filter(|(_, token)| token.special).map(|(id, _)| TokenId(id)).collect()
    }

    /// Text of `tokens` without those that stand for no text of their own.
    pub fn decode_plain(&self, tokens: &[TokenId]) -> String {
        let ids: Vec<u32> = tokens.iter().map(|t| t.0).collect();
        self.inner.decode(&ids, true).unwrap_or_default()
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

    /// Words, bytes and a space that stands before a word; `added` are its added tokens.
    fn pieces(added: &str) -> String {
        let mut vocab: Vec<String> =
            ["<unk>", "<s>", "</s>", "▁a", "▁b", "▁", "a", "b"].iter().map(|text| text.to_string()).collect();
        vocab.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
        let vocab: serde_json::Map<_, _> = vocab.into_iter().zip(0..).map(|(text, id)| (text, id.into())).collect();
        let vocab = serde_json::Value::Object(vocab);
        format!(
            r#"{{"version": "1.0", "added_tokens": [{added}], "normalizer": {{"type": "Sequence", "normalizers":
                [{{"type": "Prepend", "prepend": "▁"}}, {{"type": "Replace", "pattern": {{"String": " "}}, "content": "▁"}}]}},
              "decoder": {{"type": "Sequence", "decoders": [{{"type": "Replace", "pattern": {{"String": "▁"}}, "content": " "}},
                {{"type": "ByteFallback"}}, {{"type": "Fuse"}}, {{"type": "Strip", "content": " ", "start": 1, "stop": 0}}]}},
              "model": {{"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true, "vocab": {vocab},
                "merges": [["▁", "a"], ["▁", "b"]]}}}}"#
        )
    }

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let place = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(place.path().join("tokenizer.json"), pieces("")).expect("writable");
        files.iter().for_each(|(name, text)| std::fs::write(place.path().join(name), text).expect("writable"));
        place
    }

    fn opened(place: &tempfile::TempDir) -> Tokenizer {
        let beside = Beside::read(place.path()).expect("readable");
        Tokenizer::from_folder(place.path(), &beside, 300).expect("readable").expect("there is one")
    }

    #[test]
    fn tokens_that_stand_in_other_files_are_one_id() {
        let config = r#"{"added_tokens_decoder": {"264": {"content": "<|x|>", "special": true, "normalized": false}}}"#;
        let map = ("special_tokens_map.json", r#"{"additional_special_tokens": ["<|x|>"]}"#);
        for files in [
            &[("tokenizer_config.json", config)][..],
            &[map],
            &[("special_tokens_map.json", r#"{"pad_token": {"content": "<|x|>", "lstrip": false}}"#)],
            &[("added_tokens.json", r#"{"<|x|>": 264}"#), map],
        ] {
            let tokenizer = opened(&folder(files));
            let ids = tokenizer.encode("a<|x|>b").expect("text");
            assert_eq!(ids, [3, 264, 4].map(TokenId), "{files:?}");
        }
        // a token that no file calls special is looked for in the normalized text, as there
        let plain = opened(&folder(&[("added_tokens.json", r#"{"<|x|>": 264}"#)]));
        assert_eq!(plain.encode("<|x|>").expect("text"), [TokenId(264)]);
        assert!(opened(&folder(&[])).encode("a<|x|>b").expect("text").len() > 3);
        let wrong = folder(&[("tokenizer_config.json", r#"{"added_tokens_decoder": {"x": {}}}"#)]);
        let said = Beside::read(wrong.path()).expect_err("damaged").to_string();
        assert!(said.contains("tokenizer_config.json") && said.contains("added_tokens_decoder"), "{said}");
    }

    #[test]
    fn what_is_put_around_a_text_is_the_tokenizers_template() {
        let template = r#""post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}], "pair": [],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}, "</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}},"#;
        let place = folder(&[("tokenizer_config.json", r#"{"bos_token": "<s>", "add_bos_token": true}"#)]);
        assert_eq!(opened(&place).around().expect("text"), (vec![], vec![]));
        let whole = pieces("").replacen('{', &format!("{{{template}"), 1);
        std::fs::write(place.path().join("tokenizer.json"), whole).expect("writable");
        std::fs::write(place.path().join("tokenizer_config.json"), r#"{"add_bos_token": false}"#).expect("writable");
        assert_eq!(opened(&place).around().expect("text"), (vec![TokenId(1)], vec![TokenId(2)]));
    }

    /// What a stream gives out for each of `new` behind the prompt `▁a`, and at the end.
    fn streamed(new: &[u32], stops: &[&str]) -> Vec<String> {
        let tokenizer = opened(&folder(&[]));
        let stops: Vec<String> = stops.iter().map(|stop| stop.to_string()).collect();
        let mut stream = TextStream::new(&tokenizer, &[TokenId(3)], &[TokenId(2)], &stops);
        let mut parts: Vec<String> = new.iter().map(|id| stream.push(&[TokenId(*id)])).collect();
        parts.push(stream.finish());
        parts
    }

    #[test]
    fn a_stream_keeps_spaces_and_characters_whole() {
        assert_eq!(streamed(&[4, 3, 2], &[]), [" b", " a", "", ""]);
        let bytes = |text: &str| text.bytes().map(|byte| 8 + u32::from(byte)).collect::<Vec<_>>();
        assert_eq!(streamed(&bytes("é"), &[]), ["", "é", ""]);
        assert_eq!(streamed(&bytes("\u{1F600}"), &[]), ["", "", "", "\u{1F600}", ""]);
        // bytes that never become a character are shown at the end as what they are
        assert_eq!(streamed(&bytes("\u{1F600}")[..2], &[]).concat(), "\u{fffd}\u{fffd}");
        assert_eq!(streamed(&[4, 8 + 0xe6, 4], &[]).concat(), " b\u{fffd} b");
    }

    #[test]
    fn a_stop_text_is_found_across_tokens_and_never_begun() {
        assert_eq!(streamed(&[4, 3, 4, 3], &["b a b"]), [" ", "", "", "", ""]);
        assert_eq!(streamed(&[4, 3, 3], &["b a b"]), [" ", "", "b a a", ""]);
        // the one that is complete first, then the longest
        assert_eq!(streamed(&[4, 3, 4], &["b a b", " a"]).concat(), " b");
        assert_eq!(streamed(&[4, 3], &["a", " a", "b a"]).concat(), " ");
        // what may have been a beginning comes out at the end
        assert_eq!(streamed(&[4], &["b a"]), [" ", "b"]);
    }
}
