//! `tokenize` and `detokenize`: what the model's tokenizer makes of a text, and of ids.

use std::collections::BTreeSet;

use anyhow::anyhow;
use clap::Args;
use engine::Bos;
use model::TokenId;
use serde::Serialize;

use super::engine_choice::{bos, open_text, token_ids};
use super::table::table;
use super::{Blame, Outcome, PASS, input, json, print};

/// The command `tokenize`.
#[derive(Args)]
#[command(after_help = "Examples:
  infermark tokenize --model FOLDER \"It was a\"
  infermark tokenize --model FILE.gguf --ids --bos never - < text.txt")]
pub struct Tokenize {
    /// embedded:NAME, hf:org/name@revision, a Hugging Face folder or a GGUF file
    #[arg(long, value_name = "SOURCE")]
    model: String,
    /// Text (- for standard input)
    #[arg(value_name = "TEXT", allow_hyphen_values = true)]
    text: String,
    /// The token that begins a text, and the one that ends it: auto (as the tokenizer's template or the GGUF keys say), always,
    /// never
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = bos)]
    bos: Bos,
    /// Print nothing but the ids, as --tokens takes them
    #[arg(long, conflicts_with = "json")]
    ids: bool,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// The command `detokenize`.
#[derive(Args)]
#[command(after_help = "Example: infermark detokenize --model FOLDER 1,450,2")]
pub struct Detokenize {
    /// embedded:NAME, hf:org/name@revision, a Hugging Face folder or a GGUF file
    #[arg(long, value_name = "SOURCE")]
    model: String,
    /// Token ids (- for standard input)
    #[arg(value_name = "1,2,3")]
    tokens: String,
    /// Leave out tokens that stand for no text of their own
    #[arg(long)]
    skip_special: bool,
    /// For programs
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Token {
    id: u32,
    /// As the vocabulary spells it.
    piece: Option<String>,
    /// What it decodes to alone.
    text: String,
    special: bool,
}

#[derive(Serialize)]
struct Tokens {
    ids: Vec<u32>,
    tokens: Vec<Token>,
}

#[derive(Serialize)]
struct Text {
    text: String,
    tokens: Vec<Token>,
}

fn tokens(tokenizer: &engine::Tokenizer, ids: &[TokenId]) -> Vec<Token> {
    let specials: BTreeSet<TokenId> = tokenizer.specials();
    let token = |id: &TokenId| Token {
        id: id.0,
        piece: tokenizer.piece(*id),
        text: tokenizer.decode(&[*id]),
        special: specials.contains(id),
    };
    ids.iter().map(token).collect()
}

impl Tokenize {
    pub(super) fn obey(&self) -> Outcome {
        let target = open_text(&self.model)?;
        let target = target.text(self.bos);
        let text = if self.text == "-" { input::standard_input()? } else { self.text.clone() };
        let ids = target.encode(&text).usage()?;
        let numbers: Vec<u32> = ids.iter().map(|id| id.0).collect();
        if self.ids {
            let words: Vec<String> = numbers.iter().map(u32::to_string).collect();
            print(&(words.join(",") + "\n"))?;
            return Ok(PASS);
        }
        let tokens = tokens(target.reader().usage()?, &ids);
        if self.json {
            print(&json(&Tokens { ids: numbers, tokens })?)?;
            return Ok(PASS);
        }
        let row = |token: &Token| {
            let piece = token.piece.clone().unwrap_or_default();
            let special = if token.special { "special" } else { "" };
            vec![token.id.to_string(), piece, format!("{:?}", token.text), special.into()]
        };
        print(&table(&["id", "piece", "text", ""], tokens.iter().map(row)))?;
        Ok(PASS)
    }
}

impl Detokenize {
    pub(super) fn obey(&self) -> Outcome {
        let target = open_text(&self.model)?;
        let tokenizer = target.text(Bos::Auto).reader().usage()?;
        let given = if self.tokens == "-" { input::standard_input()? } else { self.tokens.clone() };
        let given = given.trim().trim_matches(['[', ']']);
        if given.is_empty() {
            return Err(anyhow!("there are no token ids; expected 1,2,3")).usage();
        }
        let ids = token_ids("ids", given, target.vocab_size())?;
        let text = if self.skip_special { tokenizer.decode_plain(&ids) } else { tokenizer.decode(&ids) };
        match self.json {
            true => print(&json(&Text { text, tokens: tokens(tokenizer, &ids) })?)?,
            false => print(&(text + "\n"))?,
        }
        Ok(PASS)
    }
}
