//! Where a checkpoint comes from, and opening it.

mod hub;
mod random;
mod text;

pub use text::{Text, TextAlone};

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use model::block::Reader;
use model::checkpoint::gguf::{self, Gguf, Types, is_gguf, open_gguf};
use model::checkpoint::{Bytes, Folder, RandomTensors, SafeTensorsFile, Tensors, open_folder};
use model::transform::Transforms;
use model::{Architecture, EncoderDecoderShape, TokenId};

pub use hub::HubClient;
pub use random::SHAPES;

use crate::adapter::{Adapter, Attached};
use crate::quantize::{HalfTables, SideFiles};
use crate::tokenizer::{Beside, Described, Told};
use crate::{Bos, EngineError, TextFacts, Tokenizer};

/// A model a scenario can name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ModelSource {
    /// Inside the binary.
    Embedded(String),
    /// A Hugging Face folder or a GGUF file on disk.
    Folder(PathBuf),
    /// A repository of the Hugging Face hub.
    Hub {
        /// `org/name`.
        repo: String,
        /// Branch, tag or commit.
        revision: String,
    },
    /// Seeded random weights of a named shape, for speed only.
    Random {
        /// Name in [`SHAPES`].
        shape: String,
        /// Seed.
        seed: u64,
    },
}

impl FromStr for ModelSource {
    type Err = EngineError;

    fn from_str(given: &str) -> Result<ModelSource, EngineError> {
        let wrong = |problem: String| EngineError::Source { given: given.into(), problem };
        if given.trim().is_empty() {
            return Err(wrong("it is empty".into()));
        }
        match given.split_once(':') {
            Some(("embedded", name)) => Ok(ModelSource::Embedded(name.into())),
            Some(("random", rest)) => {
                let (shape, seed) = match rest.split_once("?seed=") {
                    None => (rest, 0),
                    Some((shape, seed)) => {
                        (shape, seed.parse().map_err(|_| wrong(format!("seed `{seed}` is not a whole number")))?)
                    }
                };
                random::shape(shape).ok_or_else(|| {
                    let known = random::shape_names().collect::<Vec<_>>().join(", ");
                    wrong(format!("unknown shape `{shape}` (known: {known})"))
                })?;
                Ok(ModelSource::Random { shape: shape.into(), seed })
            }
            Some(("hf", rest)) => {
                let (repo, revision) = rest.split_once('@').unwrap_or((rest, "main"));
                let plain = |s: &str| {
                    !s.is_empty()
                        && s.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
                        && s != "."
                        && s != ".."
                };
                let parts: Vec<&str> = repo.split('/').collect();
                if !(1..=2).contains(&parts.len()) || !parts.iter().all(|p| plain(p)) || !revision.split('/').all(plain)
                {
                    return Err(wrong(format!("`{rest}` is not org/name@revision")));
                }
                Ok(ModelSource::Hub { repo: repo.into(), revision: revision.into() })
            }
            _ => Ok(ModelSource::Folder(given.into())),
        }
    }
}

impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModelSource::Embedded(name) => write!(f, "embedded:{name}"),
            ModelSource::Folder(path) => write!(f, "{}", path.display()),
            ModelSource::Hub { repo, revision } => write!(f, "hf:{repo}@{revision}"),
            ModelSource::Random { shape, seed: 0 } => write!(f, "random:{shape}"),
            ModelSource::Random { shape, seed } => write!(f, "random:{shape}?seed={seed}"),
        }
    }
}

/// A checkpoint inside the binary.
pub struct EmbeddedModel {
    /// Name after `embedded:`.
    pub name: &'static str,
    /// Text of config.json.
    pub config: &'static str,
    /// Bytes of model.safetensors.
    pub weights: &'static [u8],
    /// Bytes of tokenizer.json; none for a model of symbols that stand for no text.
    pub tokenizer: Option<&'static [u8]>,
}

/// What sources need to be resolved.
#[derive(Clone, Copy)]
pub struct Library<'a> {
    /// Checkpoints inside the binary.
    pub embedded: &'a [EmbeddedModel],
    /// Brings a hub repository into a local folder.
    pub hub: &'a dyn Hub,
}

/// Brings repositories of the hub to a local folder.
pub trait Hub {
    /// Folder holding config.json, tokenizer.json and the weights of `repo` at `revision`, downloaded when needed.
    fn fetch(&self, repo: &str, revision: &str) -> Result<PathBuf, EngineError>;
}

/// A checkpoint opened, nothing computed yet.
pub struct Checkpoint {
    /// Where it came from.
    pub source: ModelSource,
    /// Sizes.
    pub architecture: Architecture,
    /// Tensors by name.
    pub tensors: Box<dyn Tensors>,
    /// Tokenizer; random weights have none.
    pub tokenizer: Option<Tokenizer>,
    /// What was changed since it was read.
    pub transforms: Transforms,
    /// A LoRA adapter on it.
    pub adapter: Option<Attached>,
    /// What the files beside the weights say about text.
    pub facts: TextFacts,
    /// Whether a text that is encoded gets its beginning.
    pub bos: Bos,
    /// Why there is no tokenizer, where it is not simply absent.
    without_text: Option<String>,
    /// What a GGUF file says in the words of a folder.
    described: Option<Described>,
    files: Vec<PathBuf>,
    embedded: Option<&'static [u8]>,
}

impl Checkpoint {
    /// Opens `source`: reads its config, maps its weights, parses its tokenizer.
    pub fn open(source: &ModelSource, library: &Library<'_>) -> Result<Checkpoint, EngineError> {
        match source {
            ModelSource::Embedded(name) => Checkpoint::embedded(source, name, library.embedded),
            ModelSource::Folder(path) => Checkpoint::folder(source, path),
            ModelSource::Hub { repo, revision } => Checkpoint::folder(source, &library.hub.fetch(repo, revision)?),
            ModelSource::Random { shape, seed } => {
                let architecture = random::shape(shape).ok_or_else(|| EngineError::Source {
                    given: source.to_string(),
                    problem: "unknown shape".into(),
                })?;
                let tensors = Box::new(RandomTensors::new(architecture.clone(), *seed));
                let facts = TextFacts::none(architecture.vocab_size);
                Ok(Checkpoint {
                    source: source.clone(),
                    architecture,
                    tensors,
                    tokenizer: None,
                    without_text: None,
                    described: None,
                    transforms: Transforms::default(),
                    files: vec![],
                    embedded: None,
                    adapter: None,
                    facts,
                    bos: Bos::default(),
                })
            }
        }
    }

    fn embedded(source: &ModelSource, name: &str, models: &[EmbeddedModel]) -> Result<Checkpoint, EngineError> {
        let found = models.iter().find(|m| m.name == name).ok_or_else(|| {
            let known = models.iter().map(|m| format!("embedded:{}", m.name)).collect::<Vec<_>>().join(", ");
            EngineError::Source {
                given: source.to_string(),
                problem: format!("no such embedded checkpoint (known: {known})"),
            }
        })?;
        refuse_encoder_decoder(source, found.config)?;
        let file = |part: &str| PathBuf::from(format!("embedded:{name}/{part}"));
        let architecture = Architecture::from_json(&file("config.json"), found.config)
            .map_err(model::checkpoint::CheckpointError::from)?;
        let tensors = Box::new(SafeTensorsFile::new(&file("model.safetensors"), Bytes::Static(found.weights))?);
        let parse = |bytes| Tokenizer::from_bytes(&file("tokenizer.json"), bytes, architecture.vocab_size);
        let tokenizer = found.tokenizer.map(parse).transpose()?;
        let facts = TextFacts::of_texts((file("config.json"), found.config), None, architecture.vocab_size)?;
        Ok(Checkpoint {
            source: source.clone(),
            architecture,
            tensors,
            tokenizer,
            without_text: None,
            described: None,
            transforms: Transforms::default(),
            files: vec![],
            embedded: Some(found.weights),
            adapter: None,
            facts,
            bos: Bos::default(),
        })
    }

    fn folder(source: &ModelSource, folder: &Path) -> Result<Checkpoint, EngineError> {
        if is_gguf(folder) {
            return Checkpoint::gguf(source, folder);
        }
        if let Some(file) = only_gguf(source, folder)? {
            return Checkpoint::gguf(source, &file);
        }
        if !folder.is_dir() {
            return Err(EngineError::Source {
                given: source.to_string(),
                problem: format!("`{}` is neither a folder nor a GGUF file", folder.display()),
            });
        }
        // what cannot be read is refused by open_folder
        let config = std::fs::read_to_string(folder.join("config.json")).unwrap_or_default();
        refuse_encoder_decoder(source, &config)?;
        let Folder { architecture, tensors, files } = open_folder(folder)?;
        let (beside, vocab_size) = (Beside::read(folder)?, architecture.vocab_size);
        let tokenizer = Tokenizer::from_folder(folder, &beside, vocab_size)?;
        let facts = TextFacts::of_folder(folder, &config, &beside, tokenizer.as_ref(), vocab_size)?;
        let (source, transforms) = (source.clone(), Transforms::default());
        Ok(Checkpoint {
            source,
            architecture,
            tensors,
            tokenizer,
            without_text: None,
            described: None,
            transforms,
            files,
            embedded: None,
            adapter: None,
            facts,
            bos: Bos::default(),
        })
    }

    /// The checkpoint with `adapter` on it: in its tensors where `merge`, beside every product otherwise.
    pub fn adapted(self, adapter: Arc<Adapter>, merge: bool) -> Result<Checkpoint, EngineError> {
        if self.adapter.is_some() || !self.transforms.is_empty() {
            let problem = "an adapter belongs to the model as it was trained, and only one can be attached";
            return Err(EngineError::Mismatch(format!("{}: {problem}", self.source)));
        }
        let (attached, tensors) = Attached::new(adapter, merge, &self.architecture, self.tensors)?;
        Ok(Checkpoint { adapter: Some(attached), tensors, ..self })
    }

    /// The adapter, where it is no part of the tensors.
    pub fn beside(&self) -> Option<&Adapter> {
        self.adapter.as_ref().filter(|attached| !attached.merged).map(|attached| &*attached.adapter)
    }

    fn gguf(source: &ModelSource, file: &Path) -> Result<Checkpoint, EngineError> {
        let Gguf { architecture, config, tensors, vocabulary, files } = open_gguf(file)?;
        let vocab_size = architecture.vocab_size;
        let described = Some(Described::new(config, vocabulary.as_ref()));
        let without_text = vocabulary.as_ref().and_then(crate::tokenizer::unsupported);
        let parse = |vocabulary| Tokenizer::from_gguf(file, vocabulary, vocab_size);
        let tokenizer = vocabulary.as_ref().filter(|_| without_text.is_none()).map(parse).transpose()?;
        let facts = TextFacts::of_gguf(vocabulary.as_ref(), tokenizer.as_ref(), vocab_size);
        let (source, transforms) = (source.clone(), Transforms::default());
        Ok(Checkpoint {
            source,
            architecture,
            tensors,
            tokenizer,
            without_text,
            described,
            transforms,
            files,
            embedded: None,
            adapter: None,
            facts,
            bos: Bos::default(),
        })
    }

    /// The checkpoint with `transforms` applied to its tensors and architecture.
    pub fn transformed(self, transforms: &Transforms) -> Result<Checkpoint, EngineError> {
        if self.beside().is_some() && !transforms.is_empty() {
            let problem = "an adapter beside the weights fits only the model as it was trained; use merge = true";
            return Err(EngineError::Mismatch(format!("{}[{}]: {problem}", self.source, transforms.tag())));
        }
        let (architecture, tensors) = transforms
            .apply(self.architecture, self.tensors)
            .map_err(|error| EngineError::Mismatch(format!("{}: {error}", self.source)))?;
        Ok(Checkpoint { architecture, tensors, transforms: transforms.clone(), ..self })
    }

    /// The checkpoint whose texts get their beginning when `bos` says.
    pub fn with_bos(self, bos: Bos) -> Checkpoint {
        Checkpoint { bos, ..self }
    }

    /// The checkpoint with embedding and head in 16 bits, as a quantized folder holds them.
    pub fn with_half_tables(self) -> Checkpoint {
        let tensors = Box::new(HalfTables::new(&self.architecture, self.tensors));
        Checkpoint { tensors, ..self }
    }

    /// What a folder written from this checkpoint needs beside its weights, as far as `library` knows it.
    pub fn side_files(&self, library: &Library<'_>) -> Result<SideFiles, EngineError> {
        let given = self.source.to_string();
        let none = || EngineError::Source { given, problem: "it has no config.json that a folder could carry".into() };
        match &self.source {
            ModelSource::Embedded(name) => {
                let found = library.embedded.iter().find(|m| m.name == name).ok_or_else(none)?;
                let tokenizer = found.tokenizer.map(<[u8]>::to_vec);
                Ok(SideFiles { config: found.config.into(), folder: None, tokenizer, more: vec![] })
            }
            ModelSource::Random { shape, .. } => Ok(SideFiles {
                config: random::config(shape).ok_or_else(none)?,
                folder: None,
                tokenizer: None,
                more: vec![],
            }),
            ModelSource::Folder(_) | ModelSource::Hub { .. } => {
                if let Some(Described { config, files, .. }) = &self.described {
                    let tokenizer =
                        self.tokenizer.as_ref().map(Tokenizer::to_json).transpose()?.map(String::into_bytes);
                    return Ok(SideFiles { config: config.clone(), folder: None, tokenizer, more: files.clone() });
                }
                let weights = self.files.first().filter(|file| file.extension().is_some_and(|e| e == "safetensors"));
                let folder = weights.and_then(|file| file.parent()).ok_or_else(none)?;
                let file = folder.join("config.json");
                let config = std::fs::read_to_string(&file).map_err(|source| EngineError::Io { file, source })?;
                Ok(SideFiles { config, folder: Some(folder.into()), tokenizer: None, more: vec![] })
            }
        }
    }

    /// Writes the checkpoint and its tokenizer as a GGUF file to `out`, where it is called `name`; `progress` gets tensors written
    /// and tensors in all.
    pub fn write_gguf(
        &self,
        out: &mut dyn std::io::Write,
        name: &str,
        types: Types,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<(), EngineError> {
        let vocab_size = self.architecture.vocab_size;
        let told = self.told()?;
        let vocabulary = self.tokenizer.as_ref().map(|tokenizer| tokenizer.to_gguf(vocab_size, &told)).transpose()?;
        let model = (&self.architecture, &*self.tensors);
        Ok(gguf::write(out, name, model, vocabulary.as_ref(), types, progress)?)
    }

    /// What the source says about its special tokens.
    fn told(&self) -> Result<Told, EngineError> {
        match &self.described {
            Some(described) => Ok(described.told.clone()),
            None => match self.files.first().and_then(|file| file.parent()) {
                Some(folder) => Told::of_folder(folder, self.architecture.vocab_size),
                None => Ok(Told::default()),
            },
        }
    }

    /// Whether both checkpoints cut text into the same tokens, as far as a probe can tell.
    pub fn reads_like(&self, other: &Checkpoint) -> Result<bool, EngineError> {
        const PROBE: &str = "The tokenizers must agree, naïve café 1234.";
        if self.architecture.vocab_size != other.architecture.vocab_size {
            return Ok(false);
        }
        match (&self.tokenizer, &other.tokenizer) {
            (Some(a), Some(b)) => Ok(a.len() == b.len() && self.encode(PROBE)? == other.encode(PROBE)?),
            (None, None) => Ok(true),
            _ => Ok(false),
        }
    }

    /// How the weights of its layers are stored, where they are codes and no floats: `Q4_K in blocks of 256, Q6_K in blocks of 256`.
    pub fn stored_codes(&self) -> Option<String> {
        let reader = Reader::new(&self.architecture, &*self.tensors);
        let n = self.architecture.n_layers;
        let mut found: Vec<String> = vec![];
        // files that mix types do so by the place of a layer: its ends and its middle show them
        for word in [0, n / 2, n.saturating_sub(1)].into_iter().flat_map(|layer| reader.stored_as(layer)) {
            if !found.contains(&word) {
                found.push(word);
            }
        }
        (!found.is_empty()).then(|| found.join(", "))
    }

    /// Puts the token that begins a text in the place of the first of each of `windows`, where this model has one: windows are cut from the
    /// middle of texts, and a model that always sees a beginning computes something else without it.
    pub fn begin(&self, windows: &mut [Vec<TokenId>]) -> Result<(), EngineError> {
        // a model without a tokenizer reads no text and begins none
        let begins = if self.tokenizer.is_some() { self.begins_with()? } else { None };
        if let Some(token) = begins {
            windows.iter_mut().filter_map(|window| window.first_mut()).for_each(|first| *first = token);
        }
        Ok(())
    }

    /// Whether it is a GGUF file.
    pub fn is_gguf(&self) -> bool {
        self.described.is_some()
    }

    /// The GGUF file it is, as it is: no adapter merged, nothing transformed. The first where the model is split.
    pub fn own_gguf(&self) -> Option<&Path> {
        let as_read = self.adapter.is_none() && self.transforms.is_empty();
        self.files.first().filter(|_| self.is_gguf() && as_read).map(PathBuf::as_path)
    }

    /// Whether the weights are random numbers.
    pub fn is_random(&self) -> bool {
        matches!(self.source, ModelSource::Random { .. })
    }

    /// sha256 of each weight file, by name; reads them whole. Random weights have none: shape and seed say all.
    pub fn hashes(&self) -> Result<Vec<(String, String)>, EngineError> {
        if let Some(bytes) = self.embedded {
            return Ok(vec![("model.safetensors".into(), sha256_of(&mut &*bytes).unwrap_or_default())]);
        }
        let hash = |file: &PathBuf| {
            let io = |source| EngineError::Io { file: file.clone(), source };
            let digest = sha256_of(&mut std::fs::File::open(file).map_err(io)?).map_err(io)?;
            let name =
                file.file_name().map_or_else(|| file.display().to_string(), |n| n.to_string_lossy().into_owned());
            Ok((name, digest))
        };
        self.files.iter().map(hash).collect()
    }
}

/// The GGUF file of `folder`, where it holds one model of this format and none of Hugging Face's.
fn only_gguf(source: &ModelSource, folder: &Path) -> Result<Option<PathBuf>, EngineError> {
    if !folder.is_dir() || folder.join("config.json").exists() {
        return Ok(None);
    }
    let io = |source| EngineError::Io { file: folder.into(), source };
    let mut found = vec![];
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let later = path.file_name().and_then(|name| name.to_str()).is_some_and(gguf::is_later_part);
        if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf")) && path.is_file() && !later {
            found.push(path);
        }
    }
    found.sort();
    if found.len() > 1 {
        let names = found.iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        let names = names.collect::<Vec<_>>().join(", ");
        let problem = format!("the folder holds several GGUF files ({names}); name one of them");
        return Err(EngineError::Source { given: source.to_string(), problem });
    }
    Ok(found.pop())
}

/// A checkpoint of this kind continues one text; an encoder-decoder is opened another way.
fn refuse_encoder_decoder(source: &ModelSource, config: &str) -> Result<(), EngineError> {
    if !EncoderDecoderShape::is_meant_by(config) {
        return Ok(());
    }
    Err(EngineError::Mismatch(format!(
        "{source}: an encoder-decoder translates a source and cannot continue a text alone; use `infermark generate` or `infermark logits` with --encoder-tokens, or name a decoder-only model"
    )))
}

/// Hex sha256 of everything `reader` gives.
pub fn sha256_of(reader: &mut dyn std::io::Read) -> std::io::Result<String> {
    use sha2::Digest;
    let mut hasher = sha2::Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match reader.read(&mut buffer)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    Ok(hasher.finalize().iter().map(|b| format!("{b:02x}")).collect())
}
