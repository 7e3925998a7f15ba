//! The tokenizer of a GGUF file, written as the `tokenizer.json` that it came from.
//!
//! `gpt2`: bytes as printable characters, cut by a pattern with a name, merged by rank. `llama`: SentencePiece pieces with scores;
//! a merge exists for every way to cut a piece into two, ranked by the score of the whole. What the format does not say, such as
//! Qwen2's normalisation, is taken from the tokenizers that carry the name.

use std::path::Path;

use model::checkpoint::gguf::{TokenKind, Vocabulary};
use serde_json::{Map, Value, json};
use tokenizers::AddedToken;
use tokenizers::models::bpe::{self, BPE};

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
        let parts = if vocabulary.model == "llama" { pieces(vocabulary) } else { merged(vocabulary) }.map_err(wrong)?;
        // what remains of a tokenizer.json is small; the model is built of its texts, because as JSON a large vocabulary takes
        // hundreds of megabytes
        let rest = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": parts.normalizer,
            "pre_tokenizer": parts.pre_tokenizer, "post_processor": parts.post_processor, "decoder": parts.decoder,
            "model": { "type": "BPE", "vocab": {}, "merges": [] },
        });
        let mut tokenizer = Tokenizer::from_bytes(file, rest.to_string().as_bytes(), vocab_size)?;
        let model = parts.model.build().map_err(|error| match Vocab::of(vocabulary) {
            Ok(vocab) => broken_merge(vocabulary, &vocab).unwrap_or(error),
            Err(_) => error,
        });
        tokenizer.inner.with_model(model.map_err(wrong)?);
        let added = added(vocabulary);
        tokenizer.inner.add_tokens(added).map_err(|error| wrong(error.to_string()))?;
        Ok(tokenizer)
    }
}

/// The parts of a tokenizer.json.
struct Parts<'a> {
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    decoder: Value,
    model: Bpe<'a>,
}

/// Its model.
struct Bpe<'a> {
    unk_token: Option<&'a str>,
    fuse_unk: bool,
    byte_fallback: bool,
    ignore_merges: bool,
    vocab: Vocab,
    merges: Vec<[&'a str; 2]>,
}

/// Every token by its text, in the map that the tokenizer keeps: a large vocabulary is built once and looked up millions of times.
struct Vocab {
    ids: bpe::Vocab,
}

impl Vocab {
    fn of(v: &Vocabulary) -> Result<Vocab, String> {
        let mut ids = bpe::Vocab::with_capacity(v.tokens.len());
        for (id, token) in v.tokens.iter().enumerate() {
            // places without a token may be empty
            let name = if token.is_empty() { format!("[EMPTY_{id}]") } else { token.clone() };
            if let Some(first) = ids.insert(name, id as u32) {
                return Err(format!("key `tokenizer.ggml.tokens`: `{token}` has the ids {first} and {id}"));
            }
        }
        match ids.is_empty() {
            true => Err("key `tokenizer.ggml.tokens`: expected texts of tokens, found nothing".into()),
            false => Ok(Vocab { ids }),
        }
    }

    fn has(&self, token: &str) -> bool {
        self.ids.contains_key(token)
    }

    /// Whether every byte has a piece of its own.
    fn has_bytes(&self) -> bool {
        (0..=255).all(|byte| self.has(&format!("<0x{byte:02X}>")))
    }
}

/// Tokens that are found in the text before anything else.
fn added(v: &Vocabulary) -> Vec<AddedToken> {
    let kinds = [TokenKind::Control, TokenKind::UserDefined, TokenKind::Unknown];
    let ids = (0..v.tokens.len()).filter(|&id| kinds.contains(&v.kind(id)) && !v.tokens[id].is_empty());
    ids.map(|id| AddedToken::from(v.tokens[id].clone(), v.kind(id) != TokenKind::UserDefined).normalized(false))
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

/// The two tokens of a merge, which a space separates; the first may begin with one.
fn halves(merge: &str) -> Option<[&str; 2]> {
    let (at, _) = merge.char_indices().skip(1).find(|(_, c)| *c == ' ')?;
    Some([&merge[..at], &merge[at + 1..]])
}

fn no_merge(i: usize, merge: &str) -> String {
    format!("key `tokenizer.ggml.merges`: entry {i} (`{merge}`) is not two tokens that make a third")
}

/// The first merge that `vocab` cannot make: looked for once building has failed, because it takes as long as building.
fn broken_merge(v: &Vocabulary, vocab: &Vocab) -> Option<String> {
    let makes =
        |[left, right]: [&str; 2]| [left, right, &format!("{left}{right}")].iter().all(|token| vocab.has(token));
    let broken = |(_, merge): &(usize, &String)| !halves(merge).is_some_and(makes);
    v.merges.iter().enumerate().find(broken).map(|(i, merge)| no_merge(i, merge))
}

/// A tokenizer.json of merges by rank, of bytes mostly.
fn merged(v: &Vocabulary) -> Result<Parts<'_>, String> {
    let name = cut_name(v);
    let cut = cuts::called(name).ok_or_else(|| unsupported(v).unwrap_or_default())?;
    let vocab = Vocab::of(v)?;
    let merges = v.merges.iter().enumerate().map(|(i, merge)| halves(merge).ok_or_else(|| no_merge(i, merge)));
    let merges = merges.collect::<Result<Vec<_>, _>>()?;
    let split = |pattern: String| json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false });
    let mut steps: Vec<Value> = (cut.patterns)().into_iter().map(split).collect();
    let template = template(v, v.add_bos.unwrap_or(cut.add_bos), v.add_eos.unwrap_or(false));
    if cut.pieces {
        return Ok(merged_pieces(vocab, merges, steps, template));
    }
    let level = |regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex });
    steps.push(level(false));
    let normalizer = if cut.nfc { json!({ "type": "NFC" }) } else { Value::Null };
    Ok(Parts {
        normalizer,
        pre_tokenizer: json!({ "type": "Sequence", "pretokenizers": steps }),
        post_processor: json!({ "type": "Sequence", "processors": [level(false), template] }),
        decoder: level(true),
        model: Bpe { ignore_merges: cut.whole_words, ..Bpe::new(vocab, merges) },
    })
}

impl<'a> Bpe<'a> {
    fn new(vocab: Vocab, merges: Vec<[&'a str; 2]>) -> Bpe<'a> {
        Bpe { unk_token: None, fuse_unk: false, byte_fallback: false, ignore_merges: false, vocab, merges }
    }

    fn build(self) -> Result<BPE, String> {
        let merges = self.merges.into_iter().map(|[left, right]| (left.to_string(), right.to_string())).collect();
        let builder = BPE::builder().vocab_and_merges(self.vocab.ids, merges).fuse_unk(self.fuse_unk);
        let builder = builder.byte_fallback(self.byte_fallback).ignore_merges(self.ignore_merges);
        let builder = match self.unk_token {
            Some(token) => builder.unk_token(token.to_string()),
            None => builder,
        };
        builder.build().map_err(|error| error.to_string())
    }
}

/// A tokenizer.json of pieces that merge by rank, spaces being `▁`.
fn merged_pieces<'a>(vocab: Vocab, merges: Vec<[&'a str; 2]>, steps: Vec<Value>, template: Value) -> Parts<'a> {
    let byte_fallback = vocab.has_bytes();
    Parts {
        normalizer: json!({ "type": "Replace", "pattern": { "String": " " }, "content": "▁" }),
        pre_tokenizer: json!({ "type": "Sequence", "pretokenizers": steps }),
        post_processor: template,
        decoder: json!({ "type": "Sequence", "decoders": piece_decoders() }),
        model: Bpe { fuse_unk: true, byte_fallback, ..Bpe::new(vocab, merges) },
    }
}

/// Pieces become text: `▁` spaces, `<0x0A>` bytes.
fn piece_decoders() -> Vec<Value> {
    vec![
        json!({ "type": "Replace", "pattern": { "String": "▁" }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ]
}

/// Every way to make a token of two others: the best score first, then the longest left part.
fn merges<'a>(v: &'a Vocabulary, vocab: &Vocab) -> Vec<[&'a str; 2]> {
    let mut ranked = vec![];
    for (id, token) in v.tokens.iter().enumerate() {
        if matches!(v.kind(id), TokenKind::Byte | TokenKind::Control | TokenKind::Unknown | TokenKind::Unused) {
            continue;
        }
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if vocab.has(left) && vocab.has(right) {
                ranked.push((v.scores.get(id).copied().unwrap_or(0.0), left, right));
            }
        }
    }
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.len().cmp(&a.1.len())).then(b.2.len().cmp(&a.2.len())));
    ranked.into_iter().map(|(_, left, right)| [left, right]).collect()
}

/// A tokenizer.json of pieces and scores.
fn pieces(v: &Vocabulary) -> Result<Parts<'_>, String> {
    let vocab = Vocab::of(v)?;
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
    let byte_fallback = vocab.has_bytes();
    let unknown = v.unknown.or((v.kind(0) == TokenKind::Unknown).then_some(0)).map(|id| v.tokens[id as usize].as_str());
    let merges = merges(v, &vocab);
    Ok(Parts {
        pre_tokenizer: Value::Null,
        normalizer: json!({ "type": "Sequence", "normalizers": normalizers }),
        post_processor: template(v, v.add_bos.unwrap_or(true), v.add_eos.unwrap_or(false)),
        decoder: json!({ "type": "Sequence", "decoders": decoders }),
        model: Bpe { unk_token: unknown, fuse_unk: true, byte_fallback, ..Bpe::new(vocab, merges) },
    })
}
