//! A Hugging Face folder: `config.json` beside `model.safetensors` or a sharded set with its index.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::quantized::{Layout, QuantizedTensors};
use super::stray::refuse_strays;
use super::{Bytes, CheckpointError, RawTensors, SafeTensorsFile, SafeTensorsSet, Tensors};
use crate::architecture::Architecture;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

/// A checkpoint folder, its weights mapped.
pub struct Folder {
    /// Sizes.
    pub architecture: Architecture,
    /// Tensors by name.
    pub tensors: Box<dyn Tensors>,
    /// Weight files in name order.
    pub files: Vec<PathBuf>,
}

/// Reads `config.json` and maps the weights of `folder`. An already quantized checkpoint reads as its dequantised values;
/// [`Tensors::codes`] gives its codes.
pub fn open_folder(folder: &Path) -> Result<Folder, CheckpointError> {
    let config = folder.join("config.json");
    let text = std::fs::read_to_string(&config).map_err(|source| CheckpointError::Io {
        file: config.clone(),
        action: "cannot read",
        source,
    })?;
    let architecture = Architecture::from_json(&config, &text)?;
    let layout = Layout::of_folder(folder, &config, &text)?;
    let (raw, files) = open_raw(folder)?;
    refuse_strays(&architecture, &*raw)?;
    let tensors: Box<dyn Tensors> = match layout {
        Some(layout) => Box::new(QuantizedTensors::new(layout, &architecture, raw)),
        None => raw,
    };
    Ok(Folder { architecture, tensors, files })
}

/// Maps the weights of `folder`; beside the tensors, the files that hold them in name order.
pub fn open_weights(folder: &Path) -> Result<(Box<dyn Tensors>, Vec<PathBuf>), CheckpointError> {
    let (raw, files) = open_raw(folder)?;
    Ok((raw, files))
}

/// [`open_weights`] with access to bytes.
pub fn open_raw(folder: &Path) -> Result<(Box<dyn RawTensors>, Vec<PathBuf>), CheckpointError> {
    let (single, index) = (folder.join(SINGLE), folder.join(INDEX));
    if !single.exists() && index.exists() {
        let (set, files) = open_sharded(folder, &index)?;
        return Ok((Box::new(set), files));
    }
    let single = if single.exists() { Some(single) } else { only_safetensors(folder) };
    let Some(single) = single else {
        return Err(CheckpointError::Malformed {
            file: folder.into(),
            problem: format!("holds neither {SINGLE} nor {INDEX}"),
            advice: "point at a Hugging Face folder with safetensors weights (convert .bin files with transformers' save_pretrained)",
        });
    };
    let file = SafeTensorsFile::new(&single, Bytes::map(&single)?)?;
    Ok((Box::new(file), vec![single]))
}

/// The one safetensors file of `folder`: quantizers have names of their own (`gptq_model-4bit-128g.safetensors`).
fn only_safetensors(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found: Vec<PathBuf> = entries.filter(|p| p.extension().is_some_and(|e| e == "safetensors")).collect();
    if found.len() == 1 { found.pop() } else { None }
}

fn open_sharded(folder: &Path, index: &Path) -> Result<(SafeTensorsSet, Vec<PathBuf>), CheckpointError> {
    let malformed = |problem: String| CheckpointError::Malformed {
        file: index.into(),
        problem,
        advice: "copy or download the checkpoint again",
    };
    let text = std::fs::read_to_string(index).map_err(|source| CheckpointError::Io {
        file: index.into(),
        action: "cannot read",
        source,
    })?;
    let parsed: Index = serde_json::from_str(&text).map_err(|e| malformed(format!("not a shard index: {e}")))?;
    let mut names: Vec<&String> = parsed.weight_map.values().collect();
    names.sort();
    names.dedup();
    let (mut files, mut paths) = (vec![], vec![]);
    for name in &names {
        // A shard name comes from an untrusted file: it must be a plain name inside the folder.
        let plain = Path::new(name).components().collect::<Vec<_>>();
        if !matches!(plain.as_slice(), [Component::Normal(_)]) {
            return Err(malformed(format!("shard name `{name}` leaves the folder")));
        }
        let path = folder.join(name);
        files.push(SafeTensorsFile::new(&path, Bytes::map(&path)?)?);
        paths.push(path);
    }
    let mut place = HashMap::new();
    for (tensor, shard) in &parsed.weight_map {
        let at = names.binary_search(&shard).map_err(|_| malformed(format!("shard `{shard}` is unknown")))?;
        if !files[at].contains(tensor) {
            return Err(malformed(format!("tensor `{tensor}` is not in `{shard}` as the index says")));
        }
        place.insert(tensor.clone(), at);
    }
    Ok((SafeTensorsSet::new(index.into(), files, place), paths))
}
