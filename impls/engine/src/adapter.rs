//! What: LoRA adapters in the layout of PEFT, merged into a checkpoint's weights or kept apart from them.
//! Source: Hu et al. 2021, arXiv 2106.09685 (scale α/r); Kalajdzievski 2023, arXiv 2312.03732 (α/√r, `use_rslora`).
//! Shapes: `adapter_config.json` and `adapter_model.safetensors` with A `[r, in]` and B `[out, r]` per adapted module.
//! Method: 1. every tensor of the file must belong to a matrix of the model. 2. merged: W + scale·B·A replaces W before anything else
//!   happens to it. 3. apart: y = W·x + scale·B·(A·x), whatever format W gets; stacked products take each module's rows.
//! Exactness: both the same function; apart it is not rounded when W is.
//! Cost: merged nothing; apart see `weights::format::LowRankLinear`.
//! Not handled: fields that change the function and are not read are refused by name (DoRA, biases, saved modules, patterns of ranks).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::block::{BlockOf, Reader, Slot};
use model::checkpoint::{Bytes, CheckpointError, SafeTensorsFile, Tensor, Tensors};
use model::names::{self, Source};
use model::probe::Site;
use model::transform::{NewTensors, Rewritten};
use model::{Architecture, Device, Linear};
use serde_json::Value;
use weights::format::{LowRankLinear, LowRankPair};

use crate::EngineError;
use crate::source::sha256_of;

/// What precedes every module in a file that PEFT wrote.
const PREFIX: &str = "base_model.model.";

/// Fields of `adapter_config.json` that are read, or cannot change what inference computes.
const HARMLESS: &[&str] = &[
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_dropout",
    "megatron_config",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "revision",
    "runtime_config",
    "target_modules",
    "target_parameters",
    "task_type",
    "use_rslora",
];

/// A and B of one module.
#[derive(Debug, Clone)]
struct Factors {
    a: Vec<f32>,
    b: Vec<f32>,
    r: usize,
    /// Output features.
    rows: usize,
}

/// An adapter, read.
#[derive(Debug)]
pub struct Adapter {
    name: String,
    scale: f32,
    modules: BTreeMap<String, Factors>,
    sha256: String,
}

/// An adapter and how a checkpoint carries it.
#[derive(Debug, Clone)]
pub struct Attached {
    /// The adapter.
    pub adapter: Arc<Adapter>,
    /// Whether it is part of the checkpoint's tensors already.
    pub merged: bool,
}

impl Adapter {
    /// Reads the folder `folder`.
    pub fn open(folder: &Path) -> Result<Adapter, EngineError> {
        let config = folder.join("adapter_config.json");
        let text =
            std::fs::read_to_string(&config).map_err(|source| EngineError::Io { file: config.clone(), source })?;
        let file = folder.join("adapter_model.safetensors");
        let io = |source| EngineError::Io { file: file.clone(), source };
        let sha256 = sha256_of(&mut std::fs::File::open(&file).map_err(io)?).map_err(io)?;
        let name = folder.file_name().map_or_else(|| "adapter".into(), |n| n.to_string_lossy().into_owned());
        Adapter::read(&name, (&config, &text), SafeTensorsFile::new(&file, Bytes::map(&file)?)?, sha256)
    }

    /// The adapter `name` inside the binary.
    pub fn embedded(name: &str, config: &str, weights: &'static [u8]) -> Result<Adapter, EngineError> {
        let file = |part: &str| PathBuf::from(format!("embedded:{name}/{part}"));
        let tensors = SafeTensorsFile::new(&file("adapter_model.safetensors"), Bytes::Static(weights))?;
        let sha256 = sha256_of(&mut &*weights).unwrap_or_default();
        Adapter::read(name, (&file("adapter_config.json"), config), tensors, sha256)
    }

    fn read(
        name: &str,
        (file, text): (&Path, &str),
        tensors: SafeTensorsFile,
        sha256: String,
    ) -> Result<Adapter, EngineError> {
        let (r, scale) = read_config(file, text)?;
        let mut modules = BTreeMap::new();
        for tensor in tensors.names() {
            let module = tensor.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(".lora_A.weight"));
            let Some(module) = module else {
                if tensor.ends_with(".lora_B.weight") {
                    continue;
                }
                let problem = format!("{name}: tensor `{tensor}` is neither lora_A nor lora_B of a module");
                return Err(EngineError::Mismatch(format!("{problem}; only plain LoRA adapters can be read")));
            };
            let (a, b) = (tensors.get(tensor)?, tensors.get(&format!("{PREFIX}{module}.lora_B.weight"))?);
            let [rank, columns] = shape_of(&a, tensor)?;
            let [rows, inner] = shape_of(&b, module)?;
            if rank != r || inner != r || columns == 0 {
                let problem =
                    format!("{name}: `{module}` has factors of rank {rank} and {inner}, its config says r = {r}");
                return Err(EngineError::Mismatch(problem));
            }
            modules.insert(module.to_string(), Factors { a: a.data.to_f32(), b: b.data.to_f32(), r, rows });
        }
        if modules.is_empty() {
            return Err(EngineError::Mismatch(format!("{name}: the adapter holds no lora_A tensor")));
        }
        Ok(Adapter { name: name.into(), scale, modules, sha256 })
    }

    /// Folder or embedded name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// sha256 of its weights.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Factors of the module that `source` names, in the words of the checkpoint that `reader` reads.
    fn of(&self, reader: &Reader<'_>, source: &Source) -> Option<&Factors> {
        self.modules.get(&reader.full_name(&source.name))
    }

    /// 1. Fails at a module that is none of the model's, or has other sizes.
    fn check(&self, a: &Architecture, tensors: &dyn Tensors) -> Result<(), EngineError> {
        let reader = Reader::new(a, tensors);
        let sources: Vec<Source> = (0..a.n_layers).flat_map(|layer| adaptable(a, layer)).collect();
        for (module, factors) in &self.modules {
            let Some(source) = sources.iter().find(|source| reader.full_name(&source.name) == *module) else {
                return Err(EngineError::Mismatch(format!(
                    "adapter {}: module `{module}` is no attention or dense MLP projection of this `{}`; it belongs to another model",
                    self.name, a.family
                )));
            };
            let [rows, cols] = source.shape;
            if factors.rows != rows || factors.a.len() != factors.r * cols {
                return Err(EngineError::Mismatch(format!(
                    "adapter {}: module `{module}` adapts {} x {}, the model has {rows} x {cols}",
                    self.name,
                    factors.rows,
                    factors.a.len() / factors.r
                )));
            }
        }
        Ok(())
    }

    /// 2. The tensors of a checkpoint that change when it is merged.
    fn merged(&self, a: &Architecture, tensors: &dyn Tensors) -> Result<NewTensors, EngineError> {
        let reader = Reader::new(a, tensors);
        let mut changed = NewTensors::new();
        for source in (0..a.n_layers).flat_map(|layer| adaptable(a, layer)) {
            let Some(factors) = self.of(&reader, &source) else { continue };
            let [rows, cols] = source.shape;
            let whole = Source::whole(source.name.clone(), source.shape, source.transposed);
            let mut values = reader.matrix(&[whole])?.to_f32();
            self.pair(factors, 0..rows, 0..rows).add_to(&mut values, cols);
            let stored = match source.transposed {
                true => ((0..cols * rows).map(|i| values[i % rows * cols + i / rows]).collect(), vec![cols, rows]),
                false => (values, vec![rows, cols]),
            };
            changed.insert(format!("{}.weight", reader.full_name(&source.name)), (stored.1, stored.0));
        }
        Ok(changed)
    }

    /// B's rows `from` as an addition to the outputs `to`.
    fn pair(&self, factors: &Factors, from: std::ops::Range<usize>, to: std::ops::Range<usize>) -> LowRankPair {
        let b = factors.b[from.start * factors.r..from.end * factors.r].to_vec();
        LowRankPair { a: factors.a.clone(), b, r: factors.r, factor: self.scale, outputs: to }
    }

    /// 3. The products of layer `layer` with the adapter beside them.
    pub(crate) fn attach(
        &self,
        (a, tensors): (&Architecture, &dyn Tensors),
        layer: usize,
        device: &Device,
        linears: BlockOf<Box<dyn Linear>>,
    ) -> Result<BlockOf<Box<dyn Linear>>, EngineError> {
        let reader = Reader::new(a, tensors);
        linears.try_map(layer, &mut |slot: Slot, linear: Box<dyn Linear>| {
            let (mut pairs, mut first) = (vec![], 0);
            for source in read_at(a, layer, slot.site) {
                for rows in &source.rows {
                    if let Some(factors) = self.of(&reader, &source) {
                        pairs.push(self.pair(factors, rows.clone(), first..first + rows.len()));
                    }
                    first += rows.len();
                }
            }
            Ok(match pairs.is_empty() {
                true => linear,
                false => Box::new(LowRankLinear::new(device.cpu().clone(), linear, pairs)),
            })
        })
    }
}

impl Attached {
    /// Puts `adapter` on a checkpoint, its tensors changed where it is merged.
    pub(crate) fn new(
        adapter: Arc<Adapter>,
        merge: bool,
        a: &Architecture,
        tensors: Box<dyn Tensors>,
    ) -> Result<(Attached, Box<dyn Tensors>), EngineError> {
        if a.latent.is_some() || a.shared_keys.is_some() {
            let problem = format!("adapter {}: latent and shared attention cannot carry one yet", adapter.name);
            return Err(EngineError::Mismatch(problem));
        }
        adapter.check(a, &*tensors)?;
        let tensors: Box<dyn Tensors> = match merge {
            true => {
                let changed = adapter.merged(a, &*tensors)?;
                Box::new(Rewritten::new(tensors, changed))
            }
            false => tensors,
        };
        Ok((Attached { adapter, merged: merge }, tensors))
    }
}

/// A checkpoint as if an adapter that stays apart from it were merged: what an oracle computes with.
pub struct Overlay<'a> {
    inner: &'a dyn Tensors,
    changed: NewTensors,
}

impl<'a> Overlay<'a> {
    /// `tensors` of `a` with `adapter` in them.
    pub fn new(adapter: &Adapter, a: &Architecture, tensors: &'a dyn Tensors) -> Result<Overlay<'a>, EngineError> {
        Ok(Overlay { inner: tensors, changed: adapter.merged(a, tensors)? })
    }
}

impl Tensors for Overlay<'_> {
    fn get(&self, name: &str) -> Result<Tensor<'_>, CheckpointError> {
        match self.changed.get(name) {
            Some((shape, values)) => Ok(Tensor {
                shape: shape.clone(),
                data: model::checkpoint::TensorData::F32(std::borrow::Cow::Borrowed(values.as_slice())),
            }),
            None => self.inner.get(name),
        }
    }

    fn contains(&self, name: &str) -> bool {
        self.inner.contains(name)
    }
}

/// The matrices of `layer` that an adapter may name.
fn adaptable(a: &Architecture, layer: usize) -> Vec<Source> {
    let sites = [Site::QkvIn(layer), Site::OutIn(layer), Site::GateUpIn(layer), Site::DownIn(layer)];
    sites.into_iter().flat_map(|site| read_at(a, layer, site)).collect()
}

/// What is stacked into the product that reads at `site`.
fn read_at(a: &Architecture, layer: usize, site: Site) -> Vec<Source> {
    match site {
        Site::QkvIn(_) => names::qkv(a, layer),
        Site::OutIn(_) => vec![names::out(a, layer)],
        Site::GateUpIn(_) if !a.is_sparse(layer) => names::up(a, layer),
        Site::DownIn(_) if !a.is_sparse(layer) => vec![names::down(a, layer)],
        _ => vec![],
    }
}

fn shape_of(tensor: &Tensor<'_>, name: &str) -> Result<[usize; 2], EngineError> {
    match tensor.shape[..] {
        [rows, cols] => Ok([rows, cols]),
        _ => Err(EngineError::Mismatch(format!("adapter tensor `{name}` has shape {:?}, not two sizes", tensor.shape))),
    }
}

/// r and the scale.
fn read_config(file: &Path, text: &str) -> Result<(usize, f32), EngineError> {
    let wrong = |problem: String| EngineError::Mismatch(format!("{}: {problem}", file.display()));
    let config: serde_json::Map<String, Value> =
        serde_json::from_str(text).map_err(|error| wrong(format!("not an adapter's config: {error}")))?;
    let kind = config.get("peft_type").and_then(Value::as_str).unwrap_or_default();
    if kind != "LORA" {
        return Err(wrong(format!("`peft_type` is {kind:?}; only \"LORA\" adapters can be read")));
    }
    let is_off = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    for (field, value) in &config {
        if !HARMLESS.contains(&field.as_str()) && !is_off(value) {
            return Err(wrong(format!("`{field} = {value}` changes what the adapter computes and is not supported")));
        }
    }
    if let Some(bias) = config.get("bias").and_then(Value::as_str).filter(|bias| *bias != "none") {
        return Err(wrong(format!("`bias = {bias:?}`: adapters that change biases are not supported")));
    }
    // these start from another base model than the one they are saved without
    let start = config.get("init_lora_weights").and_then(Value::as_str).unwrap_or_default();
    if ["pissa", "olora", "corda", "loftq"].iter().any(|kind| start.starts_with(kind)) {
        return Err(wrong(format!(
            "`init_lora_weights = {start:?}` changes the base model; convert the adapter to plain LoRA"
        )));
    }
    let r = config.get("r").and_then(Value::as_u64).filter(|r| (1..=1 << 16).contains(r));
    let r = r.ok_or_else(|| wrong("`r` must be a rank from 1 to 65536".into()))? as usize;
    let alpha = config.get("lora_alpha").and_then(Value::as_f64).filter(|alpha| alpha.is_finite());
    let alpha = alpha.ok_or_else(|| wrong("`lora_alpha` must be a number".into()))?;
    let rank_stabilised = config.get("use_rslora").and_then(Value::as_bool).unwrap_or(false);
    let divisor = if rank_stabilised { (r as f64).sqrt() } else { r as f64 };
    Ok((r, (alpha / divisor) as f32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(extra: &str) -> Result<(usize, f32), String> {
        let text = format!(r#"{{"peft_type":"LORA","r":4,"lora_alpha":8{extra}}}"#);
        read_config(Path::new("adapter_config.json"), &text).map_err(|e| e.to_string())
    }

    #[test]
    fn scales_are_those_of_the_papers() {
        assert_eq!(config(""), Ok((4, 2.0)));
        assert_eq!(config(r#","use_rslora":true"#), Ok((4, 4.0)));
        assert_eq!(config(r#","use_dora":false,"rank_pattern":{},"modules_to_save":null,"bias":"none""#), Ok((4, 2.0)));
    }

    #[test]
    fn what_changes_the_function_is_refused_by_name() {
        for (extra, word) in [
            (r#","use_dora":true"#, "use_dora"),
            (r#","bias":"all""#, "bias"),
            (r#","modules_to_save":["lm_head"]"#, "modules_to_save"),
            (r#","rank_pattern":{"q_proj":2}"#, "rank_pattern"),
            (r#","init_lora_weights":"pissa_niter_4""#, "pissa"),
            (r#","something_new":7"#, "something_new"),
        ] {
            let error = config(extra).expect_err(extra);
            assert!(error.contains(word) && error.contains("adapter_config.json"), "{error}");
        }
        let error = read_config(Path::new("f"), r#"{"peft_type":"IA3"}"#).expect_err("not LoRA").to_string();
        assert!(error.contains("IA3"), "{error}");
    }
}
