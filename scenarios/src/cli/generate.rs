//! `generate`: continues a prompt, streaming.

use anyhow::anyhow;
use clap::Args;
use decoding::Sequence;
use model::{SeqId, TokenId};
use serde::Serialize;

use super::engine_choice::{EngineChoice, token_ids};
use super::{Blame, Failure, Outcome, PASS, json, print};

/// Tokens that end a text in the vocabularies this engine meets.
const END_TOKENS: [&str; 4] = ["<|endoftext|>", "</s>", "<|im_end|>", "<|eot_id|>"];

/// The command `generate`.
#[derive(Args)]
#[command(after_help = "Example: infermark generate --model embedded:base --prompt \"It was a\" --max-new-tokens 40 \\
  --decoding '{ kind = \"sampled\", temperature = 0.8 }'")]
pub struct Generate {
    #[command(flatten)]
    engine: EngineChoice,
    /// Text to continue
    #[arg(long, value_name = "TEXT", required_unless_present = "tokens", conflicts_with = "tokens")]
    prompt: Option<String>,
    /// Token ids to continue
    #[arg(long, value_name = "1,2,3")]
    tokens: Option<String>,
    /// Tokens to generate
    #[arg(long, value_name = "N", default_value_t = 64)]
    max_new_tokens: usize,
    /// Seed of sampling
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Print ids and text as JSON at the end instead of streaming
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Continuation {
    prompt_ids: Vec<u32>,
    ids: Vec<u32>,
    text: Option<String>,
}

impl Generate {
    pub(super) fn obey(&self) -> Outcome {
        let target = self.engine.open()?;
        let prompt = match (&self.tokens, &self.prompt) {
            (Some(ids), _) => token_ids(ids, target.architecture.vocab_size)?,
            (None, prompt) => target.encode(prompt.as_deref().unwrap_or("")).usage()?,
        };
        if prompt.is_empty() {
            return Err(anyhow!("the prompt has no tokens; give at least one word")).usage();
        }
        // a speculative round may reach past the last token that is kept
        let room = target.architecture.max_positions.min(prompt.len() + self.max_new_tokens + 32);
        let built = self.engine.build(target, room)?;
        let stop =
            built.target.tokenizer.iter().flat_map(|t| END_TOKENS.iter().filter_map(|end| t.id_of(end))).collect();
        let mut decoder = built.engine.decoder().failed()?;
        let mut sequence = Sequence::new(SeqId(0), prompt.clone(), self.max_new_tokens, stop, self.seed).usage()?;
        let decode = |tokens: &[TokenId]| built.target.tokenizer.as_ref().map(|t| t.decode(tokens));
        let mut shown = 0;
        while sequence.finished().is_none() {
            decoder.advance(std::slice::from_mut(&mut sequence)).failed()?;
            if !self.json {
                shown = stream(&decode(&sequence.tokens()[prompt.len()..]), shown, &sequence.tokens()[prompt.len()..])?;
            }
        }
        let new = &sequence.tokens()[prompt.len()..];
        let ids = |tokens: &[TokenId]| tokens.iter().map(|t| t.0).collect();
        match self.json {
            true => print(&json(&Continuation { prompt_ids: ids(&prompt), ids: ids(new), text: decode(new) })?)?,
            false => print("\n")?,
        }
        Ok(PASS)
    }
}

/// Prints what is new since `shown` (bytes of text, or tokens where there is no tokenizer); gives back the new mark.
fn stream(text: &Option<String>, shown: usize, tokens: &[TokenId]) -> Result<usize, Failure> {
    let Some(text) = text else {
        let new: Vec<String> = tokens[shown..].iter().map(|t| t.0.to_string()).collect();
        print(&format!("{} ", new.join(" ")))?;
        return Ok(tokens.len());
    };
    // a character may need more than one token: its first bytes decode to the replacement character
    let whole = text.trim_end_matches('\u{fffd}');
    match whole.get(shown..) {
        Some(new) => print(new).map(|()| whole.len()),
        None => Ok(shown),
    }
}
