//! The tokenizer of a GGUF file, written as the `tokenizer.json` that it came from.
//!
//! `gpt2`: bytes as printable characters, cut by a pattern with a name, merged by rank. `llama`: SentencePiece pieces with scores;
//! a merge exists for every way to cut a piece into two, ranked by the score of the whole. What the format does not say, such as
//! Qwen2's normalisation, is taken from the tokenizers that carry the name.

use std::collections::HashMap;
use std::path::Path;

use model::checkpoint::gguf::{TokenKind, Vocabulary};
use serde_json::{Map, Value, json};

use super::{Tokenizer, cuts};
use crate::EngineError;

/// The name of how text is cut: Gemma 4's tokenizers are called by their model.
fn cut_name(v: &Vocabulary) -> &str {
    if v.model == "gemma4" { "gemma4" } else { v.pre.as_deref().unwrap_or("default") }
}

/// Why text cannot be cut as `vocabulary` asks, where it can not: the model still runs on token ids.
pub fn unsupported(vocabulary: &Vocabulary) -> Option<String> {
    let (model, pre) = (vocabulary.model.as_str(), cut_name(vocabulary));
    let known = || cuts::names().collect::<Vec<_>>().join(", ");
    match model {
        _ if vocabulary.json.is_some() => None,
        "llama" => None,
        "gpt2" | "gemma4" if cuts::called(pre).is_some() => None,
        "gpt2" | "gemma4" => {
            Some(format!("key `tokenizer.ggml.pre`: `{pre}` is not supported (supported: {})", known()))
        }
        _ => Some(format!("key `tokenizer.ggml.model`: `{model}` is not supported (supported: gpt2, gemma4, llama)")),
    }
}

impl Tokenizer {
    /// The tokenizer of the GGUF file `file`; `vocab_size` is the model's.
    pub fn from_gguf(file: &Path, vocabulary: &Vocabulary, vocab_size: usize) -> Result<Tokenizer, EngineError> {
        let wrong = |problem: String| EngineError::Tokenizer { file: file.into(), problem };
        if let Some(json) = &vocabulary.json {
            return Tokenizer::from_bytes(file, json.as_bytes(), vocab_size);
        }
        let json = if vocabulary.model == "llama" { pieces(vocabulary) } else { merged(vocabulary) }.map_err(wrong)?;
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

/// A tokenizer.json of merges by rank, of bytes mostly.
fn merged(v: &Vocabulary) -> Result<Value, String> {
    let name = cut_name(v);
    let cut = cuts::called(name).ok_or_else(|| unsupported(v).unwrap_or_default())?;
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
    let split = |pattern: String| json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false });
    let mut steps: Vec<Value> = (cut.patterns)().into_iter().map(split).collect();
    let template = template(v, v.add_bos.unwrap_or(cut.add_bos), v.add_eos.unwrap_or(false));
    if cut.pieces {
        return Ok(merged_pieces(v, vocab, merges, steps, template));
    }
    let level = |regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex });
    steps.push(level(false));
    let normalizer = if cut.nfc { json!({ "type": "NFC" }) } else { Value::Null };
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

/// A tokenizer.json of pieces that merge by rank, spaces being `▁`.
fn merged_pieces(
    v: &Vocabulary,
    vocab: Map<String, Value>,
    merges: Vec<Value>,
    steps: Vec<Value>,
    template: Value,
) -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added(v),
        "normalizer": { "type": "Replace", "pattern": { "String": " " }, "content": "▁" },
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": steps },
        "post_processor": template,
        "decoder": { "type": "Sequence", "decoders": piece_decoders() },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": true, "byte_fallback": has_bytes(&vocab), "ignore_merges": false, "vocab": vocab, "merges": merges,
        },
    })
}

/// Pieces become text: `▁` spaces, `<0x0A>` bytes.
fn piece_decoders() -> Vec<Value> {
    vec![
        json!({ "type": "Replace", "pattern": { "String": "▁" }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ]
}

/// Whether every byte has a piece of its own.
fn has_bytes(vocab: &Map<String, Value>) -> bool {
    (0..=255).all(|byte| vocab.contains_key(&format!("<0x{byte:02X}>")))
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
    let mut decoders = piece_decoders();
    if prefix {
        decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    let bytes = has_bytes(&vocab);
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
