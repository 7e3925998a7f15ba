//! `generate`: continues a prompt or a conversation, streaming; with an encoder-decoder, translates a source.

mod conversation;
mod finite;
mod output;
mod wishes;

use anyhow::anyhow;
use clap::Args;
use decoding::{Decoder, DecodingSpec, Sequence};
use engine::{Bos, Checkpoint, EncoderDecoderCheckpoint, GenerationConfig, Reads, Tokenizer};
use model::{SeqId, StepModel, TokenId};

use self::conversation::Conversation;
use self::finite::{Broken, Notice, Watched};
use self::output::{Continuation, Reader, Times, finish, ids_in_line, numbers, show_speed};
use self::wishes::Wishes;
use super::engine_choice::{Draws, EngineChoice, token_ids};
use super::{Blame, Failure, Outcome, PASS, input, json, print};
use crate::output::{Reader as Audience, note, say};
use crate::stopwatch::Stopwatch;

/// Tokens generated where nothing says how many.
const NEW_TOKENS: usize = 64;
/// Seed of sampling where nothing says another.
const SEED: u64 = 1;

/// The command `generate`.
#[derive(Args)]
#[command(after_help = "Examples:
  infermark generate --model embedded:base --prompt \"It was a\" --max-new-tokens 40 --temperature 0.8
  infermark generate --model FOLDER --chat --system \"Be brief.\" --prompt \"Who are you?\"
  echo \"It was a\" | infermark generate --model FILE.gguf --prompt - --stop \".\"
  infermark generate --model FOLDER --prompt \"a sentence to translate\" --beams 4      (an encoder-decoder)

What the model's generation_config.json asks for is done: drawing, penalties, forbidden tokens, lengths. A flag wins over it, \
--ignore-generation-config leaves it aside, and a field that cannot be obeyed is refused by its name.")]
pub struct Generate {
    #[command(flatten)]
    engine: EngineChoice,
    /// Text to continue, or to translate (- for standard input)
    #[arg(
        long,
        value_name = "TEXT",
        allow_hyphen_values = true,
        required_unless_present_any = ["tokens", "encoder_tokens", "user", "messages"],
        conflicts_with_all = ["tokens", "encoder_tokens"]
    )]
    prompt: Option<String>,
    /// Token ids to continue; with an encoder-decoder the start of the target [default there: its start token]
    #[arg(long, value_name = "1,2,3", conflicts_with = "chat")]
    tokens: Option<String>,
    /// Token ids of the source, for an encoder-decoder
    #[arg(long, value_name = "1,2,3", conflicts_with = "chat")]
    encoder_tokens: Option<String>,
    #[command(flatten)]
    conversation: Conversation,
    /// Beam search with so many beams; --decoding '{ kind = "beam", ... }' has its other fields
    #[arg(long, value_name = "N")]
    beams: Option<usize>,
    #[command(flatten)]
    draws: Draws,
    #[command(flatten)]
    wishes: Wishes,
    /// Tokens to generate [default: what generation_config.json says, else 64]
    #[arg(long, value_name = "N")]
    max_new_tokens: Option<usize>,
    /// End at this text, which is left out; repeatable
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Go on after a token that ends a text
    #[arg(long)]
    ignore_eos: bool,
    /// Seed of sampling [default: the one inside --decoding, else 1]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Print ids and text as JSON at the end instead of streaming
    #[arg(long)]
    json: bool,
}

/// A decoder with the sequence that it shall continue.
struct Job<'a> {
    decoder: Box<dyn Decoder>,
    sequence: Sequence,
    tokenizer: Option<&'a Tokenizer>,
    source: Option<Vec<TokenId>>,
    /// Left out of the text.
    ends: &'a [TokenId],
    stops: Vec<String>,
    room: Room,
    /// Whether the decoder's models still compute numbers.
    notice: Notice,
    /// How they are stored, as tables name it.
    weights: String,
}

/// How many tokens may be generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Room {
    new_tokens: usize,
    /// Asked for.
    asked: usize,
    /// Positions that the model knows.
    limit: usize,
}

impl Room {
    /// For `asked` tokens behind `n_prompt` in `limit` positions; the last token is not run, so it needs none.
    fn new(asked: usize, n_prompt: usize, limit: usize) -> Result<Room, Failure> {
        if n_prompt > limit {
            return Err(anyhow!(
                "the prompt has {n_prompt} tokens, and the model knows {limit} positions (max_position_embeddings); shorten it"
            ))
            .usage();
        }
        let free = (limit - n_prompt).saturating_add(1);
        Ok(Room { new_tokens: asked.min(free), asked, limit })
    }

    fn is_cut(&self) -> bool {
        self.new_tokens < self.asked
    }
}

impl Generate {
    pub(super) fn obey(&self) -> Outcome {
        let choice = self.engine.with_beams(self.beams).with_draws(&self.draws);
        let seed = self.seed(&choice)?;
        if let Some(pair) = choice.open_encoder_decoder()? {
            return self.translate(&choice, pair, seed);
        }
        let target = choice.open()?;
        if self.encoder_tokens.is_some() {
            return Err(anyhow!("--encoder-tokens: {} has no encoder; give --prompt or --tokens", target.source))
                .usage();
        }
        let prompt = self.prompt_of(&target)?;
        if prompt.is_empty() {
            return Err(anyhow!("the prompt has no tokens; give at least one word")).usage();
        }
        let config = self.wishes.of(&target.facts, Reads::Prompt)?;
        let choice = choice.or_decoding(decoding_of(&config)).or_own_codes(&target);
        let room = Room::new(self.asked(&config, prompt.len())?, prompt.len(), target.architecture.context_limit())?;
        // a speculative round may reach past the last token that is kept
        let positions = room.limit.min(prompt.len() + room.new_tokens + 32);
        let stops = self.stops(&config, &choice, target.tokenizer.is_some())?;
        let built = choice.build(target, positions)?;
        let ends = built.target.facts.ends.clone();
        let notice = Notice::default();
        let boxed = |session| Box::new(Watched::new(session, &notice)) as Box<dyn StepModel>;
        let engine = &built.engine;
        let draft = if engine.spec.decoding.needs_draft() { engine.draft_session().failed()? } else { None };
        let decoder = engine.spec.decoding.build(boxed(engine.session().failed()?), draft.map(boxed)).failed()?;
        let sequence = self.sequence(prompt, room, &ends, seed)?;
        let sequence = wishes::put_on(sequence, &*decoder, config, &built.engine.spec.decoding)?;
        let tokenizer = built.target.tokenizer.as_ref();
        let weights = engine.spec.weights.tag();
        self.run(Job { decoder, sequence, tokenizer, source: None, ends: &ends, stops, room, notice, weights })
    }

    fn translate(&self, choice: &EngineChoice, mut pair: EncoderDecoderCheckpoint, seed: u64) -> Outcome {
        let vocab = pair.shape.vocab_size;
        if self.conversation.is_meant() {
            return Err(anyhow!("--chat: {} is an encoder-decoder and reads a source; leave it out", pair.source))
                .usage();
        }
        let config = self.wishes.of(&pair.facts, Reads::Source)?;
        let start = config.start.unwrap_or(pair.shape.decoder_start);
        let ends = if config.end.is_empty() { vec![pair.shape.end] } else { config.end.clone() };
        let choice = choice.or_decoding(decoding_of(&config));
        let source = match (&self.encoder_tokens, &self.prompt) {
            (Some(ids), _) => token_ids("--encoder-tokens", ids, vocab)?,
            (None, Some(text)) => {
                let text = input::prompt(text)?;
                match (choice.bos(), &pair.tokenizer) {
                    (Bos::Never, Some(tokenizer)) => tokenizer.encode(&text).usage()?,
                    _ => pair.encode(&text).usage()?,
                }
            }
            (None, None) => {
                let problem = "an encoder-decoder needs a source; give --prompt or --encoder-tokens";
                return Err(anyhow!("{}: {problem}", pair.source)).usage();
            }
        };
        let prompt = self.tokens.as_ref().map_or(Ok(vec![start]), |ids| token_ids("--tokens", ids, vocab))?;
        let room = Room::new(self.asked(&config, prompt.len())?, prompt.len(), pair.shape.max_positions)?;
        let tokenizer = pair.tokenizer.take();
        let stops = self.stops(&config, &choice, tokenizer.is_some())?;
        // the last token is never run
        let positions = (prompt.len() + room.new_tokens).saturating_sub(1).max(1);
        let engine = choice.build_encoder_decoder(pair, source.len(), positions)?;
        let mut session = engine.session().failed()?;
        session.encode(SeqId(0), &source, None).usage()?;
        let decoder = engine.decoder(session).usage()?;
        let sequence = self.sequence(prompt, room, &ends, seed)?;
        let sequence = wishes::put_on(sequence, &*decoder, config, &engine.spec.decoding)?;
        let (tokenizer, source, notice) = (tokenizer.as_ref(), Some(source), Notice::default());
        let weights = engine.spec.weights.tag();
        self.run(Job { decoder, sequence, tokenizer, source, ends: &ends, stops, room, notice, weights })
    }

    /// Two places may name the seed, and must not contradict each other.
    fn seed(&self, choice: &EngineChoice) -> Result<u64, Failure> {
        match (self.seed, choice.decoding_seed()) {
            (Some(flag), Some(inside)) if flag != inside => {
                Err(anyhow!("--seed {flag} contradicts `seed = {inside}` inside --decoding; give one of them")).usage()
            }
            (flag, inside) => Ok(flag.or(inside).unwrap_or(SEED)),
        }
    }

    fn prompt_of(&self, target: &Checkpoint) -> Result<Vec<TokenId>, Failure> {
        if let Some(ids) = &self.tokens {
            return token_ids("--tokens", ids, target.architecture.vocab_size);
        }
        let prompt = self.prompt.as_deref().map(input::prompt).transpose()?;
        if self.conversation.is_meant() {
            let text = self.conversation.render(target, prompt.as_deref())?;
            // the template has written what begins a text
            return target.reader().and_then(|tokenizer| tokenizer.encode(&text)).usage();
        }
        target.encode(prompt.as_deref().unwrap_or("")).usage()
    }

    fn asked(&self, config: &GenerationConfig, n_prompt: usize) -> Result<usize, Failure> {
        let said = config.new_tokens(n_prompt);
        if self.max_new_tokens.is_none() && said == Some(0) {
            return Err(anyhow!(
                "the prompt has {n_prompt} tokens and generation_config.json leaves none behind it (max_length, max_new_tokens); \
                 give --max-new-tokens"
            ))
            .usage();
        }
        Ok(self.max_new_tokens.or(said).unwrap_or(NEW_TOKENS))
    }

    fn stops(&self, config: &GenerationConfig, choice: &EngineChoice, reads: bool) -> Result<Vec<String>, Failure> {
        let stops = [&self.stop[..], &config.stop_strings].concat();
        if !stops.is_empty() && !reads {
            return Err(anyhow!("--stop: the model has no tokenizer, so there is no text to find it in")).usage();
        }
        if !stops.is_empty() && matches!(choice.decoding_spec()?, DecodingSpec::Beam(_)) {
            return Err(anyhow!("--stop: beam search compares whole continuations; choose another --decoding")).usage();
        }
        Ok(stops)
    }

    fn sequence(&self, prompt: Vec<TokenId>, room: Room, ends: &[TokenId], seed: u64) -> Result<Sequence, Failure> {
        let stop = if self.ignore_eos { vec![] } else { ends.to_vec() };
        Sequence::new(SeqId(0), prompt, room.new_tokens, stop, seed).usage()
    }

    fn run(&self, job: Job<'_>) -> Outcome {
        let Job { mut decoder, mut sequence, tokenizer, source, ends, stops, room, notice, weights } = job;
        let reader = Reader { tokenizer, hidden: ends, stops: &stops };
        let prompt = sequence.tokens().to_vec();
        let mut stream = reader.stream(&prompt);
        let mut text = String::new();
        let (clock, mut first) = (Stopwatch::start(), None);
        let stopped = |stream: &Option<engine::TextStream<'_>>| stream.as_ref().is_some_and(|s| s.stopped());
        while sequence.finished().is_none() && !stopped(&stream) {
            let before = sequence.generated().len();
            let advanced = decoder.advance(std::slice::from_mut(&mut sequence));
            if let Some(Broken { position, n, of }) = notice.first() {
                let cause = "the checkpoint's weights hold values that are not numbers, or values overflow on the way";
                return Err(anyhow!("position {position}: {n} of {of} logits are not numbers: {cause}")).failed();
            }
            advanced.failed()?;
            let new = &sequence.generated()[before..];
            first = first.or((!new.is_empty()).then(|| clock.seconds()));
            let sure = stream.as_mut().map(|stream| stream.push(new));
            let shown = if self.json { None } else { Some(sure.clone().unwrap_or_else(|| ids_in_line(new))) };
            // tokens that nobody sees are not worth computing
            if let Some(text) = shown
                && say(&text).failed()? == Audience::Gone
            {
                return Ok(PASS);
            }
            text += &sure.unwrap_or_default();
        }
        let all = clock.seconds();
        let rest = stream.as_mut().map(|stream| stream.finish()).unwrap_or_default();
        if !self.json {
            print(&format!("{rest}\n"))?;
        }
        text += &rest;
        let finish = finish(&sequence, stopped(&stream), room.is_cut());
        let n_generated = sequence.generated().len();
        if self.json {
            let continuation = Continuation {
                source_ids: source.as_deref().map(numbers),
                prompt_ids: numbers(&prompt),
                ids: numbers(sequence.generated()),
                text: tokenizer.is_some().then_some(text),
                finish,
                hypotheses: decoder.hypotheses(sequence.id()).iter().map(|h| reader.found(&prompt, h)).collect(),
            };
            print(&json(&continuation)?)?;
        }
        if finish == "context" {
            let Room { asked, limit, .. } = room;
            note(&format!(
                "note: the model's context of {limit} positions is full: {n_generated} of {asked} tokens were generated behind a prompt of {}",
                prompt.len()
            ));
        }
        if let Some(first) = first {
            let n_read = source.as_ref().map_or(prompt.len(), Vec::len);
            show_speed(n_read, n_generated, &Times { first, all }, &weights);
        }
        Ok(PASS)
    }
}

/// What the makers' file asks for where no flag says how to decode.
fn decoding_of(config: &GenerationConfig) -> Option<DecodingSpec> {
    let drawn = config.sampling.clone().map(DecodingSpec::Sampled);
    config.beams.clone().map(DecodingSpec::Beam).or(drawn)
}

#[cfg(test)]
mod tests {
    use super::Room;

    #[test]
    fn a_context_that_ends_cuts_what_was_asked_for() {
        let of = |asked, n_prompt| Room::new(asked, n_prompt, 128).expect("fits");
        assert_eq!((of(500, 1).new_tokens, of(500, 1).is_cut()), (128, true));
        assert_eq!((of(128, 1).new_tokens, of(128, 1).is_cut()), (128, false));
        assert_eq!(of(9, 128).new_tokens, 1);
        assert!(Room::new(1, 129, 128).is_err());
        assert_eq!(Room::new(7, 3, usize::MAX).expect("no limit").new_tokens, 7);
    }
}
