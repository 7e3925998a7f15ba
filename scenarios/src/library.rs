//! What the binary brings along: scenario definitions, texts, checkpoints; and how a scenario's names reach them.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use engine::source::sha256_of;
use engine::{Adapter, Checkpoint, EmbeddedModel, EncoderDecoderCheckpoint, EngineError, Library, ModelSource};
use model::checkpoint::gguf::{is_gguf, open_gguf};
use model::transform::Transforms;
use model::{Architecture, EncoderDecoderShape};
use results::summary::ModelCard;
use serde::Deserialize;

use crate::scenario::ModelPart;

/// A scenario inside the binary.
#[derive(Debug, Clone, Copy)]
pub struct Definition {
    /// File stem.
    pub name: &'static str,
    /// Path below `scenarios/`, e.g. `definitions/curated/attention.toml`.
    pub path: &'static str,
    /// The TOML.
    pub text: &'static str,
}

impl Definition {
    /// Folder below `definitions/`: `quickstart`, `curated`, `kernels`, `reproduction`.
    pub fn group(&self) -> &'static str {
        let mut folders = self.path.split('/').skip(1);
        folders.next().filter(|_| folders.next().is_some()).unwrap_or("")
    }
}

/// A text inside the binary, in parts.
#[derive(Debug, Clone, Copy)]
pub struct EmbeddedText {
    /// Name after `embedded:`.
    pub name: &'static str,
    parts: &'static [&'static str],
}

impl EmbeddedText {
    /// The parts, one blank line between them, one newline at the end.
    pub fn joined(&self) -> String {
        let parts: Vec<&str> = self.parts.iter().map(|part| part.trim_end()).collect();
        parts.join("\n\n") + "\n"
    }
}

mod embedded {
    use super::{Definition, EmbeddedText};
    use engine::EmbeddedModel;
    include!(concat!(env!("OUT_DIR"), "/embedded.rs"));
}

/// Every scenario inside the binary, sorted by path.
pub fn definitions() -> &'static [Definition] {
    embedded::DEFINITIONS
}

/// The scenario called `name`.
pub fn definition(name: &str) -> Option<&'static Definition> {
    definitions().iter().find(|d| d.name == name)
}

/// Every text inside the binary.
pub fn texts() -> &'static [EmbeddedText] {
    embedded::TEXTS
}

/// The text called `name`.
pub fn text(name: &str) -> Option<&'static EmbeddedText> {
    texts().iter().find(|t| t.name == name)
}

/// Every task inside the binary: name after `embedded:`, and its items as JSON Lines.
pub fn tasks() -> &'static [(&'static str, &'static str)] {
    embedded::TASKS
}

/// The items of the task called `name`.
pub fn task(name: &str) -> Option<&'static str> {
    tasks().iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// Every checkpoint inside the binary.
pub fn checkpoints() -> &'static [EmbeddedModel] {
    embedded::MODELS
}

/// Hex sha256 of an embedded checkpoint's weights.
pub fn weights_sha256(model: &EmbeddedModel) -> String {
    sha256_of(&mut &*model.weights).unwrap_or_default()
}

/// Pairs of source and target ids (JSON) that the embedded checkpoint `name` was never trained on.
pub fn held_out_pairs(name: &str) -> Option<&'static str> {
    embedded::HELD_OUT.iter().find(|(of, _)| *of == name).map(|(_, text)| *text)
}

/// Everything [`engine::Checkpoint::open`] needs to resolve a source.
pub fn models() -> Library<'static> {
    static HUB: LazyLock<engine::HubClient> = LazyLock::new(engine::HubClient::from_environment);
    Library { embedded: checkpoints(), hub: &*HUB }
}

/// The LoRA adapter written as `given` in the scenario file `file`.
pub fn adapter(given: &str, file: Option<&Path>) -> Result<Adapter, EngineError> {
    let Some(name) = given.strip_prefix("embedded:") else {
        return Adapter::open(&beside(file, Path::new(given)));
    };
    match embedded::ADAPTERS.iter().find(|(known, ..)| *known == name) {
        Some((_, config, weights)) => Adapter::embedded(name, config, weights),
        None => {
            let known: Vec<String> = embedded::ADAPTERS.iter().map(|(name, ..)| format!("embedded:{name}")).collect();
            let known = known.join(", ");
            Err(EngineError::Mismatch(format!("adapter `{given}`: no such embedded adapter (known: {known})")))
        }
    }
}

/// `checkpoint` with the adapter of `part`, where it has one.
pub fn adapted(checkpoint: Checkpoint, part: &ModelPart, file: Option<&Path>) -> Result<Checkpoint, EngineError> {
    match &part.adapter {
        Some(given) => checkpoint.adapted(Arc::new(adapter(given, file)?), part.merge),
        None => Ok(checkpoint),
    }
}

/// The model source written as `given` in the scenario file `file`; a relative folder starts at the file's folder.
pub fn model_source(given: &str, file: Option<&Path>) -> Result<ModelSource, EngineError> {
    Ok(match given.parse()? {
        ModelSource::Folder(path) => ModelSource::Folder(beside(file, &path)),
        other => other,
    })
}

/// `path`, read from the folder of `file` when it is relative.
pub fn beside(file: Option<&Path>, path: &Path) -> std::path::PathBuf {
    file.and_then(Path::parent).map_or_else(|| path.to_path_buf(), |folder| folder.join(path))
}

/// The encoder-decoder that `part` of the scenario file `file` names; nothing where it is of another kind or is changed by
/// transforms, which encoder-decoders do not have.
pub fn encoder_decoder(part: &ModelPart, file: Option<&Path>) -> Result<Option<EncoderDecoderCheckpoint>, EngineError> {
    match part.transforms.is_empty() {
        true => EncoderDecoderCheckpoint::open(&model_source(&part.source, file)?, &models()),
        false => Ok(None),
    }
}

/// Sizes of the decoder-only model at `source` as far as they are known without reading weights or using the network.
pub fn architecture(source: &ModelSource) -> Result<Option<Architecture>, EngineError> {
    let parse = |file: &Path, text: &str| {
        if EncoderDecoderShape::is_meant_by(text) {
            return Ok(None);
        }
        Architecture::from_json(file, text).map(Some).map_err(|e| EngineError::Checkpoint(e.into()))
    };
    match source {
        ModelSource::Embedded(name) => match checkpoints().iter().find(|m| m.name == name) {
            Some(found) => parse(Path::new(&format!("embedded:{name}/config.json")), found.config),
            None => engine::Checkpoint::open(source, &models()).map(|c| Some(c.architecture)),
        },
        ModelSource::Folder(file) if is_gguf(file) => Ok(Some(open_gguf(file)?.architecture)),
        ModelSource::Folder(folder) => {
            let file = folder.join("config.json");
            match std::fs::read_to_string(&file) {
                Ok(text) => parse(&file, &text),
                Err(source) => Err(EngineError::Io { file, source }),
            }
        }
        ModelSource::Random { .. } => engine::Checkpoint::open(source, &models()).map(|c| Some(c.architecture)),
        ModelSource::Hub { .. } => Ok(None),
    }
}

/// Sizes of the model that `part` of the scenario file `file` names, its transforms applied, as far as they are known.
pub fn architecture_of(part: &ModelPart, file: Option<&Path>) -> Result<Option<Architecture>, EngineError> {
    let known = architecture(&model_source(&part.source, file)?)?;
    let changed = |a| part.transforms.architecture(&a).map_err(|e| EngineError::Mismatch(e.to_string()));
    known.map(changed).transpose()
}

/// The part of `training.json` that a reader of results wants.
#[derive(Deserialize)]
struct Training {
    tokens: u64,
    held_out: HeldOut,
    arguments: Arguments,
}

#[derive(Deserialize)]
struct HeldOut {
    text: String,
    window: u64,
    ppl: f64,
    unigram_ppl: f64,
    bigram_ppl: f64,
}

#[derive(Deserialize)]
struct Arguments {
    seed: u64,
}

/// What a reader should know about the model `part`, whose checkpoint (as it is before its transforms) is open.
pub fn model_card(part: &ModelPart, checkpoint: &engine::Checkpoint) -> ModelCard {
    let source = &checkpoint.source;
    // transforms that this architecture refuses have failed the model's cells already
    let architecture =
        &part.transforms.architecture(&checkpoint.architecture).unwrap_or(checkpoint.architecture.clone());
    let mut facts = vec![(
        "shape".to_string(),
        format!(
            "{} layers, hidden {}, {} query and {} KV heads of {}, vocabulary {}",
            architecture.n_layers,
            architecture.hidden,
            architecture.n_heads,
            architecture.n_kv_heads,
            architecture.head_dim,
            architecture.vocab_size
        ),
    )];
    match source {
        ModelSource::Embedded(name) => facts.extend(training_facts(name)),
        ModelSource::Random { seed, .. } => {
            facts.push(("weights".into(), format!("random, seed {seed}: speed only, no quality")));
        }
        ModelSource::Folder(_) | ModelSource::Hub { .. } => {}
    }
    let mut shown = source.to_string();
    if part.tag() != part.source {
        shown += part.tag().strip_prefix(&part.source).unwrap_or_default();
    }
    if !part.transforms.is_empty() {
        facts.push(("transforms".into(), json_of(&part.transforms)));
    }
    if let Some(adapter) = &part.adapter {
        facts.push((
            "adapter".into(),
            format!("{adapter}, {}", if part.merge { "merged" } else { "beside the weights" }),
        ));
    }
    let parameters = architecture.parameters();
    ModelCard { source: shown, parameters, f32_bytes: 4 * parameters, facts }
}

/// What a reader should know about the encoder-decoder `pair`.
pub fn encoder_decoder_card(pair: &EncoderDecoderCheckpoint) -> ModelCard {
    let shape = &pair.shape;
    let stack = |s: model::encoder_decoder::Stack| {
        format!("{} layers of {} heads and feed-forward {}", s.n_layers, s.n_heads, s.ffn)
    };
    let form = format!(
        "{}-norm encoder of {}, decoder of {}, hidden {}, vocabulary {}",
        if shape.pre_norm { "pre" } else { "post" },
        stack(shape.encoder),
        stack(shape.decoder),
        shape.hidden,
        shape.vocab_size
    );
    let parameters = shape.parameters();
    let facts = vec![("shape".into(), form)];
    ModelCard { source: pair.source.to_string(), parameters, f32_bytes: 4 * parameters, facts }
}

/// Transforms as JSON, for provenance.
pub fn json_of(transforms: &Transforms) -> String {
    // a struct of numbers and names has no way to fail
    serde_json::to_string(transforms).unwrap_or_default()
}

fn training_facts(name: &str) -> Vec<(String, String)> {
    let Some((_, text)) = embedded::TRAINING.iter().find(|(of, _)| *of == name) else { return vec![] };
    let Ok(training) = serde_json::from_str::<Training>(text) else { return vec![] };
    let held_out = &training.held_out;
    vec![
        (
            "held-out perplexity".into(),
            format!(
                "{:.1} on {} (window {}); a unigram model has {:.1}, a bigram model {:.1} on the same tokens",
                held_out.ppl, held_out.text, held_out.window, held_out.unigram_ppl, held_out.bigram_ppl
            ),
        ),
        ("training tokens".into(), training.tokens.to_string()),
        ("training seed".into(), training.arguments.seed.to_string()),
    ]
}
