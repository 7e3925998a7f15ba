//! A tokenizer as the metadata of a GGUF file say it.

use std::collections::HashMap;
use std::path::Path;

use model::checkpoint::gguf::{TokenKind, Vocabulary};
use serde_json::Value;

use super::{Tokenizer, Told, cuts};
use crate::EngineError;

/// Text that shows where two tokenizers part.
const PROBE: &str = "Hello, world! It's 12345 o'clock.\n\n  naïve café\t東京 😀  \n x=1;  ";

impl Tokenizer {
    /// What a GGUF file says of this tokenizer, for a model of `vocab_size` tokens. Where the format's words give other ids, the
    /// whole tokenizer.json beside them; where it has no words (an unknown pre-tokenizer, another algorithm), only that, and
    /// llama.cpp runs the model on ids alone.
    pub(crate) fn to_gguf(&self, vocab_size: usize, told: &Told) -> Result<Vocabulary, EngineError> {
        let wrong = |problem: String| EngineError::Tokenizer { file: "tokenizer.json".into(), problem };
        let text = self.to_json()?;
        let json: Value = serde_json::from_str(&text).map_err(|e| wrong(format!("cannot be written: {e}")))?;
        let Some(vocabulary) = self.described(&json, vocab_size, told)? else {
            return Ok(Vocabulary { json: Some(text), ..told_alone(told) });
        };
        let again = Tokenizer::from_gguf(Path::new("tokenizer.json"), &vocabulary, vocab_size)?;
        let probe = probe(&json);
        let same = again.encode_with_special(&probe)? == self.encode_with_special(&probe)?;
        Ok(Vocabulary { json: (!same).then_some(text), ..vocabulary })
    }

    /// In the format's own words, if it has them.
    fn described(&self, json: &Value, vocab_size: usize, told: &Told) -> Result<Option<Vocabulary>, EngineError> {
        let model = &json["model"];
        let bytes = model["byte_fallback"] == Value::Bool(true);
        let whole_words = model["ignore_merges"] == Value::Bool(true);
        let pre = cuts(json).and_then(|(patterns, nfc)| cuts::name_of(&patterns, nfc, whole_words));
        if model["type"] != "BPE" || (!bytes && pre.is_none()) {
            return Ok(None);
        }
        let merges: Vec<String> = match model["merges"].as_array() {
            Some(list) => list.iter().filter_map(merge).collect(),
            None => vec![],
        };
        let (tokens, mut kinds) = self.entries(json, vocab_size, bytes);
        let unknown = model["unk_token"].as_str().and_then(|token| self.id_of(token)).map(|id| id.0);
        if let Some(id) = unknown {
            kinds[id as usize] = TokenKind::Unknown;
        }
        let around = self.encode_with_special("a")?;
        let plain = self.encode("a")?;
        let at = around.windows(plain.len().max(1)).position(|window| window == plain).unwrap_or(0);
        let before = around[..at].first().map(|id| id.0);
        let after = around.get(at + plain.len()).map(|id| id.0);
        let scores = if bytes { scores(&tokens, &merges) } else { vec![] };
        Ok(Some(Vocabulary {
            model: if bytes { "llama" } else { "gpt2" }.into(),
            pre: if bytes { None } else { pre.map(String::from) },
            merges: if bytes { vec![] } else { merges },
            bos: told.bos.or(before),
            eos: told.ends.first().copied().or(after),
            unknown,
            add_bos: Some(before.is_some()),
            add_eos: Some(after.is_some()),
            add_space_prefix: bytes.then(|| leading_space(json)),
            tokens,
            kinds,
            scores,
            ..told_alone(told)
        }))
    }

    /// Text and kind of every id of the model; ids without a token get a name of their own.
    fn entries(&self, json: &Value, vocab_size: usize, bytes: bool) -> (Vec<String>, Vec<TokenKind>) {
        let mut tokens: Vec<String> = (0..vocab_size).map(|id| format!("[PAD{id}]")).collect();
        let mut kinds = vec![TokenKind::Unused; vocab_size];
        let all = self.inner.get_vocab(true);
        for (token, id) in all {
            if let Some(place) = tokens.get_mut(id as usize) {
                let byte = bytes && token.len() == 6 && token.starts_with("<0x") && token.ends_with('>');
                kinds[id as usize] = if byte { TokenKind::Byte } else { TokenKind::Normal };
                *place = token;
            }
        }
        for added in json["added_tokens"].as_array().into_iter().flatten() {
            let id = added["id"].as_u64().unwrap_or(u64::MAX) as usize;
            if let Some(kind) = kinds.get_mut(id) {
                let special = added["special"] == Value::Bool(true);
                *kind = if special { TokenKind::Control } else { TokenKind::UserDefined };
            }
        }
        (tokens, kinds)
    }
}

/// Text that shows where two tokenizers part: [`PROBE`], and every kind of place that a special token may stand in.
fn probe(json: &Value) -> String {
    let added = json["added_tokens"].as_array().into_iter().flatten().take(8);
    let texts =
        added.filter_map(|token| token["content"].as_str()).map(|t| format!("before{t}after {t} then{t}{t} \n"));
    PROBE.chars().chain(texts.collect::<String>().chars()).collect()
}

/// A vocabulary of nothing but what the source says of its special tokens.
fn told_alone(told: &Told) -> Vocabulary {
    let end = |at: usize| told.ends.get(at).copied();
    Vocabulary {
        model: "none".into(),
        pre: None,
        tokens: vec![],
        kinds: vec![],
        scores: vec![],
        merges: vec![],
        bos: told.bos,
        eos: end(0),
        eot: end(1),
        eom: end(2),
        more_ends: told.ends.get(3..).unwrap_or_default().to_vec(),
        padding: told.padding,
        unknown: None,
        add_bos: None,
        add_eos: None,
        add_space_prefix: None,
        chat_templates: told.chat_templates.clone(),
        json: None,
    }
}

/// A merge as `left right`.
fn merge(merge: &Value) -> Option<String> {
    match merge {
        Value::String(text) => Some(text.clone()),
        Value::Array(pair) => Some(format!("{} {}", pair.first()?.as_str()?, pair.get(1)?.as_str()?)),
        _ => None,
    }
}

/// Scores that make the best merge come first; what no merge makes comes last.
fn scores(tokens: &[String], merges: &[String]) -> Vec<f32> {
    let mut rank: HashMap<String, usize> = HashMap::new();
    for (i, merge) in merges.iter().enumerate() {
        rank.entry(merge.replacen(' ', "", 1)).or_insert(i);
    }
    let score = |(id, token): (usize, &String)| -(*rank.get(token).unwrap_or(&(merges.len() + id)) as f32);
    tokens.iter().enumerate().map(score).collect()
}

/// The steps of a part of a tokenizer.json that may be one or a sequence.
fn steps<'a>(part: &'a Value, list: &str) -> Vec<&'a Value> {
    match part[list].as_array() {
        Some(steps) => steps.iter().collect(),
        None if part.is_null() => vec![],
        None => vec![part],
    }
}

/// The patterns that cut text, and whether it is brought to form C; nothing where the steps mean something else.
fn cuts(json: &Value) -> Option<(Vec<String>, bool)> {
    let nfc = match steps(&json["normalizer"], "normalizers").as_slice() {
        [] => false,
        [one] if one["type"] == "NFC" => true,
        _ => return None,
    };
    let mut patterns = vec![];
    for step in steps(&json["pre_tokenizer"], "pretokenizers") {
        match step["type"].as_str()? {
            // what such patterns find is all there is, so that keeping it is to cut at it
            "Split" if (step["behavior"] == "Isolated") != (step["invert"] == Value::Bool(true)) => {
                if step["behavior"] != "Isolated" && step["behavior"] != "Removed" {
                    return None;
                }
                patterns.push(step["pattern"]["Regex"].as_str()?.to_string());
            }
            "Digits" if step["individual_digits"] == Value::Bool(true) => patterns.push(r"\p{N}".into()),
            "Digits" => patterns.push(r"\p{N}+".into()),
            "Punctuation" if step["behavior"] == "Contiguous" => patterns.push(cuts::PUNCTUATION.into()),
            "ByteLevel" if step["add_prefix_space"] == Value::Bool(false) => {
                if step["use_regex"] == Value::Bool(true) {
                    patterns.push(cuts::GPT2.into());
                }
            }
            _ => return None,
        }
    }
    Some((patterns, nfc))
}

/// Whether text gets a leading space.
fn leading_space(json: &Value) -> bool {
    let prepended = steps(&json["normalizer"], "normalizers").iter().any(|step| step["type"] == "Prepend");
    let metaspace = steps(&json["pre_tokenizer"], "pretokenizers")
        .iter()
        .any(|step| step["type"] == "Metaspace" && step["prepend_scheme"] != "never");
    prepended || metaspace
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A vocabulary of single bytes, written as printable characters.
    fn bytes(pre: &str) -> Vocabulary {
        let printable = |b: &u32| matches!(b, 33..=126 | 161..=172 | 174..=255);
        let mut tokens: Vec<String> = (0..256).filter(printable).filter_map(char::from_u32).map(String::from).collect();
        let others = (0..256).filter(|b| !printable(b)).count() as u32;
        tokens.extend((256..256 + others).filter_map(char::from_u32).map(String::from));
        tokens.push("<end>".into());
        let kinds =
            (0..tokens.len()).map(|id| if id == 256 { TokenKind::Control } else { TokenKind::Normal }).collect();
        let told = Told { bos: Some(256), ends: vec![256, 3, 4, 5], chat_templates: vec![], padding: None };
        let add_bos = Some(false);
        Vocabulary { model: "gpt2".into(), pre: Some(pre.into()), tokens, kinds, add_bos, ..told_alone(&told) }
    }

    fn read(v: &Vocabulary) -> Tokenizer {
        Tokenizer::from_gguf(Path::new("m.gguf"), v, v.tokens.len()).unwrap_or_else(|e| panic!("{:?}: {e}", v.pre))
    }

    #[test]
    fn every_cut_is_written_back_for_llama_cpp() {
        for name in cuts::names() {
            let cut = cuts::called(name).expect(name);
            if cut.pieces {
                continue;
            }
            let v = bytes(name);
            let told = Told { bos: v.bos, ends: v.ends(), ..Told::default() };
            let written = read(&v).to_gguf(v.tokens.len(), &told).unwrap_or_else(|e| panic!("{name}: {e}"));
            let again = cuts::called(written.pre.as_deref().unwrap_or_default());
            let same = again.is_some_and(|again| (again.patterns)() == (cut.patterns)());
            assert!(same && written.json.is_none(), "{name}: written as {:?}", written.pre);
            assert_eq!((written.ends(), written.bos, written.add_bos), (v.ends(), v.bos, Some(false)), "{name}");
        }
    }

    #[test]
    fn published_spellings_are_known() {
        let known = |json: &str| {
            let json: Value = serde_json::from_str(json).expect("JSON");
            let (patterns, nfc) = cuts(&json).expect("steps");
            cuts::name_of(&patterns, nfc, false)
        };
        // DeepSeek-V3 writes line breaks as they are
        let split = |pattern: &str, behavior: &str, invert: bool| serde_json::json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": behavior, "invert": invert });
        let level = serde_json::json!({ "type": "ByteLevel", "add_prefix_space": false, "use_regex": false });
        let of = |steps: Vec<Value>, normalizer: Value| {
            serde_json::json!({ "normalizer": normalizer, "pre_tokenizer": { "type": "Sequence", "pretokenizers": steps } }).to_string()
        };
        let last = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+";
        let steps = [r"\p{N}{1,3}", "[一-龥\u{3040}-ゟ゠-ヿ]+", last].map(|pattern| split(pattern, "Isolated", false));
        let empty = serde_json::json!({ "type": "Sequence", "normalizers": [] });
        assert_eq!(known(&of([&steps[..], std::slice::from_ref(&level)].concat(), empty)), Some("deepseek-v3"));
        // GPT-4o's removes what is between the words, of which there is nothing
        let words = (cuts::called("gpt-4o").expect("known").patterns)().swap_remove(0);
        let steps = vec![split(&words, "Removed", true), level.clone()];
        assert_eq!(known(&of(steps, Value::Null)), Some("gpt-4o"));
        let falcon = vec![
            serde_json::json!({ "type": "Punctuation", "behavior": "Contiguous" }),
            serde_json::json!({ "type": "ByteLevel", "add_prefix_space": false, "use_regex": true }),
            split("[0-9][0-9][0-9]", "Isolated", false),
        ];
        assert_eq!(known(&of(falcon, Value::Null)), Some("falcon"));
    }
}
