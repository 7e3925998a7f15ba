//! A Hugging Face folder written while its layers are quantized. Everything goes to a folder beside the target that gets the
//! target's name when it is whole, so that a partial one is never taken for a finished one.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use half::f16;
use model::block::Reader;
use model::checkpoint::{CheckpointError, Dtype, NewTensor, ShardWriter, StoredCodes, Tensor, TensorData, Tensors};
use model::{Architecture, names};
use serde_json::{Value, json};
use weights::WeightsSpec;

use super::format::CheckpointFormat;
use super::{NewValues, QuantizedLayer, QuantizedMatrix};
use crate::{Checkpoint, EngineError};

/// Lies in a folder that is not finished.
const MARK: &str = "UNFINISHED";
/// What is copied from the source's folder.
const COPIED: &[&str] = &["json", "jinja", "model", "txt", "tiktoken", "py"];
/// What belongs to the source's weights alone.
const OWN: &[&str] = &["config.json", "quantize_config.json", "quant_config.json", "model.safetensors.index.json"];

/// Tensors with embedding and head in 16 bits where they were f32: what a written folder holds, and so what codes are
/// chosen beside. Values beyond f16 stay as they are.
pub struct HalfTables {
    inner: Box<dyn Tensors>,
    tables: [String; 2],
}

impl HalfTables {
    /// `inner`, a checkpoint of `a`.
    pub fn new(a: &Architecture, inner: Box<dyn Tensors>) -> HalfTables {
        let tables = [a.names.embedding, a.names.head].map(|name| format!("{name}.weight"));
        HalfTables { inner, tables }
    }
}

impl Tensors for HalfTables {
    fn get(&self, name: &str) -> Result<Tensor<'_>, CheckpointError> {
        let tensor = self.inner.get(name)?;
        let is_table = self.tables.iter().any(|table| name.ends_with(table.as_str()));
        match &tensor.data {
            TensorData::F32(values) if is_table && values.iter().all(|v| v.abs() < 65520.0) => {
                let halves = values.iter().map(|&v| f16::from_f32(v)).collect();
                Ok(Tensor { shape: tensor.shape, data: TensorData::F16(Cow::Owned(halves)) })
            }
            _ => Ok(tensor),
        }
    }

    fn contains(&self, name: &str) -> bool {
        self.inner.contains(name)
    }

    fn stored_as(&self, name: &str) -> Option<String> {
        self.inner.stored_as(name)
    }

    fn codes(&self, name: &str) -> Result<Option<StoredCodes>, CheckpointError> {
        let is_table = self.tables.iter().any(|table| name.ends_with(table.as_str()));
        if is_table { Ok(None) } else { self.inner.codes(name) }
    }
}

/// What lies beside the weights of a Hugging Face folder.
pub struct SideFiles {
    /// Text of config.json.
    pub config: String,
    /// Where tokenizer and other files are copied from.
    pub folder: Option<PathBuf>,
    /// tokenizer.json, for sources without a folder.
    pub tokenizer: Option<Vec<u8>>,
    /// Other small files of such sources: name and text.
    pub more: Vec<(String, String)>,
}

/// A finished folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenFolder {
    /// Weight files.
    pub files: Vec<String>,
    /// Bytes of tensors.
    pub bytes: u64,
    /// Bytes of the matrices that were quantized, constants included.
    pub quantized_bytes: u64,
    /// Weights in them.
    pub quantized_weights: u64,
    /// Zeros of 0, which v1 of the GPTQ layout stores wrapped.
    pub wrapped_zeros: u64,
}

/// Writes the folder.
pub struct FolderWriter<'a> {
    checkpoint: &'a Checkpoint,
    spec: &'a WeightsSpec,
    format: CheckpointFormat,
    target: PathBuf,
    partial: PathBuf,
    shards: ShardWriter,
    written: HashSet<String>,
    left: Vec<String>,
    totals: WrittenFolder,
}

impl<'a> FolderWriter<'a> {
    /// Into `target`, which must not exist; weight files hold at most `shard_bytes`.
    pub fn new(
        checkpoint: &'a Checkpoint,
        spec: &'a WeightsSpec,
        format: CheckpointFormat,
        target: &Path,
        shard_bytes: u64,
    ) -> Result<FolderWriter<'a>, EngineError> {
        format.check(spec, &checkpoint.architecture)?;
        // a link that leads nowhere is there too
        if target.symlink_metadata().is_ok() {
            return Err(EngineError::Mismatch(format!("{}: exists already; name a new folder", target.display())));
        }
        let mut name = OsString::from(target.file_name().unwrap_or_default());
        name.push(".unfinished");
        let partial = target.with_file_name(name);
        if partial.exists() && !partial.join(MARK).exists() {
            let problem = format!("{}: exists and is not ours; move it away", partial.display());
            return Err(EngineError::Mismatch(problem));
        }
        if partial.exists() {
            // left by a run that was stopped
            std::fs::remove_dir_all(&partial).map_err(|e| cannot_write(&partial, e))?;
        }
        std::fs::create_dir_all(&partial).map_err(|e| cannot_write(&partial, e))?;
        let mark = partial.join(MARK);
        std::fs::write(&mark, "the folder beside this name appears when everything is written\n")
            .map_err(|e| cannot_write(&mark, e))?;
        let known = names::tensors(&checkpoint.architecture);
        let longest = known.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 8;
        let shards = ShardWriter::new(&partial, shard_bytes, 4 * known.len(), longest);
        let totals =
            WrittenFolder { files: vec![], bytes: 0, quantized_bytes: 0, quantized_weights: 0, wrapped_zeros: 0 };
        let (target, written) = (target.to_path_buf(), HashSet::new());
        Ok(FolderWriter { checkpoint, spec, format, target, partial, shards, written, left: vec![], totals })
    }

    /// The folder that is being filled.
    pub fn partial(&self) -> &Path {
        &self.partial
    }

    /// Removes what was written.
    pub fn abandon(self) {
        // nothing is left to be told when this fails too: the mark stays
        let _ = std::fs::remove_dir_all(&self.partial);
    }

    /// Writes a layer's matrices and the vectors that changed.
    pub fn layer(&mut self, layer: QuantizedLayer) -> Result<(), EngineError> {
        let reader = Reader::new(&self.checkpoint.architecture, &*self.checkpoint.tensors);
        for QuantizedMatrix { source, values } in layer.matrices {
            let module = reader.full_name(&source.name);
            if let NewValues::Unchanged = values {
                self.left.extend(source.name.rsplit('.').next().map(str::to_string));
                continue;
            }
            let tensors = self.format.tensors(&module, &source, &values).ok_or_else(|| {
                EngineError::Mismatch(format!("{module}: the layout cannot hold its codes; use --format safetensors"))
            })?;
            if let (NewValues::Group(codes), CheckpointFormat::Gptq { v2: false }) = (&values, self.format) {
                self.totals.wrapped_zeros += codes.zeros.iter().filter(|&&zero| zero == 0.0).count() as u64;
            }
            self.totals.quantized_weights += (source.shape[0] * source.shape[1]) as u64;
            self.written.insert(format!("{module}.weight"));
            for tensor in tensors {
                self.totals.quantized_bytes += tensor.bytes.len() as u64;
                self.shards.add(tensor)?;
            }
        }
        for (name, values) in layer.vectors {
            let name = reader.full_name(&name);
            let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            self.written.insert(name.clone());
            self.shards.add(NewTensor { name, dtype: Dtype::F32, shape: vec![values.len()], bytes })?;
        }
        Ok(())
    }

    /// Writes everything else; [`Sealed::publish`] remains.
    pub fn finish(&mut self, side: &SideFiles) -> Result<(), EngineError> {
        let a = &self.checkpoint.architecture;
        let reader = Reader::new(a, &*self.checkpoint.tensors);
        for (name, _) in names::tensors(a) {
            let bare = name.strip_prefix(a.names.prefixes[0]).unwrap_or(&name);
            let outside = bare.strip_prefix(a.names.head).is_some_and(|rest| rest.starts_with('.'));
            let name = if outside { bare.to_string() } else { reader.full_name(bare) };
            if !self.written.contains(&name) {
                let tensor = self.checkpoint.tensors.get(&name)?;
                self.shards.add(new_tensor(name, tensor))?;
            }
        }
        self.side_files(side)
    }

    fn side_files(&self, side: &SideFiles) -> Result<(), EngineError> {
        let write = |name: &str, bytes: &[u8]| {
            let file = self.partial.join(name);
            std::fs::write(&file, bytes).map_err(|e| cannot_write(&file, e))
        };
        let text = |value: &Value| format!("{value:#}\n");
        let mut config: Value = serde_json::from_str(&side.config)
            .map_err(|e| EngineError::Mismatch(format!("{}: config.json: {e}", self.checkpoint.source)))?;
        let left: Vec<&str> = self.left.iter().map(String::as_str).collect::<HashSet<_>>().into_iter().collect();
        if let Some(fields) = config.as_object_mut() {
            fields.remove("quantization_config");
            let dtype = if fields.contains_key("torch_dtype") { "torch_dtype" } else { "dtype" };
            fields.insert(dtype.into(), json!("float16"));
            if let Some(quantization) = self.format.config(self.spec, &left) {
                if let CheckpointFormat::Gptq { .. } = self.format {
                    write("quantize_config.json", text(&quantization).as_bytes())?;
                }
                fields.insert("quantization_config".into(), quantization);
            }
        }
        write("config.json", text(&config).as_bytes())?;
        if let Some(folder) = &side.folder {
            copy_side_files(folder, &self.partial)?;
        }
        if let Some(tokenizer) = &side.tokenizer {
            write("tokenizer.json", tokenizer)?;
        }
        side.more.iter().try_for_each(|(name, text)| write(name, text.as_bytes()))?;
        // a folder's own files say it all, and what it leaves unsaid stays so
        let lacks = |name: &str| side.folder.is_none() && !self.partial.join(name).exists();
        if lacks("generation_config.json") {
            let kept = ["bos_token_id", "eos_token_id", "pad_token_id"];
            let kept = kept.into_iter().filter_map(|key| Some((key.to_string(), config.get(key)?.clone())));
            write("generation_config.json", text(&Value::Object(kept.collect())).as_bytes())?;
        }
        if self.partial.join("tokenizer.json").exists() && lacks("tokenizer_config.json") {
            write("tokenizer_config.json", text(&json!({ "tokenizer_class": "PreTrainedTokenizerFast" })).as_bytes())?;
        }
        Ok(())
    }

    /// Ends the weight files. [`Sealed::publish`] remains.
    pub fn seal(self) -> Result<Sealed, EngineError> {
        let written = self.shards.finish()?;
        let totals = WrittenFolder { files: written.files, bytes: written.bytes, ..self.totals };
        Ok(Sealed { target: self.target, partial: self.partial, totals })
    }
}

/// A folder with everything in it, under its preliminary name.
pub struct Sealed {
    target: PathBuf,
    /// Where it lies.
    pub partial: PathBuf,
    /// What is in it.
    pub totals: WrittenFolder,
}

impl Sealed {
    /// Gives the folder its name.
    pub fn publish(self) -> Result<WrittenFolder, EngineError> {
        let mark = self.partial.join(MARK);
        std::fs::remove_file(&mark).map_err(|e| cannot_write(&mark, e))?;
        std::fs::rename(&self.partial, &self.target).map_err(|e| cannot_write(&self.target, e))?;
        Ok(self.totals)
    }
}

fn new_tensor(name: String, tensor: Tensor<'_>) -> NewTensor {
    let (dtype, bytes) = match &tensor.data {
        TensorData::F32(values) => (Dtype::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        TensorData::F16(values) => (Dtype::F16, values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        TensorData::Bf16(values) => (Dtype::BF16, values.iter().flat_map(|v| v.to_le_bytes()).collect()),
    };
    NewTensor { name, dtype, shape: tensor.shape, bytes }
}

/// Tokenizer, generation settings, licences: every small file that does not describe the source's weights.
fn copy_side_files(from: &Path, to: &Path) -> Result<(), EngineError> {
    let io = |source| EngineError::Io { file: from.into(), source };
    for entry in std::fs::read_dir(from).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let kind = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        let wanted = (COPIED.contains(&kind) && !OWN.contains(&name)) || name.starts_with("LICENSE");
        if wanted && path.is_file() {
            std::fs::copy(&path, to.join(name)).map_err(|e| cannot_write(&to.join(name), e))?;
        }
    }
    Ok(())
}

fn cannot_write(file: &Path, source: std::io::Error) -> EngineError {
    CheckpointError::Io { file: file.into(), action: "cannot write", source }.into()
}
