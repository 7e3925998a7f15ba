//! Opening and assembling an encoder–decoder: the same sources, weight formats, attention and caches as for decoders.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use decoding::Decoder;
use model::checkpoint::{Bytes, CheckpointError, SafeTensorsFile, Tensors, open_weights};
use model::encoder_decoder::Caches;
use model::{Device, EncoderDecoder, EncoderDecoderSession, EncoderDecoderShape, TokenId, Unsupported};

use crate::engine::plain_format;
use crate::generation::Reads;
use crate::layer::linear;
use crate::text_facts::TextFacts;
use crate::tokenizer::Beside;
use crate::{EngineError, EngineSpec, GenerationConfig, Library, ModelSource, Tokenizer};

/// An encoder–decoder checkpoint opened, nothing computed yet.
pub struct EncoderDecoderCheckpoint {
    /// Where it came from.
    pub source: ModelSource,
    /// Sizes.
    pub shape: EncoderDecoderShape,
    /// Tensors by name.
    pub tensors: Box<dyn Tensors>,
    /// Tokenizer, where there is one.
    pub tokenizer: Option<Tokenizer>,
    /// What the files beside the weights say about text.
    pub facts: TextFacts,
}

impl EncoderDecoderCheckpoint {
    /// Opens `source` where its config.json is one of an encoder–decoder; nothing for every other source, which
    /// [`Checkpoint::open`](crate::Checkpoint::open) opens or refuses.
    pub fn open(source: &ModelSource, library: &Library<'_>) -> Result<Option<EncoderDecoderCheckpoint>, EngineError> {
        match source {
            ModelSource::Random { .. } => Ok(None),
            ModelSource::Folder(folder) => EncoderDecoderCheckpoint::folder(source, folder),
            ModelSource::Hub { repo, revision } => {
                EncoderDecoderCheckpoint::folder(source, &library.hub.fetch(repo, revision)?)
            }
            ModelSource::Embedded(name) => {
                let Some(found) = library.embedded.iter().find(|m| m.name == name) else { return Ok(None) };
                if !EncoderDecoderShape::is_meant_by(found.config) {
                    return Ok(None);
                }
                let file = |part: &str| PathBuf::from(format!("embedded:{name}/{part}"));
                let shape = EncoderDecoderShape::from_json(&file("config.json"), found.config)
                    .map_err(CheckpointError::from)?;
                let tensors = SafeTensorsFile::new(&file("model.safetensors"), Bytes::Static(found.weights))?;
                let parse = |bytes| Tokenizer::from_bytes(&file("tokenizer.json"), bytes, shape.vocab_size);
                let tokenizer = found.tokenizer.map(parse).transpose()?;
                let facts = TextFacts::of_texts((file("config.json"), found.config), None, shape.vocab_size)?;
                let (source, tensors) = (source.clone(), Box::new(tensors));
                Ok(Some(EncoderDecoderCheckpoint { source, shape, tensors, tokenizer, facts }))
            }
        }
    }

    fn folder(source: &ModelSource, folder: &Path) -> Result<Option<EncoderDecoderCheckpoint>, EngineError> {
        let config = folder.join("config.json");
        // what cannot be read is refused, with a reason, by the way that decoders are opened
        let Ok(text) = std::fs::read_to_string(&config) else { return Ok(None) };
        if !EncoderDecoderShape::is_meant_by(&text) {
            return Ok(None);
        }
        let shape = EncoderDecoderShape::from_json(&config, &text).map_err(CheckpointError::from)?;
        let (tensors, _) = open_weights(folder)?;
        let beside = Beside::read(folder)?;
        let tokenizer = Tokenizer::from_folder(folder, &beside, shape.vocab_size)?;
        let facts = TextFacts::of_folder(folder, &text, &beside, tokenizer.as_ref(), shape.vocab_size)?;
        Ok(Some(EncoderDecoderCheckpoint { source: source.clone(), shape, tensors, tokenizer, facts }))
    }

    /// How its makers generate with it.
    pub fn generation(&self) -> Result<GenerationConfig, EngineError> {
        self.facts.generation(Reads::Source)
    }

    /// Source tokens of `text`, with what the tokenizer's template adds (the end token, mostly).
    pub fn encode(&self, text: &str) -> Result<Vec<TokenId>, EngineError> {
        match &self.tokenizer {
            Some(tokenizer) => tokenizer.encode_with_special(text),
            None => Err(EngineError::Mismatch(format!(
                "{}: no tokenizer.json beside the weights, so it cannot read text; give token ids",
                self.source
            ))),
        }
    }
}

/// What building an encoder–decoder needs beside its checkpoint.
#[derive(Clone, Copy)]
pub struct EncoderDecoderParts<'a> {
    /// Its parts.
    pub spec: &'a EngineSpec,
    /// Where it computes.
    pub device: &'a Device,
    /// Tokens that a source may have.
    pub source_tokens: usize,
    /// Tokens that a target may have.
    pub target_tokens: usize,
}

/// An encoder–decoder, ready to run.
pub struct EncoderDecoderEngine {
    /// Its parts.
    pub spec: EngineSpec,
    /// Where it computes.
    pub device: Device,
    /// The model.
    pub model: Arc<EncoderDecoder>,
    source_tokens: usize,
    target_tokens: usize,
}

impl EncoderDecoderEngine {
    /// Puts the weights of `checkpoint` into their format.
    pub fn build(
        checkpoint: EncoderDecoderCheckpoint,
        parts: EncoderDecoderParts<'_>,
    ) -> Result<EncoderDecoderEngine, EngineError> {
        let EncoderDecoderCheckpoint { source, shape, tensors, .. } = checkpoint;
        let EncoderDecoderParts { spec, device, source_tokens, target_tokens } = parts;
        if device.cuda().is_some() {
            let reason = format!("{source}: cross attention has no kernel on a GPU; use a cpu device");
            return Err(Unsupported { axis: "device", variant: device.name(), reason }.into());
        }
        let limit = shape.max_positions;
        for (side, tokens) in [("source", source_tokens), ("target", target_tokens)] {
            if tokens > limit {
                return Err(EngineError::Mismatch(format!(
                    "{source}: a {side} of {tokens} tokens, config.json allows max_position_embeddings {limit}; shorten it"
                )));
            }
        }
        for (part, tag, asks) in [
            ("weights", spec.weights.tag(), spec.weights.needs_calibration()),
            ("decoding", spec.decoding.tag(), spec.decoding.needs_draft()),
        ] {
            if asks {
                return Err(EngineError::Mismatch(format!(
                    "{source}: {part} `{tag}` is for decoder-only models, this is an encoder-decoder; choose another part"
                )));
            }
        }
        let make = &mut |slot: &str, matrix: &_| {
            let format = if slot == "head" { &plain_format(&spec.weights) } else { &spec.weights };
            linear(format, device, slot, matrix, None)
        };
        let attention = spec.attention.build(device)?;
        let model = Arc::new(EncoderDecoder::build::<EngineError>(shape, device.clone(), attention, &*tensors, make)?);
        Ok(EncoderDecoderEngine { spec: spec.clone(), device: device.clone(), model, source_tokens, target_tokens })
    }

    /// A session without sources.
    pub fn session(&self) -> Result<EncoderDecoderSession, EngineError> {
        let (shape, kv) = (self.model.shape(), &self.spec.kv);
        let caches = Caches {
            encoder: kv.build(shape.encoder_kv(), self.source_tokens, &self.device)?,
            sources: kv.build(shape.decoder_kv(), self.source_tokens, &self.device)?,
            decoder: kv.build(shape.decoder_kv(), self.target_tokens, &self.device)?,
        };
        Ok(EncoderDecoderSession::new(self.model.clone(), caches))
    }

    /// A decoder over `session`, whose sources are encoded already.
    pub fn decoder(&self, session: EncoderDecoderSession) -> Result<Box<dyn Decoder>, EngineError> {
        Ok(self.spec.decoding.build(Box::new(session), None)?)
    }
}
