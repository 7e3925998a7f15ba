//! A model and parts from flags, for the commands that need an engine and no scenario.

use std::sync::Arc;

use anyhow::{Context, anyhow};
use clap::Args;
use decoding::{BeamSpec, DecodingSpec, SamplingSpec};
use engine::{
    Bos, BuildOptions, Checkpoint, EncoderDecoderCheckpoint, EncoderDecoderEngine, EncoderDecoderParts, Engine,
    EngineSpec, TextAlone,
};
use model::{SeqId, Step, TokenId};
use toml::{Table, Value};
use weights::WeightsSpec;

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
    /// Weights: f32, f16, bf16, int8, stored, or '{ kind = "gptq", bits = 4, group = 128 }'
    /// [default: f32; for generate from a GGUF file on the processor its own codes with activations coded to int8 in blocks of 32,
    /// '{ kind = "stored", activations = "int8" }': several times faster and smaller than f32, and at most half a step of 1/127 of a
    /// block's largest activation away from it; stored alone keeps activations in f32]
    #[arg(long, value_name = "PART")]
    weights: Option<String>,
    /// Whether weights that no flag names are the checkpoint's own codes.
    #[arg(skip)]
    own_codes: bool,
    /// KV cache
    #[arg(long, value_name = "PART", default_value = "contiguous")]
    kv: String,
    /// Decoding: greedy, sampled, speculative, or '{ kind = "sampled", temperature = 0.8, top_p = 0.95 }'
    /// [default: greedy; for generate what the model's generation_config.json says]
    #[arg(long, value_name = "PART")]
    decoding: Option<String>,
    /// Device: cpu, or '{ kind = "cpu", isa = "scalar" }'
    #[arg(long, value_name = "PART", default_value = "cpu")]
    device: String,
    /// The token that begins a text, and the one that ends it: auto (as the tokenizer's template or the GGUF keys say), always,
    /// never
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = bos)]
    bos: Bos,
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
    unsaid: Option<DecodingSpec>,
    #[arg(skip)]
    draws: Draws,
}

/// Flags for the distribution that tokens are drawn from; each wins over every other place that says it.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct Draws {
    /// Draw tokens; the logits are divided by this (0: the most likely token)
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
    /// Draw from so many most likely tokens
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Draw from the most likely tokens whose mass reaches this
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Draw from tokens at least this fraction as likely as the most likely one
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
}

impl Draws {
    fn over(&self, spec: SamplingSpec) -> SamplingSpec {
        SamplingSpec {
            temperature: self.temperature.unwrap_or(spec.temperature),
            top_k: self.top_k.or(spec.top_k),
            top_p: self.top_p.or(spec.top_p),
            min_p: self.min_p.or(spec.min_p),
            seed: spec.seed,
        }
    }
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

/// `auto`, `always` or `never`.
pub fn bos(text: &str) -> Result<Bos, String> {
    match text {
        "auto" => Ok(Bos::Auto),
        "always" => Ok(Bos::Always),
        "never" => Ok(Bos::Never),
        _ => Err("expected auto, always or never".into()),
    }
}

impl EngineChoice {
    /// Opens the target alone.
    pub fn open(&self) -> Result<Checkpoint, Failure> {
        let target = open(&self.model)?.with_bos(self.bos);
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
        if self.draft.is_some() && !spec.decoding.needs_draft() {
            let cause = format!("decoding `{}` asks no draft model", spec.decoding.tag());
            return Err(anyhow!("--draft: {cause}; add --decoding speculative, or leave the draft out")).usage();
        }
        let device = spec.device.open(self.threads()).usage()?;
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

    /// The same choice, with `decoding` where no flag says how to decode.
    pub fn or_decoding(&self, decoding: Option<DecodingSpec>) -> EngineChoice {
        EngineChoice { unsaid: decoding, ..self.clone() }
    }

    /// The same choice, drawing as `draws` say.
    pub fn with_draws(&self, draws: &Draws) -> EngineChoice {
        EngineChoice { draws: draws.clone(), ..self.clone() }
    }

    /// The same choice, with the codes of `target` where it is a GGUF file and no flag says how weights are stored.
    pub fn or_own_codes(&self, target: &Checkpoint) -> EngineChoice {
        EngineChoice { own_codes: target.is_gguf(), ..self.clone() }
    }

    /// Whether a text gets its beginning.
    pub fn bos(&self) -> Bos {
        self.bos
    }

    /// The worker threads.
    pub fn threads(&self) -> usize {
        self.threads.unwrap_or_else(machine::default_threads)
    }

    /// The seed written inside `--decoding`, where one is.
    pub fn decoding_seed(&self) -> Option<u64> {
        let given = overrides::parse_value(self.decoding.as_deref()?);
        let seed = given.get("seed").or_else(|| given.get("sampling")?.get("seed"))?;
        seed.as_integer().and_then(|seed| u64::try_from(seed).ok())
    }

    /// How it decodes.
    pub fn decoding_spec(&self) -> Result<DecodingSpec, Failure> {
        Ok(self.spec()?.decoding)
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
        let device = spec.device.open(self.threads()).usage()?;
        let parts = EncoderDecoderParts { spec: &spec, device: &device, source_tokens, target_tokens };
        match EncoderDecoderEngine::build(checkpoint, parts) {
            Err(error @ engine::EngineError::Mismatch(_)) => Err(error).usage(),
            other => other.failed(),
        }
    }

    fn spec(&self) -> Result<EngineSpec, Failure> {
        let decoding = self.decoding.clone().unwrap_or_else(|| "greedy".into());
        let weights = self.weights.clone().unwrap_or_else(|| "f32".into());
        let axes = [
            ("attention", &self.attention),
            ("weights", &weights),
            ("kv", &self.kv),
            ("decoding", &decoding),
            ("device", &self.device),
        ];
        let table: Table = axes.iter().map(|(axis, given)| (axis.to_string(), overrides::parse_value(given))).collect();
        let parts = serde_path_to_error::deserialize::<_, Parts>(Value::Table(table))
            .map_err(|error| anyhow!("--{}: {}", error.path(), error.inner().message()))
            .usage()?;
        let missing = || anyhow!("a part is missing");
        let device = parts.device.with_context(missing).usage()?;
        let weights = match (&self.weights, self.own_codes) {
            (None, true) if device.is_gpu() => WeightsSpec::Stored,
            (None, true) => WeightsSpec::StoredInt8,
            _ => parts.weights.with_context(missing).usage()?,
        };
        Ok(EngineSpec {
            attention: parts.attention.with_context(missing).usage()?,
            weights,
            kv: parts.kv.with_context(missing).usage()?,
            decoding: self.decoding(parts.decoding.with_context(missing).usage()?)?,
            device,
        })
    }

    fn decoding(&self, given: DecodingSpec) -> Result<DecodingSpec, Failure> {
        let unsaid = self.decoding.is_none().then(|| self.unsaid.clone()).flatten();
        let given = unsaid.unwrap_or(given);
        let spec = match (self.beams, given) {
            (Some(1), _) if self.decoding.is_none() => DecodingSpec::Greedy,
            (None, given) => self.drawn(given)?,
            (Some(n_beams), DecodingSpec::Sampled(_)) if self.decoding.is_none() => {
                DecodingSpec::Beam(BeamSpec { n_beams, ..BeamSpec::default() })
            }
            (Some(n_beams), DecodingSpec::Greedy) => DecodingSpec::Beam(BeamSpec { n_beams, ..BeamSpec::default() }),
            (Some(n_beams), DecodingSpec::Beam(spec)) => DecodingSpec::Beam(BeamSpec { n_beams, ..spec }),
            (Some(_), other) => {
                return Err(anyhow!("--beams: decoding `{}` has no beams; leave one of them out", other.tag())).usage();
            }
        };
        spec.validate().usage()?;
        Ok(spec)
    }

    /// `given` with the flags for drawing put in; a flag alone asks for drawing.
    fn drawn(&self, given: DecodingSpec) -> Result<DecodingSpec, Failure> {
        match given {
            given if self.draws == Draws::default() => Ok(given),
            DecodingSpec::Sampled(spec) => Ok(DecodingSpec::Sampled(self.draws.over(spec))),
            DecodingSpec::Speculative(decoding::SpeculativeSpec { gamma, sampling: Some(spec) }) => {
                let sampling = Some(self.draws.over(spec));
                Ok(DecodingSpec::Speculative(decoding::SpeculativeSpec { gamma, sampling }))
            }
            _ if self.decoding.is_none() => Ok(DecodingSpec::Sampled(self.draws.over(SamplingSpec::default()))),
            other => {
                let problem = "draws no tokens; leave out --temperature, --top-k, --top-p and --min-p";
                Err(anyhow!("--decoding {}: {problem}", other.tag())).usage()
            }
        }
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
        let mut windows: Vec<Vec<TokenId>> = (0..n).map(|i| all[i * all.len() / n].to_vec()).collect();
        target.begin(&mut windows).failed()?;
        Ok(windows)
    }
}

/// The checkpoint written as `given` on the command line.
pub fn open(given: &str) -> Result<Checkpoint, Failure> {
    let source = library::model_source(given, None).usage()?;
    blamed(Checkpoint::open(&source, &library::models()))
}

/// Opens the tokenizer of the checkpoint that `given` names, whatever its weights are.
pub fn open_text(given: &str) -> Result<TextAlone, Failure> {
    let source = library::model_source(given, None).usage()?;
    blamed(TextAlone::open(&source, &library::models()))
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
