//! The tokenizer of a GGUF file, written as the `tokenizer.json` that it came from.
//!
//! `gpt2`: bytes as printable characters, cut by a pattern with a name, merged by rank. `llama`: SentencePiece pieces with scores;
//! a merge exists for every way to cut a piece into two, ranked by the score of the whole. What the format does not say, such as
//! Qwen2's normalisation, is taken from the tokenizers that carry the name.

use std::collections::HashMap;
use std::path::Path;

use model::checkpoint::gguf::{TokenKind, Vocabulary};
use serde_json::{Map, Value, json};

use super::Tokenizer;
use crate::EngineError;

/// GPT-2's pattern.
pub(super) const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// The patterns of cl100k and its kin: contractions of any case, a run of letters with what precedes it, digits, the rest.
fn newer(digits: &str) -> String {
    format!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
}

/// o200k and its kin: words are cut where small letters turn to capitals.
fn cased(contractions: &str, digits: &str) -> String {
    let (upper, lower) = (r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]");
    let before = r"[^\r\n\p{L}\p{N}]?";
    format!(
        r"{before}{upper}*{lower}+{contractions}|{before}{upper}+{lower}*{contractions}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
}

/// DeepSeek-V3's last pattern.
const DEEPSEEK: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;

/// How text is cut before merging.
struct Cut {
    /// Names in `tokenizer.ggml.pre`.
    names: &'static [&'static str],
    /// Patterns, each applied to what the ones before left.
    patterns: fn() -> Vec<String>,
    /// Text is brought to Unicode's form C first.
    nfc: bool,
    /// A word that is a token is not merged.
    whole_words: bool,
    /// Sequences get a beginning unless the file says otherwise.
    add_bos: bool,
}

const CUTS: &[Cut] = &[
    Cut {
        names: &["gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "exaone4", "granite-docling", "roberta-bpe"],
        patterns: || vec![GPT2.into()],
        nfc: false,
        whole_words: false,
        add_bos: false,
    },
    Cut {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral"],
        patterns: || vec![newer(r"\p{N}{1,3}")],
        nfc: false,
        whole_words: true,
        add_bos: true,
    },
    Cut { names: &["tekken"], patterns: || vec![cased("", r"\p{N}")], nfc: false, whole_words: true, add_bos: true },
    Cut {
        names: &["gpt-4o", "llama4"],
        patterns: || vec![cased("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", r"\p{N}{1,3}")],
        nfc: false,
        whole_words: false,
        add_bos: false,
    },
    Cut {
        names: &["deepseek-coder"],
        patterns: || [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}"].map(String::from).into(),
        nfc: false,
        whole_words: false,
        add_bos: false,
    },
    Cut {
        names: &["deepseek-v3"],
        patterns: || [r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK].map(String::from).into(),
        nfc: false,
        whole_words: false,
        add_bos: false,
    },
    Cut {
        names: &["dbrx", "smaug-bpe", "chatglm-bpe", "glm4"],
        patterns: || vec![newer(r"\p{N}{1,3}")],
        nfc: false,
        whole_words: false,
        add_bos: false,
    },
    Cut {
        names: &["qwen2", "deepseek-r1-qwen", "megrez"],
        patterns: || vec![newer(r"\p{N}")],
        nfc: true,
        whole_words: false,
        add_bos: false,
    },
    Cut {
        names: &["stablelm2", "hunyuan"],
        patterns: || vec![newer(r"\p{N}")],
        nfc: false,
        whole_words: false,
        add_bos: false,
    },
    Cut {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"],
        patterns: || vec![r"\p{N}".into(), GPT2.into()],
        nfc: false,
        whole_words: false,
        add_bos: false,
    },
    Cut {
        names: &["falcon"],
        patterns: || vec![r"[\p{P}\$\+<=>\^~\|`]+".into(), GPT2.into(), "[0-9][0-9][0-9]".into()],
        nfc: false,
        whole_words: false,
        add_bos: false,
    },
    Cut {
        names: &["default"],
        patterns: || vec![r"[\p{P}\$\+<=>\^~\|]+".into(), GPT2.into(), r"\p{N}+".into(), "[0-9][0-9][0-9]".into()],
        nfc: false,
        whole_words: false,
        add_bos: false,
    },
];

/// The first name for cutting text by `patterns`.
pub(super) fn name_of(patterns: &[String], nfc: bool, whole_words: bool) -> Option<&'static str> {
    let same = |cut: &&Cut| (cut.nfc, cut.whole_words) == (nfc, whole_words) && (cut.patterns)() == patterns;
    CUTS.iter().find(same).map(|cut| cut.names[0])
}

/// Why text cannot be cut as `vocabulary` asks, where it can not: the model still runs on token ids.
pub fn unsupported(vocabulary: &Vocabulary) -> Option<String> {
    let (model, pre) = (vocabulary.model.as_str(), vocabulary.pre.as_deref().unwrap_or("default"));
    let known = || CUTS.iter().flat_map(|cut| cut.names).copied().collect::<Vec<_>>().join(", ");
    match model {
        _ if vocabulary.json.is_some() => None,
        "llama" => None,
        "gpt2" if CUTS.iter().any(|cut| cut.names.contains(&pre)) => None,
        "gpt2" => Some(format!("key `tokenizer.ggml.pre`: `{pre}` is not supported (supported: {})", known())),
        _ => Some(format!("key `tokenizer.ggml.model`: `{model}` is not supported (supported: gpt2, llama)")),
    }
}

impl Tokenizer {
    /// The tokenizer of the GGUF file `file`; `vocab_size` is the model's.
    pub fn from_gguf(file: &Path, vocabulary: &Vocabulary, vocab_size: usize) -> Result<Tokenizer, EngineError> {
        let wrong = |problem: String| EngineError::Tokenizer { file: file.into(), problem };
        if let Some(json) = &vocabulary.json {
            return Tokenizer::from_bytes(file, json.as_bytes(), vocab_size);
        }
        let json =
            if vocabulary.model == "gpt2" { byte_level(vocabulary) } else { pieces(vocabulary) }.map_err(wrong)?;
        Tokenizer::from_bytes(file, json.to_string().as_bytes(), vocab_size)
    }
}

/// Every token by its text.
fn vocab(v: &Vocabulary) -> Result<Map<String, Value>, String> {
    let mut ids = Map::new();
    for (id, token) in v.tokens.iter().enumerate() {
        // places without a token may be empty
        let name = if token.is_empty() { format!("[EMPTY_{id}]") } else { token.clone() };
        if let Some(first) = ids.insert(name, json!(id)) {
            return Err(format!("key `tokenizer.ggml.tokens`: `{token}` has the ids {first} and {id}"));
        }
    }
    match ids.is_empty() {
        true => Err("key `tokenizer.ggml.tokens`: expected texts of tokens, found nothing".into()),
        false => Ok(ids),
    }
}

/// Tokens that are found in the text before anything else.
fn added(v: &Vocabulary) -> Vec<Value> {
    let kinds = [TokenKind::Control, TokenKind::UserDefined, TokenKind::Unknown];
    let ids = (0..v.tokens.len()).filter(|&id| kinds.contains(&v.kind(id)) && !v.tokens[id].is_empty());
    ids.map(|id| {
        json!({
            "id": id, "content": v.tokens[id], "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": v.kind(id) != TokenKind::UserDefined,
        })
    })
    .collect()
}

/// What is put around a sequence.
fn template(v: &Vocabulary, add_bos: bool, add_eos: bool) -> Value {
    let ends = [v.bos.filter(|_| add_bos), v.eos.filter(|_| add_eos)];
    let [bos, eos] = ends.map(|id| id.map(|id| (id, &v.tokens[id as usize])));
    let around = |sequence: &str| -> Vec<Value> {
        let special = |end: Option<(u32, &String)>| {
            end.map(|(_, token)| json!({ "SpecialToken": { "id": token, "type_id": 0 } }))
        };
        let middle = json!({ "Sequence": { "id": sequence, "type_id": 0 } });
        [special(bos), Some(middle), special(eos)].into_iter().flatten().collect()
    };
    let specials: Map<String, Value> = [bos, eos]
        .into_iter()
        .flatten()
        .map(|(id, token)| (token.clone(), json!({ "id": token, "ids": [id], "tokens": [token] })))
        .collect();
    let pair: Vec<Value> = [around("A"), around("B")].concat();
    json!({ "type": "TemplateProcessing", "single": around("A"), "pair": pair, "special_tokens": specials })
}

/// A tokenizer.json of bytes and merges.
fn byte_level(v: &Vocabulary) -> Result<Value, String> {
    let name = v.pre.as_deref().unwrap_or("default");
    let cut = CUTS.iter().find(|cut| cut.names.contains(&name));
    let cut = cut.ok_or_else(|| unsupported(v).unwrap_or_default())?;
    let vocab = vocab(v)?;
    let merges = v.merges.iter().enumerate().map(|(i, merge)| {
        let parts =
            merge.char_indices().skip(1).find(|(_, c)| *c == ' ').map(|(at, _)| (&merge[..at], &merge[at + 1..]));
        match parts {
            Some((left, right)) if [left, right, &format!("{left}{right}")].iter().all(|t| vocab.contains_key(*t)) => {
                Ok(json!([left, right]))
            }
            _ => Err(format!("key `tokenizer.ggml.merges`: entry {i} (`{merge}`) is not two tokens that make a third")),
        }
    });
    let merges = merges.collect::<Result<Vec<_>, _>>()?;
    let level = |regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex });
    let split = |pattern: String| json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false });
    let mut steps: Vec<Value> = (cut.patterns)().into_iter().map(split).collect();
    steps.push(level(false));
    let normalizer = if cut.nfc { json!({ "type": "NFC" }) } else { Value::Null };
    let template = template(v, v.add_bos.unwrap_or(cut.add_bos), v.add_eos.unwrap_or(false));
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added(v), "normalizer": normalizer,
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": steps },
        "post_processor": { "type": "Sequence", "processors": [level(false), template] },
        "decoder": level(true),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": cut.whole_words, "vocab": vocab, "merges": merges,
        },
    }))
}

/// Every way to make a token of two others: the best score first, then the longest left part.
fn merges(v: &Vocabulary) -> Vec<Value> {
    let ids: HashMap<&str, usize> = v.tokens.iter().enumerate().map(|(id, token)| (token.as_str(), id)).collect();
    let mut ranked = vec![];
    for (id, token) in v.tokens.iter().enumerate() {
        if matches!(v.kind(id), TokenKind::Byte | TokenKind::Control | TokenKind::Unknown | TokenKind::Unused) {
            continue;
        }
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(_), Some(_)) = (ids.get(left), ids.get(right)) {
                ranked.push((v.scores.get(id).copied().unwrap_or(0.0), left, right));
            }
        }
    }
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.len().cmp(&a.1.len())).then(b.2.len().cmp(&a.2.len())));
    ranked.into_iter().map(|(_, left, right)| json!([left, right])).collect()
}

/// A tokenizer.json of pieces and scores.
fn pieces(v: &Vocabulary) -> Result<Value, String> {
    let vocab = vocab(v)?;
    let space = json!({ "type": "Replace", "pattern": { "String": " " }, "content": "▁" });
    let prefix = v.add_space_prefix.unwrap_or(true);
    let normalizers = match prefix {
        true => vec![json!({ "type": "Prepend", "prepend": "▁" }), space],
        false => vec![space],
    };
    let mut decoders = vec![
        json!({ "type": "Replace", "pattern": { "String": "▁" }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if prefix {
        decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    let bytes = (0..=255).all(|byte| vocab.contains_key(&format!("<0x{byte:02X}>")));
    let unknown = v.unknown.or((v.kind(0) == TokenKind::Unknown).then_some(0)).map(|id| &v.tokens[id as usize]);
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added(v),
        "normalizer": { "type": "Sequence", "normalizers": normalizers },
        "pre_tokenizer": null,
        "post_processor": template(v, v.add_bos.unwrap_or(true), v.add_eos.unwrap_or(false)),
        "decoder": { "type": "Sequence", "decoders": decoders },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": true, "byte_fallback": bytes, "ignore_merges": false, "vocab": vocab, "merges": merges(v),
        },
    }))
}
