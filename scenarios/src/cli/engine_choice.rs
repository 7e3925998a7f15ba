//! A model and parts from flags, for the commands that need an engine and no scenario.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use clap::Args;
use decoding::{BeamSpec, DecodingSpec};
use engine::{
    BuildOptions, Checkpoint, EncoderDecoderCheckpoint, EncoderDecoderEngine, EncoderDecoderParts, Engine, EngineSpec,
};
use model::{SeqId, Step, TokenId};
use toml::{Table, Value};

use super::{Blame, Failure, overrides};
use crate::scenario::Parts;
use crate::{library, machine, text};

/// Windows and tokens per window for quantizers that calibrate, as a scenario has them by default.
const CALIBRATION: (usize, usize) = (32, 256);

/// Which model and which parts.
#[derive(Args, Clone)]
pub struct EngineChoice {
    /// embedded:NAME, random:SHAPE, hf:org/name@revision, a Hugging Face folder or a GGUF file
    #[arg(long, value_name = "SOURCE")]
    model: String,
    /// LoRA adapter on the model: embedded:NAME or a folder in PEFT's layout
    #[arg(long, value_name = "SOURCE")]
    adapter: Option<String>,
    /// Merge the adapter into the weights before they are quantized, instead of keeping it beside them
    #[arg(long, requires = "adapter")]
    merge_adapter: bool,
    /// Draft model for speculative decoding, same forms
    #[arg(long, value_name = "SOURCE")]
    draft: Option<String>,
    /// Attention: flash, naive, or a table such as '{ kind = "flash" }'
    #[arg(long, value_name = "PART", default_value = "flash")]
    attention: String,
    /// Weights: f32, f16, bf16, int8, or '{ kind = "gptq", bits = 4, group = 128 }'
    #[arg(long, value_name = "PART", default_value = "f32")]
    weights: String,
    /// KV cache
    #[arg(long, value_name = "PART", default_value = "contiguous")]
    kv: String,
    /// Decoding: greedy, sampled, speculative, or '{ kind = "sampled", temperature = 0.8, top_p = 0.95 }'
    /// [default: greedy; of an encoder-decoder what its generation_config.json says]
    #[arg(long, value_name = "PART")]
    decoding: Option<String>,
    /// Device: cpu, or '{ kind = "cpu", isa = "scalar" }'
    #[arg(long, value_name = "PART", default_value = "cpu")]
    device: String,
    /// Text for quantizers that calibrate
    #[arg(long, value_name = "TEXT", default_value = "embedded:calibration")]
    calibration: String,
    /// Worker threads [default: the physical cores]
    #[arg(long, value_name = "N", value_parser = thread_count)]
    threads: Option<usize>,
    #[arg(skip)]
    beams: Option<usize>,
    /// What the checkpoint asks for where no flag does.
    #[arg(skip)]
    default_beams: Option<BeamSpec>,
}

/// An engine, and the checkpoint it was built from.
pub struct Built {
    /// The engine.
    pub engine: Engine,
    /// The target's checkpoint.
    pub target: Checkpoint,
}

/// A number of worker threads, as `[budget]` takes it.
pub fn thread_count(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|n| (1..=1024).contains(n));
    count.ok_or_else(|| "expected a whole number from 1 to 1024".into())
}

impl EngineChoice {
    /// Opens the target alone.
    pub fn open(&self) -> Result<Checkpoint, Failure> {
        let target = open(&self.model)?;
        match &self.adapter {
            None => Ok(target),
            Some(given) => {
                let adapter = library::adapter(given, None).usage()?;
                target.adapted(Arc::new(adapter), self.merge_adapter).usage()
            }
        }
    }

    /// Builds an engine whose sequences hold `context_tokens`.
    pub fn build(&self, target: Checkpoint, context_tokens: usize) -> Result<Built, Failure> {
        let spec = self.spec()?;
        if let Err(refusal) =
            spec.plan(engine::PlanFacts { has_draft: self.draft.is_some(), random_weights: target.is_random() })
        {
            return Err(anyhow!(
                "{refusal}; {}",
                if spec.decoding.needs_draft() { "give --draft" } else { "choose other parts" }
            ))
            .usage();
        }
        let threads = self.threads.unwrap_or_else(machine::default_threads);
        let device = spec.device.open(threads).usage()?;
        let draft = self.draft.as_deref().map(open).transpose()?;
        let calibration = if spec.weights.needs_calibration() { self.windows(&target)? } else { vec![] };
        let options = BuildOptions { context_tokens, calibration: &calibration, progress: &mut |_, _| {} };
        let engine = Engine::build(&spec, &target, draft.as_ref(), &device, options).failed()?;
        Ok(Built { engine, target })
    }

    /// The same choice, decoding with `beams` beams where that was asked for.
    pub fn with_beams(&self, beams: Option<usize>) -> EngineChoice {
        EngineChoice { beams, ..self.clone() }
    }

    /// The same choice, with `beams` where no flag says how to decode.
    pub fn or_beams(&self, beams: Option<BeamSpec>) -> EngineChoice {
        EngineChoice { default_beams: beams, ..self.clone() }
    }

    /// Opens the model where it is an encoder-decoder.
    pub fn open_encoder_decoder(&self) -> Result<Option<EncoderDecoderCheckpoint>, Failure> {
        let source = library::model_source(&self.model, None).usage()?;
        blamed(EncoderDecoderCheckpoint::open(&source, &library::models()))
    }

    /// Builds an encoder-decoder for sources and targets of at most so many tokens.
    pub fn build_encoder_decoder(
        &self,
        checkpoint: EncoderDecoderCheckpoint,
        source_tokens: usize,
        target_tokens: usize,
    ) -> Result<EncoderDecoderEngine, Failure> {
        if self.draft.is_some() {
            return Err(anyhow!("--draft: an encoder-decoder is decoded without one; leave it out")).usage();
        }
        let spec = self.spec()?;
        let device = spec.device.open(self.threads.unwrap_or_else(machine::default_threads)).usage()?;
        let parts = EncoderDecoderParts { spec: &spec, device: &device, source_tokens, target_tokens };
        match EncoderDecoderEngine::build(checkpoint, parts) {
            Err(error @ engine::EngineError::Mismatch(_)) => Err(error).usage(),
            other => other.failed(),
        }
    }

    fn spec(&self) -> Result<EngineSpec, Failure> {
        let decoding = self.decoding.clone().unwrap_or_else(|| "greedy".into());
        let axes = [
            ("attention", &self.attention),
            ("weights", &self.weights),
            ("kv", &self.kv),
            ("decoding", &decoding),
            ("device", &self.device),
        ];
        let table: Table = axes.iter().map(|(axis, given)| (axis.to_string(), overrides::parse_value(given))).collect();
        let parts = serde_path_to_error::deserialize::<_, Parts>(Value::Table(table))
            .map_err(|error| anyhow!("--{}: {}", error.path(), error.inner().message()))
            .usage()?;
        let missing = || anyhow!("a part is missing");
        Ok(EngineSpec {
            attention: parts.attention.with_context(missing).usage()?,
            weights: parts.weights.with_context(missing).usage()?,
            kv: parts.kv.with_context(missing).usage()?,
            decoding: self.decoding(parts.decoding.with_context(missing).usage()?)?,
            device: parts.device.with_context(missing).usage()?,
        })
    }

    fn decoding(&self, given: DecodingSpec) -> Result<DecodingSpec, Failure> {
        let unsaid = self.decoding.is_none().then(|| self.default_beams.clone()).flatten();
        let given = unsaid.map_or(given, DecodingSpec::Beam);
        let spec = match (self.beams, given) {
            (Some(1), _) if self.decoding.is_none() => DecodingSpec::Greedy,
            (None, given) => given,
            (Some(n_beams), DecodingSpec::Greedy) => DecodingSpec::Beam(BeamSpec { n_beams, ..BeamSpec::default() }),
            (Some(n_beams), DecodingSpec::Beam(spec)) => DecodingSpec::Beam(BeamSpec { n_beams, ..spec }),
            (Some(_), other) => {
                return Err(anyhow!("--beams: decoding `{}` has no beams; leave one of them out", other.tag())).usage();
            }
        };
        spec.validate().usage()?;
        Ok(spec)
    }

    fn windows(&self, target: &Checkpoint) -> Result<Vec<Vec<TokenId>>, Failure> {
        let tokens = target.encode(&text::resolve(&self.calibration, None).usage()?).failed()?;
        let (n, length) = CALIBRATION;
        if tokens.len() < length {
            let given = &self.calibration;
            return Err(anyhow!(
                "--calibration {given}: {} tokens are fewer than one window of {length}; give a longer text",
                tokens.len()
            ))
            .usage();
        }
        let all: Vec<&[TokenId]> = tokens.chunks_exact(length).collect();
        let n = n.min(all.len());
        Ok((0..n).map(|i| all[i * all.len() / n].to_vec()).collect())
    }
}

/// The checkpoint written as `given` on the command line.
pub fn open(given: &str) -> Result<Checkpoint, Failure> {
    let source = library::model_source(given, None).usage()?;
    blamed(Checkpoint::open(&source, &library::models()))
}

fn blamed<T>(opened: Result<T, engine::EngineError>) -> Result<T, Failure> {
    match opened {
        // a name or a folder that does not exist is the caller's; a broken file is not
        Err(error @ (engine::EngineError::Source { .. } | engine::EngineError::Hub { .. })) => Err(error).usage(),
        other => other.failed(),
    }
}

impl Built {
    /// Logits of every token of `tokens`, `[n, vocab]`.
    pub fn logits(&self, tokens: &[TokenId]) -> Result<model::Activations, Failure> {
        let mut session = self.engine.session().failed()?;
        let step = Step::extend(SeqId(0), 0, tokens).with_all_logits();
        model::StepModel::forward(&mut session, &step).failed().cloned()
    }
}

/// Whether every one of `logits` is a number; `place` names the position in the error.
pub fn finite(logits: &[f32], place: impl FnOnce() -> String) -> Result<(), Failure> {
    let broken = logits.iter().filter(|v| !v.is_finite()).count();
    if broken == 0 {
        return Ok(());
    }
    let cause = "the checkpoint's weights hold values that are not numbers, or values overflow on the way";
    let advice = "check the file, or try --weights f32 and --attention naive to see which part it is";
    Err(anyhow!("{}: {broken} of {} logits are not numbers: {cause}; {advice}", place(), logits.len())).failed()
}

/// `1,2,3` as token ids below `vocab`; `flag` names them in errors.
pub fn token_ids(flag: &str, text: &str, vocab: usize) -> Result<Vec<TokenId>, Failure> {
    let id = |word: &str| -> anyhow::Result<TokenId> {
        let id: u32 =
            word.trim().parse().with_context(|| format!("{flag}: {word:?} is not a token id; expected 1,2,3"))?;
        match (id as usize) < vocab {
            true => Ok(TokenId(id)),
            false => Err(anyhow!("{flag}: {id} is outside the vocabulary of {vocab} entries")),
        }
    };
    text.split(',').map(id).collect::<anyhow::Result<Vec<_>>>().usage()
}
