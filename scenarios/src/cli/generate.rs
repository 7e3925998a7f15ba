//! `generate`: continues a prompt, streaming; with an encoder-decoder, translates a source.

mod finite;

use anyhow::anyhow;
use clap::Args;
use decoding::{Decoder, Hypothesis, Sequence};
use engine::{EncoderDecoderCheckpoint, GenerationConfig, Tokenizer};
use model::{SeqId, StepModel, TokenId};
use serde::Serialize;

use self::finite::{Broken, Notice, Watched};
use super::engine_choice::{EngineChoice, token_ids};
use super::{Blame, Failure, Outcome, PASS, json, print};
use crate::output::{self, Reader};

/// Tokens that end a text in the vocabularies this engine meets.
const END_TOKENS: [&str; 4] = ["<|endoftext|>", "</s>", "<|im_end|>", "<|eot_id|>"];

/// Tokens generated where nothing says how many.
const NEW_TOKENS: usize = 64;

/// The command `generate`.
#[derive(Args)]
#[command(after_help = "Examples:
  infermark generate --model embedded:base --prompt \"It was a\" --max-new-tokens 40 \\
    --decoding '{ kind = \"sampled\", temperature = 0.8 }'
  infermark generate --model FOLDER --prompt \"a sentence to translate\" --beams 4      (an encoder-decoder)")]
pub struct Generate {
    #[command(flatten)]
    engine: EngineChoice,
    /// Text to continue, or to translate
    #[arg(
        long,
        value_name = "TEXT",
        required_unless_present_any = ["tokens", "encoder_tokens"],
        conflicts_with_all = ["tokens", "encoder_tokens"]
    )]
    prompt: Option<String>,
    /// Token ids to continue; with an encoder-decoder the start of the target [default there: its start token]
    #[arg(long, value_name = "1,2,3")]
    tokens: Option<String>,
    /// Token ids of the source, for an encoder-decoder
    #[arg(long, value_name = "1,2,3")]
    encoder_tokens: Option<String>,
    /// Beam search with so many beams; --decoding '{ kind = "beam", ... }' has its other fields
    #[arg(long, value_name = "N")]
    beams: Option<usize>,
    /// Tokens to generate [default: 64; with an encoder-decoder what its generation_config.json says]
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// Seed of sampling
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Print ids and text as JSON at the end instead of streaming
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Continuation {
    #[serde(skip_serializing_if = "Option::is_none")]
    source_ids: Option<Vec<u32>>,
    prompt_ids: Vec<u32>,
    ids: Vec<u32>,
    text: Option<String>,
    /// What beam search found, best first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hypotheses: Vec<Found>,
}

#[derive(Serialize)]
struct Found {
    ids: Vec<u32>,
    score: f64,
    text: Option<String>,
}

/// A decoder with the sequence that it shall continue.
struct Job<'a> {
    decoder: Box<dyn Decoder>,
    sequence: Sequence,
    tokenizer: Option<&'a Tokenizer>,
    source: Option<Vec<TokenId>>,
    /// Left out of the text where they end it.
    end: Vec<TokenId>,
    /// Whether the decoder's models still compute numbers.
    notice: Notice,
}

impl Generate {
    pub(super) fn obey(&self) -> Outcome {
        let choice = self.engine.with_beams(self.beams);
        if let Some(pair) = choice.open_encoder_decoder()? {
            return self.translate(&choice, pair);
        }
        let target = choice.open()?;
        if self.encoder_tokens.is_some() {
            return Err(anyhow!("--encoder-tokens: {} has no encoder; give --prompt or --tokens", target.source))
                .usage();
        }
        let prompt = match (&self.tokens, &self.prompt) {
            (Some(ids), _) => token_ids("--tokens", ids, target.architecture.vocab_size)?,
            (None, prompt) => target.encode(prompt.as_deref().unwrap_or("")).usage()?,
        };
        if prompt.is_empty() {
            return Err(anyhow!("the prompt has no tokens; give at least one word")).usage();
        }
        let new_tokens = self.max_new_tokens.unwrap_or(NEW_TOKENS);
        // a speculative round may reach past the last token that is kept
        let room = target.architecture.max_positions.min(prompt.len() + new_tokens + 32);
        let built = choice.build(target, room)?;
        let tokenizer = built.target.tokenizer.as_ref();
        let named = tokenizer.iter().flat_map(|t| END_TOKENS.iter().filter_map(|end| t.id_of(end)));
        let stop = named.chain(built.target.end_tokens().failed()?).collect();
        let notice = Notice::default();
        let boxed = |session| Box::new(Watched::new(session, &notice)) as Box<dyn StepModel>;
        let engine = &built.engine;
        let draft = if engine.spec.decoding.needs_draft() { engine.draft_session().failed()? } else { None };
        let decoder = engine.spec.decoding.build(boxed(engine.session().failed()?), draft.map(boxed)).failed()?;
        let sequence = Sequence::new(SeqId(0), prompt, new_tokens, stop, self.seed).usage()?;
        self.run(Job { decoder, sequence, tokenizer, source: None, end: vec![], notice })
    }

    fn translate(&self, choice: &EngineChoice, mut pair: EncoderDecoderCheckpoint) -> Outcome {
        let vocab = pair.shape.vocab_size;
        let GenerationConfig { start, end, beams, mut constraints, max_new_tokens } = pair.generation().usage()?;
        let start = start.unwrap_or(pair.shape.decoder_start);
        let end = if end.is_empty() { vec![pair.shape.end] } else { end };
        let new_tokens = self.max_new_tokens.or(max_new_tokens).unwrap_or(NEW_TOKENS);
        let choice = choice.or_beams(beams);
        let source = match (&self.encoder_tokens, &self.prompt) {
            (Some(ids), _) => token_ids("--encoder-tokens", ids, vocab)?,
            (None, Some(text)) => pair.encode(text).usage()?,
            (None, None) => {
                let problem = "an encoder-decoder needs a source; give --prompt or --encoder-tokens";
                return Err(anyhow!("{}: {problem}", pair.source)).usage();
            }
        };
        let prompt = self.tokens.as_ref().map_or(Ok(vec![start]), |ids| token_ids("--tokens", ids, vocab))?;
        // it is about the start of the target, not of its continuation
        constraints.first = constraints.first.filter(|_| prompt.len() == 1);
        let tokenizer = pair.tokenizer.take();
        // the last token is never run
        let room = pair.shape.max_positions.min((prompt.len() + new_tokens).saturating_sub(1).max(1));
        let engine = choice.build_encoder_decoder(pair, source.len(), room)?;
        let mut session = engine.session().failed()?;
        session.encode(SeqId(0), &source, None).usage()?;
        let sequence = Sequence::new(SeqId(0), prompt, new_tokens, end.clone(), self.seed).usage()?;
        let decoder = engine.decoder(session).usage()?;
        if !constraints.is_empty() && !decoder.obeys_constraints() {
            let tag = engine.spec.decoding.tag();
            let problem = "generation_config.json forbids or prescribes tokens (bad_words_ids, forced_bos_token_id, …)";
            return Err(anyhow!(
                "--decoding {tag}: {problem}, which greedy and beam decoding obey; choose one of them"
            ))
            .usage();
        }
        let sequence = sequence.constrained(constraints);
        let notice = Notice::default();
        self.run(Job { decoder, sequence, tokenizer: tokenizer.as_ref(), source: Some(source), end, notice })
    }

    fn run(&self, job: Job<'_>) -> Outcome {
        let Job { mut decoder, mut sequence, tokenizer, source, end, notice } = job;
        let decode = |tokens: &[TokenId]| {
            let cut = tokens.split_last().filter(|(last, _)| end.contains(last)).map_or(tokens, |(_, rest)| rest);
            tokenizer.map(|t| t.decode(cut))
        };
        let mut shown = 0;
        while sequence.finished().is_none() {
            let advanced = decoder.advance(std::slice::from_mut(&mut sequence));
            if let Some(Broken { position, n, of }) = notice.first() {
                let cause = "the checkpoint's weights hold values that are not numbers, or values overflow on the way";
                return Err(anyhow!("position {position}: {n} of {of} logits are not numbers: {cause}")).failed();
            }
            advanced.failed()?;
            if !self.json {
                let (text, reader) = stream(&decode(sequence.generated()), shown, sequence.generated())?;
                // tokens that nobody sees are not worth computing
                if reader == Reader::Gone {
                    return Ok(PASS);
                }
                shown = text;
            }
        }
        if !self.json {
            print("\n")?;
            return Ok(PASS);
        }
        let ids = |tokens: &[TokenId]| tokens.iter().map(|t| t.0).collect();
        let found = |h: &Hypothesis| Found { ids: ids(&h.tokens), score: h.score, text: decode(&h.tokens) };
        let continuation = Continuation {
            source_ids: source.as_deref().map(ids),
            prompt_ids: ids(&sequence.tokens()[..sequence.n_prompt()]),
            ids: ids(sequence.generated()),
            text: decode(sequence.generated()),
            hypotheses: decoder.hypotheses(sequence.id()).iter().map(found).collect(),
        };
        print(&json(&continuation)?)?;
        Ok(PASS)
    }
}

/// Prints what is new since `shown` (bytes of text, or tokens where there is no tokenizer); gives back the new mark, and whether anybody
/// still reads.
fn stream(text: &Option<String>, shown: usize, tokens: &[TokenId]) -> Result<(usize, Reader), Failure> {
    let Some(text) = text else {
        let new: Vec<String> = tokens[shown..].iter().map(|t| t.0.to_string()).collect();
        return Ok((tokens.len(), output::say(&format!("{} ", new.join(" "))).failed()?));
    };
    // a character may need more than one token: its first bytes decode to the replacement character
    let whole = text.trim_end_matches('\u{fffd}');
    match whole.get(shown..) {
        Some(new) => Ok((whole.len(), output::say(new).failed()?)),
        None => Ok((shown, Reader::Listening)),
    }
}
